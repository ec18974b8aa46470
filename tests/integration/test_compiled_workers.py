"""Workers on an empty folder of compiled code."""

from __future__ import annotations

from pathlib import Path

import workers.main  # noqa: F401  # with all modules of a worker, and their kernels
from tasks.settings import Settings
from tests.stack import WorkerProcess
from workers.images.compiled import KERNELS


def test_workers_that_start_at_once_are_ready_with_all_kernels_compiled(
    settings: Settings, stack_environment: dict[str, str], tmp_path: Path
) -> None:
    environment = stack_environment | {"NUMBA_CACHE_DIR": str(tmp_path / "compiled")}
    both = [WorkerProcess(environment, settings, tmp_path / f"{i}.log", "activate") for i in range(2)]
    try:
        for worker in both:
            worker.wait_until_ready()
    finally:
        for worker in both:
            worker.kill()
    whole = [file.stem for file in (tmp_path / "compiled").rglob("*.sha256")]
    assert sorted(whole) == sorted(kernel.name for kernel in KERNELS)
    assert not any("compiled" in worker.log.read_text() for worker in both)  # no warning
