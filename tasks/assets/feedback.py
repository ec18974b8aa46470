"""What people said of matches: which images are no copies of the assets that queries found for them.

aii:journal:{name}:rejected, …:rejected-at     hash: sha256 of an image → JSON list of the assets it is no copy of; when
collections/{name}/feedback/{asset_key}/{sha256}.json   the last opinion of each pair: it outlasts the loss of Redis
"""

from __future__ import annotations

import json
from typing import Final

from tasks.assets.notes import read_note
from tasks.bounded_map import bounded_map
from tasks.connection import RedisClient
from tasks.messages import AssetId, Digest, Frozen, JobId, Opinion
from tasks.names import asset_key, journal_stream
from tasks.storage import Bucket, ObjectStore

__all__ = ["Feedback", "Said", "feedback_keys"]

# Redis holds the latest: a hundred bytes each, read by every query.
_MOST_IMAGES: Final = 100_000
_READERS: Final = 16

# KEYS rejected, rejected-at; ARGV sha256, asset, "1" to reject, time, most images.
_NOTE: Final = """
local assets, known = {}, redis.call('HGET', KEYS[1], ARGV[1])
for _, asset in ipairs(known and cjson.decode(known) or {}) do
  if asset ~= ARGV[2] then table.insert(assets, asset) end
end
if ARGV[3] == '1' then table.insert(assets, ARGV[2]) end
if #assets == 0 then
  redis.call('HDEL', KEYS[1], ARGV[1])
  redis.call('ZREM', KEYS[2], ARGV[1])
  return
end
redis.call('HSET', KEYS[1], ARGV[1], cjson.encode(assets))
redis.call('ZADD', KEYS[2], ARGV[4], ARGV[1])
local excess = redis.call('ZCARD', KEYS[2]) - tonumber(ARGV[5])
if excess > 0 then
  for _, oldest in ipairs(redis.call('ZRANGE', KEYS[2], 0, excess - 1)) do
    redis.call('HDEL', KEYS[1], oldest)
    redis.call('ZREM', KEYS[2], oldest)
  end
end
"""


def feedback_keys(collection: str) -> list[str]:
    """What Redis holds of a collection's feedback."""
    return [f"{journal_stream(collection)}:{name}" for name in ("rejected", "rejected-at")]


class Said(Frozen):
    """The last opinion of one pair, `at` seconds since the epoch; `job_id` is the feedback's, `query_job` the query's
    that it is about."""

    source_sha256: Digest
    asset_id: AssetId
    opinion: Opinion
    job_id: JobId
    query_job: JobId
    at: float


class Feedback:
    """Of one collection. Thread-safe.

    Args:
        most: of how many images Redis holds what was rejected; the oldest are forgotten there.
    """

    def __init__(self, client: RedisClient, store: ObjectStore, collection: str, most: int = _MOST_IMAGES) -> None:
        self._client = client
        self._store = store
        self._folder = f"{collection}/feedback/"
        self._keys = feedback_keys(collection)
        self._most = most
        self._note = client.register_script(_NOTE)

    def keep(self, said: Said) -> None:
        """Keep an opinion; it takes the place of an earlier one of the same pair."""
        key = f"{self._folder}{asset_key(said.asset_id)}/{said.source_sha256}.json"
        self._store.put(Bucket.COLLECTIONS, key, said.model_dump_json().encode(), "application/json")
        self._remember(said)

    def rejected(self, source_sha256: str) -> frozenset[str]:
        """The assets that an image is no copy of."""
        known = self._client.hget(self._keys[0], source_sha256)
        return frozenset(json.loads(known)) if known else frozenset()

    def restore(self) -> int:
        """Give Redis back what S3 has; returns how many opinions that are.

        Raises:
            CorruptSegment: one is damaged.
        """
        keys = list(self._store.list_keys(Bucket.COLLECTIONS, self._folder))
        known = [said for said in bounded_map(self._read, keys, _READERS) if said]
        for said in sorted(known, key=lambda one: one.at):
            self._remember(said)
        return len(known)

    def _remember(self, said: Said) -> None:
        rejects = "1" if said.opinion == "reject" else "0"
        self._note(keys=self._keys, args=[said.source_sha256, said.asset_id, rejects, said.at, self._most])

    def _read(self, key: str) -> Said | None:
        return read_note(self._store, Bucket.COLLECTIONS, key, Said, "delete it, and give that feedback again")
