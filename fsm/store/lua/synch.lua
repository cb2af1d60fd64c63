--[[
synch: hold what is noted of FSMs against their snapshots, and of events against their records; put right what differs.

Each is looked at in one step, so nothing is taken for wrong that is only under way. What mends itself is left to who
mends it: `claim` drops who is ready without mail, and ids that are none; `recover` frees whose lease is over; `due`
drops what waits for nobody; whoever purges goes on with it.

KEYS      1 held   2 timers   3 effects   4 workers   5 places   6 states   7 machines
ARGV      1 prefix   2 namespace   3 default queue   4 "fsm" looks at all that is noted of these FSMs; "job" at
          whether these events lie in a mailbox; "worker" at whether these workers are dead; "known" at whether these
          members of `states` are of use; else it is the key, behind the prefix, in which these FSMs were found, and only
          whether they belong there is looked at   5.. names, ids or members
RETURNS   SYNCHED, then of each difference: name of the FSM, worker or member, what differs, how, and what was done
REPEATED  by state: what was put right does not differ any more. What nobody can repair is told each time
]]
local held, timers, effects, workers = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local places, states, machines = KEYS[5], KEYS[6], KEYS[7]
local prefix, ns, default_queue, where = ARGV[1], ARGV[2], ARGV[3], ARGV[4]
-- Not refused by a full Redis, and after it nothing in this script is. A replica refuses it, and so confirms nothing.
call('PERSIST', held)
local clock_ms = clock()
local ms = tonumber(clock_ms)
local answer = { 'SYNCHED' }
local function tell(name, what, how)
  local n = #answer
  answer[n + 1], answer[n + 2], answer[n + 3] = name, what, how
end

-- The one index in which an FSM is: those that have finished have their own.
local function index_of(machine, state, status)
  return (status == 'finished' and 'finished:' or 'state:') .. machine .. ':' .. state
end

-- Whether an FSM is in a sorted set of ours; nil where that cannot be told, since the key is of another type.
local function is_in(key, name)
  local score = try('ZSCORE', key, name)
  if type(score) == 'table' then return nil end
  return score ~= false
end

-- An FSM that was found in an index.
local function check_place(name)
  local f = try('HMGET', prefix .. 'snapshot:' .. name, 'born', 'machine', 'state', 'status', 'error')
  if f.err or f[4] == 'purging' then return end
  local right, what = f[1] and index_of(f[2] or '', f[3] or '', f[4]), 'index'
  if string.sub(where, 1, 7) == 'errors:' then
    right, what = f[1] and f[5] and 'errors:' .. (f[2] or ''), 'error'
  end
  if right ~= where and is_in(prefix .. where, name) then
    call('ZREM', prefix .. where, name)
    tell(name, what, 'it was in ' .. where .. (f[1] and '' or ', and there is no such FSM') .. ': taken out')
  end
end

-- Its lock, and the note of it: whether somebody has it, or is taken to have it.
local function check_lock(name)
  local lock = prefix .. 'lock:' .. name
  local owner, note = try('GET', lock), try('ZSCORE', held, name)
  if type(note) == 'table' then
    tell(name, 'held', 'held is no sorted set: not repaired')
    return true
  end
  if owner then
    local worker, token = string.match(type(owner) == 'string' and owner or '', '^(.*)/([^/]*)$')
    local left = call('PTTL', lock)
    if left < 0 and not (worker and try('HGET', prefix .. 'claims:' .. worker, name) == token) then
      -- A claim gives each lock an end, and is noted by its worker.
      call('UNLINK', lock)
      call('ZREM', held, name)
      tell(name, 'lock', 'its lock was of no claim and without an end: taken away')
      return false
    end
    if not note then
      call('ZADD', held, digits(ms + math.max(0, left)), name)
      tell(name, 'held', 'it is in hand and was not in held: put there, and freed at the end of its lease')
    end
    return true
  end
  if note and tonumber(note) > ms + 60000 then
    call('ZREM', held, name)
    tell(name, 'held', 'it was in held until long from now, and is in nobody\'s hands: taken out')
    return false
  end
  -- Its lease is over: `recover` frees it, and counts the death.
  return note and true or false
end

-- Its effects that are open: somebody has to look after each.
local function check_effects(name)
  local count = try('HLEN', prefix .. 'effects:' .. name)
  if type(count) ~= 'number' then
    tell(name, 'effect', 'effects:' .. name .. ' is no hash: not repaired')
  elseif count > 0 and count <= 1000 then
    for _, id in ipairs(call('HKEYS', prefix .. 'effects:' .. name)) do
      if is_in(effects, id .. ' ' .. name) == false then
        call('ZADD', effects, clock_ms, id .. ' ' .. name)
        tell(name, 'effect', 'nobody looked after effect ' .. id .. ': put into effects')
      end
    end
  end
end

-- An FSM that may move and has mail: it is ready, unless it waits for the time of a retry.
local function check_ready(name, queue, retry_at, id)
  if not sound(prefix, queue) then
    tell(name, 'ready', 'ready:' .. queue .. ' is no sorted set: not repaired')
  elseif not is_in(prefix .. 'ready:' .. queue, name) then
    -- One whose time has just come waits for `due`.
    if retry_at and is_in(timers, 'retry ' .. name) then return end
    if retry_at and retry_at > ms then
      call('ZADD', timers, digits(retry_at), 'retry ' .. name)
      tell(name, 'retry', 'it waits for the time of a retry and was not in timers: put there')
    else
      ring(queue, name, id)
      tell(name, 'ready', 'it has mail, is in nobody\'s hands and was not in ready:' .. queue .. ': put there')
    end
  end
end

-- Whether the event of a timer waits, which this arm of it sent: its id ends so.
local function has_fired(name, arm)
  for _, list in ipairs({ 'mailbox:', 'urgent:' }) do
    local ids = try('LRANGE', prefix .. list .. name, 0, -1)
    for _, id in ipairs(ids) do
      if string.match(id, '%-%-t%d+v(%d+)$') == digits(arm) then return true end
    end
  end
  return false
end

-- Its timers that are armed: each is in `timers`, or its event waits. One that is due at 0 went off, and has failed.
local function check_timers(name, raw)
  local is_read, armed = pcall(cjson.decode, raw)
  if not is_read or type(armed) ~= 'table' then
    tell(name, 'timer', 'its timers cannot be read: not repaired')
    return
  end
  for key, entry in pairs(armed) do
    local arm, due = type(entry) == 'table' and tonumber(entry[1]), type(entry) == 'table' and tonumber(entry[2])
    local member = 'timer ' .. key .. ' ' .. name
    if arm and due and due > 0 and is_in(timers, member) == false and not has_fired(name, arm) then
      call('ZADD', timers, digits(due), member)
      tell(name, 'timer', 'its timer ' .. key .. ' was armed and not in timers: put there')
    end
  end
end

-- It is in its index, and that is among those which are looked through.
local function check_index(name, machine, state, status, since)
  local index = index_of(machine, state, status)
  local is = is_in(prefix .. index, name)
  if is == nil then
    tell(name, 'index', index .. ' is no sorted set: not repaired')
  elseif not is then
    call('ZADD', prefix .. index, since, name)
    tell(name, 'index', 'it was not in ' .. index .. ': put there')
  end
  if try('SISMEMBER', states, machine .. ':' .. state) == 0 then
    call('SADD', states, machine .. ':' .. state)
    tell(name, 'index', 'states knew nothing of ' .. machine .. ':' .. state .. ', and nobody counted it: put there')
  end
end

-- Its last event failed: it is found by that.
local function check_error(name, machine, since)
  local is = is_in(prefix .. 'errors:' .. machine, name)
  if is == nil then
    tell(name, 'error', 'errors:' .. machine .. ' is no sorted set: not repaired')
  elseif not is then
    call('ZADD', prefix .. 'errors:' .. machine, since, name)
    tell(name, 'error', 'its last event failed, and it was not in errors:' .. machine .. ': put there')
  end
end

local function check_fsm(name)
  local snapshot = prefix .. 'snapshot:' .. name
  local f = try('HMGET', snapshot, 'born', 'machine', 'state', 'status', 'queue', 'retry_at', 'paused', 'owes',
    'updated_at', 'version', 'tries', 'timers', 'error')
  if f.err then
    tell(name, 'snapshot', 'it is no hash: not repaired')
    return
  end
  local status = f[4]
  if status == 'purging' then return end
  if not (f[1] and f[2] and f[3] and is_whole(f[10]) and (not f[11] or is_whole(f[11]))) then
    if call('EXISTS', snapshot) == 1 then
      tell(name, 'snapshot', 'born, machine or state is missing, or a number is none: not repaired')
    end
    return
  end
  check_index(name, f[2], f[3], status, is_whole(f[9]) and f[9] or clock_ms)
  if f[13] then check_error(name, f[2], is_whole(f[9]) and f[9] or clock_ms) end
  -- While nobody waits there, nobody need know of it.
  local is_placed = f[5] and string.find(f[5], '[~@]') and is_in(prefix .. 'ready:' .. f[5], name)
  if is_placed and try('SISMEMBER', places, f[5]) == 0 then
    call('SADD', places, f[5])
    tell(name, 'place', 'its queue ' .. f[5] .. ' was not in places, so no worker served it: put there')
  end
  check_effects(name)
  local is_held = check_lock(name)
  -- Who holds it may be about to apply the event of one.
  if f[12] and not is_held and status ~= 'finished' then check_timers(name, f[12]) end
  -- As a claim takes it: urgent mail of one that owes nothing is not looked at.
  local id = f[8] and try('LINDEX', prefix .. 'urgent:' .. name, 0) or false
  if not id then id = try('LINDEX', prefix .. 'mailbox:' .. name, 0) end
  if type(id) == 'table' then
    tell(name, 'mail', 'its mailbox is no list: not repaired')
  elseif id and not is_held and status ~= 'failed' and (not f[7] or status == 'finished') then
    check_ready(name, f[5] or default_queue, is_whole(f[6]) and tonumber(f[6]), id)
  end
end

-- A delayed event is in `timers`, and among those of its FSM, until it joins the mailbox.
local function check_later(name, id, alarm, due)
  local later, lacks = prefix .. 'later:' .. name, {}
  if not alarm or not is_whole(due) then
    tell(name, 'later', 'delayed event ' .. id .. ' does not say when it is due: not repaired')
    return
  end
  if is_in(timers, alarm) == false then lacks[#lacks + 1] = timers end
  if is_in(later, id) == false then lacks[#lacks + 1] = later end
  for _, key in ipairs(lacks) do call('ZADD', key, due, key == timers and alarm or id) end
  if #lacks > 0 then tell(name, 'later', 'delayed event ' .. id .. ' was noted by nobody: noted') end
end

-- An event that waits lies in the mailbox of its FSM until the commit that ends it.
local function check_job(id)
  local job = try('HMGET', 'rq:job:' .. id, 'fsm', 'ns', 'born', 'place', 'alarm', 'due')
  if job.err or not job[1] or job[2] ~= ns or job[4] ~= 'mail' and job[4] ~= 'later' then return end
  local name = job[1]
  local f = try('HMGET', prefix .. 'snapshot:' .. name, 'born', 'status', 'queue', 'paused')
  -- What waits for an earlier life is nobody's mail any more.
  if f.err or not f[1] or f[1] ~= job[3] or f[2] == 'purging' then return end
  if job[4] == 'later' then return check_later(name, id, job[5], job[6]) end
  for _, list in ipairs({ 'mailbox:', 'urgent:' }) do
    if try('LPOS', prefix .. list .. name, id) then return end
  end
  local queue = f[3] or default_queue
  if not sound(prefix, queue) then return end
  local length = call('RPUSH', prefix .. 'mailbox:' .. name, id)
  tell(name, 'mail', 'event ' .. id .. ' waited and was not in the mailbox: put behind all that waits there')
  if length == 1 and f[2] ~= 'failed' and not f[4] and not try('GET', prefix .. 'lock:' .. name) then
    ring(queue, name, id)
  end
end

-- A worker that died while no other was there to notice it: they do after 30 s of silence, and 20 s of looks. What it
-- holds is freed by the end of its leases, as ever.
local function check_worker(name)
  local beaten = try('ZSCORE', workers, name)
  if type(beaten) ~= 'string' or tonumber(beaten) > ms - 90000 then return end
  empty_hand(prefix, name, 1000)
  call('ZREM', workers, name)
  tell(name, 'worker', 'it was silent for more than 90 s: forgotten')
end

-- A state in which no FSM is, and that its machine has no more. For a day after the last worker announced that machine
-- it stays: workers that begin with the newer diagram may run beside older ones, whose FSMs come into that state yet.
local function check_known(member)
  local machine, state = string.match(member, '^([^:]*):(.*)$')
  local raw = machine and try('HGET', machines, machine)
  local is_read, about = pcall(cjson.decode, type(raw) == 'string' and raw or '')
  if not is_read or type(about) ~= 'table' or type(about.allowed) ~= 'table' then return end
  local seen_at = tonumber(about.seen_at)
  if about.allowed[state] or not seen_at or seen_at > ms - 86400000 then return end
  for _, kind in ipairs({ 'finished:', 'state:' }) do
    if call('EXISTS', prefix .. kind .. member) == 1 then return end
  end
  if try('SREM', states, member) == 1 then
    tell(member, 'state', 'no FSM is in it, and its machine has it no more: taken out of states')
  end
end

local checks = { fsm = check_fsm, job = check_job, worker = check_worker, known = check_known }
local check = checks[where] or check_place
for i = 5, #ARGV do check(ARGV[i]) end
flush_ready(prefix)
return answer
