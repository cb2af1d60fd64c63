--[[
recover: free FSMs whose holder is dead, count the death, and make them ready again; drop records that ended.

At the first death of its holder an FSM goes to the front of those that wait, as if it had been released; then to the tail.

It decides nothing: whether an event was tried too often is for the worker to say that claims it next. Of all workers
that sweep, one at a time has the turn; a call that names dead workers needs none.

KEYS      1 held   2 ended   3 sweep
ARGV      1 prefix   2 default queue   3 most FSMs, and most ids   4 worker that asks for the turn, or ""   5 how long
          the turn lasts, ms   6 how many queues follow   7.. queues, then names of workers known to be dead
RETURNS   RECOVERED, how many FSMs were freed, how many ids were put back on RQ's lists: where it is not 0 and 0, there
          may be more to be done at once; BUSY another worker has the turn: nothing was looked at
REPEATED  by state: what is free is not in `held` any more, the hands are empty, and who has the turn keeps it. A name
          whose next life has begun is not to be named any more: what that holds would be freed and charged
]]
local held, ended, sweep = KEYS[1], KEYS[2], KEYS[3]
local prefix, default_queue, most, sweeper, turn = ARGV[1], ARGV[2], tonumber(ARGV[3]), ARGV[4], ARGV[5]
local first_dead = 7 + ARGV[6]
local ms, s = clock()
local freed, rehung = 0, 0
-- Not refused by a full Redis, and after it nothing in this script is.
call('PERSIST', held)
if sweeper ~= '' and first_dead > #ARGV and not try('SET', sweep, sweeper, 'NX', 'PX', turn) then
  local other = try('GET', sweep)
  if type(other) == 'string' and other ~= sweeper then return { 'BUSY' } end
end

local function free(name)
  local snapshot = prefix .. 'snapshot:' .. name
  local f = try('HMGET', snapshot, 'born', 'queue')
  local queue = f[2] or default_queue
  if not sound(prefix, queue) then
    -- It cannot be made ready before somebody has repaired that key: it stays noted for another minute.
    call('ZADD', held, string.format('%.0f', tonumber(ms) + 60000), name)
    return
  end
  call('ZREM', held, name)
  call('UNLINK', prefix .. 'lock:' .. name)
  if not f.err and f[1] then
    local tries = try('HINCRBY', snapshot, 'tries', 1)
    try('HDEL', snapshot, 'probation')
    local id = head(prefix, name)
    -- It was served already: to the front. What goes on to kill workers lets others go before it.
    if id and tries == 1 then ring_front(queue, name, id) elseif id then ring(queue, name, id) end
  end
  freed = freed + 1
end

-- All that a dead worker holds, in portions: a claims hash is as long as a worker's batch, which its operator chooses.
local function free_all(worker)
  local claims = prefix .. 'claims:' .. worker
  local length = try('HLEN', claims)
  local few = type(length) == 'number' and length <= most
  local portion = few and call('HGETALL', claims) or try('HRANDFIELD', claims, most, 'WITHVALUES') or {}
  for k = 1, #portion, 2 do
    if freed >= most then return end
    if try('GET', prefix .. 'lock:' .. portion[k]) == worker .. '/' .. portion[k + 1] then free(portion[k]) end
    call('HDEL', claims, portion[k])
  end
  rehung = rehung + empty_hand(prefix, worker, most)
end

-- A list of RQ's that is empty though FSMs wait: somebody emptied it, or a stock worker died with what it had taken.
-- Our workers look at `ready`; stock workers see only the list.
local function rehang(queue)
  if try('LLEN', 'rq:queue:' .. queue) ~= 0 then return end
  local ids = {}
  local names = try('ZRANGE', prefix .. 'ready:' .. queue, 0, most - 1)
  for _, name in ipairs(names) do ids[#ids + 1] = head(prefix, name) end
  if #ids > 0 and type(variadic('RPUSH', 'rq:queue:' .. queue, ids)) == 'number' then
    try('SADD', 'rq:queues', 'rq:queue:' .. queue)
    rehung = rehung + #ids
  end
end

for i = first_dead, #ARGV do free_all(ARGV[i]) end
if freed < most then
  for _, name in ipairs(try('ZRANGEBYSCORE', held, '-inf', ms, 'LIMIT', 0, most - freed)) do
    -- A lock that still stands was renewed or is another's: its end is the truth, `held` only a note of it.
    local left = call('PTTL', prefix .. 'lock:' .. name)
    if left > 0 then
      call('ZADD', held, string.format('%.0f', tonumber(ms) + left), name)
    else
      free(name)
    end
  end
end
flush_front(prefix)
flush_ready(prefix)
for i = 7, first_dead - 1 do rehang(ARGV[i]) end
drop_ended(ended, s, 10)
return { 'RECOVERED', freed, rehung }
