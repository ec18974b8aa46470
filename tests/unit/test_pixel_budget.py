"""The bound on pixels in flight."""

from __future__ import annotations

import threading

import pytest

from tests.waiting import LIMIT_S, wait_for
from workers.handlers.pixel_budget import PixelBudget, within_memory


def hold_in_thread(budget: PixelBudget, pixels: int) -> tuple[threading.Event, threading.Event]:
    """Holds pixels in a thread of its own; the first event says that it has them, the second gives them back."""
    held, release = threading.Event(), threading.Event()

    def hold() -> None:
        with budget.hold(pixels):
            held.set()
            release.wait(LIMIT_S)

    threading.Thread(target=hold, daemon=True).start()
    return held, release


def test_images_that_fit_together_are_in_flight_together() -> None:
    budget = PixelBudget(100)
    with budget.hold(60), budget.hold(40):
        held, release = hold_in_thread(budget, 1)
    assert held.wait(LIMIT_S)
    release.set()


def test_an_image_that_does_not_fit_waits_until_another_has_ended() -> None:
    budget = PixelBudget(100)
    with budget.hold(60):
        held, release = hold_in_thread(budget, 50)
        small_held, small_release = hold_in_thread(budget, 40)
        assert small_held.wait(LIMIT_S)
        assert not held.is_set()
        small_release.set()
    assert held.wait(LIMIT_S)
    release.set()


def test_an_image_larger_than_the_whole_budget_is_admitted_alone() -> None:
    budget = PixelBudget(100)
    with budget.hold(1_000):
        held, release = hold_in_thread(budget, 1)
        assert not held.is_set()
    assert held.wait(LIMIT_S)
    release.set()


def test_an_image_that_fails_gives_its_pixels_back() -> None:
    budget = PixelBudget(100)
    with pytest.raises(ValueError, match="damaged"), budget.hold(100):
        raise ValueError("damaged")
    held, release = hold_in_thread(budget, 100)
    assert wait_for(held.is_set)
    release.set()


def test_a_worker_with_little_memory_holds_fewer_pixels() -> None:
    assert within_memory(60_000_000, 2**40) == 60_000_000
    assert within_memory(60_000_000, 2 * 2**30) == 2**30 // 60
    assert within_memory(60_000_000, 2**20) == 1  # one image at a time
