"""What an evaluation was made of: the note that keeps results of different settings apart, and words for the report."""

from __future__ import annotations

import importlib.metadata
import json
import platform
import resource
import shlex
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Final

from tasks.errors import InvalidRequest
from tasks.files import write_atomically
from tasks.machine import cores
from workers.images.folders import listing_digest

if TYPE_CHECKING:
    from workers.evaluation.run import EvaluationPlan
    from workers.evaluation.subject import Photographs, Sources, Subject
    from workers.extractors.base import Extractor, FeatureSource

__all__ = ["Note", "check_note", "described", "note_of", "write_note"]

_PACKAGES: Final = (
    "active-image-indexing", "torch", "torchvision", "faiss-gpu", "faiss-cpu", "pillow", "numpy", "augly",
)  # fmt: skip

Note = dict[str, str]
# Of the files that are kept from run to run: to be raised whenever they, or the figures in them, become others.
_LAYOUT: Final = "3"


def note_of(
    sources: Sources, photographs: Photographs, extractor: Extractor, of_references: FeatureSource, seed: int
) -> Note:
    """All that results depend on which are kept without being named for it.

    Args:
        of_references: what gives the references' features; nearly always the extractor.
    """
    note = {
        "layout of what is kept": _LAYOUT,
        "photographs": photographs.sha256,
        "references": listing_digest(sources.references)[0],
        "training": listing_digest(sources.training)[0],
        "extractor": extractor.sha256,
        "seed": str(seed),
    }
    if of_references.sha256 != extractor.sha256:
        note["extractor of references"] = of_references.sha256
    return note


def check_note(path: Path, note: Note) -> None:
    """Raises InvalidRequest when the folder holds results of something else; says what differs."""
    if not path.exists():
        return
    kept = json.loads(path.read_text("utf-8"))
    if different := [name for name in {**kept, **note} if kept.get(name) != note.get(name)]:
        raise InvalidRequest(
            f"{path.parent.parent} holds an evaluation of something else ({', '.join(different)} changed): name "
            "another folder with --out."
        )


def write_note(path: Path, note: Note) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, json.dumps(note))


def described(subject: Subject, plan: EvaluationPlan, seed: int, seconds: float) -> Mapping[str, str]:
    """For the end of the report, by name."""
    extractor = subject.engine.extractor.identity
    shown = "images of their own, edited already" if subject.edited else "of the same folder, and the same edits"
    return {
        "extractor": f"{extractor.name}, {extractor.dimension}-d, sha256 {extractor.sha256}",
        "main index": f"{plan.main}, {'of a collection' if plan.trained else 'trained here'}",
        "images": f"{len(subject.registered):,} registered, {len(subject.unrelated):,} unrelated ({shown})",
        "images for the other indexes and variants": f"the first {plan.others_count}; {plan.strengths_count} for masks",
        "references": f"{len(subject.references):,}; the indexes were trained on {len(subject.training):,} images",
        "edits": ", ".join(["our fourteen", *plan.more_edits]),
        "hardware": _hardware(subject.engine.extractor),
        "versions": ", ".join(_versions()),
        "seed": str(seed),
        "command": shlex.join(["aii", *sys.argv[1:]]),
        "time": f"{seconds / 60:.1f} minutes of this run; what was found done is not in it",
        "memory": f"{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:,.0f} MiB at most",
    }


def _hardware(extractor: Extractor) -> str:
    import torch  # noqa: PLC0415  # not for `aii --help`

    device = f"{torch.cuda.get_device_name(extractor.device)}, " if extractor.device.type == "cuda" else ""
    return f"{device}{cores()} cores of {_processor()}"


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8", "replace").splitlines()
    except OSError:  # not Linux
        lines = []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return next(iter(models), platform.processor() or platform.machine())


def _versions() -> list[str]:
    found = []
    for name in _PACKAGES:
        try:
            found.append(f"{name} {importlib.metadata.version(name)}")
        except importlib.metadata.PackageNotFoundError:
            continue
    return found
