"""The layout of DISC21, the benchmark of the Image Similarity Challenge (Douze et al., 2021): ``references/``,
``training/``, and a ground truth ``query_id,reference_id``."""

from __future__ import annotations

import csv
from pathlib import Path

from tasks.errors import InvalidRequest
from workers.evaluation.subject import Sources

__all__ = ["read_disc"]


def read_disc(folder: Path) -> Sources:
    """What the paper does with it: codecs are trained on `training`; those references that the ground truth names are
    activated, and all references fill the index.

    Raises:
        InvalidRequest: a part is missing; the message names it.
    """
    references, training = folder / "references", folder / "training"
    for part in (references, training):
        if not part.is_dir():
            raise InvalidRequest(f"{folder} is not laid out as DISC21: there is no folder {part.name}.")
    tables = sorted(folder.glob("*ground_truth*.csv"))
    if not tables:
        raise InvalidRequest(f"{folder} is not laid out as DISC21: there is no *ground_truth*.csv.")
    named: set[str] = set()
    for table in tables:
        with table.open(newline="") as file:
            named |= {row["reference_id"] for row in csv.DictReader(file) if row.get("reference_id")}
    if not named:
        raise InvalidRequest(f"{tables[0]} names no reference: it should have the columns query_id,reference_id.")
    return Sources([references], [references], [training], frozenset(named))
