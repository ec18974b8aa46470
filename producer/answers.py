"""Answers of queries as files: a table, and a page that shows each query beside what was found."""

from __future__ import annotations

import base64
import csv
import io
from collections.abc import Callable, Iterator, Sequence
from html import escape
from pathlib import Path
from typing import Any, Final

from producer.batch import Submission
from tasks.command_line import printable
from tasks.formats import format_of
from tasks.results import Match, QueryResult

__all__ = ["ImageOf", "answers_csv", "answers_page"]

ImageOf = Callable[
    [str, str], bytes | None
]  # (collection, asset id): a protected file of the asset, where there is one

_COLUMNS: Final = (
    "image", "status", "verdict", "rank", "asset_id", "name", "distance", "score", "probability", "collection",
    "job_id", "error_code", "message",
)  # fmt: skip
_SHOWN: Final = 5  # matches beside a query
# Images are embedded as they are: a page stays one that a browser opens.
_LARGEST_IMAGE: Final = 2 * 2**20
_LARGEST_PAGE: Final = 48 * 2**20
_STYLE: Final = """
body { font: 15px/1.4 system-ui, sans-serif; margin: 2rem; color: #222; background: #fff }
section { border-top: 1px solid #ccc; padding: 1rem 0; display: flex; gap: 1rem; flex-wrap: wrap }
h2 { flex-basis: 100%; font-size: 1rem; margin: 0; overflow-wrap: anywhere }
figure { margin: 0; width: 14rem } img { max-width: 100%; max-height: 14rem; display: block }
figcaption { font-size: .85rem; overflow-wrap: anywhere } .none { background: #eee; padding: 4rem 1rem; color: #666 }
"""


def answers_csv(submissions: Sequence[Submission]) -> str:
    """RFC 4180: one row for each match, best first, and one for a query that has none or failed."""
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, _COLUMNS)
    writer.writeheader()
    for submission in submissions:
        writer.writerows(_rows(submission))
    return text.getvalue()


def _rows(s: Submission) -> Iterator[dict[str, Any]]:
    row: dict[str, Any] = {"image": printable(s.found.name), "job_id": s.job_id or ""}
    if s.error:
        yield row | {"status": "failed", "error_code": s.error.code, "message": s.error.message}
        return
    if not isinstance(s.result, QueryResult):
        yield row | {"status": "submitted"}
        return
    row |= {"status": s.result.status, "verdict": s.result.verdict, "collection": s.result.collection}
    if not s.result.matches:
        yield row
    for rank, match in enumerate(s.result.matches, 1):
        figures = {"distance": match.distance, "score": match.score, "probability": match.probability}
        yield row | {"rank": rank, "asset_id": match.asset_id, "name": match.name} | figures


def answers_page(submissions: Sequence[Submission], image_of: ImageOf) -> str:
    """One HTML page that needs nothing else and runs nothing: each query, its verdict, and the first matches."""
    page = _Page(image_of)
    body = "".join(map(page.section, submissions))
    policy = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>aii query</title>'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}"><style>{_STYLE}</style></head>'
        f"<body><h1>{len(submissions)} queries</h1>{body}</body></html>\n"
    )


class _Page:
    def __init__(self, image_of: ImageOf) -> None:
        self._image_of = image_of
        self._left = _LARGEST_PAGE

    def section(self, s: Submission) -> str:
        said, matches = "submitted", ""
        if s.error:
            said = f"failed: {s.error.message} [{s.error.code}]"
        elif isinstance(s.result, QueryResult):
            result = s.result
            said = result.verdict.replace("_", " ")
            matches = "".join(self._match(result.collection, match) for match in result.matches[:_SHOWN])
        name = printable(s.found.name)
        return f"<section><h2>{_text(name)}: {_text(said)}</h2>{self._figure(_bytes_of(s), 'query')}{matches}</section>"

    def _match(self, collection: str, match: Match) -> str:
        facts = [match.name, match.asset_id, f"distance {match.distance:.3f}"]
        facts += [f"{key}: {value}" for key, value in match.meta.items()]
        return self._figure(self._image_of(collection, match.asset_id), " · ".join(filter(None, facts)))

    def _figure(self, data: bytes | None, caption: str) -> str:
        return f"<figure>{self._image(data)}<figcaption>{_text(caption)}</figcaption></figure>"

    def _image(self, data: bytes | None) -> str:
        kind = format_of(data) if data else None
        if data is None or kind is None:
            return '<div class="none">no image</div>'
        if len(data) > min(_LARGEST_IMAGE, self._left):
            return f'<div class="none">{kind.name}, {len(data):,} bytes: too large to show</div>'
        self._left -= len(data)
        return f'<img alt="" src="data:{kind.content_type};base64,{base64.b64encode(data).decode()}">'


def _bytes_of(s: Submission) -> bytes | None:
    """The query itself, unless it is far too large to be shown."""
    if isinstance(s.found.source, bytes):
        return s.found.source
    return _read(s.found.source, _LARGEST_IMAGE + 1)


def _read(path: Path, limit: int) -> bytes | None:
    """The first bytes of a regular file; None for anything else."""
    try:
        if not path.is_file():
            return None
        with path.open("rb") as file:
            return file.read(limit)
    except (OSError, ValueError):
        return None


def _text(text: str) -> str:
    return escape(text, quote=True)
