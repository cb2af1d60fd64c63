--[[
release: give FSMs back unworked: to the front, in the order given, as when a worker is asked to stop; or to the tail.

KEYS      1 held   2 claims:<worker>
ARGV      1 prefix   2 worker   3 default queue   4 "front" or "tail"   5.. per FSM: name, token
RETURNS   one word an FSM: RELEASED; STALE the lock is not ours
REPEATED  known by the token: the lock is gone, so STALE, and nothing is written
]]
local held, claims = KEYS[1], KEYS[2]
local prefix, worker, default_queue, place = ARGV[1], ARGV[2], ARGV[3], ARGV[4]
local answer = {}
for i = 5, #ARGV, 2 do
  local name, token = ARGV[i], ARGV[i + 1]
  local lock = prefix .. 'lock:' .. name
  if try('GET', lock) == worker .. '/' .. token then
    call('UNLINK', lock)
    call('HDEL', claims, name)
    call('ZREM', held, name)
    local queue = try('HGET', prefix .. 'snapshot:' .. name, 'queue')
    if type(queue) ~= 'string' then queue = default_queue end
    local id = head(prefix, name)
    if id and place == 'front' then
      ring_front(queue, name, id)
    elseif id then
      ring(queue, name, id)
    end
    answer[#answer + 1] = 'RELEASED'
  else
    answer[#answer + 1] = 'STALE'
  end
end
flush_front(prefix)
flush_ready(prefix)
return answer
