--[[
note: write the last failure of one FSM beside its snapshot, or forget it; its version stays as it is.

KEYS      none: names come as arguments, and cluster mode is refused at connect
ARGV      1 prefix   2 name   3 error as JSON, or ""
RETURNS   NOTED; UNKNOWN no such FSM; BROKEN a key of it is of another type
REPEATED  harmless
]]
is_strict = true
local prefix, name, why = ARGV[1], ARGV[2], ARGV[3]
local snapshot = prefix .. 'snapshot:' .. name
local f = try('HMGET', snapshot, 'born', 'status', 'machine')
if permitted(f).err then return { 'BROKEN' } end
if not f[1] or f[2] == 'purging' then
  insist_on_primary(prefix)
  return { 'UNKNOWN' }
end
local errors = prefix .. 'errors:' .. (f[3] or '')
if why == '' then
  call('HDEL', snapshot, 'error')
  try('ZREM', errors, name)
else
  call('HSET', snapshot, 'error', why)
  try('ZADD', errors, (clock()), name)
end
return { 'NOTED' }
