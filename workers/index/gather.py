"""Features of a folder's images for a build, extracted as jobs on the queue `index`: all workers share them."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from tasks.app import Sender, submit
from tasks.documents import read_result
from tasks.errors import BadInput, InvalidRequest, JobMissing, error_of
from tasks.ledger import Ledger, wait_until_closed
from tasks.messages import ExtractRequest
from tasks.names import DIGEST_PATTERN, sha256_hex
from tasks.results import ExtractionResult, ExtractorIdentity, FailureResult
from tasks.storage import Bucket, ObjectStore
from workers.images.folders import ImageFile, listed_images
from workers.index.manifest import CollectionStore

__all__ = ["Gathered", "Gatherer"]

_CHUNK: Final = 256
_UPLOADS: Final = 8
_ORIGINALS: Final = "s3://originals"


@dataclass(frozen=True)
class Gathered:
    """What the jobs gave: features (N, D) float32, mapped, of N assets; a line for each image that was skipped; and the
    objects that can be deleted once the build is done."""

    assets: list[str]
    features: npt.NDArray[np.float32]
    skipped: list[str]
    objects: list[str]


@dataclass(frozen=True)
class Skipped:
    """Why an image was not uploaded, in a line."""

    line: str


@dataclass(frozen=True)
class Gatherer:
    """Uploads images, has them extracted, and collects the features. Done again after an interruption, it finds the
    images uploaded and the jobs done."""

    store: ObjectStore
    ledger: Ledger
    sender: Sender
    files: CollectionStore
    collection: str
    extractor: ExtractorIdentity
    max_bytes: int

    def gather(self, sources: Iterable[str], path: Path, progress: Callable[[int], None]) -> Gathered:
        """Extract folders, tar files and ``s3://originals``; the features are put together in the file `path`.

        Raises:
            AiiError: a job failed; what others did stays.
        """
        skipped: list[str] = []
        digests = list(dict.fromkeys(d for source in sources for d in self._uploaded(source, skipped)))
        chunks = [digests[start : start + _CHUNK] for start in range(0, len(digests), _CHUNK)]
        requests = [
            ExtractRequest(collection=self.collection, extractor=self.extractor.sha256, images=chunk)
            for chunk in chunks
        ]
        for request in requests:
            submit(self.ledger, self.sender, request)
        self._wait(requests, progress)
        results = [self._result(request) for request in requests]
        skipped += [f"{digest}: {why}" for result in results for digest, why in result.skipped.items()]
        with path.open("wb") as file:
            for result in results:
                file.write(self.files.download_features(result.features, self.extractor.dimension).tobytes())
        assets = [digest for result in results for digest in result.images]
        shape = (len(assets), self.extractor.dimension)
        features = np.memmap(path, dtype="<f4", mode="r", shape=shape) if assets else np.empty(shape, dtype=np.float32)
        return Gathered(assets, features, skipped, [result.features for result in results])

    def _uploaded(self, source: str, skipped: list[str]) -> Iterator[str]:
        """The digests of a source's images, which are in the store now."""
        if source.startswith("s3://"):
            yield from _stored_originals(self.store, source)
            return
        with ThreadPoolExecutor(_UPLOADS) as uploads:
            for uploaded in uploads.map(self._upload, listed_images(Path(source))):
                if isinstance(uploaded, Skipped):
                    skipped.append(uploaded.line)
                else:
                    yield uploaded

    def _upload(self, image: ImageFile) -> str | Skipped:
        """The digest of an image that is in the store now."""
        if image.size > self.max_bytes:
            return Skipped(f"{image.name}: larger than {self.max_bytes:,} bytes [too_large]")
        try:
            data = image.read()
        except BadInput as error:
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
                raise JobMissing("The ledger forgot the build's jobs: run the build again, it goes on.")
            done += images_of[job_id]
            progress(done)

    def _result(self, request: ExtractRequest) -> ExtractionResult:
        result = read_result(self.store, request.job_id)
        if isinstance(result, FailureResult):
            raise error_of(result.code, result.message)
        assert isinstance(result, ExtractionResult), "an extraction job ends with such a document"
        return result


def _stored_originals(store: ObjectStore, address: str) -> Iterator[str]:
    """The digests of the originals in the store: ``s3://originals`` or ``s3://originals/PREFIX``."""
    bucket, _, prefix = address.removeprefix("s3://").partition("/")
    if f"s3://{bucket}" != _ORIGINALS:
        raise InvalidRequest(f"{address}: only {_ORIGINALS} can be read, where activated images lie already.")
    for key in store.list_keys(Bucket.ORIGINALS, prefix):
        if re.fullmatch(DIGEST_PATTERN, key):
            yield key
