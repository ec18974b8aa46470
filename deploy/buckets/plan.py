"""What the buckets of this system shall have, and the comparison with what they have."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import Enum

from minio import Minio
from minio.error import S3Error

from deploy.buckets.client import NotOffered, is_missing, named_errors
from deploy.buckets.rules import ExpiryRule
from deploy.buckets.steps import CrossOrigin, Exists, Locked, Notifies, Step, Versioned
from tasks.settings import Settings
from tasks.storage import Bucket

__all__ = ["Finding", "State", "Wishes", "carried_out", "steps_for"]

_KEPT = (Bucket.ORIGINALS, Bucket.PROTECTED)
_UPLOADED = (Bucket.ORIGINALS, Bucket.QUERIES)
STAGING = "incoming/"  # of the gateway


@dataclass(frozen=True)
class Wishes:
    """What a caller may ask for.

    Attributes:
        queries_days: after which queried images go.
        incomplete_days: after which uploads go that were not completed.
        versions_days: keep earlier versions of originals and protected files for so long; None: keep none.
        lock_days: no version of these can be deleted for so long; None: not locked.
        origins: of web pages that upload.
        notify: by bucket, the target that is told of new objects.
    """

    queries_days: int = 1
    incomplete_days: int = 1
    versions_days: int | None = None
    lock_days: int | None = None
    origins: tuple[str, ...] = ()
    notify: Mapping[str, str] = field(default_factory=dict)


class State(Enum):
    """What came of a step."""

    THERE = "there"
    MISSING = "missing"
    MADE = "made"
    NOT_OFFERED = "not offered by this server"


@dataclass(frozen=True)
class Finding:
    step: Step
    state: State

    @property
    def good(self) -> bool:
        """A rule that a server does not offer leaves files behind; what an option asked for has to be there."""
        optional = self.state is State.NOT_OFFERED and not self.step.asked_for
        return optional or self.state in (State.THERE, State.MADE)


def steps_for(settings: Settings, wishes: Wishes) -> Iterator[Step]:
    """In the order in which they are made."""
    names = {bucket: str(getattr(settings, f"bucket_{bucket.value}")) for bucket in Bucket}
    kept = [names[bucket] for bucket in _KEPT]
    for name in names.values():
        yield Exists(name, lock=bool(wishes.lock_days) and name in kept)
    for named in settings.ingest_buckets:
        yield Exists(named.partition(":")[0])
    for name in kept if wishes.versions_days or wishes.lock_days else ():
        yield Versioned(name)
    for name in kept if wishes.lock_days else ():
        yield Locked(name, wishes.lock_days or 0)
    yield from _expiry(names, kept, wishes)
    for bucket in (*_UPLOADED, Bucket.PROTECTED) if wishes.origins else ():
        yield CrossOrigin(names[bucket], wishes.origins)
    for name, target in wishes.notify.items():
        yield Notifies(name, target)


def _expiry(names: Mapping[Bucket, str], kept: list[str], wishes: Wishes) -> Iterator[ExpiryRule]:
    days = wishes.queries_days
    yield ExpiryRule(names[Bucket.QUERIES], f"expires after {_days(days)}", "aii-queries", expire_days=days)
    for bucket in _UPLOADED:
        yield ExpiryRule(names[bucket], f"{STAGING} expires after 1 day", "aii-incoming", prefix=STAGING, expire_days=1)
    for name in names.values():
        text = f"incomplete uploads expire after {_days(wishes.incomplete_days)}"
        yield ExpiryRule(name, text, "aii-incomplete", incomplete_days=wishes.incomplete_days)
    for name in kept if wishes.versions_days else ():
        text = f"superseded versions expire after {_days(wishes.versions_days or 0)}"
        yield ExpiryRule(name, text, "aii-superseded", superseded_days=wishes.versions_days, asked_for=True)


def _days(number: int) -> str:
    return "1 day" if number == 1 else f"{number} days"


def carried_out(client: Minio, endpoint: str, steps: Iterator[Step], *, make: bool) -> Iterator[Finding]:
    """Compare each step, and make what is missing if `make` says so.

    Raises:
        StorageUnavailable, StorageRefused: the server does not answer, or does not let us.
    """
    for step in steps:
        try:
            with named_errors(endpoint):
                yield Finding(step, _state(client, step, make=make))
        except NotOffered:
            yield Finding(step, State.NOT_OFFERED)


def _state(client: Minio, step: Step, *, make: bool) -> State:
    if _holds(client, step):
        return State.THERE
    if not make:
        return State.MISSING
    step.make(client)
    if _holds(client, step):
        return State.MADE
    return State.MISSING if isinstance(step, Exists) else State.NOT_OFFERED  # some accept what they do not know


def _holds(client: Minio, step: Step) -> bool:
    try:
        return step.holds(client)
    except S3Error as error:
        if is_missing(error):
            return False
        raise
