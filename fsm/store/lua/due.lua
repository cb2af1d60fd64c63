--[[
due: do what is to be done now: what `timers` holds says which FSM, event or effect it is, and of which kind.

KEYS      1 timers
ARGV      1 prefix   2 namespace   3 default queue   4 most members   5 ms: what is due within them counts as due
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

local due = try('ZRANGEBYSCORE', timers, '-inf', at(ms + ahead), 'LIMIT', 0, most)
if due.err then return { 'DUE', 0, -1 } end
for _, member in ipairs(due) do
  local kind, rest = string.match(member, '^(%l+) (.+)$')
  if only == '' or kind == only then
    local act, later = kinds[kind], nil
    if act then later = act(rest, member) else later = puzzled() end
    if later then call('ZADD', timers, at(later), member) else call('ZREM', timers, member) end
  end
end
flush_ready(prefix)
local next_one = try('ZRANGE', timers, 0, 0, 'WITHSCORES')
return { 'DUE', done_count, next_one[2] and math.max(0, tonumber(next_one[2]) - ms) or -1 }
