"""The journal: additions to a collection since its newest segment, as a Redis stream that every worker follows."""

from __future__ import annotations

import base64
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import redis

from tasks.connection import named_errors
from tasks.names import journal_stream
from workers.index.codec import Codes

BEGINNING: Final = "0-0"
_PAGE: Final = 5_000

# KEYS stream, live; ARGV asset, code. Returns the entry at which this very code stands. An upsert: a job that is
# done over, because its worker died between registering and closing, finds its entry and adds none.
_APPEND: Final = """
local known = redis.call('HGET', KEYS[2], ARGV[1])
if known then
  local entry, code = string.match(known, '^(%S+) (.*)$')
  if code == ARGV[2] then return entry end
end
local entry = redis.call('XADD', KEYS[1], '*', 'op', 'add', 'asset', ARGV[1], 'code', ARGV[2])
redis.call('HSET', KEYS[2], ARGV[1], entry .. ' ' .. ARGV[2])
return entry
"""


@dataclass(frozen=True)
class Addition:
    """One asset registered under one code (code_size,) uint8."""

    entry: str
    asset_id: str
    code: Codes


class Journal:
    """Thread-safe. An entry's name orders it: ``milliseconds-number``."""

    def __init__(self, client: redis.Redis, address: str, collection: str) -> None:
        self._client = client
        self._address = address
        self._stream = journal_stream(collection)
        self._live = f"{self._stream}:live"
        self._append = client.register_script(_APPEND)

    def append(self, asset_id: str, code: Codes) -> str:
        """Register a code; returns the entry's name, which is the old one when the asset stands there under this
        code."""
        with named_errors(self._address):
            return str(self._append(keys=[self._stream, self._live], args=[asset_id, encode_code(code)]))

    def read_after(self, entry: str) -> list[Addition]:
        """The next entries after one, oldest first; an empty list when there are none yet."""
        with named_errors(self._address):
            rows: Any = self._client.xrange(self._stream, min=f"({entry}", count=_PAGE)
        return [Addition(name, fields["asset"], decode_code(fields["code"])) for name, fields in rows]

    def __len__(self) -> int:
        """Assets that stand in the journal."""
        with named_errors(self._address):
            return int(self._client.hlen(self._live))


def encode_code(code: Codes) -> str:
    """A code as base64, the form it has in the journal and in result documents."""
    return base64.b64encode(code.tobytes()).decode()


def decode_code(text: str) -> Codes:
    return np.frombuffer(base64.b64decode(text), dtype=np.uint8)
