"""The result documents of a collection's activations: the record of its assets in S3, independent of Redis."""

from __future__ import annotations

from collections.abc import Callable

from pydantic import ValidationError

from tasks.assets.records import facts_of
from tasks.documents import read_document_at
from tasks.errors import ObjectMissing, TooLarge
from tasks.ledger.commits import JobFacts
from tasks.messages import Frozen
from tasks.results import ActivationResult, Result, parse_result
from tasks.storage import ObjectStore
from workers.index.codec.codec import Codes
from workers.index.collection.journal import decode_code
from workers.index.collection.manifest import Manifest
from workers.index.collection.translation import Translation

__all__ = ["Activation", "Read", "belonging", "code_in", "documents_at"]

# A document in a list; None in place of one that cannot be read; no item for one that was deleted meanwhile.
Read = list[Result | None]


class Activation(Frozen):
    """What maintenance needs of a document; the fields are those of :class:`ActivationResult`."""

    asset_id: str
    name: str
    journal_entry: str
    meta: dict[str, str]
    code: str
    codec: str | None
    feature: str | None
    job_id: str
    source_sha256: str
    protected_key: str
    protected_sha256: str
    options_sha256: str

    @classmethod
    def of(cls, result: ActivationResult) -> Activation:
        return cls(
            asset_id=result.asset_id, name=result.name, journal_entry=result.journal_entry, meta=dict(result.meta),
            code=result.code, codec=result.codec, feature=result.feature, job_id=result.job_id,
            source_sha256=result.source_sha256, protected_key=result.protected_key,
            protected_sha256=result.protected_sha256, options_sha256=facts_of(result).options_sha256,
        )  # fmt: skip

    @property
    def facts(self) -> JobFacts:
        return JobFacts(self.job_id, self.source_sha256, self.protected_key, self.protected_sha256, self.options_sha256)


def documents_at(store: ObjectStore, key: str) -> Read:
    """The document of that key, as :data:`Read` says."""
    try:
        return [parse_result(read_document_at(store, key))]
    except ObjectMissing:
        return []
    except (ValidationError, TooLarge):
        return [None]


def code_in(activation: ActivationResult | Activation, manifest: Manifest) -> tuple[Codes, str]:
    """The code (code_size,) of a document, and what names its codec; see :meth:`Translation.read`."""
    return decode_code(activation.code), manifest.tag_of(activation.codec) if activation.codec else ""


def belonging(manifest: Manifest, translation: Translation) -> Callable[[ActivationResult], bool]:
    """Whether a document is of this very collection: codes of another extractor or codec mean nothing in it."""

    def belongs(result: ActivationResult) -> bool:
        return (
            (result.collection, result.extractor) == (manifest.collection, manifest.extractor)
            and manifest.has_had(result.codec)
            and translation.fits(*code_in(result, manifest))
        )

    return belongs
