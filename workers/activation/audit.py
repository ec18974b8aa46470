"""Audit of published images: which of them would not fit their codes any more with another codec."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch

from tasks.bounded_map import bounded_map
from tasks.errors import AiiError, InvalidRequest
from tasks.storage import Bucket, ObjectStore
from workers.activation.verification import CodeFit, is_verified
from workers.extractors.base import Extractor
from workers.images import Limits, decode
from workers.images.tensors import to_input
from workers.index.codec.codec import Codec, Codes, Features
from workers.index.collection.files import CollectionStore
from workers.index.collection.translation import Translation
from workers.index.maintenance.activations import Activations
from workers.index.maintenance.documents import Activation, code_in

__all__ = ["Audited", "audit_collection", "fits_code"]

_BATCH_IMAGES: Final = 16
_READERS: Final = 2
_SAME_FEATURE: Final = 1e-5


@dataclass(frozen=True)
class Audited:
    """Whether one published image fits its registered code, and the code that the candidate would give it."""

    asset_id: str
    on_code: bool
    on_candidate: bool


def audit_collection(
    store: ObjectStore, files: CollectionStore, published: Activations, candidate: Codec, extractor: Extractor,
    limits: Limits, progress: Callable[[int, int], None], most: int | None = None,
) -> Iterator[Audited]:  # fmt: skip
    """Compare every published image of a collection with its code, by the collection's codec and by another one.

    Images that were removed, or whose files are gone, are left out.

    Args:
        published: what documents say, as it was read.
        candidate: the other codec.
        progress: called with the number of images done, and of all.
        most: compare a random sample of so many.

    Raises:
        InvalidRequest: the candidate is for features of another dimension.
    """
    manifest = files.current()
    codec = Codec.read(files.fetch(manifest.codec), manifest.factory)
    if candidate.dimension != codec.dimension:
        raise InvalidRequest(
            f"The candidate takes {candidate.dimension}-d features, the collection {codec.dimension}-d."
        )
    translation = Translation(files, manifest, codec)
    total = min(published.current_count, most or published.current_count)
    pairs = _pairs(store, _drawn(published, total), extractor.input_size, limits)
    done = 0
    for batch in _batches(pairs):
        done += len(batch)
        progress(done, total)
        with torch.no_grad():
            images = torch.stack([image for _, *both in batch for image in both]).to(extractor.device)
            features = extractor(images).cpu().numpy().reshape(len(batch), 2, -1)
        for (activation, *_), (original, protected) in zip(batch, features, strict=True):
            yield Audited(
                activation.asset_id,
                fits_code(codec, translation.read(*code_in(activation, manifest)), original, protected),
                fits_code(candidate, candidate.encode(original[None])[0], original, protected),
            )


def _drawn(published: Activations, count: int) -> Iterator[Activation]:
    """A random sample of the current activations, always the same one."""
    chosen = set(random.Random(0).sample(range(published.current_count), count))
    return (activation for number, activation in enumerate(published.current()) if number in chosen)


_Pair = tuple[Activation, torch.Tensor, torch.Tensor]


def _pairs(store: ObjectStore, activations: Iterable[Activation], size: int, limits: Limits) -> Iterator[_Pair]:
    """Each activation with its original and its published image as inputs (3, S, S) of the extractor."""

    def read(activation: Activation) -> _Pair | None:
        try:
            source = activation.source_sha256
            original = store.get_verified(Bucket.ORIGINALS, source, source, limits.max_bytes)
            protected = store.get_verified(
                Bucket.PROTECTED, activation.protected_key, activation.protected_sha256, 4 * limits.max_bytes
            )
            images = (to_input(decode(data, limits).pixels, size) for data in (original, protected))
            return (activation, *images)  # type: ignore[return-value]  # there are two
        except AiiError:
            return None

    yield from filter(None, bounded_map(read, activations, _READERS))


def _batches(pairs: Iterator[_Pair]) -> Iterator[list[_Pair]]:
    batch: list[_Pair] = []
    for pair in pairs:
        batch.append(pair)
        if len(batch) == _BATCH_IMAGES:
            yield batch
            batch = []
    if batch:
        yield batch


def fits_code(codec: Codec, code: Codes, original: Features, published: Features) -> bool:
    """Whether a published image fits a code (code_size,) by the rule of :func:`is_verified`.

    In an index that does not quantise, the code is the original's feature itself and no image can fit it better: there
    the cell alone decides.

    Args:
        original, published: features (D,) of both images.
    """
    target = codec.target(code[None])
    before, after = (CodeFit.of(feature, code, target, codec) for feature in (original, published))
    exact = np.allclose(codec.decode(code[None])[0], original, atol=_SAME_FEATURE)
    return is_verified(before, after) or (exact and after.in_cell)
