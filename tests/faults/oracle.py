"""One oracle for all faults, which reads Redis and S3 as they are and asks none of the code under test.

Each accepted job ends with exactly one document. If that is good, the protected file has the document's digest, and the
asset's current entry is that of its newest document: in the journal, or in the segments once a compaction moved it; and
in its record in S3.
"""

from __future__ import annotations

import json
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, field
from pathlib import Path

from tasks.assets.records import AssetRecords
from tasks.connection import connect_redis
from tasks.documents import document_keys, read_document_at
from tasks.errors import AiiError
from tasks.ledger.states import JobState
from tasks.names import journal_stream, sha256_hex
from tasks.results import ActivationResult, FailureResult, Result, parse_result
from tasks.settings import Settings
from tasks.storage import Bucket, ObjectStore
from workers.index.codec.codec import Codec
from workers.index.collection.files import CollectionStore
from workers.index.collection.journal import encode_code, entry_order
from workers.index.collection.segments import open_segments

__all__ = ["Verdict", "judge"]

_LARGEST = 64 * 2**20


@dataclass
class Verdict:
    """What became of the accepted jobs.

    Attributes:
        jobs: how many were accepted.
        lost: those that have not ended, or ended without a document.
        inconsistent: what contradicts what, in words.
        failed: how many ended as failed, by error code.
    """

    jobs: int
    lost: list[str] = field(default_factory=list)
    inconsistent: list[str] = field(default_factory=list)
    failed: Counter[str] = field(default_factory=Counter)


def judge(settings: Settings, job_ids: Sequence[str], cache: Path) -> Verdict:
    """Look at every trace of these jobs; segments are downloaded to `cache`."""
    return _Judge(settings, cache).verdict(job_ids)


class _Judge:
    def __init__(self, settings: Settings, cache: Path) -> None:
        self._settings = settings
        self._store = ObjectStore.connect(settings)
        self._cache = cache

    def verdict(self, job_ids: Sequence[str]) -> Verdict:
        verdict = Verdict(len(set(job_ids)))
        states = self._states(job_ids)
        good: list[ActivationResult] = []
        for job_id, keys in self._documents(job_ids).items():
            if not keys or states[job_id] not in (JobState.DONE, JobState.FAILED):
                verdict.lost.append(f"{job_id} is {states[job_id]}, with {len(keys)} documents")
                continue
            if len(keys) > 1:
                verdict.inconsistent.append(f"{job_id} has the documents {', '.join(keys)}")
            document = parse_result(read_document_at(self._store, keys[0]))
            verdict.inconsistent += self._contradictions(job_id, states[job_id], document)
            if isinstance(document, FailureResult):
                verdict.failed[document.code] += 1
            elif isinstance(document, ActivationResult):
                good.append(document)
        verdict.inconsistent += self._index(good)
        return verdict

    def _states(self, job_ids: Sequence[str]) -> dict[str, str | None]:
        with connect_redis(self._settings) as client:
            pipe = client.pipeline(transaction=False)
            for job_id in job_ids:
                pipe.hget(f"aii:job:{job_id}", "state")
            return dict(zip(job_ids, pipe.execute(), strict=True))

    def _documents(self, job_ids: Sequence[str]) -> dict[str, list[str]]:
        """The keys of each job's documents."""
        found: dict[str, list[str]] = {job_id: [] for job_id in job_ids}
        for key in document_keys(self._store):
            if (job_id := re.split("[./]", key)[0]) in found:
                found[job_id].append(key)
        return found

    def _contradictions(self, job_id: str, state: str | None, document: Result) -> Iterable[str]:
        failed = isinstance(document, FailureResult)
        if document.job_id != job_id:
            yield f"the document of {job_id} is of {document.job_id}"
        if failed != (state == JobState.FAILED):
            yield f"{job_id} is {state} and its document says {document.status}"
        if isinstance(document, ActivationResult):
            yield from self._file(document)

    def _file(self, document: ActivationResult) -> Iterable[str]:
        try:
            data = self._store.get(Bucket.PROTECTED, document.protected_key, _LARGEST)
        except AiiError as error:
            yield f"{document.protected_key} of {document.job_id}: {error.code}"
            return
        if sha256_hex(data) != document.protected_sha256:
            yield f"{document.protected_key} is not what the document of {document.job_id} says"

    def _index(self, documents: Sequence[ActivationResult]) -> Iterable[str]:
        """Whether the index holds, for each asset, what its newest document says, and nothing twice."""
        by_collection: dict[str, dict[str, list[ActivationResult]]] = defaultdict(lambda: defaultdict(list))
        for document in sorted(documents, key=lambda d: entry_order(d.journal_entry)):
            by_collection[document.collection][document.asset_id].append(document)
        for name, by_asset in by_collection.items():
            yield from self._collection(name, by_asset)

    def _collection(self, name: str, by_asset: Mapping[str, Sequence[ActivationResult]]) -> Iterable[str]:
        with connect_redis(self._settings) as client:
            registered = Counter(fields.get("asset") for _, fields in client.xrange(journal_stream(name)))
            live = client.hgetall(f"{journal_stream(name)}:live")
        codes = self._segment_codes(name, set(by_asset) - set(live))
        for asset, documents in by_asset.items():
            if registered[asset] > len(documents):
                yield f"{asset} was registered {registered[asset]} times, and has {len(documents)} documents"
            if asset in live:
                yield from _against_journal(live[asset], documents[-1])
            elif codes.get(asset) != documents[-1].code:
                yield f"neither journal nor segments hold the code of {asset}"
            yield from self._record(documents[-1])

    def _record(self, document: ActivationResult) -> Iterable[str]:
        """An asset's newest record in S3, which counts when Redis was lost."""
        record = AssetRecords(self._store, document.collection).newest(document.asset_id)
        said = record and (record.job_id, record.protected_sha256, record.journal_entry)
        if said != (document.job_id, document.protected_sha256, document.journal_entry):
            yield f"the record of {document.asset_id} is of {said}, not of {document.job_id}"

    def _segment_codes(self, name: str, assets: Set[str]) -> dict[str, str]:
        """The codes that the current generation's segments hold of some assets."""
        codes: dict[str, str] = {}
        if assets:
            files = CollectionStore(self._store, name, self._cache)
            manifest = files.current()
            codec = Codec.read(files.fetch(manifest.codec), manifest.factory)
            for segment in open_segments(files, manifest, codec):
                all_codes = segment.codes
                codes |= {segment.assets[row]: encode_code(all_codes[row]) for row in segment.find(assets).tolist()}
        return codes


def _against_journal(current: str, document: ActivationResult) -> Iterable[str]:
    """An asset's current entry is ``entry op code meta``, and in a second line the job and the file that it is of."""
    change, _, facts = current.partition("\n")
    entry, op, code, *_ = change.split(" ")
    if (op, entry, code) != ("add", document.journal_entry, document.code):
        yield f"the current entry of {document.asset_id} is not that of {document.job_id}"
    if facts:
        said = json.loads(facts)
        if (said["job"], said["sha256"]) != (document.job_id, document.protected_sha256):
            yield f"the current entry of {document.asset_id} names another job or file than {document.job_id}"
