--[[
due: do what is to be done now: what `timers` holds says which FSM, event or effect it is, and of which kind.

KEYS      1 timers
ARGV      1 prefix   2 namespace   3 default queue   4 most members, of all kinds   5 ms: what is due within them counts as due
          6 the only kind that is looked at, or ""   7 24 hex digits, of which the ids of new records are made
          8 timeout   9 result_ttl   10 failure_ttl of new records, s
RETURNS   DUE, how many members were done, ms until the next one is due or -1
REPEATED  by state: what was done is not in `timers` any more
]]
local timers = KEYS[1]
local prefix, ns, default_queue = ARGV[1], ARGV[2], ARGV[3]
local most, ahead, only, nonce = tonumber(ARGV[4]), tonumber(ARGV[5]), ARGV[6], ARGV[7]
local timeout, result_ttl, failure_ttl = ARGV[8], ARGV[9], tonumber(ARGV[10])
-- Not refused by a full Redis, and after it nothing in this script is.
call('PERSIST', timers)
local clock_ms, s, us = clock()
local ms, now = tonumber(clock_ms), rq_time(s, us)
local function at(moment) return string.format('%.0f', moment) end
local done_count = 0

-- What is done of each kind; it gives the time to which the member is put off, or nil where it is over.
local kinds = {}
-- What nobody here can tell, or what cannot be done before somebody has repaired a key, is looked at again then.
local function puzzled() return ms + 60000 end

-- retry <name>: its oldest event is to be tried again.
function kinds.retry(name)
  local f = try('HMGET', prefix .. 'snapshot:' .. name, 'queue', 'retry_at')
  local retry_at = not f.err and is_whole(f[2]) and tonumber(f[2])
  if not retry_at then return nil end
  if retry_at > ms + ahead then return retry_at end
  local queue = f[1] or default_queue
  if not sound(prefix, queue) then return puzzled() end
  if retry_at > ms then call('HSET', prefix .. 'snapshot:' .. name, 'retry_at', at(ms)) end
  local id = head(prefix, name)
  if id then
    local key = 'rq:job:' .. id
    if try('HGET', key, 'status') == 'scheduled' then
      call('HSET', key, 'status', 'queued')
      call('HDEL', key, 'exc_info')
    end
    try('ZREM', 'rq:scheduled:' .. queue, id)
    ring(queue, name, id)
    done_count = done_count + 1
  end
end

-- Those of an FSM that cannot join yet: behind one another, in the order in which they are due. Where it has failed, it
-- takes none before an operator has seen to it: they must not be looked at each second until then.
local behind = {}
local function put_off_again(name, has_failed)
  behind[name] = math.max((behind[name] or 0) + 1, ms + (has_failed and 60000 or 1000))
  return behind[name]
end

-- Whether another event of this FSM was due before this one, and could not join yet.
local function is_overtaking(name, due)
  local later = prefix .. 'later:' .. name
  while true do
    local first = try('ZRANGE', later, 0, 0, 'WITHSCORES')
    if not first[2] or tonumber(first[2]) >= due then return false end
    local alarm = try('HGET', 'rq:job:' .. first[1], 'alarm')
    if type(alarm) == 'string' and try('ZSCORE', timers, alarm) then return true end
    -- Nobody will fire that one: its record was deleted, and its alarm with it.
    call('ZREM', later, first[1])
  end
end

-- mail <number> <id> <name>: a delayed event joins the mailbox of its FSM, also of one that has finished: a worker says so.
function kinds.mail(rest, member)
  local id, name = string.match(rest, '^%d+ ([%w_-]+) (.+)$')
  if not id then return puzzled() end
  local key = 'rq:job:' .. id
  local job = try('HMGET', key, 'place', 'alarm', 'status', 'born', 'origin', 'due')
  if job.err then job = { false } end
  if job[1] and (job[1] ~= 'later' or job[2] ~= member) then
    -- Deleted and sent again under the same id: it does not wait, or for another alarm.
    if job[1] ~= 'later' then try('ZREM', prefix .. 'later:' .. name, id) end
    return nil
  end
  local f = try('HMGET', prefix .. 'snapshot:' .. name, 'born', 'status', 'queue', 'max_mailbox')
  local queue, word = f[3] or default_queue, nil
  if not job[1] or job[3] == 'canceled' then
    word = 'canceled'
  elseif not f.err and (f[1] ~= job[4] or f[2] == 'purging') then
    word = 'failed'
  end
  if word then
    forget_alarm(prefix, name, id, nil, job[5] or queue)
    if job[1] then
      call('HSET', key, 'place', 'gone', 'status', word, 'ended_at', now)
      call('EXPIRE', key, failure_ttl)
    end
    if word == 'failed' then
      call('HSET', key, 'exc_info', 'purged with its FSM', 'result', '{"failed":"gone","reason":"purged with its FSM"}')
      try('ZADD', 'rq:failed:' .. (job[5] or queue), s + failure_ttl, id)
    end
    result_stream(id, word == 'failed' and 2 or 3, '', 'exc_string', '', failure_ttl)
    done_count = done_count + 1
    return nil
  end
  local length = try('LLEN', prefix .. 'mailbox:' .. name)
  if f.err or type(length) ~= 'number' or not sound(prefix, queue) then return puzzled() end
  local limit = is_whole(f[4]) and tonumber(f[4]) or 10000
  if length >= 2 * limit then return put_off_again(name, f[2] == 'failed') end
  if is_overtaking(name, tonumber(job[6]) or 0) then return put_off_again(name) end
  forget_alarm(prefix, name, id, nil, job[5] or queue)
  call('HDEL', key, 'exc_info', 'ended_at')
  call('HSET', key, 'place', 'mail', 'status', 'queued', 'enqueued_at', now, 'origin', queue)
  enter(prefix, { name = name, queue = queue, moves = f[2] ~= 'failed' }, id)
  done_count = done_count + 1
end

-- timer <key> <name>: its event goes into the mailbox. The entry in the snapshot stays until that is applied: whoever
-- holds the FSM may be about to write it anew. By `arm`, the version that armed it, an event knows whose it is.
local fired = 0
local function fired_id(arm)
  local id
  repeat
    fired = fired + 1
    id = nonce .. '--t' .. fired .. 'v' .. arm
  until call('EXISTS', 'rq:job:' .. id) == 0
  return id
end

-- The timers of an FSM, which stand in one field and are often due together: read once, for with their data they may
-- have as many bytes as a payload. When so much was read, the rest is for the next call, and others come in between.
local timers_of, weight, most_weight = {}, 0, 4194304
local function read_timers(name)
  if timers_of[name] == nil then
    local raw = call('HGET', prefix .. 'snapshot:' .. name, 'timers') or ''
    local is_read, armed = pcall(cjson.decode, raw)
    timers_of[name] = is_read and type(armed) == 'table' and armed
    weight = weight + #raw
  end
  return timers_of[name]
end

function kinds.timer(rest)
  local key, name = string.match(rest, '^([^ ]+) (.+)$')
  if not key then return nil end
  local fsm, why = addressee(prefix, name, '', default_queue)
  if not fsm then return why == 'BROKEN' and puzzled() or nil end
  local armed = read_timers(name)
  local entry = armed and armed[key]
  local arm, due_ms = type(entry) == 'table' and tonumber(entry[1]), type(entry) == 'table' and tonumber(entry[2])
  -- A time of 0: it went off, and its event has failed.
  if not arm or not due_ms or due_ms == 0 then return nil end
  if due_ms > ms + ahead then return due_ms end
  local mailbox = prefix .. 'mailbox:' .. name
  local length = try('LLEN', mailbox)
  if type(length) == 'table' then return puzzled() end
  if length >= 2 * fsm.limit then return put_off_again(name, not fsm.moves) end
  local event = type(entry[3]) == 'string' and entry[3] or string.match(key, '^[^/]*')
  local data = type(entry[5]) == 'string' and entry[5] or 'null'
  local id = fired_id(digits(arm))
  record(id, now, ns, fsm, event, job_data(ns, name, event, data), timeout, result_ttl)
  -- When it was fired tells whether anybody was there then: from here on it may wait for its FSM.
  call('HSET', 'rq:job:' .. id, 'meta', '{"timer":' .. cjson.encode(key) .. ',"due_ms":' .. digits(due_ms)
    .. ',"fired_ms":' .. clock_ms .. '}')
  enter(prefix, fsm, id)
  done_count = done_count + 1
end

-- Beyond its deadline it is in vain to begin with an effect; what a worker has begun goes on, and its end is not heard.
local function withdraw(id)
  local job = try('HMGET', 'rq:job:' .. id, 'status', 'origin')
  local status, queue = job[1], job[2]
  if not queue or status ~= 'queued' and status ~= 'scheduled' then return end
  local list = 'rq:queue:' .. queue
  -- In a long list it is not looked for: RQ drops it when it comes to it, for it is cancelled.
  local length = try('LLEN', list)
  if type(length) == 'number' and length <= 1000 then try('LREM', list, 1, id) end
  try('ZREM', 'rq:scheduled:' .. queue, id)
  call('HSET', 'rq:job:' .. id, 'status', 'canceled', 'ended_at', now)
  try('ZADD', 'rq:canceled:' .. queue, s, id)
end

-- deadline <id> <name>: an effect that is open still has failed, and its FSM is told; what it says later is not heard.
function kinds.deadline(rest)
  local id, name = string.match(rest, '^(%S+) (.+)$')
  local raw = id and try('HGET', prefix .. 'effects:' .. name, id)
  if not raw then return nil end
  local is_read, note = pcall(cjson.decode, raw)
  if not is_read or type(note) ~= 'table' then return puzzled() end
  local data = job_data(ns, name, tostring(note.on_failure), '{"type":"deadline","message":"it had not ended by then"}')
  local word = bring(prefix, ns, default_queue, id, name, tostring(note.born), tostring(note.on_failure), data,
    '{"effect":' .. cjson.encode(id) .. '}', timeout, result_ttl, failure_ttl)
  if word == 'FULL' then return put_off_again(name, try('HGET', prefix .. 'snapshot:' .. name, 'status') == 'failed') end
  if word == 'BROKEN' then return puzzled() end
  withdraw(id)
  done_count = done_count + 1
end

-- Of one kind among all: those of others are not done, so they would stay before it.
local due = try('ZRANGEBYSCORE', timers, '-inf', at(ms + ahead), 'LIMIT', 0, only == '' and most or -1)
if due.err then return { 'DUE', 0, -1 } end
for _, member in ipairs(due) do
  local kind, rest = string.match(member, '^(%l+) (.+)$')
  if only == '' or kind == only then
    local act, later = kinds[kind], nil
    if act then later = act(rest, member) else later = puzzled() end
    if later then call('ZADD', timers, at(later), member) else call('ZREM', timers, member) end
    if weight > most_weight then break end
  end
end
flush_ready(prefix)
local next_one = try('ZRANGE', timers, 0, 0, 'WITHSCORES')
return { 'DUE', done_count, next_one[2] and math.max(0, tonumber(next_one[2]) - ms) or -1 }
