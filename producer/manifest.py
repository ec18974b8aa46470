"""The manifest in the folder of protected files: ``manifest.jsonl`` for programs, ``manifest.csv`` for tables.

It says of every image what became of it. It also tells protected files from originals: a search for originals leaves
out what a manifest lists.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Final

from tasks.files import write_atomically

__all__ = [
    "CSV_NAME",
    "JSONL_NAME",
    "ProtectedFiles",
    "Row",
    "append_row",
    "foreign_manifests",
    "read_rows",
    "write_manifest",
]

JSONL_NAME: Final = "manifest.jsonl"
CSV_NAME: Final = "manifest.csv"
_MAX_BYTES: Final = 2**30  # of a manifest that is read
_ANCESTORS: Final = 8  # folders above a named file in which its manifest is searched for


@dataclass(frozen=True)
class Row:
    """What became of one image. Texts are empty, and figures None, where there is nothing to say.

    Attributes:
        source: the image as it was named, or found below a folder that was named.
        status: ``activated``, ``passive``, ``failed`` or ``skipped``.
        protected_file: relative to the manifest's folder.
        verified: whether the published file was found under its code (`verification.verified` of the document).
        error_code: why it failed, from the table of error codes; `message` says it for a person, and for a skipped
            file says what it is.
    """

    source: str
    name: str
    status: str
    asset_id: str = ""
    protected_file: str = ""
    psnr_db: float | None = None
    ssim: float | None = None
    verified: bool | None = None
    job_id: str = ""
    error_code: str = ""
    message: str = ""
    metadata_lost: Sequence[str] = field(default_factory=tuple)
    source_sha256: str = ""
    protected_sha256: str = ""
    protected_bytes: int | None = None


_COLUMNS: Final = tuple(field.name for field in fields(Row))


def write_manifest(folder: Path, rows: Iterable[Row]) -> None:
    """Write both files. Rows that an earlier run wrote of other sources are kept; a file appears whole or not at all.

    Raises:
        OSError: the folder cannot be written.
    """
    new = list(rows)
    sources, files = {row.source for row in new}, {row.protected_file for row in new if row.protected_file}
    kept = [r for r in read_rows(folder) if r.source not in sources and r.protected_file not in files]
    everything = [*kept, *new]
    write_atomically(folder / JSONL_NAME, "".join(map(_line, everything)))
    write_atomically(folder / CSV_NAME, _csv(everything))


def append_row(folder: Path, row: Row) -> None:
    """Note one image just before its file is written: a run that is killed before it writes both files knows that file
    for its own the next time. Raises OSError."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / JSONL_NAME).open("a", encoding="utf-8") as file:
        file.write(_line(row))


def read_rows(folder: Path) -> list[Row]:
    """The rows of a folder's manifest; none where it has no manifest, or where something else has that name."""
    return [row for line in _lines(folder / JSONL_NAME) if (row := _row(line))]


def foreign_manifests(folder: Path) -> list[Path]:
    """Files of a folder that have a manifest's name and are none of ours. One without a row is ours: a run that ended
    before its first result left it behind."""
    if read_rows(folder):
        return []
    without_rows = {JSONL_NAME: b"", CSV_NAME: _csv([]).encode()}
    return [folder / name for name, data in without_rows.items() if not _is_absent_or(folder / name, data)]


def _is_absent_or(path: Path, data: bytes) -> bool:
    """Whether there is no such file, or one of that content."""
    try:
        return not path.exists() or (path.stat().st_size == len(data) and path.read_bytes() == data)
    except OSError:
        return False


def _line(row: Row) -> str:
    return f"{json.dumps(asdict(row))}\n"


def _csv(rows: Iterable[Row]) -> str:
    """RFC 4180, UTF-8; lists are joined by `` | ``."""
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, _COLUMNS)
    writer.writeheader()
    for row in rows:
        cells = asdict(row) | {"metadata_lost": " | ".join(row.metadata_lost)}
        writer.writerow({name: "" if value is None else value for name, value in cells.items()})
    return text.getvalue().encode("utf-8", "backslashreplace").decode()


def _lines(path: Path) -> Iterator[str]:
    try:
        if not path.is_file() or path.stat().st_size > _MAX_BYTES:
            return
        text = path.read_text("utf-8", errors="replace")
    except OSError:
        return
    yield from text.splitlines()


def _row(line: str) -> Row | None:
    """A line of a manifest, also of a version with other columns; None for anything else."""
    try:
        said: Any = json.loads(line)
    except ValueError:
        return None
    if not isinstance(said, Mapping) or not all(isinstance(said.get(name), str) for name in ("source", "status")):
        return None
    known = {name: said[name] for name in _COLUMNS if name in said}
    return Row(**({"name": ""} | known))


class ProtectedFiles:
    """The protected files that manifests list, recognised by their content: wherever they were copied or moved to."""

    def __init__(self, rows: Iterable[Row]) -> None:
        # A passive image may have been published as it was: its original must not count as protected.
        listed = [row for row in rows if row.protected_sha256 and row.protected_sha256 != row.source_sha256]
        self._digests = {row.protected_sha256 for row in listed}
        self._sizes = {row.protected_bytes for row in listed}

    @classmethod
    def known_near(cls, arguments: Iterable[str], folders: Iterable[Path]) -> ProtectedFiles:
        """Those of the manifests in `folders`, and in the folders above what was named."""
        above = {parent for argument in arguments for parent in list(Path(argument).absolute().parents)[:_ANCESTORS]}
        return cls(row for folder in {*above, *folders} for row in read_rows(folder))

    def __contains__(self, path: Path) -> bool:
        """Whether a file has the content of a protected one; only files of a fitting size are read."""
        if not self._digests:
            return False
        try:
            if path.stat().st_size not in self._sizes:
                return False
            with path.open("rb") as file:
                return hashlib.file_digest(file, "sha256").hexdigest() in self._digests
        except (OSError, ValueError):
            return False
