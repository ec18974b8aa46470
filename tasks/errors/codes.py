"""Looking up errors by their codes, and what is said about them."""

from __future__ import annotations

import inspect
from collections.abc import Iterator

from tasks.errors.base import AiiError
from tasks.errors.requests import BadInput, Conflict

__all__ = [
    "advice",
    "error_of",
    "kinds",
    "retry_helps",
]


def advice(kind: type[AiiError]) -> tuple[str, str]:
    """When an error of this class is raised, and what to do then: the two paragraphs of its docstring."""
    when, _, what_to_do = inspect.cleandoc(kind.__dict__["__doc__"]).partition("\n\nWhat to do: ")
    return " ".join(when.split()), " ".join(what_to_do.split())


def kinds() -> Iterator[type[AiiError]]:
    """Every class of the tree."""
    pending: list[type[AiiError]] = [AiiError]
    while pending:
        kind = pending.pop()
        yield kind
        pending.extend(kind.__subclasses__())


def retry_helps(code: str) -> bool:
    """Whether a job that ended with this code may end otherwise when it is done again as it is: not where its image or
    its request is what cannot be used."""
    return not isinstance(error_of(code, ""), BadInput | Conflict)


def error_of(code: str, message: str) -> AiiError:
    """The error that a result document names, as an exception of the class with that code."""
    kind = next((kind for kind in kinds() if kind.code == code), None)
    return kind(message) if kind else AiiError(f"{code}: {message}")
