--[[
expire: take away FSMs of one machine that finished in one state long enough ago; bounded.

Those that have mail, or that a worker has in hand, or of which a key is of another type, are left to `purge`, which is
told about them. What is in this index and does not belong there is taken out of it. Of what lies in a storage is noted
that it is over.

KEYS      1 finished:<machine>:<state>   2 errors:<machine>   3 held
ARGV      1 prefix   2 how long ago they finished at least, ms   3 most FSMs   4 how many of the oldest to pass over,
          which an earlier call has left   5 machine   6 state
RETURNS   EXPIRED, names of those that are gone, each with the id of its life, as much of those that are left, and how
          many were looked at
REPEATED  by state: what is gone is not in the index any more, and a name that lives again has not finished
]]
local index, errors, held = KEYS[1], KEYS[2], KEYS[3]
local prefix, age, most, skipped, machine, state = ARGV[1], tonumber(ARGV[2]), ARGV[3], ARGV[4], ARGV[5], ARGV[6]
-- Not refused by a full Redis, and after it nothing in this script is. A replica refuses it, and so confirms nothing.
call('PERSIST', held)
local ms = clock()
local until_ms = string.format('%.0f', tonumber(ms) - age)
local gone, left, strays, names = {}, {}, {}, {}
local found = call('ZRANGE', index, '-inf', until_ms, 'BYSCORE', 'LIMIT', skipped, most)
for _, name in ipairs(found) do
  local snapshot, mailbox = prefix .. 'snapshot:' .. name, prefix .. 'mailbox:' .. name
  local f = try('HMGET', snapshot, 'born', 'status', 'machine', 'state', 'timers', 'retry_at', 'definition')
  if f.err or f[2] == 'purging' then
    left[#left + 1] = name
    left[#left + 1] = f[1] or ''
  elseif not f[1] or f[2] ~= 'finished' or f[3] ~= machine or f[4] ~= state then
    strays[#strays + 1] = name
  elseif f[5] or f[6] or call('EXISTS', prefix .. 'lock:' .. name, mailbox, prefix .. 'urgent:' .. name,
    prefix .. 'later:' .. name) > 0 then
    left[#left + 1] = name
    left[#left + 1] = f[1]
  else
    note_drop(prefix, machine, name, f[1], f[7], ms)
    call('UNLINK', snapshot, prefix .. 'effects:' .. name, prefix .. 'audit:' .. name)
    gone[#gone + 1] = name
    gone[#gone + 1] = f[1]
    names[#names + 1] = name
  end
end
if #strays > 0 then variadic('ZREM', index, strays) end
if #names > 0 then
  variadic('ZREM', index, names)
  variadic('ZREM', errors, names)
  variadic('ZREM', held, names)
end
return { 'EXPIRED', gone, left, #found }
