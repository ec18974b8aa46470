"""The process that submits a bucket's objects: ``aii ingest``."""

from __future__ import annotations

import logging
import signal
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import TYPE_CHECKING, Final

from obstore.exceptions import InvalidPathError

from producer.ingest.notifications import Notifications, Uploaded, list_key, uploads
from tasks.app import Sender, create_app
from tasks.connection import connect_redis
from tasks.errors import BadInput, InvalidKey, InvalidSetting, Unavailable
from tasks.ledger.dead_letters import DeadLetters
from tasks.ledger.ledger import Ledger
from tasks.messages import ActivateRequest, QueryRequest, S3Object, validated
from tasks.settings import Settings
from tasks.shares import share_queue
from tasks.storage import ObjectStore

if TYPE_CHECKING:
    from obstore import ObjectMeta

__all__ = ["Bridge", "LeftOut", "SourceStore", "Wanted", "run"]

logger = logging.getLogger(__name__)

_MOST: Final = 100  # notifications, or objects of a sweep, at once
_WAIT_S: Final = 0.5
_PAUSE_S: Final = 1.0
_NAMED: Final = 5  # folders in one message


@dataclass(frozen=True)
class Wanted:
    """What becomes of a bucket's objects.

    Attributes:
        query: they are queried, instead of activated.
        prefix: only objects whose key begins with this.
        sweep_s: seconds between two sweeps; 0 for one at the start only.
        once: end after the first sweep, when no notification is left.
    """

    bucket: str
    collection: str
    query: bool = False
    prefix: str = ""
    sweep_s: float = 60.0
    once: bool = False


@dataclass
class LeftOut:
    """What a sweep of a bucket does not find.

    Attributes:
        folders: those that cannot be listed, since a key in them has an empty part, as `a//b` in `a`.
        empty: how many objects have no content: the entries `a/` of folders, which the client calls `a`, and files.
    """

    folders: list[str] = field(default_factory=list)
    empty: int = 0


class SourceStore(ObjectStore):
    """The store, of which the bridge lists a bucket that AII_SOURCE_BUCKETS names."""

    def uploaded(self, bucket: str, prefix: str, left_out: LeftOut) -> Iterator[Uploaded]:
        """The objects of a bucket whose keys begin with a prefix; `left_out` is told of the others.

        A page of objects at a time is in memory, or all objects directly in one folder where a key has an empty part.
        """
        folder = prefix.rpartition("/")[0]
        with self._errors(f"s3://{bucket}"):
            try:
                yield from _uploaded(bucket, prefix, self._listed(bucket, folder), left_out)
            except InvalidPathError:
                left_out.empty = 0
                yield from _uploaded(bucket, prefix, self._by_folder(bucket, folder, prefix, left_out), left_out)

    def _listed(self, bucket: str, folder: str) -> Iterator[ObjectMeta]:
        for batch in self._sources[bucket].list(folder or None):
            yield from batch

    def _by_folder(self, bucket: str, folder: str, prefix: str, left_out: LeftOut) -> Iterator[ObjectMeta]:
        """The same where a key has an empty part: the client lists no folder that such a key is in, nor names the
        folders below it."""
        try:
            found = self._sources[bucket].list_with_delimiter(folder or None)
        except InvalidPathError:
            left_out.folders.append(folder)
            return
        yield from found["objects"]
        for child in found["common_prefixes"]:
            if child and child != folder and f"{child}/".startswith(prefix):
                yield from self._by_folder(bucket, child, prefix, left_out)


def _uploaded(bucket: str, prefix: str, items: Iterable[ObjectMeta], left_out: LeftOut) -> Iterator[Uploaded]:
    """Those of the objects that begin with a prefix and have content."""
    for item in items:
        if not item["path"].startswith(prefix):
            continue
        if item["size"]:
            yield Uploaded(bucket, item["path"], (item["e_tag"] or "").strip('"'))
        else:
            left_out.empty += 1


def run(settings: Settings, wanted: Wanted) -> None:
    """Submit until SIGTERM or SIGINT.

    Raises:
        InvalidSetting: AII_SOURCE_BUCKETS does not name the bucket.
        InvalidKey: with `once`, all was submitted but the objects of a folder that cannot be listed.
        Unavailable: with `once`, a service does not answer.
    """
    end = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: end.set())
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    Bridge(settings, wanted).run(end)


class Bridge:
    """Turns what a bucket holds into jobs."""

    def __init__(self, settings: Settings, wanted: Wanted) -> None:
        if wanted.bucket not in settings.source_buckets:
            raise InvalidSetting(
                f"AII_SOURCE_BUCKETS does not name {wanted.bucket}: set it here and for the workers, which read it."
            )
        client = connect_redis(settings)
        self._wanted = wanted
        self._client = settings.client or f"ingest:{wanted.bucket}"
        self._store = SourceStore.connect(settings)
        self._ledger = Ledger.connect(settings)
        self._sender = Sender(create_app(settings), settings)
        self._notifications = Notifications(client, list_key(wanted.bucket))
        self._dead = DeadLetters(client, "aii ingest")
        self._empty = 0  # objects at the latest sweep

    def run(self, end: threading.Event) -> None:
        """Until `end` is set, or with `once` everything is submitted."""
        next_sweep, put_back, unlisted = 0.0, False, list[str]()
        while not end.is_set():
            try:
                if not put_back:
                    self._notifications.put_back()
                    put_back = True
                if time.monotonic() >= next_sweep:
                    unlisted = self.sweep()
                    next_sweep = time.monotonic() + self._wanted.sweep_s if self._wanted.sweep_s else float("inf")
                if not self.step() and self._wanted.once:
                    break
            except Unavailable as error:
                if self._wanted.once:
                    raise
                logger.warning("%s Nothing is submitted until then.", error.message)
                put_back = False
                end.wait(_PAUSE_S)
            except Exception:
                if self._wanted.once:
                    raise
                logger.exception("Nothing can be submitted at the moment")
                put_back = False
                end.wait(_PAUSE_S)
        if unlisted and self._wanted.once:
            raise InvalidKey(self._cannot_be_listed(unlisted))

    def step(self) -> int:
        """Submit what some notifications tell of; returns how many there were."""
        texts = self._notifications.take(_MOST, _WAIT_S)
        self._submit([one for text in texts for one in self._told_of(text)])
        self._notifications.done(texts)
        return len(texts)

    def sweep(self) -> list[str]:
        """Submit the objects of which the ledger knows no job; returns the folders that cannot be listed. What ended,
        failed or not, is left as it is."""
        left_out, count = LeftOut(), 0
        objects = self._store.uploaded(self._wanted.bucket, self._wanted.prefix, left_out)
        while some := list(islice(objects, _MOST)):
            requests = [request for one in some if (request := self._request(one))]
            states = self._ledger.states([request.job_id for request in requests]) if requests else []
            unknown = [request for request, state in zip(requests, states, strict=True) if state is None]
            self._send(unknown)
            count += len(unknown)
        if count:
            logger.info("%d objects of %s were submitted by a sweep", count, self._wanted.bucket)
        self._report(left_out)
        return left_out.folders

    def _report(self, left_out: LeftOut) -> None:
        bucket = self._wanted.bucket
        if left_out.empty != self._empty:
            logger.info("%d objects of %s are empty (folders' entries, or files): no job", left_out.empty, bucket)
            self._empty = left_out.empty
        for folder in left_out.folders:
            reason = self._cannot_be_listed([folder])
            logger.warning("%s", reason)
            self._dead.add("ingest", reason, folder.encode(), once=f"ingest:{bucket}/{folder}//")

    def _cannot_be_listed(self, folders: Sequence[str]) -> str:
        """As a message for people, of one or of several."""
        named = ", ".join(f"s3://{self._wanted.bucket}/{folder}" for folder in folders[:_NAMED])
        more = f" and {len(folders) - _NAMED} more" if len(folders) > _NAMED else ""
        return (
            f"Not swept, with all below: {named}{more}. A key there has an empty part, like `a//b`: rename that object."
        )

    def _told_of(self, text: str) -> list[Uploaded]:
        try:
            told = uploads(text)
        except ValueError as error:
            self._dead.add("ingest", f"no notification of S3: {error}", text.encode(errors="surrogateescape"))
            return []
        wanted = self._wanted
        ours = [one for one in told if one.bucket == wanted.bucket and one.key.startswith(wanted.prefix)]
        return [one for one in ours if not one.key.endswith("/")]  # a folder's own entry

    def _submit(self, told: Sequence[Uploaded]) -> None:
        self._send([request for one in told if (request := self._request(one))])

    def _send(self, requests: Sequence[ActivateRequest | QueryRequest]) -> None:
        if not requests:
            return
        for request, new in zip(requests, self._ledger.submit(requests, client=self._client), strict=True):
            if new:
                queue = share_queue(request.queue, self._client)
                self._sender.send(request.job_id, request.task, queue, request.message())

    def _request(self, one: Uploaded) -> ActivateRequest | QueryRequest | None:
        """The job of an object; None for one that cannot be named."""
        try:
            source = validated(S3Object, {"bucket": one.bucket, "key": one.key, "etag": one.etag})
            if self._wanted.query:
                return validated(QueryRequest, {"collection": self._wanted.collection, "source": source})
            fields = {"asset_id": one.key, "name": one.key.rpartition("/")[2], "replace": True}
            return validated(ActivateRequest, {"collection": self._wanted.collection, "source": source, **fields})
        except BadInput as error:
            self._dead.add("ingest", error.message, one.key.encode(), once=f"ingest:{one.bucket}/{one.key}")
            return None
