"""What is done for a look-up: a search for vectors that were extracted elsewhere, all at once."""

from __future__ import annotations

from typing import Final

import numpy as np

from tasks.errors import ExtractorMismatch, InvalidRequest
from tasks.messages import LookupRequest
from tasks.results import LookupAnswer, LookupResult
from tasks.storage import Bucket
from workers.delivery.job import Running
from workers.handlers.resources import Resources
from workers.index.codec.codec import Features
from workers.index.collection.answers import Answer
from workers.index.verdicts.judge import judge

__all__ = ["LookupHandler", "judged"]

_LARGEST: Final = 1_000_000  # its square, times all dimensions, is a float32
_MOST_BYTES: Final = 2 * 2**20  # half of what is read as a document; Redis holds it for a moment


class LookupHandler:
    """The work behind the task `lookup`. Thread-safe."""

    def __init__(self, resources: Resources) -> None:
        self._resources = resources

    def look_up(self, request: LookupRequest, running: Running) -> LookupResult:
        """Find the assets nearest to each vector.

        Raises:
            ExtractorMismatch: the vectors are of another extractor than the collection.
            InvalidRequest: they are not such vectors.
        """
        resources = self._resources
        collection = resources.collections.get(request.collection)
        options = collection.settled(request.options)
        if request.extractor not in (None, resources.extractor.sha256):
            raise ExtractorMismatch(
                f"The vectors are of extractor {str(request.extractor)[:12]}, the collection {request.collection!r} is "
                f"of {resources.extractor.name} {resources.extractor.sha256[:12]}: extract them with that one."
            )
        data = resources.fetch(Bucket.QUERIES, request.source.sha256, running)
        vectors = vectors_of(data, request, collection.codec.dimension)
        with running.watch.stage("search"):
            answers = collection.search_many(vectors, options.top_k, options.nprobe, options.where)
            found = [judged(answer, request) for answer in answers]
        result = LookupResult(
            job_id=running.job_id,
            collection=request.collection,
            generation=answers[0].generation,
            journal_entry=answers[0].journal_entry,
            source_sha256=request.source.sha256,
            extractor=resources.extractor,
            answers=found,
            options=options,
            provenance=running.provenance(),
        )
        if len(result.model_dump_json()) > _MOST_BYTES:
            raise InvalidRequest("The answers are too long for one document: ask for fewer vectors, or fewer matches.")
        return result


def vectors_of(data: bytes, request: LookupRequest, dimension: int) -> Features:
    """The vectors (N, D) float32 of an uploaded object.

    Raises:
        InvalidRequest: they have another dimension, there are more or fewer, or one has a value that is no number.
    """
    if request.dimension != dimension:
        raise InvalidRequest(
            f"The vectors have {request.dimension} values each, those of the collection have {dimension}."
        )
    if len(data) != 4 * request.vectors * dimension:
        raise InvalidRequest(f"{request.vectors} vectors of {dimension} float32 are not {len(data)} bytes.")
    vectors = np.frombuffer(data, dtype="<f4").reshape(-1, dimension).astype(np.float32)
    if not np.isfinite(vectors).all():
        raise InvalidRequest("A vector has a value that is no finite number.")
    if np.abs(vectors).max() > _LARGEST:
        raise InvalidRequest(f"A vector has a value above {_LARGEST:,}; extractors give vectors of length 1.")
    return vectors


def judged(answer: Answer, request: LookupRequest) -> LookupAnswer:
    """What is said of one vector."""
    judgement = judge(answer.evidence, request.options.fpr, request.options.threshold)
    return LookupAnswer(
        matches=answer.matches,
        threshold=judgement.threshold,
        verdict=judgement.verdict,
        assessment=judgement.assessment,
    )
