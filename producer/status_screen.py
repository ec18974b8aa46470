"""``aii status --watch`` as it fits a terminal: what is wrong and the main figures stay, the rest scrolls below."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Final

from rich.columns import Columns
from rich.console import Console, Group, RenderableType
from rich.segment import Segment
from rich.table import Table
from rich.text import Text

from producer.status import Status
from tasks.kinds import title_of
from tasks.monitoring.overview import Comparison, Overview, WorkerSpeed
from tasks.monitoring.presence import WorkerNote
from tasks.monitoring.problems import Problem, problem

__all__ = ["SORTS", "Screen", "View"]

_WIDE: Final = 140  # columns from which on tables are side by side
_MOST_PROBLEMS: Final = 4
_Workers = list[tuple[WorkerNote, WorkerSpeed]]

SORTS: Final[dict[str, Callable[[tuple[WorkerNote, WorkerSpeed]], Any]]] = {
    "name": lambda pair: pair[0].worker,
    "images/s": lambda pair: -pair[1].images_per_s,
    "queries/s": lambda pair: -pair[1].queries_per_s,
    "device busy": lambda pair: -(pair[0].device_busy or 0.0),
    "memory": lambda pair: -pair[0].memory_bytes,
}


@dataclass
class View:
    """What the person at the keyboard chose: how far the rest is scrolled, and by what workers are sorted."""

    offset: int = 0
    sort: str = "name"

    def press(self, key: str, page: int) -> None:
        """Follow a key; `page` is how many lines are shown at a time."""
        steps = {"j": 1, "\x1b[B": 1, "k": -1, "\x1b[A": -1, " ": page, "\x1b[6~": page, "b": -page, "\x1b[5~": -page}
        if key == "s":
            names = list(SORTS)
            self.sort = names[(names.index(self.sort) + 1) % len(names)]
        elif key == "g":
            self.offset = 0
        self.offset = max(0, self.offset + steps.get(key, 0))


@dataclass
class Screen:
    """Draws a status for a console of any size, whose size is asked anew each time."""

    console: Console
    view: View = field(default_factory=View)
    page: int = 1

    def draw(self, state: Status | None, trouble: str = "") -> list[list[Segment]]:
        """Exactly as many lines as the console has, none longer than it is wide.

        Args:
            state: the last that is known; None before the first.
            trouble: why there is no newer one.
        """
        height = self.console.size.height
        top = self._lines(Group(*_head(state, trouble)))[: max(1, height - 2)]
        rest = self._lines(_rest(state, self.view.sort, self.console.size.width)) if state else []
        self.page = max(1, height - len(top) - 1)
        self.view.offset = min(self.view.offset, max(0, len(rest) - self.page))
        shown = rest[self.view.offset : self.view.offset + self.page]
        below = len(rest) - self.view.offset - len(shown)
        foot = self._lines(_foot(self.view, below))
        return [*top, *shown, *self._lines(Text("\n" * (self.page - len(shown) - 1)))[: self.page - len(shown)], *foot]

    def _lines(self, drawn: RenderableType) -> list[list[Segment]]:
        options = self.console.options.update(width=self.console.size.width, height=None)
        return self.console.render_lines(drawn, options, pad=True)


def _head(state: Status | None, trouble: str) -> Iterator[RenderableType]:
    if trouble:
        yield _line("bold white on red", f" ✖ {trouble}")
    if state is None:
        yield _line("", "…" if not trouble else "")
        return
    view = state.overview
    problems = [*_s3(state), *view.problems]
    for found in problems[:_MOST_PROBLEMS]:
        style = "bold white on red" if found.severity == "severe" else "bold black on yellow"
        yield _line(style, f" {'✖' if found.severity == 'severe' else '⚠'} {found.title}  {found.detail}")
    if len(problems) > _MOST_PROBLEMS:
        yield _line("yellow", f"   and {len(problems) - _MOST_PROBLEMS} more")
    if not problems and not trouble:
        yield _line("green", " ✔ nothing is wrong")
    at = time.strftime("%H:%M:%S", time.localtime(view.at))
    busy = f"{view.running} running, {sum(queue.waiting for queue in view.queues)} waiting"
    yield _line("bold", f"{view.images_per_s:.2f} images/s   {view.queries_per_s:.2f} queries/s   {busy}   {at}")
    yield _throughput(view.comparisons)


def _s3(state: Status) -> list[Problem]:
    if not state.s3_problem:
        return []
    return [problem("s3_silent", "S3 does not answer", state.s3_problem)]


def _line(style: str, text: str) -> Text:
    return Text(text.replace("`", ""), style=style, no_wrap=True, overflow="ellipsis")


def _table(*columns: str, text: str | None = None) -> Table:
    """The first column is text, the others are figures; `text` names a last one, which is cut where there is no room
    for it."""
    table = Table(box=None, pad_edge=False, expand=text is not None)
    for i, name in enumerate(columns):
        table.add_column(name, justify="left" if i == 0 else "right", no_wrap=True, overflow="ellipsis")
    if text is not None:
        table.add_column(text, no_wrap=True, overflow="ellipsis", ratio=1)
    return table


def _throughput(compared: list[Comparison]) -> Table:
    aimed = any(figure.target_ms for figure in compared)
    table = _table("", "here", "the talk", *(["target"] if aimed else []), text="")
    for figure in compared:
        style, word = _verdict(figure)
        rates = [_rate(figure.p50_ms), _rate(figure.paper_ms), *([_rate(figure.target_ms)] if aimed else [])]
        table.add_row(figure.title.removeprefix("Activation, "), *rates, Text(word, style=style))
    return table


def _rate(ms: float | None) -> str:
    if not ms:
        return "–"
    return f"{1000 / ms:,.0f}/s {ms:.3g} ms" if ms < 1 else f"{1000 / ms:.3g}/s {ms:.3g} ms"


def _verdict(figure: Comparison) -> tuple[str, str]:
    """A colour only where like is compared with like."""
    if figure.p50_ms is None or figure.ratio is None:
        return "dim", "none lately"
    if figure.target_ms is not None:
        ratio = figure.p50_ms / figure.target_ms
        return ("green" if ratio <= 1 else "red"), f"{ratio:.2g} × the target's time"
    if figure.incomparable:
        return "dim", f"not comparable: {figure.incomparable}"
    return ("green" if figure.ratio <= 1 else "red"), f"{figure.ratio:.2g} × the talk's time"


def _rest(state: Status, sort: str, width: int) -> RenderableType:
    view = state.overview
    tables = [table for table in (_queues(view), _workers(view, sort), _collections(view), _failures(view)) if table]
    tables += [table for table in (_stages(view), _results(state)) if table]
    if width < _WIDE:
        return Group(*tables)
    failures = [table for table in tables if table.expand]
    return Group(Columns([table for table in tables if not table.expand], padding=(0, 4)), *failures)


def _queues(view: Overview) -> Table:
    table = _table("queue", "waiting", "oldest", "empty in")
    for queue in view.queues:
        table.add_row(queue.queue, f"{queue.waiting:,}", _seconds(queue.oldest_age_s), _seconds(queue.drain_s))
    return table


def _workers(view: Overview, sort: str) -> Table | None:
    speeds = {speed.worker: speed for speed in view.speeds}
    pairs: _Workers = [(note, speeds[note.worker]) for note in view.workers if note.worker in speeds]
    if not pairs:
        return None
    table = _table("worker", "images/s", "queries/s", "ms/image", "busy", "MiB", "queues")
    for note, speed in sorted(pairs, key=SORTS[sort]):
        busy = "–" if note.device_busy is None else f"{note.device_busy:.0%}"
        device_ms = "–" if speed.device_ms is None else f"{speed.device_ms:.3g}"
        figures = (f"{speed.images_per_s:.2f}", f"{speed.queries_per_s:.2f}", device_ms, busy)
        table.add_row(note.worker, *figures, f"{note.memory_bytes / 2**20:,.0f}", ",".join(note.queues))
    return table


def _collections(view: Overview) -> Table | None:
    table = _table("collection", "generation", "vectors", "journal", "index")
    for held in view.collections:
        table.add_row(held.name, str(held.generation), f"{held.vectors:,}", f"{held.journal:,}", held.factory)
    return table if view.collections else None


def _failures(view: Overview) -> Table | None:
    table = _table("failures", f"in {view.window_s // 60} min", "last at", text="message")
    for failure in view.failures:
        at = time.strftime("%H:%M:%S", time.localtime(failure.at))
        table.add_row(failure.code, str(failure.count), at, failure.message)
    return table if view.failures else None


def _stages(view: Overview) -> Table | None:
    table = _table("stage, ms an image", "p50", "p95", "p99")
    for stage in view.stages:
        times = (f"{ms:.2f}" for ms in (stage.p50_ms, stage.p95_ms, stage.p99_ms))
        table.add_row(f"{title_of(stage.task)} {stage.stage}", *times)
    return table if view.stages else None


def _results(state: Status) -> Table | None:
    table = _table("latest activations", "PSNR", "SSIM", "")
    for result in state.results:
        psnr = "–" if result.quality.psnr_db is None else f"{result.quality.psnr_db:.1f} dB"
        verified = "verified" if result.status == "activated" else "passive"
        table.add_row((result.name or result.asset_id)[:32], psnr, f"{result.quality.ssim:.4f}", verified)
    return table if state.results else None


def _foot(view: View, below: int) -> Text:
    more = f"{below} more lines below   " if below > 0 else ""
    return _line("reverse", f" {more}q quit   ↑ ↓ space scroll   s sorts workers: {view.sort}")


def _seconds(seconds: float | None) -> str:
    return "–" if seconds is None else f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.0f} min"
