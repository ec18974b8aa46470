"""What is done for each kind of job: the stages of DESIGN's "way of an image", in the handler's thread.

Network, decoding, composing and encoding happen here, one thread an image, while the device computes for others.
"""

from __future__ import annotations

from typing import Literal

from tasks.messages import ActivateRequest, QueryRequest
from tasks.names import protected_key, sha256_hex
from tasks.results import ActivationResult, ExtractorIdentity, QueryResult, Verification
from tasks.storage import Bucket, ObjectStore
from workers.activation.quality import quality
from workers.delivery.job_runner import Running
from workers.device.device import Device
from workers.handlers.pixel_budget import PixelBudget
from workers.handlers.protect import Protector
from workers.images import Limits, decode
from workers.images.tensors import to_input
from workers.index.collection.journal import decode_code, encode_code
from workers.index.collection.open_collections import OpenCollections


class Handlers:
    """The work behind the tasks; thread-safe."""

    def __init__(
        self,
        store: ObjectStore,
        collections: OpenCollections,
        device: Device,
        extractor: ExtractorIdentity,
        input_size: int,
        limits: Limits,
        budget: PixelBudget,
    ) -> None:
        self._store = store
        self._collections = collections
        self._device = device
        self._extractor = extractor
        self._input_size = input_size
        self._limits = limits
        self._budget = budget
        self._protector = Protector(device, input_size, limits)

    # ── activate ─────────────────────────────────────────────────────────────────────────────────────────────────────

    def activate(self, request: ActivateRequest, running: Running) -> ActivationResult:
        """Protect one image, register its code, publish the file.

        Raises:
            AiiError: one of the tree, for an image or a request that cannot be used.
        """
        collection = self._collections.get(request.collection)
        data = self._fetch(Bucket.ORIGINALS, request.source.sha256, running)
        with running.watch.stage("decode"):
            original = decode(data, self._limits)
        with self._budget.hold(original.pixels.shape[0] * original.pixels.shape[1]):
            found, protected = self._protector.protect(
                original, request.options, collection.codec, running.watch, running.wanted
            )
            with running.watch.stage("quality"):
                measured = quality(original.pixels, protected.decoded.pixels)
        key = protected_key(request.collection, request.asset_id, protected.encoded.extension)
        running.begin_publishing()
        with running.watch.stage("upload"):
            self._store.put(Bucket.PROTECTED, key, protected.encoded.data, protected.encoded.content_type)
        with running.watch.stage("journal"):
            entry = collection.register(request.asset_id, found.code, request.meta)
        return ActivationResult(
            status="activated" if protected.verified else "passive",
            job_id=running.job_id,
            collection=request.collection,
            generation=collection.manifest.generation,
            asset_id=request.asset_id,
            source_sha256=request.source.sha256,
            protected_key=key,
            protected_sha256=sha256_hex(protected.encoded.data),
            width=original.pixels.shape[1],
            height=original.pixels.shape[0],
            extractor=self._extractor,
            codec=collection.manifest.codec,
            code=encode_code(found.code),
            journal_entry=entry,
            meta=request.meta,
            options=request.options,
            quality=measured,
            verification=Verification(
                verified=protected.verified,
                on_code=protected.after.on_code,
                attempts=protected.tries,
                steps=protected.steps,
                distance_before=protected.before.distance,
                distance_after=protected.after.distance,
                loss_before=protected.before.loss,
                loss_after=protected.after.loss,
            ),
            metadata_lost=list(protected.encoded.lost),
            provenance=running.provenance(),
        )

    def restore_activation(self, result: ActivationResult) -> bool:
        """Register an asset again from its result document, unless it was removed since; False when another extractor,
        or another collection of that name, made that."""
        collection = self._collections.get(result.collection)
        if result.extractor != self._extractor or result.codec not in (collection.manifest.codec, None):
            return False
        if not collection.removed_since(result.asset_id, result.journal_entry):
            collection.register(result.asset_id, decode_code(result.code), result.meta)
        return True

    # ── query ────────────────────────────────────────────────────────────────────────────────────────────────────────

    def query(self, request: QueryRequest, running: Running) -> QueryResult:
        """Find the assets nearest to one image.

        Raises:
            AiiError: one of the tree, for an image or a request that cannot be used.
        """
        collection = self._collections.get(request.collection)
        data = self._fetch(Bucket.QUERIES, request.source.sha256, running)
        with running.watch.stage("decode"):
            image = to_input(decode(data, self._limits).pixels, self._input_size)
        with running.watch.stage("extract"):
            feature = self._device.extract(image)
        options = request.options
        with running.watch.stage("search"):
            answer = collection.search(feature, options.top_k, options.nprobe, options.where)
        return QueryResult(
            job_id=running.job_id,
            collection=request.collection,
            generation=answer.generation,
            journal_entry=answer.journal_entry,
            source_sha256=request.source.sha256,
            extractor=self._extractor,
            matches=answer.matches,
            threshold=answer.threshold,
            verdict=_verdict(answer.matches[0].distance if answer.matches else None, answer.threshold),
            options=options,
            provenance=running.provenance(),
        )

    # ── both ─────────────────────────────────────────────────────────────────────────────────────────────────────────

    def _fetch(self, bucket: Bucket, sha256: str, running: Running) -> bytes:
        with running.watch.stage("fetch"):
            return self._store.get_verified(bucket, sha256, sha256, self._limits.max_bytes)


def _verdict(distance: float | None, threshold: float | None) -> Literal["match", "no_match", "uncalibrated"]:
    if threshold is None:
        return "uncalibrated"
    return "match" if distance is not None and distance <= threshold else "no_match"
