"""``aii status`` as text and as JSON."""

from __future__ import annotations

import json
from collections.abc import Iterator

from producer.status import Status
from tasks.overview import Overview, StageState

__all__ = ["status_json", "status_text"]

_TASKS = {"aii.activate": "activate", "aii.query": "query"}


def status_json(state: Status) -> str:
    """One object: the services' addresses, and the overview's fields."""
    services = {"redis": state.redis, "s3": state.s3, "flower": state.flower}
    return json.dumps(services | state.overview.model_dump(mode="json"))


def status_text(state: Status) -> str:
    return "\n".join(_lines(state))


def _lines(state: Status) -> Iterator[str]:
    view = state.overview
    yield f"Redis    {state.redis}"
    yield f"S3       {state.s3}"
    yield f"Flower   {state.flower or 'not started by `aii up`'}"
    for worker in view.workers:
        memory = f"{worker.memory_bytes / 2**20:,.0f} MiB"
        queues = ",".join(worker.queues)
        yield f"worker   {worker.worker}: {worker.device}, {memory}, extractor {worker.extractor}, queues {queues}"
    if not view.workers:
        yield "worker   none is running: start one with `aii up` or `aii worker`"
    for held in view.collections:
        yield f"index    {held.name}: generation {held.generation}, {held.vectors:,} + {held.journal:,} in the journal"
    for queue in view.queues:
        age = "" if queue.oldest_age_s is None else f", the first for {queue.oldest_age_s:.0f} s"
        drain = f", empty in about {queue.drain_s:.0f} s" if queue.waiting and queue.drain_s is not None else ""
        yield f"queue    {queue.queue}: {queue.waiting} waiting{age}{drain}"
    done, failed = view.counts.get("done", 0), view.counts.get("failed", 0)
    yield f"jobs     {view.running} running, {done} done, {failed} failed since the beginning"
    yield from _speed(view)
    for job in view.failed_jobs[:5]:
        yield f"failed   {job.job_id} [{job.error_code}] {job.error_message}"


def _speed(view: Overview) -> Iterator[str]:
    yield f"speed    {view.images_per_s:.2f} images/s, {view.queries_per_s:.2f} queries/s in the last minute"
    if not view.stages:
        return
    yield ""
    yield f"         {'stage':<20}{'p50':>9}{'p95':>9}{'p99':>9}  ms an image, last {view.window_s // 60} minutes"
    yield from map(_stage, view.stages)
    yield ""
    yield f"paper    {', '.join(f'{what} {ms} ms' for what, ms in view.paper_ms.items())} (SSCD, GPU)"


def _stage(stage: StageState) -> str:
    name = f"{_TASKS.get(stage.task, stage.task)} {stage.stage}"
    return f"         {name:<20}{stage.p50_ms:>9.2f}{stage.p95_ms:>9.2f}{stage.p99_ms:>9.2f}"
