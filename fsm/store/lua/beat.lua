--[[
beat: note that a worker of ours lives, by the clock of Redis, and what it did since it said so last.

KEYS      1 workers   2 rq:worker:<worker>
ARGV      1 worker   2 namespace   3 jobs done   4 jobs failed   5 seconds worked   6 a number that grows
RETURNS   BEATEN
REPEATED  known by the number, or by a newer one: nothing is counted. The time is noted again: a worker that ended just
          now is taken for alive for some seconds more, though it holds nothing
]]
local workers, record = KEYS[1], KEYS[2]
-- Not refused by a full Redis, and after it nothing in this script is: who drains it must not be taken for dead.
call('PERSIST', workers)
call('ZADD', workers, (clock()), ARGV[1])
-- Without RQ's record (it expired, or the worker is dying) nothing is counted: it would come back without an end.
local last = call('HGET', record, 'beat')
if call('EXISTS', record) == 1 and (not last or tonumber(ARGV[6]) > (tonumber(last) or 0)) then
  call('HSET', record, 'fsm', ARGV[2], 'beat', ARGV[6])
  call('HINCRBY', record, 'successful_job_count', ARGV[3])
  call('HINCRBY', record, 'failed_job_count', ARGV[4])
  call('HINCRBYFLOAT', record, 'total_working_time', ARGV[5])
end
return { 'BEATEN' }
