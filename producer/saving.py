"""Protected files and their manifest: what is written of activations that have ended."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from producer.batch import Submission
from producer.client import Producer
from producer.manifest import Row, append_row, write_manifest
from producer.outputs import Outputs
from producer.retry_policy import RetryPolicy
from producer.search import Search
from tasks.command_line import printable
from tasks.errors import AiiError, NotFound, ObjectMissing, TooLarge
from tasks.formats import FORMATS
from tasks.names import asset_key
from tasks.results import ActivationResult, ExplanationResult, QueryResult
from tasks.settings import Settings
from tasks.storage import Bucket, ObjectStore

__all__ = ["asset_file", "protected_file", "save_protected", "write_rows"]


def save_protected(
    producer: Producer, retry_policy: RetryPolicy, outputs: Outputs, submission: Submission
) -> Submission:
    """Save an image's protected file; where that fails, it is this image's failure, and the rest goes on."""
    result = submission.result
    if not isinstance(result, ActivationResult):
        return submission
    try:
        data = retry_policy.call(lambda: producer.protected_image(result))
        suffix, folder = Path(result.protected_key).suffix, outputs.folder
        with suppress(OSError):  # the file, or the whole manifest at the end, meets the same
            path = outputs.path_of(submission.order, suffix)
            append_row(folder, _with_file(_row(submission, folder), path, folder, len(data)))
        return replace(submission, saved=outputs.save(submission.order, data, suffix))
    except AiiError as error:
        return replace(submission, error=error)


def protected_file(store: ObjectStore, max_bytes: int, collection: str, asset_id: str) -> bytes | None:
    """A protected file of an asset, to be shown; None where there is none, or it is too large.

    Raises:
        StorageRefused: this user may not search for it.
    """
    key = asset_key(asset_id)
    with suppress(ObjectMissing, TooLarge):
        for found in store.list_keys(Bucket.PROTECTED, f"{collection}/assets/{key}"):
            return store.get(Bucket.PROTECTED, found, max_bytes)
    for suffix in dict.fromkeys(kind.published for kind in FORMATS):  # as version 0.1.0 named them
        with suppress(ObjectMissing, TooLarge):
            return store.get(Bucket.PROTECTED, f"{collection}/{key}{suffix}", max_bytes)
    return None


def asset_file(settings: Settings, answer: QueryResult, explanation: ExplanationResult | None) -> bytes | None:
    """The current protected file of an answer's first match, to be shown; None where there is none, or this user may
    not read it."""
    asset = explanation.asset if explanation else None
    store, limit = ObjectStore.connect(settings), 4 * settings.max_image_bytes
    with suppress(AiiError):
        if asset is None or not asset.protected_key or not asset.protected_sha256:
            return protected_file(store, limit, answer.collection, answer.matches[0].asset_id)
        return store.get_verified(Bucket.PROTECTED, asset.protected_key, asset.protected_sha256, limit)
    return None


def write_rows(submissions: Sequence[Submission], search: Search, folder: Path) -> bool:
    """Write the manifest: every image, and every file that was not read. Returns whether there was any: a run that
    ended before its first result leaves no file behind. Raises OSError.
    """
    unread = [
        Row(printable(one.name), _name(one.name), "failed", error_code=NotFound.code, message=one.reason)
        for one in search.unread
    ]
    skipped = [
        Row(printable(one.name), _name(one.name), "skipped", message=": ".join(filter(None, (one.reason, one.message))))
        for one in search.skipped
    ]
    rows = [*(_row(s, folder) for s in submissions), *unread, *skipped]
    if rows:
        folder.mkdir(parents=True, exist_ok=True)
        write_manifest(folder, rows)
    return bool(rows)


def _row(s: Submission, folder: Path) -> Row:
    row = Row(printable(s.found.name), _name(s.found.name), "failed", s.asset_id, job_id=s.job_id or "")
    if isinstance(s.result, ActivationResult):
        row = _with_result(row, s.result)
    if s.saved:
        row = _with_file(row, s.saved, folder, s.saved.stat().st_size)
    if s.error:
        row = replace(row, status="failed", error_code=s.error.code, message=s.error.message)
    return row


def _with_file(row: Row, path: Path, folder: Path, size: int) -> Row:
    return replace(row, protected_file=printable(path.relative_to(folder).as_posix()), protected_bytes=size)


def _with_result(row: Row, result: ActivationResult) -> Row:
    return replace(
        row,
        status=result.status,
        asset_id=result.asset_id,
        psnr_db=result.quality.psnr_db,
        ssim=result.quality.ssim,
        verified=result.verification.verified,
        metadata_lost=tuple(result.metadata_lost),
        source_sha256=result.source_sha256,
        protected_sha256=result.protected_sha256,
    )


def _name(path: str) -> str:
    return printable(Path(path).name)
