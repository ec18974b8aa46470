"""What people said of matches, in Redis and S3."""

from __future__ import annotations

import pytest

from tasks.assets.feedback import Feedback, Said
from tasks.connection import connect_redis
from tasks.errors import CorruptSegment
from tasks.messages import Opinion
from tasks.monitoring.metrics import Counters, Metrics
from tasks.monitoring.observer import read_overview
from tasks.names import TASK_FEEDBACK, sha256_hex
from tasks.settings import Settings
from tasks.storage import Bucket
from tests.collections import Place
from workers.index.maintenance.repair import repair


def said(number: int, asset_id: str, opinion: Opinion = "reject", at: float = 0.0) -> Said:
    return Said(
        source_sha256=image(number), asset_id=asset_id, opinion=opinion, job_id="a" * 32, query_job="b" * 32, at=at
    )


def image(number: int) -> str:
    return sha256_hex(str(number).encode())


def feedback_of(place: Place, most: int = 100) -> Feedback:
    return Feedback(place.redis, place.store, place.name, most)


def test_an_image_has_the_assets_that_were_rejected_for_it_until_they_are_confirmed(place: Place) -> None:
    feedback = feedback_of(place)
    for one in (said(1, "a"), said(1, "ö/b"), said(1, "a"), said(2, "c")):
        feedback.keep(one)
    assert feedback.rejected(image(1)) == {"a", "ö/b"}
    assert feedback.rejected(image(3)) == frozenset()
    feedback.keep(said(1, "a", "confirm"))
    feedback.keep(said(2, "c", "confirm"))
    assert (feedback.rejected(image(1)), feedback.rejected(image(2))) == ({"ö/b"}, frozenset())


def test_redis_holds_a_bounded_number_of_images_and_forgets_the_oldest(place: Place) -> None:
    feedback = feedback_of(place, most=3)
    for number in range(5):
        feedback.keep(said(number, "a", at=number))
    assert [bool(feedback.rejected(image(number))) for number in range(5)] == [False, False, True, True, True]


def test_a_repair_gives_redis_back_what_was_said(place: Place) -> None:
    feedback = feedback_of(place)
    feedback.keep(said(1, "a", "confirm", at=1))
    feedback.keep(said(1, "a", "reject", at=2))
    feedback.keep(said(2, "b", "confirm", at=3))
    place.redis.flushdb()
    assert feedback.rejected(image(1)) == frozenset()
    repair(place.store, place.files, place.journal, lambda *_: None)
    assert (feedback.rejected(image(1)), feedback.rejected(image(2))) == ({"a"}, frozenset())


def test_damaged_feedback_is_named(place: Place) -> None:
    place.store.put(Bucket.COLLECTIONS, f"{place.name}/feedback/a/{image(1)}.json", b"{", "application/json")
    with pytest.raises(CorruptSegment, match="feedback/a/"):
        feedback_of(place).restore()


def test_a_collection_that_is_deleted_takes_its_feedback_along(place: Place) -> None:
    feedback = feedback_of(place)
    feedback.keep(said(1, "a"))
    place.journal.delete()
    place.files.delete_all()
    assert (feedback.rejected(image(1)), feedback.restore()) == (frozenset(), 0)


def test_the_overview_says_which_share_of_the_judged_matches_was_rejected(settings: Settings) -> None:
    assert read_overview(settings).feedback.rejection_rate is None
    counted = Counters()
    counted.outcomes.update({(TASK_FEEDBACK, "rejected"): 1, (TASK_FEEDBACK, "confirmed"): 3})
    with connect_redis(settings) as client:
        Metrics(client).publish(counted, [], [])
    assert read_overview(settings).feedback.rejection_rate == 0.25
