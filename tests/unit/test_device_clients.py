"""Which images share a batch while several clients ask."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial

import pytest
import torch

from tests.unit.test_scheduler import DIMENSION, SIDE, Convolution
from tests.waiting import LIMIT_S
from workers.device.clients import FairBatches, acting_for, client_now
from workers.device.device import Device, _Waiting


@dataclass
class Image:
    client: str | None


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def batch(fair: FairBatches, waiting: str, most: int = 64) -> str:
    """What is chosen of waiting images, each a letter for its client; `-` for none."""
    images = [Image(None if client == "-" else client) for client in waiting]
    for image in images:
        fair.note(image.client)
    return "".join(image.client or "-" for image in fair.chosen(images, most))


def test_a_client_that_asks_alone_has_whole_batches(clock: Clock) -> None:
    fair = FairBatches(1, clock)
    assert batch(fair, "aaaaa", most=4) == "aaaa"
    assert not fair.limited()


def test_of_several_clients_a_batch_has_the_oldest_image_of_each(clock: Clock) -> None:
    fair = FairBatches(1, clock)
    assert batch(fair, "aaabaac") == "abc"
    assert batch(fair, "aaabaac", most=2) == "ab"
    assert fair.limited()


def test_the_batches_of_a_backlog_stay_small_between_two_images_of_another_client(clock: Clock) -> None:
    fair = FairBatches(2, clock)
    batch(fair, "ab")
    clock.now = 4.0
    assert batch(fair, "aaaa") == "aa"
    clock.now = 6.0
    assert batch(fair, "aaaa") == "aaaa"


def test_images_of_no_client_neither_make_batches_small_nor_are_limited_in_them(clock: Clock) -> None:
    fair = FairBatches(1, clock)
    assert batch(fair, "a-aa--a") == "a-aa--a"
    assert not fair.limited()
    assert batch(fair, "a-ab--a") == "a-b--"


def test_where_a_batch_takes_no_longer_than_an_image_all_share_it(clock: Clock) -> None:
    assert batch(FairBatches(None, clock), "aaabaac") == "aaabaac"


def test_a_thread_acts_for_the_client_of_its_job_and_for_none_after_it() -> None:
    with acting_for("3"):
        assert client_now() == "3"
        with ThreadPoolExecutor(1) as pool:
            assert pool.submit(client_now).result(LIMIT_S) is None
    assert client_now() is None


def test_an_image_shares_a_batch_of_a_cpu_with_one_of_another_clients_backlog(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("workers.device.device.FairBatches", partial(FairBatches, clock=Clock()))  # it may be slow
    extractor = Convolution()
    device = Device(extractor, batch_images=8)
    futures = [
        device._put(device._extractions, _Waiting(torch.rand(3, SIDE, SIDE), client=client)) for client in "aaaba"
    ]
    device.start()
    assert [len(future.result(LIMIT_S)) for future in futures] == [DIMENSION] * 5
    device.stop()
    assert extractor.batches == [2, 1, 1, 1]
