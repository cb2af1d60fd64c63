--[[
look: look after open effects whose time has come, and put those whose worker died back on their queue.

Ends are told by RQ's callbacks; this is for what they cannot tell: jobs that were deleted or cancelled, that ended
without a word, or whose worker died. It answers none: that is for who calls.

KEYS      1 effects
ARGV      1 prefix   2 most effects   3 until the next look, ms   4 most deaths of workers   5.. workers that are known
          to be dead, each with a queue that it served
RETURNS   LOOKED, then per effect that is due a list: id, name of its FSM, what is noted of it, status of its job (false
          without a record)
REPEATED  by state: what was looked at is not due
]]
local effects = KEYS[1]
local prefix, most, pause, most_deaths = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
local ms, s, us = clock()
local now = rq_time(s, us)
-- Beyond this, to look for an id in a list of RQ's would cost more than it is worth.
local short = 1000
local dead, answer, queues = {}, { 'LOOKED' }, {}
for i = 5, #ARGV, 2 do dead[ARGV[i]] = true end

-- Puts an effect back to the front of its queue; after too many deaths it has failed.
local function again(id, queue)
  local key = 'rq:job:' .. id
  local deaths = try('HINCRBY', key, 'deaths', 1)
  try('HDEL', key, 'abandoned', 'missed')
  if type(deaths) == 'table' or deaths > most_deaths then
    try('HSET', key, 'status', 'failed', 'ended_at', now, 'exc_info', 'workers died ' .. most_deaths + 1
      .. ' times on this effect')
    try('ZADD', 'rq:failed:' .. queue, s + 2592000, id)
  else
    try('HSET', key, 'status', 'queued', 'started_at', '', 'worker_name', '')
    try('ZREM', 'rq:failed:' .. queue, id)
    try('LPUSH', 'rq:queue:' .. queue, id)
  end
end

-- Executions of this queue that nobody renews, or whose worker is known to be dead: RQ's entries are "<job>:<execution>".
local function rescue(queue)
  if queues[queue] then return end
  queues[queue] = true
  local wip = 'rq:wip:' .. queue
  local members = try('ZRANGEBYSCORE', wip, '-inf', s - 1, 'LIMIT', 0, most)
  if members.err then return end
  if next(dead) then
    for _, member in ipairs(call('ZRANGE', wip, 0, most - 1)) do members[#members + 1] = member end
  end
  for _, member in ipairs(members) do
    local id = string.match(member, '^(.*):[^:]*$') or member
    local job = try('HMGET', 'rq:job:' .. id, 'fsm_of', 'status', 'worker_name')
    local score = tonumber(try('ZSCORE', wip, member) or s)
    if not job.err and job[1] and (score < s or dead[job[3]]) then
      call('ZREM', wip, member)
      if job[2] == 'started' then again(id, queue) end
    end
  end
end

for i = 6, #ARGV, 2 do rescue(ARGV[i]) end
local due = try('ZRANGEBYSCORE', effects, '-inf', ms, 'LIMIT', 0, most)
if due.err then return answer end
for _, member in ipairs(due) do
  local id, name = string.match(member, '^(%S+) (.*)$')
  local note = id and try('HGET', prefix .. 'effects:' .. name, id)
  call('ZADD', effects, string.format('%.0f', tonumber(ms) + pause), member)
  if not note then
    call('ZREM', effects, member)
  elseif type(note) == 'string' then
    local key = 'rq:job:' .. id
    local job = try('HMGET', key, 'status', 'origin', 'missed', 'abandoned')
    if job.err then job = { false } end
    local queue = job[2]
    if queue and job[1] == 'started' then
      rescue(queue)
      job[1] = try('HGET', key, 'status')
    elseif queue and job[1] == 'queued' then
      -- Neither on its list nor taken off it: whoever took it died at once, or somebody emptied the list. Seen twice.
      local list = 'rq:queue:' .. queue
      local length = try('LLEN', list)
      if type(length) == 'number' and length <= short and not try('LPOS', list, id) then
        if job[3] then
          try('LREM', list .. ':intermediate', 0, id)
          again(id, queue)
        else
          call('HSET', key, 'missed', 1)
        end
      elseif job[3] then
        call('HDEL', key, 'missed')
      end
    elseif queue and job[1] == 'scheduled' then
      -- A retry that waits: RQ's own scheduler need not run for it.
      local at = tonumber(try('ZSCORE', 'rq:scheduled:' .. queue, id) or nil)
      if at and at > s then
        call('ZADD', effects, string.format('%.0f', math.min(at * 1000, tonumber(ms) + pause)), member)
      elseif at and try('ZREM', 'rq:scheduled:' .. queue, id) == 1 then
        call('HSET', key, 'status', 'queued', 'enqueued_at', now)
        try('RPUSH', 'rq:queue:' .. queue, id)
      end
    elseif queue and job[1] == 'failed' and job[4] then
      -- RQ found that its worker had died before we did.
      again(id, queue)
      job[1] = try('HGET', key, 'status')
    end
    answer[#answer + 1] = { id, name, note, job[1] }
  end
end
return answer
