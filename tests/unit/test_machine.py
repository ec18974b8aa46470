"""A container's limits are seen, whichever version of control groups states them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tasks.machine import cores, gpus, memory_bytes

GIB = 2**30


@pytest.fixture(autouse=True)
def _four_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tasks.machine.usable_cores", lambda: 4)


def machine(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


def version_2(root: Path, cpu: str, memory: str, group: str = "/") -> Path:
    folder = f"sys/fs/cgroup{group}".rstrip("/")
    return machine(
        root,
        {"proc/self/cgroup": f"0::{group}\n", f"{folder}/cpu.max": f"{cpu}\n", f"{folder}/memory.max": f"{memory}\n"},
    )


def version_1(root: Path, quota: str, memory: str) -> Path:
    cpu, limit = "sys/fs/cgroup/cpu,cpuacct/pod/one", "sys/fs/cgroup/memory/pod"
    return machine(
        root,
        {
            "proc/self/cgroup": "5:memory:/pod/one\n4:cpu,cpuacct:/pod/one\n0::/\n",
            f"{cpu}/cpu.cfs_quota_us": f"{quota}\n",
            f"{cpu}/cpu.cfs_period_us": "100000\n",
            f"{limit}/memory.limit_in_bytes": f"{memory}\n",
        },
    )


@pytest.mark.parametrize("make", [version_1, version_2])
def test_a_quota_and_a_memory_limit_are_seen(make, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    cpu = "150000" if make is version_1 else "150000 100000"
    root = make(tmp_path, cpu, str(GIB // 2))
    assert (cores(root), memory_bytes(root)) == (2, GIB // 2)


@pytest.mark.parametrize("make", [version_1, version_2])
def test_without_limits_the_whole_machine_is_used(make, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    root = make(tmp_path, "-1" if make is version_1 else "max 100000", "max")
    whole = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    assert (cores(root), memory_bytes(root)) == (4, whole)
    assert (cores(tmp_path / "nothing"), memory_bytes(tmp_path / "nothing")) == (4, whole)


def test_a_limit_of_a_group_above_counts_and_a_core_is_the_least(tmp_path: Path) -> None:
    root = version_2(tmp_path, "10000 100000", str(GIB), "/outer")
    (root / "proc/self/cgroup").write_text("0::/outer/inner\n")
    assert (cores(root), memory_bytes(root)) == (1, GIB)


def test_gpus_are_those_of_the_machine_unless_some_are_chosen(tmp_path: Path) -> None:
    root = machine(tmp_path, {f"dev/{name}": "" for name in ("nvidia10", "nvidia2", "nvidiactl", "nvidia-uvm")})
    assert gpus({}, root) == ["2", "10"]
    assert gpus({"CUDA_VISIBLE_DEVICES": "1, GPU-3f"}, root) == ["1", "GPU-3f"]
    assert gpus({"CUDA_VISIBLE_DEVICES": ""}, root) == []
