"""Waiting for jobs: one thread of a process reads the stream of events for all who wait in it.

An event only saves asking. Whatever may keep it away (the stream was trimmed, Redis was replaced, a worker of an older
version closed the job), the ledger is asked for the state as well, now and then.
"""

from __future__ import annotations

import asyncio
import logging
import os
import queue
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol

from tasks.errors import Unavailable
from tasks.ledger.events import EventLog, JobEvent, subject_of
from tasks.ledger.states import JobState

if TYPE_CHECKING:
    from tasks.ledger.ledger import Ledger

__all__ = ["Closing", "Completions", "closing", "closings", "wait_until_closed"]

logger = logging.getLogger(__name__)

# The states of so many jobs are asked for at once.
_WINDOW: Final = 200
# Between two questions to the ledger while no event comes.
_FIRST_CHECK_S: Final = 0.5
_LONGEST_CHECK_S: Final = 5.0
_BLOCK_MS: Final = 1_000  # below the time-out of a socket
# Events that come in close succession are read together: a fleet closes a thousand jobs a second. A pause is as long as
# suits the caller that waits for the fewest jobs.
_GATHER_S: Final = 0.005
_LONGEST_GATHER_S: Final = 0.25
_PAUSE_S: Final = 0.5
# The thread stays for the next who waits, so that each query does not start one.
_LINGER_S: Final = 5.0


@dataclass(frozen=True)
class Closing:
    """A job that has ended.

    Attributes:
        state: None for a job that the ledger does not know.
        document: the number of its result document where an event has told it.
        lost: the ledger forgot it while it was waited for: it was emptied. Otherwise the job ended long ago, perhaps.
    """

    job_id: str
    state: JobState | None
    document: int | None = None
    lost: bool = False


class Receiver(Protocol):
    """What events are put into."""

    def put(self, item: JobEvent, /) -> object: ...


class Completions:
    """Hands each event to those who wait for its job. Thread-safe, and usable again in a forked child."""

    def __init__(self, events: EventLog) -> None:
        self._events = events
        self._begin()

    def _begin(self) -> None:
        self._lock = threading.Lock()
        self._waiting: dict[str, list[Receiver]] = {}
        self._counts: list[int] = []  # how many jobs each caller waits for
        self._thread: threading.Thread | None = None
        self._end = threading.Event()  # of that thread
        self._left_at = 0.0  # when the last one left, on the monotonic clock
        self._pid = os.getpid()  # last: another thread of the child may look at it meanwhile

    @contextmanager
    def watch(self, subjects: Iterable[str]) -> Iterator[queue.SimpleQueue[JobEvent]]:
        """Within the block, the queue gets all events of these subjects that are written from now on, and perhaps a few
        that are older. Raises RedisUnavailable."""
        received = queue.SimpleQueue[JobEvent]()
        with self.watch_for(subjects, received):
            yield received

    @contextmanager
    def watch_for(self, subjects: Iterable[str], received: Receiver) -> Iterator[None]:
        """The same for a queue of the caller's, into which another thread puts the events."""
        if self._pid != os.getpid():  # thread and lock are the parent's
            self._begin()
        wanted = list(subjects)
        with self._lock:
            if self._thread is None or not self._thread.is_alive():
                self._start()
            for subject in wanted:
                self._waiting.setdefault(subject, []).append(received)
            self._counts.append(len(wanted))
        try:
            yield
        finally:
            with self._lock:
                for subject in wanted:
                    self._leave(subject, received)
                self._counts.remove(len(wanted))
                self._left_at = time.monotonic()

    def close(self) -> None:
        """End the thread, soon; its connection may be closed at once."""
        with self._lock:
            self._end.set()
            self._thread = None

    def _start(self) -> None:
        position, self._end = self._events.last_entry(), threading.Event()
        self._thread = threading.Thread(target=self._read, args=(position, self._end), name="job-events", daemon=True)
        self._thread.start()

    def _leave(self, subject: str, received: Receiver) -> None:
        others = [one for one in self._waiting.get(subject, []) if one is not received]
        if others:
            self._waiting[subject] = others
        else:
            self._waiting.pop(subject, None)

    def _read(self, position: str, end: threading.Event) -> None:
        while self._needed(end):
            try:
                position, events = self._events.read_after(position, _BLOCK_MS)
            except Unavailable:  # those who wait ask the ledger, and are told
                end.wait(_PAUSE_S)
            except Exception:
                if not end.is_set():  # its connection was closed under it
                    logger.exception("The events of jobs cannot be read; the ledger is asked instead")
                end.wait(_LONGEST_CHECK_S)
            else:
                self._hand_out(events)
                end.wait(self._gather_s() if events else 0)

    def _gather_s(self) -> float:
        with self._lock:
            return min(_GATHER_S * max(1, min(self._counts, default=1)), _LONGEST_GATHER_S)

    def _needed(self, end: threading.Event) -> bool:
        """Whether anyone waits, or did a moment ago; with False the thread has ended."""
        with self._lock:
            if end.is_set():
                return False
            needed = bool(self._waiting) or time.monotonic() - self._left_at < _LINGER_S
            if not needed:
                self._thread = None
            return needed

    def _hand_out(self, events: Sequence[JobEvent]) -> None:
        with self._lock:
            for event in events:
                for received in self._waiting.get(event.subject, ()):
                    received.put(event)


def wait_until_closed(
    ledger: Ledger, job_ids: Sequence[str], timeout_s: float | None
) -> Iterator[tuple[str, JobState | None]]:
    """Yield ``(job_id, state)`` as jobs close, in any order; a job the ledger forgot comes with None.

    Ends silently when `timeout_s` is over: what was not yielded is still open.
    """
    for closing in closings(ledger, job_ids, timeout_s):
        yield closing.job_id, closing.state


def closings(ledger: Ledger, job_ids: Sequence[str], timeout_s: float | None) -> Iterator[Closing]:
    """The same, with what the events say of the jobs."""
    deadline = None if timeout_s is None else time.monotonic() + timeout_s
    pending = _Pending(job_ids)
    with ledger.completions.watch(pending.by_subject) as received:
        yield from pending.asked_all(ledger)
        pause_s = _FIRST_CHECK_S
        while pending.places:
            left_s = pause_s if deadline is None else min(pause_s, deadline - time.monotonic())
            if left_s <= 0:
                return
            try:
                event = received.get(timeout=left_s)
            except queue.Empty:
                yield from pending.asked_some(ledger)
                pause_s = min(1.5 * pause_s, _LONGEST_CHECK_S)
            else:
                yield from pending.told(event)


async def closing(ledger: Ledger, job_id: str, timeout_s: float | None) -> Closing | None:
    """The end of one job, without blocking the event loop or keeping a thread; None when `timeout_s` is over."""
    deadline = None if timeout_s is None else time.monotonic() + timeout_s
    pending, received = _Pending([job_id]), _LoopQueue()
    with ExitStack() as stack:

        def begun() -> list[Closing]:
            stack.enter_context(ledger.completions.watch_for(pending.by_subject, received))
            return list(pending.asked_all(ledger))

        ended = await asyncio.to_thread(begun)
        pause_s = _FIRST_CHECK_S
        while not ended:
            left_s = pause_s if deadline is None else min(pause_s, deadline - time.monotonic())
            if left_s <= 0:
                return None
            try:
                event = await asyncio.wait_for(received.events.get(), left_s)
            except TimeoutError:
                ended = await asyncio.to_thread(list, pending.asked_some(ledger))
                pause_s = min(1.5 * pause_s, _LONGEST_CHECK_S)
            else:
                ended = list(pending.told(event))
        return ended[0]


class _LoopQueue:
    """Events of another thread in the running event loop."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self.events = asyncio.Queue[JobEvent]()

    def put(self, item: JobEvent, /) -> None:
        with suppress(RuntimeError):  # the loop is closed: its wait was given up
            self._loop.call_soon_threadsafe(self.events.put_nowait, item)


class _Pending:
    """Jobs that are waited for; `places` has where each stood in its queue when the ledger was asked first: an event
    from before that belongs to an earlier run of the job."""

    def __init__(self, job_ids: Sequence[str]) -> None:
        self.places: dict[str, int] = dict.fromkeys(job_ids, 0)
        self.by_subject = {subject_of(job_id): job_id for job_id in self.places}

    def told(self, event: JobEvent) -> Iterator[Closing]:
        job_id = self.by_subject[event.subject]
        place = self.places.get(job_id)
        if place is not None and event.place >= place:
            del self.places[job_id]
            yield Closing(job_id, event.state, event.document or None)

    def asked_all(self, ledger: Ledger) -> Iterator[Closing]:
        job_ids = list(self.places)
        for start in range(0, len(job_ids), _WINDOW):
            yield from self._asked(ledger, job_ids[start : start + _WINDOW], lost=False)

    def asked_some(self, ledger: Ledger) -> Iterator[Closing]:
        """Ask for the first jobs: queues are first in, first out. As long as some of those have ended, the next are
        asked for too; otherwise these have their turn again after all others."""
        while window := list(self.places)[:_WINDOW]:
            ended = list(self._asked(ledger, window, lost=True))
            yield from ended
            if not ended:
                self.places |= {job_id: self.places.pop(job_id) for job_id in window}
                return

    def _asked(self, ledger: Ledger, job_ids: Sequence[str], *, lost: bool) -> Iterator[Closing]:
        for job_id, (state, place) in zip(job_ids, ledger.states_and_places(job_ids), strict=True):
            if state is None or state.closed:
                del self.places[job_id]
                yield Closing(job_id, state, lost=lost and state is None)
            else:
                self.places[job_id] = place
