"""kill -9 of a compaction at any moment: the old generation answers, or the new one, never a wrong one."""

from __future__ import annotations

import multiprocessing
import random
import time
from pathlib import Path
from typing import Any

from tasks.settings import Settings
from tests.collections import Place, add, found, unit_vectors

KILLS = 20
NEW = unit_vectors(KILLS + 1, 1)


def compact(*place: Any) -> None:
    Place(*place).compact()


def test_a_compaction_killed_at_twenty_moments_never_makes_a_wrong_answer(settings: Settings, tmp_path: Path) -> None:
    place = Place.published(settings, tmp_path / "cache")
    context = multiprocessing.get_context("forkserver")  # not a fork of this process, with its threads and sockets
    context.set_forkserver_preload(["tests.collections"])
    moments = random.Random(0)
    longest_s = duration_of_one(context, place)
    writer, follower = place.open(), place.open()
    for i in range(KILLS):
        add(writer, f"new-{i}", NEW[i])
        process = context.Process(target=compact, args=(place.name, place.settings, place.cache))
        process.start()
        process.join(moments.uniform(0.0, longest_s))
        process.kill()
        process.join()
        follower.follow()
        for reader in (follower, place.open()):
            assert {f"new-{n}" for n in range(i + 1)} <= set(found(reader, NEW[i], k=1_000))
            assert found(reader, NEW[i], k=1) == [f"new-{i}"]
    add(writer, "last", NEW[KILLS])
    place.compact()
    assert len(place.open()) == 500 + KILLS + 1
    place.close()


def duration_of_one(context: multiprocessing.context.ForkServerContext, place: Place) -> float:
    """Seconds that a compaction takes in a process of its own; the first starts the server of processes."""
    taken = 0.0
    for i in range(2):
        add(place.open(), "old-0", unit_vectors(2, 5)[i])
        began = time.monotonic()
        process = context.Process(target=compact, args=(place.name, place.settings, place.cache))
        process.start()
        process.join()
        taken = time.monotonic() - began
        assert process.exitcode == 0
    return taken
