"""Traces of jobs, sent to a collector that is a real HTTP server."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest

pytest.importorskip("opentelemetry.sdk")

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from producer import Producer
from tasks.results import ActivationResult
from tasks.settings import Settings
from tasks.tracing import tracer_of
from tests.photographs import crops
from tests.stack import WorkerProcess
from tests.waiting import LIMIT_S, wait_for


class Collector(HTTPServer):
    """Keeps the spans that it is sent, by trace, with the service that wrote each."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.spans: list[tuple[str, Any]] = []
        threading.Thread(target=self.serve_forever, daemon=True).start()

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def named(self, job_id: str) -> dict[str, tuple[str, Any]]:
        found = [(service, span) for service, span in list(self.spans) if span.trace_id.hex() == job_id]
        return {span.name: (service, span) for service, span in found}


class _Handler(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        sent = ExportTraceServiceRequest.FromString(self.rfile.read(int(self.headers["Content-Length"])))
        for resource in sent.resource_spans:
            (service,) = (a.value.string_value for a in resource.resource.attributes if a.key == "service.name")
            for scope in resource.scope_spans:
                self.server.spans += [(service, span) for span in scope.spans]  # type: ignore[attr-defined]
        self.send_response(200 if self.path == "/v1/traces" else 404)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Nothing."""


@pytest.fixture
def collector() -> Iterator[Collector]:
    collector = Collector()
    yield collector
    collector.shutdown()
    collector.server_close()


def test_producer_queue_stages_and_s3_of_a_job_are_one_trace(
    collector: Collector, settings: Settings, start_worker: Callable[..., WorkerProcess]
) -> None:
    start_worker(AII_OTLP_ENDPOINT=collector.endpoint)
    traced = settings.model_copy(update={"otlp_endpoint": collector.endpoint})
    good, bad = crops(2, side=160)
    with Producer.connect(traced) as producer:
        job = producer.activate(good)
        result = job.wait(LIMIT_S)
        lost = producer.activate(bad[:700])
        wait_for(lambda: lost.state().closed, "the damaged image did not end")
    assert isinstance(result, ActivationResult)
    tracer = tracer_of(traced, "aii-producer")
    assert tracer is not None
    tracer.flush()
    wanted = {"activate", "submit", "queue", "run", "fetch", "optimise", "upload"}
    spans = wait_for(lambda: s if set(s := collector.named(job.job_id)) >= wanted else None, "the trace is not whole")
    assert {spans[name][0] for name in wanted} == {"aii-producer", "aii-worker"}
    root, run = spans["activate"][1], spans["run"][1]
    assert root.parent_span_id == b""
    assert {spans[name][1].parent_span_id for name in ("submit", "queue", "run")} == {root.span_id}
    assert {spans[name][1].parent_span_id for name in ("fetch", "optimise", "upload")} == {run.span_id}
    took_ms = (run.end_time_unix_nano - run.start_time_unix_nano) / 1e6
    assert took_ms == pytest.approx(result.provenance.timings_ms["total"], abs=0.01)
    assert root.start_time_unix_nano <= run.start_time_unix_nano

    failed = wait_for(lambda: collector.named(lost.job_id).get("activate"), "the failure has no trace")[1]
    said = {attribute.key: attribute.value.string_value for attribute in failed.attributes}
    assert (said["aii.error_code"], failed.status.code) == ("truncated", 2)


def test_without_the_setting_nothing_is_traced_and_nothing_of_it_is_loaded() -> None:
    assert tracer_of(Settings(), "aii-worker") is None


def test_a_collector_that_is_away_keeps_no_job_from_being_submitted(settings: Settings) -> None:
    away = settings.model_copy(update={"otlp_endpoint": "http://127.0.0.1:1"})
    with Producer.connect(away) as producer:
        assert not producer.activate(crops(1, side=160)[0]).state().closed
