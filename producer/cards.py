"""The report card of an image: one page on how well its edited copies are found, and how visible its protection is."""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

from producer.batch import Submission
from producer.client import Producer
from producer.html_page import Images, document, submitted_image, table, text
from producer.outputs import save
from tasks.command_line import printable
from tasks.errors import AiiError, DeadlineExceeded, error_of
from tasks.results import ActivationResult, CardResult, CardShare, FailureResult

__all__ = ["card_page", "card_path", "foreign_cards", "measured", "write_cards"]

_LARGEST_IMAGE: Final = 12 * 2**20
_TITLE_END: Final = ": report card"

Told = Callable[[AiiError], None]


def measured(
    producer: Producer, submissions: Sequence[Submission], timeout_s: float | None, told: Told
) -> list[Submission]:
    """The same submissions, with cards for all that were activated; `told` of each that could not be measured."""
    jobs, cards = {}, dict[str, CardResult | AiiError]()
    for s in submissions:
        if isinstance(s.result, ActivationResult) and not s.error:
            result = s.result
            try:
                job = producer.card(s.found.source, result.asset_id, collection=result.collection)
            except AiiError as error:
                told(_of(s, error))
            else:
                jobs[s.order] = job.job_id
    try:
        for job_id, ended in producer.wait_for(list(jobs.values()), timeout_s):
            if isinstance(ended, CardResult):
                cards[job_id] = ended
            elif isinstance(ended, FailureResult):
                cards[job_id] = error_of(ended.code, ended.message)
    except AiiError as error:
        cards = {job_id: cards.get(job_id, error) for job_id in jobs.values()}
    return [_with_card(s, cards.get(jobs[s.order], _late()), told) if s.order in jobs else s for s in submissions]


def _late() -> AiiError:
    return DeadlineExceeded("It was not measured in time: run the same command again.")


def _with_card(s: Submission, card: CardResult | AiiError, told: Told) -> Submission:
    if isinstance(card, CardResult):
        return replace(s, card=card)
    told(_of(s, card))
    return s


def _of(s: Submission, error: AiiError) -> AiiError:
    return error_of(error.code, f"{printable(s.found.name)} has no card: {error.message}")


def write_cards(submissions: Sequence[Submission], *, force: bool) -> None:
    """Write each card beside its protected file.

    Raises:
        Conflict: there is another file of that name, and `force` is not set.
        DiskUnavailable: it cannot be written.
    """
    for s in submissions:
        if s.card and s.saved:
            path = card_path(s.saved)
            page = card_page(s, s.card, s.saved.read_bytes()).encode()
            save(path, page, force=force or _is_card(path))


def foreign_cards(protected: Iterable[Path]) -> list[Path]:
    """Files that have the name of a card beside one of these files, and are none."""
    return [card for path in protected if (card := card_path(path)).exists() and not _is_card(card)]


def card_path(protected: Path) -> Path:
    return protected.with_name(f"{protected.name}.card.html")


def _is_card(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            return f"{_TITLE_END}</title>".encode() in file.read(4096)
    except OSError:
        return False


def card_page(s: Submission, card: CardResult, protected: bytes) -> str:
    """One HTML page that needs nothing else and runs nothing."""
    body = _headline(card) + _pictures(s, card, protected) + _bars(card)
    body += table("How visible it is", _quality(card)) + table("Where it comes from", _origin(s, card))
    return document(f"{printable(Path(s.found.name).name)}{_TITLE_END}", body)


def _headline(card: CardResult) -> str:
    copies = sum(edit.copies for edit in card.edits)
    plain = (
        '<p class="soft">The image says too little for its copies to be told from others: none is matched.</p>'
        if card.uninformative
        else ""
    )
    return (
        f'<section><h2>Edited copies that are found</h2><p class="big"><span class="before">'
        f'{card.found_before.share:.0%}</span> → <span class="after">{card.found_after.share:.0%}</span></p>'
        f'<p class="soft">of {copies} copies, before and after activation ({_between(card.found_before)}; '
        f"{_between(card.found_after)}, with 95% confidence, for copies like these). A copy is found when the asset "
        f"comes first and no other image of the index is nearer, in a search of {_cells(card)}.</p>"
        f'<p class="soft">With the verdict match: {card.matched_before.share:.0%} before, '
        f"{card.matched_after.share:.0%} after ({_between(card.matched_after)}).</p>{plain}</section>"
    )


def _cells(card: CardResult) -> str:
    return "one cell" if card.options.nprobe == 1 else f"{card.options.nprobe:,} cells"


def _between(share: CardShare) -> str:
    return f"{share.low:.0%} to {share.high:.0%}"


def _pictures(s: Submission, card: CardResult, protected: bytes) -> str:
    images = Images(_LARGEST_IMAGE)
    figures = (
        images.figure(submitted_image(s, _LARGEST_IMAGE), "original"),
        images.figure(protected, "protected"),
        images.figure(base64.b64decode(card.difference), f"difference, {card.amplified} times, around grey"),
    )
    return f'<section class="three"><h2>Original and protected</h2>{"".join(figures)}</section>'


def _bars(card: CardResult) -> str:
    head = "<tr><th>edit</th><th>found</th><th></th><th>matched</th></tr>"
    rows = "".join(
        f"<tr><th>{text(e.edit.replace('_', ' '))}</th><td class='wide'>{_bar('before', e.found_before, e.copies)}"
        f"{_bar('after', e.found_after, e.copies)}</td><td>{e.found_before} → {e.found_after} of {e.copies}</td>"
        f"<td>{e.matched_before} → {e.matched_after}</td></tr>"
        for e in card.edits
    )
    return (
        f'<section><h2>By edit</h2><p class="soft">Above each other: <span class="before">copies of the original, had '
        f'it been published unchanged</span>, and <span class="after">copies of the protected file</span>.</p>'
        f'<table class="bars">{head}{rows}</table></section>'
    )


def _bar(side: str, count: int, copies: int) -> str:
    return f'<span class="bar {side}" style="width: {count / copies:.1%}"></span>'


def _quality(card: CardResult) -> Iterator[tuple[str, str]]:
    quality = card.quality
    yield "PSNR", "the images are identical" if quality.psnr_db is None else f"{quality.psnr_db:.1f} dB"
    yield "SSIM", f"{quality.ssim:.4f}, where 1 is no difference"
    yield "L∞", f"{quality.linf} of 255 grey levels, at the pixel that changed most"
    if quality.delta_e is not None:
        yield "ΔE", f"{quality.delta_e:.2f} (CIEDE2000, 99th percentile), where 1 is just noticeable side by side"


def _origin(s: Submission, card: CardResult) -> Iterator[tuple[str, str]]:
    yield "asset", card.asset_id
    yield "collection", f"{card.collection}, generation {card.generation}"
    yield "activation job", s.job_id or ""
    yield "original sha256", card.source_sha256
    yield "protected sha256", card.protected_sha256
    yield "extractor", f"{card.extractor.name}, sha256 {card.extractor.sha256}"
    versions = ", ".join(f"{name} {version}" for name, version in card.provenance.versions.items())
    yield "measured", f"{card.provenance.finished_at} by {card.provenance.worker} ({versions}), job {card.job_id}"
