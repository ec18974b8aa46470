"""The only place of the producer that prints."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any, Final

from producer.batch import Submission
from producer.search import Search, summary
from tasks.command_line import echo, one_line, printable
from tasks.errors import NotFound
from tasks.results import ActivationResult, QueryResult

__all__ = ["activation_line", "note", "query_line", "report"]

_ID_WIDTH = 16
_NAMED: Final = 10  # of the files that were not read, without --json


def note(text: str) -> None:
    echo(text, err=True)


def report(
    submissions: Sequence[Submission], search: Search, *, as_json: bool, line: Callable[[Submission], str]
) -> int:
    """Print every image in the order it was named, then what was not read; returns how many failed."""
    for submission in submissions:
        echo(_json_line(submission) if as_json else _line(submission, line))
    failed = sum(1 for s in submissions if s.error) + len(search.unread)
    if as_json:
        _unread_as_json(search)
        return failed
    _unread(search)
    ended = [s for s in submissions if s.result or s.error]
    if ended or not submissions:
        total = len(submissions) + len(search.unread)
        note(f"{sum(1 for s in submissions if s.result and not s.error)} of {total} images done, {failed} failed.")
    if text := summary(search):
        note(f"{text}.")
    return failed


def _unread(search: Search) -> None:
    """Name what was not read: every failure, and the first of what was left out."""
    for unread in search.unread:
        echo(f"{one_line(unread.name)}: FAILED [{NotFound.code}] cannot be read: {unread.reason}")
    for skipped in search.skipped[:_NAMED]:
        more = f": {skipped.message}" if skipped.message else ""
        note(f"{one_line(skipped.name)}: skipped ({skipped.reason}){more}")
    if len(search.skipped) > _NAMED:
        note(f"… and {len(search.skipped) - _NAMED} more; --json names all.")


def _unread_as_json(search: Search) -> None:
    for unread in search.unread:
        failure = {"code": NotFound.code, "message": f"It cannot be read: {unread.reason}."}
        echo(json.dumps({"image": printable(unread.name), "status": "failed", **failure}))
    for skipped in search.skipped:
        more = {"message": skipped.message} if skipped.message else {}
        echo(json.dumps({"image": printable(skipped.name), "status": "skipped", "reason": skipped.reason} | more))


def _line(submission: Submission, line: Callable[[Submission], str]) -> str:
    name = one_line(submission.found.name)
    if submission.error:
        return f"{name}: FAILED [{submission.error.code}] {submission.error.message}"
    if submission.result is None:
        return f"{name}: submitted, job {submission.job_id}"
    return f"{name}: {line(submission)}"


def activation_line(submission: Submission) -> str:
    result = submission.result
    assert isinstance(result, ActivationResult)
    psnr = f"{result.quality.psnr_db:.1f} dB" if result.quality.psnr_db is not None else "unchanged"
    again = "" if submission.new else ", done before"
    state = (
        "activated" if result.status == "activated" else "PASSIVE (registered, but the change could not be verified)"
    )
    plain = ", says too little for its copies to be recognised" if result.uninformative else ""
    return f"{state}, PSNR {psnr}, asset {_short(result.asset_id)}{plain}{again}"


_VERDICTS: Final = {
    "match": ("match", ""),
    "possible": ("possible match", ""),
    "no_match": ("no match (nearest:", ")"),
    "uncalibrated": ("nearest", ""),
    "uninformative": ("says too little to be told from others (nearest:", ")"),
}


def query_line(submission: Submission) -> str:
    result = submission.result
    assert isinstance(result, QueryResult)
    if not result.matches:
        return "says too little to be told from others" if result.verdict == "uninformative" else "no match"
    first = result.matches[0]
    facts = [f"{_short(first.asset_id)} at distance {first.distance:.3f}"]
    if result.threshold is not None:
        facts.append(f"threshold {result.threshold:.3f}")
    if first.probability is not None:
        facts.append(f"probability {first.probability:.2f}")
    if result.assessment and result.assessment.view != "as_is":
        facts.append(f"view {result.assessment.view}")
    words, end = _VERDICTS[result.verdict]
    return f"{words} {', '.join(facts)}{end}"


def _short(asset_id: str) -> str:
    """A digest is recognised by its first digits; a name is shown whole."""
    return asset_id[:_ID_WIDTH] + "…" if len(asset_id) == 64 else asset_id


def _json_line(submission: Submission) -> str:
    record: dict[str, Any] = {
        "image": printable(submission.found.name), "job_id": submission.job_id, "new": submission.new,
    }  # fmt: skip
    if submission.asset_id:
        record["asset_id"] = submission.asset_id
    if submission.error:
        record |= {"status": "failed", "code": submission.error.code, "message": submission.error.message}
    elif submission.result:
        record |= submission.result.model_dump(mode="json")
    else:
        record["status"] = "submitted"
    if submission.card:
        record["card"] = submission.card.model_dump(mode="json", exclude={"difference"})
    if submission.saved:
        record["saved"] = printable(str(submission.saved))
    return json.dumps(record)
