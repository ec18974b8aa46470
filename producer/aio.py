"""The producer for asyncio: the same one, without blocking the event loop."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Generic, TypeVar, cast

from producer.client import Producer
from producer.job import ActivationJob, Job, QueryJob
from producer.requests import Activation, Image, Query
from tasks.errors import DeadlineExceeded, error_of
from tasks.ledger.states import JobState
from tasks.ledger.waiting import closing
from tasks.messages import ActivationOptions, QueryOptions
from tasks.results import ActivationResult, FailureResult, QueryResult
from tasks.settings import Settings

__all__ = ["AsyncJob", "AsyncProducer"]

_R_co = TypeVar("_R_co", bound=ActivationResult | QueryResult, covariant=True)


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


class AsyncProducer:
    """Submits images; methods, arguments and errors are those of :class:`Producer`, which is in `producer`."""

    def __init__(self, producer: Producer) -> None:
        self.producer = producer

    @classmethod
    def connect(cls, settings: Settings | None = None) -> AsyncProducer:
        """As :meth:`Producer.connect`."""
        return cls(Producer.connect(settings))

    async def close(self) -> None:
        await asyncio.to_thread(self.producer.close)

    async def __aenter__(self) -> AsyncProducer:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def check(self) -> None:
        await asyncio.to_thread(self.producer.check)

    async def submit(self, wanted: Activation | Query) -> AsyncJob[ActivationResult | QueryResult]:
        return AsyncJob(await asyncio.to_thread(self.producer.submit, wanted), self.producer)

    async def activate(  # noqa: PLR0913  # as in Producer.activate
        self,
        image: Image,
        *,
        asset_id: str | None = None,
        collection: str | None = None,
        options: ActivationOptions | Mapping[str, Any] | None = None,
        meta: Mapping[str, str] | None = None,
        again: bool = False,
        name: str | None = None,
        replace: bool = False,
        idempotency_key: str = "",
    ) -> AsyncJob[ActivationResult]:
        wanted = Activation(
            image, asset_id=asset_id, collection=collection, options=options, meta=meta, again=again, name=name,
            replace=replace, idempotency_key=idempotency_key,
        )  # fmt: skip
        job: ActivationJob = await asyncio.to_thread(self.producer.submit, wanted)
        return AsyncJob(job, self.producer)

    async def query(
        self,
        image: Image,
        *,
        collection: str | None = None,
        options: QueryOptions | Mapping[str, Any] | None = None,
        idempotency_key: str = "",
    ) -> AsyncJob[QueryResult]:
        wanted = Query(image, collection=collection, options=options, idempotency_key=idempotency_key)
        job: QueryJob = await asyncio.to_thread(self.producer.submit, wanted)
        return AsyncJob(job, self.producer)

    async def job(self, job_id: str) -> AsyncJob[ActivationResult | QueryResult]:
        return AsyncJob(await asyncio.to_thread(self.producer.job, job_id), self.producer)

    async def cancel(self, job_id: str) -> JobState:
        return await asyncio.to_thread(self.producer.cancel, job_id)

    async def protected_image(self, result: ActivationResult) -> bytes:
        return await asyncio.to_thread(self.producer.protected_image, result)

    async def download_protected(self, result: ActivationResult, path: str | os.PathLike[str]) -> None:
        await asyncio.to_thread(self.producer.download_protected, result, path)
