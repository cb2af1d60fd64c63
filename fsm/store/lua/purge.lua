--[[
purge: take one FSM away with its mail, in portions; the name is free afterwards, and what lies in a storage is noted as over.

KEYS      1 held
ARGV      1 prefix   2 name   3 born or ""   4 most jobs in this call   5 default queue   6 failure_ttl, s
RETURNS   PURGED it is gone; AGAIN more mail is left, call again; HELD a worker is at it, call again later;
          UNKNOWN no such FSM, or another life of its name; BROKEN a key of it is of another type
REPEATED  by state: what is gone is UNKNOWN, and with `born` so is the next life of its name, which is left alone; where
          mail is left, another portion of it goes
]]
local held = KEYS[1]
local prefix, name, born, most, default_queue, ttl = ARGV[1], ARGV[2], ARGV[3], tonumber(ARGV[4]), ARGV[5], tonumber(ARGV[6])
local snapshot = prefix .. 'snapshot:' .. name
local f = try('HMGET', snapshot, 'born', 'machine', 'state', 'queue', 'retry_at', 'timers', 'definition')
if f.err then return { 'BROKEN' } end
if not f[1] or (born ~= '' and born ~= f[1]) then
  insist_on_primary(prefix)
  return { 'UNKNOWN' }
end
local ms, s, us = clock()
local now = rq_time(s, us)
local queue = f[4] or default_queue
-- First a command that a full Redis does not refuse: purging makes room.
try('ZREM', prefix .. 'ready:' .. queue, name)
call('HSET', snapshot, 'status', 'purging')
if call('EXISTS', prefix .. 'lock:' .. name) == 1 then return { 'HELD' } end
for _, list in ipairs({ 'urgent:', 'mailbox:', 'later:' }) do
  local waits = list == 'later:'
  local ids
  if waits then ids = try('ZRANGE', prefix .. list .. name, 0, most - 1) else ids = try('LPOP', prefix .. list .. name, most) end
  if ids and ids.err then return { 'BROKEN' } end
  if ids and f[5] then variadic('ZREM', 'rq:scheduled:' .. queue, ids) end
  for _, id in ipairs(ids or {}) do
    local key = 'rq:job:' .. id
    -- An id may lie there twice: what was applied stays so.
    local place = try('HGET', key, 'place')
    if waits then
      local job = try('HMGET', key, 'alarm', 'origin')
      forget_alarm(prefix, name, id, job[1], job[2] or queue)
    end
    if place == 'mail' or place == 'later' then
      try('HSET', key, 'place', 'gone', 'status', 'failed', 'ended_at', now, 'exc_info', 'purged with its FSM',
        'result', '{"failed":"gone","reason":"purged with its FSM"}')
      call('EXPIRE', key, ttl)
      try('ZADD', 'rq:failed:' .. queue, s + ttl, id)
      result_stream(id, 2, '', 'exc_string', '', ttl)
    end
  end
end
if call('EXISTS', prefix .. 'urgent:' .. name, prefix .. 'mailbox:' .. name, prefix .. 'later:' .. name) > 0 then
  return { 'AGAIN' }
end
try('ZREM', held, name)
disarm(prefix, name, f[6], f[5])
for _, index in ipairs({ 'state:', 'finished:' }) do
  try('ZREM', prefix .. index .. (f[2] or '') .. ':' .. (f[3] or ''), name)
end
try('ZREM', prefix .. 'errors:' .. (f[2] or ''), name)
note_drop(prefix, f[2], name, f[1], f[7], ms)
call('UNLINK', snapshot, prefix .. 'effects:' .. name, prefix .. 'audit:' .. name)
return { 'PURGED' }
