"""A small collection over random features, on the session's real Redis and S3."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path

import numpy as np
import redis

from tasks.assets.records import AssetRecord
from tasks.connection import connect_redis
from tasks.documents import write_result
from tasks.messages import ActivationOptions
from tasks.results import ActivationResult, ExtractorIdentity, Provenance, Quality, Verification
from tasks.settings import Settings
from tasks.storage import ObjectStore
from workers.index.codec.codec import Codec, Codes, Features
from workers.index.collection.collection import Collection
from workers.index.collection.files import CollectionStore
from workers.index.collection.journal import Journal, encode_code
from workers.index.collection.manifest import Manifest
from workers.index.maintenance import upkeep
from workers.index.maintenance.build import NewCollection, publish_first
from workers.index.maintenance.repair import Repaired, repair

DIMENSION = 16
EXTRACTOR = ExtractorIdentity(name="random", sha256="0" * 64, dimension=DIMENSION)


def unit_vectors(count: int, seed: int) -> Features:
    values = np.random.default_rng(seed).standard_normal((count, DIMENSION)).astype(np.float32)
    return values / np.linalg.norm(values, axis=1, keepdims=True)


@cache
def trained_codec() -> Codec:
    return Codec.train("IVF16,PQ8x4", unit_vectors(2_000, 0))


def anyway() -> None:
    """For callers that write without the collection's lock: nothing to check."""


@dataclass(frozen=True)
class Place:
    """Where one collection lives."""

    name: str
    settings: Settings
    cache: Path

    @classmethod
    def published(cls, settings: Settings, cache: Path, count: int = 500) -> Place:
        """With assets `old-0`, `old-1` … of the first unit vectors."""
        place = cls(f"random-{uuid.uuid4().hex[:12]}", settings, cache)
        codec, features = trained_codec(), unit_vectors(count, 0)
        assets = [f"old-{i}" for i in range(count)]
        place.publish(codec, assets, codec.encode(features))
        return place

    def publish(self, codec: Codec, assets: Sequence[str], codes: Codes) -> Manifest:
        """Publish as generation 1, without the collection's lock."""
        new = NewCollection(self.name, codec, EXTRACTOR, 0.5, 0.01)
        return publish_first(self.files, self.journal, new, assets, codes, anyway)

    @cached_property
    def store(self) -> ObjectStore:
        return ObjectStore.connect(self.settings)

    @cached_property
    def redis(self) -> redis.Redis:
        return connect_redis(self.settings)

    @property
    def files(self) -> CollectionStore:
        return CollectionStore(self.store, self.name, self.cache)

    @property
    def journal(self) -> Journal:
        return Journal(self.redis, self.name)

    def open(self, extractor: ExtractorIdentity = EXTRACTOR) -> Collection:
        return Collection(self.files, self.journal, extractor)

    def compact(self, *, whole: bool = False) -> Manifest:
        return upkeep.compact(self.files, self.journal, anyway, whole=whole)

    def rollback(self, number: int) -> Manifest:
        return upkeep.rollback(self.files, self.journal, number, anyway)

    def repair(self, progress: Callable[[int, int], None] = lambda *_: None, *, read_all: bool = False) -> Repaired:
        return repair(self.store, self.files, self.journal, progress, read_all=read_all)

    def remove(self, asset_id: str) -> str:
        return upkeep.remove(self.files, self.journal, asset_id)

    def changes(self) -> int:
        """Entries of the journal that the current generation does not cover."""
        return len(list(self.journal.all_after(self.files.current().journal_entry)))

    def document(
        self, asset_id: str, code: Codes, entry: str, meta: Mapping[str, str] | None = None, job_id: str = ""
    ) -> None:
        """Write the result document of an activation that registered a code at a journal's entry."""
        result = made_activation(self.name, self.files.current().codec, asset_id, code, entry, dict(meta or {}))
        result = result.model_copy(update={"job_id": job_id or result.job_id})
        write_result(self.store, result.job_id, result)

    def committed(self, asset_id: str, code: Codes, entry: str = "") -> ActivationResult:
        """Register a code, unless it was at that entry, and write record and document, as an activation does."""
        entry = entry or self.journal.add(asset_id, code, {})
        result = made_activation(self.name, self.files.current().codec, asset_id, code, entry, {})
        self.files.assets.put(AssetRecord.of(result, 1))
        write_result(self.store, result.job_id, result)
        return result

    def activated(self, asset_id: str, code: Codes, **meta: str) -> str:
        """Register a code and write the result document, as an activation does; returns the journal's entry."""
        entry = self.journal.add(asset_id, code, meta)
        self.document(asset_id, code, entry, meta)
        return entry

    def close(self) -> None:
        self.redis.close()


def code_of(collection: Collection, feature: Features) -> Codes:
    return collection.codec.encode(feature[None])[0]


def add(collection: Collection, asset_id: str, feature: Features, **meta: str) -> str:
    return collection.register(asset_id, code_of(collection, feature), meta)


def found(collection: Collection, feature: Features, k: int = 5, **where: str) -> list[str]:
    return [match.asset_id for match in collection.search(feature, k, 16, where).matches]


def made_activation(
    collection: str, codec: str, asset_id: str, code: Codes, entry: str, meta: dict[str, str]
) -> ActivationResult:
    """The result document of an activation whose image and options are no one's."""
    digest = "0" * 64
    return ActivationResult(
        status="activated", job_id=uuid.uuid4().hex, collection=collection, generation=1, asset_id=asset_id,
        source_sha256=digest, protected_key="none", protected_sha256=digest, width=8, height=8, extractor=EXTRACTOR,
        codec=codec, code=encode_code(code), journal_entry=entry, meta=meta, options=ActivationOptions(),
        quality=Quality(psnr_db=40, ssim=1, linf=1),
        verification=Verification(
            verified=True, on_code=True, attempts=1, steps=1, distance_before=1, distance_after=0, loss_before=1,
            loss_after=0,
        ),
        provenance=Provenance(worker="test", device="cpu", versions={}, timings_ms={}, finished_at="now"),
    )  # fmt: skip
