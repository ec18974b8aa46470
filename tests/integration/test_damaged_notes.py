"""What each reader of small notes in S3 does about one that is damaged: that never passes for "there is none"."""

from __future__ import annotations

import base64
import uuid
from pathlib import Path

import pytest

from tasks.assets.manifests import ManifestNote, Manifests, binding_value
from tasks.assets.notes import read_note
from tasks.assets.protected_digests import ProtectedDigests
from tasks.assets.records import AssetRecord, AssetRecords
from tasks.assets.takedown import AssetName, SourceDigests, Takedown
from tasks.errors import AlreadyProtected, CorruptSegment
from tasks.ledger.commits import JobFacts
from tasks.names import sha256_hex
from tasks.results import ActivationResult, KeptManifest
from tasks.storage import Bucket, ObjectStore
from tests.collections import Place, made_activation, unit_vectors
from tests.gateway import client_of, new_token, running_gateway
from tests.stack import aii


@pytest.fixture
def source() -> str:
    """The digest of an image that no other test has."""
    return sha256_hex(uuid.uuid4().bytes)


def activated(place: Place, asset_id: str, source: str) -> ActivationResult:
    """An asset that was activated from these bytes, with everything that is noted of it."""
    codec = place.open().codec
    code, protected = codec.encode(unit_vectors(1, 3))[0], sha256_hex(f"{source} {asset_id}".encode())
    facts = JobFacts(f"job-of-{asset_id}", source, "none", protected, "0" * 64)
    entry = place.journal.add(asset_id, code, {}, facts=facts)
    manifest = KeptManifest(manifest_id=f"urn:c2pa:{protected[:32]}", sha256="e" * 64, signed=False)
    result = made_activation(place.name, place.files.current().codec, asset_id, code, entry, {}).model_copy(
        update={"source_sha256": source, "protected_sha256": protected, "manifest": manifest, "job_id": facts.job_id}
    )
    for notes in (SourceDigests(place.store), ProtectedDigests(place.store), Manifests(place.store)):
        notes.note(result)
    return result


def damage(store: ObjectStore, key: str, bucket: Bucket = Bucket.PROTECTED) -> None:
    assert store.exists(bucket, key)
    store.put(bucket, key, b'{"collection"', "application/json")


def source_note(store: ObjectStore, name: AssetName, source: str) -> str:
    digests = SourceDigests(store)
    return next(key for key in digests.keys(source) if digests.asset(key) == name)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"null", b'{"manifest_id": 1}', b"\xff", b" " * (2**20 + 1)])
def test_what_is_no_note_is_damaged_and_what_is_missing_is_none(store: ObjectStore, content: bytes) -> None:
    key = f"c2pa/ids/{uuid.uuid4().hex}.json"
    assert read_note(store, Bucket.PROTECTED, key, ManifestNote, "remedy") is None
    store.put(Bucket.PROTECTED, key, content, "application/json")
    with pytest.raises(CorruptSegment, match=f"{key} .* is damaged: remedy"):
        read_note(store, Bucket.PROTECTED, key, ManifestNote, "remedy")


def test_a_takedown_removes_the_others_and_tells_of_a_damaged_note(
    place: Place, source: str, stack_environment: dict[str, str]
) -> None:
    for asset_id in ("read", "unread"):
        activated(place, asset_id, source)
    key = source_note(place.store, AssetName(place.name, "unread"), source)
    damage(place.store, key)
    done = aii(stack_environment, "takedown", source, "0" * 64)
    assert (done.returncode, done.stdout) == (1, f"{place.name}\tread\n")
    assert key in done.stderr
    assert "More assets may be of this image" in done.stderr
    assert aii(stack_environment, "takedown", source, "--dry-run").returncode == 1
    place.store.delete(Bucket.PROTECTED, key)
    done = aii(stack_environment, "takedown", source)
    assert (done.returncode, done.stderr) == (0, f"No asset is registered of the image {source}.\n")
    activated(place, "again", source)
    assert aii(stack_environment, "takedown", source.upper()).stdout == f"{place.name}\tagain\n"


def test_a_takedown_over_http_that_may_be_incomplete_is_no_success(
    place: Place, source: str, stack_environment: dict[str, str], tmp_path: Path
) -> None:
    names = [AssetName(place.name, activated(place, asset_id, source).asset_id) for asset_id in ("read", "unread")]
    damage(place.store, key := source_note(place.store, names[1], source))
    environment = stack_environment | {"AII_GATEWAY_TOKEN_FILE": str(tmp_path / "tokens.json")}
    token = new_token(environment, "--scope", "remove")
    with running_gateway(environment, log := tmp_path / "gateway.log") as address, client_of(address, token) as client:
        answer = client.post("/v1/takedowns", json={"sha256": source})
    problem = answer.json()
    assert (answer.status_code, problem["code"]) == (500, "corrupt_segment")
    assert "Assets removed: 1." in problem["detail"]
    assert place.name not in problem["detail"]
    assert key in log.read_text()
    assert Takedown(place.redis, place.store).find(source).assets == []


@pytest.mark.parametrize("which", ["protected", "record"])
def test_a_takedown_tells_of_any_note_that_it_needs(place: Place, source: str, which: str) -> None:
    result = activated(place, "one", source)
    if which == "protected":
        damage(place.store, key := f"digests/{result.protected_sha256}.json")
        found = Takedown(place.redis, place.store).find(result.protected_sha256)
    else:
        place.files.assets.put(AssetRecord.of(result, 1))
        damage(place.store, key := f"{place.name}/assets/one/{result.journal_entry}.json", Bucket.COLLECTIONS)
        place.redis.flushdb()  # the journal would know the asset
        found = Takedown(place.redis, place.store).find(source)
    assert found.assets == []
    with pytest.raises(CorruptSegment, match=key):
        found.check()


def test_a_damaged_record_is_never_an_asset_without_one(place: Place, source: str) -> None:
    result = activated(place, "one", source)
    records = AssetRecords(place.store, place.name)
    records.put(AssetRecord.of(result, 1))
    damage(place.store, f"{place.name}/assets/one/{result.journal_entry}.json", Bucket.COLLECTIONS)
    with pytest.raises(CorruptSegment):
        records.newest("one")
    with pytest.raises(CorruptSegment):
        list(records.all())


def test_a_damaged_note_of_a_protected_file_refuses_it_still(place: Place, source: str) -> None:
    result, digests = activated(place, "one", source), ProtectedDigests(place.store)
    damage(place.store, key := f"digests/{result.protected_sha256}.json")
    with pytest.raises(AlreadyProtected, match=key):
        digests.refuse(result.protected_sha256)
    with pytest.raises(CorruptSegment, match=key):
        digests.asset_of(result.protected_sha256)
    digests.forget(result.protected_sha256, result.job_id)  # its file is deleted
    assert digests.asset_of(result.protected_sha256) is None


def test_a_damaged_note_of_a_manifest_is_told_and_written_anew(place: Place, source: str) -> None:
    result, manifests = activated(place, "one", source), Manifests(place.store)
    assert result.manifest
    named, value = result.manifest.manifest_id, binding_value(place.name, base64.b64decode(result.code))
    folder = f"c2pa/bindings/{sha256_hex(value.encode())}/"
    for key in (f"c2pa/ids/{sha256_hex(named.encode())}.json", *place.store.list_keys(Bucket.PROTECTED, folder)):
        damage(place.store, key)
    with pytest.raises(CorruptSegment):
        manifests.named(named)
    with pytest.raises(CorruptSegment):
        list(manifests.bound(value))
    manifests.note(result)
    assert [note.asset_id for note in (manifests.named(named), *manifests.bound(value))] == ["one", "one"]
