"""The schemas and the test vectors that other languages rely on."""

from __future__ import annotations

import json
from typing import Any

import pytest
import rfc8785
from pydantic import Field

from tasks import identity
from tasks.errors import AiiError
from tasks.kinds import KINDS
from tasks.ledger.events import JobEvent
from tasks.ledger.states import JobState
from tasks.messages import ActivateRequest, ActivationOptions, QueryOptions, QueryRequest, Request, validated
from tasks.names import sha256_hex
from tasks.schemas import FOLDER, schemas

VECTORS: list[dict[str, Any]] = json.loads((FOLDER / "vectors.json").read_text(encoding="utf-8"))
MODELS = {kind.task: kind.request for kind in KINDS}
TITLES = {kind.task: kind.title for kind in KINDS}


def validator_of(schema: dict[str, Any]) -> Any:
    """Checks documents; a schema that is none itself is refused."""
    from jsonschema import Draft202012Validator  # noqa: PLC0415  # takes two seconds, of each process of tests

    Draft202012Validator.check_schema(schema)
    return Draft202012Validator(schema)


def request_of(vector: dict[str, Any]) -> Request:
    return validated(MODELS[vector["request"]["task"]], vector["request"])


def test_the_schemas_are_those_of_the_models() -> None:
    shipped = {path.stem for path in FOLDER.glob("*.json")} - {"vectors"}
    assert shipped == set(schemas()), "run `python -m tasks.schemas`"
    for name, schema in schemas().items():
        validator_of(schema)
        assert json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8")) == schema, name


@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: vector["what"])
def test_a_vectors_request_has_the_id_beside_it_also_after_it_was_sent(vector: dict[str, Any]) -> None:
    request = request_of(vector)
    assert request.job_id == vector["job_id"]
    assert validated(type(request), json.loads(json.dumps(request.message()))) == request


def test_the_ids_of_the_first_release_of_this_schema_are_as_they_were() -> None:
    ids = "".join(vector["job_id"] for vector in VECTORS[:19])
    assert sha256_hex(ids.encode()) == "f8783e6085982c846efdf3435b84f7282e1fc1557c6828dd13d9837f2643d1a9", (
        "a job id changed: earlier requests would be done again"
    )


def test_a_query_that_says_how_many_cells_to_search_is_another_than_one_that_leaves_it_to_the_collection() -> None:
    asked = {"task": "aii.query", "collection": "starter", "source": {"sha256": "0" * 64}, "nonce": "1"}
    said = [validated(QueryRequest, asked | {"options": options}) for options in ({}, {"nprobe": 1}, {"nprobe": 16})]
    assert len({request.job_id for request in said}) == 3
    assert said[0].message().get("options", {}).get("nprobe") is None


@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: vector["what"])
def test_the_schema_takes_what_the_model_takes(vector: dict[str, Any]) -> None:
    validator = validator_of(schemas()[f"{TITLES[vector['request']['task']]}-request"])
    validator.validate(vector["request"])
    validator.validate(request_of(vector).message())
    assert not validator.is_valid(vector["request"] | {"surprise": 1})
    assert not validator.is_valid(vector["request"] | {"schema_version": 3})


def test_an_option_that_is_added_later_changes_no_id() -> None:
    class LaterActivation(ActivationOptions):
        sharpen: float = Field(default=0.5, ge=0)

    class LaterQuery(QueryOptions):
        rerank: bool = False

    class LaterActivate(ActivateRequest):
        options: LaterActivation = LaterActivation()
        priority: int = 0

    class LaterQueryRequest(QueryRequest):
        options: LaterQuery = LaterQuery()

    later = {"aii.activate": LaterActivate, "aii.query": LaterQueryRequest}
    for vector in (v for v in VECTORS if v["request"]["task"] in later):
        request = validated(later[vector["request"]["task"]], vector["request"])
        assert request.job_id == vector["job_id"], vector["what"]
    other = validated(LaterActivate, VECTORS[0]["request"] | {"options": {"sharpen": 1}})
    assert other.job_id != VECTORS[0]["job_id"]


def test_an_id_is_what_the_documents_say_it_is() -> None:
    """Step by step as in tasks/README.md, without our code."""
    said = {"collection": "starter", "schema_version": 2, "source": {"sha256": "0" * 64}, "task": "aii.activate"}
    text = '{"collection":"starter","schema_version":2,"source":{"sha256":"' + "0" * 64 + '"},"task":"aii.activate"}'
    assert rfc8785.dumps(said) == text.encode()
    assert VECTORS[0]["job_id"] == sha256_hex(text.encode())[:32]
    assert identity.SCHEMA_VERSION == 2


def test_an_event_is_as_its_schema_says() -> None:
    event = JobEvent(
        entry="1700000000000-0", event_id="e", source="/aii/ledger", type="aii.job.done", subject="s",
        state=JobState.DONE, task="aii.activate", document=1, place=3, error_code="",
    )  # fmt: skip
    validator_of(schemas()["event"]).validate(event.cloud_event())


def test_what_the_model_refuses_of_numbers_and_texts_the_schema_refuses_too() -> None:
    validator = validator_of(schemas()["activate-request"])
    for change in ({"options": {"steps": 0}}, {"options": {"attenuation": "x"}}, {"source": {"sha256": "x"}}):
        payload = VECTORS[0]["request"] | change
        assert not validator.is_valid(payload)
        with pytest.raises(AiiError):
            validated(ActivateRequest, payload)
