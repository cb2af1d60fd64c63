--[[
restore: put FSMs back as `dump` gave them, each whole or not at all.

They are in the index again, ready, and wait for their time; what was due meanwhile goes off. Nobody has them in hand.
An event keeps its id, unless something else has a record under it: then `r<ms>-` stands before it, for the end of an id
tells which timer sent it. Mail that lies there already stays behind what is restored.

KEYS      1 timers   2 effects   3 states
ARGV      1 prefix   2 default queue   3 namespace   4 "check" writes nothing and says what would be done, else ""
          5.. per FSM: its name, since when it is in its state (ms or ""), and the counts of what follows: arguments of
            its snapshot, urgent ids, ids of the mailbox, delayed events, open effects, records; then that: fields and
            values of the snapshot, ids, of each delayed event its id and when it is due, of each effect its id, what
            is noted of it and its deadline or "", and of each event in this order its record, as fields and values
            that have their length and ":" before them, "" where there was none
RETURNS   one word an FSM: RESTORED; KEPT it is there, the same life and not older; EXISTS and the `born` of what is
          there, another life or an older version of this one; BROKEN a key of it, or `timers`, is of another type, or
          what was given is no snapshot
REPEATED  by state: what was restored is KEPT, and may have gone on since
]]
is_strict = true
local timers, effects, states = KEYS[1], KEYS[2], KEYS[3]
local prefix, default_queue, ns, is_check = ARGV[1], ARGV[2], ARGV[3], ARGV[4] == 'check'
local ms, s = clock()
local answer, has_written, last = {}, false, #ARGV
-- Else this script would end in the midst of an FSM with a delayed event.
local can_arm = type(permitted(try('ZCARD', timers))) == 'number'
local indexed, listed, failures, alarms, opened = {}, {}, {}, {}, {}

local function gather(map, key, score, member)
  local members = map[key] or {}
  map[key] = members
  members[#members + 1] = score
  members[#members + 1] = member
end

-- What stands in the way of an FSM, as a word; nil where it can be restored, and whether nothing of it is there at all.
local function obstacle(name, f, size)
  -- So many fields nobody but a hand has written.
  if size > 1000 or not (f.machine and f.state and f.payload and is_whole(f.version) and is_whole(f.updated_at)
    and f.born and #f.born < 20 and string.find(f.born, '^%d+$')) then return 'BROKEN' end
  if not (can_arm and sound(prefix, f.queue or default_queue)) then return 'BROKEN' end
  local snapshot, later = prefix .. 'snapshot:' .. name, prefix .. 'later:' .. name
  local urgent, mailbox = prefix .. 'urgent:' .. name, prefix .. 'mailbox:' .. name
  local open = prefix .. 'effects:' .. name
  if permitted(try('EXISTS', snapshot, urgent, mailbox, later, open)) == 0 then return nil, true end
  local known = permitted(try('HMGET', snapshot, 'born', 'version', 'status'))
  if known.err then return 'BROKEN' end
  if known[1] then
    local is_same = known[1] == f.born and known[3] ~= 'purging' and is_whole(known[2])
    return is_same and tonumber(known[2]) >= tonumber(f.version) and 'KEPT' or 'EXISTS ' .. known[1]
  end
  -- Its snapshot was lost, and not all else.
  local is_whole_type = call('EXISTS', snapshot) == 0 and type(try('LLEN', urgent)) == 'number'
    and type(try('LLEN', mailbox)) == 'number' and type(try('ZCARD', later)) == 'number'
    and type(try('HLEN', open)) == 'number'
  return not is_whole_type and 'BROKEN' or nil
end

-- A record as it is given: fields and values, each with its length before it.
local function unpacked(text)
  local words, at = {}, 1
  while at <= #text do
    local colon = string.find(text, ':', at, true)
    local stop = colon + tonumber(string.sub(text, at, colon - 1))
    words[#words + 1] = string.sub(text, colon + 1, stop)
    at = stop + 1
  end
  return words
end

-- Writes the record of an event, and gives the id that it has here; false where it had none, though its id stays.
local function written(id, text, name, f, queue)
  if text == '' then return false end
  local key = 'rq:job:' .. id
  if call('EXISTS', key) == 1 then
    local known = try('HMGET', key, 'fsm', 'ns', 'born', 'place')
    if not known.err and known[1] == name and known[2] == ns and known[3] == f.born and known[4] ~= 'done' then
      -- It was taken away with its FSM, or has failed since.
      call('UNLINK', key)
      for _, registry in ipairs({ 'failed', 'canceled', 'scheduled' }) do
        try('ZREM', 'rq:' .. registry .. ':' .. queue, id)
      end
    else
      -- One that was applied has a record until its time is over; it is not to go with that.
      id = unused('r' .. ms .. '-' .. id, ms)
      key = 'rq:job:' .. id
    end
  end
  local words = unpacked(text)
  variadic('HSET', key, words)
  for i = 1, #words, 2 do
    -- An id can lie there twice, and be done: nothing but a commit would give its record an end.
    if words[i] == 'place' and words[i + 1] ~= 'mail' and words[i + 1] ~= 'later' then call('EXPIRE', key, 86400) end
  end
  return id
end

-- Puts ids into a list, before those that lie there already.
local function fill(list, ids)
  if #ids == 0 then return end
  local is_among = {}
  for _, id in ipairs(ids) do is_among[id] = true end
  local there = call('LRANGE', list, 0, -1)
  if #there > 0 then
    call('UNLINK', list)
    for _, id in ipairs(there) do
      if not is_among[id] then ids[#ids + 1] = id end
    end
  end
  variadic('RPUSH', list, ids)
end

-- Its timers: each goes off at its time, unless its event waits already. At 0 is what went off, and has failed.
local function arm(name, f, queue, fired)
  local is_read, armed_ones = pcall(cjson.decode, f.timers)
  for key, entry in pairs(is_read and type(armed_ones) == 'table' and armed_ones or {}) do
    local version, due = type(entry) == 'table' and tonumber(entry[1]), type(entry) == 'table' and tonumber(entry[2])
    if version and due and due > 0 and not fired[digits(version)] then
      alarms[#alarms + 1] = digits(due)
      alarms[#alarms + 1] = 'timer ' .. key .. ' ' .. name
      armed(due, queue)
    end
  end
end

-- When its last event failed, as its note says; now where that cannot be read.
local function failed_at(note)
  local is_read, about = pcall(cjson.decode, note)
  local at = is_read and type(about) == 'table' and tonumber(about.at_ms)
  return at and digits(at) or ms
end

local function restore(at, name, f, is_fresh)
  local counts = {}
  for k = 1, 6 do counts[k] = tonumber(ARGV[at + 1 + k]) end
  local since, queue = ARGV[at + 1], f.queue or default_queue
  local first = at + 8 + counts[1]
  local urgent, mail = first, first + counts[2]
  local later, open = mail + counts[3], mail + counts[3] + 2 * counts[4]
  local records = open + 3 * counts[5]
  -- The first write, which a full Redis refuses; after it nothing in this script is.
  call('HSET', prefix .. 'snapshot:' .. name, unpack(ARGV, at + 8, first - 1))
  has_written = true
  gather(indexed, (f.status == 'finished' and 'finished:' or 'state:') .. f.machine .. ':' .. f.state,
    since ~= '' and since or f.updated_at, name)
  listed[f.machine .. ':' .. f.state] = true
  if f.error then gather(failures, 'errors:' .. f.machine, failed_at(f.error), name) end
  local fired = {}
  for _, list in ipairs({ 'urgent:', 'mailbox:' }) do
    local ids = {}
    for k = urgent, (list == 'urgent:' and mail or later) - 1 do
      local id = ARGV[k]
      local own = written(id, ARGV[records], name, f, queue) or id
      if own ~= id and id == f.owes then call('HSET', prefix .. 'snapshot:' .. name, 'owes', own) end
      local version = string.match(id, '%-%-t%d+v(%d+)$')
      if version then fired[version] = true end
      ids[#ids + 1] = own
      records = records + 1
    end
    fill(prefix .. list .. name, ids)
    urgent = mail
  end
  for k = later, open - 2, 2 do
    local id = written(ARGV[k], ARGV[records], name, f, queue)
    -- One whose record was deleted is nobody's any more.
    if id then put_off(prefix, { name = name, queue = queue }, id, tonumber(ARGV[k + 1])) end
    records = records + 1
  end
  for k = open, open + 3 * counts[5] - 3, 3 do
    call('HSET', prefix .. 'effects:' .. name, ARGV[k], ARGV[k + 1])
    opened[#opened + 1] = digits(tonumber(ms) + 5000)
    opened[#opened + 1] = ARGV[k] .. ' ' .. name
    if ARGV[k + 2] ~= '' then
      alarms[#alarms + 1] = ARGV[k + 2]
      alarms[#alarms + 1] = 'deadline ' .. ARGV[k] .. ' ' .. name
      armed(tonumber(ARGV[k + 2]), queue)
    end
  end
  if f.timers and f.status ~= 'finished' then arm(name, f, queue, fired) end
  local id = not (is_fresh and later == first) and head(prefix, name)
  if id and is_whole(f.retry_at) then
    alarms[#alarms + 1] = f.retry_at
    alarms[#alarms + 1] = 'retry ' .. name
    armed(tonumber(f.retry_at), queue)
    try('ZADD', 'rq:scheduled:' .. queue, math.ceil(tonumber(f.retry_at) / 1000), id)
  elseif id and f.status ~= 'failed' and (not f.paused or f.status == 'finished') then
    ring(queue, name, id)
  end
end

local at = 5
while at <= last do
  local name, f = ARGV[at], {}
  local size = tonumber(ARGV[at + 2])
  for k = at + 8, at + 7 + size, 2 do f[ARGV[k]] = ARGV[k + 1] end
  local word, is_fresh = obstacle(name, f, size)
  if not word then
    word = 'RESTORED'
    if not is_check then restore(at, name, f, is_fresh) end
  end
  answer[#answer + 1] = word
  at = at + 8 + size + ARGV[at + 3] + ARGV[at + 4] + 2 * ARGV[at + 5] + 3 * ARGV[at + 6] + ARGV[at + 7]
end
for index, members in pairs(indexed) do variadic('ZADD', prefix .. index, members) end
for member in pairs(listed) do try('SADD', states, member) end
for index, members in pairs(failures) do variadic('ZADD', prefix .. index, members) end
if #opened > 0 then variadic('ZADD', effects, opened) end
if #alarms > 0 then variadic('ZADD', timers, alarms) end
flush_ready(prefix)
wake_for_alarm(prefix, tonumber(ms))
if not has_written and not is_check then insist_on_primary(prefix) end
return answer
