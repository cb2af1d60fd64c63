--[[
put: write the snapshot of one FSM from outside, in the place of what was read, or of whatever is older.

Mail is not touched. Where the state or the life becomes another one, what belonged to the old one goes: timers, the time
of a retry, an event that was owed, and of an old life its audit; timers of the new state are not armed.

KEYS      none: names come as arguments, and cluster mode is refused at connect
ARGV      1 prefix   2 name   3 what is to be there: "none", "older", or this version of the same life   4 nonce
          5 born   6 machine   7 state   8 status   9 version   10 payload   11 error, or ""   12 mark of the definition
          13 ms of the store   14 what else is kept of this version   15 queue and   16 max_mailbox of an FSM that is new
          to Redis, or ""   17 default queue
RETURNS   STORED; OTHER something else is there, and OLDER what was to be put is: each with version, born and state of what
          is there; HELD a worker is at it, or it is being purged: call again later; BROKEN a key of it is of another type
REPEATED  known by the nonce, until somebody else writes the snapshot: STORED again, nothing is written
]]
is_strict = true
local prefix, name, expected, nonce, born = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5]
local machine, state, status, version, ms = ARGV[6], ARGV[7], ARGV[8], ARGV[9], ARGV[13]
local snapshot = prefix .. 'snapshot:' .. name
local f = try('HMGET', snapshot, 'born', 'version', 'machine', 'state', 'status', 'queue', 'timers', 'retry_at', 'paused',
  'put', 'definition')
if permitted(f).err then return { 'BROKEN' } end
local there, old = f[1], prefix .. (f[5] == 'finished' and 'finished:' or 'state:') .. (f[3] or '') .. ':' .. (f[4] or '')
if there and f[10] and string.sub(f[10], 1, #nonce + 1) == nonce .. ' ' then
  insist_on_primary(prefix)
  return { 'STORED' }
end
-- Numbers of up to 19 digits, which Lua would round: the longer one is the greater, of two as long the later text.
local function less(one, other)
  if #one ~= #other then return #one < #other end
  return one < other
end
local word
if expected == 'none' then
  if there then word = 'OTHER' end
elseif expected == 'older' then
  if there and (less(born, there) or (born == there and less(version, f[2] or '0'))) then word = 'OLDER' end
elseif there ~= born or f[2] ~= expected then
  word = 'OTHER'
end
if word then
  insist_on_primary(prefix)
  return { word, f[2] or '', there or '', f[4] or '' }
end
if f[5] == 'purging' or call('EXISTS', prefix .. 'lock:' .. name) == 1 then return { 'HELD' } end
local queue = there and (f[6] or ARGV[17]) or (ARGV[15] ~= '' and ARGV[15] or ARGV[17])
if not sound(prefix, queue) then return { 'BROKEN' } end

local is_other_life = there ~= born
local is_moved = is_other_life or f[3] ~= machine or f[4] ~= state
local since = ms
if not is_moved then
  local known = try('ZSCORE', old, name)
  if type(known) == 'string' then since = known end
end
if is_other_life then
  if there then note_drop(prefix, f[3], name, there, f[11], ms) end
  call('UNLINK', snapshot, prefix .. 'audit:' .. name)
end
call('HSET', snapshot, 'machine', machine, 'state', state, 'payload', ARGV[10], 'version', version, 'born', born,
  'definition', ARGV[12], 'updated_at', ms, 'put', nonce .. ' ' .. version .. ' ' .. ARGV[14])
if not there then
  if queue ~= ARGV[17] then call('HSET', snapshot, 'queue', queue) end
  if ARGV[16] ~= '' and ARGV[16] ~= '10000' then call('HSET', snapshot, 'max_mailbox', ARGV[16]) end
elseif is_other_life and f[6] then
  call('HSET', snapshot, 'queue', queue)
end
if status == 'running' then call('HDEL', snapshot, 'status') else call('HSET', snapshot, 'status', status) end
if is_moved and there then
  call('HDEL', snapshot, 'owes', 'tries', 'retry_at', 'timers', 'refused')
  disarm(prefix, name, f[7], f[8])
end
local index = prefix .. (status == 'finished' and 'finished:' or 'state:') .. machine .. ':' .. state
if there and old ~= index then try('ZREM', old, name) end
try('ZADD', index, since, name)
try('SADD', prefix .. 'states', machine .. ':' .. state)
if there and f[3] and (f[3] ~= machine or ARGV[11] == '') then try('ZREM', prefix .. 'errors:' .. f[3], name) end
if ARGV[11] == '' then
  call('HDEL', snapshot, 'error')
else
  call('HSET', snapshot, 'error', ARGV[11])
  try('ZADD', prefix .. 'errors:' .. machine, ms, name)
end
if status == 'failed' or (f[9] and not is_other_life) then
  try('ZREM', prefix .. 'ready:' .. queue, name)
elseif is_moved or f[5] == 'failed' then
  -- Mail of an FSM that rested in a failure, or waited for a retry, is looked at now; a second time in `ready` is no harm.
  ring_if_mail(prefix, queue, name)
  flush_ready(prefix)
end
return { 'STORED' }
