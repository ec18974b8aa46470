"""The stages of a job that are timed, as result documents and metrics name them."""

from __future__ import annotations

from typing import Literal, TypeAlias

__all__ = ["Stage"]

# `device`: an activation's time at the device, of which `optimise` is its own share and `wait` the rest.
Stage: TypeAlias = Literal[
    "total",
    "fetch",
    "decode",
    "prepare",
    "device",
    "wait",
    "optimise",
    "step",
    "compose",
    "encode",
    "verify",
    "quality",
    "upload",
    "journal",
    "extract",
    "search",
    "align",
    "compact",
]
