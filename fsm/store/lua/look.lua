--[[
look: look after open effects whose time has come, and put those whose worker died back on their queue.

Ends are told by RQ's callbacks; this is for what they cannot tell: jobs that were deleted or cancelled, that ended
without a word, or whose worker died. It answers none: that is for who calls. Where nothing is to be told, it closes.

KEYS      1 effects
ARGV      1 prefix   2 most effects   3 until the next look, ms   4 most deaths of workers   5 nonce of this look
          6.. workers that are known to be dead, each with a queue that it served
RETURNS   LOOKED, then per effect that is due and open a list: id, name of its FSM, what is noted of it, status of its
          job (false without a record)
REPEATED  by state: what was looked at is not due, so it comes after the pause; what was put back is not the dead one's
          any more; and of what takes two looks, one that is repeated counts as one, by its nonce
]]
local effects = KEYS[1]
local prefix, most, pause, most_deaths = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
local nonce = ARGV[5]
local ms, s, us = clock()
local now = rq_time(s, us)
-- Not refused by a full Redis, and after it nothing in this script is.
call('PERSIST', effects)
-- Beyond this, to look for an id in a list of RQ's would cost more than it is worth.
local short = 1000
local dead, answer, queues = {}, { 'LOOKED' }, {}
for i = 6, #ARGV, 2 do dead[ARGV[i]] = true end

-- RQ's entries of those who run this job: "<job>:<execution>".
local function entries(id)
  local members = {}
  local executions = try('ZRANGE', 'rq:executions:' .. id, 0, 99)
  for _, execution in ipairs(executions) do members[#members + 1] = id .. ':' .. execution end
  return members
end

-- Whether somebody who runs this job has renewed his entry.
local function in_hand(id, queue)
  for _, member in ipairs(entries(id)) do
    local score = try('ZSCORE', 'rq:wip:' .. queue, member)
    if type(score) == 'string' and (tonumber(score) or s) >= s then return true end
  end
  return false
end

-- Puts an effect back to the front of its queue; after too many deaths it has failed. Entries of the dead go with it:
-- RQ would take them, when they expire, for those of whoever runs it then.
local function again(id, queue)
  local key = 'rq:job:' .. id
  for _, member in ipairs(entries(id)) do try('ZREM', 'rq:wip:' .. queue, member) end
  try('LREM', 'rq:queue:' .. queue .. ':intermediate', 0, id)
  local deaths = try('HINCRBY', key, 'deaths', 1)
  try('HDEL', key, 'abandoned', 'missed')
  if type(deaths) == 'table' or deaths > most_deaths then
    try('HSET', key, 'status', 'failed', 'ended_at', now, 'exc_info', 'workers died ' .. most_deaths + 1
      .. ' times on this effect')
    try('ZADD', 'rq:failed:' .. queue, s + 2592000, id)
    return
  end
  try('HSET', key, 'status', 'queued', 'started_at', '', 'ended_at', '', 'worker_name', '')
  try('ZREM', 'rq:failed:' .. queue, id)
  try('LPUSH', 'rq:queue:' .. queue, id)
end

-- Executions of this queue that nobody renews, or whose worker is known to be dead.
local function rescue(queue)
  if queues[queue] then return end
  queues[queue] = true
  local wip = 'rq:wip:' .. queue
  local members = try('ZRANGEBYSCORE', wip, '-inf', s - 1, 'LIMIT', 0, most)
  if members.err then return end
  if next(dead) then
    for _, member in ipairs(call('ZRANGE', wip, 0, short - 1)) do members[#members + 1] = member end
  end
  for _, member in ipairs(members) do
    local id = string.match(member, '^(.*):[^:]*$') or member
    local job = try('HMGET', 'rq:job:' .. id, 'fsm_of', 'status', 'worker_name', 'abandoned', 'missed')
    local score = try('ZSCORE', wip, member)
    if not job.err and job[1] and type(score) == 'string' then
      local by = try('HGET', 'rq:execution:' .. member, 'worker_name')
      local is_over = (tonumber(score) or s) < s
      if is_over and job[4] and (not job[5] or job[5] == nonce) then
        -- RQ is just about to write it down as failed, and must not do so after we have put it back.
        call('HSET', 'rq:job:' .. id, 'missed', nonce)
      elseif is_over or dead[type(by) == 'string' and by or job[3]] then
        call('ZREM', wip, member)
        if job[2] == 'started' and not in_hand(id, queue) then again(id, queue) end
      end
    end
  end
end

-- Whether RQ's list or registry lacks what the status of a job says is there: `nil` where that is not known.
local function is_lost(id, queue, status)
  if status == 'started' then return not in_hand(id, queue) end
  if status == 'scheduled' then return not try('ZSCORE', 'rq:scheduled:' .. queue, id) end
  local list = 'rq:queue:' .. queue
  local length = try('LLEN', list)
  if type(length) == 'number' and length <= short then return not try('LPOS', list, id) end
end

for i = 7, #ARGV, 2 do rescue(ARGV[i]) end
for _, member in ipairs(try('ZRANGEBYSCORE', effects, '-inf', ms, 'LIMIT', 0, most)) do
  local id, name = string.match(member, '^(%S+) (.*)$')
  local note = id and try('HGET', prefix .. 'effects:' .. name, id)
  call('ZADD', effects, string.format('%.0f', tonumber(ms) + pause), member)
  if not note then
    call('ZREM', effects, member)
    if id then try('ZREM', prefix .. 'timers', 'deadline ' .. member) end
  elseif type(note) == 'string' then
    local key = 'rq:job:' .. id
    local job = try('HMGET', key, 'status', 'origin', 'missed', 'abandoned')
    if job.err then job = { false } end
    local status, queue, missed = job[1], job[2], job[3]
    if queue and status == 'started' then
      rescue(queue)
      status = try('HGET', key, 'status')
    end
    if queue and (status == 'started' or status == 'queued' or status == 'scheduled') then
      -- RQ takes a job off one list before it is on the next: only what is on none at two looks was lost, with the
      -- worker that had just taken it, or by somebody who emptied the list.
      local lost = is_lost(id, queue, status)
      if lost and missed and missed ~= nonce then
        again(id, queue)
        status = try('HGET', key, 'status')
      elseif lost then
        call('HSET', key, 'missed', nonce)
      elseif missed then
        call('HDEL', key, 'missed')
      end
    elseif queue and status == 'failed' and job[4] then
      -- RQ found that its worker had died before we did.
      again(id, queue)
      status = try('HGET', key, 'status')
    end
    if queue and status == 'scheduled' then
      -- A retry that waits: RQ's own scheduler need not run for it.
      local at = tonumber(try('ZSCORE', 'rq:scheduled:' .. queue, id) or nil)
      if at and at > s then
        call('ZADD', effects, string.format('%.0f', math.min(at * 1000, tonumber(ms) + pause)), member)
      elseif at and try('ZREM', 'rq:scheduled:' .. queue, id) == 1 then
        call('HSET', key, 'status', 'queued', 'enqueued_at', now)
        try('RPUSH', 'rq:queue:' .. queue, id)
      end
    end
    local failed = not status or status == 'canceled' or status == 'stopped'
    -- As the note is written, by us alone: in a name or a path this would stand with its quotes escaped.
    if status == 'finished' and string.find(note, '"on_success":""', 1, true)
      or failed and string.find(note, '"on_failure":""', 1, true) then
      close(prefix, id, name)
    else
      answer[#answer + 1] = { id, name, note, status }
    end
  end
end
return answer
