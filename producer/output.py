"""The only place of the producer that prints."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, Final

from producer.batch import Submission
from producer.search import Search, summary
from tasks.command_line import echo, one_line, printable
from tasks.errors import NotFound
from tasks.results import ActivationResult, LookupAnswer, Match, QueryResult

__all__ = ["Report", "activation_line", "answer_line", "note", "query_line"]

_ID_WIDTH = 16
_NAMED: Final = 10  # of the files that were not read, without --json


def note(text: str) -> None:
    echo(text, err=True)


class Report:
    """Prints images in the order in which they are given, and counts them; then what was not read.

    Args:
        line: what is printed of an image that was done.
    """

    def __init__(self, *, as_json: bool, line: Callable[[Submission], str]) -> None:
        self._as_json = as_json
        self._line = line
        self._images = self._done = self._failed = self._submitted = 0

    def add(self, submission: Submission) -> None:
        echo(_json_line(submission) if self._as_json else _line(submission, self._line))
        self._images += 1
        self._failed += bool(submission.error)
        self._done += bool(submission.result and not submission.error)
        self._submitted += not (submission.result or submission.error)

    def end(self, search: Search) -> int:
        """Print what was not read; returns how many failed."""
        failed = self._failed + len(search.unread)
        if self._as_json:
            _unread_as_json(search)
            return failed
        _unread(search)
        if not self._images or self._submitted < self._images:
            note(f"{self._done} of {self._images + len(search.unread)} images done, {failed} failed.")
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
    state = "activated" if result.status == "activated" else f"PASSIVE (registered, but {_why_passive(result)})"
    plain = ", says too little for its copies to be recognised" if result.uninformative else ""
    return f"{state}, PSNR {psnr}, asset {_short(result.asset_id)}{plain}{again}"


def _why_passive(result: ActivationResult) -> str:
    if result.verification.distance_before == 0:  # as of an index that keeps features whole
        return "its collection finds the original itself at distance 0, so activation has nothing to gain"
    return "the change could not be verified"


_VERDICTS: Final = {
    "match": ("match", ""),
    "possible": ("possible match", ""),
    "no_match": ("no match (nearest:", ")"),
    "uncalibrated": ("nearest", ""),
    "uninformative": ("says too little to be told from others (nearest:", ")"),
    "incomplete": ("no match as far as could be searched (nearest:", ")"),
}


_NOTHING_FOUND: Final = {
    "uninformative": "says too little to be told from others",
    "incomplete": "no match as far as could be searched",
}


def query_line(submission: Submission) -> str:
    assert isinstance(submission.result, QueryResult)
    return answer_line(submission.result)


def answer_line(answer: QueryResult | LookupAnswer) -> str:
    """What was found for one image or one vector."""
    if not answer.matches:
        return _NOTHING_FOUND.get(answer.verdict, "no match")
    first = answer.matches[0]
    facts = [f"{_named(first)} at distance {first.distance:.3f}"]
    if answer.threshold is not None:
        facts.append(f"threshold {answer.threshold:.3f}")
        more = sum(match.distance <= answer.threshold for match in answer.matches[1:])
        if answer.verdict == "match" and more:
            facts.append(f"{more} more within it")
    if first.probability is not None:
        facts.append(f"probability {first.probability:.2f}")
    if answer.assessment and answer.assessment.view != "as_is":
        facts.append(f"view {answer.assessment.view}")
    words, end = _VERDICTS[answer.verdict]
    return f"{words} {', '.join(facts)}{end}"


def _named(match: Match) -> str:
    """An asset, with its file's own name."""
    return _short(match.asset_id) + (f" ({one_line(match.name)})" if match.name not in ("", match.asset_id) else "")


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
