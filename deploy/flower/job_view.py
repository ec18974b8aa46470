"""What the page of one job shows beside its record."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tasks.errors import retry_helps
from tasks.ledger.records import JobRecord
from tasks.ledger.states import JobState
from tasks.results import Result

__all__ = ["Bar", "log_lines", "retry_can_help", "waterfall"]

_READ_BYTES: Final = 4 * 2**20  # from the end of each log
_LINES: Final = 200
_WHOLE: Final = ("total", "step", "device")  # sums and parts of others
_WAITING: Final = "waiting"


@dataclass(frozen=True)
class Bar:
    """One stage of a waterfall: milliseconds, where it begins, and its length as shares (0..100) of the whole."""

    stage: str
    ms: float
    left: float
    width: float


def waterfall(result: Result, record: JobRecord) -> list[Bar]:
    """The stages one after the other, as the image passed them; what no stage took is `other`.

    Documents say how long a stage took, not when it began: stages that ran beside each other are shown in a row.
    """
    timings = result.provenance.timings_ms
    stages = {name: ms for name, ms in timings.items() if name not in _WHOLE}
    if "device" in timings:
        stages = _with_wait(stages, timings["device"])
    total = timings.get("total", sum(stages.values()))
    waited = (record.finished_at - record.submitted_at) * 1000 - total if record.finished_at else 0.0
    stages = ({_WAITING: waited} if waited > 1 else {}) | stages
    other = total - sum(ms for name, ms in stages.items() if name != _WAITING)
    stages |= {"other": other} if other > 0 or not stages else {}
    whole, begun, bars = max(sum(stages.values()), 1e-9), 0.0, []
    for name, ms in stages.items():
        bars.append(Bar(name, ms, 100 * begun / whole, 100 * ms / whole))
        begun += ms
    return bars


def _with_wait(stages: dict[str, float], device_ms: float) -> dict[str, float]:
    """The time at the device that was not this image's own, before the own."""
    wait = {"wait for the device": max(0.0, device_ms - stages.get("optimise", 0.0))}
    ordered: dict[str, float] = {}
    for name, ms in stages.items():
        ordered |= (wait if name == "optimise" else {}) | {name: ms}
    return ordered


def retry_can_help(record: JobRecord) -> bool:
    """Whether the same job may end otherwise: not when its image or its request is what cannot be used."""
    if record.state is JobState.CANCELLED:
        return True
    return record.state is JobState.FAILED and retry_helps(record.error_code or "")


def log_lines(folder: Path, job_id: str) -> list[str]:
    """The last lines that name a job in the logs of this machine's processes; those of other machines are there."""
    return [line for path in sorted(folder.glob("worker-*.log*")) for line in _tail(path) if job_id in line][-_LINES:]


def _tail(path: Path) -> list[str]:
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - _READ_BYTES))
            return file.read().decode(errors="replace").splitlines()
    except OSError:
        return []
