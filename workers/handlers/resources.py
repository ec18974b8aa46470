"""What the handlers of all kinds of jobs share."""

from __future__ import annotations

from dataclasses import dataclass

from tasks.results import ExtractorIdentity
from tasks.storage import Bucket, ObjectStore
from workers.delivery.job import Running
from workers.device.device import Device
from workers.handlers.pixel_budget import PixelBudget
from workers.images import Limits
from workers.index.collection.open_collections import OpenCollections

__all__ = ["Resources"]


@dataclass(frozen=True)
class Resources:
    """One for a process; everything in it may be used from any thread.

    Attributes:
        device: runs the extractor.
        extractor: which extractor that is.
        input_size: the side S in pixels of the extractor's input (3, S, S).
        limits: what is read of an image before it is refused.
        budget: the pixels that may be in work at a time.
    """

    store: ObjectStore
    collections: OpenCollections
    device: Device
    extractor: ExtractorIdentity
    input_size: int
    limits: Limits
    budget: PixelBudget

    def fetch(self, bucket: Bucket, sha256: str, running: Running) -> bytes:
        """The bytes of an image that was uploaded under its digest; the stage `fetch` of the job.

        Raises:
            ObjectMissing, TooLarge, DigestMismatch: the image cannot be used.
            StorageUnavailable: S3 does not answer.
        """
        with running.watch.stage("fetch"):
            return self.store.get_verified(bucket, sha256, sha256, self.limits.max_bytes)
