--[[
commit: write what a worker did with the FSMs that it holds: all of it for each, or nothing where the lock is lost.

KEYS      1 held   2 claims:<worker>   3 replies:<worker>   4 log   5 ended   6 finished
ARGV      1 prefix   2 namespace   3 default queue   4 worker   5 nonce, a number that grows   6 lease, ms
          7 most entries of the log   8 time of the claim as RQ writes it   9 timeout of new jobs, s   10.. per FSM:
            how many arguments follow for it, name, token, queue, result_ttl s, failure_ttl s,
            fields to set: count, then field and value;   fields to drop: count, then field,
            machine, state before, state after, ending ("", "finished" or "failed"),
            urgent ids done: count;   mailbox ids done: count, then ids, urgent ones first,
            operations: count, then each with its arguments:
              N id event data           a new record of this FSM (a hard event)
              K ttl                     the record of the next operation, D, F or G, is kept for at least so long, s
              D id result stream        applied; stream is the result for a waiter, or ""
              F id result text packed   failed, with the text of the error, plain and as RQ packs it
              R id ms attempt text      stays where it is and is tried again after so long; text of the error or ""
              U id keyed                waits in the urgent list; "1" where it follows from an event with a key
              G id                      was taken away by an operator (cancelled or deleted): whoever waits is told
              S id name event data      mail to another FSM
              C 13 arguments            a new FSM: machine state event queue definition definition_version
                                        max_mailbox timeout ttl name id payload data
              E id queue note count fields   an ordinary RQ job; the note is what is kept of it while it is open
              (an id that was used, by an earlier run of an event that was requeued, gets a new end)
            the log lines, a piece of JSON
RETURNS   COMMITTED, then one word an FSM: REST nothing waits; READY more mail waits; AT its oldest event waits to be
          tried again, and all other mail behind it; STALE the lock is not ours;
          BROKEN its snapshot is not a hash any more. Outgoing mail that found no target is noted in its own record
REPEATED  known by the nonce: the verdicts of the last sixteen are kept, nothing is written. Still later its tokens are
          gone: STALE
]]
local held, claims, replies, log, ended, over_key = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5], KEYS[6]
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

-- First pass: where each FSM's arguments begin, and whether its lock is ours. One MGET for all of them.
local ARGV, at = ARGV, 10
local function take()
  at = at + 1
  return ARGV[at - 1]
end
local starts, locks, lock_prefix, last = {}, {}, prefix .. 'lock:', #ARGV
while at <= last do
  local n = #starts + 1
  starts[n] = at + 1
  locks[n] = lock_prefix .. ARGV[at + 1]
  at = at + 1 + ARGV[at]
end
local owners = {}
for first = 1, #locks, 1000 do
  for _, owner in ipairs(call('MGET', unpack(locks, first, math.min(first + 999, #locks)))) do
    owners[#owners + 1] = owner
  end
end

local verdicts, freed_locks, freed, lines = {}, {}, {}, {}
local entered, left, begun_at, over = {}, {}, {}, {}
local finished, opened = {}, {}
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

-- A job that failed: its record, RQ's registry, and RQ's result, at which a waiter wakes. What an operator put under
-- the name of a job must not stop a commit that has begun to write: so no write of a record may raise.
local function fail(id, queue, result, text, packed, ttl)
  local key = 'rq:job:' .. id
  local added = try('HSET', key, 'status', 'failed', 'place', 'failed', 'started_at', claimed_at, 'ended_at', now,
    'worker_name', worker, 'result', result, 'exc_info', text)
  call('EXPIRE', key, ttl)
  -- All seven fields are new where its record was deleted meanwhile: nothing is left that could be requeued, and RQ's
  -- tools would stumble over it.
  if added ~= 7 then try('ZADD', 'rq:failed:' .. queue, s + ttl, id) end
  result_stream(id, 2, worker, 'exc_string', packed, ttl)
end

-- A line of the log for what could not be delivered.
local function note(target, event, id, word)
  lines[#lines + 1] = '{"name":' .. cjson.encode(target) .. ',"event":' .. cjson.encode(event) .. ',"job":"' .. id
    .. '","error":' .. cjson.encode('undeliverable: ' .. word) .. '}'
end

for n, start in ipairs(starts) do
  at = start
  local name, token, queue = take(), take(), take()
  local result_ttl, failure_ttl = tonumber(take()), tonumber(take())
  local snapshot, mailbox = prefix .. 'snapshot:' .. name, prefix .. 'mailbox:' .. name
  local verdict
  if owners[n] ~= worker .. '/' .. token then
    verdict = 'STALE'
  else
    local count = tonumber(take())
    local written = try('HSET', snapshot, 'updated_at', ms, unpack(ARGV, at, at + 2 * count - 1))
    at = at + 2 * count
    if type(written) == 'table' then verdict = 'BROKEN' end
  end
  if not verdict then
    local drops = tonumber(take())
    if drops > 0 then call('HDEL', snapshot, unpack(ARGV, at, at + drops - 1)) end
    at = at + drops
    local machine, before, after, ending = take(), take(), take(), take()
    if before ~= after then
      gather(left, prefix .. 'state:' .. machine .. ':' .. before, name)
      gather(entered, prefix .. 'state:' .. machine .. ':' .. after, ms, name)
    end
    if ending == 'finished' then
      over[#over + 1] = ms
      over[#over + 1] = name
    end

    local urgent, mail = tonumber(take()), tonumber(take())
    if urgent > 0 then try('LPOP', prefix .. 'urgent:' .. name, urgent) end
    if mail > urgent then
      local gone = try('LPOP', mailbox, mail - urgent)
      -- Only the lock's holder takes mail out; were it otherwise once, nobody's mail is to be lost by it.
      if gone and not gone.err and (gone[2] or gone[1] ~= ARGV[at + urgent]) then
        local applied = {}
        for k = at + urgent, at + mail - 1 do applied[ARGV[k]] = true end
        for k = #gone, 1, -1 do
          -- What is no id was passed over, and Python may have read it as another text.
          if not applied[gone[k]] and string.find(gone[k], '^[%w_-]+$') then call('LPUSH', mailbox, gone[k]) end
        end
      end
    end
    at = at + mail

    local operations, owes, kept, waits = tonumber(take()), urgent > 0, nil, false
    for _ = 1, operations do
      local op = take()
      if op == 'D' then
        local id, result, stream = take(), take(), take()
        local added = try('HSET', 'rq:job:' .. id, 'status', 'finished', 'place', 'done', 'started_at', claimed_at,
          'ended_at', now, 'worker_name', worker, 'result', result)
        if added ~= 4 then
          -- Four fields are new where nobody but us wrote its record: here RQ has, which may have taken it for failed.
          try('HDEL', 'rq:job:' .. id, 'exc_info')
          try('ZREM', 'rq:failed:' .. queue, id)
        end
        if stream ~= '' then result_stream(id, 1, worker, 'return_value', stream, result_ttl) end
        if kept then
          -- A stock worker of RQ's lets a record expire by this field.
          try('HSET', 'rq:job:' .. id, 'result_ttl', kept)
        end
        gather(finished, queue .. ' ' .. (kept or result_ttl), id)
        kept = nil
      elseif op == 'F' then
        local id, result, text, packed = take(), take(), take(), take()
        fail(id, queue, result, text, packed, math.max(kept or 0, failure_ttl))
        kept = nil
      elseif op == 'K' then
        kept = tonumber(take())
      elseif op == 'N' then
        local id, event, data = take(), take(), take()
        local born = call('HGET', snapshot, 'born')
        record(id, now, ns, { name = name, born = born, queue = queue }, event, data, timeout, result_ttl, try)
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
        call('HSET', snapshot, 'retry_at', waits and at or ms)
        -- It may wait in the urgent list.
        owes = true
        -- A record that was deleted meanwhile stays so, and is reported by the next claim.
        if try('HEXISTS', 'rq:job:' .. id, 'place') == 1 then
          local status = waits and 'scheduled' or 'queued'
          call('HSET', 'rq:job:' .. id, 'status', status, 'attempt', attempt, 'exc_info', text, 'worker_name', worker)
          if waits then try('ZADD', 'rq:scheduled:' .. queue, s + math.ceil(pause / 1000), id) end
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
      elseif op == 'S' then
        local id, target, event, data = unused(take(), ms), take(), take(), take()
        local word = deliver(prefix, ns, default_queue, now, id, target, '', event, data, timeout, result_ttl)
        if word ~= 'SENT' then
          record(id, now, ns, { name = target, born = '', queue = queue }, event, data, timeout, result_ttl)
          fail(id, queue, '{"failed":"undeliverable"}', 'mail from ' .. name .. ' not delivered: ' .. word, '',
            failure_ttl)
          note(target, event, id, word)
        end
      elseif op == 'C' then
        local m = {
          machine = take(), state = take(), event = take(), queue = take(), definition = take(),
          definition_version = take(), limit = take(), timeout = take(), ttl = take(),
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
      else
        local id, target, note_of, fields = unused(take(), ms), take(), take(), tonumber(take())
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
      end
    end
    local line = take()
    if line ~= '' then lines[#lines + 1] = line end

    freed_locks[#freed_locks + 1] = locks[n]
    freed[#freed + 1] = name
    local next_id = ending ~= 'failed' and not waits and (owes and head(prefix, name) or try('LINDEX', mailbox, 0))
    if type(next_id) == 'string' then
      ring(queue, name, next_id)
      verdict = 'READY'
    else
      verdict = waits and 'AT' or 'REST'
    end
  end
  verdicts[n] = verdict
end

for key, members in pairs(left) do variadic('ZREM', key, members) end
for key, members in pairs(entered) do variadic('ZADD', key, members) end
flush_begun(prefix)
if #over > 0 then variadic('ZADD', over_key, over) end
if #opened > 0 then variadic('ZADD', prefix .. 'effects', opened) end
flush_ready(prefix)
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
if #lines > 0 then
  try('XADD', log, 'MAXLEN', '~', log_length, '*', 'worker', worker, 'transitions', '[' .. table.concat(lines, ',') .. ']')
end
local batches = 1
for place, ids in pairs(finished) do
  local queue, ttl = string.match(place, '^(.*) (%d+)$')
  for first = 1, #ids, 500 do
    local part, scored = {}, {}
    for k = first, math.min(first + 499, #ids) do
      part[#part + 1] = ids[k]
      scored[#scored + 1] = s + ttl
      scored[#scored + 1] = ids[k]
    end
    try('ZADD', 'rq:finished:' .. queue, unpack(scored))
    try('ZADD', ended, s + ttl, queue .. ' ' .. table.concat(part, ' '))
    batches = batches + 1
  end
end
drop_ended(ended, s, batches)
local answer = { 'COMMITTED' }
for n, verdict in ipairs(verdicts) do answer[n + 1] = verdict end
return answer
