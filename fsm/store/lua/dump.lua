--[[
dump: give all that is the own of FSMs, of each as it stands at this moment: snapshot, mail, delayed events, effects.

It writes nothing, so a replica answers it as well.

KEYS      none: names come as arguments, and cluster mode is refused at connect
ARGV      1 prefix   2 about how many bytes are enough   3.. names
RETURNS   DUMPED, how many of the names were looked at, then of each FSM that there is a list: name, since when it is in
          its state or "", fields and values of its snapshot; and where it has any of these: urgent ids, ids of the
          mailbox, ids of delayed events and when each is due, open effects with what is noted of each and its deadline
          or "", then of each of those ids all of its job, in this order. Of one of which a key is of another type: its
          name and BROKEN. One that is being purged is left out. One FSM at least is looked at, however large it is
REPEATED  harmless: it gives what stands there then
]]
local prefix, enough = ARGV[1], tonumber(ARGV[2])
local bytes, answer = 0, { 'DUMPED', 0 }
local timers, indexes, over = prefix .. 'timers', prefix .. 'state:', prefix .. 'finished:'
local snapshots, mailboxes, urgents = prefix .. 'snapshot:', prefix .. 'mailbox:', prefix .. 'urgent:'
local laters, opens = prefix .. 'later:', prefix .. 'effects:'

-- The jobs of these ids, behind all that were read before.
local function read_jobs(jobs, ids, step)
  for i = 1, #ids, step do
    local job = try('HGETALL', 'rq:job:' .. ids[i])
    if job.err then job = {} end
    for k = 2, #job, 2 do bytes = bytes + #job[k] + 24 end
    jobs[#jobs + 1] = job
  end
end

local function dump(name)
  local snapshot = try('HGETALL', snapshots .. name)
  if snapshot.err then return { name, 'BROKEN' } end
  local machine, state, status = '', '', ''
  for i = 1, #snapshot, 2 do
    local field, value = snapshot[i], snapshot[i + 1]
    bytes = bytes + #value + 16
    if field == 'machine' then machine = value elseif field == 'state' then state = value
    elseif field == 'status' then status = value end
  end
  if #snapshot == 0 or status == 'purging' then return nil end
  local since = try('ZSCORE', (status == 'finished' and over or indexes) .. machine .. ':' .. state, name)
  if type(since) ~= 'string' then since = '' end
  local urgent, mailbox, later, effects = urgents .. name, mailboxes .. name, laters .. name, opens .. name
  if call('EXISTS', mailbox, urgent, later, effects) == 0 then return { name, since, snapshot } end
  local first, mail = try('LRANGE', urgent, 0, -1), try('LRANGE', mailbox, 0, -1)
  local delayed, open = try('ZRANGE', later, 0, -1, 'WITHSCORES'), try('HGETALL', effects)
  if first.err or mail.err or delayed.err or open.err then return { name, 'BROKEN' } end
  local noted, jobs = {}, {}
  for i = 1, #open, 2 do
    local ends = try('ZSCORE', timers, 'deadline ' .. open[i] .. ' ' .. name)
    noted[#noted + 1] = open[i]
    noted[#noted + 1] = open[i + 1]
    noted[#noted + 1] = type(ends) == 'string' and ends or ''
    bytes = bytes + #open[i + 1]
  end
  read_jobs(jobs, first, 1)
  read_jobs(jobs, mail, 1)
  read_jobs(jobs, delayed, 2)
  return { name, since, snapshot, first, mail, delayed, noted, jobs }
end

for i = 3, #ARGV do
  if bytes >= enough then break end
  local one = dump(ARGV[i])
  if one then answer[#answer + 1] = one end
  answer[2] = i - 2
end
return answer
