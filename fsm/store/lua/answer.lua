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
local known = try('HEXISTS', open, effect)
if type(known) == 'table' then return { 'BROKEN' } end
if known == 0 then
  try('ZREM', effects, effect .. ' ' .. name)
  return { 'CLOSED' }
end
if event == '' then
  close(prefix, effect, name)
  return { 'SILENT' }
end
local word = bring(prefix, ns, default_queue, effect, name, born, event, data, meta, timeout, ttl, failure_ttl)
flush_ready(prefix)
return { word }
