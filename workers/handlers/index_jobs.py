"""What is done for the jobs on the queue `index`: compaction, and extraction for a collection that is built."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
import torch

from tasks.errors import BadInput, DiskUnavailable, ExtractorMismatch, NotFound
from tasks.messages import CompactRequest, ExtractRequest
from tasks.results import CompactionResult, ExtractionResult, FailureResult
from tasks.storage import Bucket
from workers.delivery.job import Running
from workers.handlers.resources import Resources
from workers.index.codec.codec import Features
from workers.index.maintenance.upkeep import compact

__all__ = ["IndexHandlers"]

# Images extracted at a time: few, because a query may have to wait for them.
_TOGETHER: Final = 16


class IndexHandlers:
    """The work behind the tasks `compact` and `extract`. Thread-safe."""

    def __init__(self, resources: Resources) -> None:
        self._resources = resources

    def compact(self, request: CompactRequest, running: Running) -> CompactionResult | FailureResult:
        """Write a collection's next generation and make it the current one.

        A full disk ends the job as failed. Waiting until there is space, as for a service, would keep a thread of the
        lane from activations; workers ask for the compaction again later.

        Raises:
            CollectionBusy: another process is writing the collection.
        """
        collections, name = self._resources.collections, request.collection
        files, journal = collections.files(name), collections.journal(name)
        try:
            with collections.write_lock(name) as lock, running.watch.stage("compact"):

                def still_ours() -> None:
                    lock.check()
                    running.begin_publishing()  # a published generation is not taken back

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
            entries=manifest.assets,
            provenance=running.provenance(),
        )

    def extract(self, request: ExtractRequest, running: Running) -> ExtractionResult:
        """Write the features of some originals to the collection's folder, where the build reads them.

        Raises:
            ExtractorMismatch: the build is for another extractor than this worker's.
        """
        extractor = self._resources.extractor
        if request.extractor != extractor.sha256:
            raise ExtractorMismatch(
                f"Collection {request.collection!r} is built for extractor {request.extractor[:12]}, this worker holds "
                f"{extractor.name} {extractor.sha256[:12]}: start workers with that extractor."
            )
        features: list[Features] = []
        skipped: dict[str, str] = {}
        for start in range(0, len(request.images), _TOGETHER):
            inputs = self._inputs(request.images[start : start + _TOGETHER], skipped, running)
            with running.watch.stage("extract"):
                features += self._resources.device.extract_all(inputs)
            running.still_ours()
        rows = np.stack(features) if features else np.empty((0, extractor.dimension), dtype=np.float32)
        files = self._resources.collections.files(request.collection)
        return ExtractionResult(
            job_id=running.job_id,
            collection=request.collection,
            extractor=extractor,
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
                data = self._resources.fetch(Bucket.ORIGINALS, digest, running)
                inputs.append(self._resources.input_of(data, self._resources.budget, running))
            except (BadInput, NotFound) as error:
                skipped[digest] = f"{error.message} [{error.code}]"
        return inputs
