--[[
steer: what an operator does with one FSM: retry its failed event, skip the event at its head, pause it, resume it.

Whatever touches the mailbox is done only where no worker has the FSM in hand. What the caller knows of the event that
failed last is as old as its look at the snapshot: where it matters, the version tells whether it still holds.

KEYS      1 timers   2 log   3 steered:<nonce>   4 held
ARGV      1 prefix   2 namespace   3 default queue   4 verb: "retry", "skip", "pause" or "resume"   5 name
          6 nonce, a job id of its own   7 born   8 version that the FSM must have, or ""   9 only this job, or ""
          10 version at which was seen what follows   11 what failed last: "entry", "hard", "mail", or ""   12 its job
          13 its event, or ""   14 its data   15 timeout of its job, s   16 result_ttl, s   17 failure_ttl, s
          18 "1" where nothing was done since   19 who does it   20 most entries of the log
RETURNS   first a word: RETRIED and SKIPPED with job and event; PAUSED with the ms since when, also where it was before;
          RESUMED; NOTHING there is nothing to retry, to skip or to resume; OTHER another job is at the head: job, event;
          CANNOT the entry event cannot be skipped; HELD a worker is at it, call again later; MOVED look at the FSM again;
          STALE it has another version: that and its state; FINISHED it has ended: its state; UNKNOWN no such FSM, or
          another life of its name; BROKEN a key of it is of another type
REPEATED  known by the nonce: what was done is answered again for a minute, and not done
]]
local timers, log, steered, held = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local prefix, ns, default_queue, verb, name, nonce, born = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5], ARGV[6], ARGV[7]
local wanted_version, wanted, seen, kind, id, event = ARGV[8], ARGV[9], ARGV[10], ARGV[11], ARGV[12], ARGV[13]
local data, timeout, result_ttl, failure_ttl = ARGV[14], ARGV[15], ARGV[16], ARGV[17]
local is_last, by, log_length = ARGV[18] == '1', ARGV[19], ARGV[20]
local snapshot, mailbox, urgent = prefix .. 'snapshot:' .. name, prefix .. 'mailbox:' .. name, prefix .. 'urgent:' .. name

-- Not refused by a full Redis, and after it nothing in this script is: an operator is needed then most of all.
call('PERSIST', timers)
local known = call('HMGET', steered, 'word', 'first', 'second')
if known[1] then return { known[1], known[2] or nil, known[3] or nil } end
local f = try('HMGET', snapshot, 'born', 'status', 'version', 'state', 'queue', 'machine', 'retry_at', 'paused')
if f.err then return { 'BROKEN' } end
local status, version, state, queue = f[2], f[3] or '', f[4] or '', f[5] or default_queue
if not f[1] or status == 'purging' or born ~= f[1] then return { 'UNKNOWN' } end
if wanted_version ~= '' and wanted_version ~= version then return { 'STALE', version, state } end
if status == 'finished' then return { 'FINISHED', state } end
local waiting = try('LLEN', urgent)
if type(waiting) ~= 'number' or type(try('LLEN', mailbox)) ~= 'number' or not sound(prefix, queue) then
  return { 'BROKEN' }
end
local ms, s, us = clock()
local now = rq_time(s, us)
local is_held = call('EXISTS', prefix .. 'lock:' .. name) == 1

-- What was done: noted for a repeat of this call, and told in the log.
local function done(word, first, second)
  local answer = { word, first, second }
  for i, field in ipairs({ 'word', 'first', 'second' }) do
    if answer[i] then call('HSET', steered, field, answer[i]) end
  end
  call('PEXPIRE', steered, 60000)
  local line = '{"name":' .. cjson.encode(name) .. ',"machine":' .. cjson.encode(f[6] or '') .. ',"verb":"' .. verb .. '"'
  -- An id that somebody wrote into the mailbox by hand must not spoil the log.
  if second and string.find(first, '^[%w_-]+$') then line = line .. ',"job":"' .. first .. '"' end
  line = line .. ',"by":' .. cjson.encode(by) .. '}'
  try('XADD', log, 'MAXLEN', '~', log_length, '*', 'worker', '', 'transitions', '[' .. line .. ']')
  -- Where there is none nobody wants one. The next commit cuts it to its length.
  try('XADD', prefix .. 'audit:' .. name, 'NOMKSTREAM', '*', 'line', line)
  return answer
end

-- The record of an event of this life: place, event, queue; nil where there is none.
local function own(job_id)
  local job = try('HMGET', 'rq:job:' .. job_id, 'place', 'event', 'origin', 'fsm', 'ns', 'born')
  if job.err or not job[1] or job[4] ~= name or job[5] ~= ns or job[6] ~= f[1] then return nil end
  return { place = job[1], event = job[2] or '', queue = job[3] or queue }
end

local function unlist(job_id, job)
  for _, registry in ipairs({ 'failed', 'finished', 'canceled', 'scheduled' }) do
    try('ZREM', 'rq:' .. registry .. ':' .. job.queue, job_id)
  end
end

-- An event that had ended waits again: as if it had just been sent.
local function revive(job_id, job)
  local key = 'rq:job:' .. job_id
  call('PERSIST', key)
  call('HSET', key, 'place', 'mail', 'status', 'queued', 'enqueued_at', now)
  call('HDEL', key, 'exc_info', 'result', 'ended_at', 'started_at', 'attempt')
  -- Its own failure counted as a version, and made it stale.
  if is_last and call('HEXISTS', key, 'if_version') == 1 then call('HSET', key, 'if_version', version) end
  unlist(job_id, job)
end

-- An event that waited is taken away, and who waits for it is told: as one that an operator cancelled.
local function take_away(job_id, job)
  local key = 'rq:job:' .. job_id
  unlist(job_id, job)
  call('HSET', key, 'place', 'gone', 'status', 'canceled', 'ended_at', now, 'result',
    '{"failed":"gone","reason":' .. cjson.encode('skipped by ' .. by) .. '}')
  call('EXPIRE', key, failure_ttl)
  try('ZADD', 'rq:canceled:' .. job.queue, s, job_id)
end

-- Deaths and retries were those of the event that is not at the head any more: also a death that `recover` has yet to
-- count, of a worker whose lease is over.
local function forget_tries()
  try('ZREM', held, name)
  call('HDEL', snapshot, 'retry_at', 'tries', 'probation')
  try('ZREM', timers, 'retry ' .. name)
end

if verb == 'pause' then
  if f[8] then return { 'PAUSED', f[8] } end
  call('HSET', snapshot, 'paused', ms)
  try('ZREM', prefix .. 'ready:' .. queue, name)
  return done('PAUSED', ms)
end

if verb == 'resume' then
  if not f[8] then return { 'NOTHING' } end
  call('HDEL', snapshot, 'paused')
  -- Where a worker has it, that one makes it ready again.
  if status ~= 'failed' and not is_held then ring_if_mail(prefix, queue, name) end
  flush_ready(prefix)
  return done('RESUMED')
end

local first = head(prefix, name)
if verb == 'retry' and status ~= 'failed' and f[7] and first then
  local job = own(first)
  local found = job and job.event or ''
  -- In the past: it is due, or being run just now.
  if (tonumber(f[7]) or 0) <= tonumber(ms) then return { 'RETRIED', first, found } end
  call('HSET', snapshot, 'retry_at', ms)
  try('ZREM', timers, 'retry ' .. name)
  if job then
    call('HSET', 'rq:job:' .. first, 'status', 'queued')
    call('HDEL', 'rq:job:' .. first, 'exc_info')
  end
  try('ZREM', 'rq:scheduled:' .. queue, first)
  ring(queue, name, first)
  flush_ready(prefix)
  return done('RETRIED', first, found)
end

if verb == 'skip' and (status == 'starting' or status == 'failed' and kind == 'entry') then
  local next_id = status == 'starting' and first or id
  if wanted ~= '' and wanted ~= next_id then
    local job = own(next_id)
    return { 'OTHER', next_id, job and job.event or '' }
  end
  return { 'CANNOT' }
end
if is_held then return { 'HELD' } end

if status == 'failed' then
  if seen ~= version or kind == '' or kind == 'mail' then return { 'MOVED' } end
  local job = id ~= '' and own(id) or nil
  if job then event = job.event end
  if verb == 'skip' and wanted ~= '' and wanted ~= id then return { 'OTHER', id, event } end
  if verb == 'retry' and not job and event == '' then return { 'NOTHING' } end
  if job and job.place == 'mail' then
    -- `rq requeue` had put it behind what waits.
    call('LREM', mailbox, 0, id)
    call('LREM', urgent, 0, id)
    if verb == 'skip' then take_away(id, job) end
  end
  forget_tries()
  if verb == 'skip' then
    call('HDEL', snapshot, 'status', 'owes', 'failed_from')
    ring_if_mail(prefix, queue, name)
    flush_ready(prefix)
    return done('SKIPPED', id, event)
  end
  -- What is done is never applied again: a refused event is, under another id. So is one whose record is gone.
  if job and job.place ~= 'done' then
    revive(id, job)
  else
    id = nonce
    record(id, now, ns, { name = name, born = f[1], queue = queue }, event, data, timeout, result_ttl)
  end
  if kind == 'entry' then
    call('LPUSH', mailbox, id)
    call('HSET', snapshot, 'status', 'starting')
    call('HDEL', snapshot, 'owes', 'failed_from')
  else
    call('LPUSH', urgent, id)
    call('HSET', snapshot, 'owes', id)
    call('HDEL', snapshot, 'status', 'failed_from')
  end
  ring(queue, name, id)
  flush_ready(prefix)
  return done('RETRIED', id, event)
end

if verb == 'retry' then
  local job = id ~= '' and status ~= 'starting' and own(id) or nil
  if not job or job.place ~= 'failed' then return { 'NOTHING' } end
  if seen ~= version then return { 'MOVED' } end
  forget_tries()
  revive(id, job)
  call('LPUSH', mailbox, id)
  ring(queue, name, head(prefix, name))
  flush_ready(prefix)
  return done('RETRIED', id, job.event)
end

-- An event of a timer that is skipped goes behind all that waits: a worker passes over it, and it alone can tell what
-- becomes of that timer, for a tick must come again. Until then it is not to be skipped once more.
local function is_of_timer(job_id) return string.find(job_id, '%-%-t%d+v%d+$') ~= nil end
local job = first and own(first)
if waiting == 0 and first and is_of_timer(first) then
  for _ = 1, math.min(call('LLEN', mailbox), 1000) do
    if not is_of_timer(first) or job and job.place == 'mail' then break end
    call('RPUSH', mailbox, call('LPOP', mailbox))
    first = head(prefix, name)
    job = own(first)
  end
  if is_of_timer(first) and not (job and job.place == 'mail') then first = nil end
end
if not first then return { 'NOTHING' } end
local found = job and job.event or ''
if wanted ~= '' and wanted ~= first then return { 'OTHER', first, found } end
if waiting > 0 then
  call('LPOP', urgent)
  local owed = call('LINDEX', urgent, 0)
  if owed then call('HSET', snapshot, 'owes', owed) else call('HDEL', snapshot, 'owes') end
else
  call('LPOP', mailbox)
  if is_of_timer(first) then call('RPUSH', mailbox, first) end
end
local waits = job and job.place == 'mail'
if waits then take_away(first, job) end
-- Also where its record was deleted: somebody may sleep there.
if not job then try('ZREM', 'rq:scheduled:' .. queue, first) end
if waits or not job then result_stream(first, 3, '', 'exc_string', '', failure_ttl) end
forget_tries()
ring_if_mail(prefix, queue, name)
flush_ready(prefix)
return done('SKIPPED', first, found)
