"""What a producer does for every kind of job: upload, submit, wait, read results."""

from __future__ import annotations

import copy
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Self, cast

from producer.idempotency import refuse_another, refuse_another_than_documented
from producer.images import object_named, read_image
from producer.job import JOBS, Job
from producer.requests import Image, request_of
from tasks.app import Sender, create_app, submit
from tasks.assets.protected_digests import ProtectedDigests
from tasks.documents import read_result
from tasks.errors import AiiError, JobMissing, ObjectMissing, StorageUnavailable
from tasks.files import write_atomically
from tasks.ledger.ledger import Ledger
from tasks.ledger.operations import Operations
from tasks.ledger.states import JobState
from tasks.ledger.waiting import Closing, closings
from tasks.messages import ActivateRequest, Request, S3Object, Source
from tasks.names import JOB_ID_PATTERN, result_key, sha256_hex
from tasks.results import ActivationResult, FailureResult, ImageResult, Result
from tasks.settings import Settings, load_settings
from tasks.storage import Bucket, ObjectStore

__all__ = ["ProducerCore"]


class ProducerCore:
    """The connections, and what is the same for every kind of job. Thread-safe."""

    def __init__(
        self, settings: Settings, store: ObjectStore, ledger: Ledger, sender: Sender, *, client: str | None = None
    ) -> None:
        self.ledger = ledger
        self.client = settings.client if client is None else client
        self._settings = settings
        self._store = store
        self._sender = sender
        self._digests = ProtectedDigests(store)

    @classmethod
    def connect(cls, settings: Settings | None = None, *, client: str | None = None) -> Self:
        """Build a producer from the environment (AII_REDIS_URL, AII_S3_ENDPOINT, …) or from given settings.

        Args:
            client: for whom it submits; jobs of different clients take turns. Default: AII_CLIENT.
        """
        settings = settings or load_settings()
        sender = Sender(create_app(settings), settings)
        return cls(settings, ObjectStore.connect(settings), Ledger.connect(settings), sender, client=client)

    def on_behalf_of(self, client: str) -> Self:
        """The same producer, over the same connections, for another client."""
        other = copy.copy(self)
        other.client = client
        return other

    def close(self) -> None:
        """Close the connections to the ledger, also at the end of a `with` block. The others belong to the process."""
        self.ledger.disconnect()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def check(self) -> None:
        """Raise RedisUnavailable or StorageUnavailable unless both services answer; takes at most ten seconds."""
        self.ledger.check()
        self._store.check()

    def job(self, job_id: str) -> Job:
        """The job that has this id, as its own class (:class:`ActivationJob`, for example), submitted by any program.

        Raises:
            JobMissing: neither the ledger nor the store of results knows it, or it is of another kind.
        """
        stored = self.ledger.stored(job_id)
        task = stored.task if stored else self._task_of_document(job_id)
        kind = JOBS.get(task)
        if kind is None:
            raise JobMissing(f"No job {job_id!r} of a producer is known.")
        return kind.job(job_id, False, request_of(kind.request, stored), self)

    def cancel(self, job_id: str) -> JobState:
        """Cancel an open job: it ends as failed, with the code `cancelled`. Returns the state it was in.

        Raises:
            JobMissing: there is no such job.
            Conflict: it has ended already, or is just being published.
        """
        return Operations.connect(self._settings).cancel(job_id, self._store)

    def wait_all(self, jobs: Iterable[Job], timeout_s: float | None = None) -> Iterator[tuple[Job, ImageResult]]:
        """Yield jobs with their result documents as they end, in any order; a job that is not yielded is still open.

        Raises:
            JobMissing: the ledger forgot a job before it ended (its Redis was emptied).
        """
        by_id = {job.job_id: job for job in jobs}
        for job_id, result in self.wait_for(list(by_id), timeout_s):
            yield by_id[job_id], result

    def wait_for(self, job_ids: Sequence[str], timeout_s: float | None = None) -> Iterator[tuple[str, ImageResult]]:
        """The same for jobs that are known by their ids."""
        for closing in closings(self.ledger, job_ids, timeout_s):
            yield closing.job_id, self.ended(closing)

    def result(self, job_id: str) -> Result:
        """The result document of a job that has ended; raises ObjectMissing before."""
        try:
            commit = max(
                1, self.ledger.get(job_id).commits
            )  # spares a listing, for which a producer may lack the right
        except JobMissing:
            commit = None
        return read_result(self._store, job_id, commit)

    def ended(self, closing: Closing) -> ImageResult:
        """How a job ended. Version 0.1.0 kept a good document when a later run failed; the ledger knows the failure."""
        job_id, number = closing.job_id, closing.document
        if closing.state is None:
            return self._kept(job_id, lost=closing.lost)
        result = cast(ImageResult, read_result(self._store, job_id, number or max(1, self.ledger.get(job_id).commits)))
        if closing.state is not JobState.FAILED or isinstance(result, FailureResult):
            return result
        record = self.ledger.get(job_id)
        return FailureResult(
            task=result.task,
            job_id=job_id,
            code=record.error_code or AiiError.code,
            message=record.error_message or "",
            provenance=result.provenance,
        )

    def _kept(self, job_id: str, *, lost: bool) -> ImageResult:
        """The document of a job that ended so long ago that the ledger has forgotten it (AII_KEEP_DONE_S)."""
        missing = JobMissing(f"The ledger knows no job {job_id} any more: submit it again.")
        if lost:  # it was open: a document in S3 is of an earlier end
            raise missing
        try:
            try:
                return cast(ImageResult, read_result(self._store, job_id))
            except StorageUnavailable:  # a producer may lack the right to list
                return cast(ImageResult, read_result(self._store, job_id, 1))
        except ObjectMissing:
            raise missing from None

    def _task_of_document(self, job_id: str) -> str:
        try:
            return read_result(self._store, job_id).task if re.fullmatch(JOB_ID_PATTERN, job_id) else ""
        except ObjectMissing:
            return ""

    def protected_image(self, result: ActivationResult) -> bytes:
        """The bytes of the protected image, checked against the result document; raises DigestMismatch."""
        limit = 4 * self._settings.max_image_bytes  # a PNG of a photograph can grow when it is encoded again
        return self._store.get_verified(Bucket.PROTECTED, result.protected_key, result.protected_sha256, limit)

    def download_protected(self, result: ActivationResult, path: str | os.PathLike[str]) -> None:
        """Write the protected image to a file, which appears whole or not at all."""
        write_atomically(Path(path), self.protected_image(result))

    def _upload(self, bucket: Bucket, image: Image) -> tuple[Source | S3Object, bool]:
        """Store an image under its digest, unless it is there (the second value); one in S3 stays where it is."""
        if isinstance(image, str):
            image = object_named(image) or image
        if isinstance(image, S3Object):
            return image, False
        if isinstance(image, Source):
            if bucket is Bucket.ORIGINALS:
                self._digests.refuse(image.sha256)
            return image, False
        data, content_type = read_image(image, self._settings.max_image_bytes)
        if bucket is Bucket.ORIGINALS:
            self._digests.refuse(sha256_hex(data))
        digest, seen = self._stored(bucket, data, content_type)
        return Source(sha256=digest, size=len(data)), seen

    def _stored(self, bucket: Bucket, data: bytes, content_type: str) -> tuple[str, bool]:
        """Store bytes under their digest, unless they are there (the second value)."""
        digest = sha256_hex(data)
        seen = self._store.exists(bucket, digest)
        if not seen:
            self._store.put(bucket, digest, data, content_type)
        return digest, seen

    def _earlier_id(self, request: ActivateRequest) -> str | None:
        """The id that version 0.1.0 gave the same request, if it was made then. Asked for only where the image had
        been uploaded before."""
        job_id = request.version_1_id
        if job_id is None:
            return None
        known = self.ledger.states([job_id]) != [None] or self._store.exists(Bucket.RESULTS, result_key(job_id))
        return job_id if known else None

    def _submitted(self, request: Request, job_id: str) -> bool:
        """Accept a request; False when it had been accepted before. Raises Conflict for a key of another request."""
        keyed = bool(request.idempotency_key)
        if keyed and self.ledger.states([job_id]) == [None]:
            refuse_another_than_documented(request, job_id, self._store)
        new = submit(self.ledger, self._sender, request, job_id, self.client)
        if keyed and not new:
            refuse_another(request, job_id, self.ledger)
        return new
