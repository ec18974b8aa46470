"""How a lane takes jobs of several clients, on a real Redis; no worker runs beside it."""

from __future__ import annotations

import uuid
from collections import Counter
from contextlib import ExitStack, suppress
from typing import Any

import pytest
from kombu import Consumer, Queue
from pydantic import SecretStr

from tasks.app import Sender, create_app, submit
from tasks.connection import broker_url, connect_redis
from tasks.ledger.dead_letters import DeadLetters
from tasks.ledger.ledger import Ledger
from tasks.settings import Settings
from tasks.shares import queues_of, share_queue
from tests.integration.test_ledger import QUEUE, request
from tests.waiting import wait_for
from workers.delivery.set_aside import SetAside
from workers.delivery.transport import screened_connection

BUSY, SHOP = "agency", "shop"


@pytest.fixture(autouse=True)
def _backlog(ledger: Ledger, settings: Settings) -> None:
    """Nine jobs of one client, and one of the other."""
    sender = Sender(create_app(settings), settings)
    for name, client in [(f"a{n}", BUSY) for n in range(9)] + [("b", SHOP)]:
        assert submit(ledger, sender, request(name), client=client)


class Lane:
    """What a worker's lane takes from its queues; its jobs end when they are told to."""

    def __init__(self, settings: Settings, stack: ExitStack, threads: int = 4) -> None:
        self._redis = stack.enter_context(connect_redis(settings))
        aside = SetAside(DeadLetters(self._redis))
        kind = screened_connection(aside.screen, aside.odd_keys)
        self._connection = stack.enter_context(kind(broker_url(settings)))
        self.channel = self._connection.channel()
        self.channel.basic_qos(0, threads, False)
        self.at_work: list[Any] = []
        queues = [Queue(name) for name in queues_of(QUEUE)]
        consumer = Consumer(self.channel, queues, callbacks=[lambda _, message: self.at_work.append(message)])
        consumer.consume()

    def take(self) -> None:
        self.channel.reconsider()
        with suppress(TimeoutError):
            self._connection.drain_events(timeout=0.01)

    def counts(self) -> dict[str, int]:
        """How many jobs of each queue are at work."""
        return dict(Counter(message.delivery_info["routing_key"] for message in self.at_work))

    def has(self, **counts: int) -> None:
        wanted = {share_queue(QUEUE, client): count for client, count in counts.items()}
        wait_for(lambda: self.take() or self.counts() == wanted, lambda: f"{self.counts()} are at work")

    def leaves_out(self, client: str) -> bool:
        """Whether it waits for messages now, but not for those of `client`."""
        self.take()
        return bool(self.channel.reconsider()) and share_queue(QUEUE, client) in self.channel.turns.left_out

    def waiting(self, client: str) -> int:
        return int(self._redis.llen(share_queue(QUEUE, client)))

    def end_one(self, client: str) -> None:
        queue = share_queue(QUEUE, client)
        message = next(one for one in self.at_work if one.delivery_info["routing_key"] == queue)
        self.at_work.remove(message)
        message.ack()


def test_a_backlog_leaves_half_of_the_threads_to_another_client(ledger: Ledger, settings: Settings) -> None:
    with ExitStack() as stack:
        lane = Lane(settings, stack)
        lane.has(agency=2, shop=1)
        wait_for(lambda: lane.leaves_out(BUSY), "the backlog is not left out")
        lane.end_one(BUSY)
        lane.has(agency=2, shop=1)
        assert submit(ledger, Sender(create_app(settings), settings), request("b2"), client=SHOP)
        lane.has(agency=2, shop=2)
        assert lane.waiting(BUSY) == 9 - 3


def test_a_wait_that_redis_did_not_end_is_still_one_that_leaves_out_a_client(
    ledger: Ledger, settings: Settings
) -> None:
    with ExitStack() as stack:
        lane = Lane(settings, stack)
        lane.has(agency=2, shop=1)
        wait_for(lambda: lane.leaves_out(BUSY), "the backlog is not left out")
        assert submit(ledger, Sender(create_app(settings), settings), request("b2"), client=SHOP)  # ends the wait
        lane.end_one(BUSY)
        assert lane.channel.reconsider()
        assert share_queue(QUEUE, BUSY) in lane.channel.turns.left_out


def test_a_redis_that_lets_no_wait_be_ended_is_asked_for_all_queues(settings: Settings) -> None:
    with ExitStack() as stack, connect_redis(settings) as redis:
        user = uuid.uuid4().hex
        redis.execute_command("ACL", "SETUSER", user, "on", ">x", "~*", "&*", "+@all", "-client|unblock")
        stack.callback(redis.execute_command, "ACL", "DELUSER", user)
        place = settings.redis_url.get_secret_value().rpartition("@")[2]
        lane = Lane(settings.model_copy(update={"redis_url": SecretStr(f"redis://{user}:x@{place}")}), stack)
        lane.has(agency=2, shop=1)
        wait_for(lambda: lane.leaves_out(BUSY), "the backlog is not left out")
        lane.end_one(BUSY)
        lane.has(agency=3, shop=1)
