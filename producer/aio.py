"""The producer for asyncio: the same one, without blocking the event loop."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Iterable, Iterator
from dataclasses import dataclass
from functools import wraps
from typing import Any, Concatenate, Final, Generic, ParamSpec, Protocol, TypeVar, cast, overload

from producer.client import Producer
from producer.job import ActivationJob, Job, QueryJob
from producer.many import DEFAULT_WINDOW, Finished, Submitted
from producer.requests import Activation, Image, Query
from tasks.errors import DeadlineExceeded, error_of
from tasks.ledger.states import JobState
from tasks.ledger.waiting import closing
from tasks.results import ActivationResult, FailureResult, QueryResult
from tasks.settings import Settings

__all__ = ["AsyncJob", "AsyncProducer"]

_P = ParamSpec("_P")
_R = TypeVar("_R")
_R_co = TypeVar("_R_co", covariant=True)
_END: Final = object()


@dataclass(frozen=True)
class AsyncJob(Generic[_R_co]):
    """One accepted request; what does not wait for a service is asked of `job`."""

    job: Job
    _producer: Producer

    @property
    def job_id(self) -> str:
        return self.job.job_id

    @property
    def new(self) -> bool:
        return self.job.new

    async def state(self) -> JobState:
        """As :meth:`Job.state`."""
        return await asyncio.to_thread(self.job.state)

    async def cancel(self) -> JobState:
        """As :meth:`Job.cancel`."""
        return await asyncio.to_thread(self.job.cancel)

    async def wait(self, timeout_s: float | None = None) -> _R_co:
        """As :meth:`Job.wait`; any number may wait at a time, as none of them takes a thread."""
        ended = await closing(self._producer.ledger, self.job_id, timeout_s)
        if ended is None:
            raise DeadlineExceeded(f"Job {self.job_id} is not done after {timeout_s} s; it goes on: wait again later.")
        result = await asyncio.to_thread(self._producer.ended, ended)
        if isinstance(result, FailureResult):
            raise error_of(result.code, result.message)
        return cast(_R_co, result)


class _JobOf(Protocol[_R_co]):
    """A job with a result of one kind."""

    def wait(self, timeout_s: float | None = None) -> _R_co: ...


def _awaited(
    method: Callable[Concatenate[Producer, _P], _R],
) -> Callable[Concatenate[AsyncProducer, _P], Coroutine[Any, Any, _R]]:
    """A method of :class:`Producer`, with its arguments and its docstring, in a thread."""

    @wraps(method)
    async def called(self: AsyncProducer, /, *args: _P.args, **kwargs: _P.kwargs) -> _R:
        own: Callable[_P, _R] = getattr(self.producer, method.__name__)  # a subclass may have its own
        return await asyncio.to_thread(own, *args, **kwargs)

    return called


def _submits(
    method: Callable[Concatenate[Producer, _P], _JobOf[_R]],
) -> Callable[Concatenate[AsyncProducer, _P], Coroutine[Any, Any, AsyncJob[_R]]]:
    """The same for one that gives a job."""
    awaited: Callable[..., Awaitable[Any]] = _awaited(method)

    @wraps(method)
    async def called(self: AsyncProducer, /, *args: _P.args, **kwargs: _P.kwargs) -> AsyncJob[_R]:
        return AsyncJob(await awaited(self, *args, **kwargs), self.producer)

    return called


class AsyncProducer:
    """Submits images; methods, arguments and errors are those of :class:`Producer`, which is in `producer`."""

    def __init__(self, producer: Producer) -> None:
        self.producer = producer

    @classmethod
    def connect(cls, settings: Settings | None = None, *, client: str | None = None) -> AsyncProducer:
        """As :meth:`Producer.connect`."""
        return cls(Producer.connect(settings, client=client))

    async def __aenter__(self) -> AsyncProducer:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    activate = _submits(Producer.activate)
    query = _submits(Producer.query)
    query_vectors = _submits(Producer.query_vectors)
    explain = _submits(Producer.explain)
    card = _submits(Producer.card)
    feedback = _submits(Producer.feedback)
    job = _submits(Producer.job)
    check = _awaited(Producer.check)
    close = _awaited(Producer.close)
    cancel = _awaited(Producer.cancel)
    result = _awaited(Producer.result)
    protected_image = _awaited(Producer.protected_image)
    download_protected = _awaited(Producer.download_protected)

    @overload
    async def submit(self, wanted: Activation) -> AsyncJob[ActivationResult]: ...
    @overload
    async def submit(self, wanted: Query) -> AsyncJob[QueryResult]: ...
    async def submit(self, wanted: Activation | Query) -> AsyncJob[Any]:
        """As :meth:`Producer.submit`."""
        job: ActivationJob | QueryJob = await asyncio.to_thread(self.producer.submit, wanted)
        return AsyncJob(job, self.producer)

    def submit_many(
        self, wanted: Iterable[Activation | Query | Image], *, window: int = DEFAULT_WINDOW
    ) -> AsyncGenerator[Submitted]:
        """As :meth:`Producer.submit_many`. `wanted` is read in a thread."""
        return _iterated(self.producer.submit_many(wanted, window=window))

    def run_many(
        self, wanted: Iterable[Activation | Query | Image], *, window: int = DEFAULT_WINDOW
    ) -> AsyncGenerator[Finished]:
        """As :meth:`Producer.run_many`; it keeps one thread, however many jobs are open."""
        return _iterated(self.producer.run_many(wanted, window=window))


async def _iterated(items: Iterator[_R]) -> AsyncGenerator[_R]:
    """The items of a generator, each awaited for in a thread; the generator is closed when the caller stops early."""
    step: asyncio.Future[Any] | None = None
    try:
        while True:
            step = asyncio.ensure_future(asyncio.to_thread(next, items, _END))
            item = await asyncio.shield(step)  # a generator cannot be closed while it runs
            if item is _END:
                return
            yield cast(_R, item)
    finally:
        if step is not None and not step.done():
            step.add_done_callback(lambda _: _close(items))
        else:
            await asyncio.to_thread(_close, items)


def _close(items: Iterator[Any]) -> None:
    if close := getattr(items, "close", None):
        close()
