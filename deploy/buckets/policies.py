"""The policies of deploy/security for buckets of other names."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from tasks.files import write_atomically
from tasks.settings import Settings
from tasks.storage import Bucket

__all__ = ["write_policies"]

_POLICIES: Final = Path(__file__).parents[1] / "security"
_ARN: Final = "arn:aws:s3:::"


def write_policies(settings: Settings, folder: Path) -> list[Path]:
    """Write one file for each kind of user; returns their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for policy in sorted(_POLICIES.glob("s3-*.json")):
        text = policy.read_text()
        for bucket in Bucket:
            for end in ('"', "/"):
                name = getattr(settings, f"bucket_{bucket.value}")
                text = text.replace(f"{_ARN}{bucket.value}{end}", f"{_ARN}\0{name}{end}")  # not taken for another's
        written.append(folder / policy.name)
        write_atomically(written[-1], text.replace("\0", "").encode())
    return written
