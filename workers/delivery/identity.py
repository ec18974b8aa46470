"""How a worker signs what it writes."""

from __future__ import annotations

import importlib.metadata
import os
import secrets
import socket
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

import torch

__all__ = ["Identity"]

# What influences the result of a job.
_PACKAGES: Final = ("active-image-indexing", "torch", "faiss-gpu", "faiss-cpu", "pillow", "celery")


@dataclass(frozen=True)
class Identity:
    """What result documents say of the worker that wrote them.

    Attributes:
        worker: ``HOST.RANDOM-PID``, also its name in Flower and in its note of presence. Hosts may have one name, and
            so may processes: every container's first is 1, and machines that were copied number theirs alike.
        device: what the extractor runs on, in words.
        versions: of the installed packages that influence results.
    """

    worker: str
    device: str
    versions: dict[str, str]

    @classmethod
    def of_this_process(cls, device: torch.device) -> Identity:
        return cls(_name(), _described(device), _versions())


def _name() -> str:
    return f"{socket.gethostname()}.{secrets.token_hex(3)}-{os.getpid()}"


def _described(device: torch.device) -> str:
    if device.type == "cuda":
        return f"cuda ({torch.cuda.get_device_name(device)})"
    return f"{device.type} ({torch.get_num_threads()} threads)"


def _versions() -> dict[str, str]:
    found = {}
    for name in _PACKAGES:  # by name: reading all that is installed takes a fifth of a second
        with suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    return found
