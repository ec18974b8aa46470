"""The producer's client: a method for each thing that can be asked for, for one image or any number of them."""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final, overload

from producer.core import ProducerCore
from producer.job import ActivationJob, CardJob, ExplanationJob, FeedbackJob, LookupJob, QueryJob
from producer.many import DEFAULT_WINDOW, Finished, Submitted, run_many, submit_many
from producer.requests import Activation, Image, Query
from producer.vectors import packed
from tasks.errors import InvalidRequest
from tasks.messages import (
    ActivationOptions,
    CardRequest,
    ExplainRequest,
    FeedbackRequest,
    LookupRequest,
    Opinion,
    QueryOptions,
    Source,
    validated,
)
from tasks.names import check_asset_id, check_collection
from tasks.results import Match, QueryResult
from tasks.storage import Bucket

__all__ = ["Producer"]

_NAMED: Final = 5  # of the matches of an answer, in a message


class Producer(ProducerCore):
    """Submits images. Thread-safe: one for a process is enough."""

    def activate(  # noqa: PLR0913  # keyword-only, all with defaults: a call names them
        self,
        image: Image,
        *,
        asset_id: str | None = None,
        collection: str | None = None,
        options: ActivationOptions | Mapping[str, Any] | None = None,
        meta: Mapping[str, str] | None = None,
        again: bool = False,
        name: str | None = None,
        replace: bool = False,
        idempotency_key: str = "",
    ) -> ActivationJob:
        """Submit an image to be protected and registered.

        Args:
            image: the bytes of a JPEG, PNG, WebP, TIFF, GIF, AVIF or HEIC file, its path, the file opened for reading
                bytes, or ``s3://BUCKET/KEY``, which is not downloaded here; AII_SOURCE_BUCKETS of the workers names the
                buckets that may be read.
            asset_id: the asset's name; default: the sha256 of the image's bytes. Activating an asset once more, with
                other options perhaps, supersedes the earlier job.
            collection: the collection to register it in; default: AII_DEFAULT_COLLECTION.
            options: as ActivationOptions, or as a mapping of its fields.
            meta: metadata of the asset, by which queries can be filtered.
            again: make a new job even if the same request was made before and its result is the current one.
            name: the file's own name, shown with every match; default: that of the path.
            replace: let this image take the place of another one under the same asset id. Without it, such a job fails
                with the code `conflict`.
            idempotency_key: names the job in place of what is asked for: the same key is the same job.

        Raises:
            BadInput: the image, a name or an option cannot be used; nothing was submitted.
            AlreadyProtected: the image is itself the protected file of an asset; likewise.
            Conflict: the key named another request before.
            Unavailable: Redis or S3 does not answer.
        """
        return self.submit(
            Activation(
                image, asset_id=asset_id, collection=collection, options=options, meta=meta, again=again, name=name,
                replace=replace, idempotency_key=idempotency_key,
            )
        )  # fmt: skip

    def query(
        self,
        image: Image,
        *,
        collection: str | None = None,
        options: QueryOptions | Mapping[str, Any] | None = None,
        idempotency_key: str = "",
    ) -> QueryJob:
        """Submit an image, to find the asset that it is a copy of; arguments and errors as in :meth:`activate`."""
        return self.submit(Query(image, collection=collection, options=options, idempotency_key=idempotency_key))

    @overload
    def submit(self, wanted: Activation) -> ActivationJob: ...
    @overload
    def submit(self, wanted: Query) -> QueryJob: ...
    @overload
    def submit(self, wanted: Activation | Query) -> ActivationJob | QueryJob: ...
    def submit(self, wanted: Activation | Query) -> ActivationJob | QueryJob:
        """The same for an image together with what is to be done about it; errors as in :meth:`activate`."""
        fields = wanted.fields(self._settings.default_collection)
        if isinstance(wanted, Query):
            query = wanted.message(fields, self._upload(Bucket.QUERIES, wanted.image)[0])
            return QueryJob(query.job_id, self._submitted(query, query.job_id), query, self)
        with self.ledger.batch_delay.job():
            source, seen = self._upload(Bucket.ORIGINALS, wanted.image)
            activation = wanted.message(fields, source)
            job_id = (self._earlier_id(activation) if seen else None) or activation.job_id
            return ActivationJob(job_id, self._submitted(activation, job_id), activation, self)

    def submit_many(
        self, wanted: Iterable[Activation | Query | Image], *, window: int = DEFAULT_WINDOW
    ) -> Iterator[Submitted]:
        """Submit any number of images, several at a time; an image alone is an :class:`Activation` of it.

        Yields each in its order with its job, or with the error that refused it. `wanted` is read at most `window`
        items ahead of what was yielded, so that a million images take no more memory than a few.
        """
        return submit_many(self, wanted, window)

    def run_many(
        self, wanted: Iterable[Activation | Query | Image], *, window: int = DEFAULT_WINDOW
    ) -> Iterator[Finished]:
        """The same to the end of the jobs: yields each as it ends, in any order, with its result or its error. At most
        `window` jobs are open at a time."""
        return run_many(self, wanted, window)

    def query_vectors(
        self,
        vectors: Any,
        *,
        collection: str | None = None,
        options: QueryOptions | Mapping[str, Any] | None = None,
        extractor: str | None = None,
    ) -> LookupJob:
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
            "options": options or {},
        }
        request = validated(LookupRequest, wanted)
        return LookupJob(request.job_id, self._submitted(request, request.job_id), request, self)

    def explain(
        self,
        image: Image,
        asset_id: str,
        *,
        collection: str | None = None,
        options: QueryOptions | Mapping[str, Any] | None = None,
    ) -> ExplanationJob:
        """Submit an image, to learn why a query of it finds an asset, or does not; arguments as in :meth:`query`,
        errors as in :meth:`activate`."""
        wanted = self._of_asset(Bucket.QUERIES, image, asset_id, collection)
        request = validated(ExplainRequest, wanted | {"options": options or {}})
        return ExplanationJob(request.job_id, self._submitted(request, request.job_id), request, self)

    def card(
        self,
        image: Image,
        asset_id: str,
        *,
        collection: str | None = None,
        copies: int = 4,
        options: QueryOptions | Mapping[str, Any] | None = None,
    ) -> CardJob:
        """Submit the image that an asset was activated from, to learn how well edited copies of it are found, before
        and after its activation; other arguments as in :meth:`query`, errors as in :meth:`activate`.

        Args:
            copies: how many are made by each edit, 1 to 16.
        """
        wanted = self._of_asset(Bucket.ORIGINALS, image, asset_id, collection)
        request = validated(CardRequest, wanted | {"copies": copies, "options": options or {}})
        return CardJob(request.job_id, self._submitted(request, request.job_id), request, self)

    def feedback(self, answer: QueryResult, opinion: Opinion, asset_id: str | None = None) -> FeedbackJob:
        """Say that the image of a query is a copy of an asset, by default its first match, or that it is not: that
        image's queries do not report a rejected asset again, until it is confirmed.

        Raises:
            BadInput: the answer does not have that match, or none.
            Unavailable: as in :meth:`activate`.
        """
        match = _match_of(answer, asset_id)
        wanted = {
            "collection": answer.collection,
            "source_sha256": answer.source_sha256,
            "asset_id": match.asset_id,
            "opinion": opinion,
            "query_job": answer.job_id,
            "nonce": uuid.uuid4().hex,
        }
        request = validated(FeedbackRequest, wanted)
        return FeedbackJob(request.job_id, self._submitted(request, request.job_id), request, self)

    def _of_asset(self, bucket: Bucket, image: Image, asset_id: str, collection: str | None) -> dict[str, Any]:
        """What requests about an image and an asset have in common; the image is uploaded."""
        name = check_collection(collection or self._settings.default_collection)
        source, _ = self._upload(bucket, image)
        return {"collection": name, "asset_id": check_asset_id(asset_id), "source": source, "nonce": uuid.uuid4().hex}


def _match_of(answer: QueryResult, asset_id: str | None) -> Match:
    """The match that feedback is about, by default the first; raises InvalidRequest, InvalidAssetId."""
    if not answer.matches:
        raise InvalidRequest(f"The query {answer.job_id} found no asset: there is nothing to confirm or reject.")
    wanted = answer.matches[0].asset_id if asset_id is None else check_asset_id(asset_id)
    for match in answer.matches:
        if match.asset_id == wanted:
            return match
    found = [match.asset_id for match in answer.matches]
    more = f" and {len(found) - _NAMED} more" if len(found) > _NAMED else ""
    raise InvalidRequest(
        f"The query {answer.job_id} did not find {wanted!r}, but {', '.join(found[:_NAMED])}{more}: name one of "
        "these, or a query that found it."
    )
