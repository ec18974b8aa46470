"""The policies of deploy/security for buckets of other names."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from tasks.output_files import check_folder, refuse_existing, write_output
from tasks.settings import Settings
from tasks.storage import Bucket

__all__ = ["write_policies"]

_POLICIES: Final = Path(__file__).parents[1] / "security"
_ARN: Final = "arn:aws:s3:::"


def write_policies(settings: Settings, folder: Path, *, force: bool = False) -> list[Path]:
    """Write one file for each kind of user; returns their paths.

    Raises:
        UsageError: one exists already with other content, and `force` is not set; none was written.
    """
    check_folder(folder)
    wanted = {
        folder / policy.name: _named(policy.read_text(), settings) for policy in sorted(_POLICIES.glob("s3-*.json"))
    }
    if not force:
        refuse_existing([path for path, text in wanted.items() if path.exists() and path.read_bytes() != text.encode()])
    for path, text in wanted.items():
        write_output(path, text)
    return list(wanted)


def _named(policy: str, settings: Settings) -> str:
    """A policy with the settings' names of buckets."""
    for bucket in Bucket:
        for end in ('"', "/"):
            name = getattr(settings, f"bucket_{bucket.value}")
            policy = policy.replace(f"{_ARN}{bucket.value}{end}", f"{_ARN}\0{name}{end}")  # not taken for another's
    return policy.replace("\0", "")
