"""Dead letters: messages and records that no job can be made of, kept for an operator instead of being dropped.

aii:dead         stream of the last thousand: what it was, where it came from, why it could not be used
aii:dead:known   sorted set of what is noted once although every worker meets it, by the time (s) it was noted
aii:counts       its field `dead` counts all there ever were
aii:aside:{key}  what was found under a key of the broker and is of another type, as it was found; the next one of the
                 same key is kept as aii:aside:{key}:2, and so on
"""

from __future__ import annotations

import base64
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from tasks.connection import RedisClient
from tasks.errors import Conflict, NotFound
from tasks.ledger.keys import COUNTS
from tasks.names import STREAM_ENTRY_PATTERN
from tasks.shares import ALL_QUEUES

__all__ = ["DeadLetter", "DeadLetters"]

_STREAM: Final = "aii:dead"
_KNOWN: Final = "aii:dead:known"
_BOUND: Final = 1_000
_KEPT_BYTES: Final = 64 * 2**10  # of each; a good message is shorter
_REASON_BOUND: Final = 500

# KEYS stream, known, counts; ARGV bound, name or '', origin, reason, content, size, worker.  Returns 1 if it was noted.
_ADD: Final = """
if ARGV[2] ~= '' then
  if redis.call('ZADD', KEYS[2], 'NX', redis.call('TIME')[1], ARGV[2]) == 0 then return 0 end
  redis.call('ZREMRANGEBYRANK', KEYS[2], 0, -1 - ARGV[1])
end
redis.call('XADD', KEYS[1], 'MAXLEN', ARGV[1], '*', 'origin', ARGV[3], 'reason', ARGV[4], 'content', ARGV[5],
           'size', ARGV[6], 'worker', ARGV[7])
redis.call('HINCRBY', KEYS[3], 'dead', 1)
return 1
"""

# KEYS key, its name aside; ARGV type.  Returns the new name, if it was renamed. In one step, as a key of the right type
# may take its place at any moment.
_RENAME: Final = """
local found = redis.call('TYPE', KEYS[1]).ok
if found == ARGV[1] or found == 'none' then return false end
local aside, number = KEYS[2], 1
while redis.call('EXISTS', aside) == 1 do
  number = number + 1
  aside = KEYS[2] .. ':' .. number
end
redis.call('RENAME', KEYS[1], aside)
return aside
"""


@dataclass(frozen=True)
class DeadLetter:
    """One of them.

    Attributes:
        entry: its name here, ``milliseconds-number``.
        at: when it was set aside, in seconds since the epoch.
        origin: the queue of a message; ``ledger`` or ``journal …`` for a record.
        content: its first 64 KiB of `size` bytes.
        worker: who set it aside.
    """

    entry: str
    at: float
    origin: str
    reason: str
    content: bytes
    size: int
    worker: str

    @property
    def sendable(self) -> bool:
        """Whether it is a message, and whole."""
        return self.origin in ALL_QUEUES and len(self.content) == self.size


class DeadLetters:
    """Thread-safe; raises RedisUnavailable.

    Args:
        worker: who sets aside, for an operator to find its log.
    """

    def __init__(self, client: RedisClient, worker: str = "") -> None:
        self._client = client
        self._worker = worker
        self._add = client.register_script(_ADD)
        self._rename = client.register_script(_RENAME)

    def add(self, origin: str, reason: str, content: bytes, once: str = "") -> bool:
        """Keep one, in place of the oldest when there are a thousand.

        Args:
            once: a name under which it is noted a single time, however many processes meet it.

        Returns:
            Whether it was noted.
        """
        kept = base64.b64encode(content[:_KEPT_BYTES])
        said = [origin, reason[:_REASON_BOUND], kept, len(content), self._worker]
        return bool(self._add(keys=[_STREAM, _KNOWN, COUNTS], args=[_BOUND, once, *said]))

    def move_aside(self, key: str, wanted: str = "list") -> str | None:
        """Rename a key that is not of the type `wanted`; returns its new name, None where it is or is missing."""
        aside: str | None = self._rename(keys=[key, f"aii:aside:{key}"], args=[wanted])
        return aside

    def count(self) -> int:
        """How many are kept."""
        return int(self._client.xlen(_STREAM))

    def newest(self, limit: int) -> list[DeadLetter]:
        return [_letter(entry, fields) for entry, fields in self._client.xrevrange(_STREAM, count=limit)]

    def check(self, entries: Sequence[str]) -> None:
        """Raise NotFound for what cannot be the name of one: Redis refuses it."""
        for entry in entries:
            if not re.fullmatch(STREAM_ENTRY_PATTERN, entry):
                raise NotFound(f"There is no dead letter {entry!r}: list them with `aii jobs dead`.")

    def get(self, entry: str) -> DeadLetter:
        """Raises NotFound."""
        self.check([entry])
        found = self._client.xrange(_STREAM, min=entry, max=entry)
        if not found:
            raise NotFound(f"There is no dead letter {entry}: list them with `aii jobs dead`.")
        return _letter(*found[0])

    def resend(self, entry: str) -> str:
        """Put a message back at the tail of its queue as it was, and forget it here; returns the queue.

        Raises:
            NotFound: there is none of that name.
            Conflict: it is a record, or was too large to be kept whole.
        """
        letter = self.get(entry)
        if not letter.sendable:
            raise Conflict(f"Dead letter {entry} cannot be sent again: it is no message, or is not kept whole.")
        pipe = self._client.pipeline(transaction=True)
        pipe.lpush(letter.origin, letter.content).xdel(_STREAM, entry).execute()
        return letter.origin

    def drop(self, entries: Sequence[str]) -> int:
        """Forget some; returns how many of them there were. Raises NotFound for what cannot be the name of one."""
        self.check(entries)
        return int(self._client.xdel(_STREAM, *entries)) if entries else 0


def _letter(entry: str, fields: dict[str, Any]) -> DeadLetter:
    return DeadLetter(
        entry=entry, at=int(entry.partition("-")[0]) / 1000, origin=fields.get("origin", ""),
        reason=fields.get("reason", ""), content=base64.b64decode(fields.get("content", "")),
        size=int(fields.get("size", 0)), worker=fields.get("worker", ""),
    )  # fmt: skip
