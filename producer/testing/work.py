"""What a worker would answer, as far as that can be told without looking at pixels."""

from __future__ import annotations

import base64
import datetime
from typing import Final

from producer.testing.services import MemoryStore
from tasks.errors import AiiError, AssetConflict, InvalidRequest, UnsupportedFormat
from tasks.formats import format_of
from tasks.messages import ActivateRequest, QueryRequest, Request, S3Object, Source
from tasks.names import protected_key, sha256_hex
from tasks.results import (
    ActivationResult,
    Assessment,
    ExtractorIdentity,
    FailureResult,
    Match,
    Provenance,
    Quality,
    QueryResult,
    Result,
    Verification,
)
from tasks.storage import Bucket

__all__ = ["Work"]

_EXTRACTOR: Final = ExtractorIdentity(name="fake", sha256="0" * 64, dimension=8)
_UNCHANGED: Final = Quality(psnr_db=None, ssim=1.0, linf=0, delta_e=0.0)
_VERIFIED: Final = Verification(
    verified=True, on_code=True, attempts=1, steps=10, distance_before=1.0, distance_after=0.0,
    loss_before=1.0, loss_after=0.0,
)  # fmt: skip


class Work:
    """Activations and queries over what is activated here."""

    def __init__(self, store: MemoryStore, max_bytes: int) -> None:
        self._store = store
        self._max_bytes = max_bytes
        self._assets: dict[tuple[str, str], ActivationResult] = {}  # by collection and asset id

    def done(self, job_id: str, request: Request, error: AiiError | None) -> Result:
        """The document of a job; of one with an `error`, of its failure."""
        try:
            if error:
                raise error
            if isinstance(request, ActivateRequest):
                return self._activated(job_id, request)
            if isinstance(request, QueryRequest):
                return self._answered(job_id, request)
            raise InvalidRequest("The producer for tests does activations and queries only.")
        except AiiError as failure:
            return FailureResult(
                task=request.task, job_id=job_id, code=failure.code, message=failure.message, provenance=_provenance()
            )

    def _image(self, bucket: Bucket, source: Source | S3Object) -> bytes:
        if isinstance(source, Source):
            data = self._store.get_verified(bucket, source.sha256, source.sha256, self._max_bytes)
        else:
            data = self._store.get_source(source.bucket, source.key, self._max_bytes)
        if format_of(data) is None:
            raise UnsupportedFormat("The bytes are no image of a format that is read.")
        return data

    def _activated(self, job_id: str, request: ActivateRequest) -> ActivationResult:
        data = self._image(Bucket.ORIGINALS, request.source)
        digest, kind = sha256_hex(data), format_of(data)
        asset_id = request.asset_of(digest)
        earlier = self._assets.get((request.collection, asset_id))
        if earlier and earlier.source_sha256 != digest and not request.replace:
            raise AssetConflict(f"The asset id {asset_id!r} belongs to another image: use another one, or replace it.")
        key = protected_key(request.collection, asset_id, digest, kind.published[1:] if kind else "png")
        self._store.put(Bucket.PROTECTED, key, data, kind.content_type if kind else "")
        result = ActivationResult(
            status="activated", job_id=job_id, collection=request.collection, generation=1, asset_id=asset_id,
            name=request.name, source_sha256=digest, protected_key=key, protected_sha256=digest, width=0, height=0,
            extractor=_EXTRACTOR, code=base64.b64encode(bytes.fromhex(digest[:16])).decode(), journal_entry="1-1",
            meta=request.meta, options=request.options, quality=_UNCHANGED, verification=_VERIFIED,
            provenance=_provenance(),
        )  # fmt: skip
        self._assets[request.collection, asset_id] = result
        return result

    def _answered(self, job_id: str, request: QueryRequest) -> QueryResult:
        digest = sha256_hex(self._image(Bucket.QUERIES, request.source))
        wanted = request.options.where.items()
        matches = [
            Match(asset_id=asset.asset_id, name=asset.name, distance=0.0, meta=asset.meta, score=0.0, probability=1.0)
            for (collection, _), asset in self._assets.items()
            if collection == request.collection and asset.protected_sha256 == digest and wanted <= asset.meta.items()
        ]
        return QueryResult(
            job_id=job_id, collection=request.collection, generation=1, journal_entry="1-1", source_sha256=digest,
            extractor=_EXTRACTOR, matches=matches[: request.options.top_k], threshold=0.5,
            verdict="match" if matches else "no_match",
            assessment=Assessment(reason="The bytes are compared.", assets=len(self._assets)),
            options=request.options, provenance=_provenance(),
        )  # fmt: skip


def _provenance() -> Provenance:
    now = datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds")
    return Provenance(worker="fake", device="none", versions={}, timings_ms={}, finished_at=now)
