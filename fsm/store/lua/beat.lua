--[[
beat: note that a worker of ours lives, by the clock of Redis, and what it did since it said so last.

KEYS      1 workers   2 rq:worker:<worker>
ARGV      1 worker   2 namespace   3 jobs done   4 jobs failed   5 seconds worked
RETURNS   BEATEN
REPEATED  the time counts once; the counters, which are for people's eyes, may count twice
]]
local workers, record = KEYS[1], KEYS[2]
-- Not refused by a full Redis, and after it nothing in this script is: who drains it must not be taken for dead.
call('PERSIST', workers)
call('ZADD', workers, (clock()), ARGV[1])
-- Without RQ's record (it expired, or the worker is dying) nothing is counted: it would come back without an end.
if call('EXISTS', record) == 1 then
  call('HSET', record, 'fsm', ARGV[2])
  call('HINCRBY', record, 'successful_job_count', ARGV[3])
  call('HINCRBY', record, 'failed_job_count', ARGV[4])
  call('HINCRBYFLOAT', record, 'total_working_time', ARGV[5])
end
return { 'BEATEN' }
