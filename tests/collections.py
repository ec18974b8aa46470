"""A small collection over random features, on the session's real Redis and S3."""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path

import numpy as np
import redis

from tasks.connection import connect_redis, redis_address
from tasks.results import ExtractorIdentity
from tasks.settings import Settings
from tasks.storage import ObjectStore
from workers.index import upkeep
from workers.index.build import publish_first
from workers.index.codec import Codec, Codes, Features
from workers.index.collection import Collection
from workers.index.journal import Journal
from workers.index.manifest import CollectionStore, Manifest

DIMENSION = 16
EXTRACTOR = ExtractorIdentity(name="random", sha256="0" * 64, dimension=DIMENSION)


def unit_vectors(count: int, seed: int) -> Features:
    values = np.random.default_rng(seed).standard_normal((count, DIMENSION)).astype(np.float32)
    return values / np.linalg.norm(values, axis=1, keepdims=True)


@cache
def trained_codec() -> Codec:
    return Codec.train("IVF16,PQ8x4", unit_vectors(2_000, 0))


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
        publish_first(place.files, place.name, codec, EXTRACTOR, assets, codec.encode(features), 0.5, 0.01)
        return place

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
        return Journal(self.redis, redis_address(self.settings), self.name)

    def open(self, extractor: ExtractorIdentity = EXTRACTOR) -> Collection:
        return Collection(self.files, self.journal, extractor)

    def compact(self) -> Manifest:
        return upkeep.compact(self.files, self.journal)

    def close(self) -> None:
        self.redis.close()
        self.store.disconnect()


def code_of(collection: Collection, feature: Features) -> Codes:
    return collection.codec.encode(feature[None])[0]


def add(collection: Collection, asset_id: str, feature: Features, **meta: str) -> str:
    return collection.register(asset_id, code_of(collection, feature), meta)


def found(collection: Collection, feature: Features, k: int = 5, **where: str) -> list[str]:
    return [match.asset_id for match in collection.search(feature, k, 16, where).matches]
