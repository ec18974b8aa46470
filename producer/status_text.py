"""``aii status`` as text and as JSON."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator

from producer.status import Status
from tasks.kinds import title_of
from tasks.monitoring.overview import Comparison, Overview, StageState
from tasks.monitoring.presence import WorkerNote
from tasks.results import ActivationResult

__all__ = ["status_json", "status_text"]


def status_json(state: Status) -> str:
    """One object: the services' addresses, the overview's fields, and the latest results' main figures."""
    services = {"redis": state.redis, "s3": state.s3, "s3_problem": state.s3_problem, "flower": state.flower}
    results = [
        {
            "job_id": r.job_id,
            "asset_id": r.asset_id,
            "name": r.name,
            "status": r.status,
            **r.quality.model_dump(mode="json"),
        }
        for r in state.results
    ]
    return json.dumps(services | state.overview.model_dump(mode="json") | {"results": results})


def status_text(state: Status) -> str:
    return "\n".join(_lines(state))


def _lines(state: Status) -> Iterator[str]:
    view = state.overview
    for found in view.problems:
        yield f"{'!!' if found.severity == 'severe' else '!':<9}{found.title}: {found.detail} [{found.anchor}]"
    yield f"Redis    {state.redis}"
    yield f"S3       {state.s3_problem or state.s3}"
    yield f"Flower   {state.flower or 'not started by `aii up`'}"
    yield from map(_worker, view.workers)
    if not view.workers:
        yield "worker   none is running: start one with `aii up` or `aii worker`"
    for held in view.collections:
        entries = f"{held.vectors:,} + {held.journal:,} in the journal"
        yield f"index    {held.name}: {held.factory}, generation {held.generation}, {entries}"
    for queue in view.queues:
        age = "" if queue.oldest_age_s is None else f", the oldest for {queue.oldest_age_s:.0f} s"
        drain = f", empty in about {queue.drain_s:.0f} s" if queue.waiting and queue.drain_s is not None else ""
        yield f"queue    {queue.queue}: {queue.waiting} waiting{age}{drain}"
    yield from _jobs(view)
    yield from _speed(view)
    for result in state.results:
        yield _result(result, view.outdated.get(result.job_id, ""))


def _worker(worker: WorkerNote) -> str:
    memory, queues = f"{worker.memory_bytes / 2**20:,.0f} MiB", ",".join(worker.queues)
    does = f"extractor {worker.extractor}, batches of up to {worker.batch_images}, queues {queues}"
    does += f", shard {worker.shard}" if worker.shard else ""
    return f"worker   {worker.worker}: {worker.device}, {memory}, {does}"


def _jobs(view: Overview) -> Iterator[str]:
    done, failed = view.counts.get("done", 0), view.counts.get("failed", 0)
    yield f"jobs     {view.running} running; {done} done and {failed} failed in this Redis so far"
    if (rate := view.feedback.rejection_rate) is not None:
        said = view.feedback
        yield f"matches  {said.confirmed} confirmed and {said.rejected} rejected by people: {rate:.1%} rejected"
    for failure in view.failures:
        at = time.strftime("%H:%M:%S", time.localtime(failure.at))
        count = f"{failure.count} in {view.window_s // 60} minutes"
        yield f"failure  {failure.code}: {count}, last at {at}: {failure.message}"
    for job in view.failed_jobs[:5]:
        yield f"failed   {job.job_id} [{job.error_code}] {job.asset_id or job.task}"
    if view.failed:
        yield f"         {view.failed} in all: `aii jobs list failed`, `aii jobs retry JOB`"


def _speed(view: Overview) -> Iterator[str]:
    yield f"speed    {view.images_per_s:.2f} images/s, {view.queries_per_s:.2f} queries/s in the last minute"
    yield from map(_comparison, view.comparisons)
    if view.stages:
        yield ""
        yield f"         {'stage':<20}{'p50':>9}{'p95':>9}{'p99':>9}  ms an image, last {view.window_s // 60} minutes"
        yield from map(_stage, view.stages)
        yield ""


def _comparison(figure: Comparison) -> str:
    paper = f"the paper {figure.paper_ms} ms or {figure.paper_per_s:,.4g}/s ({figure.paper_setting})"
    if figure.p50_ms is None or figure.p95_ms is None or figure.ratio is None:
        return f"paper    {figure.title}: none lately; {paper}"
    ours = f"p50 {figure.p50_ms:.3g} ms ({figure.per_s or 0:,.4g}/s), p95 {figure.p95_ms:.3g} ms"
    target = f", target {figure.target_ms:g} ms" if figure.target_ms else ""
    if figure.incomparable:
        return f"paper    {figure.title}: {ours}{target}; not comparable with {paper}: {figure.incomparable}"
    return f"paper    {figure.title}: {ours}{target}, {figure.ratio:.2g} times {paper}"


def _stage(stage: StageState) -> str:
    name = f"{title_of(stage.task)} {stage.stage}"
    return f"         {name:<20}{stage.p50_ms:>9.2f}{stage.p95_ms:>9.2f}{stage.p99_ms:>9.2f}"


def _result(result: ActivationResult, outdated: str) -> str:
    psnr = "unchanged" if result.quality.psnr_db is None else f"PSNR {result.quality.psnr_db:.1f} dB"
    verified = "verified" if result.status == "activated" else "passive"
    named = f"{result.name}, " if result.name else ""
    later = f", {outdated}" if outdated else ""
    return f"result   {named}{result.asset_id[:32]}: {verified}, {psnr}, SSIM {result.quality.ssim:.4f}{later}"
