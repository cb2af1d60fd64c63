--[[
cancel: take back an event that no worker has in its hands.

KEYS      1 rq:job:<id>
ARGV      1 prefix   2 job id
RETURNS   CANCELLED it will not be applied; ENDED it was applied, refused, failed or taken away before; HELD a worker may
          be applying it just now; UNKNOWN no record of ours
REPEATED  by state: what is cancelled is CANCELLED again
]]
local prefix, id = ARGV[1], ARGV[2]
local f = call('HMGET', KEYS[1], 'place', 'fsm', 'status', 'origin')
if not f[1] or not f[2] then return { 'UNKNOWN' } end
if f[3] == 'canceled' then return { 'CANCELLED' } end
if f[1] ~= 'mail' and f[1] ~= 'later' then return { 'ENDED' } end
if call('EXISTS', prefix .. 'lock:' .. f[2]) == 1 then
  -- A claim takes at most the first hundred; what lies behind them nobody has.
  local claimed = call('LRANGE', prefix .. 'mailbox:' .. f[2], 0, 99)
  for _, taken in ipairs(claimed) do
    if taken == id then return { 'HELD' } end
  end
end
local _, s = clock()
call('HSET', KEYS[1], 'status', 'canceled')
call('ZADD', 'rq:canceled:' .. (f[4] or ''), s, id)
return { 'CANCELLED' }
