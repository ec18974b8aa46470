"""The benchmark of a GPU runs through on a CPU, so that it does where a GPU is lent for ten minutes."""

from __future__ import annotations

import json
from pathlib import Path

from click.testing import CliRunner

from tests.benchmarks.gpu import PARTS, main
from tests.benchmarks.handover import Load, measure


def test_every_part_of_the_gpu_benchmark_runs_on_a_cpu(tmp_path: Path) -> None:
    out = tmp_path / "rows.json"
    result = CliRunner().invoke(main, ["--device", "cpu", "--quick", "--json", str(out)], catch_exceptions=False)
    assert result.exit_code == 0
    rows = json.loads(out.read_text())
    assert [row for row in rows if row["what"] == "failed"] == []
    assert {row["part"] for row in rows} == set(PARTS)


def test_the_benchmark_of_handing_over_counts_all_images_of_all_processes() -> None:
    busy, rate, batch = measure(Load(processes=2, images=40, in_flight=8, batch_ms=1, pixels_ms=0.1))
    assert 0 < busy <= 1
    assert rate > 0
    assert 1 <= batch <= 8
