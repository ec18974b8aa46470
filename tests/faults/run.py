"""Break everything on purpose, and publish what it came to.

``python -m tests.faults.run [--full] [--only TEXT] [--table FILE] [--processes N]``: each scenario of
:mod:`tests.faults.table` on a stack of its own, judged by :mod:`tests.faults.oracle`. Ends with 1 when anything was
lost or inconsistent.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is loaded; see tests/conftest.py

import multiprocessing
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path

import click

from tests.faults.bench import QUICK, Bench, Outcome, running_bench
from tests.faults.oracle import Verdict, judge
from tests.faults.table import SCENARIOS, Scenario

__all__ = ["Row", "measure"]

_HEAD = "| what was done | jobs | lost | inconsistent | seconds to recover | |\n|---|---|---|---|---|---|"


@dataclass(frozen=True)
class Row:
    """What one scenario came to."""

    scenario: Scenario
    outcome: Outcome
    verdict: Verdict

    @property
    def problems(self) -> list[str]:
        """Everything that should not be, in words."""
        found = [*self.verdict.lost, *self.verdict.inconsistent, *self.outcome.wrong]
        if self.outcome.failing is not None and dict(self.outcome.failing) != dict(self.verdict.failed):
            found.append(f"failed: {dict(self.verdict.failed)} instead of {dict(self.outcome.failing)}")
        return found

    def __str__(self) -> str:
        """A line of the table."""
        jobs = f"{self.verdict.jobs:,}" if self.outcome.jobs else f"{self.outcome.answers:,} answers"
        inconsistent = len(self.verdict.inconsistent) + len(self.outcome.wrong)
        recovered = "" if self.outcome.recovered_s is None else f"{self.outcome.recovered_s:.1f}"
        failed = ", ".join(f"{count} `{code}`" for code, count in sorted(self.verdict.failed.items()))
        note = "; ".join(part for part in (self.outcome.note, failed) if part)
        what = (self.scenario.run.__doc__ or "").strip().rstrip(".")
        return f"| {what} | {jobs} | {len(self.verdict.lost)} | {inconsistent} | {recovered} | {note} |"


def measure(bench: Bench, scenario: Scenario, size: int) -> Row:
    """Run a scenario and judge it; what it waited for in vain is a problem."""
    try:
        outcome = scenario.run(bench, size)
    except AssertionError as error:
        outcome = Outcome(failing=None, wrong=[str(error)])
    return Row(scenario, outcome, judge(bench.settings, outcome.jobs, bench.state / "oracle"))


def _on_its_own_stack(name: str, full: bool) -> tuple[Row, float]:
    """Run the scenario of this name on a new stack; returns its row, and the seconds it took."""
    scenario = next(scenario for scenario in SCENARIOS if scenario.name == name)
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as folder, running_bench(Path(folder), {} if full else QUICK) as bench:
        row = measure(bench, scenario, scenario.full if full else scenario.short)
    return row, time.monotonic() - began


@click.command(help=__doc__)
@click.option("--full", is_flag=True, help="The full sizes, with the default lease of 20 s.")
@click.option("--only", multiple=True, default=("",), help="Scenarios whose names contain this (repeatable).")
@click.option("--table", type=click.Path(path_type=Path), help="Write the table to this file as well.")
@click.option("--processes", type=click.IntRange(1), default=1, help="Scenarios side by side; most of each is waiting.")
def main(full: bool, only: tuple[str, ...], table: Path | None, processes: int) -> None:
    names = [scenario.name for scenario in SCENARIOS if any(text in scenario.name for text in only)]
    rows: dict[str, Row] = {}
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(processes, mp_context=spawn, max_tasks_per_child=1) as pool:
        running = {pool.submit(_on_its_own_stack, name, full): name for name in names}
        for future in as_completed(running):
            row, seconds = future.result()
            rows[running[future]] = row
            click.echo(f"{row.scenario.name}, {seconds:.0f} s", err=True)
            click.echo(row)
            for problem in row.problems[:10]:
                click.echo(f"    {problem}", err=True)
            if table:
                table.write_text("\n".join([_HEAD, *(str(rows[name]) for name in names if name in rows)]) + "\n")
    broken = [name for name in names if rows[name].problems]
    click.echo(f"{len(rows)} scenarios; {', '.join(broken) or 'none'} of them with a problem.")
    sys.exit(bool(broken))


if __name__ == "__main__":
    main()
