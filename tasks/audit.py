"""The audit log: who submitted, looked up and removed what, in a stream that is only appended to.

aii:audit   stream of the last AII_AUDIT_ENTRIES: who, action, collection, asset, job, detail

Its entries are named by Redis' clock. The users of deploy/security who write it can neither change nor read it.
"""

from __future__ import annotations

import dataclasses
import datetime
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, Literal

from tasks.connection import RedisClient
from tasks.settings import Settings

__all__ = ["Action", "AuditEntry", "AuditLog"]

AUDIT: Final = "aii:audit"
_BATCH: Final = 1_000

Action = Literal["activate", "query", "show", "remove", "takedown"]


@dataclass(frozen=True)
class AuditEntry:
    """One thing that was done. What does not apply is "".

    Attributes:
        who: the token's name, or `aii` and the account of the machine.
        detail: the digest of an image, for example.
    """

    who: str
    action: str
    collection: str = ""
    asset: str = ""
    job: str = ""
    detail: str = ""


class AuditLog:
    """Thread-safe; raises RedisUnavailable."""

    def __init__(self, client: RedisClient, settings: Settings) -> None:
        self._client = client
        self._most = settings.audit_entries

    def add(self, entry: AuditEntry) -> None:
        """Append; nothing where AII_AUDIT_ENTRIES is 0."""
        if self._most:
            fields = {name: value for name, value in vars(entry).items() if value}
            self._client.xadd(AUDIT, fields, maxlen=self._most, approximate=True)

    def entries(self, after: str = "0-0") -> Iterator[tuple[str, datetime.datetime, AuditEntry]]:
        """All entries after one, oldest first: name, time and content."""
        while rows := self._client.xrange(AUDIT, min=f"({after}", max="+", count=_BATCH):
            for name, fields in rows:
                at = datetime.datetime.fromtimestamp(int(name.partition("-")[0]) / 1000, datetime.UTC)
                yield name, at, AuditEntry(**{one: fields.get(one, "") for one in _FIELDS})
            after = rows[-1][0]


_FIELDS: Final = tuple(field.name for field in dataclasses.fields(AuditEntry))
