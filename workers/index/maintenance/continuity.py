"""Notices that Redis was emptied, replaced by a replica or set back, and repairs the journal by itself.

Each journal's life has an epoch, a random name, and a beat that counts on while it changes. Both are kept in Redis and
then in S3 (``{collection}/epoch.json``). Redis lost changes when it has no epoch or another one, a lower beat, or an
older last entry than S3 says; or when it lacks an entry that this process has read.
"""

from __future__ import annotations

import logging
import time
import uuid
from collections import defaultdict
from typing import Final

import redis
from pydantic import ValidationError

from tasks.connection import RedisClient
from tasks.errors import AiiError, ObjectMissing, RedisUnavailable
from tasks.messages import Frozen
from tasks.names import journal_stream
from tasks.periodic import PeriodicThread
from tasks.storage import Bucket, ObjectStore
from workers.index.collection.collection import Collection
from workers.index.collection.journal import entry_order
from workers.index.collection.open_collections import OpenCollections
from workers.index.collection.settling import GRACE_MS
from workers.index.maintenance.repair import Repaired, repair

__all__ = ["Continuity"]

logger = logging.getLogger(__name__)

_EVERY_S: Final = 10.0
_LOCK_S: Final = 600.0
_MOST_BYTES: Final = 10_000


class _Epoch(Frozen):
    """A journal's life, how far it was when that was noted, and its last entry then."""

    epoch: str
    beat: int
    entry: str


class Continuity:
    """Looks after every open collection, in one worker at a time. Where another process of Redis may have lost the last
    entries without that being noticed, the documents since are read an hour later.

    Args:
        every_s: seconds between two comparisons, and between two notes of a journal that changes.
        looks_later: whether those documents are read here: that takes the whole index, which a shard's host may lack.
    """

    def __init__(
        self,
        collections: OpenCollections,
        client: RedisClient,
        store: ObjectStore,
        every_s: float = _EVERY_S,
        *,
        looks_later: bool = True,
    ) -> None:
        self._collections = collections
        self._looks_later = looks_later
        self._client = client
        self._store = store
        self._repaired: dict[str, str] = {}  # by collection, up to which entry read here a repair was made already
        self._not_before = defaultdict[str, float](float)  # until when, monotonic, unsettled documents are left alone
        self.thread = PeriodicThread("continuity", every_s, self.run_once, jitter=0.5, at_once=True)

    def run_once(self) -> None:
        """Compare, repair, note."""
        for collection in self._collections.opened():
            name = collection.manifest.collection
            lock = self._client.lock(f"aii:continuity:{name}", timeout=_LOCK_S, blocking=False)
            if not lock.acquire():
                continue
            try:
                self.keep(collection)
            except AiiError as error:
                logger.warning("%s The journal of %s is compared again later.", error, name)
            except Exception:
                logger.exception("The journal of %s could not be compared with what S3 has", name)
            finally:
                _give_back(lock)

    def keep(self, collection: Collection) -> Repaired | None:
        """Compare one collection, and repair it where Redis lost something; returns what that did."""
        name = collection.manifest.collection
        (noted, past_ms), last = self._noted(name), self._collections.journal(name).last_entry()
        held = self._held(name)
        problem = _loss(noted, held, last) or self._unread(collection)
        repaired = self._repair(collection, problem, logging.ERROR) if problem else self._settled(collection, past_ms)
        if problem or noted is None or held is None:
            self._note(name, _Epoch(epoch=uuid.uuid4().hex, beat=1, entry=self._collections.journal(name).last_entry()))
        elif entry_order(last) > entry_order(noted.entry):
            self._note(name, _Epoch(epoch=noted.epoch, beat=noted.beat + 1, entry=last))
        return repaired

    def _repair(self, collection: Collection, problem: str, level: int) -> Repaired:
        name = collection.manifest.collection
        logger.log(level, "%s The journal of %s is repaired from S3.", problem, name)
        files, journal = self._collections.files(name), self._collections.journal(name)
        with self._collections.write_lock(name):
            repaired = repair(self._store, files, journal, lambda *_: None)
        self._repaired[name] = collection.read_up_to
        logger.log(
            level,
            "The journal of %s is repaired: of %d assets with a document read, %d were registered and %d removed again",
            name, repaired.assets, repaired.registered, repaired.removed,
        )  # fmt: skip
        return repaired

    def _unread(self, collection: Collection) -> str:
        """Whether an entry that this process has read is gone."""
        name, entry = collection.manifest.collection, collection.read_up_to
        if entry_order(entry) <= entry_order(self._repaired.get(name, collection.manifest.journal_entry)):
            return ""
        if self._collections.journal(name).holds(entry):
            return ""
        return f"Redis lacks the entry {entry}, which it had."

    def _settled(self, collection: Collection, past_ms: int) -> Repaired | None:
        """Settle which documents a repair need not read; repair what some may be missing of, where they are few.

        Args:
            past_ms: a time of the store that was past before this call.
        """
        name = collection.manifest.collection
        unsettled_ms = self._collections.journal(name).settling.follow(past_ms)
        if not self._looks_later:
            return None
        if unsettled_ms < GRACE_MS or not collection.manifest.settled or time.monotonic() < self._not_before[name]:
            return None
        self._not_before[name] = time.monotonic() + GRACE_MS / 1000
        return self._repair(
            collection, "Redis may have lost its last entries when it was started again.", logging.WARNING
        )

    # ── where it is noted ────────────────────────────────────────────────────────────────────────────────────────────

    def _held(self, name: str) -> tuple[str, int] | None:
        """Epoch and beat by Redis."""
        epoch, beat = self._client.hmget(f"{journal_stream(name)}:state", "epoch", "beat")
        return (epoch, int(beat)) if epoch and str(beat).isdecimal() else None

    def _noted(self, name: str) -> tuple[_Epoch | None, int]:
        """The same by S3, and when that was written (ms, its clock); 0 when it was not."""
        try:
            document, past_ms = self._store.get_dated(Bucket.COLLECTIONS, _key(name), _MOST_BYTES)
            return _Epoch.model_validate_json(document), past_ms
        except (ObjectMissing, ValidationError):
            return None, 0

    def _note(self, name: str, epoch: _Epoch) -> None:
        """Redis first: what S3 knows, Redis must have known."""
        self._client.hset(f"{journal_stream(name)}:state", mapping={"epoch": epoch.epoch, "beat": epoch.beat})
        self._store.put(Bucket.COLLECTIONS, _key(name), epoch.model_dump_json().encode(), "application/json")


def _key(name: str) -> str:
    return f"{name}/epoch.json"


def _loss(noted: _Epoch | None, held: tuple[str, int] | None, last: str) -> str:
    """What Redis lost, by what S3 has noted."""
    if noted is None:
        return ""
    if held is None:
        return "Redis was emptied."
    if held[0] != noted.epoch:
        return "Redis is another one than before."
    if held[1] < noted.beat or entry_order(last) < entry_order(noted.entry):
        return "Redis was set back."
    return ""


def _give_back(lock: redis.lock.Lock) -> None:
    try:
        lock.release()
    except (redis.RedisError, RedisUnavailable):
        logger.warning("The lock of a comparison could not be given back; it frees itself")
