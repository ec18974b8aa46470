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
from workers.index.collection.manifest import Manifest
from workers.index.collection.open_collections import OpenCollections
from workers.index.collection.settling import GRACE_MS
from workers.index.maintenance.repair import Repaired, repair

__all__ = ["Continuity"]

logger = logging.getLogger(__name__)

_EVERY_S: Final = 10.0
_LOCK_S: Final = 600.0
_DAY_S: Final = 86_400.0
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
        self._advised = set[str]()
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
        gone = self._gone(collection)
        problem = _loss(noted, held, last) or (gone and f"Redis lacks the entry {gone}, which it had.")
        repaired = self._repair(collection, problem, gone) if problem else self._settled(collection, past_ms)
        if problem or noted is None or held is None:
            self._note(name, _Epoch(epoch=uuid.uuid4().hex, beat=1, entry=self._collections.journal(name).last_entry()))
        elif entry_order(last) > entry_order(noted.entry):
            self._note(name, _Epoch(epoch=noted.epoch, beat=noted.beat + 1, entry=last))
        return repaired

    def _repair(self, collection: Collection, problem: str, gone: str, *, lost: bool = True) -> Repaired:
        """Repair a collection.

        Args:
            gone: an entry that Redis had, and lacks; "" for none that is known.
            lost: whether Redis did lose something, and what it noted of manifests may be old.
        """
        name, level = collection.manifest.collection, logging.ERROR if lost else logging.WARNING
        logger.log(level, "%s The journal of %s is repaired from S3.", problem, name)
        files, journal = self._collections.files(name), self._collections.journal(name)
        with self._collections.write_lock(name):
            read_all = _disproves(gone, files.current())
            repaired = repair(self._store, files, journal, lambda *_: None, read_all=read_all, believe_store=lost)
        self._repaired[name] = collection.read_up_to
        logger.log(
            level,
            "The journal of %s is repaired: of %d assets with a document read, %d were registered and %d removed again",
            name, repaired.assets, repaired.registered, repaired.removed,
        )  # fmt: skip
        if repaired.unreadable:
            logger.warning(
                "%d result documents could not be read. Until they can, or are deleted, later ones are read each time.",
                repaired.unreadable,
            )
        return repaired

    def _gone(self, collection: Collection) -> str:
        """The last entry that this process has read, where Redis lacks it; else ""."""
        name, entry = collection.manifest.collection, collection.read_up_to
        if entry_order(entry) <= entry_order(self._repaired.get(name, collection.manifest.journal_entry)):
            return ""
        return "" if self._collections.journal(name).holds(entry) else entry

    def _settled(self, collection: Collection, past_ms: int) -> Repaired | None:
        """Settle which documents a repair need not read; repair what some may be missing of, where they are few.

        Args:
            past_ms: a time of the store that was past before this call.
        """
        name = collection.manifest.collection
        unsettled_ms = self._collections.journal(name).settling.follow(past_ms)
        if not self._looks_later or unsettled_ms < GRACE_MS or time.monotonic() < self._not_before[name]:
            return None
        if not collection.manifest.settled:
            self._advise(name)
            return None
        self._not_before[name] = time.monotonic() + GRACE_MS / 1000
        repaired = self._repair(
            collection, "Redis may have lost its last entries when it was started again.", "", lost=False
        )
        if repaired.unreadable:
            self._not_before[name] = time.monotonic() + _DAY_S
        return repaired

    def _advise(self, name: str) -> None:
        """Say once that all documents have to be read, which may take hours and is left to the operator."""
        if name not in self._advised:
            self._advised.add(name)
            logger.warning(
                "Redis may have lost its last entries, and it is not known which documents %s holds: run "
                "`aii index repair %s`.", name, name,
            )  # fmt: skip

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


def _disproves(gone: str, manifest: Manifest) -> bool:
    """Whether a lost entry shows that the segments may lack what the manifest says they hold: it was in another line of
    the journal than the one that they were written from."""
    settled = manifest.settled
    return bool(gone) and settled is not None and entry_order(gone) <= entry_order(settled.entry)


def _give_back(lock: redis.lock.Lock) -> None:
    try:
        lock.release()
    except (redis.RedisError, RedisUnavailable):
        logger.warning("The lock of a comparison could not be given back; it frees itself")
