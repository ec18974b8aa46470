"""An explanation in words: why a query finds an asset, or does not."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from tasks.results import ExplanationResult, Placement

__all__ = ["explanation_rows"]

_DEEPEST: Final = 100  # ranks beyond are not known


def explanation_rows(result: ExplanationResult) -> Iterator[tuple[str, str]]:
    """Rows of a heading and a text."""
    yield "asset", _asset(result)
    yield "query", f"{_found(result)}, verdict {_said(result.verdict)}: {result.reason}"
    if result.rejected:
        yield "feedback", "A person said that this image is no copy of it: it is left out of the answers."
    yield "view", result.view.replace("_", " ")
    yield "cell", _cell(result)
    yield "distance", _distance(result)
    for heading, sort, placement in (
        ("original", "its original, unedited", result.asset.original),
        ("published", "its protected file, unedited", result.asset.published),
        ("passive", "estimate for this query, had the asset been published unchanged", result.passive),
    ):
        if placement:
            yield heading, f"{sort}: {_placed(placement, result.cells)}"


def _asset(result: ExplanationResult) -> str:
    by = f", registered by job {result.asset.activation}" if result.asset.activation else ""
    return f"{result.asset_id} in {result.collection}, generation {result.generation}{by}"


def _found(result: ExplanationResult) -> str:
    if result.found:
        return "finds it"
    return "finds another asset" if result.verdict in ("match", "possible") else "does not find it"


def _cell(result: ExplanationResult) -> str:
    rank = result.query.cell_rank
    if rank is None:
        place = "the index has no cells: every search compares all"
    else:
        place = f"its code's cell is the {_ordinal(rank)} nearest of {result.cells:,}, met from nprobe {rank:,} on"
    if result.rank is None:
        return f"{place}; more than {_DEEPEST} assets are nearer"
    if result.smallest_nprobe is None:
        return f"{place}; {result.rank - 1} assets are nearer then"
    return f"{place}; it is the first match then, verdict {_said(result.verdict_then or 'uncalibrated')}"


def _distance(result: ExplanationResult) -> str:
    facts = [f"{result.query.distance:.3f} to its code"]
    if result.threshold is not None:
        facts.append(f"threshold {result.threshold:.3f}")
    if result.score is not None:
        facts.append(f"score {result.score:.3f}")
    if result.probability is not None:
        facts.append(f"probability {result.probability:.2f}")
    for what, distance in (
        ("original", result.asset.distance_to_original),
        ("protected file", result.asset.distance_to_published),
    ):
        facts.append(f"{distance:.3f} to the {what}" if distance is not None else f"no {what} in the store")
    return ", ".join(facts)


def _placed(placement: Placement, cells: int | None) -> str:
    cell = f"{_ordinal(placement.cell_rank)} nearest cell of {cells:,}, " if placement.cell_rank and cells else ""
    return f"{cell}distance {placement.distance:.3f}"


def _said(verdict: str) -> str:
    return verdict.replace("_", " ")


def _ordinal(number: int) -> str:
    suffix = "th" if number % 100 in (11, 12, 13) else {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th")
    return f"{number:,}{suffix}"
