--[[
answer: bring back the end of an effect, as an event in the mailbox of the FSM that asked for it; once.

KEYS      1 effects   2 effects:<name>
ARGV      1 prefix   2 namespace   3 default queue   4 id of the effect   5 name   6 born of the life that asked
          7 event, or "" where nothing is to be told   8 data of its job   9 meta of its job   10 timeout of a job, s
          11 result_ttl, s   12 failure_ttl, s
RETURNS   ANSWERED and the id of the event's job; CLOSED it was answered before; SILENT nothing was to be told; FULL the
          mailbox holds twice its bound, and the effect stays open; BROKEN a key of the FSM is of another type, and the
          effect stays open; UNKNOWN, FINISHED and its state: nobody takes it, the event's record says so as failed
REPEATED  known by the effect, which is not open any more: CLOSED, nothing is written. After FULL and BROKEN it is open
          still, and the answer is tried again
]]
local effects, open = KEYS[1], KEYS[2]
local prefix, ns, default_queue, effect, name, born = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5], ARGV[6]
local event, data, meta, timeout, ttl, failure_ttl = ARGV[7], ARGV[8], ARGV[9], ARGV[10], ARGV[11], ARGV[12]
local member = effect .. ' ' .. name
local known = try('HEXISTS', open, effect)
if type(known) == 'table' then return { 'BROKEN' } end
if known == 0 then
  try('ZREM', effects, member)
  return { 'CLOSED' }
end
local ms, s, us = clock()
local now = rq_time(s, us)
local answer = { 'SILENT' }
if event ~= '' then
  local id = unused(effect .. 'a', ms)
  local word = deliver(prefix, ns, default_queue, now, id, name, born, event, data, timeout, ttl)
  if word == 'FULL' or word == 'BROKEN' then
    call('UNLINK', 'rq:job:' .. id)
    return { word }
  end
  if word ~= 'SENT' then
    record(id, now, ns, { name = name, born = born, queue = default_queue }, event, data, timeout, ttl)
    call('HSET', 'rq:job:' .. id, 'status', 'failed', 'place', 'failed', 'ended_at', now, 'result',
      '{"failed":"undeliverable"}', 'exc_info', 'answer of effect ' .. effect .. ' not delivered: ' .. word)
    call('EXPIRE', 'rq:job:' .. id, failure_ttl)
    result_stream(id, 2, '', 'exc_string', '', failure_ttl)
    try('ZADD', 'rq:failed:' .. default_queue, s + failure_ttl, id)
    try('XADD', prefix .. 'log', '*', 'worker', '', 'transitions', '[{"name":' .. cjson.encode(name) .. ',"event":'
      .. cjson.encode(event) .. ',"job":"' .. id .. '","error":' .. cjson.encode('undeliverable: ' .. word) .. '}]')
  else
    word = 'ANSWERED ' .. id
  end
  call('HSET', 'rq:job:' .. id, 'meta', meta)
  flush_ready(prefix)
  answer[1] = word
end
call('HDEL', open, effect)
try('ZREM', effects, member)
return answer
