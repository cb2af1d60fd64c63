--[[
commit: write what a worker did with the FSMs that it holds: all of it for each, or nothing where the lock is lost.

KEYS      1 held   2 claims:<worker>   3 replies:<worker>   4 log   5 ended
ARGV      1 prefix   2 namespace   3 default queue   4 worker   5 nonce, a number that grows   6 lease, ms
          7 most entries of the log   8 time of the claim as RQ writes it   9 timeout of new jobs, s
          10 a JSON array, the lines of the log, of one FSM after the other   11 how many bytes of it are each FSM's
          12 how many FSMs   13 how many frames   14.. the frames: what most FSMs of a commit have in common, as JSON:
            token, queue, result_ttl s, failure_ttl s, machine, state before, state after,
            ending ("", "finished" or "failed"), counts: 1 where the payload changed, further fields to set, fields to
            drop, urgent ids done, ids done, operations (-1: each id done is followed by its result, and was applied),
            arguments of the FSM, the queue in which it waits from now on, or ""
          then the names of all FSMs, then per FSM: number of its frame, version, payload where it changed, fields and
            values, fields to drop, ids done, urgent ones first, and operations, each with its arguments:
              N id event data           a new record of this FSM (a hard event)
              K ttl                     the record of the next operation, D, F or G, is kept for at least so long, s
              D id result stream        applied; stream is the result for a waiter, or ""
              F id result text packed   failed, with the text of the error, plain and as RQ packs it
              R id ms attempt text      stays where it is and is tried again after so long; text of the error or ""
              U id keyed                waits in the urgent list; "1" where it follows from an event with a key
              G id                      was taken away by an operator (cancelled or deleted): whoever waits is told
              S id name event data      mail to another FSM
              L id name due event data  the same, delayed: due as in `send`
              C 12 arguments            a new FSM: machine state event queue definition max_mailbox timeout
                                        ttl name id payload data
              A at member           an alarm: a member of `timers`, and when
              X member              no alarm any more
              Y                     its last event failed: the FSM is among those of its machine that have an error
              Z                     it is among them no more
              H most line           what became of an event, for the audit of the FSM, which keeps so many lines
              E id queue deadline note count fields   an ordinary RQ job; the note is what is kept of it while it is
                                        open, the deadline is when it has failed, ms from now on, or ""
              (an id that was used, by an earlier run of an event that was requeued, gets a new end)
RETURNS   COMMITTED, then one word an FSM: REST nothing waits; READY more mail waits; AT its oldest event waits to be
          tried again, and all other mail behind it; STALE the lock is not ours;
          BROKEN its snapshot is not a hash any more. Outgoing mail that found no target is noted in its own record
REPEATED  known by the nonce: the verdicts of the last sixteen are kept, nothing is written. Still later its tokens are
          gone: STALE
]]
local held, claims, replies, log, ended = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]
local prefix, ns, default_queue, worker, nonce, lease = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5], ARGV[6]
local log_length, claimed_at, timeout = ARGV[7], ARGV[8], ARGV[9]

call('PEXPIRE', claims, lease * 4)
-- The last sixteen numbers are remembered: an older repeat finds its tokens gone, and is STALE.
local slot = 'c' .. tonumber(nonce) % 16
local known = call('HGET', replies, slot)
local number = known and string.match(known, '^%d+')
if number == nonce then
  local answer = { 'COMMITTED' }
  for word in string.gmatch(known, '%u+') do answer[#answer + 1] = word end
  return answer
end
local ms, s, us = clock()
local now = rq_time(s, us)

-- What the FSMs have in common, read once each; and whose locks are ours: one MGET for all of them.
local ARGV, at = ARGV, 13
local function take()
  at = at + 1
  return ARGV[at - 1]
end
local count, finished = tonumber(ARGV[12]), {}
local frames = {}
for i = 1, ARGV[13] do
  local f = cjson.decode(ARGV[13 + i])
  -- Of each state there are two indexes: of those that have finished there, and of all others.
  local index, over = prefix .. 'state:' .. f[5] .. ':', prefix .. 'finished:' .. f[5] .. ':'
  frames[tostring(i)] = {
    holder = worker .. '/' .. f[1], queue = f[2], result_ttl = f[3], failure_ttl = f[4], left = index .. f[6],
    machine = f[5], state = f[7], entered = (f[8] == 'finished' and over or index) .. f[7], ending = f[8],
    has_payload = f[9] == 1, sets = f[10], drops = f[11],
    urgent = f[12], mail = f[13], operations = f[14], size = f[15], home = f[16] ~= '' and f[16] or f[2],
  }
end
local first_name = 13 + ARGV[13]
at = first_name + count + 1
local locks, lock_prefix = {}, prefix .. 'lock:'
for n = 1, count do locks[n] = lock_prefix .. ARGV[first_name + n] end
local owners = {}
for first = 1, count, 1000 do
  for _, owner in ipairs(call('MGET', unpack(locks, first, math.min(first + 999, count)))) do
    owners[#owners + 1] = owner
  end
end

local verdicts, freed_locks, freed, lines = {}, {}, {}, {}
local entered, left, opened, alarms, calmed = {}, {}, {}, {}, {}
local function gather(map, key, value, more)
  local list = map[key]
  if not list then
    list = {}
    map[key] = list
  end
  local n = #list
  list[n + 1] = value
  if more then list[n + 2] = more end
end

-- An event that was applied: its record ends, and is remembered for as long as the queue's records are kept.
local function finish(id, queue, ttl, result)
  local added = try('HSET', 'rq:job:' .. id, 'status', 'finished', 'place', 'done', 'started_at', claimed_at,
    'ended_at', now, 'worker_name', worker, 'result', result)
  if added ~= 4 then
    -- Four fields are new where nobody but us wrote its record: here RQ has, which may have taken it for failed.
    try('HDEL', 'rq:job:' .. id, 'exc_info')
    try('ZREM', 'rq:failed:' .. queue, id)
  end
  local kept_for = finished[queue]
  if not kept_for then
    kept_for = {}
    finished[queue] = kept_for
  end
  local ids = kept_for[ttl]
  if not ids then
    ids = {}
    kept_for[ttl] = ids
  end
  ids[#ids + 1] = id
end

-- A job that failed: its record, RQ's registry, and RQ's result, at which a waiter wakes. What an operator put under
-- the name of a job must not stop a commit that has begun to write: so no write of a record may raise.
local function fail(id, queue, result, text, packed, ttl)
  local key = 'rq:job:' .. id
  -- RQ looks for a failed job in the registry of its origin: it may have come to its FSM when that was in another queue.
  local added = try('HSET', key, 'status', 'failed', 'place', 'failed', 'started_at', claimed_at, 'ended_at', now,
    'worker_name', worker, 'result', result, 'exc_info', text, 'origin', queue)
  call('EXPIRE', key, ttl)
  -- All eight fields are new where its record was deleted meanwhile: nothing is left that could be requeued, and RQ's
  -- tools would stumble over it.
  if added ~= 8 then try('ZADD', 'rq:failed:' .. queue, s + ttl, id) end
  result_stream(id, 2, worker, 'exc_string', packed, ttl)
end

-- A line of the log for what could not be delivered.
local function note(target, event, id, word)
  lines[#lines + 1] = '{"name":' .. cjson.encode(target) .. ',"event":' .. cjson.encode(event) .. ',"job":"' .. id
    .. '","error":' .. cjson.encode('undeliverable: ' .. word) .. '}'
end

local is_whole_log = true
for n = 1, count do
  local name, frame = ARGV[first_name + n], frames[ARGV[at]]
  local queue, result_ttl, failure_ttl, ending = frame.queue, frame.result_ttl, frame.failure_ttl, frame.ending
  local snapshot, mailbox, next_fsm = prefix .. 'snapshot:' .. name, prefix .. 'mailbox:' .. name, at + frame.size + 1
  local verdict
  if owners[n] ~= frame.holder then
    verdict = 'STALE'
  else
    local version, written = ARGV[at + 1], nil
    at = at + 2
    local sets = at + (frame.has_payload and 1 or 0)
    if frame.has_payload then
      written = try('HSET', snapshot, 'updated_at', ms, 'version', version, 'state', frame.state, 'payload', ARGV[at],
        unpack(ARGV, sets, sets + 2 * frame.sets - 1))
    else
      written = try('HSET', snapshot, 'updated_at', ms, 'version', version, 'state', frame.state,
        unpack(ARGV, sets, sets + 2 * frame.sets - 1))
    end
    at = sets + 2 * frame.sets
    if type(written) == 'table' then verdict = 'BROKEN' end
  end
  if verdict then
    is_whole_log = false
  else
    local drops = frame.drops
    if drops > 0 then call('HDEL', snapshot, unpack(ARGV, at, at + drops - 1)) end
    at = at + drops
    if frame.left ~= frame.entered then
      gather(left, frame.left, name)
      gather(entered, frame.entered, ms, name)
    end

    -- Of ids that are applied, each is followed by its result.
    local urgent, mail, operations = frame.urgent, frame.mail, frame.operations
    local step = operations < 0 and 2 or 1
    local next_id
    if urgent > 0 then try('LPOP', prefix .. 'urgent:' .. name, urgent) end
    if mail > urgent then
      -- One more than was done, where nothing is added meanwhile: it tells what waits next, and goes back.
      local want = mail - urgent
      local gone = try('LPOP', mailbox, operations < 0 and want + 1 or want)
      if gone and not gone.err then
        local k = 1
        while k <= want and gone[k] == ARGV[at + step * (urgent + k - 1)] do k = k + 1 end
        if k <= want then
          -- Only the lock's holder takes mail out; were it otherwise once, nobody's mail is to be lost by it.
          local applied = {}
          for i = at, at + step * (mail - 1), step do applied[ARGV[i]] = true end
          for i = #gone, 1, -1 do
            -- What is no id was passed over, and Python may have read it as another text.
            if i > want or not applied[gone[i]] and string.find(gone[i], '^[%w_-]+$') then
              call('LPUSH', mailbox, gone[i])
            end
          end
          next_id = try('LINDEX', mailbox, 0)
        elseif gone[k] then
          next_id = gone[k]
          call('LPUSH', mailbox, next_id)
        end
      end
    end

    local owes, kept, waits = urgent > 0, nil, false
    if operations < 0 then
      for i = at, at + 2 * (mail - 1), 2 do finish(ARGV[i], queue, result_ttl, ARGV[i + 1]) end
    else
      at = at + mail
    end
    for _ = 1, operations do
      local op = take()
      if op == 'D' then
        local id, result, stream = take(), take(), take()
        finish(id, queue, kept or result_ttl, result)
        if stream ~= '' then result_stream(id, 1, worker, 'return_value', stream, result_ttl) end
        if kept then
          -- A stock worker of RQ's lets a record expire by this field.
          try('HSET', 'rq:job:' .. id, 'result_ttl', kept)
        end
        kept = nil
      elseif op == 'F' then
        local id, result, text, packed = take(), take(), take(), take()
        fail(id, frame.home, result, text, packed, math.max(kept or 0, failure_ttl))
        kept = nil
      elseif op == 'K' then
        kept = tonumber(take())
      elseif op == 'N' then
        local id, event, data = take(), take(), take()
        local born = call('HGET', snapshot, 'born')
        record(id, now, ns, { name = name, born = born, queue = frame.home }, event, data, timeout, result_ttl, try)
      elseif op == 'U' then
        local id, keyed = take(), take()
        try('RPUSH', prefix .. 'urgent:' .. name, id)
        -- It may have been used in an earlier run of its cause, and be about to expire.
        try('PERSIST', 'rq:job:' .. id)
        -- So that the claim that takes it knows: an empty key is one.
        if keyed ~= '' then try('HSET', 'rq:job:' .. id, 'key', '') end
        owes = true
      elseif op == 'R' then
        local id, pause, attempt, text = take(), tonumber(take()), take(), take()
        local at = string.format('%.0f', tonumber(ms) + pause)
        -- Where its time cannot be noted, it is tried again at once.
        waits = type(try('ZADD', prefix .. 'timers', at, 'retry ' .. name)) == 'number'
        armed(tonumber(at), frame.home)
        call('HSET', snapshot, 'retry_at', waits and at or ms)
        -- It may wait in the urgent list.
        owes = true
        -- A record that was deleted meanwhile stays so, and is reported by the next claim.
        if try('HEXISTS', 'rq:job:' .. id, 'place') == 1 then
          local status = waits and 'scheduled' or 'queued'
          call('HSET', 'rq:job:' .. id, 'status', status, 'attempt', attempt, 'exc_info', text, 'worker_name', worker,
            'origin', frame.home)
          if waits then try('ZADD', 'rq:scheduled:' .. frame.home, s + math.ceil(pause / 1000), id) end
        end
      elseif op == 'G' then
        local id = take()
        local status = try('HGET', 'rq:job:' .. id, 'status')
        if type(status) == 'string' then
          call('HSET', 'rq:job:' .. id, 'place', 'gone', 'status', status == 'canceled' and status or 'failed',
            'ended_at', now)
          call('EXPIRE', 'rq:job:' .. id, math.max(kept or 0, failure_ttl))
        end
        kept = nil
        result_stream(id, 3, worker, 'exc_string', '', failure_ttl)
      elseif op == 'A' then
        armed(tonumber(ARGV[at]), frame.home)
        alarms[#alarms + 1] = take()
        alarms[#alarms + 1] = take()
      elseif op == 'X' then
        calmed[#calmed + 1] = take()
      elseif op == 'S' or op == 'L' then
        local id, target, due = unused(take(), ms), take(), op == 'L' and due_at(take(), ms)
        local event, data = take(), take()
        local word = due
          and deliver_later(prefix, ns, default_queue, now, id, target, due, event, data, timeout, result_ttl)
          or not due and deliver(prefix, ns, default_queue, now, id, target, '', event, data, timeout, result_ttl)
        if word ~= 'SENT' then
          record(id, now, ns, { name = target, born = '', queue = queue }, event, data, timeout, result_ttl)
          fail(id, queue, '{"failed":"undeliverable"}', 'mail from ' .. name .. ' not delivered: ' .. word, '',
            failure_ttl)
          note(target, event, id, word)
        end
      elseif op == 'C' then
        local m = {
          machine = take(), state = take(), event = take(), queue = take(), definition = take(),
          limit = take(), timeout = take(), ttl = take(),
        }
        local child, id, payload, data = take(), unused(take(), ms), take(), take()
        if m.queue == '' then m.queue = default_queue end
        local word = create(prefix, ns, default_queue, ms, born_at(s, us), now, m, child, id, payload, data)
        if word ~= 'CREATED' then
          record(id, now, ns, { name = child, born = '', queue = m.queue }, m.event, data, m.timeout, m.ttl)
          fail(id, m.queue, '{"failed":"undeliverable"}', 'start from ' .. name .. ' not done: ' .. word, '',
            failure_ttl)
          note(child, m.event, id, word)
        end
      elseif op == 'E' then
        local id, target, deadline, note_of, fields = unused(take(), ms), take(), take(), take(), tonumber(take())
        try('HSET', 'rq:job:' .. id, 'created_at', now, 'enqueued_at', now, 'status', 'queued', 'origin', target,
          unpack(ARGV, at, at + 2 * fields - 1))
        at = at + 2 * fields
        if type(try('RPUSH', 'rq:queue:' .. target, id)) == 'table' then
          fail(id, target, '{"failed":"undeliverable"}', 'effect of ' .. name .. ' not enqueued: BROKEN', '', failure_ttl)
          note(target, 'effect', id, 'BROKEN')
        end
        try('SADD', 'rq:queues', 'rq:queue:' .. target)
        try('HSET', prefix .. 'effects:' .. name, id, note_of)
        opened[#opened + 1] = string.format('%.0f', tonumber(ms) + 5000)
        opened[#opened + 1] = id .. ' ' .. name
        if deadline ~= '' then
          local ends = tonumber(ms) + deadline
          armed(ends, frame.home)
          alarms[#alarms + 1] = digits(ends)
          alarms[#alarms + 1] = 'deadline ' .. id .. ' ' .. name
        end
      elseif op == 'Y' then
        try('ZADD', prefix .. 'errors:' .. frame.machine, ms, name)
      elseif op == 'Z' then
        try('ZREM', prefix .. 'errors:' .. frame.machine, name)
      else
        local most, line = take(), take()
        try('XADD', prefix .. 'audit:' .. name, 'MAXLEN', '~', most, '*', 'line', line)
      end
    end

    freed_locks[#freed_locks + 1] = locks[n]
    freed[#freed + 1] = name
    if ending == 'failed' or waits then
      next_id = nil
    elseif owes then
      next_id = head(prefix, name)
    elseif operations >= 0 or mail == urgent then
      next_id = try('LINDEX', mailbox, 0)
    end
    if type(next_id) == 'string' then
      ring(frame.home, name, next_id)
      verdict = 'READY'
    else
      verdict = waits and 'AT' or 'REST'
    end
  end
  verdicts[n] = verdict
  at = next_fsm
end

for key, members in pairs(left) do variadic('ZREM', key, members) end
for key, members in pairs(entered) do variadic('ZADD', key, members) end
flush_begun(prefix)
if #opened > 0 then variadic('ZADD', prefix .. 'effects', opened) end
if #calmed > 0 then variadic('ZREM', prefix .. 'timers', calmed) end
if #alarms > 0 then variadic('ZADD', prefix .. 'timers', alarms) end
flush_ready(prefix)
wake_for_alarm(prefix, tonumber(ms))
if #freed > 0 then
  for first = 1, #freed_locks, 1000 do
    call('UNLINK', unpack(freed_locks, first, math.min(first + 999, #freed_locks)))
  end
  variadic('HDEL', claims, freed)
  variadic('ZREM', held, freed)
end
local words = table.concat(verdicts, ' ')
-- One that comes so late must not take the place of the verdicts of a newer one.
if (tonumber(number) or 0) < tonumber(nonce) then call('HSET', replies, slot, nonce .. ' ' .. words) end
call('PEXPIRE', replies, lease * 4)

-- From here on nothing carries state: none of it may fail the commit.
local text = ARGV[10]
if not is_whole_log then
  -- Of FSMs that were not written, nothing is told.
  local kept, begin, n = {}, 2, 0
  for size in string.gmatch(ARGV[11], '%d+') do
    n = n + 1
    if size ~= '0' then
      if verdicts[n] ~= 'STALE' and verdicts[n] ~= 'BROKEN' then
        kept[#kept + 1] = string.sub(text, begin, begin + size - 1)
      end
      begin = begin + size + 1
    end
  end
  text = '[' .. table.concat(kept, ',') .. ']'
end
if #lines > 0 then
  text = '[' .. table.concat(lines, ',') .. (text == '[]' and ']' or ',' .. string.sub(text, 2))
end
if text ~= '[]' then try('XADD', log, 'MAXLEN', '~', log_length, '*', 'worker', worker, 'transitions', text) end
local batches = 1
for queue, kept_for in pairs(finished) do
  for ttl, ids in pairs(kept_for) do
    -- Of what ends in the same second, each commit comes behind those before it: a registry grows at its end, since a
    -- place among equals would have to be looked for.
    local score = string.format('%.0f.%06d', s + ttl, us)
    for first = 1, #ids, 500 do
      local scored = {}
      for k = first, math.min(first + 499, #ids) do
        scored[#scored + 1] = score
        scored[#scored + 1] = ids[k]
      end
      try('ZADD', 'rq:finished:' .. queue, unpack(scored))
      try('ZADD', ended, s + ttl, queue .. ' ' .. table.concat(ids, ' ', first, math.min(first + 499, #ids)))
      batches = batches + 1
    end
  end
end
drop_ended(ended, s, batches)
local answer = { 'COMMITTED' }
for n, verdict in ipairs(verdicts) do answer[n + 1] = verdict end
return answer
