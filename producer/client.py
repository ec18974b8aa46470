"""The producer's client: `Producer` submits, `Job` waits."""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from producer.images import object_named, read_image
from producer.vectors import packed
from tasks.app import Sender, create_app, submit
from tasks.assets.protected_digests import ProtectedDigests
from tasks.documents import read_result
from tasks.errors import (
    AiiError,
    DeadlineExceeded,
    InvalidRequest,
    JobMissing,
    ObjectMissing,
    StorageUnavailable,
    error_of,
)
from tasks.files import write_atomically
from tasks.ledger.ledger import Ledger
from tasks.ledger.states import JobState
from tasks.ledger.waiting import Closing, closings
from tasks.messages import (
    ActivateRequest,
    ActivationOptions,
    ExplainRequest,
    FeedbackRequest,
    LookupRequest,
    Opinion,
    QueryOptions,
    QueryRequest,
    Request,
    S3Object,
    Source,
    validated,
)
from tasks.names import check_asset_id, check_collection, result_key, sha256_hex
from tasks.results import ActivationResult, FailureResult, GoodResult, ImageResult, QueryResult, Result
from tasks.settings import Settings, load_settings
from tasks.storage import Bucket, ObjectStore


@dataclass(frozen=True)
class Job:
    """One accepted request. `request.asset_id` of an activation names the asset."""

    job_id: str
    request: Request
    new: bool  # False: the same request had been accepted before, and this is that job
    _producer: Producer

    def state(self) -> JobState:
        """Raises JobMissing when the ledger has forgotten the job."""
        return self._producer.ledger.get(self.job_id).state

    def wait(self, timeout_s: float | None = None) -> GoodResult:
        """Wait for the end of the job and give back its result document.

        Raises:
            DeadlineExceeded: the job was still open after `timeout_s` seconds; it goes on.
            AiiError: the job failed; the class, and `code`, say why.
        """
        for _, result in self._producer.wait_all([self], timeout_s):
            if isinstance(result, FailureResult):
                raise error_of(result.code, result.message)
            return result
        raise DeadlineExceeded(f"Job {self.job_id} is not done after {timeout_s} s; it goes on: wait again later.")


class Producer:
    """Submits images. Thread-safe: one for a process is enough."""

    def __init__(self, settings: Settings, store: ObjectStore, ledger: Ledger, sender: Sender) -> None:
        self.ledger = ledger
        self._settings = settings
        self._store = store
        self._sender = sender
        self._digests = ProtectedDigests(store)

    @classmethod
    def connect(cls, settings: Settings | None = None) -> Producer:
        """Build a producer from the environment (AII_REDIS_URL, AII_S3_ENDPOINT, …) or from given settings."""
        settings = settings or load_settings()
        return cls(
            settings, ObjectStore.connect(settings), Ledger.connect(settings), Sender(create_app(settings), settings)
        )

    def close(self) -> None:
        """Close the connections to the ledger, also at the end of a `with` block. The others belong to the process."""
        self.ledger.disconnect()

    def __enter__(self) -> Producer:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def check(self) -> None:
        """Raise RedisUnavailable or StorageUnavailable unless both services answer; takes at most ten seconds."""
        self.ledger.check()
        self._store.check()

    def activate(  # noqa: PLR0913  # keyword-only, all with defaults: a call names them
        self,
        image: bytes | str | Path,
        *,
        asset_id: str | None = None,
        collection: str | None = None,
        options: ActivationOptions | None = None,
        meta: Mapping[str, str] | None = None,
        again: bool = False,
        name: str | None = None,
        replace: bool = False,
        idempotency_key: str = "",
    ) -> Job:
        """Submit an image to be protected and registered.

        Args:
            image: the bytes of a JPEG, PNG, WebP, TIFF, GIF, AVIF or HEIC file, its path, or ``s3://BUCKET/KEY``, which
                is not downloaded here; the workers' AII_SOURCE_BUCKETS names the buckets.
            asset_id: the asset's name; default: the sha256 of the image's bytes. Activating an asset once more, with
                other options perhaps, supersedes the earlier job.
            collection: the collection to register it in; default: AII_DEFAULT_COLLECTION.
            meta: metadata of the asset, by which queries can be filtered.
            again: make a new job even if the same request was made before and its result is the current one.
            name: the file's own name, shown with every match; default: that of the path.
            replace: let this image take the place of another one under the same asset id. Without it, such a job fails
                as AssetConflict.
            idempotency_key: names the job in place of what is asked for: the same key is the same job.

        Raises:
            BadInput: the image or a name cannot be used; nothing was submitted.
            AlreadyProtected: the image is itself the protected file of an asset; likewise.
            Unavailable: Redis or S3 does not answer.
        """
        if asset_id is not None:
            check_asset_id(asset_id)
        collection = check_collection(collection or self._settings.default_collection)
        source, seen = self._upload(Bucket.ORIGINALS, image)
        own_name = "" if isinstance(image, bytes) else Path(image).name
        wanted = {
            "collection": collection,
            "source": source,
            "asset_id": asset_id or (source.sha256 if isinstance(source, Source) else None),
            "options": options or ActivationOptions(),
            "meta": dict(meta or {}),
            "nonce": uuid.uuid4().hex if again else "",
            "name": own_name if name is None else name,
            "replace": replace,
            "idempotency_key": idempotency_key,
        }
        request = validated(ActivateRequest, wanted)
        return self._submit(request, self._earlier_id(request) if seen else None)

    def query(
        self,
        image: bytes | str | Path,
        *,
        collection: str | None = None,
        options: QueryOptions | None = None,
        idempotency_key: str = "",
    ) -> Job:
        """Submit an image, to find the asset that it is a copy of; arguments and errors as in :meth:`activate`."""
        name = check_collection(collection or self._settings.default_collection)
        source, _ = self._upload(Bucket.QUERIES, image)
        wanted = {
            "collection": name,
            "source": source,
            "nonce": "" if idempotency_key else uuid.uuid4().hex,
            "options": options or QueryOptions(),
            "idempotency_key": idempotency_key,
        }
        return self._submit(validated(QueryRequest, wanted))

    def query_vectors(
        self,
        vectors: Any,
        *,
        collection: str | None = None,
        options: QueryOptions | None = None,
        extractor: str | None = None,
    ) -> Job:
        """Submit feature vectors that were extracted elsewhere, to find the nearest assets of each. Its result is a
        LookupResult.

        Args:
            vectors: an array (N, D) of numbers, or a list of lists: at most 1,000, of unit length, as the collection's
                extractor gives them.
            extractor: the sha256 of the extractor that they are of; refused where it is not the collection's.

        Raises:
            InvalidRequest: the vectors or an option cannot be used.
            Unavailable: Redis or S3 does not answer.
        """
        rows = packed(vectors)
        digest, _ = self._stored(Bucket.QUERIES, rows.data, "application/octet-stream")
        wanted = {
            "collection": check_collection(collection or self._settings.default_collection),
            "source": Source(sha256=digest, size=len(rows.data)),
            "vectors": rows.count,
            "dimension": rows.dimension,
            "extractor": extractor,
            "nonce": uuid.uuid4().hex,
            "options": options or QueryOptions(),
        }
        return self._submit(validated(LookupRequest, wanted))

    def explain(
        self,
        image: bytes | str | Path,
        asset_id: str,
        *,
        collection: str | None = None,
        options: QueryOptions | None = None,
    ) -> Job:
        """Submit an image, to learn why a query of it finds an asset, or does not; arguments as in :meth:`query`,
        errors as in :meth:`activate`."""
        name = check_collection(collection or self._settings.default_collection)
        source, _ = self._upload(Bucket.QUERIES, image)
        wanted = {
            "collection": name,
            "asset_id": check_asset_id(asset_id),
            "source": source,
            "nonce": uuid.uuid4().hex,
            "options": options or QueryOptions(),
        }
        return self._submit(validated(ExplainRequest, wanted))

    def feedback(self, answer: QueryResult, opinion: Opinion, asset_id: str | None = None) -> Job:
        """Say that the image of a query is a copy of an asset, by default its first match, or that it is not: that
        image's queries do not report a rejected asset again, until it is confirmed.

        Raises:
            BadInput: the answer has no match, or the id cannot be used.
            Unavailable: as in :meth:`activate`.
        """
        if asset_id is None and not answer.matches:
            raise InvalidRequest(f"The query {answer.job_id} found no asset: name the one that this is about.")
        wanted = {
            "collection": answer.collection,
            "source_sha256": answer.source_sha256,
            "asset_id": asset_id or answer.matches[0].asset_id,
            "opinion": opinion,
            "query_job": answer.job_id,
            "nonce": uuid.uuid4().hex,
        }
        return self._submit(validated(FeedbackRequest, wanted))

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
            yield closing.job_id, self._ended(closing)

    def result(self, job_id: str) -> Result:
        """The result document of a job that has ended; raises ObjectMissing before."""
        try:
            commit = max(
                1, self.ledger.get(job_id).commits
            )  # spares a listing, for which a producer may lack the right
        except JobMissing:
            commit = None
        return read_result(self._store, job_id, commit)

    def _ended(self, closing: Closing) -> ImageResult:
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

    def protected_image(self, result: ActivationResult) -> bytes:
        """The bytes of the protected image, checked against the result document; raises DigestMismatch."""
        limit = 4 * self._settings.max_image_bytes  # a PNG of a photograph can grow when it is encoded again
        return self._store.get_verified(Bucket.PROTECTED, result.protected_key, result.protected_sha256, limit)

    def download_protected(self, result: ActivationResult, path: str | Path) -> None:
        """Write the protected image to a file, which appears whole or not at all."""
        write_atomically(Path(path), self.protected_image(result))

    def _upload(self, bucket: Bucket, image: bytes | str | Path) -> tuple[Source | S3Object, bool]:
        """Store an image under its digest, unless it is there (the second value); one in S3 stays where it is."""
        if isinstance(image, str) and (named := object_named(image)):
            return named, False
        data, content_type = read_image(image, self._settings.max_image_bytes)
        if bucket is Bucket.ORIGINALS:
            self._digests.refuse(sha256_hex(data))
        digest, seen = self._stored(bucket, data, content_type)
        return Source(sha256=digest, size=len(data)), seen

    def _stored(self, bucket: Bucket, data: bytes, content_type: str) -> tuple[str, bool]:
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

    def _submit(self, request: Request, job_id: str | None = None) -> Job:
        new = submit(self.ledger, self._sender, request, job_id)
        return Job(job_id or request.job_id, request, new, self)
