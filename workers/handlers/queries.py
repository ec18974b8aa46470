"""What is done for queries, and for what people ask and say about their answers."""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np

from tasks.assets.feedback import Said
from tasks.messages import ExplainRequest, FeedbackRequest, QueryOptions, QueryRequest
from tasks.results import ExplanationResult, FeedbackResult, QueryResult
from tasks.storage import Bucket
from workers.delivery.job import Running
from workers.handlers.explaining import Explaining
from workers.handlers.query_views import best_of, views_of
from workers.handlers.resources import Resources
from workers.index.codec.codec import Features
from workers.index.collection.answers import Answer
from workers.index.collection.collection import Collection
from workers.index.verdicts.judge import Judgement, check_searched, judge

__all__ = ["QueryHandlers"]


@dataclass(frozen=True)
class _Asked:
    """A query that was searched for: with which options, all of them said; the features (D,) of its views; and the
    answer of the best of them."""

    collection: Collection
    options: QueryOptions
    data: bytes
    digest: str
    features: dict[str, Features]
    rejected: frozenset[str]
    view: str
    answer: Answer
    judgement: Judgement


class QueryHandlers:
    """The work behind the tasks `query`, `explain` and `feedback`. Thread-safe."""

    def __init__(self, resources: Resources) -> None:
        self._resources = resources

    def query(self, request: QueryRequest, running: Running) -> QueryResult:
        """Find the assets nearest to one image.

        Raises:
            AiiError: one of the tree, for an image or a request that cannot be used.
        """
        asked = self._asked(request, running)
        return QueryResult(
            job_id=running.job_id,
            collection=request.collection,
            generation=asked.answer.generation,
            journal_entry=asked.answer.journal_entry,
            source_sha256=asked.digest,
            extractor=self._resources.extractor,
            matches=asked.answer.matches,
            threshold=asked.judgement.threshold,
            verdict=asked.judgement.verdict,
            assessment=asked.judgement.assessment.model_copy(update={"view": asked.view}),
            options=asked.options,
            provenance=running.provenance(),
        )

    def explain(self, request: ExplainRequest, running: Running) -> ExplanationResult:
        """Say why a query finds an asset, or does not.

        Raises:
            NotFound: no such asset is registered.
            AiiError: another one of the tree, for an image or a request that cannot be used.
        """
        asked = self._asked(request, running)
        check_searched(asked.answer.evidence)
        explaining = Explaining(self._resources, running, asked.collection, request.asset_id)
        view, query = explaining.nearest_view(asked.features)
        with running.watch.stage("search"):
            then = explaining.searched(asked.features[view], query, asked.options, len(asked.features))
        asset, passive = explaining.files(asked.features[view])
        return ExplanationResult(
            job_id=running.job_id,
            collection=request.collection,
            generation=asked.answer.generation,
            asset_id=request.asset_id,
            source_sha256=asked.digest,
            extractor=self._resources.extractor,
            found=any(match.asset_id == request.asset_id for match in asked.answer.matches),
            verdict=asked.judgement.verdict,
            reason=asked.judgement.assessment.reason,
            rejected=request.asset_id in asked.rejected,
            view=view,
            cells=asked.collection.codec.cells or None,
            query=query,
            rank=then.rank,
            smallest_nprobe=then.smallest_nprobe,
            score=then.score,
            probability=then.probability,
            threshold=then.threshold,
            verdict_then=then.verdict,
            asset=asset,
            passive=passive,
            alignment=explaining.alignment(asked.data),
            options=asked.options,
            provenance=running.provenance(),
        )

    def feedback(self, request: FeedbackRequest, running: Running) -> FeedbackResult:
        """Keep what a person thinks of a match.

        Raises:
            CollectionMissing: there is no such collection.
        """
        collections = self._resources.collections
        collections.get(request.collection)
        said = Said(
            source_sha256=request.source_sha256,
            asset_id=request.asset_id,
            opinion=request.opinion,
            job_id=running.job_id,
            query_job=request.query_job,
            at=time.time(),
        )
        running.begin_publishing()
        collections.feedback(request.collection).keep(said)
        return FeedbackResult(
            status="rejected" if request.opinion == "reject" else "confirmed",
            job_id=running.job_id,
            collection=request.collection,
            asset_id=request.asset_id,
            source_sha256=request.source_sha256,
            opinion=request.opinion,
            query_job=request.query_job,
            provenance=running.provenance(),
        )

    def _asked(self, request: QueryRequest | ExplainRequest, running: Running) -> _Asked:
        collection = self._resources.collections.get(request.collection)
        data, digest = self._resources.image_of(Bucket.QUERIES, request.source, running)
        options = collection.settled(request.options)
        image = self._resources.input_of(data, self._resources.query_budget, running)
        with running.watch.stage("decode"):
            views = views_of(image, options.views)
        with running.watch.stage("extract"):
            features = {view: self._resources.device.extract(pixels) for view, pixels in views.items()}
        with running.watch.stage("search"):
            rejected = self._resources.collections.feedback(request.collection).rejected(digest)
            found = collection.search_many(
                np.stack(list(features.values())), options.top_k, options.nprobe, options.where, rejected
            )
            answers = dict(zip(features, found, strict=True))
            view, answer = best_of(answers)
            judgement = judge(answer.evidence, options.fpr, options.threshold)
        return _Asked(collection, options, data, digest, features, rejected, view, answer, judgement)
