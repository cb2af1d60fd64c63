--[[
ask: how an event ended; while it has not, leave a mark so that its end is also written where a waiter sleeps.

KEYS      1 rq:job:<id>   2 rq:results:<id>
ARGV      none
RETURNS   first a word: MISSING no record; WAITING it is still to come; DONE; FAILED; GONE somebody took it away;
          then the id of the newest result in the stream or "0-0", fsm, event, result, text of the failure, status, which
          is `canceled` only where no worker may have the event in hand
REPEATED  it only reads, as things are now, and marks what is marked
]]
local f = redis.call('HMGET', KEYS[1], 'place', 'fsm', 'event', 'result', 'exc_info', 'status', 'ns')
local newest = redis.call('XREVRANGE', KEYS[2], '+', '-', 'COUNT', 1)
local word = 'MISSING'
if f[1] == 'done' then
  word = 'DONE'
elseif f[1] == 'failed' then
  word = 'FAILED'
elseif f[1] == 'gone' then
  word = 'GONE'
elseif f[1] then
  word = 'WAITING'
  -- A full Redis refuses the mark: the waiter looks again by itself.
  redis.pcall('HSET', KEYS[1], 'asked', 1)
  -- Cancelled by RQ while a worker may be applying it: its end is to be heard from that worker, or from the next.
  if f[6] == 'canceled' and redis.call('EXISTS', 'fsm:' .. (f[7] or '') .. ':lock:' .. (f[2] or '')) == 1 then
    f[6] = 'started'
  end
end
return { word, newest[1] and newest[1][1] or '0-0', f[2], f[3], f[4], f[5], f[6] }
