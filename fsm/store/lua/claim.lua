--[[
claim: take the locks of FSMs that have mail, oldest first, with their snapshots and oldest events.

An FSM on which workers died (`tries` > 0) comes alone and with one event, so that only the culprit is charged. When that
is done it is on probation (`tries` 0): it still comes alone, with two events, then four, until it is cleared.
Ids found on RQ's list are looked at: a foreign job goes to the effects list, an applied one gets its true status
back, a requeued one is adopted into its mailbox.

KEYS      1 ready:<queue>   2 rq:queue:<queue>   3 held   4 claims:<worker>   5 replies:<worker>   6 hand:<worker>
ARGV      1 prefix   2 worker   3 token   4 number of this claim   5 lease, ms   6 most FSMs   7 most events
          8 most bytes   9 queue   10 default queue   11 effects queue   12 namespace   13 one FSM by name, or ""
          14 "1" leaves FSMs on which workers died to a later claim   15.. tokens that the worker still holds, and ids
          that it took off RQ's list as "id:<id>"
RETURNS   CLAIMED, time of Redis as RQ writes it, ms of Redis, a list of names and why each of these FSMs is BROKEN, a
          list of foreign jobs that went to the effects list, ms until the next is due of all that waits for its
          time or -1, then per FSM: name, 12 fields of the snapshot (the last: how often its oldest event failed
          already), of one on which workers died how many events it may have next (0 where it is cleared), its timers,
          how many urgent ids, how many ids, and of each event its id, name and data. Where more is to be said of an
          event its name is nil, and in the place of data is a list: event, data, place, status, born, meta, asked,
          if_version, key (an id without a record has no event; one that comes twice has place `done` the second time,
          one of another FSM `other`). Of all others place is `mail`, status `queued`, born the FSM's;
          LATE a newer claim of this worker was answered already
REPEATED  known by the number: the same FSMs come again, as far as their locks stand, with their mail as it is now;
          those that are BROKEN are named once
]]
local ready, rq_list, held, claims, replies, hand = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5], KEYS[6]
local prefix, worker, token, number, lease = ARGV[1], ARGV[2], ARGV[3], tonumber(ARGV[4]), tonumber(ARGV[5])
local most_fsms, most_events, most_bytes = tonumber(ARGV[6]), tonumber(ARGV[7]), tonumber(ARGV[8])
local queue, default_queue, effects, ns, wanted = ARGV[9], ARGV[10], ARGV[11], ARGV[12], ARGV[13]
local leaves_suspects = ARGV[14] == '1'

-- Not refused by a full Redis, and after it nothing in this script is: the backlog can drain.
call('PEXPIRE', claims, lease * 4)
-- Raises now, before anything is freed or popped, where the key is of another type.
call('ZCARD', ready)
local ms, s, us = clock()
local now = rq_time(s, us)
local broken, moved = {}, {}
local answer, last_of_answer = { 'CLAIMED', now, ms, broken, moved, -1 }, 6
local events, bytes, find = 0, 0, string.find
local seen = {}
local function break_off(name, why)
  broken[#broken + 1] = name
  broken[#broken + 1] = why
end

local function read(name)
  local f = try('HMGET', prefix .. 'snapshot:' .. name, 'machine', 'state', 'payload', 'version', 'status', 'born',
    'history', 'tries', 'owes', 'error', 'definition', 'retry_at', 'paused', 'timers')
  if f.err then return nil, f.err end
  if f[6] and not (is_whole(f[4]) and (not f[8] or is_whole(f[8]))) then
    return nil, 'version or tries is no number: edited by hand'
  end
  return f
end

-- Writes the FSM's answer: snapshot, urgent mail, then mail, within the bounds of this claim. Gives where it ends, which
-- the caller notes where the FSM is ours; nil and why where it cannot be read; 0 where nothing waits.
local function open(name, f)
  local allowed = f[8] and 1
  if f[8] == '0' then
    local probation = try('HGET', prefix .. 'snapshot:' .. name, 'probation')
    allowed = is_whole(probation) and tonumber(probation) or 1
  end
  local most = math.max(1, math.min(most_events - events, 100, allowed or 100))
  -- Numbers go as text, here and to the lock: Redis would write each with 17 digits, which takes longer than to read it.
  local urgent = f[9] and try('LRANGE', prefix .. 'urgent:' .. name, '0', digits(most - 1)) or nil
  if urgent and urgent.err then return nil, urgent.err end
  local count_urgent = urgent and #urgent or 0
  local ids = urgent
  if count_urgent < most then
    local mail = try('LRANGE', prefix .. 'mailbox:' .. name, '0', digits(most - count_urgent - 1))
    if mail.err then return nil, mail.err end
    if count_urgent == 0 then ids = mail else for _, id in ipairs(mail) do ids[#ids + 1] = id end end
  end
  if f[12] then
    -- It is to be tried again: that it was tried before stands in its record, and dies with it.
    f[12] = try('HGET', 'rq:job:' .. (ids[1] or ''), 'attempt')
    if not is_whole(f[12]) then f[12] = '0' end
  end
  f[13] = false
  if allowed then
    -- How much it may have next time, when this is done; 0 where it is cleared then.
    local all = try('LLEN', prefix .. 'mailbox:' .. name)
    f[13] = type(all) == 'number' and all + count_urgent > #ids and allowed < 64 and 2 * allowed or 0
  end
  if #ids == 0 then return 0 end
  bytes = bytes + #(f[3] or '')
  local at, born, count = last_of_answer + 1, f[6], 0
  answer[at] = name
  for k = 1, 14 do answer[at + k] = f[k] end
  answer[at + 15] = count_urgent
  at = at + 16
  for _, id in ipairs(ids) do
    if count > 0 and bytes > most_bytes then break end
    -- What is no id was written here by hand: it has no record, whatever lies under that key.
    local is_drawn = #id == 24 and find(id, '^%x+$')
    local job = (is_drawn or find(id, '^[%w_-]+$')) and try('HMGET', 'rq:job:' .. id, 'event', 'data', 'place', 'status',
      'born', 'fsm', 'meta', 'asked') or { false }
    count = count + 1
    if job.err then
      job = { false }
    else
      if job[2] then bytes = bytes + #job[2] + #(job[7] or '') end
      -- Each field is looked for through the whole record. A drawn id is of no key, and `if_version` stands beside
      -- `asked` only, which is 0 where nobody waits.
      if job[1] and (job[8] or not is_drawn) then
        local more = call('HMGET', 'rq:job:' .. id, 'if_version', 'key')
        job[9], job[10] = more[1], more[2]
        if job[8] == '0' then job[8] = false end
      end
    end
    local is_known = seen[id]
    if not (job[6] and job[6] ~= name) then seen[id] = true end
    answer[at + 1] = id
    if not is_known and job[6] == name and job[3] == 'mail' and job[4] == 'queued' and job[5] == born and job[1]
      and job[2] and not (job[7] or job[8] or job[9] or job[10]) then
      answer[at + 2] = job[1]
      answer[at + 3] = job[2]
    else
      if job[6] and job[6] ~= name then
        -- Another FSM's, put here by hand: it is that one's to apply.
        job[3], job[4] = 'other', false
      elseif is_known then
        -- An id whose record was deleted and that was sent anew lies there twice, and is to be applied once.
        job[3] = 'done'
      end
      answer[at + 2] = false
      answer[at + 3] = {
        job[1], job[2] or false, job[3] or false, job[4] or false, job[5] or false, job[7] or false, job[8] or false,
        job[9] or false, job[10] or false,
      }
    end
    at = at + 3
  end
  answer[last_of_answer + 17] = count
  events = events + count
  return at
end

-- Also what was written last may not be ours.
local function answered()
  for k = #answer, last_of_answer + 1, -1 do answer[k] = nil end
  local first = try('ZRANGE', prefix .. 'timers', '0', '0', 'WITHSCORES')
  if first[2] then answer[6] = math.min(math.max(0, tonumber(first[2]) - tonumber(ms)), 1e15) end
  return answer
end

local last = tonumber(call('HGET', replies, 'claim') or 0)
if number < last then return { 'LATE' } end
local mine = call('HGETALL', claims)
if number == last then
  for i = 1, #mine, 2 do
    if mine[i + 1] == token and try('GET', prefix .. 'lock:' .. mine[i]) == worker .. '/' .. token then
      local f = read(mine[i])
      local one = f and open(mine[i], f)
      if one and one > 0 then last_of_answer = one end
    end
  end
  return answered()
end

-- What an older claim of this worker left, and the worker does not name: its reply was lost.
local kept, found = {}, {}
for i = 15, #ARGV do
  if string.sub(ARGV[i], 1, 3) == 'id:' then found[#found + 1] = string.sub(ARGV[i], 4) else kept[ARGV[i]] = true end
end
for i = 1, #mine, 2 do
  local name = mine[i]
  if not kept[mine[i + 1]] then
    call('HDEL', claims, name)
    if try('GET', prefix .. 'lock:' .. name) == worker .. '/' .. mine[i + 1] then
      call('UNLINK', prefix .. 'lock:' .. name)
      call('ZREM', held, name)
      local home = try('HGET', prefix .. 'snapshot:' .. name, 'queue')
      if type(home) ~= 'table' then ring_if_mail(prefix, home or default_queue, name) end
    end
  end
end
flush_ready(prefix)

local popped
if wanted ~= '' then
  popped = call('ZREM', ready, wanted) == 1 and { wanted, 0 } or {}
else
  popped = call('ZPOPMIN', ready, most_fsms)
  -- FSMs are popped now: from here on nothing may fail.
  local hung = try('LRANGE', hand, 0, -1)
  for _, id in ipairs(hung) do found[#found + 1] = id end
  if hung.err or #hung > 0 then call('UNLINK', hand) end
  -- As many ids as FSMs, so that in a steady flow they are the same and need no look; all where none is left behind.
  local listed = try('LPOP', rq_list, #popped == 2 * most_fsms and most_fsms or most_fsms + 10)
  for _, id in ipairs(listed or {}) do found[#found + 1] = id end
end

local taken, locked, holder = {}, {}, worker .. '/' .. token
local ends = string.format('%.0f', tonumber(ms) + lease)
local function put_back(first)
  local back = {}
  for k = first, #popped, 2 do
    back[#back + 1] = popped[k + 1]
    back[#back + 1] = popped[k]
  end
  variadic('ZADD', ready, back)
end
for i = 1, #popped, 2 do
  local name = popped[i]
  if events >= most_events or bytes > most_bytes then
    put_back(i)
    break
  end
  local f, why = read(name)
  local suspect = f and f[6] and f[8]
  if suspect and (#taken > 0 or leaves_suspects) then
    put_back(i)
    break
  end
  local status = f and f[5]
  -- Who rings an FSM need not know all that may hold it up: that is seen to here.
  local later = f and is_whole(f[12]) and tonumber(f[12])
  if later and later > tonumber(ms) then
    -- Where that cannot be noted, nobody would ring it then: it is tried again at once, as `commit` does.
    if type(try('ZADD', prefix .. 'timers', f[12], 'retry ' .. name)) == 'number' then status = 'later' end
  end
  -- One that finished while it was paused is not resumed any more: its mail is answered.
  if f and f[13] and status ~= 'finished' and status ~= 'later' then
    status = 'paused'
  end
  if not f then
    break_off(name, why)
  elseif f[6] and status ~= 'paused' and status ~= 'failed' and status ~= 'purging' and status ~= 'later' then
    local one, fault = open(name, f)
    if not one then
      break_off(name, fault)
    elseif one > 0 and not try('SET', prefix .. 'lock:' .. name, holder, 'NX', 'PX', ARGV[5]) then
      -- Its holder makes it ready again; or `recover`, where the lock is nobody's and so not in `held`.
      try('ZADD', held, 'NX', ends, name)
    elseif one > 0 then
      taken[#taken + 1] = name
      taken[#taken + 1] = token
      locked[#locked + 1] = ends
      locked[#locked + 1] = name
      last_of_answer = one
    end
  end
  if suspect and #taken > 0 then
    put_back(i + 2)
    break
  end
end
if #taken > 0 then
  variadic('HSET', claims, taken)
  variadic('ZADD', held, locked)
  call('PEXPIRE', claims, lease * 4)
end
call('HSET', replies, 'claim', number, 'claimed_at', ms)
call('PEXPIRE', replies, lease * 4)

for _, id in ipairs(found) do
  if not seen[id] then
    local key = 'rq:job:' .. id
    local job = try('HMGET', key, 'fsm', 'place', 'status', 'born', 'data', 'ns', 'origin', 'ended_at')
    if job.err or not job[5] then
      seen[id] = true
    elseif not job[1] then
      call('HSET', key, 'origin', effects)
      try('RPUSH', 'rq:queue:' .. effects, id)
      try('SADD', 'rq:queues', 'rq:queue:' .. effects)
      moved[#moved + 1] = id
    elseif job[2] == 'done' then
      call('HSET', key, 'status', 'finished')
    elseif job[2] == 'later' and job[3] ~= 'canceled' then
      -- RQ's scheduler, or somebody's hand: it is due by the clock of Redis, and not before. RQ's registry says so again.
      call('HSET', key, 'status', 'scheduled')
      try('ZADD', 'rq:scheduled:' .. (job[7] or queue), math.ceil((tonumber(try('HGET', key, 'due')) or 0) / 1000), id)
    elseif (job[2] == 'failed' or job[2] == 'gone')
      and (job[3] == 'queued' or job[3] == 'started' and (job[8] or '') == '') then
      -- Requeued: RQ has cleared `ended_at`. Another namespace may share this list, so each event goes to its own.
      local home = job[6] and 'fsm:' .. job[6] .. ':' or prefix
      local fsm, why = addressee(home, job[1], job[4] or '', home == prefix and default_queue or job[7] or queue)
      local length = fsm and try('RPUSH', home .. 'mailbox:' .. job[1], id)
      if type(length) == 'number' then
        call('PERSIST', key)
        -- When it joined, by our clock: RQ's tools noted the time of their host.
        call('HSET', key, 'place', 'mail', 'born', fsm.born, 'enqueued_at', now)
        call('HDEL', key, 'exc_info', 'result', 'ended_at', 'started_at', 'attempt')
        if length == 1 and fsm.moves then ring(fsm.queue, job[1], id) end
        flush_ready(home)
      else
        call('HSET', key, 'status', 'failed', 'ended_at', now, 'exc_info',
          'requeued, but its FSM cannot take it: ' .. (why or 'BROKEN'))
        try('ZADD', 'rq:failed:' .. queue, s + 2592000, id)
        call('EXPIRE', key, 2592000)
      end
    end
  end
end
return answered()
