"""Looking at a collection before trusting it: are its files whole, does it find what it holds, and are published images
still on the codes that another codec would give them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch

from tasks.errors import AiiError, InvalidRequest
from tasks.results import ActivationResult
from tasks.storage import Bucket, ObjectStore
from workers.activation.objective import Objective
from workers.bounded_map import bounded_map
from workers.extractors.base import Extractor
from workers.images import Limits, decode
from workers.images.tensors import to_input
from workers.index.codec.codec import Codec, Codes, Features
from workers.index.collection.collection import Collection, open_segments
from workers.index.collection.journal import BEGINNING, Journal, decode_code, entry_order
from workers.index.collection.manifest import CollectionStore, Manifest
from workers.index.maintenance.documents import newest_activations

__all__ = ["Audited", "Verified", "audit", "is_on", "verify"]

_TIED: Final = 1e-5
_NEIGHBOURS: Final = 10
_AUDITED_TOGETHER: Final = 16
_READERS: Final = 2


@dataclass(frozen=True)
class Verified:
    """What a verification saw: `found` of `asked` entries are among the first matches for what their own codes stand
    for, at nprobe 1 and at nprobe 16 (a reconstruction may lie beyond the border of its own cell)."""

    files: int
    entries: int
    journal: int
    asked: int
    found_at_1: int
    found_at_16: int

    @property
    def share(self) -> float:
        """Of the entries asked for, those found at nprobe 16; 1 when there is none."""
        return self.found_at_16 / self.asked if self.asked else 1.0


def verify(files: CollectionStore, journal: Journal, collection: Collection, sample: int) -> Verified:
    """Read every file of every kept generation in the store, and ask for a sample of the entries.

    Raises:
        CorruptSegment: a file is missing or damaged; the message names it.
    """
    manifest = files.current()
    digests = manifest.digests.union(*(kept.digests for kept in files.generations()))
    for digest in sorted(digests):
        files.check(digest)
    codec = collection.codec
    assets, codes = _sampled(files, manifest, codec, sample)
    features = codec.decode(codes) if len(codes) else np.empty((0, codec.dimension), dtype=np.float32)
    found = [sum(_finds(collection, f, a, nprobe) for f, a in zip(features, assets, strict=True)) for nprobe in (1, 16)]
    entries = sum(part.count for part in manifest.segments)
    changes = sum(1 for _ in journal.all_after(manifest.journal_entry))
    return Verified(len(digests), entries, changes, len(assets), *found)


def _sampled(files: CollectionStore, manifest: Manifest, codec: Codec, sample: int) -> tuple[list[str], Codes]:
    """Assets and codes (N, code_size) of some entries of the segments."""
    random = np.random.default_rng(0)
    assets: list[str] = []
    codes: list[Codes] = []
    for segment in open_segments(files, manifest, codec):
        chosen = np.sort(random.permutation(len(segment))[:sample])
        assets += [segment.assets[int(position)] for position in chosen]
        codes.append(segment.codes[chosen])
    return assets, np.concatenate(codes)


def _finds(collection: Collection, feature: Features, asset_id: str, nprobe: int) -> bool:
    """Whether an asset comes first, or as near as the first: many may share one code. One that the journal removed or
    registered anew since may be anywhere, and counts as found."""
    matches = collection.search(feature, _NEIGHBOURS, nprobe).matches
    if any(match.asset_id == asset_id for match in matches) or collection.overruled(asset_id):
        return True
    return bool(matches) and matches[-1].distance - matches[0].distance < _TIED


@dataclass(frozen=True)
class Audited:
    """How one published image stands to its registered code, and to the code that the candidate would give it."""

    asset_id: str
    on_code: bool
    on_candidate: bool


def audit(
    store: ObjectStore, files: CollectionStore, candidate: Codec, extractor: Extractor, limits: Limits,
    progress: Callable[[int, int], None],
) -> Iterator[Audited]:  # fmt: skip
    """Look at every published image of a collection as a query for it will, with its own codec and another.

    An image is *on* a code when its feature lies in the code's coarse cell and fits the code better than the original's
    does, as in an activation. A code that is the original's feature itself, as in an index that does not quantise,
    cannot be fitted better: there the cell alone counts. Images that were removed, or whose files are gone, are left
    out.

    Raises:
        InvalidRequest: the candidate is for features of another dimension.
    """
    manifest = files.current()
    codec = Codec.read(files.fetch(manifest.codec), manifest.factory)
    if candidate.dimension != codec.dimension:
        raise InvalidRequest(
            f"The candidate takes {candidate.dimension}-d features, the collection {codec.dimension}-d."
        )
    results = _standing(store, files, manifest, codec)
    pairs = _pairs(store, results, extractor.input_size, limits)
    done = 0
    for batch in _batches(pairs):
        done += len(batch)
        progress(done, len(results))
        with torch.no_grad():
            images = torch.stack([image for _, *both in batch for image in both]).to(extractor.device)
            features = extractor(images).cpu().numpy().reshape(len(batch), 2, -1)
        for (result, *_), (original, published) in zip(batch, features, strict=True):
            yield Audited(
                result.asset_id,
                is_on(codec, decode_code(result.code), original, published),
                is_on(candidate, candidate.encode(original[None])[0], original, published),
            )


def _standing(store: ObjectStore, files: CollectionStore, manifest: Manifest, codec: Codec) -> list[ActivationResult]:
    """The newest activation of each asset that was not removed since."""
    newest = newest_activations(store, manifest, codec.code_size, lambda *_: None).newest
    removals = files.removals()
    return [
        result
        for asset_id, result in newest.items()
        if entry_order(result.journal_entry) > entry_order(removals.get(asset_id, BEGINNING))
    ]


_Pair = tuple[ActivationResult, torch.Tensor, torch.Tensor]


def _pairs(store: ObjectStore, results: list[ActivationResult], size: int, limits: Limits) -> Iterator[_Pair]:
    """Each result with its original and its published image, as an extractor takes them."""

    def read(result: ActivationResult) -> _Pair | None:
        try:
            source = result.source_sha256
            original = store.get_verified(Bucket.ORIGINALS, source, source, limits.max_bytes)
            protected = store.get_verified(
                Bucket.PROTECTED, result.protected_key, result.protected_sha256, 4 * limits.max_bytes
            )
            images = (to_input(decode(data, limits).pixels, size) for data in (original, protected))
            return (result, *images)  # type: ignore[return-value]  # there are two
        except AiiError:
            return None

    yield from filter(None, bounded_map(read, results, _READERS))


def _batches(pairs: Iterator[_Pair]) -> Iterator[list[_Pair]]:
    batch: list[_Pair] = []
    for pair in pairs:
        batch.append(pair)
        if len(batch) == _AUDITED_TOGETHER:
            yield batch
            batch = []
    if batch:
        yield batch


def is_on(codec: Codec, code: Codes, original: Features, published: Features) -> bool:
    """Whether a published image, by its feature (D,) and the original's, stands on a code; see :func:`audit`."""
    cell = codec.cell_size
    if not np.array_equal(codec.encode(published[None])[0, :cell], code[:cell]):
        return False
    objective = Objective.of(codec.target(np.stack([code, code])), torch.device("cpu"))
    before, after = objective.loss(torch.from_numpy(np.stack([original, published]))).tolist()
    return bool(after < before) or np.allclose(codec.decode(code[None])[0], original, atol=_TIED)
