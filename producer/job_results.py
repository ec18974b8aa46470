"""``aii jobs wait`` and ``aii jobs download``: results of jobs that were submitted earlier, or elsewhere."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from producer import output
from producer.batch import Submission, ended_jobs
from producer.client import Producer
from producer.jobs import named_jobs
from producer.manifest import foreign_manifests
from producer.outputs import Outputs, digest_of, published_name
from producer.retry_policy import NO_RETRIES
from producer.saving import save_protected, write_rows
from producer.search import Found, Search
from tasks.command_line import EXIT_FAILED, echo, one_line
from tasks.errors import AiiError, DeadlineExceeded, NotFound, error_of
from tasks.ledger.operations import Operations
from tasks.output_files import check_folder, refuse_existing
from tasks.results import ActivationResult, FailureResult, ImageResult, QueryResult
from tasks.settings import load_settings

__all__ = ["download_jobs", "wait_for_jobs"]


def wait_for_jobs(parts: Sequence[str], timeout_s: float | None, *, as_json: bool) -> None:
    """Print how jobs end, each as it ends. Exits when one failed, or is still open after `timeout_s` seconds."""
    settings = load_settings()
    job_ids = list(dict.fromkeys(named_jobs(Operations.connect(settings), parts)))
    failed = False
    with Producer.connect(settings) as producer:
        for job_id, outcome in _outcomes(producer, job_ids, timeout_s):
            failed |= isinstance(outcome, AiiError)
            echo(json.dumps(_record(job_id, outcome)) if as_json else f"{job_id}: {_said(job_id, outcome)}")
    if failed:
        sys.exit(EXIT_FAILED)


def download_jobs(parts: Sequence[str], folder: Path, *, force: bool) -> None:
    """Save the protected files of activations that are done, under the files' own names. Exits when one has none.

    Raises:
        UsageError: a name is that of two files, or of another file that is there already; nothing was saved.
    """
    settings = load_settings()
    job_ids = list(dict.fromkeys(named_jobs(Operations.connect(settings), parts)))
    with Producer.connect(settings) as producer:
        ended = dict(_outcomes(producer, job_ids, 0))
        done = {job_id: result for job_id, result in ended.items() if isinstance(result, ActivationResult)}
        outputs = _planned(list(done.values()), folder, force=force)
        saved = [
            save_protected(producer, NO_RETRIES, outputs, _submission(order, job_id, result))
            for order, (job_id, result) in enumerate(done.items())
        ]
    if saved:
        write_rows(saved, Search(), folder)
    problems = {s.job_id: s.error for s in saved if s.error} | {
        job_id: outcome if isinstance(outcome, AiiError) else NotFound("It has no protected file: it is no activation.")
        for job_id, outcome in ended.items()
        if job_id not in done
    }
    for s in saved:
        if s.saved:
            echo(f"{s.job_id}: {one_line(str(s.saved))}")
    for name, error in problems.items():
        echo(f"{name}: FAILED [{error.code}] {error.message}")
    if problems:
        sys.exit(EXIT_FAILED)


def _outcomes(
    producer: Producer, job_ids: Sequence[str], timeout_s: float | None
) -> Iterator[tuple[str, ImageResult | AiiError]]:
    """Every job once; one that failed, or is still open at the end, with the error that says so."""
    pending = dict.fromkeys(job_ids)
    for job_id, outcome in ended_jobs(producer, timeout_s, NO_RETRIES, pending):
        yield job_id, error_of(outcome.code, outcome.message) if isinstance(outcome, FailureResult) else outcome
    for job_id in pending:
        yield job_id, DeadlineExceeded("It is not done; it goes on: wait for it with `aii jobs wait`.")


def _planned(results: Sequence[ActivationResult], folder: Path, *, force: bool) -> Outputs:
    names = [published_name(Path(_own_name(r)), Path(r.protected_key).suffix) for r in results]
    outputs = Outputs(folder, names, force)
    check_folder(folder)
    outputs.refuse_clashes([r.job_id for r in results])
    if not force:
        paths = ((folder / name, r.protected_sha256) for name, r in zip(names, results, strict=True))
        others = [path for path, digest in paths if path.exists() and digest_of(path) != digest]
        refuse_existing([*others, *foreign_manifests(folder)])
    return outputs


def _own_name(result: ActivationResult) -> str:
    """The file's own name, else one made of the asset id, which may hold anything: never one that leaves the folder."""
    name = (result.name or result.asset_id).replace("/", "_").replace("\0", "_").lstrip(".")
    return name.encode()[-200:].decode(errors="ignore") or result.job_id


def _submission(order: int, job_id: str, result: ImageResult) -> Submission:
    name = result.name if isinstance(result, ActivationResult) and result.name else job_id
    known = result if isinstance(result, ActivationResult | QueryResult) else None
    return Submission(order, Found(name, name, b""), job_id, new=True, result=known)


def _said(job_id: str, outcome: ImageResult | AiiError) -> str:
    if isinstance(outcome, AiiError):
        return f"FAILED [{outcome.code}] {outcome.message}"
    if isinstance(outcome, ActivationResult):
        return output.activation_line(_submission(0, job_id, outcome))
    if isinstance(outcome, QueryResult):
        return output.query_line(_submission(0, job_id, outcome))
    return outcome.status


def _record(job_id: str, outcome: ImageResult | AiiError) -> dict[str, Any]:
    if isinstance(outcome, AiiError):
        return {"job_id": job_id, "status": "failed", "code": outcome.code, "message": outcome.message}
    return outcome.model_dump(mode="json")
