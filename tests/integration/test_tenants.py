"""Several clients of one gateway: their shares, what is noted of them, and what is taken down for good reason."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import httpx2 as httpx
import pytest

from producer import Producer
from producer.gateway.quotas import Quotas
from producer.gateway.state import State
from producer.gateway.tokens import Token
from producer.requests import Query
from tasks.names import sha256_hex
from tasks.settings import Settings
from tasks.storage import Bucket
from tests.gateway import client_of, new_token, running_gateway
from tests.photographs import crops
from tests.stack import aii
from tests.waiting import LIMIT_S

IMAGE = {"Content-Type": "image/jpeg"}


@pytest.fixture
def environment(stack_environment: dict[str, str], tmp_path: Path) -> dict[str, str]:
    return stack_environment | {"AII_GATEWAY_TOKEN_FILE": str(tmp_path / "tokens.json")}


@pytest.fixture
def address(environment: dict[str, str], tmp_path: Path) -> Iterator[str]:
    with running_gateway(environment, tmp_path / "gateway.log") as address:
        yield address


def logged(environment: dict[str, str], *options: str) -> list[dict[str, Any]]:
    shown = aii(environment, "audit", "--json", *options)
    assert shown.returncode == 0, shown.stderr
    return [json.loads(line) for line in shown.stdout.splitlines()]


def test_a_client_has_as_many_open_jobs_as_its_token_says(
    producer: Producer, environment: dict[str, str], address: str
) -> None:
    limited, free = (new_token(environment, "--scope", "submit", *more) for more in (("--open", "3"), ()))

    def submitted(client: httpx.Client, number: int) -> httpx.Response:
        return client.post("/v1/activations", content=crops(6)[number], headers=IMAGE)

    with client_of(address, limited) as client, client_of(address, free) as other:
        jobs = [submitted(client, number).json()["job_id"] for number in (0, 1, 2)]
        for body in (crops(6)[3], b"not even an image"):  # it is not read
            refused = client.post("/v1/activations", content=body, headers=IMAGE)
            assert (refused.status_code, refused.json()["code"]) == (429, "rate_limited")
            assert refused.headers["Retry-After"]
        assert submitted(other, 3).status_code == 202
        producer.cancel(jobs[1])
        assert [submitted(client, number).status_code for number in (4, 5)] == [202, 429]


@pytest.mark.usefixtures("settings")
def test_look_ups_count_as_open_jobs_and_are_noted(environment: dict[str, str], address: str) -> None:
    asked = {"vectors": [[1.0, 0.0]]}
    with client_of(address, new_token(environment, "--scope", "query", "--open", "2")) as client:
        answers = [client.post("/v1/lookups", json=asked) for _ in range(3)]
    assert [answer.status_code for answer in answers] == [202, 202, 429]
    jobs = [answer.json()["job_id"] for answer in answers[:2]]
    assert [(entry["action"], entry["job"]) for entry in logged(environment)] == [("query", job) for job in jobs]


def test_submissions_and_their_counting_leave_the_event_loop_free(settings: Settings) -> None:
    """Redis may take seconds to answer, and meanwhile all other requests of the process would wait."""
    state, counted_by = State.connect(settings), set[int]()

    class Noting(Quotas):
        def count(self, token: Token, job_id: str) -> None:
            counted_by.add(threading.get_ident())
            super().count(token, job_id)

    noting = dataclasses.replace(state, quotas=Noting(state.redis, state.ledger))
    token = Token(name="shop", sha256="0" * 64, scopes=frozenset({"query"}), open_jobs=9)

    async def submitted() -> list[str]:
        image = await state.store.keep(Bucket.QUERIES, _chunks(crops(1)[0]), 2**20)
        jobs = [await noting.look_up(token, [[1.0, 0.0]], {}), await noting.submit(token, Query(image))]
        await state.close()
        return [job.job_id for job in jobs]

    assert len(set(asyncio.run(submitted()))) == 2
    assert counted_by
    assert threading.get_ident() not in counted_by


async def _chunks(data: bytes) -> AsyncIterator[bytes]:
    yield data


@pytest.mark.usefixtures("settings")
def test_what_clients_do_is_noted_in_order(environment: dict[str, str], address: str) -> None:
    made = aii(environment, "tokens", "add", "shop", "--scope", "admin").stdout.strip()
    other = new_token(environment, "--scope", "query")
    with client_of(address, made) as client, client_of(address, other) as second:
        job = client.post("/v1/activations?asset_id=a", content=(photo := crops(7)[6]), headers=IMAGE).json()["job_id"]
        second.post("/v1/queries", content=photo, headers=IMAGE)
        assert client.post("/v1/queries", content=b"", headers=IMAGE).status_code == 400  # nothing was submitted
    first, query = logged(environment)
    entry = {"who": "shop", "action": "activate", "collection": "starter", "asset": "a", "job": job}
    assert entry | {"detail": sha256_hex(photo)} == {name: first[name] for name in (*entry, "detail")}
    assert (query["action"], query["who"]) == ("query", query["who"])
    assert logged(environment, "--after", first["entry"]) == [query]
    assert logged(environment, "--who", "shop") == [first]
    assert aii(environment, "audit", "--after", "yesterday").returncode == 1
    assert len(aii(environment, "audit").stdout.splitlines()) == 2


@pytest.mark.usefixtures("shared_worker")
def test_an_image_is_taken_down_wherever_it_is(
    producer: Producer, environment: dict[str, str], address: str, tmp_path: Path
) -> None:
    photo, another = crops(2, side=117)  # no other test's
    results = [producer.activate(photo, asset_id=name).wait(LIMIT_S) for name in ("one", "two")]
    results.append(producer.activate(photo).wait(LIMIT_S))
    producer.activate(another, asset_id="taken-down-too").wait(LIMIT_S)
    (file := tmp_path / "photo.jpg").write_bytes(photo)

    listed = aii(environment, "takedown", str(file), "--dry-run")
    names = ["one", "two", sha256_hex(photo)]
    assert sorted(listed.stdout.split()) == sorted([*names, *["starter"] * 3]), listed.stderr
    with client_of(address, new_token(environment, "--scope", "remove", "--collection", "other")) as client:
        assert client.post("/v1/takedowns", json={"sha256": sha256_hex(photo)}).json() == {"removed": []}
    assert aii(environment, "takedown", sha256_hex(another)).stdout == "starter\ttaken-down-too\n"
    with client_of(address, new_token(environment, "--scope", "admin")) as client:
        removed = client.post("/v1/takedowns", json={"sha256": results[0].protected_sha256}).json()["removed"]
        assert sorted(one["asset_id"] for one in removed) == sorted(names)
        assert client.post("/v1/takedowns", json={"sha256": "../x"}).status_code == 400
        assert {client.get(f"/v1/assets/{name}").status_code for name in (*names, "taken-down-too")} == {404}
    taken = [entry["asset"] for entry in logged(environment) if entry["action"] == "takedown"]
    assert sorted(taken) == sorted([*names, "taken-down-too"])
    assert aii(environment, "takedown", sha256_hex(photo)).stdout == ""
    assert aii(environment, "takedown", str(tmp_path / "missing")).returncode == 1
