--[[
clock: in tests, a clock that can be moved; the loader puts it behind that of the prelude, where FSM_TEST_CLOCK says so.

Only the ms move, by which FSMs live. Seconds and µs are the true ones: they stand in RQ's records, as RQ writes them.

KEYS      none of its own
ARGV      none of its own
RETURNS   nothing
REPEATED  it only defines a function
]]
local true_clock = clock
function clock()
  local ms, s, us = true_clock()
  return string.format('%.0f', ms + (tonumber(try('GET', 'fsm:clock')) or 0)), s, us
end
