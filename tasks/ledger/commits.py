"""What a worker asks of the ledger when it commits a job: see :meth:`tasks.ledger.ledger.Ledger.commit`."""

from __future__ import annotations

from dataclasses import dataclass

from tasks.errors import AssetConflict
from tasks.names import canonical_json

__all__ = [
    "AssetState",
    "Commit",
    "JobFacts",
    "Registration",
    "Seen",
    "conflict_of",
    "joined_code",
    "registration_args",
    "seen_args",
    "split_code",
]


@dataclass(frozen=True)
class AssetState:
    """Which journal entry an asset's current state is, by which job, from which image, and which file it is; "" where
    that is unknown."""

    entry: str
    job_id: str = ""
    source_sha256: str = ""
    protected_key: str = ""
    protected_sha256: str = ""


@dataclass(frozen=True)
class Seen:
    """An asset's current state, None when it is not registered, at a number of the journal's `announcements` and of the
    asset's `purges`, in an `incarnation` of the collection: a random name, "" in one of an earlier version."""

    announcements: str
    state: AssetState | None
    purges: str = "0"
    incarnation: str = ""


@dataclass(frozen=True)
class JobFacts:
    """What a journal entry names besides the code: the job that made it, its source, options and protected file."""

    job_id: str
    source_sha256: str
    protected_key: str
    protected_sha256: str
    options_sha256: str

    def text(self) -> str:
        """As the journal holds them."""
        return canonical_json(
            {
                "job": self.job_id, "source": self.source_sha256, "key": self.protected_key,
                "sha256": self.protected_sha256, "options": self.options_sha256,
            }
        ).decode()  # fmt: skip


@dataclass(frozen=True)
class Registration:
    """An asset as it is written into the journal of a collection: code as base64, followed by its stored feature where
    the collection keeps features, and the codec where it has had several (see :func:`joined_code`); metadata as JSON
    without line breaks."""

    collection: str
    asset_id: str
    code: str
    meta: str
    facts: JobFacts
    replace: bool = False


def joined_code(code: str, feature: str | None, codec: str = "") -> str:
    """A code and a stored feature, both base64, as the journal holds them, and which codec the code is of: "" for the
    collection's first."""
    return ".".join([code, feature or "", codec]).rstrip(".")


def split_code(text: str) -> tuple[str, str | None, str]:
    """The code, the stored feature and the codec in such a text."""
    code, _, rest = text.partition(".")
    feature, _, codec = rest.partition(".")
    return code, feature or None, codec


@dataclass(frozen=True)
class Commit:
    """A committed end of a job: its document, word for word, and its number."""

    document: bytes
    number: int


def registration_args(registration: Registration | None) -> list[str]:
    """A registration as the script that commits takes it."""
    if registration is None:
        return [""] * 6
    facts = registration.facts
    parts = [registration.asset_id, registration.code, registration.meta, facts.text()]
    return [*parts, facts.source_sha256, "1" if registration.replace else ""]


def seen_args(seen: Seen | None) -> list[str]:
    """What a caller saw, as the script that commits takes it."""
    state = seen.state if seen else None
    before = [state.entry, state.job_id, state.source_sha256] if state else ["", "", ""]
    return [seen.announcements, *before, seen.purges, seen.incarnation] if seen else ["", *before, "", ""]


def conflict_of(asset_id: str, source_sha256: str, job_id: str) -> AssetConflict:
    """The refusal to register another source under an asset id that is taken."""
    by = f" (job {job_id})" if job_id else ""
    return AssetConflict(
        f"Asset {asset_id!r} is another image, of sha256 {source_sha256[:16]}…{by}: use another asset id, or let this "
        "image take its place with replace=True (`aii activate --replace`)."
    )
