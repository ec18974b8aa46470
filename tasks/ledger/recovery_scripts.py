"""The transitions of jobs whose message has to be sent again, or that cannot be read, as Lua; the others, and what the
keys hold, are in :mod:`tasks.ledger.scripts`."""

from typing import Final

from tasks.ledger.scripts import ANNOUNCE_FUNCTION, MARK_DEATH, NOW

# KEYS job, leases, open, seq, counts, since; ARGV id, token or ''.
# Returns {task, queue, payload} of a job to send again, or nil.
# Without a token, only a job whose lease ran out is requeued; with one, its holder gives the job back before that.
REQUEUE: Final = (
    NOW
    + MARK_DEATH
    + """
local expiry = redis.call('ZSCORE', KEYS[2], ARGV[1])
if not expiry or (tonumber(expiry) > now and ARGV[2] == '') then return nil end
local job = redis.call('HMGET', KEYS[1], 'state', 'task', 'queue', 'payload', 'token', 'submitted_ms')
if ARGV[2] ~= '' and job[5] ~= ARGV[2] then return nil end
redis.call('ZREM', KEYS[2], ARGV[1])
if job[1] ~= 'running' then return nil end
if ARGV[2] == '' then mark_death(KEYS[1]) end
local seq = redis.call('INCR', KEYS[4])
redis.call('HSET', KEYS[1], 'state', 'queued', 'seq', seq)
redis.call('HDEL', KEYS[1], 'token', 'alone')
redis.call('ZADD', KEYS[3], seq, ARGV[1])
redis.call('ZADD', KEYS[6], job[6], ARGV[1])
redis.pcall('HINCRBY', KEYS[5], 'resent_lease', 1)
return {job[2], job[3], job[4]}
"""
)

# A job that was cancelled and submitted again for another client is in another share queue than the list says. A queue
# that is unknown altogether is a matter of the caller, who sets such a record aside.
ELSEWHERE: Final = """
local function elsewhere(queue, asked)
  local share = '%.%d+$'
  return queue and queue ~= asked and string.gsub(queue, share, '') == string.gsub(asked, share, '')
end
"""

# KEYS job, open, seq, counts; ARGV id, seq it was judged at, the list's queue.  Returns {task, queue, payload}, or nil
# when it moved on. What is in the list by mistake, or at another place than its job says, is corrected: it would hide
# others for ever.
# The job gets a new place: its new message is at the tail, and with the old place it would count as overtaken at once.
RESEND: Final = (
    ELSEWHERE
    + """
local job = redis.call('HMGET', KEYS[1], 'state', 'task', 'queue', 'payload', 'seq')
if job[1] ~= 'queued' or elsewhere(job[3], ARGV[3]) or not tonumber(job[5]) then
  redis.call('ZREM', KEYS[2], ARGV[1])
  return nil
end
if job[5] ~= ARGV[2] then redis.call('ZADD', KEYS[2], job[5], ARGV[1]) return nil end
local seq = redis.call('INCR', KEYS[3])
redis.call('HSET', KEYS[1], 'seq', seq)
redis.call('ZADD', KEYS[2], seq, ARGV[1])
redis.pcall('HINCRBY', KEYS[4], 'resent_lost', 1)
return {job[2], job[3], job[4]}
"""
)

# KEYS job, later, open, seq; ARGV id, the list's queue.  Returns {task, queue, payload} of a job that was put off and
# is to be sent now, or nil for one that has moved on meanwhile.
RELEASE: Final = (
    ELSEWHERE
    + """
redis.call('ZREM', KEYS[2], ARGV[1])
local job = redis.call('HMGET', KEYS[1], 'state', 'later', 'task', 'queue', 'payload')
if job[1] ~= 'queued' or not job[2] or elsewhere(job[4], ARGV[2]) then return nil end
redis.call('HDEL', KEYS[1], 'later')
local seq = redis.call('INCR', KEYS[4])
redis.call('HSET', KEYS[1], 'seq', seq)
redis.call('ZADD', KEYS[3], seq, ARGV[1])
return {job[3], job[4], job[5]}
"""
)

# KEYS job, events, leases, then open, since and later of each queue; ARGV id, error message, keep_s.  Returns what the
# record held, field and value in turns. It is in no list any more; a job that can be read as one has failed.
SET_ASIDE: Final = (
    NOW
    + ANNOUNCE_FUNCTION
    + """
for i = 3, #KEYS do redis.call('ZREM', KEYS[i], ARGV[1]) end
if redis.call('TYPE', KEYS[1]).ok ~= 'hash' then return {} end
local held = redis.call('HGETALL', KEYS[1])
redis.call('HSET', KEYS[1], 'state', 'failed', 'finished_ms', now, 'error_code', 'internal', 'error_message', ARGV[2])
redis.call('HDEL', KEYS[1], 'token')
redis.call('EXPIRE', KEYS[1], ARGV[3])
local job = redis.call('HMGET', KEYS[1], 'task', 'seq')
announce(KEYS[2], ARGV[1], 'failed', job[1], 0, job[2], 'internal')
return held
"""
)
