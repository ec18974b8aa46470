"""Result documents that the segments are known to hold are not read by a repair, and no image is lost by that."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import closing
from functools import partial
from pathlib import Path

import pytest
import redis
from pydantic import SecretStr

from tasks.errors import CorruptSegment
from tasks.ledger.ledger import Ledger
from tasks.messages import ActivateRequest, Source
from tasks.names import journal_stream, result_key
from tasks.results import ActivationResult
from tasks.settings import Settings
from tasks.storage import Bucket, ObjectStore
from tests.collections import EXTRACTOR, Place, anyway, found, made_activation, trained_codec, unit_vectors
from tests.moto_server import moto_server
from tests.own_redis import OwnRedis
from tests.running import Runs
from tests.waiting import wait_for
from workers.delivery.job import Kind, Publication, Running
from workers.handlers.image_jobs import registration_of
from workers.index.collection.open_collections import OpenCollections
from workers.index.collection.settling import Settling
from workers.index.maintenance import upkeep
from workers.index.maintenance.continuity import Continuity
from workers.index.maintenance.document_list import listed
from workers.index.maintenance.transfer import export_collection, import_collection

NEW = unit_vectors(20, 1)
CODES = trained_codec().encode(NEW)


@pytest.fixture(autouse=True)
def _one_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """The store has one host here, so nothing has to be allowed for clocks that differ."""
    for module in ("collection.settling", "maintenance.repair", "maintenance.build"):
        monkeypatch.setattr(f"workers.index.{module}.MARGIN_MS", 0)


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """An hour is over at once."""
    for module in ("collection.settling", "maintenance.continuity"):
        monkeypatch.setattr(f"workers.index.{module}.GRACE_MS", 0)


@pytest.fixture
def continuity(place: Place) -> Continuity:
    return Continuity(OpenCollections(place.store, place.redis, place.cache, EXTRACTOR), place.redis, place.store)


def newest_ms(store: ObjectStore) -> int:
    """When the last document was written, by the store's clock."""
    times = [item["last_modified"].timestamp() for page in store.pages(Bucket.RESULTS, "") for item in page]
    return int(1000 * max(times, default=0))


def settle(place: Place) -> int:
    """Follow the store's clock until it has passed all documents; returns for how long something is unsettled."""
    last = newest_ms(place.store)
    past = wait_for(lambda: (now := place.files.now_ms()) > last and now)
    return place.journal.settling.follow(past)


def sealed(place: Place) -> None:
    """Compact, when all documents have been settled."""
    assert settle(place) == -1
    place.compact()


def before_ms(place: Place) -> int:
    settled = place.files.current().settled
    assert settled is not None
    return settled.before_ms


def code_at(place: Place, asset_id: str) -> bytes | None:
    collection = place.open()
    collection.catch_up()
    entry = collection.entry_of(asset_id)
    return entry.code.tobytes() if entry else None


def lose(place: Place, asset_id: str, entry: str) -> None:
    """As if Redis had been killed before an entry was on its disk."""
    place.redis.xdel(journal_stream(place.name), entry)
    place.redis.hdel(f"{journal_stream(place.name)}:live", asset_id)
    place.redis.hset(f"{journal_stream(place.name)}:state", "server", "the one before")


# ── what is passed over ──────────────────────────────────────────────────────────────────────────────────────────────


def test_documents_that_the_segments_hold_are_not_read_and_everything_is_there_after_redis_was_emptied(
    place: Place,
) -> None:
    for i in range(5):
        place.committed(f"new-{i}", CODES[i])
    sealed(place)
    place.committed("new-5", CODES[5])
    place.redis.flushall()
    repaired = place.repair()
    assert (repaired.documents, repaired.passed_over, repaired.assets, repaired.registered) == (6, 5, 1, 1)
    assert [found(place.open(), NEW[i], k=1) for i in range(6)] == [[f"new-{i}"] for i in range(6)]
    read_all = place.repair(read_all=True)
    assert (read_all.passed_over, read_all.assets, read_all.registered) == (0, 6, 0)


def test_what_a_repair_has_read_need_not_be_read_again_once_it_is_compacted(place: Place) -> None:
    for i in range(3):
        place.committed(f"new-{i}", CODES[i])
    settle(place)
    place.redis.flushall()
    assert place.repair().registered == 3
    place.compact()
    place.redis.flushall()
    repaired = place.repair()
    assert (repaired.passed_over, repaired.registered) == (3, 0)
    assert code_at(place, "new-2") == CODES[2].tobytes()


def test_a_repair_that_found_nothing_missing_is_noted_by_a_compaction_of_an_empty_journal(place: Place) -> None:
    place.committed("new-0", CODES[0])
    place.compact()
    before = before_ms(place)
    settle(place)
    place.repair()
    assert upkeep.compact(place.files, place.journal, anyway).generation == 2
    assert upkeep.compact(place.files, place.journal, anyway, settle=True).generation == 3
    assert before_ms(place) > before


def test_documents_of_other_jobs_are_passed_over_too(place: Place) -> None:
    place.store.put(Bucket.RESULTS, f"{uuid.uuid4().hex}.json", b"{}", "application/json")
    place.committed("new-0", CODES[0])
    sealed(place)
    repaired = place.repair()
    assert (repaired.documents, repaired.passed_over, repaired.unreadable) == (2, 2, 0)


def test_a_collection_that_is_built_where_documents_are_already_has_them_read(settings: Settings, place: Place) -> None:
    place.committed("new-0", CODES[0])
    other = Place.published(settings, place.cache, count=50)
    assert other.files.current().settled is None
    state = f"{journal_stream(other.name)}:state"
    built = other.redis.hget(state, "unsettled")
    assert built  # what Redis loses from now on is looked for
    other.redis.hset(state, "server", "the one before")
    assert other.journal.settling.follow(0) >= 0
    assert other.redis.hget(state, "unsettled") == built
    assert other.repair().passed_over == 0


# ── what Redis loses ─────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_compaction_in_a_redis_that_was_emptied_does_not_pass_over_what_was_lost(place: Place) -> None:
    place.committed("new-0", CODES[0])
    sealed(place)
    before = before_ms(place)
    place.committed("new-1", CODES[1])
    place.redis.flushall()
    place.committed("new-2", CODES[2])
    assert settle(place) == 0  # unsettled from now on
    assert place.compact().generation == 3
    assert before_ms(place) == before
    assert place.repair().registered == 1
    assert code_at(place, "new-1") == CODES[1].tobytes()


def test_what_redis_lost_unnoticed_when_it_was_started_again_is_not_passed_over_and_registered_an_hour_later(
    place: Place, continuity: Continuity, monkeypatch: pytest.MonkeyPatch
) -> None:
    collection = place.open()
    continuity.keep(collection)
    lose(place, "new-0", place.committed("new-0", CODES[0]).journal_entry)
    place.committed("new-1", CODES[1])
    assert settle(place) == 0  # unsettled from now on
    place.compact()
    assert before_ms(place) <= newest_ms(place.store)
    collection.follow()
    assert continuity.keep(collection) is None
    for module in ("collection.settling", "maintenance.continuity"):
        monkeypatch.setattr(f"workers.index.{module}.GRACE_MS", 0)
    repaired = continuity.keep(collection)
    assert repaired is not None
    assert repaired.registered == 1
    assert code_at(place, "new-0") == CODES[0].tobytes()
    assert continuity.keep(collection) is None
    assert settle(place) == -1


def test_a_redis_that_was_killed_and_started_again_settles_nothing_by_itself(tmp_path: Path) -> None:
    own = OwnRedis(tmp_path)
    with closing(redis.Redis.from_url(own.url, decode_responses=True)) as client:
        settling = Settling(client, "state")
        try:
            own.start()
            wait_for(lambda: answers(client), "Redis does not start")
            assert settling.end(settling.begin().complete, 1_000)
            assert settling.follow(2_000) == -1
            before = settling.settled()
            own.stop()
            own.start()
            wait_for(lambda: answers(client), "Redis does not start again")
            assert settling.follow(3_000) == 0
            after = settling.settled()
            assert before is not None
            assert after is not None
            assert (before.before_ms, after.before_ms, before.server == after.server) == (2_000, 2_000, False)
        finally:
            own.stop()


def test_redis_that_is_started_again_and_again_is_looked_after_an_hour_after_the_first_and_the_last_time(
    place: Place,
) -> None:
    state = f"{journal_stream(place.name)}:state"
    place.redis.hset(state, "server", "the one before")
    assert place.journal.settling.follow(0) == 0
    place.redis.hincrby(state, "unsettled", -2_000_000)  # that was a while ago
    place.redis.hset(state, "server", "the one between")
    assert place.journal.settling.follow(0) >= 2_000_000
    last = place.redis.hget(state, "lost")
    place.repair()
    assert place.redis.hget(state, "unsettled") == last


def test_what_is_unsettled_stays_so_when_something_is_set_aside_or_cannot_be_read(place: Place) -> None:
    state = f"{journal_stream(place.name)}:state"
    place.redis.hset(state, "unsettled", "1000")
    place.journal.settling.forget()
    assert place.redis.hget(state, "unsettled") == "1000"
    assert not place.journal.settling.end(place.journal.settling.begin(), None)
    assert place.redis.hget(state, "unsettled") == "1000"


def test_a_clock_of_the_store_that_is_ahead_settles_nothing_of_the_future(place: Place) -> None:
    settling, ahead_ms = place.journal.settling, 10**14
    assert settling.end(settling.begin(), ahead_ms)
    assert settling.follow(ahead_ms) == -1
    settled = settling.settled()
    assert settled is not None
    seconds, _ = place.redis.time()
    assert settled.before_ms <= (seconds + 1) * 1_000


def test_an_entry_of_another_line_of_the_journal_has_documents_read_that_are_said_to_be_held(
    place: Place, continuity: Continuity
) -> None:
    collection = place.open()
    lost = place.committed("new-0", CODES[0]).journal_entry
    collection.catch_up()
    place.redis.xdel(journal_stream(place.name), lost)
    place.redis.hdel(f"{journal_stream(place.name)}:live", "new-0")
    place.committed("new-1", CODES[1])  # in the Redis that took over
    sealed(place)
    assert before_ms(place) > newest_ms(place.store)
    repaired = continuity.keep(collection)
    assert repaired is not None
    assert (repaired.passed_over, repaired.registered) == (0, 1)
    assert code_at(place, "new-0") == CODES[0].tobytes()


def test_a_look_without_a_loss_believes_no_manifest_that_redis_has_not_noted(
    place: Place, continuity: Continuity, at_once: None
) -> None:
    collection = place.open()
    assert continuity.keep(collection) is None
    place.redis.hset(f"{journal_stream(place.name)}:manifests", "1", "0" * 64)
    place.redis.hset(f"{journal_stream(place.name)}:state", "server", "the one before")
    with pytest.raises(CorruptSegment, match="someone has replaced it"):
        continuity.keep(collection)


def answers(client: redis.Redis) -> bool:
    try:
        return bool(client.ping())
    except redis.ConnectionError:
        return False


def test_nothing_is_settled_where_redis_does_not_say_which_process_it_is(place: Place, settings: Settings) -> None:
    user = uuid.uuid4().hex
    place.redis.execute_command("ACL", "SETUSER", user, "on", ">x", "~*", "&*", "+@all", "-info")
    address = settings.redis_url.get_secret_value().rpartition("@")[2].removeprefix("redis://")
    limited = settings.model_copy(update={"redis_url": SecretStr(f"redis://{user}:x@{address}")})
    try:
        other = Place(place.name, limited, place.cache)
        other.committed("new-0", CODES[0])
        before = before_ms(place)
        assert settle(other) == -1
        other.compact()
        assert before_ms(place) == before
        assert other.repair().registered == 0
        assert other.journal.settling.settled() is None
        other.close()
    finally:
        place.redis.execute_command("ACL", "DELUSER", user)


# ── documents that come late ─────────────────────────────────────────────────────────────────────────────────────────


def test_a_worker_that_died_between_entry_and_document_leaves_an_asset_that_is_found(place: Place) -> None:
    entry = place.journal.add("new-0", CODES[0], {})
    place.committed("new-1", CODES[1])
    sealed(place)
    place.committed("new-0", CODES[0], entry)  # another worker writes the document, later
    place.redis.flushall()
    repaired = place.repair()
    assert (repaired.passed_over, repaired.registered) == (1, 0)
    assert code_at(place, "new-0") == CODES[0].tobytes()


def test_a_document_that_came_late_does_not_take_the_place_of_a_newer_state_whose_document_is_passed_over(
    place: Place,
) -> None:
    entry = place.journal.add("new-0", CODES[0], {})
    place.committed("new-0", CODES[1])
    sealed(place)
    place.committed("new-0", CODES[0], entry)
    place.redis.flushall()
    assert place.repair().registered == 0
    assert code_at(place, "new-0") == CODES[1].tobytes()


def test_a_document_that_was_written_when_redis_and_a_repair_had_been_there_already_is_read_later(
    place: Place, ledger: Ledger, continuity: Continuity, at_once: None
) -> None:
    collection = place.open()
    request = ActivateRequest(collection=place.name, asset_id="late", source=Source(sha256="a" * 64, size=1))

    def work(request: ActivateRequest, _: Running) -> Publication:
        made = made_activation(place.name, place.files.current().codec, "late", CODES[0], "", {})
        result = made.model_copy(update={"job_id": request.job_id})
        look_up = partial(collection.look_up, "late")
        return Publication(result, registration_of(result, collection.manifest), look_up(), look_up)

    def record(result: ActivationResult, _: int) -> None:
        """The commit is made, and the document not written."""
        place.redis.flushall()
        looked = continuity.keep(collection)  # an hour later
        assert (looked is not None, settle(place)) == (True, -1)

    ledger.submit([request])
    runner = Runs(place.settings, ledger, place.store).runner
    runner.run(Kind(ActivateRequest, work, None, record), request.job_id, request.model_dump(mode="json"))
    assert code_at(place, "late") is None
    repaired = continuity.keep(collection)
    assert repaired is not None
    assert repaired.registered == 1
    assert code_at(place, "late") == CODES[0].tobytes()


# ── removals ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_an_asset_that_was_activated_again_after_its_removal_stays_when_its_document_is_passed_over(
    place: Place,
) -> None:
    place.committed("new-0", CODES[0])
    place.remove("new-0")
    place.committed("new-0", CODES[1])
    sealed(place)
    place.redis.flushall()
    repaired = place.repair()
    assert (repaired.passed_over, repaired.registered, repaired.removed) == (2, 0, 0)
    assert code_at(place, "new-0") == CODES[1].tobytes()


def test_a_removal_that_redis_lost_is_repeated_though_the_document_is_passed_over(place: Place) -> None:
    place.committed("new-0", CODES[0])
    sealed(place)
    place.remove("new-0")
    place.remove("old-1")
    place.redis.flushall()
    repaired = place.repair()
    assert (repaired.passed_over, repaired.removed) == (1, 2)
    assert (code_at(place, "new-0"), code_at(place, "old-1")) == (None, None)


# ── S3 that is set back ──────────────────────────────────────────────────────────────────────────────────────────────


def test_a_manifest_that_was_set_back_has_documents_read_that_only_a_later_one_held(place: Place) -> None:
    place.committed("new-0", CODES[0])
    sealed(place)
    pointer = place.store.get(Bucket.COLLECTIONS, f"{place.name}/current.json", 10_000)
    place.committed("new-1", CODES[1])
    sealed(place)
    place.store.put(Bucket.COLLECTIONS, f"{place.name}/current.json", pointer, "application/json")
    place.redis.flushall()
    repaired = place.repair()
    assert (repaired.passed_over, repaired.registered) == (1, 1)
    assert code_at(place, "new-1") == CODES[1].tobytes()


@pytest.mark.parametrize("read_all", [False, True])
def test_documents_that_were_set_back_alone_neither_remove_nor_revert_what_the_segments_hold(
    place: Place, read_all: bool
) -> None:
    place.committed("new-0", CODES[0])
    place.remove("new-0")
    again = place.committed("new-0", CODES[1])
    first = place.committed("new-1", CODES[2])
    second = place.committed("new-1", CODES[3])
    sealed(place)
    for lost in (again, second):
        place.store.delete(Bucket.RESULTS, result_key(lost.job_id))
    key = result_key(first.job_id)
    place.store.put(Bucket.RESULTS, key, place.store.get(Bucket.RESULTS, key, 1 << 20), "application/json")
    place.redis.flushall()
    repaired = place.repair(read_all=read_all)
    assert (repaired.registered, repaired.removed) == (0, 0)
    assert (code_at(place, "new-0"), code_at(place, "new-1")) == (CODES[1].tobytes(), CODES[3].tobytes())


def test_a_rollback_has_documents_read_that_the_earlier_segments_do_not_hold(place: Place) -> None:
    place.committed("new-0", CODES[0])
    sealed(place)
    place.rollback(1)
    assert place.files.current().settled is None
    place.redis.flushall()
    assert place.repair().registered == 1
    assert code_at(place, "new-0") == CODES[0].tobytes()


def test_a_rollback_after_redis_was_set_back_has_all_documents_read(place: Place) -> None:
    place.committed("new-a", CODES[0])
    sealed(place)
    saved = {key: place.redis.dump(key) for key in place.redis.scan_iter(f"{journal_stream(place.name)}*")}
    place.committed("new-b", CODES[1])
    sealed(place)
    for key, content in saved.items():
        place.redis.restore(key, 0, content, replace=True)
    place.repair()
    place.rollback(2)
    place.committed("new-c", CODES[2])
    settle(place)
    place.compact()
    assert code_at(place, "new-b") is None  # the journal that the earlier files go on with never had it
    assert place.repair().registered == 1
    assert code_at(place, "new-b") == CODES[1].tobytes()


def test_an_imported_collection_has_all_documents_read(place: Place, tmp_path: Path) -> None:
    place.committed("new-0", CODES[0])
    sealed(place)
    file = tmp_path / "exported.tar"
    export_collection(place.store, place.files, place.files.current(), file, images=False)
    upkeep.delete(place.files, place.journal, anyway)
    manifest = import_collection(place.store, place.files, place.journal, file, _Unlocked())  # type: ignore[arg-type]
    assert manifest.settled is None
    assert place.repair().passed_over == 0


class _Unlocked:
    def check(self) -> None:
        """Nothing to check: no other process writes."""


# ── what cannot be read ──────────────────────────────────────────────────────────────────────────────────────────────


def test_after_a_document_that_could_not_be_read_none_is_passed_over(place: Place) -> None:
    before = before_ms(place)
    key = f"{uuid.uuid4().hex}.json"
    place.store.put(Bucket.RESULTS, key, b"{", "application/json")
    settle(place)
    assert place.repair().unreadable == 1
    place.committed("new-0", CODES[0])
    assert settle(place) >= 0
    place.compact()
    assert before_ms(place) == before
    place.store.delete(Bucket.RESULTS, key)
    settle(place)
    place.repair()
    place.committed("new-1", CODES[1])
    place.compact()
    assert before_ms(place) > before


def test_an_entry_that_is_set_aside_has_later_documents_read(place: Place) -> None:
    before = before_ms(place)
    place.redis.xadd(journal_stream(place.name), {"op": "add", "asset": "odd", "v": "9"})
    place.committed("new-0", CODES[0])
    settle(place)
    place.compact()
    place.committed("new-1", CODES[1])
    settle(place)
    place.compact()
    assert before_ms(place) == before


def test_a_repair_that_was_interrupted_settles_nothing_and_is_made_up_for(
    place: Place, continuity: Continuity, at_once: None
) -> None:
    before = before_ms(place)
    place.committed("new-0", CODES[0])
    settle(place)

    def stop(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        place.repair(stop)
    place.compact()
    assert before_ms(place) == before
    collection = place.open()
    assert continuity.keep(collection) is not None
    place.committed("new-1", CODES[1])
    place.compact()
    assert before_ms(place) > before


# ── listing ──────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def sorted_store(settings: Settings, tmp_path: Path) -> Iterator[ObjectStore]:
    """One that lists keys in the order of S3."""
    with moto_server(tmp_path) as address:
        store = ObjectStore.connect(settings.model_copy(update={"s3_endpoint": address, "s3_region": "us-east-1"}))
        store.ensure_buckets()
        yield store


@pytest.mark.parametrize("which", ["place", "sorted_store"])
def test_shares_are_listed_like_the_whole(which: str, request: pytest.FixtureRequest) -> None:
    chosen = request.getfixturevalue(which)
    store = chosen.store if isinstance(chosen, Place) else chosen
    keys = [f"{letter}{uuid.uuid4().hex}.json" for letter in "0123456789abcdefgzAZ" for _ in range(60)]
    keys += ["1/2.json", "1.json", "g/2.json", "Z_/7.json"]
    for key in keys:
        store.put(Bucket.RESULTS, key, b"{}", "application/json")

    def names(*, in_shares: bool) -> list[str]:
        found = (name for some in listed(store, None, in_shares=in_shares) for name in some.names)
        return sorted(name.partition("\n")[0] for name in found)

    assert names(in_shares=False) == sorted(keys)
    if which == "sorted_store":
        assert names(in_shares=True) == sorted(keys)
        later = 10**13
        counts = [sum(some.passed_over for some in listed(store, later, in_shares=each)) for each in (False, True)]
        assert counts == [len(keys), len(keys)]
