--[[
due: make FSMs ready whose time has come: those whose oldest event is to be tried again.

KEYS      1 timers
ARGV      1 prefix   2 default queue   3 most FSMs   4 ms: what is due within them counts as due
RETURNS   DUE, how many were made ready, ms until the next one is due or -1
REPEATED  by state: what was made ready is not in `timers` any more
]]
local timers = KEYS[1]
local prefix, default_queue, most, ahead = ARGV[1], ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4])
-- Not refused by a full Redis, and after it nothing in this script is.
call('PERSIST', timers)
local ms = tonumber((clock()))
local function at(moment) return string.format('%.0f', moment) end
local rung_count = 0
local due = try('ZRANGEBYSCORE', timers, '-inf', at(ms + ahead), 'LIMIT', 0, most)
if due.err then return { 'DUE', 0, -1 } end
for _, member in ipairs(due) do
  local name = string.match(member, '^retry (.+)$')
  local f = name and try('HMGET', prefix .. 'snapshot:' .. name, 'queue', 'retry_at')
  local retry_at = f and not f.err and is_whole(f[2]) and tonumber(f[2])
  local queue = f and not f.err and f[1] or default_queue
  if not name or retry_at and (retry_at > ms + ahead or not sound(prefix, queue)) then
    -- Not ours to tell; or put off; or it cannot be made ready before somebody has repaired a key.
    call('ZADD', timers, at(retry_at and retry_at > ms + ahead and retry_at or ms + 60000), member)
  else
    call('ZREM', timers, member)
    if retry_at then
      if retry_at > ms then call('HSET', prefix .. 'snapshot:' .. name, 'retry_at', at(ms)) end
      local id = head(prefix, name)
      if id then
        local key = 'rq:job:' .. id
        if try('HGET', key, 'status') == 'scheduled' then
          call('HSET', key, 'status', 'queued')
          call('HDEL', key, 'exc_info')
        end
        try('ZREM', 'rq:scheduled:' .. queue, id)
        ring(queue, name, id)
        rung_count = rung_count + 1
      end
    end
  end
end
flush_ready(prefix)
local next_one = try('ZRANGE', timers, 0, 0, 'WITHSCORES')
return { 'DUE', rung_count, next_one[2] and math.max(0, tonumber(next_one[2]) - ms) or -1 }
