"""The journal: what was added to a collection and removed from it, as a Redis stream that every worker follows.

The stream reaches back to the oldest generation that is kept, so that a worker that follows late, and a rollback, find
all of it. Beside it stand, for each asset, the change that counts (`live`), and how far the stream was cut (`state`).
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import redis

from tasks.connection import named_errors
from tasks.names import journal_stream
from workers.index.codec import Codes

BEGINNING: Final = "0-0"
_PAGE: Final = 5_000

# KEYS stream, live; ARGV asset, op, code, meta. Returns the entry at which this very change stands. An upsert: a job
# that is done over, because its worker died between registering and closing, finds its entry and adds none.
_APPEND: Final = """
local change = ARGV[2] .. ' ' .. ARGV[3] .. ' ' .. ARGV[4]
local known = redis.call('HGET', KEYS[2], ARGV[1])
if known then
  local entry, old = string.match(known, '^(%S+) (.*)$')
  if old == change then return entry end
end
local entry = redis.call('XADD', KEYS[1], '*', 'op', ARGV[2], 'asset', ARGV[1], 'code', ARGV[3], 'meta', ARGV[4])
redis.call('HSET', KEYS[2], ARGV[1], entry .. ' ' .. change)
return entry
"""

# KEYS live; ARGV asset, entry, asset, entry … Forgets the changes that still stand at those entries.
_FORGET: Final = """
for i = 1, #ARGV, 2 do
  local known = redis.call('HGET', KEYS[1], ARGV[i])
  if known and string.match(known, '^(%S+)') == ARGV[i + 1] then redis.call('HDEL', KEYS[1], ARGV[i]) end
end
"""


@dataclass(frozen=True)
class Change:
    """One asset registered under a code (code_size,) uint8, or removed: `code` is None then."""

    entry: str
    asset_id: str
    code: Codes | None
    meta: Mapping[str, str]


@dataclass(frozen=True)
class News:
    """What stands in the journal after some entry, oldest first.

    Attributes:
        generation: the newest one announced here; 0 when none was, or Redis was emptied since.
        cut: the entry up to which the stream may have been cut: who has not read so far has missed something.
    """

    changes: list[Change]
    generation: int
    cut: str


class Journal:
    """Thread-safe. An entry's name orders it: ``milliseconds-number``."""

    def __init__(self, client: redis.Redis, address: str, collection: str) -> None:
        self._client = client
        self._address = address
        self._stream = journal_stream(collection)
        self._live = f"{self._stream}:live"
        self._state = f"{self._stream}:state"
        self._append = client.register_script(_APPEND)
        self._forget = client.register_script(_FORGET)

    def add(self, asset_id: str, code: Codes, meta: Mapping[str, str]) -> str:
        """Register a code; returns the entry's name, which is the old one when that is how the asset stands there."""
        return self._write(asset_id, "add", encode_code(code), json.dumps(dict(meta), sort_keys=True))

    def remove(self, asset_id: str) -> str:
        """Take an asset out of the collection; returns the entry's name."""
        return self._write(asset_id, "remove", "", "")

    def read_after(self, entry: str) -> News:
        """The next changes after an entry, as many as one answer holds."""
        with named_errors(self._address):
            pipe = self._client.pipeline(transaction=True)
            rows, state = pipe.xrange(self._stream, min=f"({entry}", count=_PAGE).hgetall(self._state).execute()
        changes = [_change(name, fields) for name, fields in rows]
        return News(changes, int(state.get("generation", 0)), state.get("cut", BEGINNING))

    def all_after(self, entry: str) -> Iterator[Change]:
        """Every change after an entry, up to the last one."""
        while changes := self.read_after(entry).changes:
            yield from changes
            entry = changes[-1].entry

    def generation(self) -> int:
        """The newest generation announced; see :class:`News`."""
        with named_errors(self._address):
            return int(self._client.hget(self._state, "generation") or 0)

    def announce(self, generation: int, cut: str, covered: Sequence[Change]) -> None:
        """Tell the workers of a new generation; cut off what no kept generation needs, up to the entry `cut`; forget
        those of the `covered` changes that nothing has superseded."""
        with named_errors(self._address):
            pipe = self._client.pipeline(transaction=True)
            pipe.hset(self._state, mapping={"generation": generation, "cut": cut})
            pipe.xtrim(self._stream, minid=cut, approximate=False)
            pipe.execute()
            for start in range(0, len(covered), 1_000):
                pairs = [part for c in covered[start : start + 1_000] for part in (c.asset_id, c.entry)]
                self._forget(keys=[self._live], args=pairs)

    def __len__(self) -> int:
        """Assets whose last change no segment covers."""
        with named_errors(self._address):
            return int(self._client.hlen(self._live))

    def _write(self, asset_id: str, op: str, code: str, meta: str) -> str:
        with named_errors(self._address):
            return str(self._append(keys=[self._stream, self._live], args=[asset_id, op, code, meta]))


def entry_order(entry: str) -> tuple[int, int]:
    """What to compare entries by."""
    milliseconds, _, number = entry.partition("-")
    return int(milliseconds), int(number)


def encode_code(code: Codes) -> str:
    """A code as base64, the form it has in the journal and in result documents."""
    return base64.b64encode(code.tobytes()).decode()


def decode_code(text: str) -> Codes:
    return np.frombuffer(base64.b64decode(text), dtype=np.uint8)


def _change(entry: str, fields: Mapping[str, Any]) -> Change:
    if fields["op"] == "remove":
        return Change(entry, fields["asset"], None, {})
    return Change(entry, fields["asset"], decode_code(fields["code"]), json.loads(fields["meta"]))
