"""Activates photographs, queries fourteen edited copies of each original and of each protected image, and counts how
many are recognised."""

from __future__ import annotations

import importlib.util
import io
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import click
from PIL import Image, ImageOps

from deploy.demo.report import PROTECTED, CopiesFound, Row, check_folder_of_report, write_report
from producer import Job, Producer
from producer.batch import Submission, run_batch
from producer.outputs import published_name, save
from producer.search import Found, find_images
from tasks.command_line import progress_bar
from tasks.names import sha256_hex
from tasks.results import ActivationResult
from tasks.settings import load_settings
from workers.images.edits import EDITS, edit_seed
from workers.index.collection.opened import open_collection

# scikit-image carries these photographs; its other pictures are drawings, masks, or the second half of a stereo pair.
_BUNDLED: Final = (
    "astronaut.png",
    "brick.png",
    "camera.png",
    "chelsea.png",
    "coffee.png",
    "coins.png",
    "grass.png",
    "gravel.png",
    "hubble_deep_field.jpg",
    "ihc.png",
    "moon.png",
    "motorcycle_left.png",
    "retina.jpg",
    "rocket.jpg",
)
_QUERY_SECONDS: Final = 600.0


@dataclass(frozen=True)
class Photo:
    """One photograph, its protected image and file, and the asset that both should be recognised as."""

    name: str
    original: Image.Image
    protected: Image.Image
    result: ActivationResult
    file_name: Path
    data: bytes


@dataclass(frozen=True)
class EditedQuery:
    """The query job of one edited copy, and the asset that is the right answer."""

    edit: str
    activated: bool
    asset_id: str
    job: Job


def run(images: Path | None, out: Path, *, force: bool) -> int:
    """Activate, query, report; returns how many photographs failed.

    Raises:
        UsageError: the folder `images` holds no photograph, or no folder is given and scikit-image is missing; or the
            report would replace files that no report left in `out`, and `force` is not set.
        Unavailable: Redis or S3 does not answer.
    """
    check_folder_of_report(out, force=force)
    producer = Producer.connect()
    producer.check()
    return _demo(producer, list(_photographs(images, out)), out)


def _photographs(images: Path | None, out: Path) -> Iterator[Found]:
    if images:
        yield from find_images([str(images)], excluded={out: "folder of --out"}).found
        return
    package = importlib.util.find_spec("skimage")
    if package is None or package.origin is None:
        raise click.UsageError(
            "scikit-image is not installed: pip install 'active-image-indexing[evaluation]', or give --images."
        )
    for name in _BUNDLED:
        path = Path(package.origin).parent / "data" / name
        yield Found(str(path), name)


def _demo(producer: Producer, found: Sequence[Found], out: Path) -> int:
    if not found:
        raise click.UsageError("There is no image file in that folder.")
    began = time.monotonic()
    submissions = _activate(producer, found)
    done = [s for s in submissions if isinstance(s.result, ActivationResult)]
    new = sum(1 for s in done if s.new)
    click.echo(f"Activated {new} photographs ({len(done) - new} were done before) in {time.monotonic() - began:.1f} s.")
    for s in submissions:
        if s.error:
            click.echo(f"  {s.found.below}: FAILED [{s.error.code}] {s.error.message}")
    if done:
        photos = [_photo(producer, s) for s in done]
        rows = _query(producer, photos)
        for photo in photos:  # not before: what an interrupted run leaves would be taken for files of others
            save(out / PROTECTED / photo.file_name, photo.data, force=True)
        write_report(out, [(p.name, p.original, p.protected, p.result) for p in photos], rows, _searched(photos))
    return len(submissions) - len(done)


def _activate(producer: Producer, found: Sequence[Found]) -> list[Submission]:
    submissions = []
    with progress_bar("Activating", len(found)) as advance:
        for submission in run_batch(producer, found, lambda image: producer.activate(image.source), None):
            submissions.append(submission)
            advance(len(submissions))
    return sorted(submissions, key=lambda s: s.order)


def _photo(producer: Producer, submission: Submission) -> Photo:
    """Fetch the protected image, and open both."""
    result = submission.result
    assert isinstance(result, ActivationResult)
    data = producer.protected_image(result)
    file_name = published_name(submission.found.relative, Path(result.protected_key).suffix)
    assert isinstance(submission.found.source, Path)
    original = submission.found.source.read_bytes()
    assert sha256_hex(original) == result.source_sha256
    return Photo(submission.found.below, _open(original), _open(data), result, file_name, data)


def _searched(photos: Sequence[Photo]) -> str:
    """How many images, of the collection's own and of these, and in what index."""
    settings = load_settings()
    manifest = open_collection(settings, settings.default_collection).files.current()
    references = sum(part.count for part in manifest.segments if part.distractors)
    return f"{references + len(photos):,} images ({manifest.factory}, nprobe {manifest.usual_nprobe})"


def _open(data: bytes) -> Image.Image:
    return ImageOps.exif_transpose(Image.open(io.BytesIO(data))).convert("RGB")


def _query(producer: Producer, photos: Sequence[Photo]) -> list[Row]:
    """Query every edit of every original and protected image; what was found of each, in the paper's order."""
    wanted = [(photo, edit, activated) for photo in photos for edit in EDITS for activated in (False, True)]
    with progress_bar("Querying  ", 2 * len(wanted)) as advance, ThreadPoolExecutor(2) as pool:
        queries = []
        for query in pool.map(lambda w: _submit_query(producer, *w), wanted):
            queries.append(query)
            advance(len(queries))
        by_job = {q.job.job_id: q for q in queries}
        found: defaultdict[tuple[str, bool], CopiesFound] = defaultdict(CopiesFound)
        answers = producer.wait_all((q.job for q in queries), _QUERY_SECONDS)
        for done, (job, result) in enumerate(answers, len(queries) + 1):
            q = by_job[job.job_id]
            found[q.edit, q.activated].count(result, q.asset_id)
            advance(done)
    return [Row(edit, found[edit, False], found[edit, True]) for edit in EDITS]


def _submit_query(producer: Producer, photo: Photo, edit: str, activated: bool) -> EditedQuery:
    edited = EDITS[edit](photo.protected if activated else photo.original, edit_seed(0, photo.name))
    buffer = io.BytesIO()
    edited.save(buffer, format="PNG", compress_level=1)
    return EditedQuery(edit, activated, photo.result.asset_id, producer.query(buffer.getvalue()))
