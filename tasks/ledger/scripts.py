"""The ledger's transitions as Lua: each runs as one transaction in Redis, on Redis' own clock. Those that workers make
for several jobs at once are in :mod:`tasks.ledger.shared_scripts` and :mod:`tasks.ledger.commit_scripts`.

A read that decides a write must not be parted from it, and MULTI alone cannot decide; hence scripts. Redis writes a
script's effects to the append-only file as one MULTI … EXEC.

    queued ──claim──▶ running ──close──▶ done | failed | cancelled
      ▲                  │
      └──── requeue ─────┤  the lease ran out, or its holder gave the job back
      └──── postpone ────┘  a service is away: to be sent again later

A queue is one of :data:`tasks.shares.ALL_QUEUES`. A job is in the lists of the queue that its record names, whichever
queue its message came from; scripts that workers run find them by that name.

Keys:
    aii:job:{id}       hash: state, task, queue, payload, asset, name, collection, replace, seq, attempts, token,
                       publishing, times, error; commits, how often it ended; document, committed and not closed yet;
                       superseded_by, removed_ms: what became of the asset it activated;
                       incarnation: of the collection that it registered the asset in;
                       said: the digest of a request with an idempotency key;
                       deaths: leases of it that ran out; alone: it runs in a process without other jobs; died_alone:
                       leases that ran out then; blamed: the token of the last of those; postponed, refused: how often
                       it was put off; later: it is put off now
    aii:open:{queue}   sorted set of queued jobs by `seq`, their place in the queue
    aii:since:{queue}  sorted set of the same by the time (ms) they were submitted: one sent again gets a
                       new place and keeps its age
    aii:later:{queue}  sorted set of jobs that are put off, by the time (ms) at which they are sent again
    aii:seq:{queue}    last place given out
    aii:head:{queue}   furthest place that was ever started
    aii:leases         sorted set of running jobs by the time (ms) their lease runs out
    aii:closed:{state} sorted sets of lately closed jobs by time (ms), bounded; a failure among a thousand good jobs is
                       found without reading those
    aii:counts         hash of counters
    aii:incarnations   hash: collection → a random name, another one each time that it is built or deleted
    aii:events         stream of the ends of jobs, bounded; see :mod:`tasks.ledger.events`
    aii:hooks:outbox   stream of the same for webhooks, where `aii:hooks` has any; see :mod:`producer.hooks`
"""

from typing import Final

NOW: Final = """
local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)
"""

# The token, the state and more fields of a job that still runs under that token; else nil. pcall: something else under
# one job's key must not cost others their leases.
HELD: Final = """
local function held(job, token, ...)
  local fields = redis.pcall('HMGET', job, 'token', 'state', ...)
  if fields[1] == token and fields[2] == 'running' then return fields end
end
"""

# A worker that died with a job in flight may have died of it.
MARK_DEATH: Final = """
local function mark_death(job)
  redis.call('HINCRBY', job, 'deaths', 1)
  if redis.call('HDEL', job, 'alone') == 1 then
    redis.call('HINCRBY', job, 'died_alone', 1)
    redis.call('HSET', job, 'blamed', redis.call('HGET', job, 'token') or '')
  end
end
"""

# A CloudEvent for those who wait for the job; and, where there are hooks, the same with the job's id for the process
# that delivers it. Returns the time (ms), which is in the entry's own name: a script that announces need not ask for
# it. pcall: an outbox of another type must not fail an end, whose event is written by then.
ANNOUNCE_FUNCTION: Final = """
local hooked
local function announce(events, id, state, task, document, place, code)
  local subject = redis.sha1hex(id)
  local data = {state = state, task = task or '', document = tonumber(document) or 0, place = tonumber(place) or 0,
                error_code = code or ''}
  local entry = redis.call('XADD', events, 'MAXLEN', '~', 100000, '*', 'specversion', '1.0', 'id',
                           subject .. '-' .. data.document .. '-' .. state, 'source', '/aii/ledger',
                           'type', 'aii.job.' .. state, 'subject', subject, 'datacontenttype', 'application/json',
                           'data', cjson.encode(data))
  if hooked == nil then hooked = redis.call('EXISTS', 'aii:hooks') == 1 end
  if hooked then
    redis.pcall('XADD', 'aii:hooks:outbox', 'MAXLEN', '~', 100000, '*', 'job', id, 'id',
                subject .. '-' .. data.document .. '-' .. state, 'state', state, 'task', data.task,
                'document', data.document, 'error_code', data.error_code)
  end
  return tonumber(string.match(entry, '^%d+'))
end
"""

# Whether the collection that an activation registered its asset in was deleted since, or is another one of that name.
# pcall: rules of access of an earlier version do not let producers ask.
_REBORN: Final = """
local function reborn(task, collection, incarnation)
  if task ~= 'aii.activate' then return false end
  local now = redis.pcall('HGET', 'aii:incarnations', collection)
  return type(now) ~= 'table' and (now or '') ~= (incarnation or '')
end
"""

# KEYS open, seq, counts, since, failed, cancelled, done, job…; ARGV queue, and of each job id, task, payload, asset,
# name, replace, retry, collection, digest ('' without an idempotency key).  Returns {1 if newly queued, state} of each.
# Opened again are: a failed or cancelled job, as its cause may have been removed (one that killed its workers only by
# `retry`); and a done one whose asset was activated by another job since, or removed, or whose collection was deleted,
# also when its worker has only committed it and is about to close it: that worker has lost it then. A lease that is
# left runs out without effect. Where the asset is in a collection of that name nevertheless, which was exported and
# imported perhaps, the worker that gets the job only closes it. None is opened for another request under its key.
# All are read before any is opened, so that their places are given out in one command.
SUBMIT: Final = (
    NOW
    + _REBORN
    + """
local answers, opened, by_id = {}, {}, {}
for n = 8, #KEYS do
  local id, task, payload, asset, name, replace, retry, collection, said = unpack(ARGV, 9 * n - 70, 9 * n - 62)
  local job = redis.call('HMGET', KEYS[n], 'state', 'error_code', 'superseded_by', 'removed_ms', 'seq', 'token',
                         'document', 'incarnation', 'said')
  local state = job[1]
  local ended = state == 'done' or (state == 'running' and job[7])
  local again = state == 'cancelled' or (state == 'failed' and (job[2] ~= 'poison' or retry ~= ''))
                or (ended and (job[3] or job[4] or reborn(task, collection, job[8])))
  if by_id[id] then
    if replace ~= '' then by_id[id].replace = true end
    table.insert(answers, {0, 'queued'})
  elseif state and (not again or (said ~= '' and job[9] and job[9] ~= said)) then
    if replace ~= '' and (state == 'queued' or state == 'running') then redis.call('HSET', KEYS[n], 'replace', 1) end
    table.insert(answers, {0, state})
  else
    by_id[id] = {key = KEYS[n], id = id, replace = replace ~= '', known = state or job[5] or job[6], fields = {
      'state', 'queued', 'task', task, 'queue', ARGV[1], 'payload', payload, 'asset', asset, 'name', name,
      'collection', collection, 'attempts', 0, 'submitted_ms', now, 'seq'}, said = said}
    table.insert(opened, by_id[id])
    table.insert(answers, {1, 'queued'})
  end
end
if #opened == 0 then return answers end
local last = #opened > 1 and redis.pcall('INCRBY', KEYS[2], #opened)
if type(last) ~= 'number' then -- one job; or rules of access of an earlier version, which allow INCR only
  for _ = 1, #opened do last = redis.call('INCR', KEYS[2]) end
end
local seq = last - #opened
local places, ages = {}, {}
for n, job in ipairs(opened) do
  if job.known then
    redis.call('HDEL', job.key, 'token', 'publishing', 'worker', 'started_ms', 'finished_ms', 'error_code',
               'error_message', 'document', 'replace', 'deaths', 'alone', 'died_alone', 'blamed', 'postponed',
               'refused', 'later')
    redis.call('PERSIST', job.key)
    for i = 5, 7 do redis.call('ZREM', KEYS[i], job.id) end
  end
  table.insert(job.fields, seq + n)
  redis.call('HSET', job.key, unpack(job.fields))
  if job.replace then redis.call('HSET', job.key, 'replace', 1) end
  if job.said ~= '' then redis.call('HSET', job.key, 'said', job.said) end
  places[2 * n - 1], places[2 * n], ages[2 * n - 1], ages[2 * n] = seq + n, job.id, now, job.id
end
redis.call('ZADD', KEYS[1], unpack(places))
redis.call('ZADD', KEYS[4], unpack(ages))
redis.pcall('HINCRBY', KEYS[3], 'submitted', #opened)
return answers
"""
)

# KEYS job; ARGV token.  Returns 1 if the caller still holds the job, which from now on runs alone in its process.
RUN_ALONE: Final = (
    HELD
    + """
if not held(KEYS[1], ARGV[1]) then return 0 end
redis.call('HSET', KEYS[1], 'alone', 1)
return 1
"""
)

# KEYS job; ARGV token.  Returns 1 if the job was blamed for a death under that token, which it is not any more.
SURVIVED: Final = """
if redis.call('HGET', KEYS[1], 'blamed') ~= ARGV[1] then return 0 end
redis.call('HDEL', KEYS[1], 'blamed')
redis.call('HINCRBY', KEYS[1], 'died_alone', -1)
return 1
"""

# KEYS leases, job…; ARGV lease_ms, id, token, id, token, …  Returns the ids that are no longer the caller's.
RENEW: Final = (
    NOW
    + HELD
    + """
local lost, renewed = {}, {}
for i = 2, #KEYS do
  local id, token = ARGV[2 * i - 2], ARGV[2 * i - 1]
  if held(KEYS[i], token) then
    table.insert(renewed, now + ARGV[1])
    table.insert(renewed, id)
  else
    table.insert(lost, id)
  end
end
if #renewed > 0 then redis.call('ZADD', KEYS[1], unpack(renewed)) end
return lost
"""
)

# KEYS job, leases; ARGV id, token, field that counts, most or 0, first_ms, longest_ms, jitter, queue of its kind.
# Returns for how many ms the job is put off; -1 when it was put off often enough; nil when it is not the caller's.
# Each pause is twice as long as the one before; jitter is a factor.
POSTPONE: Final = (
    NOW
    + HELD
    + """
local job = held(KEYS[1], ARGV[2], 'submitted_ms', 'queue')
if not job then return nil end
local queue = job[4] or ARGV[8]
local count = redis.call('HINCRBY', KEYS[1], ARGV[3], 1)
if tonumber(ARGV[4]) > 0 and count >= tonumber(ARGV[4]) then return -1 end
local pause = math.floor(math.min(ARGV[5] * 2 ^ math.min(count - 1, 30), ARGV[6]) * ARGV[7])
redis.call('ZREM', KEYS[2], ARGV[1])
redis.call('HSET', KEYS[1], 'state', 'queued', 'later', 1)
redis.call('HDEL', KEYS[1], 'token', 'alone')
redis.call('ZADD', 'aii:later:' .. queue, now + pause, ARGV[1])
redis.call('ZADD', 'aii:since:' .. queue, job[3], ARGV[1])
return pause
"""
)

# KEYS job, open, leases, closed, counts, since; ARGV id, keep_s, bound, commits found in S3.
# Returns {the state before, the number of its document, task, seq} of an open job; {'publishing'} for one that is too
# far; or nil. Its document is written next, and announced after that (ANNOUNCE).
# A worker that runs the job finds its token gone before it publishes.
CANCEL: Final = (
    NOW
    + """
local state = redis.call('HGET', KEYS[1], 'state')
if state ~= 'queued' and state ~= 'running' then return nil end
if redis.call('HEXISTS', KEYS[1], 'publishing') == 1 then return {'publishing'} end
local commits = math.max(tonumber(redis.call('HGET', KEYS[1], 'commits') or 0), tonumber(ARGV[4])) + 1
redis.call('HSET', KEYS[1], 'state', 'cancelled', 'finished_ms', now, 'error_code', 'cancelled', 'commits', commits)
redis.call('HDEL', KEYS[1], 'token')
redis.call('ZREM', KEYS[2], ARGV[1])
redis.call('ZREM', KEYS[3], ARGV[1])
redis.call('ZREM', KEYS[6], ARGV[1])
redis.call('ZADD', KEYS[4], now, ARGV[1])
redis.call('ZREMRANGEBYSCORE', KEYS[4], '-inf', now - ARGV[2] * 1000)
redis.call('ZREMRANGEBYRANK', KEYS[4], 0, -1 - ARGV[3])
redis.pcall('HINCRBY', KEYS[5], 'cancelled', 1)
redis.call('EXPIRE', KEYS[1], ARGV[2])
local job = redis.call('HMGET', KEYS[1], 'task', 'seq')
return {state, commits, job[1] or '', job[2] or 0}
"""
)

# KEYS events; ARGV id, state, task, number of the document, seq, error code.
ANNOUNCE: Final = ANNOUNCE_FUNCTION + "announce(KEYS[1], unpack(ARGV))"

# KEYS jobs. Returns the state and the place of each in turns; false for a job that is not there. One answer instead of
# one for each, since a producer asks for hundreds while it waits.
STATES: Final = """
local answer = {}
for i, key in ipairs(KEYS) do
  local job = redis.pcall('HMGET', key, 'state', 'seq')
  answer[2 * i - 1], answer[2 * i] = job[1] or false, job[2] or false
end
return answer
"""
