"""Which queue a client's jobs go to."""

from __future__ import annotations

import pytest

from tasks.names import QUEUES
from tasks.shares import ALL_QUEUES, SHARES, base_queue, queues_of, share_of, share_queue


def test_a_clients_queue_stays_the_same_in_every_version() -> None:
    names = ("shop", "agency-3", "ingest:inbox", "Zoë")
    assert [share_queue("activate", name) for name in names] == ["activate.4", "activate.8", "activate.7", "activate.9"]


@pytest.mark.parametrize("queue", QUEUES)
def test_who_names_no_client_is_in_the_queue_itself(queue: str) -> None:
    assert share_queue(queue, "") == queue


def test_jobs_of_an_index_have_no_shares() -> None:
    assert (share_queue("index", "shop"), queues_of("index")) == ("index", ("index",))


def test_a_hundred_clients_are_spread_over_all_shares() -> None:
    assert len({share_queue("query", f"client-{number}") for number in range(100)}) == SHARES


def test_every_share_queue_is_of_one_queue() -> None:
    assert {name: base_queue(name) for name in ALL_QUEUES} == {name: q for q in QUEUES for name in queues_of(q)}
    assert len(set(ALL_QUEUES)) == 2 * (SHARES + 1) + 1
    assert base_queue("activate.99") == "activate.99"


def test_a_clients_queries_and_activations_are_one_share() -> None:
    assert [share_of(name) for name in ("query.12", "activate.12", "query", "activate", "index")] == [
        "12",
        "12",
        "",
        "",
        "",
    ]
