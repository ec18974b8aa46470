"""Up to when result documents are settled: a repair need not read them, as the index has what they say.

`aii:journal:{name}:state` holds, beside what :mod:`workers.index.collection.journal` keeps there:

settled    what documents say that the store changed before this time (ms, its clock) is in the segments, or in the
           journal as it was when this was written, or what is there is newer
server     the process of Redis that this was written in, and which history it continued
unsettled  since when (ms, Redis' clock) documents may be missing that were, or still will be, written of lost entries
lost       when (ms, Redis' clock) Redis may have lost entries last: `unsettled`, or later
reading    who reads the documents

A document is written after its entry in the journal. While one process of Redis goes on, none of its entries is lost:
those of all documents that the store had at a time are in a journal that is asked later. So `settled` follows the
store's clock for as long as `server` stays what it was. Another one may have lost the last entries (a replica that was
promoted, a log that was not on disk yet): `settled` stays then until all documents after it were read, and that again
when workers of before have had the time to write theirs. Redis keeps or loses its changes in their order: where
`settled` is, all entries before it are as well.
"""

from __future__ import annotations

import uuid
from dataclasses import dataclass, replace
from typing import Final

from tasks.connection import RedisClient
from tasks.ledger.scripts import NOW

__all__ = ["GRACE_MS", "MARGIN_MS", "Reading", "Settled", "Settling"]

# How far clocks of the store's hosts may differ: S3 refuses requests whose time is farther from its own.
MARGIN_MS: Final = 15 * 60_000
# After which a worker that had committed a job when Redis lost that has written its document, or has ended.
GRACE_MS: Final = 60 * 60_000

# '' where this user may not ask. The history has a new name whenever a replica is promoted.
_SERVER: Final = """
local function server()
  local process, history = redis.pcall('INFO', 'server'), redis.pcall('INFO', 'replication')
  if type(process) ~= 'string' or type(history) ~= 'string' then return '' end
  process, history = string.match(process, 'run_id:(%x+)'), string.match(history, 'master_replid:(%x+)')
  return process and history and process .. ' ' .. history or ''
end
local here = server()
"""

# KEYS state; ARGV who reads, and GRACE_MS.  Returns the server; what END writes as `unsettled`, '' when nothing will be
# missing once all is read; and what `lost` is until then.
_BEGIN: Final = (
    NOW
    + _SERVER
    + """
local settled, there, unsettled, lost = unpack(redis.call('HMGET', KEYS[1], 'settled', 'server', 'unsettled', 'lost'))
local same = here ~= '' and there == here and (settled or unsettled)
local last = same and tonumber(lost or unsettled or '') or now
local missing = not same or (unsettled and now - last < tonumber(ARGV[2]))
last = string.format('%.0f', last)
redis.call('HDEL', KEYS[1], 'settled')
redis.call('HSET', KEYS[1], 'reading', ARGV[1], 'server', here, 'unsettled', unsettled or last, 'lost', last)
return {here, missing and last or '', last}
"""
)

# KEYS state; ARGV who reads, what BEGIN returned, settled: '' for nothing.  Returns 1 when that is settled now. What
# entries were lost of meanwhile stays unsettled.
_END: Final = (
    NOW
    + _SERVER
    + """
local reading, lost = unpack(redis.call('HMGET', KEYS[1], 'reading', 'lost'))
if reading ~= ARGV[1] then return 0 end
redis.call('HDEL', KEYS[1], 'reading')
if ARGV[5] == '' or here == '' or here ~= ARGV[2] then return 0 end
redis.call('HSET', KEYS[1], 'settled', string.format('%.0f', math.min(tonumber(ARGV[5]), now)))
if lost and lost ~= ARGV[4] then
  redis.call('HSET', KEYS[1], 'unsettled', lost)
elseif ARGV[3] ~= '' then
  redis.call('HSET', KEYS[1], 'unsettled', ARGV[3])
else
  redis.call('HDEL', KEYS[1], 'unsettled', 'lost')
end
return 1
"""
)

# KEYS state; ARGV a time of the store that was past before this, less MARGIN_MS.  Returns for how many ms something
# has been unsettled; -1 when nothing is, or Redis does not say which one it is.
_FOLLOW: Final = (
    NOW
    + _SERVER
    + """
local settled, there, unsettled = unpack(redis.call('HMGET', KEYS[1], 'settled', 'server', 'unsettled'))
if here == '' then return -1 end
if there ~= here or not (settled or unsettled) then
  local since = string.format('%.0f', now)
  unsettled = unsettled or since
  redis.call('HSET', KEYS[1], 'server', here, 'unsettled', unsettled, 'lost', since)
end
if unsettled then return now - tonumber(unsettled) end
local past = math.min(tonumber(ARGV[1]), now)  -- a clock of the store that is ahead must not decide for long
if past > tonumber(settled) then redis.call('HSET', KEYS[1], 'settled', string.format('%.0f', past)) end
return -1
"""
)

# KEYS state.  A reader of documents at work settles nothing by that.
_FORGET: Final = (
    NOW
    + """
local since = string.format('%.0f', now)
redis.call('HDEL', KEYS[1], 'settled', 'reading')
redis.call('HSETNX', KEYS[1], 'unsettled', since)
redis.call('HSET', KEYS[1], 'lost', since)
"""
)

# KEYS state.  Returns settled and the server, or nothing.
_SETTLED: Final = (
    _SERVER
    + """
local settled = redis.call('HGET', KEYS[1], 'settled')
if settled and here ~= '' then return {settled, here} end
return {}
"""
)


@dataclass(frozen=True)
class Settled:
    """What :mod:`workers.index.collection.settling` says of documents before a time, and the server that said so."""

    before_ms: int
    server: str


@dataclass(frozen=True)
class Reading:
    """All documents are being read that are not settled; nothing is, meanwhile.

    Attributes:
        missing: since when something is unsettled afterwards; "" for nothing.
        lost: when Redis may have lost entries last, before this.
    """

    token: str
    server: str
    missing: str
    lost: str

    @property
    def complete(self) -> Reading:
        """The same where no document can be missing: of a collection that has just been made."""
        return replace(self, missing="")


class Settling:
    """Of one collection's documents, by the hash with its journal's state. Thread-safe."""

    def __init__(self, client: RedisClient, state: str) -> None:
        self._client, self._state = client, state
        self._begin = client.register_script(_BEGIN)
        self._end = client.register_script(_END)
        self._follow = client.register_script(_FOLLOW)
        self._settled = client.register_script(_SETTLED)
        self._forget = client.register_script(_FORGET)

    def begin(self) -> Reading:
        """To be called before documents are listed; who reads them already settles nothing then."""
        token = uuid.uuid4().hex
        return Reading(token, *map(str, self._begin(keys=[self._state], args=[token, GRACE_MS])))

    def end(self, reading: Reading, before_ms: int | None) -> bool:
        """To be called when the segments or the journal have what was read; returns whether that is settled. It is not
        when Redis was emptied or another one took its place meanwhile.

        Args:
            before_ms: of documents changed before this time all were read; None where some could not be: what was
                unsettled stays so. A time that Redis' clock has not reached counts as that.
        """
        said = [reading.token, reading.server, reading.missing, reading.lost]
        return bool(self._end(keys=[self._state], args=[*said, "" if before_ms is None else before_ms]))

    def follow(self, past_ms: int) -> int:
        """Settle what can be by itself; returns for how many milliseconds documents have been unsettled that have to be
        read, -1 when there are none.

        Args:
            past_ms: a time of the store that was past before this call.
        """
        return int(self._follow(keys=[self._state], args=[past_ms - MARGIN_MS]))

    def settled(self) -> Settled | None:
        found = self._settled(keys=[self._state])
        return Settled(int(found[0]), str(found[1])) if found else None

    def forget(self) -> None:
        """Nothing is settled any more, until documents are read."""
        self._forget(keys=[self._state])
