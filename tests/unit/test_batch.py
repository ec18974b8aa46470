"""A batch of any length is submitted in order, and only a few images ahead of what is reported."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count, islice

from producer.batch import Progress, submitted
from producer.retry_policy import NO_RETRIES
from producer.search import Found
from producer.testing import FakeProducer
from tests.photographs import crops


def test_images_without_end_are_submitted_in_order_and_hardly_ahead_of_what_is_reported() -> None:
    photo, read = crops(1)[0], []

    def images() -> Iterator[Found]:
        for number in count():
            read.append(number)
            yield Found(f"{number}", f"{number}.jpg", photo)

    producer, progress = FakeProducer(), Progress()
    stream = submitted(
        images(), lambda found: producer.activate(found.source, asset_id=found.name), NO_RETRIES, progress
    )
    taken = list(islice(stream, 40))
    stream.close()
    assert [(s.order, s.asset_id) for s in taken] == [(n, f"{n}") for n in range(40)]
    assert set(progress.open) >= {s.job_id for s in taken}
    assert 40 <= len(read) < 60
