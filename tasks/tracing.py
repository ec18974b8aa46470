"""OpenTelemetry traces of jobs: off, unless AII_OTLP_ENDPOINT names a collector.

A trace is one job. Its id follows from the job's id, so producers and workers write to one trace without a word about
it in the message, and a job that is sent again stays in its trace:

    activate                    from the submission to the end
    ├ submit                    in the producer: the ledger's entry and the message
    ├ queue                     until a worker took it
    └ run                       in the worker
      ├ fetch, decode, …        one stage after the other; those at S3 are clients' spans

Spans are made once a job has ended, of the times in its result document, and exported by a thread of their own.
"""

from __future__ import annotations

import datetime
import hashlib
import logging
import random
import threading
from collections.abc import Mapping
from functools import cache
from typing import TYPE_CHECKING, Any, Final

from tasks.errors import InvalidSetting
from tasks.kinds import title_of
from tasks.results import FailureResult, Result
from tasks.settings import Settings

if TYPE_CHECKING:
    from opentelemetry.sdk.trace.export import SpanExporter

__all__ = ["JobTracer", "tracer_of"]

logger = logging.getLogger(__name__)

_AT_S3: Final = ("fetch", "upload")
_WHOLE: Final = ("total", "step", "device")  # sums and parts of others
_MS: Final = 1_000_000  # in nanoseconds


@cache
def tracer_of(settings: Settings, service: str) -> JobTracer | None:
    """The tracer of this process; None where tracing is off.

    Raises:
        InvalidSetting: the packages for it are not installed.
    """
    if not settings.otlp_endpoint:
        return None
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter  # noqa: PLC0415  # an extra
    except ImportError:
        raise InvalidSetting("AII_OTLP_ENDPOINT is set: install the extra `tracing`, or unset it.") from None
    endpoint = settings.otlp_endpoint.rstrip("/")
    return JobTracer(
        OTLPSpanExporter(endpoint if endpoint.endswith("/v1/traces") else f"{endpoint}/v1/traces"), service
    )


class JobTracer:
    """Writes the spans of jobs. Thread-safe; never raises for what an exporter cannot send.

    Args:
        service: who writes them, ``aii-producer`` or ``aii-worker``.
    """

    def __init__(self, exporter: SpanExporter, service: str) -> None:
        from opentelemetry.sdk.resources import Resource  # noqa: PLC0415  # an extra
        from opentelemetry.sdk.trace import TracerProvider  # noqa: PLC0415
        from opentelemetry.sdk.trace.export import BatchSpanProcessor  # noqa: PLC0415

        self._ids = _ids()
        self._provider = TracerProvider(resource=Resource.create({"service.name": service}), id_generator=self._ids)
        self._provider.add_span_processor(BatchSpanProcessor(exporter))
        self._tracer = self._provider.get_tracer("aii")

    def flush(self) -> None:
        """Send what was not sent yet."""
        self._provider.force_flush()

    def submitted(self, job_id: str, task: str, began_ns: int, ended_ns: int) -> None:
        """A producer has submitted a job, in this time since the epoch."""
        self._span(job_id, "submit", began_ns, ended_ns, _root(job_id), {"aii.task": task})

    def ended(self, result: Result, submitted_at: float | None) -> None:
        """A worker has ended a job.

        Args:
            submitted_at: seconds since the epoch; None where that is not known.
        """
        end = _nanoseconds(result.provenance.finished_at)
        took = round(result.provenance.timings_ms.get("total", 0.0) * _MS)
        begun = end - took
        submitted = min(begun, round(submitted_at * 1e9)) if submitted_at else begun
        name, said = title_of(result.task), _attributes(result)
        root = self._span(result.job_id, name, submitted, end, None, said, span_id=_root(result.job_id))
        if submitted < begun:
            self._span(result.job_id, "queue", submitted, begun, root, {})
        run = self._span(result.job_id, "run", begun, end, root, said)
        at = begun
        for stage, ms in result.provenance.timings_ms.items():
            if stage not in _WHOLE:
                until = at + round(ms * _MS)
                self._span(result.job_id, stage, at, until, run, {}, client=stage in _AT_S3)
                at = until

    def _span(
        self, job_id: str, name: str, began: int, ended: int, parent: int | None, said: Mapping[str, Any],
        *, client: bool = False, span_id: int | None = None,
    ) -> int:  # fmt: skip
        """Write one span; returns its id. `parent` is that of another span of this job, None for its first."""
        from opentelemetry import trace  # noqa: PLC0415  # an extra

        kind = trace.SpanKind.CLIENT if client else trace.SpanKind.INTERNAL
        context = None
        if parent is not None:
            flags = trace.TraceFlags(trace.TraceFlags.SAMPLED)
            above = trace.SpanContext(_trace(job_id), parent, is_remote=True, trace_flags=flags)
            context = trace.set_span_in_context(trace.NonRecordingSpan(above))
        attributes = {"aii.job_id": job_id, **({"peer.service": "s3"} if client else {}), **said}
        with self._ids.given(_trace(job_id), span_id):
            span = self._tracer.start_span(name, context, kind, attributes, start_time=began)
        if "aii.error_code" in said:
            span.set_status(trace.StatusCode.ERROR, str(said["aii.error_code"]))
        span.end(ended)
        return int(span.get_span_context().span_id)


def _ids() -> Any:
    """A generator of ids that can be told the next ones: the SDK asks it in the thread that starts a span."""
    from contextlib import contextmanager  # noqa: PLC0415  # as the next

    from opentelemetry.sdk.trace.id_generator import IdGenerator  # noqa: PLC0415  # an extra

    class Ids(IdGenerator):
        def __init__(self) -> None:
            self._next = threading.local()

        @contextmanager
        def given(self, trace_id: int, span_id: int | None) -> Any:
            self._next.ids = (trace_id, span_id)
            try:
                yield
            finally:
                del self._next.ids

        def generate_trace_id(self) -> int:
            return int(self._next.ids[0])

        def generate_span_id(self) -> int:
            return int(self._next.ids[1] or random.getrandbits(64) or 1)

    return Ids()


def _trace(job_id: str) -> int:
    """The id of a job's trace: our job ids are as long as that; of others, a digest."""
    try:
        return int(job_id, 16) if len(job_id) == 32 else _digest(job_id, 16)
    except ValueError:
        return _digest(job_id, 16)


def _root(job_id: str) -> int:
    """The id of the first span of a job, which all processes know."""
    return _digest(f"root {job_id}", 8)


def _digest(text: str, size: int) -> int:
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:size]) or 1


def _nanoseconds(finished_at: str) -> int:
    return round(datetime.datetime.fromisoformat(finished_at).timestamp() * 1e9)


def _attributes(result: Result) -> dict[str, Any]:
    said = {
        "aii.task": result.task, "aii.status": result.status, "aii.worker": result.provenance.worker,
        "aii.device": result.provenance.device, "aii.collection": getattr(result, "collection", ""),
        "aii.asset_id": getattr(result, "asset_id", ""),
    }  # fmt: skip
    if isinstance(result, FailureResult):
        said["aii.error_code"] = result.code
    return {name: value for name, value in said.items() if value}
