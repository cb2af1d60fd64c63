--[[
extend: renew the locks that a worker names, for one more lease from now.

KEYS      1 held   2 claims:<worker>   3 replies:<worker>
ARGV      1 prefix   2 worker   3 lease, ms   4.. per FSM: name, token
RETURNS   one word an FSM: EXTENDED; STALE the lock is not ours
REPEATED  harmless: the lease counts from the later call
]]
local held, claims, replies = KEYS[1], KEYS[2], KEYS[3]
local prefix, worker, lease = ARGV[1], ARGV[2], ARGV[3]
call('PEXPIRE', claims, lease * 4)
-- A handler of minutes is in hand since a claim of then, and people want to know since when.
call('PEXPIRE', replies, lease * 4)
local ends = string.format('%.0f', tonumber((clock())) + lease)
local answer = {}
for i = 4, #ARGV, 2 do
  local lock = prefix .. 'lock:' .. ARGV[i]
  if try('GET', lock) == worker .. '/' .. ARGV[i + 1] then
    call('PEXPIRE', lock, lease)
    call('ZADD', held, ends, ARGV[i])
    answer[#answer + 1] = 'EXTENDED'
  else
    answer[#answer + 1] = 'STALE'
  end
end
return answer
