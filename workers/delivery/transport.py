"""kombu's Redis transport, with our eyes on what comes out of the queues' lists before Celery sees it."""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from queue import Empty
from typing import Any, Final, TypeAlias

from kombu import Connection
from kombu.transport.redis import Channel, Transport
from kombu.transport.virtual import QoS
from kombu.utils.encoding import bytes_to_str
from redis.exceptions import ResponseError

from tasks.errors import AiiError
from workers.delivery.turns import Turns

__all__ = ["OddKeys", "Screen", "screened_connection"]

logger = logging.getLogger(__name__)

# From an element of a list and the queue's name to the message for Celery; None for one that was set aside.
Screen: TypeAlias = Callable[[bytes, str], dict[str, Any] | None]
# Is given keys, and the type that one of them is not of.
OddKeys: TypeAlias = Callable[[Sequence[str], str], None]

_WRONG_TYPE: Final = "WRONGTYPE"
_NOT_RENAMED_PAUSE_S: Final = 0.5  # until then Redis gives out no message anyway


def screened_connection(screen: Screen, odd_keys: OddKeys) -> type[Connection]:
    """Connections whose messages go through `screen`: a class for the attribute `Connection` of an app's `amqp`."""

    class ScreenedConnection(Connection):  # type: ignore[misc]  # kombu has no types
        def get_transport_cls(self) -> type[Transport]:
            return _screened(super().get_transport_cls(), screen, odd_keys)

    return ScreenedConnection


def _screened(transport: type[Transport], screen: Screen, odd_keys: OddKeys) -> type[Transport]:
    class ScreenedChannel(_ScreenedChannel, transport.Channel):  # type: ignore[misc, name-defined]
        screen_element, set_aside = staticmethod(screen), staticmethod(odd_keys)

    class ScreenedTransport(transport):  # type: ignore[misc, valid-type]
        Channel = ScreenedChannel

    return ScreenedTransport


class _InMemory(QoS):  # type: ignore[misc]
    """Messages that are taken and not acknowledged yet are known to this process only, which puts them back when it
    stops. kombu would keep them in Redis too, for eight commands each; if the process dies, the ledger knows which jobs
    are unfinished."""

    def taken(self) -> Counter[str]:
        """How many messages of each queue are at work."""
        at_work = [message for tag, message in self._delivered.items() if tag not in self._dirty]
        return Counter(message.delivery_info["routing_key"] for message in at_work)

    def restore_unacked(self) -> list[Any]:
        for error, _ in super().restore_unacked():
            logger.warning("A message could not be put back; the ledger sends it again: %s", error)
        return []  # kombu would write what is left to a file


class _ScreenedChannel(Channel):  # type: ignore[misc]
    screen_element: Screen
    set_aside: OddKeys
    ack_emulation = False

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.QoS = _InMemory
        self._divided = True  # the threads among the clients, if this user of Redis may end a wait
        self.turns = self._queue_cycle = Turns(self.qos.taken, self._threads)
        self._waits_as: tuple[object, int] | None = None  # the connection that waits for messages, and its id

    def reconsider(self) -> bool:
        """End a wait for messages that leaves out a queue which should be asked now; returns whether one goes on that
        leaves out some."""
        if not (self._divided and self._in_poll and self._waits_as and self.turns.left_out):
            return False
        if not self.turns.outdated():
            return True
        with self._if_allowed(), self.conn_or_acquire() as client:
            if client.client_unblock(self._waits_as[1]):  # else it has not begun yet, or has ended
                self.turns.left_out = frozenset()  # the wait ends, and the next one asks others
        return self._divided and bool(self.turns.left_out)

    def _threads(self) -> int:
        return self.qos.prefetch_count if self._divided else 0

    @contextmanager
    def _if_allowed(self) -> Iterator[None]:
        try:
            yield
        except ResponseError as error:  # rights of an earlier version of deploy/security
            logger.warning("Clients take turns, but threads are not kept free for them: %s", error)
            self._divided = False

    def _brpop_start(self, timeout: float | None = None) -> None:
        if self._divided and (self._waits_as is None or self._waits_as[0] is not self.client.connection._sock):
            with self._if_allowed():
                number = self.client.client_id()
                self._waits_as = self.client.connection._sock, number
        super()._brpop_start(timeout)

    def _brpop_read(self, **options: Any) -> bool:
        """kombu's method of this name (5.7), which delivers whatever it can read as JSON and raises what it cannot;
        tests/unit/test_private_parts.py holds the two against each other."""
        try:
            try:
                answer = self.client.parse_response(self.client.connection, "BRPOP", **options)
            except self.connection_errors:
                self.client.connection.disconnect()
                raise
            except ResponseError as error:
                self._rename_odd_keys(error, self._keys_of(self.active_queues), "list")
                raise Empty from error
            if not answer:
                raise Empty
            key, element = answer
            queue = bytes_to_str(key).rsplit(self.sep, 1)[0]
            self._queue_cycle.rotate(queue)
            message = self.screen_element(element if isinstance(element, bytes) else element.encode(), queue)
            if message is not None:
                self.connection._deliver(message, queue)
            return True
        finally:
            self._in_poll = None
            self._flush_brpop_reauth()

    def _size(self, queue: str) -> int:
        """kombu's, which is asked for each queue whenever a lane starts or reconnects."""
        try:
            return int(super()._size(queue))
        except ResponseError as error:
            self._rename_odd_keys(error, self._keys_of([queue]), "list")
        return int(super()._size(queue))

    def _queue_bind(self, exchange: str, *binding: Any) -> None:
        """kombu's, which notes in Redis which queues an exchange has."""
        try:
            super()._queue_bind(exchange, *binding)
        except ResponseError as error:
            notes = [self.keyprefix_queue % (exchange,), self.keyprefix_binding_permanent % (exchange,)]
            self._rename_odd_keys(error, notes, "set")
            super()._queue_bind(exchange, *binding)

    def _keys_of(self, queues: Iterable[str]) -> list[str]:
        return [self._q_for_pri(queue, step) for queue in queues for step in self.priority_steps]

    def _rename_odd_keys(self, error: ResponseError, keys: Sequence[str], wanted: str) -> None:
        """Raises `error`, unless it says that a key is of another type than `wanted`."""
        if _WRONG_TYPE not in str(error):
            raise error
        try:
            self.set_aside(keys, wanted)
        except AiiError as unavailable:  # Celery would take it for the end of the lane; it is tried again
            logger.warning("A key that is no %s could not be renamed yet: %s", wanted, unavailable)
            time.sleep(_NOT_RENAMED_PAUSE_S)

    def _receive_one(self, c: Any) -> Any:
        """A broadcast of Celery's remote control that makes no sense belongs to no job, and is left out."""
        try:
            return super()._receive_one(c)
        except (Empty, *self.connection_errors[:-1]):  # the last is KeyError, which kombu adds for its own poller
            raise
        except Exception:
            logger.warning("A broadcast to workers could not be read and was left out", exc_info=True)
            raise Empty from None
