--[[
host: note that a worker keeps its host alive; say whether that drains, and which queues of single hosts are to be served.

Queues of the ring that were those of hosts that are gone are forgotten where nobody waits in them, and nothing that has
failed could be requeued there: whoever makes an FSM ready there notes them again.

A drain counts for workers that were born before it: a host serves again with one that is started later. The note of a
drain goes with the last worker for which it counts; where there was none, after a day.

KEYS      1 hosts   2 draining   3 places   4 workers of the host
ARGV      1 prefix   2 host   3 worker   4 its birth, ms   5 its lease, ms; 0 where it ends   6.. queues that it serves
RETURNS   LIVE or DRAIN, then ms until another host is gone whose queues these workers would take over, 0 in the seconds
          after that, -1 where there is none; then, if LIVE, the queues of single hosts that are there: those of this
          host, then those of the ring whose hosts are gone or drain and that have mail, who waits longest first: none
          where this host was gone itself, for then Redis was away, and the others have yet to say that they live;
          LEFT where it ends
REPEATED  harmless: the host is alive a little longer, or the worker gone as before. Queues of others may be told only now
]]
local hosts, draining, places, crew = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local prefix, host, worker, born, lease = ARGV[1], ARGV[2], ARGV[3], tonumber(ARGV[4]), tonumber(ARGV[5])
local most_away, lately, day = 16, 3000, 86400000
local now, s = clock()
local ms = tonumber(now)
local member = digits(born) .. ' ' .. worker
-- Not refused by a full Redis, and after it nothing in this script is.
call('PERSIST', hosts)
local last = try('ZSCORE', hosts, host)
local was_gone = type(last) == 'string' and tonumber(last) <= ms
if lease > 0 then
  try('ZADD', hosts, digits(ms + lease), host)
  try('ZADD', crew, digits(ms + lease), member)
  try('PEXPIRE', crew, digits(lease + day))
else
  try('ZREM', crew, member)
end
try('ZREMRANGEBYSCORE', crew, '-inf', now)
if lease == 0 and try('ZCARD', crew) == 0 then try('ZREM', hosts, host) end
try('ZREMRANGEBYSCORE', hosts, '-inf', digits(ms - day))

-- Whether a worker of this host is there that was born before this.
local function is_older_there(since)
  for _, one in ipairs(try('ZRANGE', crew, 0, -1)) do
    if (tonumber(string.match(one, '^%d+')) or 0) <= since then return true end
  end
  return false
end

local drains = {}
local noted = try('HGETALL', draining)
for i = 1, #noted, 2 do
  local since = is_whole(noted[i + 1]) and tonumber(noted[i + 1]) or 0
  local is_over = noted[i] == host and not is_older_there(since)
  if is_over or since < ms - day and not try('ZSCORE', hosts, noted[i]) then
    call('HDEL', draining, noted[i])
  else
    drains[noted[i]] = since
  end
end
if lease == 0 then return { 'LEFT' } end
if drains[host] and born <= drains[host] then return { 'DRAIN', -1 } end

local serves, is_own, away, next_end, idle = {}, {}, {}, -1, {}
for i = 6, #ARGV do serves[ARGV[i]] = true end
local ends = nil
for _, queue in ipairs(try('SMEMBERS', places)) do
  local base, kind, whose = string.match(queue, '^([^~@]+)([~@])(.+)$')
  if whose == host then
    is_own[queue] = true
  elseif kind == '~' and serves[base] then
    if not ends then
      ends = {}
      local found = try('ZRANGEBYSCORE', hosts, digits(ms - lately), '+inf', 'WITHSCORES')
      for i = 1, #found, 2 do ends[found[i]] = tonumber(found[i + 1]) end
    end
    local left = ends[whose] and math.max(0, ends[whose] - ms)
    if left and (next_end < 0 or left < next_end) then next_end = left end
    if not was_gone and (not left or left == 0 or drains[whose]) then
      local first = try('ZRANGE', prefix .. 'ready:' .. queue, 0, 0, 'WITHSCORES')
      -- What RQ's tools have requeued stands on RQ's list only.
      local has_ids = not first[2] and try('LLEN', 'rq:queue:' .. queue)
      if first[2] or type(has_ids) == 'number' and has_ids > 0 then
        away[#away + 1] = { queue, tonumber(first[2]) or 0 }
      elseif not left and not first.err and has_ids == 0 then
        -- RQ's cleaning is done by workers that serve it, and none does.
        try('ZREMRANGEBYSCORE', 'rq:failed:' .. queue, '-inf', s)
        if try('ZCARD', 'rq:failed:' .. queue) == 0 then idle[#idle + 1] = queue end
      end
    end
  end
end
if #idle > 0 then variadic('SREM', places, idle) end
local reply = { 'LIVE', next_end }
for _, kind in ipairs({ '@', '~' }) do
  for i = 6, #ARGV do
    local queue = ARGV[i] .. kind .. host
    if is_own[queue] then reply[#reply + 1] = queue end
  end
end
table.sort(away, function(a, b) return a[2] < b[2] end)
for i = 1, math.min(#away, most_away) do reply[#reply + 1] = away[i][1] end
return reply
