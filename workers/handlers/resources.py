"""What the handlers of all kinds of jobs share."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch

from tasks.messages import S3Object, Source
from tasks.names import sha256_hex
from tasks.results import ExtractorIdentity
from tasks.storage import Bucket, ObjectStore
from workers.delivery.job import Running
from workers.device.device import Device
from workers.handlers.credentials import Credentials
from workers.handlers.pixel_budget import PixelBudget
from workers.images import DecodedImage, Limits, decode, pixels_of
from workers.images.tensors import to_input
from workers.images.trial import try_decoding
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
        budget: the pixels of activations and extractions that may be in work at a time.
        query_budget: those of queries, which never wait for the others.
        credentials: signs the files of sources that have C2PA manifests.
        trial_timeout_s: how long a suspect of a worker's death may be decoded in a process of its own.
    """

    store: ObjectStore
    collections: OpenCollections
    device: Device
    extractor: ExtractorIdentity
    input_size: int
    limits: Limits
    budget: PixelBudget
    query_budget: PixelBudget
    trial_timeout_s: float = 60.0
    credentials: Credentials = field(default_factory=Credentials)

    def fetch(self, bucket: Bucket, sha256: str, running: Running) -> bytes:
        """The bytes of an image that was uploaded under its digest; the stage `fetch` of the job.

        Raises:
            ObjectMissing, TooLarge, DigestMismatch: the image cannot be used.
            StorageUnavailable: S3 does not answer.
        """
        with running.watch.stage("fetch"):
            return self.store.get_verified(bucket, sha256, sha256, self.limits.max_bytes)

    def image_of(self, bucket: Bucket, source: Source | S3Object, running: Running) -> tuple[bytes, str]:
        """The bytes of a request's image and their digest; the stage `fetch` of the job.

        Args:
            bucket: where such images are uploaded to.

        Raises:
            InvalidRequest: its bucket may not be read from.
            AiiError: as in :meth:`fetch`.
        """
        if isinstance(source, Source):
            return self.fetch(bucket, source.sha256, running), source.sha256
        with running.watch.stage("fetch"):
            data = self.store.get_source(source.bucket, source.key, self.limits.max_bytes, source.etag)
            return data, sha256_hex(data)

    @contextmanager
    def decoded(self, data: bytes, budget: PixelBudget, running: Running) -> Iterator[DecodedImage]:
        """An image, and the part of the budget that it takes for the time of the block, held before it is decoded.

        Raises:
            BadInput: see :func:`workers.images.decode`.
            Poison, DeadlineExceeded: see :func:`workers.images.trial.try_decoding`.
        """
        with budget.hold(pixels_of(data, self.limits)):
            with running.watch.stage("decode"):
                if running.suspect:
                    try_decoding(data, self.limits, self.trial_timeout_s)
                image = decode(data, self.limits)
            yield image

    def input_of(self, data: bytes, budget: PixelBudget, running: Running) -> torch.Tensor:
        """An image as the extractor takes it, (3, S, S) float32 in [0, 1]; errors as in :meth:`decoded`."""
        with self.decoded(data, budget, running) as image, running.watch.stage("decode"):
            return to_input(image.pixels, self.input_size)
