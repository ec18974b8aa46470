"""The only place of the producer that prints."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import click

from producer.batch import Submission
from tasks.results import ActivationResult, QueryResult

_ID_WIDTH = 16


def note(text: str) -> None:
    click.echo(text, err=True)


def report(submissions: Sequence[Submission], as_json: bool, line: Callable[[Submission], str]) -> int:
    """Print every image in the order it was named; returns how many failed."""
    for submission in submissions:
        click.echo(_json_line(submission) if as_json else _line(submission, line))
    failed = sum(1 for s in submissions if s.error)
    if not as_json:
        note(f"{len(submissions) - failed} of {len(submissions)} images done, {failed} failed.")
    return failed


def _line(submission: Submission, line: Callable[[Submission], str]) -> str:
    if submission.error:
        return f"{submission.found.name}: FAILED [{submission.error.code}] {submission.error.message}"
    return f"{submission.found.name}: {line(submission)}"


def activation_line(submission: Submission) -> str:
    result = submission.result
    assert isinstance(result, ActivationResult)
    psnr = f"{result.quality.psnr_db:.1f} dB" if result.quality.psnr_db is not None else "unchanged"
    again = "" if submission.new else ", done before"
    state = (
        "activated" if result.status == "activated" else "PASSIVE (registered, but the change could not be verified)"
    )
    return f"{state}, PSNR {psnr}, asset {_short(result.asset_id)}{again}"


def query_line(submission: Submission) -> str:
    result = submission.result
    assert isinstance(result, QueryResult)
    if not result.matches:
        return "no match"
    first = result.matches[0]
    verdict = {"match": "match", "no_match": "no match (nearest:", "uncalibrated": "nearest"}[result.verdict]
    text = f"{verdict} {_short(first.asset_id)} at distance {first.distance:.3f}"
    limit = "" if result.threshold is None else f", threshold {result.threshold:.3f}"
    return text + limit + (")" if result.verdict == "no_match" else "")


def _short(asset_id: str) -> str:
    """A digest is recognised by its first digits; a name is shown whole."""
    return asset_id[:_ID_WIDTH] + "…" if len(asset_id) == 64 else asset_id


def _json_line(submission: Submission) -> str:
    record: dict[str, Any] = {"image": submission.found.name, "job_id": submission.job_id, "new": submission.new}
    if submission.error:
        record |= {"status": "failed", "code": submission.error.code, "message": submission.error.message}
    elif submission.result:
        record |= submission.result.model_dump(mode="json")
    return json.dumps(record)


def save_protected(data: bytes, folder: Path, relative: Path, key: str) -> None:
    """Write a protected image below `folder`, under its own name and with the suffix of the published object."""
    path = folder / relative.with_suffix(Path(key).suffix)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
