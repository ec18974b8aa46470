"""The layout of DISC21, the benchmark of the Image Similarity Challenge (Douze et al., 2021), as it is distributed."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Final

from tasks.errors import InvalidRequest
from workers.evaluation.subject import Sources

__all__ = ["read_disc"]

_REFERENCES: Final = ("references", "refs")
_TRAINING: Final = ("training", "train")
_QUERIES: Final = ("queries", "dev_queries", "test_queries")


def read_disc(folder: Path) -> Sources:
    """What the paper does with it: codecs are trained on the training images; those references that the ground truth
    names are activated; all references fill the index; queries that are copies of none of them must find nothing.

    Folders may be called as they are in the archives, and hold sub-folders. The ground truth is a table of queries and
    references, with a header or without. Where there are two, that of the development queries counts.

    Raises:
        InvalidRequest: a part is missing; the message names it.
    """
    references = _folder(folder, _REFERENCES)
    training = _folder(folder, _TRAINING)
    if not (references and training):
        missing = " or ".join(_TRAINING if references else _REFERENCES)
        raise InvalidRequest(f"{folder} is not laid out as DISC21: there is no folder {missing}.")
    tables = sorted(folder.rglob("*ground*truth*.csv"), key=lambda path: ("test" in path.name, path.name))
    if not tables:
        raise InvalidRequest(f"{folder} is not laid out as DISC21: there is no *ground_truth*.csv.")
    pairs = _pairs(tables[0])
    if not pairs:
        raise InvalidRequest(f"{tables[0]} names no reference: each line should be query_id,reference_id.")
    queries = _folder(folder, ("test_queries", *_QUERIES) if "test" in tables[0].name else _QUERIES)
    return Sources(
        photographs=[references],
        references=[references],
        training=[training],
        only=frozenset(pairs.values()),
        unrelated=[queries] if queries else [],
        related=frozenset(pairs),
    )


def _folder(folder: Path, names: tuple[str, ...]) -> Path | None:
    return next((folder / name for name in names if (folder / name).is_dir()), None)


def _pairs(table: Path) -> dict[str, str]:
    """Reference by query, for those queries that have one; a header looks like one, but names no image."""
    with table.open(newline="", encoding="utf-8", errors="backslashreplace") as file:
        rows = [row for row in csv.reader(file) if len(row) > 1 and all(row[:2])]
    return {Path(row[0]).stem: Path(row[1]).stem for row in rows if row[0].startswith("Q")}
