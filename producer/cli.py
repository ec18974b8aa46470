"""``aii``, the command line. Commands of the other packages (`up`, `worker`, …) join through entry points, so that this
package imports none of them; one is loaded only when it is called."""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Callable
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any

import click

from producer import output
from producer.batch import Submission, run_batch
from producer.client import Producer
from producer.images import Found, find_images
from producer.jobs_cli import jobs
from producer.status import collect_status, warm_workers
from producer.status_text import status_json, status_text
from tasks.errors import AiiError, Unavailable
from tasks.messages import ActivationOptions, QueryOptions
from tasks.names import META_KEY_PATTERN
from tasks.results import ActivationResult, QueryResult
from tasks.settings import load_settings

_WATCH_EVERY_S = 2.0
EXIT_SOME_FAILED, EXIT_USAGE, EXIT_UNAVAILABLE = 1, 2, 3


class _Program(click.Group):
    """A group whose further commands come from the entry points ``aii.commands``."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted({*super().list_commands(ctx), *_joined()})

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        own = super().get_command(ctx, name)
        if own or name not in _joined():
            return own
        try:
            command: click.Command = _joined()[name].load()
        except ModuleNotFoundError as error:
            return _not_installed(name, str(error.name))
        return command

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except AiiError as error:
            output.error(error)
            sys.exit(EXIT_UNAVAILABLE if isinstance(error, Unavailable) else EXIT_SOME_FAILED)


def _joined() -> dict[str, EntryPoint]:
    return {point.name: point for point in entry_points(group="aii.commands")}


def _not_installed(name: str, module: str) -> click.Command:
    @click.command(name, help="(needs another part of the package)", context_settings={"ignore_unknown_options": True})
    @click.argument("rest", nargs=-1)
    def explain(rest: tuple[str, ...]) -> None:
        raise click.UsageError(
            f"`aii {name}` needs the module {module}, which is not installed: "
            "pip install 'active-image-indexing[worker,local,monitor]'."
        )

    return explain


@click.group(cls=_Program)
@click.version_option(package_name="active-image-indexing")
def aii() -> None:
    """Protect images before you publish them, and find their edited copies again.

    Exit status: 0 all went well, 1 some images failed, 2 wrong usage, 3 a service cannot be reached.
    """


_images = click.argument("images", nargs=-1, required=True, metavar="IMAGE|FOLDER|-...")
_collection = click.option("--collection", help="Collection to use; default: AII_DEFAULT_COLLECTION, or `starter`.")
_json = click.option("--json", "as_json", is_flag=True, help="Print one JSON object a line for each image.")
_timeout = click.option(
    "--timeout", "timeout_s", type=click.FloatRange(min=0), help="Seconds to wait for all results; default: for ever."
)


def _metadata(option: str, name: str, explanation: str) -> Callable[..., Any]:
    """An option KEY=VALUE that may be given again, as a dictionary."""

    def parse(_: click.Context, __: click.Parameter, words: tuple[str, ...]) -> dict[str, str]:
        pairs = [word.partition("=") for word in words]
        if bad := [key for key, equals, _ in pairs if not equals or not re.fullmatch(META_KEY_PATTERN, key)]:
            raise click.BadParameter(f"{bad[0]!r} is no KEY=VALUE with a key of letters, digits, '.', '_' or '-'.")
        return {key: value for key, _, value in pairs}

    return click.option(option, name, multiple=True, metavar="KEY=VALUE", callback=parse, help=explanation)


def _activation_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """One command-line option for each field of :class:`tasks.messages.ActivationOptions`, by the field's name."""
    options = (
        click.option(
            "--steps", default=10, show_default=True, type=click.IntRange(1, 200), help="Of the optimiser; 1 is fast."
        ),
        click.option(
            "--learning-rate",
            type=click.FloatRange(0, 100, min_open=True),
            help="Of the optimiser; default: 10 / steps.",
        ),
        click.option(
            "--alpha",
            default=3.0,
            show_default=True,
            type=click.FloatRange(0, 20, min_open=True),
            help="How strong the change may be; with linf, in grey levels.",
        ),
        click.option(
            "--attenuation",
            default="jnd",
            show_default=True,
            type=click.Choice(["jnd", "linf"]),
            help="Hide the change where the eye misses it, or bound it alike everywhere.",
        ),
        click.option(
            "--min-psnr", "min_psnr_db", type=click.FloatRange(20, 80), help="Floor in dB that every file has to keep."
        ),
        click.option(
            "--robust", is_flag=True, help="Optimise for edited copies: more are found, at about four times the work."
        ),
        click.option("--strip-metadata", is_flag=True, help="Publish without EXIF and colour profile."),
    )
    for option in reversed(options):
        command = option(command)
    return command


@aii.command()
@_images
@_collection
@click.option("--asset-id", help="Name of the asset, for a single image; default: the sha256 of its bytes.")
@_activation_options
@_metadata("--meta", "meta", "Word the assets shall carry; may be given again.")
@click.option("--again", is_flag=True, help="Do it even if the same was asked before.")
@click.option("--out", type=click.Path(file_okay=False, path_type=Path), help="Folder for the protected images.")
@_timeout
@_json
def activate(images: tuple[str, ...], out: Path | None, timeout_s: float | None, as_json: bool, **chosen: Any) -> None:
    """Protect images and register them, so that edited copies can be found again.

    IMAGE is a JPEG, PNG or WebP file; a FOLDER is searched with all below it; - reads one image from standard input.
    """
    producer, found = _prepare(images)
    if chosen["asset_id"] and len(found) != 1:
        raise click.UsageError(f"--asset-id names one image, and {len(found)} were given.")
    options = ActivationOptions(**{name: chosen.pop(name) for name in ActivationOptions.model_fields})

    def submit(image: Found) -> Any:
        return producer.activate(image.source, options=options, **chosen)

    def save(image: Found, result: Any) -> None:
        if out and isinstance(result, ActivationResult):
            output.save_protected(producer.protected_image(result), out, image.relative, result.protected_key)

    _run(producer, found, submit, save, timeout_s, as_json, output.activation_line)
    if out and not as_json:
        output.note(f"Protected images are in {out}.")


@aii.command()
@_images
@_collection
@click.option("--top", "top_k", default=5, show_default=True, type=click.IntRange(1, 100), help="Matches to return.")
@click.option("--nprobe", default=1, show_default=True, type=click.IntRange(1, 65536), help="Index cells to visit.")
@_metadata("--where", "where", "Only assets that carry this word; may be given again.")
@_timeout
@_json
def query(
    images: tuple[str, ...],
    collection: str | None,
    top_k: int,
    nprobe: int,
    where: dict[str, str],
    timeout_s: float | None,
    as_json: bool,
) -> None:
    """Say of which registered images these are copies."""
    producer, found = _prepare(images)
    options = QueryOptions(top_k=top_k, nprobe=nprobe, where=where)

    def submit(image: Found) -> Any:
        return producer.query(image.source, collection=collection, options=options)

    _run(producer, found, submit, None, timeout_s, as_json, output.query_line)


@aii.command()
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.option("--watch", is_flag=True, help="Show it anew every two seconds, until Ctrl-C.")
def status(as_json: bool, watch: bool) -> None:
    """Show services, workers, queues, speed beside the paper's, latest results and failures.

    Ends with status 3 when Redis or S3 cannot be reached; with --watch it goes on, and says so.
    """
    show = status_json if as_json else status_text
    while watch:
        try:
            text = show(collect_status())
        except Unavailable as error:
            text = f"{error.message} [{error.code}]"
        click.clear()
        click.echo(text)
        time.sleep(_WATCH_EVERY_S)
    state = collect_status()
    click.echo(show(state))
    if state.s3_problem:
        sys.exit(EXIT_UNAVAILABLE)


aii.add_command(jobs)


def _prepare(images: tuple[str, ...]) -> tuple[Producer, list[Found]]:
    """Connect, and find the images; ends with status 3 within ten seconds when a service is away."""
    piped = sys.stdin.buffer.read() if "-" in images else None
    found = list(find_images(images, piped))
    if not found:
        raise click.UsageError(f"There is no JPEG, PNG or WebP file in {', '.join(images)}.")
    settings = load_settings()
    producer = Producer.connect(settings)
    producer.check()
    if not warm_workers(settings):
        output.note("No worker is running, so the jobs wait in the queue: start one with `aii up` or `aii worker`.")
    return producer, found


def _run(
    producer: Producer,
    found: list[Found],
    submit: Callable[[Found], Any],
    save: Callable[[Found, ActivationResult | QueryResult], None] | None,
    timeout_s: float | None,
    as_json: bool,
    line: Callable[[Submission], str],
) -> None:
    """Submit all, wait for all, report each; ends with status 1 when an image failed."""
    with output.progress(len(found), hidden=as_json) as advance:
        submissions = []
        for submission in run_batch(producer, found, submit, timeout_s):
            if save and submission.result:
                save(submission.found, submission.result)
            submissions.append(submission)
            advance()
    submissions.sort(key=lambda s: s.order)
    failed = output.report(submissions, as_json, line)
    if failed:
        sys.exit(EXIT_SOME_FAILED)
