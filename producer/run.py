"""How ``aii activate`` and ``aii query`` run: find the images, submit them, wait, and report each."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from producer import output
from producer.batch import Submission, run_batch
from producer.client import Job, Producer
from producer.images import Found, find_images
from producer.status import warm_workers
from tasks.command_line import EXIT_FAILED, progress_bar
from tasks.messages import ActivationOptions, QueryOptions, validated
from tasks.results import ActivationResult
from tasks.settings import load_settings

__all__ = ["Batch", "Output", "activate", "prepare", "query"]


@dataclass(frozen=True)
class Batch:
    """The images of one command, and the producer that submits them."""

    producer: Producer
    found: Sequence[Found]


@dataclass(frozen=True)
class Output:
    """How long to wait for results, and what becomes of them; `folder` receives protected images."""

    timeout_s: float | None
    as_json: bool
    folder: Path | None = None


def prepare(images: Sequence[str]) -> Batch:
    """Find the images and connect.

    Raises:
        UsageError: there is no image.
        Unavailable: Redis or S3 does not answer within ten seconds.
    """
    piped = sys.stdin.buffer.read() if "-" in images else None
    found = list(find_images(images, piped))
    if not found:
        raise click.UsageError(f"There is no image file in {', '.join(images)}.")
    settings = load_settings()
    producer = Producer.connect(settings)
    producer.check()
    if not warm_workers(settings):
        output.note("No worker is running, so the jobs wait in the queue: start one with `aii up` or `aii worker`.")
    return Batch(producer, found)


def activate(batch: Batch, wanted: Output, chosen: Mapping[str, Any]) -> None:
    """Activate all; `chosen` holds the fields of :class:`ActivationOptions` and arguments of Producer.activate."""
    given = {name: value for name, value in chosen.items() if name not in ActivationOptions.model_fields}
    options = validated(ActivationOptions, {name: chosen[name] for name in ActivationOptions.model_fields})
    producer = batch.producer

    def save(submission: Submission) -> None:
        result = submission.result
        if wanted.folder and isinstance(result, ActivationResult):
            data = producer.protected_image(result)
            output.save_protected(data, wanted.folder, submission.found.relative, result.protected_key)

    _run(
        batch, wanted, lambda image: producer.activate(image.source, options=options, **given), output.activation_line,
        save,
    )  # fmt: skip


def query(batch: Batch, wanted: Output, collection: str | None, chosen: Mapping[str, Any]) -> None:
    """Query all; `chosen` holds the fields of :class:`QueryOptions`."""
    options = validated(QueryOptions, dict(chosen))
    producer = batch.producer
    _run(
        batch, wanted, lambda image: producer.query(image.source, collection=collection, options=options),
        output.query_line,
    )  # fmt: skip


def _run(
    batch: Batch,
    wanted: Output,
    submit: Callable[[Found], Job],
    line: Callable[[Submission], str],
    save: Callable[[Submission], None] = lambda _: None,
) -> None:
    """Submit all, wait for all, report each; exits when an image failed."""
    submissions = []
    with progress_bar("images", len(batch.found), hidden=wanted.as_json) as advance:
        for submission in run_batch(batch.producer, batch.found, submit, wanted.timeout_s):
            save(submission)
            submissions.append(submission)
            advance(len(submissions))
    submissions.sort(key=lambda s: s.order)
    failed = output.report(submissions, wanted.as_json, line)
    if wanted.folder and not wanted.as_json:
        output.note(f"Protected images are in {wanted.folder}.")
    if failed:
        sys.exit(EXIT_FAILED)
