"""Small pictures of the last activations, made from the images in S3; a few are cached."""

from __future__ import annotations

import io
import threading
from collections import OrderedDict
from typing import Final

from PIL import Image, ImageDraw, ImageOps

from tasks.assets.records import AssetRecord, AssetRecords
from tasks.documents import read_result
from tasks.errors import AiiError, BadInput, NotFound, TooLarge
from tasks.results import ActivationResult, QueryResult
from tasks.storage import Bucket, ObjectStore
from workers.difference import difference

__all__ = ["PictureBook", "placeholder"]

_SIDE: Final = 240
_KEPT: Final = 64  # activations; three pictures of some ten kilobytes each
_MAX_PIXELS: Final = 40_000_000  # in memory at once: 160 MB; a JPEG is decoded small


class PictureBook:
    """Thread-safe. Makes one activation's pictures at a time, because large images fill the memory."""

    def __init__(self, store: ObjectStore, max_bytes: int) -> None:
        self._store = store
        self._max_bytes = max_bytes
        self._kept: OrderedDict[tuple[str, int], dict[str, bytes]] = OrderedDict()
        self._lock = threading.Lock()

    def picture(self, ended: tuple[str, int], which: str) -> bytes:
        """A JPEG of the `original`, the `protected` image, or ten times their `difference`.

        Args:
            ended: a job and the number of its document; 0 for the latest.

        Raises:
            NotFound: there is no such activation, or its images were deleted.
            TooLarge: an image is not shown for its size.
            BadInput: the stored file cannot be shown as an image.
            StorageUnavailable: S3 does not answer.
        """
        with self._lock:
            if ended not in self._kept:
                self._kept[ended] = self._made(*ended)
            self._kept.move_to_end(ended)
            while len(self._kept) > _KEPT:
                self._kept.popitem(last=False)
            return self._kept[ended][which]

    def of_query(self, job_id: str, which: str) -> bytes:
        """A JPEG of a `query`, or of its first `match`; errors as above."""
        ended = (job_id, -1)
        with self._lock:
            known = self._kept.setdefault(ended, {})
            if which not in known:
                known[which] = _jpeg(self._of_query(job_id, which))
            return known[which]

    def _of_query(self, job_id: str, which: str) -> Image.Image:
        result = read_result(self._store, job_id)
        if not isinstance(result, QueryResult):
            raise NotFound(f"Job {job_id} is no query.")
        if which == "query":
            return self._small(Bucket.QUERIES, result.source_sha256, result.source_sha256)
        record = self._record(result)
        return self._small(Bucket.PROTECTED, record.protected_key, record.protected_sha256)

    def _record(self, result: QueryResult) -> AssetRecord:
        """Of the first match; what a collection was built from has none, and no file either."""
        first = result.matches[0].asset_id if result.matches else None
        record = AssetRecords(self._store, result.collection).newest(first) if first else None
        if record is None:
            raise NotFound("There is no file of this match.")
        return record

    def _made(self, job_id: str, commit: int) -> dict[str, bytes]:
        result = read_result(self._store, job_id, commit or None)
        if not isinstance(result, ActivationResult):
            raise NotFound(f"Job {job_id} is no activation.")
        protected = self._small(Bucket.PROTECTED, result.protected_key, result.protected_sha256)
        original = self._small(Bucket.ORIGINALS, result.source_sha256, result.source_sha256)
        if original.size != protected.size:
            raise BadInput(f"The images of job {job_id} do not have one size.")
        images = {"original": original, "protected": protected, "difference": difference(original, protected)}
        return {name: _jpeg(image) for name, image in images.items()}

    def _small(self, bucket: Bucket, key: str, sha256: str) -> Image.Image:
        data = self._store.get_verified(bucket, key, sha256, 4 * self._max_bytes)
        try:
            return _reduced(data)
        except AiiError:
            raise
        except Exception as error:  # Pillow names no closed set of what its readers raise
            raise BadInput(f"{key} cannot be shown: {type(error).__name__}.") from error


def placeholder(problem: AiiError) -> bytes:
    """A picture that names the reason why there is none, so that the page keeps its layout."""
    image = Image.new("RGB", (_SIDE, _SIDE * 3 // 4), (128, 128, 128))
    text = {"not_found": "not stored", "object_missing": "not stored", "too_large": "too large to show"}.get(
        problem.code, problem.code
    )
    ImageDraw.Draw(image).text((_SIDE / 2, _SIDE * 3 / 8), text, fill="white", anchor="mm", font_size=20)
    return _jpeg(image)


def _reduced(data: bytes) -> Image.Image:
    """In RGB and upright, as the protected image is published, within a square of `_SIDE`."""
    with Image.open(io.BytesIO(data), formats=("JPEG", "PNG", "WEBP")) as image:
        # Twice what is shown: each pixel is an average of the same block of the original and the protected image.
        image.draft("RGB", (2 * _SIDE, 2 * _SIDE))
        if image.width * image.height > _MAX_PIXELS:
            raise TooLarge(f"{image.width} × {image.height} pixels are not shown.")
        small = ImageOps.exif_transpose(image).convert("RGB")
    small.thumbnail((_SIDE, _SIDE), Image.Resampling.BOX)
    return small


def _jpeg(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=85)
    return buffer.getvalue()
