"""The transitions that a worker makes for several jobs at once, as Lua: each job has its own answer
(:mod:`tasks.ledger.shared_calls`). The others, and what the keys hold, are in :mod:`tasks.ledger.scripts`.
"""

from typing import Final

from tasks.ledger.scripts import ANNOUNCE_FUNCTION, HELD, MARK_DEATH, NOW

# KEYS job…, leases; ARGV lease_ms, most deaths alone, and of each job id, token, queue of its kind, worker.
# Returns claimed | suspect | missing | closed | leased | exhausted | committed of each.
# All are read before any is claimed: one that makes no sense fails the script without effect. The jobs' records are
# written last: where a list is of another type, none of its jobs is claimed, and each is still listed as queued.
# A claim whose answer got lost is granted again. SET with GET: mostly the place is the furthest, and known to be by one
# command.
CLAIM: Final = (
    NOW
    + MARK_DEATH
    + """
local function whole(text)
  if not text then return 0 end
  if not string.match(text, '^%d+$') or string.format('%.0f', text) ~= text then error('invalid record') end
  return tonumber(text)
end
local answers, granted, taken, heads = {}, {}, {}, {}
for n = 1, #KEYS - 1 do
  local id, token, queue, worker = unpack(ARGV, 4 * n - 1, 4 * n + 2)
  local job = redis.call('HMGET', KEYS[n], 'state', 'seq', 'attempts', 'document', 'later', 'deaths', 'died_alone',
                         'queue', 'token')
  local state = job[1]
  if not state then
    answers[n] = 'missing'
  elseif state ~= 'queued' and state ~= 'running' then
    answers[n] = 'closed'
  else
    queue = job[8] or queue
    heads[queue] = math.max(heads[queue] or 0, whole(job[2] or ''))
    local running = state == 'running'
    local expiry = running and redis.call('ZSCORE', KEYS[#KEYS], id)
    local leased = expiry and tonumber(expiry) > now
    answers[n] = 'leased'
    if not taken[id] and (not leased or job[9] == token) then
      taken[id] = true
      table.insert(granted, {n = n, id = id, token = token, queue = queue, worker = worker,
                             dead = running and not leased, attempts = whole(job[3]) + 1, later = job[5],
                             document = job[4], deaths = whole(job[6]), alone = whole(job[7])})
    end
  end
end
for queue, seq in pairs(heads) do
  local before = redis.pcall('SET', 'aii:head:' .. queue, seq, 'GET')
  if type(before) == 'table' then
    redis.call('SET', 'aii:head:' .. queue, seq)
  elseif (tonumber(before) or 0) > seq then
    redis.call('SET', 'aii:head:' .. queue, before)
  end
end
if #granted == 0 then return answers end
local leases, ids = {}, {}
for n, job in ipairs(granted) do
  leases[2 * n - 1], leases[2 * n] = now + ARGV[1], job.id
  ids[job.queue] = ids[job.queue] or {}
  table.insert(ids[job.queue], job.id)
end
redis.call('ZCARD', KEYS[#KEYS]) -- fails where it is of another type
for queue, some in pairs(ids) do
  redis.call('ZREM', 'aii:since:' .. queue, unpack(some))
  redis.call('ZREM', 'aii:open:' .. queue, unpack(some))
end
redis.call('ZADD', KEYS[#KEYS], unpack(leases))
for _, job in ipairs(granted) do
  if job.dead then
    mark_death(KEYS[job.n])
    job.deaths, job.alone = unpack(redis.call('HMGET', KEYS[job.n], 'deaths', 'died_alone'))
  end
  if job.later then redis.call('HDEL', KEYS[job.n], 'later') end
  redis.call('HSET', KEYS[job.n], 'state', 'running', 'token', job.token, 'worker', job.worker, 'started_ms', now,
             'attempts', job.attempts)
  if job.document then
    answers[job.n] = 'committed'
  elseif tonumber(job.alone or 0) >= tonumber(ARGV[2]) then
    answers[job.n] = 'exhausted'
  elseif tonumber(job.deaths or 0) > 0 then
    answers[job.n] = 'suspect'
  else
    answers[job.n] = 'claimed'
  end
end
return answers
"""
)

# KEYS job…; ARGV the token of each.  Returns 1 for each that the caller may publish: it holds the job, which cannot be
# cancelled from now on. The mark outlives a requeue, as what was published before the worker died is not taken back.
PUBLISH: Final = (
    HELD
    + """
local answers = {}
for n, key in ipairs(KEYS) do
  answers[n] = held(key, ARGV[n]) and 1 or 0
  if answers[n] == 1 then redis.call('HSET', key, 'publishing', 1) end
end
return answers
"""
)

# KEYS events, leases, counts, and of each job job, closed, unrecorded; ARGV bound, and of each job id, token, state,
# error code, error message, keep_s, and of an activation asset and entry: its record is in S3 now.
# Returns 1 for each that is closed. All are read before any is closed.
# The list of closed jobs is cut once in sixteen times, by chance of the job's id.
CLOSE: Final = (
    ANNOUNCE_FUNCTION
    + HELD
    + """
local answers, ended, recorded, seen = {}, {}, {}, {}
for n = 1, (#KEYS - 3) / 3 do
  local key, closed, unrecorded = unpack(KEYS, 3 * n + 1, 3 * n + 3)
  local id, token, state, code, message, keep_s, asset, entry = unpack(ARGV, 8 * n - 6, 8 * n + 1)
  local job = not seen[key] and held(key, token, 'task', 'commits', 'seq')
  answers[n] = job and 1 or 0
  if job then
    seen[key] = true
    table.insert(ended, {key = key, id = id, closed = closed, state = state, code = code, message = message,
                         keep_s = keep_s, task = job[3], document = job[4], place = job[5]})
    if asset ~= '' then
      recorded[unrecorded] = recorded[unrecorded] or {assets = {}, entries = {}}
      table.insert(recorded[unrecorded].assets, asset)
      table.insert(recorded[unrecorded].entries, entry)
    end
  end
end
if #ended == 0 then return answers end
for key, changes in pairs(recorded) do
  changes.left = {}
  for i, entry in ipairs(redis.call('HMGET', key, unpack(changes.assets))) do
    if entry == changes.entries[i] then table.insert(changes.left, changes.assets[i]) end
  end
end
local leases, lists, counts = {}, {}, {}
for n, job in ipairs(ended) do
  local now = announce(KEYS[1], job.id, job.state, job.task, job.document, job.place, job.code)
  if job.code ~= '' then
    redis.call('HSET', job.key, 'state', job.state, 'finished_ms', now, 'error_code', job.code, 'error_message',
               job.message)
  else
    redis.call('HSET', job.key, 'state', job.state, 'finished_ms', now)
  end
  if job.state == 'done' then
    redis.call('HDEL', job.key, 'token', 'document', 'payload')
  else
    redis.call('HDEL', job.key, 'token', 'document')
  end
  redis.call('EXPIRE', job.key, job.keep_s)
  leases[n] = job.id
  local list = lists[job.closed] or {}
  list[#list + 1], list[#list + 2] = now, job.id
  lists[job.closed], counts[job.state] = list, (counts[job.state] or 0) + 1
end
for key, changes in pairs(recorded) do
  if #changes.left > 0 then redis.call('HDEL', key, unpack(changes.left)) end
end
redis.call('ZREM', KEYS[2], unpack(leases))
for key, list in pairs(lists) do redis.call('ZADD', key, unpack(list)) end
for _, job in ipairs(ended) do
  if string.sub(job.id, -1) == '0' then
    redis.call('ZREMRANGEBYSCORE', job.closed, '-inf', lists[job.closed][1] - job.keep_s * 1000)
    redis.call('ZREMRANGEBYRANK', job.closed, 0, -1 - ARGV[1])
  end
end
for state, count in pairs(counts) do redis.pcall('HINCRBY', KEYS[3], state, count) end
return answers
"""
)
