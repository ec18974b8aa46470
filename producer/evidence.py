"""The evidence of a query: one page with both images side by side, what the score means, and every digest."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from producer.batch import Submission
from producer.client import Producer
from producer.explanation import explanation_rows
from producer.html_page import Images, document, submitted_image, table
from tasks.command_line import printable
from tasks.errors import AiiError
from tasks.files import write_atomically
from tasks.messages import QueryOptions
from tasks.results import Alignment, Assessment, ExplanationResult, Match, QueryResult

__all__ = ["Asset", "evidence_page", "explained", "write_evidence"]

# The bytes of an asset's protected file, where they are at hand.
Asset = Callable[[QueryResult, ExplanationResult | None], bytes | None]
Rows = Iterator[tuple[str, str]]


def explained(
    producer: Producer, submissions: Sequence[Submission], options: QueryOptions, timeout_s: float | None
) -> dict[str, ExplanationResult]:
    """Explanations of the first matches, by the queries' jobs; those that do not come in time are missing."""
    jobs = {}
    for s in submissions:
        if isinstance(s.result, QueryResult) and s.result.matches:
            with suppress(AiiError):
                asset_id, collection = s.result.matches[0].asset_id, s.result.collection
                job = producer.explain(s.found.source, asset_id, collection=collection, options=options)
                jobs[job.job_id] = s.result.job_id
    found = {}
    with suppress(AiiError):
        for job_id, result in producer.wait_for(list(jobs), timeout_s):
            if isinstance(result, ExplanationResult):
                found[jobs[job_id]] = result
    return found


def write_evidence(
    folder: Path, submissions: Sequence[Submission], explanations: Mapping[str, ExplanationResult], asset: Asset
) -> int:
    """Write a page for each query that was answered, named by its image and its job; returns how many.

    Raises:
        OSError: the folder cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    written = 0
    for s in submissions:
        if isinstance(s.result, QueryResult) and not s.error:
            page = evidence_page(s, s.result, explanations.get(s.result.job_id), asset)
            write_atomically(folder / _file_name(s, s.result), page)
            written += 1
    return written


def evidence_page(s: Submission, result: QueryResult, explanation: ExplanationResult | None, asset: Asset) -> str:
    """One HTML page that needs nothing else and runs nothing."""
    title = f"{printable(s.found.name)}: {result.verdict.replace('_', ' ')}"
    body = _pictures(s, result, explanation, asset)
    body += table("What the verdict rests on", _meaning(result))
    if explanation:
        body += table("How the index sees it", explanation_rows(explanation))
    return document(title, body + table("Where it comes from", _origin(result, explanation)))


def _pictures(s: Submission, result: QueryResult, explanation: ExplanationResult | None, asset: Asset) -> str:
    """Query and asset as they are; and below, where it is known how one lies in the other, laid on each other."""
    images, query = Images(), submitted_image(s)
    figures = [images.figure(query, f"query: {printable(s.found.name)}")]
    aligned: list[str] = []
    if result.matches:
        first, picture = result.matches[0], asset(result, explanation)
        figures.append(images.figure(picture, f"asset: {_asset(first)}"))
        if picture and explanation and (place := explanation.alignment):
            aligned = [
                images.figure(query, f"query, {_oriented(place)}", _transform(place)),
                images.cropped(picture, f"that part of the asset, correlation {place.correlation:.2f}", _crop(place)),
            ]
    return _side_by_side("Side by side", figures) + (_side_by_side("Aligned", aligned) if aligned else "")


def _side_by_side(heading: str, figures: Sequence[str]) -> str:
    return f'<section class="pair"><h2>{heading}</h2>{"".join(figures)}</section>'


def _oriented(place: Alignment) -> str:
    done = ["mirrored"] if place.mirrored else []
    if place.quarter_turns:
        done.append(f"turned by {90 * place.quarter_turns} degrees counter-clockwise")
    return " and ".join(done) or "as it is"


def _transform(place: Alignment) -> str:
    """As CSS, which applies the last one first."""
    turn = f"rotate({-90 * place.quarter_turns}deg)" if place.quarter_turns else ""
    return f"{turn} scaleX(-1)".strip() if place.mirrored else turn


def _crop(place: Alignment) -> str:
    """Where the asset lies in the square in whose middle the upright query is, as large as it fits."""
    aspect = place.aspect * place.width / place.height  # of the query
    width, height = min(1.0, aspect), min(1.0, 1 / aspect)
    full_width, full_height = width / place.width, height / place.height
    left = (1 - width) / 2 - place.left * full_width
    top = (1 - height) / 2 - place.top * full_height
    return f"width: {full_width:.2%}; left: {left:.2%}; top: {top:.2%}"


def _meaning(result: QueryResult) -> Rows:
    facts = result.assessment
    yield "verdict", result.verdict.replace("_", " ")
    if facts:
        yield "reason", facts.reason
    if result.matches:
        yield from _figures(result.matches[0], facts)
    if facts:
        yield (
            "assets",
            f"{facts.assets:,} could have been found, in the {_cells(result.options.nprobe)} of the index",
        )
        if facts.nearest_distractor is not None:
            yield "nearest image of no asset", f"distance {facts.nearest_distractor:.3f}"
    for rank, match in enumerate(result.matches[1:], 2):
        yield f"match {rank}", f"{_asset(match)}, distance {match.distance:.3f}"


def _asset(match: Match) -> str:
    """Its file's own name, and its id."""
    return " · ".join(filter(None, [match.name, match.asset_id]))


def _figures(first: Match, facts: Assessment | None) -> Rows:
    kept = "code" if facts is None or facts.reranked is None else "stored feature"
    yield "distance", f"{first.distance:.4f} between the query's feature and the asset's {kept}"
    if first.score is not None:
        limit = f"; the verdict match ends at {facts.threshold:.4f}" if facts and facts.threshold is not None else ""
        yield "score", f"{first.score:.4f}, where 0 is a perfect copy and 1 no nearer than other images{limit}"
    if first.probability is not None:
        yield "probability", f"{first.probability:.3f} of being a copy, if copies and other images are equally frequent"
    if facts and facts.false_match_rate is not None:
        yield "false matches", f"{_share(facts.false_match_rate)} of unrelated images find a first match this good"
    if facts and facts.margin is not None:
        yield "margin", f"{facts.margin:.4f} to the second match"


def _cells(nprobe: int | None) -> str:
    return f"{nprobe:,} nearest cells" if nprobe and nprobe > 1 else "nearest cell"


def _share(rate: float) -> str:
    return "fewer than 0.01%" if rate < 1e-4 else f"at most {rate:.2%}"


def _origin(result: QueryResult, explanation: ExplanationResult | None) -> Rows:
    yield "query job", result.job_id
    yield "query sha256", result.source_sha256
    yield "collection", f"{result.collection}, generation {result.generation}, journal entry {result.journal_entry}"
    if result.matches:
        yield "asset", result.matches[0].asset_id
        yield from ((f"metadata {key}", value) for key, value in result.matches[0].meta.items())
    if explanation:
        asset = explanation.asset
        known = {
            "activation job": asset.activation, "original sha256": asset.original_sha256,
            "protected file": asset.protected_key, "protected sha256": asset.protected_sha256,
            "explanation job": explanation.job_id,
        }  # fmt: skip
        yield from ((heading, value) for heading, value in known.items() if value)
    yield "extractor", f"{result.extractor.name}, sha256 {result.extractor.sha256}"
    versions = ", ".join(f"{name} {version}" for name, version in result.provenance.versions.items())
    yield "answered", f"{result.provenance.finished_at} by {result.provenance.worker} ({versions})"


def _file_name(s: Submission, result: QueryResult) -> str:
    stem = re.sub(r"[^A-Za-z0-9._-]+", "-", Path(s.found.name).name).strip(".-")[:80] or "query"
    return f"{stem}-{result.job_id[:12]}.html"
