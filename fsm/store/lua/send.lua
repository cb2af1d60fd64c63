--[[
send: put events into mailboxes, in the order given, and make FSMs ready that were at rest.

An event whose record has a field `due`, ms or "+ms" from now on, waits for that time, and joins the mailbox then.

Where a machine is told of, an FSM that does not exist is started before its event is sent.

KEYS      none: names come as arguments, and cluster mode is refused at connect
ARGV      1 prefix   2 namespace   3 default queue   4 timeout of a job, s   5 result_ttl, s
          6 how many arguments tell of a machine, 0 or eight
          7.. those eight, as `start` has them: machine, state, entry event, queue, mark of the definition, max_mailbox,
            timeout, result_ttl; then per event: name, job id (of a key, whose event has a digest, its hash and ":",
            which stands for "-" and the `born` of the FSM), born or "", event, data of the job, how many fields its
            record has beside, these fields with their values, and where a machine is told of: job id, payload and data
            of an entry event
RETURNS   one word an event: SENT; UNKNOWN no such FSM, or another life of its name; FINISHED and its state; FULL and
          the bound, of the mailbox, or of those that wait for their time; CONFLICT the id was used for something else;
          DUPLICATE and its place: this very event was sent before; STALE, version and state: it is newer than the
          event's `if_version`; EXISTS and the machine of an FSM that is not of the machine told of; SKIPPED an earlier
          event of this FSM in this call was refused; BROKEN a key of it is of another type. Of a key, SENT, DUPLICATE
          and CONFLICT end with the job id
REPEATED  known by the job id: DUPLICATE, nothing is written, also once the FSM has finished; UNKNOWN once it was
          purged. An FSM that this call started, and that was purged since, is known by the record of its entry event:
          it does not rise again. What was refused before may find room now
]]
is_strict = true
local prefix, ns, default_queue, timeout, ttl = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5]
local ms, s, us = clock()
local now = rq_time(s, us)
local fsms, order, answer = {}, {}, {}
local dropped, again = {}, {}
local at, n, last, m = 7, 0, #ARGV, nil
if ARGV[6] ~= '0' then
  m = {
    machine = ARGV[7], state = ARGV[8], event = ARGV[9], queue = ARGV[10], definition = ARGV[11],
    limit = ARGV[12], timeout = ARGV[13], ttl = ARGV[14],
  }
  at = 15
end

-- Ids are drawn, so nearly always none of a call has a record: one command asks of hundreds. What this call makes itself
-- is noted in `made`; ids of keys are made out of the life of their FSM, and asked for one by one.
local is_new, made, keys = true, {}, {}
local k = at
while k <= last do
  keys[#keys + 1] = 'rq:job:' .. ARGV[k + 1]
  k = k + (m and 9 or 6) + 2 * ARGV[k + 5]
  if #keys == 500 or k > last then
    is_new = permitted(try('EXISTS', unpack(keys))) == 0 and is_new
    keys = {}
  end
end

-- The FSM of this name, or nil and why not. One that takes no events has `over`, which is said of all but duplicates.
local function find(name, born, entry)
  local fsm, why, life = addressee(prefix, name, born, default_queue)
  if why == 'UNKNOWN' and m and born == '' then
    local lived = try('HMGET', 'rq:job:' .. ARGV[entry], 'fsm', 'born')
    if permitted(lived).err or lived[1] and lived[1] ~= name then return nil, 'BROKEN' end
    if lived[1] then return { name = name, born = lived[2] or '', over = why } end
    local word = create(prefix, ns, default_queue, ms, born_at(s, us), now, m, name, ARGV[entry], ARGV[entry + 1],
      ARGV[entry + 2])
    if word ~= 'CREATED' then return nil, word end
    made[ARGV[entry]] = true
    local created = addressee(prefix, name, '', default_queue)
    -- Its entry event, which waits there already, is none of those that the bound is for.
    if created then created.spare = 1 end
    return created
  end
  if life then fsm, why = { name = name, born = life, over = why }, nil end
  if m and fsm then
    local machine = try('HGET', prefix .. 'snapshot:' .. name, 'machine')
    if machine ~= m.machine then fsm.over = 'EXISTS ' .. (type(machine) == 'string' and machine or '') end
  end
  return fsm, why
end

-- What is said of an event that was decided on an older version of its FSM, or nil.
local function newer(name, version)
  local seen = call('HMGET', prefix .. 'snapshot:' .. name, 'version', 'state')
  if is_whole(seen[1]) and tonumber(seen[1]) > version then return 'STALE ' .. seen[1] .. ' ' .. (seen[2] or '') end
end

-- Records of one call are nearly alike. To copy one and write what differs costs less than to write one: of those of
-- this FSM, else of this event, the first without further fields, by where its arguments begin.
-- In fakeredis both names would lead to the same hash; it has no `sha1hex` either.
local like, copies = {}, redis.sha1hex ~= nil
local function write(fsm, letter, id, event, data, may_be_copied)
  local key, from, name = 'rq:job:' .. id, fsm.first, fsm.name
  if not from or ARGV[from + 3] ~= event then
    from = like[event]
    if from and fsms[ARGV[from]].queue ~= fsm.queue then from = nil end
  end
  -- A user who may not copy writes each of them.
  if not from or try('COPY', 'rq:job:' .. ARGV[from + 1], key) ~= 1 then
    record(id, now, ns, fsm, event, data, timeout, ttl)
  elseif ARGV[from] ~= name then
    call('HSET', key, 'data', data, 'born', fsm.born, 'fsm', name, 'description', event .. ' ' .. name)
  elseif ARGV[from + 4] ~= data then
    call('HSET', key, 'data', data)
  end
  if copies and may_be_copied and ARGV[letter + 5] == '0' then
    if not fsm.first then fsm.first = letter end
    if not like[event] then like[event] = letter end
  end
end

while at <= last do
  n = n + 1
  local letter = at
  local name, id, born, event, data = ARGV[at], ARGV[at + 1], ARGV[at + 2], ARGV[at + 3], ARGV[at + 4]
  local first, count = at + 6, 2 * ARGV[at + 5]
  local entry = first + count
  at = m and entry + 3 or entry
  local fsm, why = fsms[name], nil
  if fsm == nil then
    fsm, why = find(name, born, entry)
    if fsm then
      fsm.ids, fsm.items = {}, {}
      order[#order + 1] = fsm
    end
    fsms[name] = fsm or false
  elseif not fsm or fsm.refused then
    why = 'SKIPPED'
  elseif born ~= '' and born ~= fsm.born then
    why, fsm.refused = 'UNKNOWN', true
  end
  if fsm and not why then
    local digest, stale, asked_due, due, said, is_refused = nil, nil, nil, nil, '', true
    if count > 0 then
      for k = first, entry - 1, 2 do
        if ARGV[k] == 'digest' then
          digest = ARGV[k + 1]
          id = string.sub(id, 1, -2) .. '-' .. fsm.born
          said = ' ' .. id
        elseif ARGV[k] == 'if_version' then
          stale = newer(name, tonumber(ARGV[k + 1]))
        elseif ARGV[k] == 'due' then
          asked_due, due = true, due_at(ARGV[k + 1], ms)
          if due and not fsm.put_off then fsm.put_off = count_put_off(prefix, name) end
        end
      end
    end
    local known = (digest or made[id] or not is_new)
      and permitted(try('HMGET', 'rq:job:' .. id, 'fsm', 'event', 'place', 'ns', 'created_at'))
    if known and known.err then
      why = 'BROKEN'
    elseif known and (known[1] or known[5]) then
      local same = known[2] == event
      if digest then same = try('HGET', 'rq:job:' .. id, 'digest') == digest end
      if same and known[1] == name and known[4] == ns then
        why, is_refused = 'DUPLICATE ' .. (known[3] or '') .. said, false
        again[n] = id
      else
        why = 'CONFLICT' .. said
      end
    elseif known and known[3] then
      -- Its record was deleted while a worker had it in hand; what the commit wrote says that it has ended.
      why, is_refused = 'DUPLICATE ' .. known[3] .. said, false
    elseif fsm.over then
      why = fsm.over
    elseif stale then
      why = stale
    elseif due and not fsm.put_off then
      why = 'BROKEN'
    elseif due and fsm.put_off >= fsm.limit then
      why = 'FULL ' .. fsm.limit
    else
      -- Only what lay nowhere before holds nothing but what is written here: COPY takes all fields, and the expiry.
      write(fsm, letter, id, event, data, not known)
      if count > 0 then call('HSET', 'rq:job:' .. id, unpack(ARGV, first, entry - 1)) end
      if due then
        put_off(prefix, fsm, id, due)
        fsm.put_off = fsm.put_off + 1
      else
        if asked_due then call('HDEL', 'rq:job:' .. id, 'due') end
        fsm.ids[#fsm.ids + 1] = id
        fsm.items[#fsm.items + 1] = n
      end
      made[id] = true
      why, is_refused = said == '' and 'SENT' or 'SENT' .. said, false
    end
    if is_refused then fsm.refused = true end
  end
  answer[n] = why
end
for _, fsm in ipairs(order) do
  local count = #fsm.ids
  if count > 0 then
    local mailbox = prefix .. 'mailbox:' .. fsm.name
    local length = variadic('RPUSH', mailbox, fsm.ids)
    local over = type(length) == 'table' and count or length - fsm.limit - (fsm.spare or 0)
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
flush_begun(prefix)
flush_ready(prefix)
wake_for_alarm(prefix, tonumber(ms))
if next(made) == nil then insist_on_primary(prefix) end
return answer
