--[[
start: create FSMs of one machine: snapshot if there is none, index, the entry event into the mailbox, ready.

An FSM that lives already, elsewhere until now, is adopted in its state: running, and without an entry event.

KEYS      none: names come as arguments, and cluster mode is refused at connect
ARGV      1 prefix   2 namespace   3 default queue   4 machine   5 state   6 entry event, or the hard event that is owed
          7 queue   8 mark of the definition   9 max_mailbox   10 timeout of a job, s   11 result_ttl, s
          12 "" to start them, "rest" or "owes" to adopt them: at rest, or with a hard event to come
          13 how many timers an adopted one is given   14.. key and ms of each of them, then per FSM: name, job id,
          payload, data of the job
RETURNS   one word an FSM: CREATED; EXISTS and the machine of the FSM that has the name, none if it is being purged;
          BROKEN a key of it is of another type
REPEATED  known by the record of the entry event, whose id the caller draws, also once the FSM was purged: CREATED
          again, nothing is written. One that is adopted at rest gets such a record, done already
]]
is_strict = true
local prefix, ns, default_queue = ARGV[1], ARGV[2], ARGV[3]
local m = {
  machine = ARGV[4], state = ARGV[5], event = ARGV[6], queue = ARGV[7], definition = ARGV[8],
  limit = ARGV[9], timeout = ARGV[10], ttl = ARGV[11], adopt = ARGV[12] ~= '' and ARGV[12] or nil,
}
local first = 14 + 2 * ARGV[13]
local ms, s, us = clock()
local now, born = rq_time(s, us), born_at(s, us)
if first > 14 then
  -- As a commit writes them, armed by version 0.
  local entries = {}
  m.alarms = {}
  for i = 14, first - 1, 2 do
    local at = digits(ms + ARGV[i + 1])
    m.alarms[#m.alarms + 1] = { key = ARGV[i], at = at }
    armed(tonumber(at), m.queue)
    entries[#entries + 1] = cjson.encode(ARGV[i]) .. ':[0,' .. at .. ']'
  end
  m.timers = '{' .. table.concat(entries, ',') .. '}'
end
local answer, is_known = {}, true
for i = first, #ARGV, 4 do
  local name, id = ARGV[i], ARGV[i + 1]
  -- An FSM that lived and was purged must not rise again because a call is repeated late.
  local lived = try('HMGET', 'rq:job:' .. id, 'fsm', 'ns', 'event')
  if permitted(lived).err or lived[1] then
    answer[#answer + 1] = lived[1] == name and lived[2] == ns and lived[3] == m.event and 'CREATED' or 'BROKEN'
  else
    local word = create(prefix, ns, default_queue, ms, born, now, m, name, id, ARGV[i + 2], ARGV[i + 3])
    answer[#answer + 1] = word
    is_known = is_known and word ~= 'CREATED'
  end
end
flush_begun(prefix)
flush_ready(prefix)
wake_for_alarm(prefix, tonumber(ms))
if is_known then insist_on_primary(prefix) end
return answer
