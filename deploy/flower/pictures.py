"""Small pictures of the last activations, made from what lies in the store; a few are kept."""

from __future__ import annotations

import io
from functools import lru_cache

from PIL import Image

from tasks.documents import read_result
from tasks.errors import NotFound
from tasks.results import ActivationResult
from tasks.storage import Bucket, ObjectStore
from workers.evaluation.sheet import difference

__all__ = ["PictureBook"]

_SIDE = 240
_KEPT = 64  # activations; three pictures of some ten kilobytes each


class PictureBook:
    """Thread-safe."""

    def __init__(self, store: ObjectStore, max_bytes: int) -> None:
        self._store = store
        self._max_bytes = max_bytes
        self._pictures = lru_cache(_KEPT)(self._made)

    def picture(self, job_id: str, which: str) -> bytes:
        """A JPEG of the `original`, the `protected` image, or ten times their `difference`.

        Raises:
            NotFound: there is no such activation, or its images were deleted.
        """
        return self._pictures(job_id)[which]

    def _made(self, job_id: str) -> dict[str, bytes]:
        result = read_result(self._store, job_id)
        if not isinstance(result, ActivationResult):
            raise NotFound(f"Job {job_id} is no activation.")
        original = self._small(Bucket.ORIGINALS, result.source_sha256, result.source_sha256)
        protected = self._small(Bucket.PROTECTED, result.protected_key, result.protected_sha256)
        if protected.size != original.size:  # an EXIF orientation that was applied
            original = original.resize(protected.size)
        images = {"original": original, "protected": protected, "difference": difference(original, protected)}
        return {name: _jpeg(image) for name, image in images.items()}

    def _small(self, bucket: Bucket, key: str, sha256: str) -> Image.Image:
        data = self._store.get_verified(bucket, key, sha256, 4 * self._max_bytes)
        with Image.open(io.BytesIO(data), formats=("JPEG", "PNG", "WEBP")) as image:
            # Not `draft`: decoding a JPEG small would hide a part of the difference.
            small = image.convert("RGB")
        small.thumbnail((_SIDE, _SIDE), Image.Resampling.BOX)
        return small


def _jpeg(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=85)
    return buffer.getvalue()
