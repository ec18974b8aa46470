"""Shards: workers that search a part of the cells each answer together as one that searches them all."""

from __future__ import annotations

import logging
import threading
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from redis.exceptions import ResponseError

from producer import Producer
from tasks.errors import ShardUnavailable
from tasks.names import sha256_hex
from tasks.periodic import PeriodicThread
from tasks.results import QueryResult
from tasks.shards import Shard
from tasks.storage import Bucket
from tests.collections import EXTRACTOR, Place, add, found, trained_codec, unit_vectors
from tests.integration.test_reranking import exact
from tests.integration.test_tiers import grown
from tests.photographs import photographs
from tests.stack import WorkerProcess
from tests.waiting import LIMIT_S, wait_for
from workers.handlers.query_views import best_of
from workers.index.collection.answers import Answer
from workers.index.collection.collection import Collection
from workers.index.collection.finder import Scope, Sought
from workers.index.collection.manifest import Pointer
from workers.index.collection.open_collections import OpenCollections
from workers.index.shards.answering import ShardServer
from workers.index.shards.asking import ShardPeers
from workers.index.shards.messages import Answer as Answered
from workers.index.shards.messages import Question, answer_key, question_key, taken_key
from workers.index.verdicts.judge import check_searched, judge

__all__ = ["exact"]  # a fixture

COUNT = 4
QUERIES = unit_vectors(12, 5)
PATIENT_S = 60.0  # so that a slow machine is no silent shard


@pytest.fixture(autouse=True)
def divided(monkeypatch: pytest.MonkeyPatch) -> None:
    """A shard has its own lists only, however small they are."""
    monkeypatch.setattr("workers.index.collection.files._LEAST_DIVIDED", 0)


@contextmanager
def shards(
    place: Place, serving: int = COUNT, wait_s: float = PATIENT_S, again_s: float | None = None
) -> Iterator[list[OpenCollections]]:
    """The collections as each of four shards has them open; the first ones answer the others."""
    opened = []
    with ExitStack() as running:
        for shard in Shard(1, COUNT).all:
            peers = ShardPeers(place.redis, shard, wait_s, again_s)
            opened.append(OpenCollections(place.store, place.redis, place.cache, EXTRACTOR, peers))
            if shard.number <= serving:
                running.enter_context(answering(place, shard, opened[-1]))
        yield opened


@contextmanager
def answering(place: Place, shard: Shard, collections: OpenCollections) -> Iterator[None]:
    """A thread that answers for a shard."""
    thread = PeriodicThread("shard", 0.0, ShardServer(place.redis, collections, shard).serve_once)
    thread.start()
    try:
        yield
    finally:
        thread.stop(0)
        place.redis.rpush(shard.queue, "the end")  # which ends its waiting
        thread.stop()


@contextmanager
def refusing(place: Place, shard: Shard) -> Iterator[None]:
    """A thread that says for a shard that it cannot search: as good as none, and no matter of time."""
    answer = Answered(shard=shard.number, pointer=Pointer(generation=1, sha256="0" * 64), found=None)

    def refuse() -> None:
        if popped := place.redis.blpop([shard.queue], timeout=0.2):
            place.redis.rpush(answer_key(popped[1]), answer.model_dump_json())

    thread = PeriodicThread("refusing", 0.0, refuse)
    thread.start()
    try:
        yield
    finally:
        thread.stop()


def same(one: Answer, other: Answer) -> bool:
    """Equal in everything, to the last bit; distances among the evidence are kept in lists, and may be in arrays."""
    return one.matches == other.matches and one.journal_entry == other.journal_entry and one.evidence == other.evidence


@pytest.mark.parametrize("segments", [1, 5])
def test_shards_answer_as_one_worker_does_with_all_cells(place: Place, segments: int) -> None:
    grown(place, segments)  # some of whose entries have equal codes
    add(place.open(), "in the journal", QUERIES[0])
    alone = place.open()
    with shards(place) as opened:
        for n, nprobe in enumerate((1, 4, 16)):
            for k, where in ((600, {}), (5, {}), (5, {"round": "0"})):
                expected = alone.search_many(QUERIES, k, nprobe, where)
                answers = opened[n].get(place.name).search_many(QUERIES, k, nprobe, where)
                assert all(map(same, answers, expected))
                assert answers[0].evidence.unsearched == 0


def test_shards_answer_as_one_does_where_features_are_stored(exact: Place) -> None:
    alone = exact.open()
    with shards(exact) as opened:
        for nprobe in (1, 4):
            answers = opened[1].get(exact.name).search_many(QUERIES, 5, nprobe)
            assert all(map(same, answers, alone.search_many(QUERIES, 5, nprobe)))


def test_every_shard_sees_what_was_registered_and_removed_a_moment_ago(place: Place) -> None:
    with shards(place) as opened:
        for i in range(12):
            add(opened[i % COUNT].get(place.name), f"new-{i}", QUERIES[i])
            asked = opened[(i + 1) % COUNT].get(place.name)
            assert f"new-{i}" in found(asked, QUERIES[i])
            place.remove(f"new-{i}")
            assert f"new-{i}" not in found(asked, QUERIES[i])


def test_shards_of_which_some_have_not_followed_yet_answer_from_what_all_have(place: Place) -> None:
    with shards(place) as opened:
        collections = [one.get(place.name) for one in opened]
        for i in range(3):
            add(collections[0], f"new-{i}", QUERIES[i])
            place.remove(f"old-{i}")
            place.compact()
            expected = [distances(answer) for answer in place.open().search_many(QUERIES, 600, 16)]
            for following in collections:
                following.follow()
                for asking in (following, collections[-1]):
                    answers = asking.search_many(QUERIES, 600, 16)
                    for one, other in zip(answers, expected, strict=True):
                        assert distances(one) == pytest.approx(other, abs=1e-5)
                    assert {answer.evidence.unsearched for answer in answers} == {0}
                    assert answers[0].generation == collections[-1].manifest.generation  # no question made it follow
            assert collections[-1].manifest.generation == i + 2


def distances(answer: Answer) -> dict[str, float]:
    """Of the matches; the order of equal ones is that of the segments, which generations differ in."""
    return {match.asset_id: match.distance for match in answer.matches}


def test_a_shard_that_is_further_behind_is_silent_and_downloads_nothing_for_a_question(place: Place) -> None:
    with shards(place) as opened:
        collections = [one.get(place.name) for one in opened]
        for _ in range(2):
            add(collections[0], "new", QUERIES[0])
            place.compact()
            for following in collections[:3]:
                following.follow()
        answer = collections[0].search(QUERIES[0], 5, 16)
        assert (answer.generation, answer.evidence.unsearched) == (3, 0.25)
        assert collections[3].manifest.generation == 1


class Downloading(OpenCollections):
    """Opens nothing before it is told."""

    told: threading.Event

    def get(self, name: str) -> Collection:
        assert self.told.wait(LIMIT_S)
        return super().get(name)


def test_a_question_about_a_collection_that_is_being_downloaded_is_answered_later(
    place: Place,
) -> None:
    own, other = Shard(1, 2).all
    peers = ShardPeers(place.redis, own, PATIENT_S, PATIENT_S)
    at_hand = OpenCollections(place.store, place.redis, place.cache, EXTRACTOR, peers)
    away = Downloading(place.store, place.redis, place.cache, EXTRACTOR)
    away.told = threading.Event()
    server = ShardServer(place.redis, away, other)
    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(at_hand.get(place.name).search_many, QUERIES, 5, 16)
        wait_for(lambda: place.redis.llen(other.queue), "no question")
        server.serve_once()  # comes back at once
        assert not answer.done()
        away.told.set()

        def served() -> bool:
            server.serve_once()
            return answer.done()

        wait_for(served, "the question was not taken again")
        assert all(map(same, answer.result(LIMIT_S), place.open().search_many(QUERIES, 5, 16)))


def test_a_question_is_left_to_a_worker_of_the_shard_that_has_the_collection_open(place: Place) -> None:
    with shards(place, serving=0) as opened:
        collection, other = opened[0].get(place.name), Shard(2, COUNT)
        opened[1].get(place.name)
        away = Downloading(place.store, place.redis, place.cache, EXTRACTOR)
        away.told = threading.Event()
        number = uuid.uuid4().hex
        question = Question.of(scope_of(collection), [Sought(collection.codec.probe(QUERIES[0], 16), 5)])
        place.redis.set(question_key(number), question.model_dump_json(), ex=60)
        place.redis.rpush(other.queue, number)
        downloading = ShardServer(place.redis, away, other)
        try:
            for _ in range(3):  # however often it is that worker's turn
                downloading.serve_once()
            ShardServer(place.redis, opened[1], other).serve_once()
            assert place.redis.llen(answer_key(number)) == 1
        finally:
            away.told.set()
            wait_for(lambda: away.if_open(place.name), "the collection was not opened")


def test_a_collection_that_no_thread_could_be_started_for_is_opened_by_the_next_question(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    collections = OpenCollections(place.store, place.redis, place.cache, EXTRACTOR)
    server, shard = ShardServer(place.redis, collections, Shard(2, COUNT)), Shard(2, COUNT)
    collection, number = place.open(), uuid.uuid4().hex
    question = Question.of(scope_of(collection), [Sought(collection.codec.probe(QUERIES[0], 16), 5)])
    place.redis.set(question_key(number), question.model_dump_json(), ex=60)
    place.redis.rpush(shard.queue, number)

    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", refuse)
        with pytest.raises(RuntimeError):
            server.serve_once()

    def answered() -> bool:
        server.serve_once()
        return bool(place.redis.llen(answer_key(number)))

    wait_for(answered, "the collection was not opened")


def test_a_collection_that_cannot_be_opened_is_not_tried_again_at_once(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    pauses: list[float] = []
    monkeypatch.setattr("workers.index.shards.answering.time", SimpleNamespace(sleep=pauses.append))
    collection, shard, number = place.open(), Shard(2, COUNT), uuid.uuid4().hex
    question = Question.of(scope_of(collection), [Sought(collection.codec.probe(QUERIES[0], 16), 5)])
    question = question.model_copy(update={"collection": f"missing-{number}"})
    place.redis.set(question_key(number), question.model_dump_json(), ex=60)
    place.redis.rpush(shard.queue, number)
    collections = OpenCollections(place.store, place.redis, place.cache, EXTRACTOR)
    ShardServer(place.redis, collections, shard).serve_once()
    wait_for(lambda: 0.5 in pauses, "it would be tried again at once")


def test_the_previous_generation_is_let_go_after_a_while(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("workers.index.collection.collection._KEPT_S", -1.0)
    with shards(place, serving=0) as opened:
        collection, shard = opened[0].get(place.name), Shard(1, COUNT)
        add(collection, "new", QUERIES[0])
        before = collection.pointer
        place.compact()
        collection.follow()
        assert collection.find(before, [], shard) == (before, [])
        collection.catch_up()
        assert collection.find(before, [], shard) == (collection.pointer, None)


def test_a_collection_that_was_built_again_is_not_searched_with_what_it_was_before(place: Place) -> None:
    with shards(place) as opened:
        collections = [one.get(place.name) for one in opened]
        codec, features = trained_codec(), unit_vectors(30, 9)
        place.publish(codec, [f"other-{i}" for i in range(30)], codec.encode(features))
        collections[0].follow()
        answer = collections[0].search(QUERIES[0], 600, 16)
        assert answer.evidence.unsearched == 0.75
        assert all(match.asset_id.startswith("other-") for match in answer.matches)


def test_a_generation_is_named_as_it_was_published_by_a_version_that_writes_manifests_differently(place: Place) -> None:
    text = place.files.current().model_dump_json(exclude_defaults=True, indent=2).encode()
    pointer = Pointer(generation=1, sha256=sha256_hex(text))
    place.journal.note_manifest(pointer, None)
    place.store.put(
        Bucket.COLLECTIONS, f"{place.name}/generations/00000001-{pointer.sha256}.json", text, "application/json"
    )
    named = pointer.model_dump_json().encode()
    place.store.put(Bucket.COLLECTIONS, f"{place.name}/current.json", named, "application/json")
    assert place.open().pointer == pointer


def test_an_answer_without_a_shard_says_so_and_claims_nothing_of_what_was_not_searched(place: Place) -> None:
    with shards(place, serving=3) as opened, refusing(place, Shard(4, COUNT)):
        whole = place.open().search_many(QUERIES, 600, 16)
        for answer, complete in zip(opened[0].get(place.name).search_many(QUERIES, 600, 16), whole, strict=True):
            assert answer.evidence.unsearched == 0.25  # of 16 cells
            missed = {match.asset_id for match in complete.matches} - {match.asset_id for match in answer.matches}
            assert missed
            judged = judge(replace(answer.evidence, distances=[9.0]))
            assert judged.verdict == "incomplete"
            assert judged.assessment.unsearched == 0.25
            assert "25% of the cells were not searched" in judged.assessment.reason


def test_cells_that_other_shards_answer_for_do_not_count_as_missing(place: Place) -> None:
    with shards(place, serving=3) as opened, refusing(place, Shard(4, COUNT)):
        codec = opened[0].get(place.name).codec
        of_others = [q for q in QUERIES if codec.probe(q, 1).cells[0][0] < 12]  # type: ignore[index]
        answer = opened[0].get(place.name).search_many(np.array(of_others[:1]), 5, 1)[0]
        expected = place.open().search_many(np.array(of_others[:1]), 5, 1)[0]
        assert answer.matches[0].distance == expected.matches[0].distance


def test_a_question_that_a_worker_died_with_is_asked_again(place: Place) -> None:
    with shards(place, serving=3, again_s=0.2) as opened, ThreadPoolExecutor() as threads:
        answer = threads.submit(opened[0].get(place.name).search, QUERIES[0], 5, 16)
        popped = place.redis.blpop([Shard(4, COUNT).queue], timeout=PATIENT_S)
        assert popped
        place.redis.set(taken_key(popped[1], 4), 1)  # and no answer
        with answering(place, Shard(4, COUNT), opened[3]):
            assert same(answer.result(), place.open().search(QUERIES[0], 5, 16))


def scope_of(collection: Collection) -> Scope:
    return Scope(collection.manifest.collection, collection.pointer, collection.codec.cells, strict=False)


def test_a_question_is_searched_for_once_and_by_no_one_when_its_query_has_gone_on(place: Place) -> None:
    with shards(place, serving=0) as opened:
        collection, other = opened[0].get(place.name), Shard(2, COUNT)
        opened[1].get(place.name)
        question = Question.of(scope_of(collection), [Sought(collection.codec.probe(QUERIES[0], 16), 5)])
        place.redis.set(question_key("asked"), question.model_dump_json(), ex=60)
        place.redis.rpush(other.queue, "asked", "asked")
        for _ in range(2):
            ShardServer(place.redis, opened[1], other).serve_once()
        assert place.redis.llen(answer_key("asked")) == 1
    with shards(place, serving=0, wait_s=0.2) as opened:
        opened[0].get(place.name).search(QUERIES[0], 5, 16)
        ShardServer(place.redis, opened[1], other).serve_once()
        assert place.redis.keys("aii:search:*") == [*place.redis.keys("aii:search:asked*")]


def test_an_answer_that_came_in_time_counts_however_long_the_asking_worker_searched_itself(place: Place) -> None:
    with shards(place, serving=0) as opened:
        collection, other = opened[0].get(place.name), Shard(2, COUNT)
        opened[1].get(place.name)
        sought = [Sought(collection.codec.probe(QUERIES[0], 16), 5)]
        pending = ShardPeers(place.redis, Shard(1, COUNT), PATIENT_S, 0.0).ask(scope_of(collection), sought, [other])
        ShardServer(place.redis, opened[1], other).serve_once()
        pending._wait_s = 0.0  # type: ignore[attr-defined]  # it is over
        found, silent = pending.answers()
        assert len(found) == 1
        assert silent == []


def test_a_shard_whose_questions_cannot_be_read_pauses_between_its_tries(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    pauses: list[float] = []
    monkeypatch.setattr("workers.index.shards.answering.time", SimpleNamespace(sleep=pauses.append))
    with shards(place, serving=0) as opened:
        place.redis.set(Shard(1, COUNT).queue, "no list")
        with pytest.raises(ResponseError):
            ShardServer(place.redis, opened[0], Shard(1, COUNT)).serve_once()
    assert len(pauses) == 1


def test_what_was_not_searched_for_one_view_counts_for_the_best_one(place: Place) -> None:
    whole = place.open().search(QUERIES[0], 5, 16)
    partial = replace(whole, evidence=replace(whole.evidence, distances=[9.0], unsearched=0.25))
    view, answer = best_of({"as_is": whole, "mirror": partial})
    assert view == "as_is"
    assert judge(answer.evidence, threshold=0.0).verdict == "incomplete"
    with pytest.raises(ShardUnavailable):
        check_searched(answer.evidence)


def test_a_message_that_is_none_is_logged_and_the_next_one_answered(
    place: Place, caplog: pytest.LogCaptureFixture
) -> None:
    with shards(place) as opened, caplog.at_level(logging.WARNING):
        place.redis.set("aii:search:odd", "{}", ex=60)
        place.redis.rpush(Shard(2, COUNT).queue, "odd", "none")
        answer = opened[0].get(place.name).search(QUERIES[0], 5, 16)
        assert same(answer, place.open().search(QUERIES[0], 5, 16))
    assert "cannot be answered" in caplog.text


def test_a_query_is_answered_without_a_worker_that_was_killed_and_says_so(
    start_worker: Callable[..., WorkerProcess], producer: Producer
) -> None:
    image = photographs()["rocket.jpg"]
    start_worker(AII_SHARD="1/2", AII_SHARD_WAIT_S="2")
    killed = start_worker(AII_SHARD="2/2", queues="activate")  # so that the other takes all queries

    def asked() -> QueryResult:
        result = producer.query(image).wait(LIMIT_S)
        assert isinstance(result, QueryResult)
        return result

    asset = producer.activate(image).wait(LIMIT_S).asset_id
    wait_for(lambda: asked().assessment.unsearched == 0, "the other shard did not answer")  # type: ignore[union-attr]
    killed.kill()
    partial = asked()
    assert partial.assessment is not None
    assert 0 < partial.assessment.unsearched < 1
    assert partial.matches[0].asset_id == asset  # of the journal, which each worker has as a whole
    assert partial.verdict == "possible"
    assert "were not searched" in partial.assessment.reason
