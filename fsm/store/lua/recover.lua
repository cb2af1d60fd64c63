--[[
recover: free FSMs whose holder is dead, count the death, and make them ready again; drop records that ended.

It decides nothing: whether an event was tried too often is for the worker to say that claims it next.

KEYS      1 held   2 ended
ARGV      1 prefix   2 default queue   3 most FSMs   4.. names of workers known to be dead
RETURNS   RECOVERED, how many FSMs were freed, how many ids were put back on RQ's list
REPEATED  by state: what is free is not in `held` any more, and the hands are empty. A name whose next life has begun is
          not to be named any more: what that holds would be freed and charged
]]
local held, ended = KEYS[1], KEYS[2]
local prefix, default_queue, most = ARGV[1], ARGV[2], tonumber(ARGV[3])
local ms, s = clock()
local freed, rehung = 0, 0
-- Not refused by a full Redis, and after it nothing in this script is.
call('PERSIST', held)

local function free(name)
  local snapshot = prefix .. 'snapshot:' .. name
  local f = try('HMGET', snapshot, 'born', 'queue')
  local queue = f[2] or default_queue
  if not sound(prefix, queue) then
    -- It cannot be made ready before somebody has repaired that key: it stays noted for another minute.
    call('ZADD', held, string.format('%.0f', tonumber(ms) + 60000), name)
    return
  end
  call('ZREM', held, name)
  call('UNLINK', prefix .. 'lock:' .. name)
  if not f.err and f[1] then
    try('HINCRBY', snapshot, 'tries', 1)
    ring_if_mail(prefix, queue, name)
  end
  freed = freed + 1
end

for i = 4, #ARGV do
  local worker = ARGV[i]
  local claims = try('HGETALL', prefix .. 'claims:' .. worker)
  for k = 1, math.min(#claims, 2 * most), 2 do
    if try('GET', prefix .. 'lock:' .. claims[k]) == worker .. '/' .. claims[k + 1] then free(claims[k]) end
    call('HDEL', prefix .. 'claims:' .. worker, claims[k])
  end
  local hand = prefix .. 'hand:' .. worker
  for _, id in ipairs(try('LRANGE', hand, 0, most)) do
    local queue = try('HGET', 'rq:job:' .. id, 'origin')
    if type(queue) == 'string' then
      try('LPUSH', 'rq:queue:' .. queue, id)
      rehung = rehung + 1
    end
  end
  call('UNLINK', hand)
end
for _, name in ipairs(try('ZRANGEBYSCORE', held, '-inf', ms, 'LIMIT', 0, most)) do
  -- A lock that still stands was renewed or is another's: its end is the truth, `held` only a note of it.
  local left = call('PTTL', prefix .. 'lock:' .. name)
  if left > 0 then
    call('ZADD', held, string.format('%.0f', tonumber(ms) + left), name)
  else
    free(name)
  end
end
flush_ready(prefix)
drop_ended(ended, s, 10)
return { 'RECOVERED', freed, rehung }
