"""The journal: additions to a collection and removals from it, a Redis stream that every worker reads.

aii:journal:{name}          stream of changes since the oldest kept generation: late workers and rollbacks need them
aii:journal:{name}:live     hash: asset_id → its latest change that no segment covers
aii:journal:{name}:state    hash: `generation`, the newest announced; `cut`, up to which entry the stream is trimmed
aii:journal:{name}:manifests  hash: generation → sha256 of its manifest; see :mod:`workers.index.collection.pinned`
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any, Final

import numpy as np

from tasks.connection import RedisClient
from tasks.names import journal_stream
from workers.index.codec.codec import Codes
from workers.index.collection.manifest import Pointer

BEGINNING: Final = "0-0"
_PAGE: Final = 5_000

# KEYS stream, live; ARGV asset, op, code, meta, entry or nothing. Returns the change's entry.
# An upsert: a job that runs again, because its worker died after registering, finds its entry and adds none.
# With an entry given, writes nothing and returns '' when the asset changed after it.
_APPEND: Final = """
local function later(one, other)
  local a, b = string.match(one, '(%d+)-(%d+)')
  local c, d = string.match(other, '(%d+)-(%d+)')
  a, b, c, d = tonumber(a), tonumber(b), tonumber(c), tonumber(d)
  return a > c or (a == c and b > d)
end
local change = ARGV[2] .. ' ' .. ARGV[3] .. ' ' .. ARGV[4]
local known = redis.call('HGET', KEYS[2], ARGV[1])
if known then
  local entry, old = string.match(known, '^(%S+) (.*)$')
  if old == change then return entry end
  if ARGV[5] ~= '' and later(entry, ARGV[5]) then return '' end
end
local entry = redis.call('XADD', KEYS[1], '*', 'op', ARGV[2], 'asset', ARGV[1], 'code', ARGV[3], 'meta', ARGV[4])
redis.call('HSET', KEYS[2], ARGV[1], entry .. ' ' .. change)
return entry
"""

# KEYS live; ARGV asset, entry, asset, entry … Deletes these assets' changes, unless they changed again since.
_FORGET: Final = """
for i = 1, #ARGV, 2 do
  local known = redis.call('HGET', KEYS[1], ARGV[i])
  if known and string.match(known, '^(%S+)') == ARGV[i + 1] then redis.call('HDEL', KEYS[1], ARGV[i]) end
end
"""

# KEYS stream; ARGV entry. Redis refuses to add an entry of that name when the stream is past it already.
_CONTINUE_AFTER: Final = """
local added = redis.pcall('XADD', KEYS[1], ARGV[1], 'op', 'none')
if type(added) == 'string' then redis.call('XDEL', KEYS[1], ARGV[1]) end
"""


@dataclass(frozen=True)
class Change:
    """An asset that was registered with a code (code_size,) uint8, or removed, when `code` is None."""

    entry: str
    asset_id: str
    code: Codes | None
    meta: Mapping[str, str]


@dataclass(frozen=True)
class Page:
    """Some changes in a row, oldest first; `cut` is the entry up to which the stream was trimmed: a reader that has not
    read as far has missed changes."""

    changes: list[Change]
    cut: str


@dataclass(frozen=True)
class Announced:
    """The newest announced generation, 0 when there is none (Redis may be new); and `cut` as in :class:`Page`."""

    generation: int
    cut: str


class Journal:
    """The journal of one collection. Thread-safe. Entries are named ``milliseconds-number``, in ascending order."""

    def __init__(self, client: RedisClient, collection: str) -> None:
        self._client = client
        self._stream = journal_stream(collection)
        self._live = f"{self._stream}:live"
        self._state = f"{self._stream}:state"
        self._manifests = f"{self._stream}:manifests"
        self._append = client.register_script(_APPEND)
        self._forget = client.register_script(_FORGET)
        self._continue_after = client.register_script(_CONTINUE_AFTER)

    def add(self, asset_id: str, code: Codes, meta: Mapping[str, str], unless_after: str = "") -> str:
        """Register a code; returns the entry, the old one when the asset has this code and these metadata already.

        With `unless_after`, an asset that changed after that entry stays as it is, and "" is returned.
        """
        return self._write(asset_id, "add", encode_code(code), json.dumps(dict(meta), sort_keys=True), unless_after)

    def remove(self, asset_id: str, unless_after: str = "") -> str:
        """Remove an asset; returns what :meth:`add` does."""
        return self._write(asset_id, "remove", "", "", unless_after)

    def read_after(self, entry: str) -> Page:
        """The next changes after an entry, at most a page."""
        pipe = self._client.pipeline(transaction=True)
        rows, cut = pipe.xrange(self._stream, min=f"({entry}", count=_PAGE).hget(self._state, "cut").execute()
        return Page([_change(name, fields) for name, fields in rows], cut or BEGINNING)

    def all_after(self, entry: str) -> Iterator[Change]:
        """All changes after an entry."""
        while changes := self.read_after(entry).changes:
            yield from changes
            entry = changes[-1].entry

    def last_entry(self) -> str:
        """The newest entry there ever was, even if it was trimmed."""
        if not self._client.exists(self._stream):
            return BEGINNING
        return str(self._client.xinfo_stream(self._stream)["last-generated-id"])

    def continue_after(self, entry: str) -> None:
        """Make new entries come after this one, even when the clock of a new Redis is behind."""
        self._continue_after(keys=[self._stream], args=[entry])

    def announced(self) -> Announced:
        generation, cut = self._client.hmget(self._state, "generation", "cut")
        return Announced(int(generation or 0), cut or BEGINNING)

    def announce(self, generation: int, cut: str, covered: str) -> None:
        """Announce a new generation to the workers, and delete what is no longer needed.

        Args:
            cut: trim the stream up to this entry: no kept generation needs the changes before it.
            covered: the last entry that the generation's segments cover.
        """
        pipe = self._client.pipeline(transaction=True)
        pipe.hset(self._state, mapping={"generation": generation, "cut": cut})
        pipe.xtrim(self._stream, minid=cut, approximate=False)
        pipe.execute()
        known = ((asset, change.partition(" ")[0]) for asset, change in self._client.hscan_iter(self._live))
        old = (pair for pair in known if entry_order(pair[1]) <= entry_order(covered))
        while pairs := list(islice(old, 1_000)):
            self._forget(keys=[self._live], args=[part for pair in pairs for part in pair])

    def noted_manifests(self) -> dict[int, str]:
        """The digests of manifests that were published, by generation."""
        return {int(number): sha256 for number, sha256 in self._client.hgetall(self._manifests).items()}

    def note_manifest(self, pointer: Pointer, before: Pointer | None) -> None:
        """Note a manifest that is about to be published; and the one before it, where it is not noted yet."""
        pipe = self._client.pipeline(transaction=True)
        if before:
            pipe.hsetnx(self._manifests, str(before.generation), before.sha256)
        pipe.hset(self._manifests, str(pointer.generation), pointer.sha256).execute()

    def forget_manifests(self) -> None:
        self._client.delete(self._manifests)

    def delete(self) -> None:
        self._client.delete(self._stream, self._live, self._state, self._manifests)

    def _write(self, asset_id: str, op: str, code: str, meta: str, unless_after: str) -> str:
        return str(self._append(keys=[self._stream, self._live], args=[asset_id, op, code, meta, unless_after]))


def entry_order(entry: str) -> tuple[int, int]:
    """A key to compare entries by."""
    milliseconds, _, number = entry.partition("-")
    return int(milliseconds), int(number)


def next_entry(entry: str) -> str:
    """The lowest possible entry after this one."""
    milliseconds, number = entry_order(entry)
    return f"{milliseconds}-{number + 1}"


def encode_code(code: Codes) -> str:
    """A code as base64, its form in the journal and in result documents."""
    return base64.b64encode(code.tobytes()).decode()


def decode_code(text: str) -> Codes:
    return np.frombuffer(base64.b64decode(text), dtype=np.uint8)


def _change(entry: str, fields: Mapping[str, Any]) -> Change:
    if fields["op"] == "remove":
        return Change(entry, fields["asset"], None, {})
    return Change(entry, fields["asset"], decode_code(fields["code"]), json.loads(fields["meta"]))
