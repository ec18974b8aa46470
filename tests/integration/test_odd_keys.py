"""Keys of the broker that are of another type than they have to be, met by what reads a queue; no worker runs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, suppress

import pytest
from kombu import Connection, Consumer, Exchange, Queue
from kombu.transport.redis import Transport

from tasks.connection import RedisClient, broker_url, connect_redis
from tasks.ledger.dead_letters import DeadLetters
from tasks.settings import Settings
from workers.delivery.set_aside import SetAside
from workers.delivery.transport import screened_connection

EXCHANGE, QUEUE = "odd-keys", "odd-keys.5"


@pytest.fixture
def client(settings: Settings) -> Iterator[RedisClient]:
    with connect_redis(settings) as client:
        yield client


@pytest.fixture
def connection(settings: Settings, client: RedisClient) -> Iterator[Connection]:
    with connection_of(settings, client) as connection:
        yield connection


def connection_of(settings: Settings, client: RedisClient) -> Connection:
    aside = SetAside(DeadLetters(client))
    return screened_connection(aside.screen, aside.odd_keys)(broker_url(settings))


def serve(connection: Connection, stack: ExitStack) -> None:
    """Declare the queue and ask it, as a lane does that starts."""
    channel = stack.enter_context(connection.channel())
    channel.basic_qos(0, 2, False)
    consumer = Consumer(channel, [Queue(QUEUE, Exchange(EXCHANGE), QUEUE)], callbacks=[lambda *_: None])
    stack.enter_context(consumer)


def drain(connection: Connection) -> None:
    for _ in range(3):
        with suppress(TimeoutError):
            connection.drain_events(timeout=0.01)


@pytest.mark.parametrize(
    ("key", "then"),
    [
        (QUEUE, "none"),
        (f"{QUEUE}\x06\x163", "none"),
        (f"_kombu.binding.{EXCHANGE}", "set"),
        (f"_kombu.binding_permanent.{EXCHANGE}", "set"),
    ],
)
def test_a_lane_starts_although_a_key_of_the_broker_is_of_another_type(
    connection: Connection, client: RedisClient, key: str, then: str
) -> None:
    client.set(key, "odd")
    with ExitStack() as stack:
        serve(connection, stack)
    assert client.get(f"aii:aside:{key}") == "odd"
    assert client.type(key) == then
    assert DeadLetters(client).count() == 1


@pytest.fixture
def away() -> Iterator[RedisClient]:
    """A client that reaches no Redis."""
    with RedisClient(port=1) as client:
        yield client


def test_a_key_that_cannot_be_renamed_now_is_no_end_of_the_lane(
    settings: Settings, client: RedisClient, away: RedisClient
) -> None:
    with ExitStack() as stack:
        connection = stack.enter_context(connection_of(settings, away))
        serve(connection, stack)
        client.set(QUEUE, "odd")
        drain(connection)
    client.set(QUEUE, "odd")
    with ExitStack() as stack, pytest.raises(Transport.connection_errors + Transport.channel_errors, match="WRONGTYPE"):
        serve(stack.enter_context(connection_of(settings, away)), stack)


def test_whatever_takes_the_place_of_a_queue_later_is_kept_beside_what_did_before(client: RedisClient) -> None:
    letters, names = DeadLetters(client), []
    for content in ("first", "second", "third"):
        client.set(QUEUE, content)
        names.append(letters.move_aside(QUEUE))
    assert names == [f"aii:aside:{QUEUE}", f"aii:aside:{QUEUE}:2", f"aii:aside:{QUEUE}:3"]
    assert [client.get(name) for name in names] == ["first", "second", "third"]


def test_a_list_stays_where_it_is(client: RedisClient) -> None:
    client.lpush(QUEUE, "good")
    assert DeadLetters(client).move_aside(QUEUE) is None
    assert client.lrange(QUEUE, 0, -1) == ["good"]
