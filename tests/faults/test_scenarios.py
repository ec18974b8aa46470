"""The short form of every fault in the table; the full forms are run by ``python -m tests.faults.run --full``."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.faults.bench import Bench, running_bench
from tests.faults.run import measure
from tests.faults.table import SCENARIOS, Scenario


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    with running_bench(tmp_path_factory.mktemp("faults")) as bench:
        yield bench


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.name)
def test_nothing_is_lost_and_nothing_contradicts_after(scenario: Scenario, bench: Bench) -> None:
    assert measure(bench, scenario, scenario.short).problems == []
