"""What is done for each kind of job: the stages of DESIGN's "way of an image", in the handler's thread.

Network, decoding, composing and encoding happen here, one thread an image, while the device computes for others.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final, Literal

import numpy as np

from tasks.messages import ActivateRequest, QueryRequest
from tasks.names import protected_key, sha256_hex
from tasks.results import ActivationResult, ExtractorIdentity, QueryResult, Verification
from tasks.storage import Bucket, ObjectStore
from workers.activation.compose import Prepared, compose, prepare
from workers.activation.quality import quality
from workers.collections import Collections
from workers.extractors.inputs import to_input
from workers.images import DecodedImage, EncodedImage, Limits, decode, encode
from workers.index.codec import Codec, Codes
from workers.index.journal import encode_code
from workers.jobs import Running
from workers.memory import PixelBudget
from workers.scheduler import Activated, ActivationWork, DeviceThread

# A change that the file format swallowed gets more steps; each try doubles them.
_TRIES: Final = 3


@dataclass(frozen=True)
class _Protected:
    """An encoded image and how it stands to the promised code."""

    encoded: EncodedImage
    decoded: DecodedImage
    distance: float
    verified: bool
    tries: int
    steps: int


class Handlers:
    """The work behind the tasks; thread-safe."""

    def __init__(
        self,
        store: ObjectStore,
        collections: Collections,
        device: DeviceThread,
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
            found, protected = self._protect(original, request, collection.codec, running)
            with running.watch.stage("quality"):
                measured = quality(original.pixels, protected.decoded.pixels)
        key = protected_key(request.collection, request.asset_id, protected.encoded.extension)
        running.still_ours()
        with running.watch.stage("upload"):
            self._put(Bucket.PROTECTED, key, protected.encoded, running)
        with running.watch.stage("journal"):
            entry = running.patience(lambda: collection.register(request.asset_id, found.code))
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
            code=encode_code(found.code),
            journal_entry=entry,
            options=request.options,
            quality=measured,
            verification=Verification(
                verified=protected.verified,
                attempts=protected.tries,
                steps=protected.steps,
                distance_before=found.distance,
                distance_after=protected.distance,
            ),
            provenance=running.provenance(),
        )

    def _protect(
        self, original: DecodedImage, request: ActivateRequest, codec: Codec, running: Running
    ) -> tuple[Activated, _Protected]:
        """Change the image until its *file* falls on the code; after the last try, give the picture back unchanged."""
        with running.watch.stage("prepare"):
            prepared = prepare(original.pixels, self._input_size, request.options.alpha)
        options = request.options
        work = ActivationWork(prepared, codec, options.steps, options.effective_learning_rate)
        for tries in range(1, _TRIES + 1):
            with running.watch.stage("device"):
                found = self._device.activate(work)
            running.watch.add("optimise", found.device_ms)
            protected = self._encode_and_verify(original, prepared, found, codec, request, running)
            protected = replace(protected, tries=tries, steps=work.steps)
            if protected.verified:
                return found, protected
            work = replace(work, steps=2 * work.steps)
        return found, self._passive(original, found, protected, running)

    def _encode_and_verify(
        self,
        original: DecodedImage,
        prepared: Prepared,
        found: Activated,
        codec: Codec,
        request: ActivateRequest,
        running: Running,
    ) -> _Protected:
        with running.watch.stage("compose"):
            pixels = compose(original.pixels, prepared, found.change, request.options.alpha)
        with running.watch.stage("encode"):
            encoded = encode(pixels, original)
        with running.watch.stage("verify"):
            decoded = decode(encoded.data, self._limits)
            distance, code = self._look(decoded, found, codec)
        return _Protected(encoded, decoded, distance, bool(np.array_equal(code, found.code)), tries=0, steps=0)

    def _passive(self, original: DecodedImage, found: Activated, last: _Protected, running: Running) -> _Protected:
        with running.watch.stage("encode"):
            encoded = encode(original.pixels, original)
            decoded = decode(encoded.data, self._limits)
        return replace(last, encoded=encoded, decoded=decoded, distance=found.distance, verified=False)

    def _look(self, image: DecodedImage, found: Activated, codec: Codec) -> tuple[float, Codes]:
        """Squared L2 distance of an image's feature to the target, and the code it falls on."""
        feature = self._device.extract(to_input(image.pixels, self._input_size))
        return float(np.square(feature - found.target).sum()), codec.encode(feature[None])[0]

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
            answer = running.patience(lambda: collection.search(feature, options.top_k, options.nprobe))
        threshold = collection.manifest.threshold
        return QueryResult(
            job_id=running.job_id,
            collection=request.collection,
            generation=answer.generation,
            journal_entry=answer.journal_entry,
            source_sha256=request.source.sha256,
            extractor=self._extractor,
            matches=answer.matches,
            threshold=threshold,
            verdict=_verdict(answer.matches[0].distance if answer.matches else None, threshold),
            options=options,
            provenance=running.provenance(),
        )

    # ── both ─────────────────────────────────────────────────────────────────────────────────────────────────────────

    def _fetch(self, bucket: Bucket, sha256: str, running: Running) -> bytes:
        with running.watch.stage("fetch"):
            return running.patience(lambda: self._store.get_verified(bucket, sha256, sha256, self._limits.max_bytes))

    def _put(self, bucket: Bucket, key: str, image: EncodedImage, running: Running) -> None:
        running.patience(lambda: self._store.put(bucket, key, image.data, image.content_type))


def _verdict(distance: float | None, threshold: float | None) -> Literal["match", "no_match", "uncalibrated"]:
    if threshold is None:
        return "uncalibrated"
    return "match" if distance is not None and distance <= threshold else "no_match"
