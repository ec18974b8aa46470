"""How a job's end and an asset's state change together, as Lua; the other transitions are in
:mod:`tasks.ledger.scripts`.

Both live in one Redis, so one script can check that the caller still holds the job, and write the journal's entry, the
job's document, and what becomes of the asset's earlier job. Jobs named in an entry are reached by their names.
"""

from typing import Final

from tasks.ledger.scripts import HELD, NOW

# The current change of an asset, by the journal's live changes, or as the caller found it in S3 when there is none:
# then nothing may have left the journal since the caller looked.
_CURRENT: Final = """
local announced
local function current(known, state, announcements, entry, job, source)
  if not known then
    announced = announced or redis.call('HGET', state, 'announcements') or '0'
    if announced ~= announcements then return nil end
    return {entry = entry, job = job, source = source}
  end
  local found = {entry = string.match(known, '^(%S+)'), op = string.match(known, '^%S+ (%S+)'), job = '', source = ''}
  local facts = string.match(known, '\\n(.*)$')
  if facts then
    facts = cjson.decode(facts)
    found.job, found.source = facts.job, facts.source
  elseif found.op == 'add' and found.entry == entry then
    found.job, found.source = job, source
  end
  return found
end
-- Returns the new entry, and the change as `live` holds it.
local function append(stream, asset, op, code, meta, facts)
  local entry = redis.call('XADD', stream, '*', 'op', op, 'asset', asset, 'code', code, 'meta', meta, 'facts', facts)
  local change = entry .. ' ' .. op .. ' ' .. code .. ' ' .. meta
  if facts ~= '' then change = change .. '\\n' .. facts end
  return entry, change
end
local function add(stream, live, asset, ...)
  local entry, change = append(stream, asset, ...)
  redis.call('HSET', live, asset, change)
  return entry
end
-- pcall: what is under an earlier job's key must not fail a commit, whose entry in the journal is written by then.
local function mark(job, ...)
  if job ~= '' and redis.call('EXISTS', 'aii:job:' .. job) == 1 then redis.pcall('HSET', 'aii:job:' .. job, ...) end
end
local function later(one, other)
  local a, b = string.match(one, '(%d+)-(%d+)')
  local c, d = string.match(other, '(%d+)-(%d+)')
  a, b, c, d = tonumber(a), tonumber(b), tonumber(c), tonumber(d)
  return a > c or (a == c and b > d)
end
"""

# Which one of the collections that had this name one after the other has the journal.
_INCARNATION: Final = """
local function incarnation_of(stream)
  return redis.call('HGET', 'aii:incarnations', string.match(stream, '^aii:journal:(.*)$')) or ''
end
"""

# KEYS the journal's five, job…, none twice, and no two that register the same asset; ARGV of each job id, token,
# commits found in S3, document up to the entry, document after it, asset ('' when the job registers none), code, meta,
# facts, source, replace, and what the caller saw before it stored the file: announcements, entry, job, source, purges,
# incarnation of the collection that made the code.
# Returns of each {'lost'}; {'moved'}: read the asset's state again, and store the file again; {'conflict', source,
# job}; or {'committed', document, number}: the same when it is called again.
# All are decided before anything is written; the jobs' records are written last.
COMMIT: Final = (
    _CURRENT
    + _INCARNATION
    + HELD
    + """
local answers, jobs, assets = {}, {}, {}
local names = {'id', 'token', 'found', 'head', 'tail', 'asset', 'code', 'meta', 'facts', 'source', 'replace',
               'announcements', 'entry', 'by', 'of', 'purges', 'incarnation'}
for n = 1, #KEYS - 5 do
  local job = {key = KEYS[n + 5]}
  for i, name in ipairs(names) do job[name] = ARGV[17 * (n - 1) + i] end
  local own = held(job.key, job.token, 'document', 'commits', 'replace', 'superseded_by', 'removed_ms')
  if not own then
    answers[n] = {'lost'}
  elseif own[3] then
    answers[n] = {'committed', own[3], own[4]}
  else
    job.n, job.outdated, job.number = n, own[6] or own[7], math.max(tonumber(own[4] or 0), tonumber(job.found)) + 1
    if own[5] then job.replace = '1' end
    table.insert(jobs, job)
    if job.asset ~= '' then table.insert(assets, job.asset) end
  end
end
local changes, purges, incarnation = {}, {}, ''
if #assets > 0 then
  incarnation = incarnation_of(KEYS[1])
  local said, numbers = redis.call('HMGET', KEYS[2], unpack(assets)), redis.call('HMGET', KEYS[5], unpack(assets))
  for i, asset in ipairs(assets) do changes[asset], purges[asset] = said[i], numbers[i] or '0' end
end
local granted = {}
for _, job in ipairs(jobs) do
  if job.asset ~= '' then
    job.before = current(changes[job.asset], KEYS[3], job.announcements, job.entry, job.by, job.of)
    local other = job.before and job.before.source ~= '' and job.before.source ~= job.source
    if not job.before or purges[job.asset] ~= job.purges or job.purges % 2 == 1 or job.incarnation ~= incarnation then
      answers[job.n] = {'moved'}
    elseif other and job.replace == '' then
      answers[job.n] = {'conflict', job.before.source, job.before.job}
    end
  end
  if not answers[job.n] then table.insert(granted, job) end
end
local live, unrecorded = {}, {}
for _, job in ipairs(granted) do
  job.entry = ''
  if job.asset ~= '' then
    local change
    job.entry, change = append(KEYS[1], job.asset, 'add', job.code, job.meta, job.facts)
    table.insert(live, job.asset)
    table.insert(live, change)
    table.insert(unrecorded, job.asset)
    table.insert(unrecorded, job.entry)
  end
end
if #live > 0 then
  redis.call('HSET', KEYS[2], unpack(live))
  redis.call('HSET', KEYS[4], unpack(unrecorded))
end
for _, job in ipairs(granted) do
  if job.before and job.before.job ~= job.id then mark(job.before.job, 'superseded_by', job.id) end
  if job.before and job.outdated then redis.call('HDEL', job.key, 'superseded_by', 'removed_ms') end
  local document = job.head .. job.entry .. job.tail
  redis.call('HSET', job.key, 'document', document, 'commits', job.number, 'publishing', 1)
  if job.before then redis.call('HSET', job.key, 'incarnation', incarnation) end
  answers[job.n] = {'committed', document, tostring(job.number)}
end
return answers
"""
)

# KEYS job, and the journal's five; ARGV id, token, number of the document, asset, code, meta, facts, entry of the
# document, announcements the caller saw, 1 if the segments cover the entry, incarnation of the collection.
# Returns {'lost'}, {'moved'}: read the asset's state again; {'other'}: the asset changed since; or {'restored'}.
RESTORE: Final = (
    _CURRENT
    + _INCARNATION
    + HELD
    + """
if not held(KEYS[1], ARGV[2]) then return {'lost'} end
local before = current(redis.call('HGET', KEYS[3], ARGV[4]), KEYS[4], ARGV[9], ARGV[8], ARGV[1], '')
if not before or ARGV[11] ~= incarnation_of(KEYS[2]) then return {'moved'} end
local registered = before.job == ARGV[1] and before.op
if not registered and (before.op == 'remove' or later(before.entry, ARGV[8])) then return {'other'} end
if not registered and ARGV[10] == '' then add(KEYS[2], KEYS[3], ARGV[4], 'add', ARGV[5], ARGV[6], ARGV[7]) end
redis.call('HSET', KEYS[1], 'commits', ARGV[3], 'publishing', 1, 'incarnation', ARGV[11])
redis.call('HDEL', KEYS[1], 'superseded_by', 'removed_ms')
return {'restored'}
"""
)

# KEYS the journal's five; ARGV asset, op, code, meta, facts, entry or nothing, announcements the caller saw or nothing,
# job that the caller found to be the asset's.
# Returns the change's entry; 'moved': read its state again.
# An upsert: a change that the asset has already adds no entry. With an entry given, writes nothing and returns '' when
# the asset changed after it.
REGISTER: Final = (
    NOW
    + _CURRENT
    + """
local change = ARGV[2] .. ' ' .. ARGV[3] .. ' ' .. ARGV[4]
if ARGV[5] ~= '' then change = change .. '\\n' .. ARGV[5] end
local known = redis.call('HGET', KEYS[2], ARGV[1])
if known then
  local entry, old = string.match(known, '^(%S+) (.*)$')
  if old == change then return entry end
  if ARGV[6] ~= '' and later(entry, ARGV[6]) then return '' end
end
local before = current(known, KEYS[3], ARGV[7], '', ARGV[8], '')
if not before and ARGV[7] ~= '' then return 'moved' end
local entry = add(KEYS[1], KEYS[2], ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5])
if ARGV[2] == 'remove' then
  redis.call('HSET', KEYS[4], ARGV[1], entry)
  if before then mark(before.job, 'removed_ms', now) end
end
return entry
"""
)

# KEYS unrecorded; ARGV asset, entry: it is on record in S3 now.
RECORDED: Final = """
if redis.call('HGET', KEYS[1], ARGV[1]) == ARGV[2] then redis.call('HDEL', KEYS[1], ARGV[1]) end
"""

# KEYS live, unrecorded, state; ARGV asset, entry, asset, entry … Deletes these changes, unless the asset changed again
# since, or S3 has no record of the change yet; and counts that, for a commit whose caller asked S3 before the record
# was there and does not find the change here any more.
FORGET: Final = """
local left = false
for i = 1, #ARGV, 2 do
  local known = redis.call('HGET', KEYS[1], ARGV[i])
  local entry = known and string.match(known, '^(%S+)')
  local recorded = redis.call('HGET', KEYS[2], ARGV[i]) ~= entry
  if entry == ARGV[i + 1] and recorded then
    redis.call('HDEL', KEYS[1], ARGV[i])
    left = true
  end
end
if left then redis.call('HINCRBY', KEYS[3], 'announcements', 1) end
"""

# KEYS live, purges; ARGV asset, seconds, keys of protected files.  Returns those that the asset's live change does not
# name, and makes the asset's number of purges odd: none of its activations is committed until END_PURGE, or until the
# seconds are over; and those that stored their files before that store them again.
BEGIN_PURGE: Final = """
local known = redis.call('HGET', KEYS[1], ARGV[1])
local facts = known and string.match(known, '\\n(.*)$')
local used = facts and cjson.decode(facts).key
local unused = {}
for i = 3, #ARGV do
  if ARGV[i] ~= used then table.insert(unused, ARGV[i]) end
end
local purges = redis.call('HINCRBY', KEYS[2], ARGV[1], 1)
if purges % 2 == 0 then redis.call('HINCRBY', KEYS[2], ARGV[1], 1) end
redis.call('EXPIRE', KEYS[2], ARGV[2])
return unused
"""

# KEYS purges; ARGV asset.
END_PURGE: Final = """
if (redis.call('HGET', KEYS[1], ARGV[1]) or '0') % 2 == 1 then redis.call('HINCRBY', KEYS[1], ARGV[1], 1) end
"""
