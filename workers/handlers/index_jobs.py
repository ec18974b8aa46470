"""What is done for the jobs on the queue `index`: compaction, and extraction for a collection that is built."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
import torch

from tasks.errors import BadInput, DiskUnavailable, ExtractorMismatch, NotFound
from tasks.messages import CompactRequest, ExtractRequest
from tasks.results import CompactionResult, ExtractionResult, ExtractorIdentity, FailureResult
from tasks.storage import Bucket, ObjectStore
from workers.delivery.job_runner import Running
from workers.device.device import Device
from workers.images import Limits, decode
from workers.images.tensors import to_input
from workers.index.codec.codec import Features
from workers.index.collection.open_collections import OpenCollections
from workers.index.maintenance.upkeep import compact

__all__ = ["IndexHandlers"]

# Images extracted at a time: few, because a query may have to wait for them.
_TOGETHER: Final = 16


class IndexHandlers:
    """The work behind the index tasks; thread-safe."""

    def __init__(
        self,
        store: ObjectStore,
        collections: OpenCollections,
        device: Device,
        extractor: ExtractorIdentity,
        input_size: int,
        limits: Limits,
    ) -> None:
        self._store = store
        self._collections = collections
        self._device = device
        self._extractor = extractor
        self._input_size = input_size
        self._limits = limits

    def compact(self, request: CompactRequest, running: Running) -> CompactionResult | FailureResult:
        """Put a collection's next generation in force.

        A full disk ends the job as failed. Waiting for room, as for a service, would keep a thread of the lane from
        activations; who asks for compactions asks again.

        Raises:
            CollectionBusy: somebody else is at it.
        """
        files, journal = self._collections.files(request.collection), self._collections.journal(request.collection)
        try:
            with self._collections.write_lock(request.collection) as lock, running.watch.stage("compact"):

                def still_ours() -> None:
                    lock.check()
                    running.begin_publishing()  # a generation in force is not taken back

                manifest = compact(files, journal, still_ours)
        except DiskUnavailable as error:
            return FailureResult(
                task=request.task, job_id=running.job_id, code=error.code, message=error.message,
                provenance=running.provenance(),
            )  # fmt: skip
        return CompactionResult(
            job_id=running.job_id,
            collection=request.collection,
            generation=manifest.generation,
            entries=sum(part.count for part in manifest.segments),
            provenance=running.provenance(),
        )

    def extract(self, request: ExtractRequest, running: Running) -> ExtractionResult:
        """Write the features of some originals where the build looks for them.

        Raises:
            ExtractorMismatch: the build is for another extractor than this worker's.
        """
        if request.extractor != self._extractor.sha256:
            raise ExtractorMismatch(
                f"Collection {request.collection!r} is built for extractor {request.extractor[:12]}, this worker holds "
                f"{self._extractor.name} {self._extractor.sha256[:12]}: start workers with that extractor."
            )
        features: list[Features] = []
        skipped: dict[str, str] = {}
        for start in range(0, len(request.images), _TOGETHER):
            inputs = self._inputs(request.images[start : start + _TOGETHER], skipped, running)
            with running.watch.stage("extract"):
                features += self._device.extract_all(inputs)
            running.still_ours()
        rows = np.stack(features) if features else np.empty((0, self._extractor.dimension), dtype=np.float32)
        files = self._collections.files(request.collection)
        return ExtractionResult(
            job_id=running.job_id,
            collection=request.collection,
            extractor=self._extractor,
            features=files.upload_features(rows),
            images=[digest for digest in request.images if digest not in skipped],
            skipped=skipped,
            provenance=running.provenance(),
        )

    def _inputs(self, digests: Sequence[str], skipped: dict[str, str], running: Running) -> list[torch.Tensor]:
        """Originals as the extractor takes them; `skipped` is told of those that cannot be read."""
        inputs = []
        for digest in digests:
            try:
                with running.watch.stage("fetch"):
                    data = self._store.get_verified(Bucket.ORIGINALS, digest, digest, self._limits.max_bytes)
                with running.watch.stage("decode"):
                    inputs.append(to_input(decode(data, self._limits).pixels, self._input_size))
            except (BadInput, NotFound) as error:
                skipped[digest] = f"{error.message} [{error.code}]"
        return inputs
