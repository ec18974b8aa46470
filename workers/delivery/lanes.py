"""Celery's part of a worker: lanes that take messages from the queues and hand each to a thread.

Queries and activations have a lane each, that is a Celery worker with a thread pool of its own, in one process and
before one device. With a single pool, a backlog of activations would occupy every thread, and a query would
wait for one to end; across processes, the device could not serve a query between two steps of an activation.
"""

from __future__ import annotations

import logging
import random
import threading
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

import torch
from celery import Celery
from celery.events import EventDispatcher
from celery.exceptions import CPendingDeprecationWarning
from celery.worker import WorkController, state
from celery.worker.consumer import Consumer
from redis import ResponseError

from tasks.app import create_app
from tasks.names import QUEUE_ACTIVATE, QUEUE_INDEX, QUEUE_QUERY
from tasks.settings import Settings
from tasks.shares import base_queue, queues_of, share_of
from workers.delivery.envelope import REFUSED_TASK
from workers.delivery.job import Kind
from workers.delivery.job_runner import JobRunner
from workers.delivery.pulse import Pulse
from workers.delivery.set_aside import SetAside
from workers.delivery.transport import screened_connection
from workers.device.clients import acting_for
from workers.device.priority import lower_priority

logger = logging.getLogger(__name__)

_EXIT_FAILURE: Final = 70
_LONGEST_WAIT_S, _LONGEST_IDLE_WAIT_S = 0.02, 0.5
_SHORTEST_WAIT_S: Final = 0.001
_DIVIDED_WAIT_S: Final = 0.005
_REFUSED_PAUSE_S: Final = (1.0, 2.0)
_EVENTS_EVERY_S: Final = 0.25
_MOST_EVENTS: Final = 1_000  # in one message to Flower
_LANES: Final = {"query": (QUEUE_QUERY,), "activate": (QUEUE_ACTIVATE, QUEUE_INDEX)}


@dataclass(frozen=True)
class Lane:
    """One Celery worker inside this process."""

    name: str
    queues: tuple[str, ...]
    threads: int


def lanes_for(queues: Sequence[str], settings: Settings) -> list[Lane]:
    """The lanes that serve these queues and their share queues; the last one runs in the main thread."""
    threads = {"query": settings.query_threads, "activate": settings.activate_threads}
    served = {name: [queue for queue in of if queue in queues] for name, of in _LANES.items()}
    return [
        Lane(name, tuple(share for queue in of for share in queues_of(queue)), threads[name])
        for name, of in served.items()
        if of
    ]


def run_lanes(lanes: Sequence[Lane], worker: str, make_app: Callable[[], Celery], on_ready: Callable[[], None]) -> int:
    """Serve until a signal ends the process; returns its exit status. SIGTERM lets running jobs finish.

    `on_ready` is called when the main lane takes messages and minds signals, after every reconnection again.
    """
    *others, last = lanes
    threads = [
        threading.Thread(target=_run_beside, args=(lane, worker, make_app), name=f"lane-{lane.name}", daemon=True)
        for lane in others
    ]
    for thread in threads:
        thread.start()
    main = make_app().Worker(**_options(last, worker), quiet=True, ready_callback=lambda _: on_ready())
    main.start()
    _end_together()
    for thread in threads:
        thread.join()
    return int(main.exitcode or 0)


def _run_beside(lane: Lane, worker: str, make_app: Callable[[], Celery]) -> None:
    """Run a lane outside the main thread. `WorkController` is Celery's worker without the program around it: the
    signals are the main lane's, and both watch `celery.worker.state` for the end."""
    try:
        WorkController(app=make_app(), **_options(lane, worker)).start()
    except Exception:
        logger.exception("The %s lane failed", lane.name)
    _end_together()


def _end_together() -> None:
    """A lane that ended for a reason of its own ends the process: its supervisor starts a new one."""
    if state.should_stop is None:
        state.should_stop = _EXIT_FAILURE


def _options(lane: Lane, worker: str) -> dict[str, Any]:
    return {
        "hostname": f"{lane.name}@{worker}",
        "pool_cls": "threads",
        "concurrency": lane.threads,
        "queues": list(lane.queues),
        "task_events": True,
        "without_gossip": True,  # lanes need not know each other, and each such channel is one more to lose
        "without_mingle": True,
        "use_eventloop": False,  # the event loop is one a process; there may be two lanes
        "consumer_cls": _Consumer,
    }


class ShortPollConnection:
    """A broker connection that never waits for long: a moment while its lane is at work, somewhat longer otherwise.

    A finished job is acknowledged, and the next message may be taken, only between two waits of Celery's
    loop. Those last two seconds when no message may be taken, which bounds a lane to its number of threads every two
    seconds (measured: 8 activations a second with 16 threads, 2 queries a second with 4). A lane whose threads are all
    at work waits for the end of a job instead (`freed`), and takes the next message at once.

    Between two waits go the events for Flower as well, many in one message: one by one they cost a handler 3 ms a job.
    """

    def __init__(
        self, connection: Any, channel: Any, events: EventDispatcher | None, beat: Callable[[], None] = lambda: None,
        freed: threading.Event | None = None,
    ) -> None:  # fmt: skip
        self._connection = connection
        self._beat = beat
        self._channel = channel
        self._events = events
        self._freed = freed or threading.Event()
        self._flushed = time.monotonic()
        if events:
            events.buffer_group = frozenset({"task"})
            events.buffer_limit = _MOST_EVENTS

    def drain_events(self, timeout: float) -> None:
        self._beat()
        if self._events and time.monotonic() - self._flushed >= _EVENTS_EVERY_S:
            self._events.flush()
            self._flushed = time.monotonic()
        self._freed.clear()  # before it is asked how many are at work: a job that ends now is not missed
        most, free = self._channel.qos.prefetch_count, self._channel.qos.can_consume_max_estimate() or 0
        longest_s = _LONGEST_WAIT_S if free < most else _LONGEST_IDLE_WAIT_S
        if most and not free:
            self._freed.wait(min(timeout, _LONGEST_WAIT_S))
            longest_s = _SHORTEST_WAIT_S
        elif self._channel.reconsider():  # a job that ends may make room for one of the clients that are left out
            longest_s = _DIVIDED_WAIT_S
        self._connection.drain_events(timeout=min(timeout, longest_s))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._connection, name)


class _Consumer(Consumer):  # type: ignore[misc]  # celery has no types
    def create_task_handler(self, *args: Any, **options: Any) -> Callable[[Any], None]:
        """Celery's, behind a guard: messages were screened (:mod:`workers.delivery.envelope`), and if Celery stumbles
        over one nevertheless, that one is set aside. Let through, the error would end the lane, and Celery would put
        the message back for the next worker."""
        handle, set_aside = super().create_task_handler(*args, **options), self.app.set_aside

        def guarded(message: Any) -> None:
            try:
                handle(message)
            except self.connection_errors[:-1]:  # the last is KeyError, which kombu adds for its own poller
                raise
            except Exception as error:
                if state.should_stop is not None:  # the pool is closed: another worker gets the message
                    raise
                set_aside.message(message, error)

        return guarded

    def loop_args(self) -> tuple[Any, ...]:
        consumer, connection, tasks, *others = super().loop_args()
        beat, self._freed = partial(self.app.pulse.beat, self.hostname), threading.Event()
        waiting = ShortPollConnection(connection, tasks.channel, consumer.event_dispatcher, beat, self._freed)
        return consumer, waiting, tasks, *others

    def call_soon_ack(self, *args: Any, **options: Any) -> Any:
        """Celery's, by which a thread says that its job has ended."""
        done = super().call_soon_ack(*args, **options)
        self._freed.set()
        return done

    def on_connection_error_after_connected(self, exc: Exception) -> None:
        """Give up a lost connection, and survive every error on the way.

        Celery puts messages back on the way, over that very connection; while handler threads acknowledge theirs over
        it, that fails with errors that Celery takes for the end of the worker (an AttributeError inside kombu, in one
        of thirty losses). Nothing depends on it: the ledger knows what is unfinished.
        """
        # Each time, about a default to come: our jobs end by themselves, and the ledger knows them. Here and not at the
        # start of the process, since Celery's logging, set up later, turns such warnings on.
        warnings.filterwarnings("ignore", category=CPendingDeprecationWarning)
        try:
            super().on_connection_error_after_connected(exc)
        except Exception:
            logger.warning("A lost connection could not be closed in order", exc_info=True)
        if isinstance(exc, ResponseError):  # a Redis that is there and refuses would be asked again at once
            time.sleep(random.uniform(*_REFUSED_PAUSE_S))


def worker_app(
    settings: Settings, runner: JobRunner, kinds: Sequence[Kind[Any]], set_aside: SetAside, pulse: Pulse
) -> Celery:
    """A Celery application whose tasks give their jobs to `runner`; every lane needs one of its own."""
    app = create_app(settings)
    app.amqp.Connection = screened_connection(set_aside.screen, set_aside.odd_keys)
    app.set_aside, app.pulse = set_aside, pulse
    for kind in kinds:
        _register(app, runner, kind)
    _register_refusal(app, runner, kinds)
    return app


def _register(app: Celery, runner: JobRunner, kind: Kind[Any]) -> None:
    @app.task(name=kind.task, bind=True, shared=False)  # type: ignore[untyped-decorator]  # celery has no types
    def task(self: Any, request: Any = None) -> str:
        _prepare_thread(low_priority=kind.queue != QUEUE_QUERY)
        with acting_for(_client_of(self.request.delivery_info["routing_key"])):
            return runner.run(kind, self.request.id, request)


def _register_refusal(app: Celery, runner: JobRunner, kinds: Sequence[Kind[Any]]) -> None:
    @app.task(name=REFUSED_TASK, bind=True, shared=False)  # type: ignore[untyped-decorator]
    def task(self: Any, request: Any = None) -> str:
        share = self.request.delivery_info["routing_key"]
        queue = base_queue(share)
        _prepare_thread(low_priority=queue != QUEUE_QUERY)
        with acting_for(_client_of(share)):  # the ledger may know the job, which then runs
            return runner.refuse(self.request.id, queue, str(request), kinds)


def _client_of(queue: str) -> str | None:
    """By what the device tells clients apart; None for index jobs, which are no client's."""
    return None if queue == QUEUE_INDEX else share_of(queue)


_prepared = threading.local()


def _prepare_thread(*, low_priority: bool) -> None:
    """Once for each handler thread. Torch starts a team of threads for every thread that calls it: one for each of
    sixteen handlers would be too many."""
    if not getattr(_prepared, "done", False):
        torch.set_num_threads(1)
        if low_priority:
            lower_priority()
        _prepared.done = True
