--[[
cancel: take back an event that no worker has in its hands, or that waits for its time.

KEYS      1 rq:job:<id>
ARGV      1 prefix   2 job id   3 failure_ttl, s
RETURNS   CANCELLED it will not be applied; ENDED it was applied, refused, failed or taken away before; HELD a worker may
          be applying it just now; UNKNOWN no record of this namespace
REPEATED  by state: what is cancelled is CANCELLED again
]]
local prefix, id = ARGV[1], ARGV[2]
local f = call('HMGET', KEYS[1], 'place', 'fsm', 'status', 'origin', 'ns')
if not f[1] or not f[2] or prefix ~= 'fsm:' .. (f[5] or '') .. ':' then return { 'UNKNOWN' } end
local is_cancelled = f[3] == 'canceled'
if is_cancelled then insist_on_primary(prefix) end
if f[1] ~= 'mail' and f[1] ~= 'later' then return { is_cancelled and f[1] == 'gone' and 'CANCELLED' or 'ENDED' } end
local ms, s, us = clock()
if f[1] == 'later' then
  -- It waits for its time, where no worker takes anything: it has ended, and whoever waits is told.
  -- The alarm first: that is not refused by a full Redis, and after it nothing here is.
  forget_alarm(prefix, f[2], id, call('HGET', KEYS[1], 'alarm'), f[4] or '')
  call('HSET', KEYS[1], 'status', 'canceled', 'place', 'gone', 'ended_at', rq_time(s, us))
  call('EXPIRE', KEYS[1], ARGV[3])
  try('ZADD', 'rq:canceled:' .. (f[4] or ''), s, id)
  result_stream(id, 3, '', 'exc_string', '', ARGV[3])
  return { 'CANCELLED' }
end
if call('EXISTS', prefix .. 'lock:' .. f[2]) == 1 then
  -- A claim takes at most the first hundred; what lies behind them nobody has.
  for _, list in ipairs({ 'urgent:', 'mailbox:' }) do
    for _, taken in ipairs(try('LRANGE', prefix .. list .. f[2], 0, 99)) do
      if taken == id then return { 'HELD' } end
    end
  end
end
if is_cancelled then return { 'CANCELLED' } end
call('HSET', KEYS[1], 'status', 'canceled')
try('ZADD', 'rq:canceled:' .. (f[4] or ''), s, id)
if f[3] == 'scheduled' and f[4] and head(prefix, f[2]) == id and sound(prefix, f[4]) then
  -- It waited to be tried again, and with it all mail behind it, for nothing now; where it cannot be rung, `due` does.
  try('ZREM', 'rq:scheduled:' .. (f[4] or ''), id)
  try('ZREM', prefix .. 'timers', 'retry ' .. f[2])
  try('HSET', prefix .. 'snapshot:' .. f[2], 'retry_at', ms)
  if f[4] then ring(f[4], f[2], id) end
  flush_ready(prefix)
end
return { 'CANCELLED' }
