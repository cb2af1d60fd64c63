--[[
recover: free FSMs whose holder is dead, count the death, and make them ready again; drop records that ended.

It decides nothing: whether an event was tried too often is for the worker to say that claims it next.

KEYS      1 held   2 ended
ARGV      1 prefix   2 default queue   3 most FSMs   4.. names of workers known to be dead
RETURNS   RECOVERED, how many FSMs were freed, how many ids were put back on RQ's list
REPEATED  by state: what is free is not in `held` any more
]]
local held, ended = KEYS[1], KEYS[2]
local prefix, default_queue, most = ARGV[1], ARGV[2], tonumber(ARGV[3])
local ms, s = clock()
local freed, rehung = 0, 0

local function free(name)
  local snapshot = prefix .. 'snapshot:' .. name
  call('ZREM', held, name)
  call('UNLINK', prefix .. 'lock:' .. name)
  local queue = try('HMGET', snapshot, 'born', 'queue')
  if not queue.err and queue[1] then
    call('HINCRBY', snapshot, 'tries', 1)
    ring_if_mail(prefix, queue[2] or default_queue, name)
  end
  freed = freed + 1
end

for i = 4, #ARGV do
  local worker = ARGV[i]
  local claims = call('HGETALL', prefix .. 'claims:' .. worker)
  for k = 1, math.min(#claims, 2 * most), 2 do
    if try('GET', prefix .. 'lock:' .. claims[k]) == worker .. '/' .. claims[k + 1] then free(claims[k]) end
    call('HDEL', prefix .. 'claims:' .. worker, claims[k])
  end
  local hand = prefix .. 'hand:' .. worker
  for _, id in ipairs(call('LRANGE', hand, 0, most)) do
    local queue = try('HGET', 'rq:job:' .. id, 'origin')
    if type(queue) == 'string' then
      call('LPUSH', 'rq:queue:' .. queue, id)
      rehung = rehung + 1
    end
  end
  call('UNLINK', hand)
end
for _, name in ipairs(call('ZRANGEBYSCORE', held, '-inf', ms, 'LIMIT', 0, most)) do
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
