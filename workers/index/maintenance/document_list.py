"""Which result documents the store has: listed in parallel, and counted where they need not be read."""

from __future__ import annotations

import datetime
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Final

from tasks.storage import Bucket, ObjectStore

if TYPE_CHECKING:
    from obstore import ObjectMeta

__all__ = ["Listed", "Unordered", "listed"]

# Documents are named by jobs, and most jobs by digests: shares of similar size. Other senders' keys are in some too.
_BOUNDS: Final = ("", *"123456789abcdef", "\U0010ffff")


class Unordered(Exception):
    """The store does not list keys in ascending order, or not from a key on: shares cannot be told."""


@dataclass(frozen=True)
class Listed:
    """Some documents: those to be read, by keys and tags, and how many others there are."""

    names: list[str]
    passed_over: int


def listed(store: ObjectStore, before_ms: int | None, *, in_shares: bool) -> Iterator[Listed]:
    """All documents, those that the store changed before a time (ms, its clock) by their number only.

    Args:
        in_shares: list several shares at once.

    Raises:
        Unordered: of shares.
    """
    before = datetime.datetime.fromtimestamp((before_ms or 0) / 1000, datetime.UTC)
    if in_shares:
        return _at_once([_share(store, before, *bounds) for bounds in pairwise(_BOUNDS)])
    return (_listed(page, before) for page in store.pages(Bucket.RESULTS, ""))


def _share(store: ObjectStore, before: datetime.datetime, after: str, last: str) -> Iterator[Listed]:
    """The documents whose keys come after one key, up to another."""
    for page in store.pages(Bucket.RESULTS, after):
        keys = [after, *(item["path"] for item in page)]
        if keys != sorted(keys):
            raise Unordered
        if (after := keys[-1]) <= last:
            yield _listed(page, before)
            continue
        yield _listed([item for item in page if item["path"] <= last], before)
        return


def _listed(page: Sequence[ObjectMeta], before: datetime.datetime) -> Listed:
    names = [f"{item['path']}\n{item['e_tag'] or ''}" for item in page if item["last_modified"] >= before]
    return Listed(names, len(page) - len(names))


def _at_once(shares: Sequence[Iterator[Listed]]) -> Iterator[Listed]:
    """What all of them give, in any order; each is asked for one ahead. The first one alone tells whether there can be
    shares: a store that is asked for all would list everything for each."""
    if first := next(shares[0], None):
        yield first
    with ThreadPoolExecutor(len(shares)) as pool:
        asked = {pool.submit(next, share, None): share for share in shares}
        while asked:
            for answer in wait(asked, return_when=FIRST_COMPLETED).done:
                share = asked.pop(answer)
                if some := answer.result():
                    asked[pool.submit(next, share, None)] = share
                    yield some
