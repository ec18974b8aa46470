"""What a look-up by vector takes of a core: ``python -m tests.benchmarks.lookups [--size N] [--profile]``.

Codes and centroids are random (IVF4096,PQ8x8, 512-d): costs depend on their numbers only. The collection has a
background of 4,096 features, its distractors, and the starter collection's calibration, as a real one has. Files, Redis
and S3 are real. Each batch is answered as the job `lookup` answers it: searched, judged and written as JSON; fetching
the vectors and storing the document, which a job does once for its up to 1,000 vectors, are left out. Times are of a
core, not of a clock: a busy machine prolongs them less.
"""

from __future__ import annotations

import cProfile
import pstats
import tempfile
import time
from pathlib import Path
from typing import Final

import click
import faiss
import numpy as np

from tasks.messages import LookupRequest, QueryOptions, Source
from tests.benchmarks.index import DIMENSION, EXTRACTOR
from tests.benchmarks.scale import random_codec, random_codes
from tests.collections import Place, anyway
from tests.stack import running_stack, settings_of
from workers.handlers.lookups import judged
from workers.index.codec.codec import Codec, Codes, Features
from workers.index.collection.collection import Collection
from workers.index.maintenance import starter
from workers.index.maintenance.build import NewCollection, publish_first
from workers.index.verdicts.background import Background

PHOTOGRAPHS: Final = 3_072
PLAIN: Final = 1_024
CHANGES: Final = 1_000
ROUNDS: Final = 5


@click.command(help=__doc__)
@click.option("--size", default=10**7, show_default=True, help="Codes in the collection.")
@click.option("--batch", "batches", multiple=True, type=int, default=(1, 10, 100, 1_000), show_default=True)
@click.option("--profile", is_flag=True, help="Say which functions take it, for the largest batch at nprobe 1.")
def main(size: int, batches: tuple[int, ...], profile: bool) -> None:
    faiss.omp_set_num_threads(1)
    codec = random_codec()
    with tempfile.TemporaryDirectory() as folder, running_stack(Path(folder)):
        place = Place(f"lookups-{size}", settings_of(Path(folder)), Path(folder) / "cache")
        place.store.ensure_buckets()
        publish(place, codec, random_codes(codec, size, 1))
        collection = place.open(EXTRACTOR)
        vectors = codec.decode(random_codes(codec, max(batches), 3))
        for journal in (0, CHANGES):
            for code in random_codes(codec, journal, 4):
                collection.register(f"new-{code.tobytes().hex()}", code, {})
            for nprobe in (1, 16):
                for batch in batches:
                    told = measured(collection, vectors[:batch], nprobe)
                    click.echo(f"{size:,} codes, {journal:,} in the journal, nprobe {nprobe}, {batch} at once: {told}")
        if profile:
            profiled(collection, vectors)
        place.close()


def publish(place: Place, codec: Codec, codes: Codes) -> None:
    features = np.random.default_rng(5).standard_normal((PHOTOGRAPHS + PLAIN, DIMENSION), dtype=np.float32)
    features /= np.linalg.norm(features, axis=1, keepdims=True)
    new = NewCollection(
        place.name, codec, EXTRACTOR,
        calibration=starter.read_card().calibration, distractors=codec.encode(features),
        background=Background(features, PHOTOGRAPHS),
    )  # fmt: skip
    publish_first(place.files, place.journal, new, [f"asset-{i:08d}" for i in range(len(codes))], codes, anyway)


def measured(collection: Collection, vectors: Features, nprobe: int) -> str:
    taken = []
    for _ in range(ROUNDS):
        began = time.process_time()
        looked_up(collection, vectors, nprobe)
        taken.append((time.process_time() - began) / len(vectors))
    least = min(taken)
    return f"{1000 * least:.3f} ms of a core each, {1 / least:,.0f} a second and core"


def looked_up(collection: Collection, vectors: Features, nprobe: int) -> int:
    """Bytes of the answers."""
    request = LookupRequest(
        collection=collection.manifest.collection, source=Source(sha256="0" * 64, size=vectors.nbytes),
        vectors=len(vectors), dimension=vectors.shape[1], nonce="0", options=QueryOptions(top_k=5, nprobe=nprobe),
    )  # fmt: skip
    answers = collection.search_many(vectors, request.options.top_k, nprobe)
    return sum(len(judged(answer, request).model_dump_json()) for answer in answers)


def profiled(collection: Collection, vectors: Features) -> None:
    profile = cProfile.Profile()
    with profile:
        looked_up(collection, vectors, 1)
    pstats.Stats(profile).sort_stats("tottime").print_stats(20)


if __name__ == "__main__":
    main()
