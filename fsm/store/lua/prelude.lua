--[[
prelude: what several scripts share; the loader puts in front of each of them what it needs of it, part by part.

KEYS      none of its own
ARGV      none of its own
RETURNS   nothing
REPEATED  it only defines functions
]]
local call, try = redis.call, redis.pcall
local floor = math.floor

-- The clock of Redis: ms as text (Lua would write large numbers with an exponent), s, µs of that second.
local function clock()
  local t = call('TIME')
  local s, us = tonumber(t[1]), tonumber(t[2])
  return string.format('%.0f', s * 1000 + floor(us / 1000)), s, us
end

-- Whether a field is a number as we write it, and not what somebody wrote by hand: Lua would take "0x1p9", "inf", "1.5".
local function is_whole(text)
  return type(text) == 'string' and #text < 16 and string.find(text, '^%d+$') ~= nil
end

-- A whole number as text; Lua would write large ones with an exponent. "%d" costs less, where it can hold the number.
local format = string.format
local function digits(number)
  if number < 2147483648 and number > -2147483648 then return format('%d', number) end
  return format('%.0f', number)
end

-- A time as RQ writes it. Days to a date after Howard Hinnant, "chrono-Compatible Low-Level Date Algorithms".
local function rq_time(s, us)
  local z = floor(s / 86400) + 719468
  local era = floor(z / 146097)
  local doe = z - era * 146097
  local yoe = floor((doe - floor(doe / 1460) + floor(doe / 36524) - floor(doe / 146096)) / 365)
  local doy = doe - (365 * yoe + floor(yoe / 4) - floor(yoe / 100))
  local mp = floor((5 * doy + 2) / 153)
  local month = mp < 10 and mp + 3 or mp - 9
  local year = yoe + era * 400 + (month <= 2 and 1 or 0)
  local rest = s % 86400
  return string.format('%04d-%02d-%02dT%02d:%02d:%02d.%06dZ', year, month, doy - floor((153 * mp + 2) / 5) + 1,
    floor(rest / 3600), floor(rest % 3600 / 60), rest % 60, us)
end

-- What this user may not do is no fault of a key: it is raised where nothing is written yet, as the script says first.
local is_strict = false
local function permitted(reply)
  if is_strict and type(reply) == 'table' and type(reply.err) == 'string'
    and (string.find(reply.err, 'executing the script', 1, true) or string.find(reply.err, 'ACL failure', 1, true)) then
    error(reply.err, 0)
  end
  return reply
end

-- Whether FSMs of this queue can be made ready: asked before anything is written for them, once a queue and call.
local sounded = {}
local function sound(prefix, queue)
  local known = sounded[prefix]
  if not known then
    known = {}
    sounded[prefix] = known
  end
  if known[queue] == nil then known[queue] = type(permitted(try('ZCARD', prefix .. 'ready:' .. queue))) == 'number' end
  return known[queue]
end

-- What is said of this FSM: an FSM that can be sent to; or nil and why not, and of one that has finished its life's id.
local function addressee(prefix, name, born, default_queue)
  local s = try('HMGET', prefix .. 'snapshot:' .. name, 'status', 'born', 'queue', 'max_mailbox')
  if s.err then
    permitted(s)
    return nil, 'BROKEN'
  end
  if not s[2] or s[1] == 'purging' or (born ~= '' and born ~= s[2]) then return nil, 'UNKNOWN' end
  if s[1] == 'finished' then
    return nil, 'FINISHED ' .. (call('HGET', prefix .. 'snapshot:' .. name, 'state') or ''), s[2]
  end
  if not sound(prefix, s[3] or default_queue) then return nil, 'BROKEN' end
  return {
    name = name, born = s[2], queue = s[3] or default_queue, limit = is_whole(s[4]) and tonumber(s[4]) or 10000,
    moves = s[1] ~= 'paused' and s[1] ~= 'failed',
  }
end

-- The RQ record of one event that waits in a mailbox. The first write of `send` and `start`: it raises where Redis is full.
-- What claims and commits look for stands first: a small hash is searched from its beginning.
local function record(id, now, ns, fsm, event, data, timeout, ttl, write)
  local name = fsm.name
  write = write or call
  write('HSET', 'rq:job:' .. id, 'status', 'queued', 'place', 'mail', 'event', event, 'data', data, 'born', fsm.born,
    'fsm', name, 'ns', ns, 'description', event .. ' ' .. name, 'origin', fsm.queue, 'created_at', now,
    'enqueued_at', now, 'timeout', timeout, 'result_ttl', ttl)
end

-- An id that no record has: the one wanted, unless an event that was requeued made something under it before.
local function unused(id, ms)
  return call('EXISTS', 'rq:job:' .. id) == 0 and id or id .. 'r' .. ms
end

-- A call that writes nothing says all the same what is known here: a server that became a replica knows what nobody else
-- does, and would confirm what is lost. It refuses a write, also of nothing, and so does one that was cut off.
local function insist_on_primary(prefix) call('UNLINK', prefix .. 'nothing') end

-- FSMs to be made ready: gathered per queue, so that the writes are variadic.
local rung = {}
local function ring(queue, name, id)
  local bell = rung[queue]
  if not bell then
    bell = { names = {}, ids = {} }
    rung[queue] = bell
  end
  bell.names[#bell.names + 1] = name
  bell.ids[#bell.ids + 1] = id
end

-- Many members in few calls: at most 1,000 arguments each, far below what `unpack` can carry. An index, a registry or a
-- list of RQ's under whose name lies something else must not stop what carries state: the last reply tells.
local function variadic(command, key, members)
  local reply
  for first = 1, #members, 1000 do
    reply = try(command, key, unpack(members, first, math.min(first + 999, #members)))
  end
  return reply
end

-- No timer of an FSM rings any more, nor its retry: `timers` and `retry_at` are fields of its snapshot. Where the first
-- was edited by hand, `due` finds its members out, one by one.
local function disarm(prefix, name, timers, retry_at)
  if retry_at then try('ZREM', prefix .. 'timers', 'retry ' .. name) end
  local is_read, found = pcall(cjson.decode, timers or '{}')
  local members = {}
  for key in pairs(is_read and type(found) == 'table' and found or {}) do
    members[#members + 1] = 'timer ' .. key .. ' ' .. name
  end
  variadic('ZREM', prefix .. 'timers', members)
end

-- A life ends: where the mark of its definition says that its payload lies in a storage, this is noted, for a worker that
-- knows the storage to drop the row there. Without the mark a worker may have died behind its first store: so the
-- machine is asked as well, as it was announced.
local function note_drop(prefix, machine, name, born, mark, ms)
  local about = string.sub(mark or '', -2) ~= '+s' and try('HGET', prefix .. 'machines', machine or '')
  if not about or type(about) == 'string' and string.find(about, '"storage":true', 1, true) then
    try('ZADD', prefix .. 'drops:' .. (machine or ''), ms, born .. ' ' .. name)
  end
end

-- Queues of single hosts: their workers learn from here that somebody waits there. `host` forgets those of hosts that are
-- gone, while nobody does.
local function note_place(prefix, queue)
  if string.find(queue, '[~@]') then try('SADD', prefix .. 'places', queue) end
end

-- Makes ready what was gathered, behind all that waits, and tells RQ's list.
local function flush_ready(prefix)
  for queue, bell in pairs(rung) do
    local count = #bell.names
    local number = try('INCRBY', prefix .. 'ring', count)
    -- Without a counter the clock serves: it is far ahead of any count, so behind all that waits.
    number = (type(number) == 'number' and number or tonumber((clock()))) - count
    local scored = {}
    for i = 1, count do
      scored[2 * i - 1] = digits(number + i)
      scored[2 * i] = bell.names[i]
    end
    for first = 1, #scored, 1000 do
      call('ZADD', prefix .. 'ready:' .. queue, 'NX', unpack(scored, first, math.min(first + 999, #scored)))
    end
    variadic('RPUSH', 'rq:queue:' .. queue, bell.ids)
    try('SADD', 'rq:queues', 'rq:queue:' .. queue)
    note_place(prefix, queue)
  end
  rung = {}
end

-- What is armed in a call: the soonest of it, and the queue of its FSM.
local soonest, soonest_queue = math.huge, nil
local function armed(at, queue)
  if at < soonest then soonest, soonest_queue = at, queue end
end

-- Where that comes first of all, and before a sleeper would look by himself, one is woken; the claim that follows tells
-- him when it is. Where the list is not empty, nobody sleeps. The id is no job's: all pass over it.
local function wake_for_alarm(prefix, ms)
  if soonest >= ms + 1000 then return end
  local first = try('ZRANGE', prefix .. 'timers', '0', '0', 'WITHSCORES')
  if first[2] and tonumber(first[2]) >= soonest and try('LLEN', 'rq:queue:' .. soonest_queue) == 0 then
    try('RPUSH', 'rq:queue:' .. soonest_queue, 'fsm-due')
  end
end

-- The same to the front of all that waits, in the order in which they were gathered.
local front = {}
local function ring_front(queue, name, id)
  local row = front[queue] or {}
  front[queue] = row
  row[#row + 1] = { name, id }
end

local function flush_front(prefix)
  for queue, row in pairs(front) do
    local first = call('ZRANGE', prefix .. 'ready:' .. queue, 0, 0, 'WITHSCORES')
    local number = tonumber(first[2] or 0) - #row - 1
    local scored, ids = {}, {}
    for i, one in ipairs(row) do
      scored[2 * i - 1] = digits(number + i)
      scored[2 * i] = one[1]
      ids[#row - i + 1] = one[2]
    end
    variadic('ZADD', prefix .. 'ready:' .. queue, scored)
    variadic('LPUSH', 'rq:queue:' .. queue, ids)
    try('SADD', 'rq:queues', 'rq:queue:' .. queue)
    note_place(prefix, queue)
  end
  front = {}
end

-- The id of the oldest mail, urgent mail first; nil where there is none.
local function head(prefix, name)
  for _, list in ipairs({ 'urgent:', 'mailbox:' }) do
    local id = try('LINDEX', prefix .. list .. name, 0)
    if type(id) == 'string' then return id end
  end
end

-- Ids in the hand of a worker that died go back to RQ's lists, so many at most: how many they were.
local function empty_hand(prefix, worker, most)
  local hand, count = prefix .. 'hand:' .. worker, 0
  local ids = try('RPOP', hand, most) or {}
  if ids.err then call('UNLINK', hand) end
  -- The newest first, each to the front: in the end they lie there as they did before.
  for _, id in ipairs(ids) do
    local queue = try('HGET', 'rq:job:' .. id, 'origin')
    if type(queue) == 'string' then
      try('LPUSH', 'rq:queue:' .. queue, id)
      count = count + 1
    end
  end
  return count
end

-- Makes an FSM that was freed ready again if it has mail.
local function ring_if_mail(prefix, queue, name)
  local id = head(prefix, name)
  if id then ring(queue, name, id) end
end

-- A result in RQ's own form, where a waiter sleeps on it.
local function result_stream(id, kind, worker, field, value, ttl)
  local key = 'rq:results:' .. id
  try('XADD', key, 'MAXLEN', 10, '*', 'type', kind, 'worker_name', worker, field, value)
  try('EXPIRE', key, ttl)
end

-- An event into the mailbox of an FSM, whatever its bound: how much is in it now, or what Redis has against it.
local function enter(prefix, fsm, id)
  local length = try('RPUSH', prefix .. 'mailbox:' .. fsm.name, id)
  if length == 1 and fsm.moves then ring(fsm.queue, fsm.name, id) end
  return length
end

-- One event that has been decided on, into the mailbox of an FSM: twice the bound, since nobody can take it back.
local function deliver(prefix, ns, default_queue, now, id, name, born, event, data, timeout, ttl)
  local fsm, why = addressee(prefix, name, born, default_queue)
  if not fsm then return why end
  record(id, now, ns, fsm, event, data, timeout, ttl)
  local length = enter(prefix, fsm, id)
  if type(length) == 'table' then return 'BROKEN' end
  if length > 2 * fsm.limit then
    call('RPOP', prefix .. 'mailbox:' .. name)
    return 'FULL'
  end
  return 'SENT'
end

-- When a delayed event is due, ms: "+ms" from now on, or ms; nil where that time has come.
local function due_at(text, ms)
  local due = tonumber(text)
  if string.sub(text, 1, 1) == '+' then due = due + ms end
  return due > tonumber(ms) and due or nil
end

-- How many events of an FSM wait for their time; nil where that cannot be noted.
local function count_put_off(prefix, name)
  local count = try('ZCARD', prefix .. 'later:' .. name)
  if type(count) == 'number' and type(try('ZCARD', prefix .. 'timers')) == 'number' then return count end
end

-- An event whose record was just written waits for its time, before it joins the mailbox. Of those that are due in the
-- same ms, the number tells which was accepted first. RQ's registry is for who looks; `timers` is what counts.
local function put_off(prefix, fsm, id, due)
  local number = try('INCRBY', prefix .. 'ring', 1)
  if type(number) ~= 'number' then number = tonumber((clock())) end
  local member = string.format('mail %016.0f ', number) .. id .. ' ' .. fsm.name
  call('HSET', 'rq:job:' .. id, 'place', 'later', 'status', 'scheduled', 'due', digits(due), 'alarm', member)
  call('ZADD', prefix .. 'timers', digits(due), member)
  armed(due, fsm.queue)
  call('ZADD', prefix .. 'later:' .. fsm.name, digits(due), id)
  try('ZADD', 'rq:scheduled:' .. fsm.queue, math.ceil(due / 1000), id)
  try('SADD', 'rq:queues', 'rq:queue:' .. fsm.queue)
end

-- An event does not wait for its time any more: its alarm is stopped, and RQ's registry is told.
local function forget_alarm(prefix, name, id, alarm, queue)
  if alarm then try('ZREM', prefix .. 'timers', alarm) end
  try('ZREM', prefix .. 'later:' .. name, id)
  try('ZREM', 'rq:scheduled:' .. queue, id)
  try('HDEL', 'rq:job:' .. id, 'due', 'alarm')
end

-- One event that has been decided on, into the mailbox of an FSM when it is due: twice the bound of those that wait.
local function deliver_later(prefix, ns, default_queue, now, id, name, due, event, data, timeout, ttl)
  local fsm, why = addressee(prefix, name, '', default_queue)
  if not fsm then return why end
  local count = count_put_off(prefix, name)
  if not count then return 'BROKEN' end
  if count >= 2 * fsm.limit then return 'FULL' end
  record(id, now, ns, fsm, event, data, timeout, ttl)
  put_off(prefix, fsm, id, due)
  return 'SENT'
end

-- The call of an event's job, as RQ reads it; the event's data is JSON.
local function job_data(ns, name, event, data)
  local about = string.gsub(string.sub(cjson.encode({ ns, name, event }), 1, -2), '\\/', '/')
  return '["workers.jobs.transition",null,' .. about .. ',' .. data .. '],{}]'
end

-- An effect is not open any more.
local function close(prefix, effect, name)
  try('HDEL', prefix .. 'effects:' .. name, effect)
  try('ZREM', prefix .. 'effects', effect .. ' ' .. name)
  try('ZREM', prefix .. 'timers', 'deadline ' .. effect .. ' ' .. name)
end

-- The end of an effect as an event of the FSM that asked for it: ANSWERED and its id, and the effect is closed. Where
-- nobody takes it, its record says so as failed. FULL and BROKEN: nothing is written, and the effect stays open.
local function bring(prefix, ns, default_queue, effect, name, born, event, data, meta, timeout, ttl, failure_ttl)
  local ms, s, us = clock()
  local now = rq_time(s, us)
  local id = unused(effect .. 'a', ms)
  local word = deliver(prefix, ns, default_queue, now, id, name, born, event, data, timeout, ttl)
  if word == 'FULL' or word == 'BROKEN' then
    call('UNLINK', 'rq:job:' .. id)
    return word
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
  close(prefix, effect, name)
  return word
end

-- The id of a life: µs as text. No two lives of one name begin in the same one.
local function born_at(s, us) return string.format('%.0f', s * 1000000 + us) end

-- One new FSM with its entry event: what goes to the index is gathered in `begun`, and written by `flush_begun`.
-- One that is adopted has none: `m.adopt` says whether it is at rest in its state, or owes the hard event `m.event`; and
-- no commit arms the timers of that state.
local begun = {}
local function create(prefix, ns, default_queue, ms, born, now, m, name, id, payload, data)
  local key = prefix .. 'snapshot:' .. name
  local known = try('HMGET', key, 'born', 'machine', 'status')
  if permitted(known).err or not sound(prefix, m.queue) then return 'BROKEN' end
  -- One that is being purged is of no machine any more, though its name is not free yet.
  if known[1] then return known[3] == 'purging' and 'EXISTS' or 'EXISTS ' .. (known[2] or '') end
  record(id, now, ns, { name = name, born = born, queue = m.queue }, m.event, data, m.timeout, m.ttl)
  if m.adopt == 'rest' then
    -- Nothing is to be done, and a repeat of the call is to be known all the same: by an event that is done already.
    call('HSET', 'rq:job:' .. id, 'status', 'finished', 'place', 'done', 'ended_at', now, 'result',
      '{"state":' .. cjson.encode(m.state) .. ',"version":0}')
    call('EXPIRE', 'rq:job:' .. id, m.ttl)
  elseif type(try('RPUSH', prefix .. (m.adopt == 'owes' and 'urgent:' or 'mailbox:') .. name, id)) == 'table' then
    call('UNLINK', 'rq:job:' .. id)
    return 'BROKEN'
  end
  call('HSET', key, 'machine', m.machine, 'state', m.state, 'payload', payload, 'version', 0, 'status', 'starting',
    'born', born, 'updated_at', ms, 'definition', m.definition)
  if m.queue ~= default_queue then call('HSET', key, 'queue', m.queue) end
  if m.limit ~= '10000' then call('HSET', key, 'max_mailbox', m.limit) end
  if m.adopt then call('HDEL', key, 'status') end
  if m.adopt == 'owes' then call('HSET', key, 'owes', id) end
  if m.timers then
    call('HSET', key, 'timers', m.timers)
    for _, alarm in ipairs(m.alarms) do try('ZADD', prefix .. 'timers', alarm.at, 'timer ' .. alarm.key .. ' ' .. name) end
  end
  if m.adopt == 'rest' then
    ring_if_mail(prefix, m.queue, name)
  else
    -- Whatever lay in the mailbox: mail of an earlier life, whose snapshot was deleted by hand, rings nobody.
    ring(m.queue, name, id)
  end
  local index = prefix .. 'state:' .. m.machine .. ':' .. m.state
  local members = begun[index] or {}
  begun[index] = members
  members[#members + 1] = ms
  members[#members + 1] = name
  return 'CREATED'
end

local function flush_begun(prefix)
  for index, members in pairs(begun) do
    variadic('ZADD', index, members)
    -- Machines are announced with their states before; whoever counts is not to depend on that.
    try('SADD', prefix .. 'states', string.sub(index, #prefix + 7))
  end
end

-- Removes records whose time is over: `ended` holds batches "queue id id …" by the second in which they end.
local function drop_ended(ended, s, batches)
  local due = try('ZRANGEBYSCORE', ended, '-inf', s, 'LIMIT', 0, batches)
  if due.err then return end
  for _, batch in ipairs(due) do
    local keys, ids, queue = {}, {}, nil
    for word in string.gmatch(batch, '%S+') do
      if not queue then
        queue = word
      else
        -- Ids that are drawn (24 hex digits) come once; one that a caller chose, or that is derived, may be in use again.
        local key = 'rq:job:' .. word
        local place = (#word ~= 24 or string.find(word, '[^0-9a-f]')) and try('HGET', key, 'place') or 'done'
        if place == 'done' then
          ids[#ids + 1] = word
          keys[#keys + 1] = key
        end
      end
    end
    if #ids > 0 then
      try('UNLINK', unpack(keys))
      -- Of what RQ's tools said of them, after their end too, nothing is to outlive their records.
      for _, registry in ipairs({ 'finished', 'failed', 'canceled' }) do
        try('ZREM', 'rq:' .. registry .. ':' .. queue, unpack(ids))
      end
    end
    try('ZREM', ended, batch)
  end
end
