"""What this process may use of its machine: cores and memory, within a container's limits too, and GPUs.

Linux states a container's limits in control groups, of which there are two versions; the number of cores and the size
of memory that Python reports are those of the whole machine.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

__all__ = ["cores", "gpus", "memory_bytes", "usable_cores"]

_ROOT = Path("/")


def usable_cores() -> int:
    """Those that this process may run on, whatever share of their time it gets."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def cores(root: Path = _ROOT) -> int:
    """As many as there is time for, at least one: a quota of 150 % is two."""
    return max(1, min([usable_cores(), *(math.ceil(quota) for quota in _cpu_quotas(root))]))


def memory_bytes(root: Path = _ROOT) -> int:
    """The machine's, or the limit of a control group that this process is in."""
    machine = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    limits = (_number(folder / name) for folder, name in _memory_files(root))
    return int(min([machine, *(limit for limit in limits if limit)]))


def gpus(environment: Mapping[str, str] = os.environ, root: Path = _ROOT) -> list[str]:
    """NVIDIA's, as ``CUDA_VISIBLE_DEVICES`` names them."""
    if (visible := environment.get("CUDA_VISIBLE_DEVICES")) is not None:
        return [name.strip() for name in visible.split(",") if name.strip() not in ("", "-1")]
    devices = (re.fullmatch(r"nvidia(\d+)", path.name) for path in (root / "dev").glob("nvidia*"))
    return sorted((found[1] for found in devices if found), key=int)


def _cpu_quotas(root: Path) -> Iterator[float]:
    """Cores' worth of time, for each group that limits it."""
    for folder in _folders(root, "cpu"):
        quota = _number(folder / "cpu.cfs_quota_us")
        period = _number(folder / "cpu.cfs_period_us")
        if quota and period:
            yield quota / period
    for folder in _folders(root, ""):
        share = _text(folder / "cpu.max").split()
        if len(share) == 2 and share[0].isdigit() and share[1].isdigit() and int(share[1]):
            yield int(share[0]) / int(share[1])


def _memory_files(root: Path) -> Iterator[tuple[Path, str]]:
    yield from ((folder, "memory.limit_in_bytes") for folder in _folders(root, "memory"))
    yield from ((folder, "memory.max") for folder in _folders(root, ""))


def _folders(root: Path, controller: str) -> Iterator[Path]:
    """Of the groups of this process and all above them; an empty controller is version 2. In a container, only the
    last one is there."""
    for line in _text(root / "proc/self/cgroup").splitlines():
        _, names, path = [*line.split(":", 2), "", ""][:3]
        if controller not in names.split(","):
            continue
        mounts = [f"sys/fs/cgroup/{controller or 'unified'}", f"sys/fs/cgroup/{names}", "sys/fs/cgroup"]
        parts = [part for part in path.split("/") if part]
        for mount in dict.fromkeys(mounts):
            yield from ((root / mount).joinpath(*parts[:depth]) for depth in range(len(parts), -1, -1))


def _number(path: Path) -> int | None:
    """A positive number; None where there is no limit."""
    text = _text(path)
    return int(text) or None if text.isdigit() else None


def _text(path: Path) -> str:
    try:
        return path.read_text("ascii").strip()
    except (OSError, UnicodeDecodeError):
        return ""
