"""What requests accept, and how a job gets its name."""

from __future__ import annotations

import pytest

from tasks.errors import AiiError, InvalidAssetId, InvalidCollectionName, InvalidRequest
from tasks.messages import ActivateRequest, ActivationOptions, QueryRequest, Source, validated

SOURCE = {"sha256": "0" * 64, "size": 10}
PAYLOAD = {"task": "aii.activate", "collection": "starter", "asset_id": "a", "source": SOURCE}


def test_a_request_survives_the_queue() -> None:
    request = ActivateRequest(collection="starter", source=Source(**SOURCE), asset_id="a")
    assert validated(ActivateRequest, request.model_dump(mode="json")) == request


def test_the_job_id_follows_from_the_content() -> None:
    assert validated(ActivateRequest, PAYLOAD).job_id == validated(ActivateRequest, dict(PAYLOAD)).job_id
    assert validated(ActivateRequest, PAYLOAD).job_id != validated(ActivateRequest, PAYLOAD | {"asset_id": "b"}).job_id


def test_a_request_of_version_0_1_0_is_the_same_job_still() -> None:
    request = ActivateRequest(collection="starter", source=Source(sha256="0" * 64, size=1), asset_id="a")
    assert request.job_id == "bad37cc8232cf843b8e22f926d106b7a"
    stripped = ActivationOptions(steps=1, strip_metadata=True)
    assert request.model_copy(update={"options": stripped}).job_id == "1a018a4dfbaaffa654e4335ae06d9af6"
    rights = ActivationOptions(metadata="rights")
    assert request.model_copy(update={"options": rights}).job_id != request.job_id


def test_two_queries_for_one_image_are_two_jobs() -> None:
    one, two = (QueryRequest(collection="c", source=Source(**SOURCE), nonce=nonce) for nonce in "12")
    assert one.job_id != two.job_id


@pytest.mark.parametrize(("steps", "rate"), [(10, 1.0), (1, 10.0), (5, 2.0)])
def test_the_learning_rate_makes_up_for_fewer_steps(steps: int, rate: float) -> None:
    assert ActivationOptions(steps=steps).effective_learning_rate == rate


@pytest.mark.parametrize(
    ("change", "kind"),
    [
        ({"asset_id": "../x"}, InvalidAssetId),
        ({"asset_id": ""}, InvalidAssetId),
        ({"asset_id": "a..b"}, InvalidAssetId),
        ({"asset_id": "a" * 200}, InvalidAssetId),
        ({"asset_id": "a\n"}, InvalidAssetId),
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
