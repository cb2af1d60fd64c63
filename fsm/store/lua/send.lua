--[[
send: put events into mailboxes, in the order given, and make FSMs ready that were at rest.

KEYS      none: names come as arguments, and cluster mode is refused at connect
ARGV      1 prefix   2 namespace   3 default queue   4 timeout of a job, s   5 result_ttl, s
          6.. per event: name, job id, born or "", event, data of the job, "1" if the sender waits else "", meta or ""
RETURNS   one word an event: SENT; UNKNOWN no such FSM, or another life of its name; FINISHED and its state; FULL and
          the bound; CONFLICT the id was used for something else; DUPLICATE and its place: this very event was sent
          before; SKIPPED an earlier event of this FSM in this call was refused; BROKEN a key of it is of another type
REPEATED  known by the job id: DUPLICATE, nothing is written
]]
local prefix, ns, default_queue, timeout, ttl = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5]
local _, s, us = clock()
local now = rq_time(s, us)
local fsms, order, answer = {}, {}, {}
local dropped, again = {}, {}
for i = 6, #ARGV, 7 do
  local n = (i + 1) / 7
  local name, id, event = ARGV[i], ARGV[i + 1], ARGV[i + 3]
  local fsm, why = fsms[name], nil
  if fsm == nil then
    fsm, why = addressee(prefix, name, ARGV[i + 2], default_queue)
    if fsm then
      fsm.ids, fsm.items = {}, {}
      order[#order + 1] = fsm
    end
    fsms[name] = fsm or false
  elseif not fsm or fsm.refused then
    why = 'SKIPPED'
  elseif ARGV[i + 2] ~= '' and ARGV[i + 2] ~= fsm.born then
    why, fsm.refused = 'UNKNOWN', true
  end
  if fsm and not why then
    local known = try('HMGET', 'rq:job:' .. id, 'fsm', 'event', 'place', 'ns', 'created_at')
    if known.err then
      why = 'BROKEN'
    elseif not known[1] and not known[5] then
      record(id, now, ns, fsm, event, ARGV[i + 4], timeout, ttl)
      if ARGV[i + 5] ~= '' then call('HSET', 'rq:job:' .. id, 'asked', 1) end
      if ARGV[i + 6] ~= '' then call('HSET', 'rq:job:' .. id, 'meta', ARGV[i + 6]) end
      fsm.ids[#fsm.ids + 1] = id
      fsm.items[#fsm.items + 1] = n
      why = 'SENT'
    elseif known[1] == name and known[2] == event and known[4] == ns then
      why = 'DUPLICATE ' .. (known[3] or '')
      again[n] = id
    else
      why = 'CONFLICT'
    end
    if why == 'CONFLICT' or why == 'BROKEN' then fsm.refused = true end
  end
  answer[n] = why
end
for _, fsm in ipairs(order) do
  local count = #fsm.ids
  if count > 0 then
    local mailbox = prefix .. 'mailbox:' .. fsm.name
    local length = variadic('RPUSH', mailbox, fsm.ids)
    local over = type(length) == 'table' and count or length - fsm.limit
    if over > 0 then
      over = math.min(over, count)
      if type(length) ~= 'table' then call('RPOP', mailbox, over) end
      for k = count, count - over + 1, -1 do
        call('UNLINK', 'rq:job:' .. fsm.ids[k])
        dropped[fsm.ids[k]] = true
        answer[fsm.items[k]] = 'SKIPPED'
      end
      answer[fsm.items[count - over + 1]] = type(length) == 'table' and 'BROKEN' or 'FULL ' .. fsm.limit
    end
    if length == count and over < count and fsm.moves then ring(fsm.queue, fsm.name, fsm.ids[1]) end
  end
end
-- Sent twice in this call, and the first was refused after all.
for n, id in pairs(again) do
  if dropped[id] then answer[n] = 'SKIPPED' end
end
flush_ready(prefix)
return answer
