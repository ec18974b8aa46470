"""How ``aii activate`` and ``aii query`` run: find the images, submit them, wait, and report each."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import click

from producer import output
from producer.answers import answers_csv, answers_page
from producer.asset_ids import AssetIdFrom, asset_ids
from producer.batch import Submission, run_batch, submitted
from producer.cards import foreign_cards, measured, write_cards
from producer.evidence import explained, write_evidence
from producer.job import Job
from producer.outputs import Outputs, check_report, save
from producer.retry_policy import worker_expected
from producer.saving import asset_file, protected_file, save_protected, write_rows
from producer.search import PROTECTED, Found, Search, Skipped, find_images, summary
from producer.session import Batch, Reports, Wanted, end_early, missing_worker, prepare, withdrawn
from tasks.command_line import EXIT_FAILED, progress_bar
from tasks.errors import AiiError, AlreadyProtected, DeadlineExceeded, DiskUnavailable, Unavailable
from tasks.messages import ActivationOptions, QueryOptions, validated
from tasks.names import QUEUE_ACTIVATE, QUEUE_QUERY
from tasks.output_files import refuse_existing
from tasks.state_folder import state_dir
from tasks.storage import ObjectStore
from tasks.streams import read_stdin

__all__ = ["activate", "find", "query"]


def find(images: Sequence[str], *, out: Path | None = None, originals: bool = False) -> Search:
    """The images that arguments name; the state folder and `out` are left out.

    Args:
        originals: leave out protected files as well.

    Raises:
        UsageError: there is no image, or `out` is itself one of the folders.
    """
    if out and any(name != "-" and _same(Path(name), out) for name in images):
        raise click.UsageError(f"--out {out} is a folder of originals: choose another one for protected files.")
    piped = read_stdin() if "-" in images else None
    excluded = {state_dir(): "folder of the local stack"} | ({out: "folder of --out"} if out else {})
    search = find_images(images, piped, excluded=excluded, without_protected=originals)
    if not search.found and not search.unread:
        why = summary(search)
        raise click.UsageError(f"There is no image file in {', '.join(images)}{f' ({why})' if why else ''}.")
    return search


def _same(path: Path, other: Path) -> bool:
    try:
        return path.samefile(other)
    except (OSError, ValueError):
        return False


def activate(search: Search, wanted: Wanted, ids_from: AssetIdFrom, chosen: Mapping[str, Any]) -> None:
    """Activate all; `chosen` holds the fields of :class:`ActivationOptions` and arguments of Producer.activate."""
    given = {name: value for name, value in chosen.items() if name not in ActivationOptions.model_fields}
    options = validated(ActivationOptions, {name: chosen[name] for name in ActivationOptions.model_fields})
    ids = asset_ids(search.found, ids_from, given.pop("asset_id"))
    outputs = (
        Outputs.planned(search.found, wanted.folder, force=wanted.force, lossless=options.lossless)
        if wanted.folder
        else None
    )
    if outputs and wanted.card and not wanted.force:
        refuse_existing(foreign_cards(outputs.folder / name for name in outputs.names))
    batch = prepare(search, wanted, QUEUE_ACTIVATE)
    unmeasured: list[AiiError] = []

    def submit(image: Found) -> Job:
        return batch.producer.activate(image.source, options=options, asset_id=ids.get(image), **given)

    def keep(submission: Submission) -> Submission:
        return save_protected(batch.producer, batch.retry_policy, outputs, submission) if outputs else submission

    def complete(submissions: Sequence[Submission]) -> Sequence[Submission]:
        return (
            measured(batch.producer, submissions, wanted.timeout_s, unmeasured.append) if wanted.card else submissions
        )

    def write(submissions: Sequence[Submission]) -> None:
        if wanted.folder:
            write_cards(submissions, force=wanted.force)
            if write_rows(submissions, search, wanted.folder) and not wanted.as_json:
                output.note(f"Protected images, manifest.csv and manifest.jsonl are in {wanted.folder}.")
        if unmeasured:
            raise unmeasured[0]

    _run(batch, wanted, _Course(submit, output.activation_line, keep, write, complete, at_once=wanted.no_wait))


def query(search: Search, wanted: Wanted, collection: str | None, reports: Reports, chosen: Mapping[str, Any]) -> None:
    """Query all; `chosen` holds the fields of :class:`QueryOptions`."""
    options = validated(QueryOptions, dict(chosen))
    for path in (reports.csv, reports.html):
        check_report(path, search.found, force=wanted.force)
    if reports.csv and reports.html and reports.csv.absolute() == reports.html.absolute():
        raise click.UsageError(f"{reports.csv} cannot be both the table and the page.")
    batch = prepare(search, wanted, QUEUE_QUERY)

    def submit(image: Found) -> Job:
        return batch.producer.query(image.source, collection=collection, options=options)

    def keep(submission: Submission) -> Submission:
        if not isinstance(submission.error, DeadlineExceeded):
            return submission
        return replace(submission, error=withdrawn(batch, [submission.job_id or ""], wanted.timeout_s))

    def write(submissions: Sequence[Submission]) -> None:
        _write_answers(batch, reports, submissions)
        if reports.evidence:
            explanations = explained(batch.producer, submissions, options, wanted.timeout_s)
            count = write_evidence(reports.evidence, submissions, explanations, partial(asset_file, batch.settings))
            if not wanted.as_json:
                output.note(f"{count} pages are in {reports.evidence}.")

    at_once = wanted.no_wait and not (reports.csv or reports.html)
    _run(batch, wanted, _Course(submit, output.query_line, keep, write, at_once=at_once))


def _write_answers(batch: Batch, reports: Reports, submissions: Sequence[Submission]) -> None:
    if reports.csv:
        save(reports.csv, answers_csv(submissions).encode(), force=True)
    if reports.html:
        problems: list[str] = []
        store, limit = ObjectStore.connect(batch.settings), 4 * batch.settings.max_image_bytes

        def image_of(collection: str, asset_id: str) -> bytes | None:
            try:
                return None if problems else protected_file(store, limit, collection, asset_id)
            except AiiError as error:
                problems.append(error.message)
                return None

        save(reports.html, answers_page(submissions, image_of).encode(), force=True)
        if problems:
            output.note(f"{reports.html} lacks protected images: {problems[0]}")


@dataclass(frozen=True)
class _Course:
    """What differs between commands: how an image is submitted, what is printed of its result, what becomes of it when
    it ends, what is written of all at the end, what is asked for besides when all have ended, and whether each is
    printed at once, and no result of it is kept: a million are submitted with little memory."""

    submit: Callable[[Found], Job]
    line: Callable[[Submission], str]
    keep: Callable[[Submission], Submission]
    write: Callable[[Sequence[Submission]], None]
    complete: Callable[[Sequence[Submission]], Sequence[Submission]] = lambda submissions: submissions
    at_once: bool = False


def _run(batch: Batch, wanted: Wanted, course: _Course) -> None:
    """Submit all, wait for all, report each. Exits when an image failed, or Ctrl-C was pressed; what had ended by then
    is reported and kept.

    Raises:
        Unavailable: a service went away, and did not come back in time; after the report.
    """
    report = output.Report(as_json=wanted.as_json, line=course.line)
    submissions: list[Submission] = []
    stopped: KeyboardInterrupt | Unavailable | None = None
    try:
        with (
            worker_expected(lambda: missing_worker(batch), output.note),
            progress_bar("images", len(batch.search.found), hidden=wanted.as_json or course.at_once) as advance,
        ):
            for submission in _set_aside(_outcomes(batch, wanted, course.submit), batch.search):
                if course.at_once:
                    report.add(submission)
                    continue
                submissions.append(course.keep(submission))
                advance(len(submissions))
    except (KeyboardInterrupt, Unavailable) as error:
        stopped = error
    submissions.sort(key=lambda s: s.order)
    if not stopped:
        submissions = list(course.complete(submissions))
    try:
        for submission in submissions:
            report.add(submission)
        failed = report.end(batch.search)
    finally:  # also where nothing more can be printed, as on a full disk
        written = _written(course, submissions)
    failed += not written
    if stopped:
        end_early(batch, stopped, keep=wanted.no_wait)
    if failed:
        sys.exit(EXIT_FAILED)


def _written(course: _Course, submissions: Sequence[Submission]) -> bool:
    """Write what the command writes at its end; where that fails, say so, as the rest has been reported."""
    try:
        course.write(submissions)
    except OSError as error:
        output.note(f"FAILED [{DiskUnavailable.code}] {error.filename} cannot be written: {error.strerror or error}.")
        return False
    except AiiError as error:
        output.note(f"FAILED [{error.code}] {error.message}")
        return False
    return True


def _set_aside(submissions: Iterable[Submission], search: Search) -> Iterator[Submission]:
    """Leave out the protected files that only the service knows for what they are; they are skipped."""
    for submission in submissions:
        if isinstance(submission.error, AlreadyProtected):
            search.skipped.append(Skipped(submission.found.name, PROTECTED, submission.error.message))
        else:
            yield submission


def _outcomes(batch: Batch, wanted: Wanted, submit: Callable[[Found], Job]) -> Iterator[Submission]:
    if not wanted.no_wait:
        yield from run_batch(
            batch.producer, batch.search.found, submit, wanted.timeout_s, retry_policy=batch.retry_policy,
            progress=batch.progress,
        )  # fmt: skip
        return
    yield from submitted(batch.search.found, submit, batch.retry_policy, batch.progress)
