"""Features of images for a build, extracted as jobs on the queue `index` that all workers share."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from tasks.app import Sender, submit
from tasks.bounded_map import bounded_map
from tasks.documents import read_result
from tasks.errors import BadInput, InvalidRequest, JobMissing, NotFound, TooLarge, error_of
from tasks.ledger.ledger import Ledger
from tasks.ledger.states import JobState
from tasks.ledger.waiting import wait_until_closed
from tasks.messages import ExtractRequest
from tasks.names import DIGEST_PATTERN, canonical_json, sha256_hex
from tasks.results import ExtractionResult, ExtractorIdentity, FailureResult
from tasks.storage import Bucket, ObjectStore
from workers.images.folders import ImageFile, listed_images
from workers.index.collection.files import CollectionStore

__all__ = ["CHUNK", "Gathered", "Gatherer"]

CHUNK: Final = 256
_UPLOADS: Final = 8


@dataclass(frozen=True)
class Gathered:
    """The result of the jobs.

    Attributes:
        assets: N asset_ids.
        features: (N, D) float32, mapped from a file.
        skipped: a line for each image that was skipped, with the reason.
        objects: digests of the features in the store, to be deleted after the build.
    """

    assets: list[str]
    features: npt.NDArray[np.float32]
    skipped: list[str]
    objects: list[str]


@dataclass(frozen=True)
class Skipped:
    """An image that was not uploaded, and the reason, in one line."""

    line: str


@dataclass(frozen=True)
class _Image:
    """An image in a file or bucket; `read` takes the largest allowed size in bytes, and raises BadInput or NotFound."""

    name: str
    read: Callable[[int], bytes]


@dataclass(frozen=True)
class Gatherer:
    """Uploads images, has them extracted, and collects the features. After an interruption it goes on: uploaded images
    and finished jobs are found again."""

    store: ObjectStore
    ledger: Ledger
    sender: Sender
    files: CollectionStore
    collection: str
    extractor: ExtractorIdentity
    max_bytes: int

    def gather(self, sources: Iterable[str], path: Path, progress: Callable[[int], None]) -> Gathered:
        """Extract images of folders, tar files and ``s3://BUCKET/FOLDER``, for the service's own buckets; the features
        are written to the file `path`.

        Raises:
            AiiError: a job failed; the other jobs' results are kept.
        """
        skipped: list[str] = []
        digests = list(dict.fromkeys(d for source in sources for d in self._uploaded(source, skipped)))
        gathered = self.extract(digests, path, progress)
        return replace(gathered, skipped=[*skipped, *gathered.skipped])

    def extract(self, digests: Sequence[str], path: Path, progress: Callable[[int], None], key: str = "") -> Gathered:
        """The same for originals that are in the store, by their digests.

        Args:
            key: tells these jobs from those of another time, whose features are deleted.
        """
        chunks = [digests[start : start + CHUNK] for start in range(0, len(digests), CHUNK)]
        requests = [
            ExtractRequest(
                collection=self.collection,
                extractor=self.extractor.sha256,
                images=list(chunk),
                idempotency_key=f"{key}-{sha256_hex(canonical_json(list(chunk)))}" if key else "",
            )
            for chunk in chunks
        ]
        requests = [self._submitted(request) for request in requests]
        self._wait(requests, progress)
        results = [self._result(request) for request in requests]
        skipped = [f"{digest}: {why}" for result in results for digest, why in result.skipped.items()]
        with path.open("wb") as file:
            for result in results:
                file.write(self.files.download_features(result.features, self.extractor.dimension).tobytes())
        assets = [digest for result in results for digest in result.images]
        shape = (len(assets), self.extractor.dimension)
        features = np.memmap(path, dtype="<f4", mode="r", shape=shape) if assets else np.empty(shape, dtype=np.float32)
        return Gathered(assets, features, skipped, [result.features for result in results])

    def _submitted(self, request: ExtractRequest) -> ExtractRequest:
        """Submit a request; returns it, or the one that was submitted in its place because its features are gone, with
        a collection that was deleted or published since. That one's key follows from the job before, so that an
        interrupted build finds it again."""
        while not submit(self.ledger, self.sender, request) and self._features_are_gone(request):
            request = request.model_copy(update={"idempotency_key": f"after-{request.job_id}"})
        return request

    def _features_are_gone(self, request: ExtractRequest) -> bool:
        """Whether a job that was accepted before has ended well, and what it made is not in the store any more."""
        if self.ledger.states([request.job_id]) != [JobState.DONE]:
            return False
        return not self.files.has_features(self._result(request).features)

    def _uploaded(self, source: str, skipped: list[str]) -> Iterator[str]:
        """Upload a source's images; yields their digests."""
        if source.startswith("s3://"):
            bucket, folder = self._bucket(source)
            if bucket is Bucket.ORIGINALS:
                keys = self.store.list_keys(bucket, folder)
                yield from (key for key in keys if re.fullmatch(DIGEST_PATTERN, key))
                return
            images: Iterator[_Image] = (
                _stored(self.store, bucket, key) for key in self.store.list_keys(bucket, folder)
            )
        else:
            images = map(_listed, listed_images(Path(source)))
        for uploaded in bounded_map(self._upload, images, _UPLOADS):
            if isinstance(uploaded, Skipped):
                skipped.append(uploaded.line)
            else:
                yield uploaded

    def _bucket(self, address: str) -> tuple[Bucket, str]:
        """Bucket and folder of an address ``s3://BUCKET`` or ``s3://BUCKET/FOLDER``."""
        name, _, folder = address.removeprefix("s3://").partition("/")
        readable = {self.store.name_of(bucket): bucket for bucket in Bucket}
        if name not in readable:
            raise InvalidRequest(f"{address}: only these buckets can be read: {', '.join(readable)}.")
        return readable[name], folder

    def _upload(self, image: _Image) -> str | Skipped:
        """Upload an image; returns its digest."""
        try:
            data = image.read(self.max_bytes)
        except (BadInput, NotFound) as error:
            return Skipped(f"{image.name}: {error.message} [{error.code}]")
        digest = sha256_hex(data)
        if not self.store.exists(Bucket.ORIGINALS, digest):
            self.store.put(Bucket.ORIGINALS, digest, data, "application/octet-stream")
        return digest

    def _wait(self, requests: list[ExtractRequest], progress: Callable[[int], None]) -> None:
        images_of = {request.job_id: len(request.images) for request in requests}
        done = 0
        for job_id, state in wait_until_closed(self.ledger, list(images_of), None):
            if state is None:
                raise JobMissing("The ledger lost the build's jobs: run the build again, it goes on where it was.")
            done += images_of[job_id]
            progress(done)

    def _result(self, request: ExtractRequest) -> ExtractionResult:
        result = read_result(self.store, request.job_id)
        if isinstance(result, FailureResult):
            raise error_of(result.code, result.message)
        assert isinstance(result, ExtractionResult), "an extraction job ends with such a document"
        return result


def _listed(file: ImageFile) -> _Image:
    def read(max_bytes: int) -> bytes:
        if file.size > max_bytes:
            raise TooLarge(f"larger than {max_bytes:,} bytes")
        return file.read()

    return _Image(file.name, read)


def _stored(store: ObjectStore, bucket: Bucket, key: str) -> _Image:
    return _Image(key, lambda max_bytes: store.get(bucket, key, max_bytes))
