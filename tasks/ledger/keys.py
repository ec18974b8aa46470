"""Where the ledger keeps what in Redis; :mod:`tasks.ledger.scripts` says what each key holds."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from tasks.names import journal_stream

LEASES: Final = "aii:leases"
COUNTS: Final = "aii:counts"
EVENTS: Final = "aii:events"
INCARNATIONS: Final = "aii:incarnations"
CLOSED_BOUND: Final = 10_000


def job_key(job_id: str) -> str:
    return f"aii:job:{job_id}"


def open_key(queue: str) -> str:
    return f"aii:open:{queue}"


def seq_key(queue: str) -> str:
    return f"aii:seq:{queue}"


def head_key(queue: str) -> str:
    return f"aii:head:{queue}"


def since_key(queue: str) -> str:
    return f"aii:since:{queue}"


def later_key(queue: str) -> str:
    return f"aii:later:{queue}"


def closed_key(state: str) -> str:
    return f"aii:closed:{state}"


def submit_keys(queue: str, job_ids: Iterable[str]) -> list[str]:
    """What jobs touch that are opened, or opened again."""
    closed = [closed_key("failed"), closed_key("cancelled"), closed_key("done")]
    return [open_key(queue), seq_key(queue), COUNTS, since_key(queue), *closed, *map(job_key, job_ids)]


@dataclass(frozen=True)
class JournalKeys:
    """The keys of a collection's journal.

    Attributes:
        stream: the changes since the oldest kept generation.
        live: hash: asset → its latest change that no segment covers, as ``entry op code meta``, and after a line break
            the facts of the job that made it (JSON: job, source, key, sha256, options), where there was one.
        state: hash: the newest announced `generation`; `cut`, up to which entry the stream is trimmed; `announcements`,
            how often changes may have left `live`; and what :mod:`workers.index.collection.settling` keeps.
        unrecorded: hash: asset → the entry whose record is not in S3 yet; such a change stays in `live`.
        purges: hash: asset → twice how often its files were purged lately; odd while that is being done.
    """

    stream: str
    live: str
    state: str
    unrecorded: str
    purges: str

    @classmethod
    def of(cls, collection: str) -> JournalKeys:
        stream = journal_stream(collection)
        return cls(stream, *(f"{stream}:{name}" for name in ("live", "state", "unrecorded", "purges")))

    @property
    def all(self) -> list[str]:
        return [self.stream, self.live, self.state, self.unrecorded, self.purges]
