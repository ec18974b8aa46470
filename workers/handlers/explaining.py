"""The parts of an explanation: where a query, an asset's files and its unprotected copy lie for the asset's code."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Final

import numpy as np
from PIL.Image import Image

from tasks.errors import BadInput, DigestMismatch, InvalidKey, NotFound, ObjectMissing
from tasks.ledger.commits import AssetState
from tasks.messages import QueryOptions
from tasks.results import Alignment, ExplainedAsset, Placement, Verdict
from tasks.storage import Bucket
from workers.delivery.job import Running
from workers.handlers.query_views import among_views
from workers.handlers.resources import Resources
from workers.images.alignment import align, thumbnail
from workers.index.codec.codec import Codes, Features
from workers.index.codec.placement import placed
from workers.index.collection.collection import Collection
from workers.index.verdicts.judge import check_searched, judge

__all__ = ["Explaining", "Searched"]

_DEPTH: Final = 100


@dataclass(frozen=True)
class Searched:
    """What a search that reaches the asset's cell says of it; see :class:`tasks.results.ExplanationResult`."""

    rank: int | None = None
    smallest_nprobe: int | None = None
    score: float | None = None
    probability: float | None = None
    threshold: float | None = None
    verdict: Verdict | None = None


class Explaining:
    """One explanation, of one asset.

    Raises:
        NotFound: no such asset is registered.
    """

    def __init__(self, resources: Resources, running: Running, collection: Collection, asset_id: str) -> None:
        entry = collection.entry_of(asset_id)
        if entry is None:
            name = collection.manifest.collection
            raise NotFound(f"Collection {name!r} has no asset {asset_id!r}: `aii index list {name}` lists them.")
        self._code: Codes = entry.code
        self._resources = resources
        self._running = running
        self._collection = collection
        self._asset_id = asset_id

    def nearest_view(self, features: Mapping[str, Features]) -> tuple[str, Placement]:
        """Of a query's views, the one that the least nprobe finds, or else the nearest one."""
        placements = {view: self._placed(feature) for view, feature in features.items()}
        view = min(placements, key=lambda name: (placements[name].cell_rank or 1, placements[name].distance))
        return view, placements[view]

    def searched(self, feature: Features, query: Placement, options: QueryOptions, views: int) -> Searched:
        """Search as many cells as it takes to meet the asset's code."""
        nprobe = query.cell_rank or 1
        answer = among_views(self._collection.search(feature, _DEPTH, nprobe), views)
        check_searched(answer.evidence)
        rank = next((i for i, match in enumerate(answer.matches) if match.asset_id == self._asset_id), None)
        if rank is None:
            return Searched()
        match, judgement = answer.matches[rank], judge(answer.evidence, options.fpr, options.threshold)
        first = rank == 0
        return Searched(
            rank + 1, nprobe if first else None, match.score, match.probability, judgement.threshold,
            judgement.verdict if first else None,
        )  # fmt: skip

    def files(self, query: Features) -> tuple[ExplainedAsset, Placement | None]:
        """What the asset's files say of a query (D,); and where that would lie if the asset were unprotected."""
        state = self._state
        if state is None or not state.job_id:
            return ExplainedAsset(), None
        original = self._feature(Bucket.ORIGINALS, state.source_sha256, state.source_sha256)
        published = self._feature(Bucket.PROTECTED, state.protected_key, state.protected_sha256)
        passive = None
        if original is not None and published is not None:
            unmoved = query + original - published
            passive = self._placed((unmoved / np.linalg.norm(unmoved)).astype(np.float32))
        return self._facts(state, query, original, published), passive

    def alignment(self, query: bytes) -> Alignment | None:
        """Where the query's picture lies in the asset's published one."""
        state = self._state
        published = self._file(Bucket.PROTECTED, state.protected_key, state.protected_sha256) if state else None
        if published is None:
            return None
        with self._running.watch.stage("align"):
            picture, frame = (self._thumbnail(data) for data in (query, published))
            place = align(picture, frame)
        return Alignment(**asdict(place), aspect=frame.width / frame.height) if place else None

    @cached_property
    def _state(self) -> AssetState | None:
        return self._collection.look_up(self._asset_id).state

    def _thumbnail(self, data: bytes) -> Image:
        with self._resources.decoded(data, self._resources.query_budget, self._running) as image:
            return thumbnail(image.pixels)

    def _facts(
        self, state: AssetState, query: Features, original: Features | None, published: Features | None
    ) -> ExplainedAsset:
        return ExplainedAsset(
            activation=state.job_id,
            original_sha256=state.source_sha256 or None,
            original=None if original is None else self._placed(original),
            distance_to_original=None if original is None else _distance(query, original),
            protected_key=state.protected_key or None,
            protected_sha256=state.protected_sha256 or None,
            published=None if published is None else self._placed(published),
            distance_to_published=None if published is None else _distance(query, published),
        )

    def _placed(self, feature: Features) -> Placement:
        return placed(self._collection.codec, self._code, feature)

    def _feature(self, bucket: Bucket, key: str, sha256: str) -> Features | None:
        """The feature (D,) of a file of the asset; None where the file is gone, or cannot be read."""
        data = self._file(bucket, key, sha256)
        if data is None:
            return None
        with suppress(BadInput):
            pixels = self._resources.input_of(data, self._resources.query_budget, self._running)
            with self._running.watch.stage("extract"):
                return self._resources.device.extract(pixels)
        return None

    def _file(self, bucket: Bucket, key: str, sha256: str) -> bytes | None:
        limit = 4 * self._resources.limits.max_bytes  # as a PNG, a protected photograph can be larger than its source
        with suppress(ObjectMissing, DigestMismatch, InvalidKey), self._running.watch.stage("fetch"):
            return self._resources.store.get_verified(bucket, key, sha256, limit)
        return None


def _distance(one: Features, other: Features) -> float:
    return float(((one - other) ** 2).sum())
