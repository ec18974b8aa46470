"""Which of the waiting images share a batch, so that no client's image waits for those of another's backlog."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Final, Protocol, TypeVar

__all__ = ["FairBatches", "acting_for", "client_now"]

_ACTIVE_S: Final = 5.0  # for so long after its latest image, a client counts as one that asks
_client: Final = ContextVar[str | None]("client", default=None)


@contextmanager
def acting_for(client: str | None) -> Iterator[None]:
    """While a thread runs a job of this client; None for a job that is no client's."""
    token = _client.set(client)
    try:
        yield
    finally:
        _client.reset(token)


def client_now() -> str | None:
    """The client whose job this thread runs: `""` for all those without a name, None for none, as for index jobs."""
    return _client.get()


class _Owned(Protocol):
    @property
    def client(self) -> str | None: ...


_Image = TypeVar("_Image", bound=_Owned)


class FairBatches:
    """While images of several clients come, a batch has at most so many of each. However many images one client has
    handed over, another's waits for a small batch to end and is then part of a small batch itself. Images that are no
    client's, such as those of an index build, neither make batches small nor are limited in them.

    Args:
        most_each: images of one client in such a batch; None for any number.
        clock: seconds, monotonic.
    """

    def __init__(self, most_each: int | None, clock: Callable[[], float] = time.monotonic) -> None:
        self._most_each = most_each
        self._clock = clock
        self._came: dict[str, float] = {}  # when the latest image of each client came

    def note(self, client: str | None) -> None:
        """An image of this client came."""
        if client is not None:
            self._came[client] = self._clock()

    def limited(self) -> bool:
        """Whether several clients ask now, so that batches are small."""
        active = [client for client, came in self._came.items() if came > self._clock() - _ACTIVE_S]
        return self._most_each is not None and len(active) > 1

    def chosen(self, waiting: Iterable[_Image], most: int) -> list[_Image]:
        """Those of the waiting images, oldest first, that make the next batch."""
        most_each = self._most_each if self.limited() else None
        taken, batch = Counter[str](), list[_Image]()
        for image in waiting:
            if len(batch) >= most:
                break
            if most_each is not None and image.client is not None:
                if taken[image.client] >= most_each:
                    continue
                taken[image.client] += 1
            batch.append(image)
        return batch
