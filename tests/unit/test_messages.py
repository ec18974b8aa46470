"""What requests accept, and how a job gets its name."""

from __future__ import annotations

import re

import pytest

from tasks.errors import AiiError, InvalidAssetId, InvalidCollectionName, InvalidRequest
from tasks.messages import ActivateRequest, ActivationOptions, QueryRequest, Source, validated
from tasks.names import asset_key, protected_key

SOURCE = {"sha256": "0" * 64, "size": 10}
PAYLOAD = {"task": "aii.activate", "collection": "starter", "asset_id": "a", "source": SOURCE}


def test_a_request_survives_the_queue() -> None:
    request = ActivateRequest(collection="starter", source=Source(**SOURCE), asset_id="a")
    assert validated(ActivateRequest, request.message()) == request


def test_the_job_id_follows_from_the_content() -> None:
    assert validated(ActivateRequest, PAYLOAD).job_id == validated(ActivateRequest, dict(PAYLOAD)).job_id
    assert validated(ActivateRequest, PAYLOAD).job_id != validated(ActivateRequest, PAYLOAD | {"asset_id": "b"}).job_id


def activation(**said: object) -> ActivateRequest:
    return validated(ActivateRequest, PAYLOAD | said)


def test_an_activation_knows_the_id_that_version_0_1_0_gave_it() -> None:
    request = activation(source={"sha256": "0" * 64, "size": 1})
    assert request.version_1_id == "bad37cc8232cf843b8e22f926d106b7a"
    stripped = request.model_copy(update={"options": ActivationOptions(steps=1, strip_metadata=True)})
    assert stripped.version_1_id == "1a018a4dfbaaffa654e4335ae06d9af6"
    assert activation(idempotency_key="mine").version_1_id is None
    assert activation(source={"bucket": "inbox", "key": "a.jpg"}).version_1_id is None


def test_what_is_a_default_anyway_makes_no_other_job() -> None:
    said = activation(options={"steps": 10, "alpha": 3, "learning_rate": None}, meta={}, nonce="", schema_version=2)
    assert said.job_id == activation().job_id
    assert activation(asset_id="0" * 64).job_id == activation(asset_id=None).job_id
    assert activation(source={"sha256": "0" * 64}).job_id == activation().job_id
    assert activation(options={"alpha": 4}).job_id == activation(options={"alpha": 4.0}).job_id != activation().job_id
    assert activation(meta={"a": ""}).job_id != activation().job_id


def test_an_idempotency_key_names_the_job_of_its_task() -> None:
    one, other = activation(idempotency_key="k"), activation(idempotency_key="k", asset_id="other")
    query = QueryRequest(collection="starter", source=Source(**SOURCE), idempotency_key="k")
    assert one.job_id == other.job_id != query.job_id
    assert activation(idempotency_key="l").job_id != one.job_id


def test_a_message_of_another_schema_is_refused_by_name() -> None:
    with pytest.raises(InvalidRequest, match="schema_version"):
        activation(schema_version=3)


def test_a_files_name_and_leave_to_replace_make_no_other_job_and_are_sent_only_when_they_say_something() -> None:
    said = activation(name="photo.jpg", replace=True)
    assert said.job_id == activation().job_id
    assert {"name", "replace"}.isdisjoint(activation().message())
    assert validated(ActivateRequest, said.message()) == said


@pytest.mark.parametrize("key", ["", "a//b", "/a", "a/../b", "a\nb", "x" * 1025])
def test_a_key_that_no_object_can_have_is_refused(key: str) -> None:
    with pytest.raises(AiiError):
        activation(source={"bucket": "inbox", "key": key})


def test_a_name_is_kept_as_far_as_it_can_be_shown() -> None:
    assert validated(ActivateRequest, PAYLOAD | {"name": "a\n\udcffb.jpg"}).name == "a\ufffd\ufffdb.jpg"
    assert validated(ActivateRequest, PAYLOAD | {"name": "x" * 300 + ".jpg"}).name == "x" * 251 + ".jpg"


ARCHIVE_IDS = (
    "urn:newsml:afp.com:20260101:1",
    "folder/img 1.jpg",
    "写真 17",
    "../x",
    "a..b",
    "_a",
    "a" * 200,
    "Ä",
    "-",
)


@pytest.mark.parametrize("asset_id", ARCHIVE_IDS)
def test_an_asset_id_may_be_what_archives_use_and_its_key_stays_in_its_folder(asset_id: str) -> None:
    request = validated(ActivateRequest, PAYLOAD | {"asset_id": asset_id})
    assert request.asset_id == asset_id
    key = protected_key("starter", asset_id, "0" * 64, "jpg")
    assert re.fullmatch(r"starter/assets/_[A-Za-z0-9-]{1,73}/0{64}\.jpg", key)


def test_two_assets_never_share_a_key_and_old_ids_keep_theirs() -> None:
    assert len({asset_key(asset_id) for asset_id in ARCHIVE_IDS}) == len(ARCHIVE_IDS)
    assert [asset_key(asset_id) for asset_id in ("photo-17", "a.jpg", "0" * 64)] == ["photo-17", "a.jpg", "0" * 64]
    assert asset_key("a/b") != asset_key("a b")


def test_one_asset_id_in_two_unicode_forms_is_one_asset() -> None:
    composed, decomposed = (validated(ActivateRequest, PAYLOAD | {"asset_id": text}) for text in ("\u00c4", "A\u0308"))
    assert composed.job_id == decomposed.job_id


def test_two_queries_for_one_image_are_two_jobs() -> None:
    one, two = (QueryRequest(collection="c", source=Source(**SOURCE), nonce=nonce) for nonce in "12")
    assert one.job_id != two.job_id


@pytest.mark.parametrize(("steps", "rate"), [(10, 1.0), (1, 10.0), (5, 2.0)])
def test_the_learning_rate_makes_up_for_fewer_steps(steps: int, rate: float) -> None:
    assert ActivationOptions(steps=steps).effective_learning_rate == rate


@pytest.mark.parametrize(
    ("change", "kind"),
    [
        ({"asset_id": ""}, InvalidAssetId),
        ({"asset_id": "a" * 513}, InvalidAssetId),
        ({"asset_id": "a\n"}, InvalidAssetId),
        ({"asset_id": " a"}, InvalidAssetId),
        ({"asset_id": "a\x00b"}, InvalidAssetId),
        ({"asset_id": "a\u2028b"}, InvalidAssetId),
        ({"asset_id": "\ud800"}, InvalidAssetId),
        ({"collection": "A/b"}, InvalidCollectionName),
        ({"source": {"sha256": "xyz", "size": 1}}, InvalidRequest),
        ({"options": {"steps": 10**6}}, InvalidRequest),
        ({"options": {"alpha": float("nan")}}, InvalidRequest),
        ({"surprise": 1}, InvalidRequest),
    ],
)
def test_a_field_that_cannot_be_used_is_refused_by_name(change: dict[str, object], kind: type[AiiError]) -> None:
    with pytest.raises(kind):
        validated(ActivateRequest, PAYLOAD | change)


@pytest.mark.parametrize("payload", [None, [], "text", 3])
def test_what_is_no_object_is_refused(payload: object) -> None:
    with pytest.raises(InvalidRequest):
        validated(ActivateRequest, payload)


def test_a_changed_copy_of_a_request_is_another_job() -> None:
    request = ActivateRequest(collection="starter", source=Source(sha256="0" * 64, size=4))
    assert request.job_id != request.model_copy(update={"nonce": "again"}).job_id
