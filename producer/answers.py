"""Answers of queries as files: a table, and a page that shows each query beside what was found."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final

from producer.batch import Submission
from producer.html_page import Images, document, submitted_image, text
from tasks.command_line import printable
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


def answers_csv(submissions: Sequence[Submission]) -> str:
    """RFC 4180: one row for each match, best first, and one for a query that has none or failed."""
    table = io.StringIO(newline="")
    writer = csv.DictWriter(table, _COLUMNS)
    writer.writeheader()
    for submission in submissions:
        writer.writerows(_rows(submission))
    return table.getvalue()


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
    images = Images()
    return document(f"{len(submissions)} queries", "".join(_section(s, images, image_of) for s in submissions))


def _section(s: Submission, images: Images, image_of: ImageOf) -> str:
    said, matches = "submitted", ""
    query = images.figure(submitted_image(s), "query")
    if s.error:
        said = f"failed: {s.error.message} [{s.error.code}]"
    elif isinstance(s.result, QueryResult):
        result = s.result
        said = result.verdict.replace("_", " ")
        matches = "".join(
            images.figure(image_of(result.collection, match.asset_id), _caption(match))
            for match in result.matches[:_SHOWN]
        )
    return f"<section><h2>{text(printable(s.found.name))}: {text(said)}</h2>{query}{matches}</section>"


def _caption(match: Match) -> str:
    facts = [match.name, match.asset_id, f"distance {match.distance:.3f}"]
    facts += [f"{key}: {value}" for key, value in match.meta.items()]
    return " · ".join(filter(None, facts))
