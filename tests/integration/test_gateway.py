"""The HTTP gateway, as a client in any language meets it."""

from __future__ import annotations

import asyncio
import hashlib
import itertools
import json
import os
import socket
import subprocess
import sys
import uuid
from collections.abc import Iterator
from contextlib import aclosing
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from urllib.parse import urlsplit

import httpx2 as httpx
import pytest
from fastapi.testclient import TestClient
from pydantic import SecretStr

from producer.gateway.app import create_gateway
from producer.gateway.fetch import Fetcher
from producer.gateway.tokens import TokenFile
from tasks.connection import connect_redis
from tasks.errors import SourceUnavailable, kinds
from tasks.ledger.keys import job_key
from tasks.settings import Settings
from tasks.storage import Bucket, ObjectStore
from tests.gateway import client_of, dripping_server, new_token, running_gateway
from tests.photographs import crops
from tests.ports import reserved_port
from tests.stack import aii
from workers.index.maintenance import starter

_IMAGES = itertools.count()
SMALL_LIMIT = 6 * 2**20  # more than the part of an image that the gateway holds in memory
WAIT = {"Prefer": "wait=300"}


@pytest.fixture(scope="module")
def host() -> Iterator[str]:
    """A web server with an image, and with traps; yields its HOST:PORT."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Web)
    Thread(target=server.serve_forever, daemon=True).start()
    yield f"127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


class _Web(BaseHTTPRequestHandler):
    image = crops(1, side=128)[0]

    def do_GET(self) -> None:
        sizes = {"/image": len(self.image), "/huge": 10**12}
        if self.path == "/away":
            self.send_response(302)
            self.send_header("Location", "http://localhost:1/")
        elif self.path == "/nowhere":
            self.send_response(302)
            self.send_header("Location", "http://[")
        elif self.path in sizes:
            self.send_response(200)
            self.send_header("Content-Length", str(sizes[self.path]))
        else:
            self.send_response(503 if self.path == "/broken" else 404)
        self.end_headers()
        if self.path == "/image":
            self.wfile.write(self.image)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(scope="module")
def environment(
    stack_environment: dict[str, str], host: str, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, str]:
    return stack_environment | {
        "AII_MAX_IMAGE_BYTES": str(SMALL_LIMIT),
        "AII_GATEWAY_TOKEN_FILE": str(tmp_path_factory.mktemp("tokens") / "tokens.json"),
        "AII_GATEWAY_URL_HOSTS": f"{host},localhost,*.example.test",
        "AII_GATEWAY_URL_NETWORKS": "127.0.0.0/8",
        "AII_GATEWAY_MAX_WAIT_S": "300",
    }


@pytest.fixture(scope="module")
def address(environment: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with running_gateway(environment, tmp_path_factory.mktemp("gateway") / "gateway.log") as address:
        yield address


@pytest.fixture
def client(settings: Settings, environment: dict[str, str], address: str) -> Iterator[httpx.Client]:
    """A client that may do everything."""
    with client_of(address, new_token(environment, "--scope", "admin")) as client:
        yield client


@pytest.fixture
def image() -> bytes:
    """A photograph that no other test uses."""
    number = next(_IMAGES)
    return crops(number + 1, side=160)[number]


def code_of(answer: httpx.Response) -> str:
    assert answer.headers["content-type"] == "application/problem+json"
    return str(answer.json()["code"])


@pytest.mark.usefixtures("shared_worker")
def test_an_image_is_protected_found_fetched_and_removed(client: httpx.Client, image: bytes) -> None:
    done = client.post("/v1/activations?asset_id=a%2Fb&name=a.jpg", content=image, headers=WAIT | IMAGE)
    assert done.status_code == 200, done.text
    assert done.json()["result"]["name"] == "a.jpg"
    asset = client.get("/v1/assets/a%2Fb").json()
    protected = httpx.get(asset["protected_url"], trust_env=False).content
    assert hashlib.sha256(protected).hexdigest() == asset["protected_sha256"]
    form = {"file": ("x.jpg", protected), "options": (None, '{"top_k": 1}')}
    answer = client.post("/v1/queries", files=form, headers=WAIT).json()
    assert [match["asset_id"] for match in answer["result"]["matches"]] == ["a/b"]
    assert client.delete("/v1/assets/a%2Fb").status_code == 204
    assert code_of(client.get("/v1/assets/a%2Fb")) == "asset_missing"
    assert client.get(done.headers["Location"]).json()["removed_at"]


@pytest.mark.usefixtures("shared_worker")
def test_a_job_that_the_ledger_has_forgotten_is_shown_by_its_document(
    client: httpx.Client, settings: Settings, image: bytes
) -> None:
    done = client.post("/v1/activations?asset_id=long-ago", content=image, headers=WAIT | IMAGE).json()
    with connect_redis(settings) as redis:
        redis.delete(job_key(done["job_id"]))
    for headers in ({}, WAIT):
        shown = client.get(f"/v1/jobs/{done['job_id']}", headers=headers).json()
        assert (shown["state"], shown["asset_id"], shown["result"]) == ("done", "long-ago", done["result"])


@pytest.mark.usefixtures("shared_worker")
def test_vectors_are_looked_up_at_once(client: httpx.Client) -> None:
    dimension = starter.read_card().extractor.dimension
    vectors = [[float(place == one) for place in range(dimension)] for one in range(2)]
    answer = client.post("/v1/lookups", json={"vectors": vectors, "options": {"top_k": 2}}, headers=WAIT)
    assert (answer.status_code, len(answer.json()["result"]["answers"])) == (200, 2), answer.text
    for wrong in ({"vectors": []}, {"vectors": [[1.0], []]}, {"vectors": vectors, "options": {"views": ["mirror"]}}):
        assert code_of(client.post("/v1/lookups", json=wrong)) == "invalid_request"


def test_a_look_up_of_many_faults_is_told_one_of_them(client: httpx.Client) -> None:
    answer = client.post("/v1/lookups", json={"vectors": [["a"] * 1_000] * 200})
    assert code_of(answer) == "invalid_request"
    assert answer.json()["detail"].count("vectors.") == 1, answer.text
    for rest in (
        {f"{number}": 0 for number in range(10_000)},
        {"options": {f"{number}": 0 for number in range(10_000)}},
    ):
        assert code_of(client.post("/v1/lookups", json={"vectors": [[1.0]]} | rest)) == "too_large"


IMAGE = {"Content-Type": "image/jpeg"}


def test_a_job_is_accepted_at_once_and_the_same_request_is_the_same_job(client: httpx.Client, image: bytes) -> None:
    first = client.post("/v1/activations", content=image, headers=IMAGE)
    again = client.post("/v1/activations", content=image, headers=IMAGE)
    assert (first.status_code, first.json()["new"], again.json()["new"]) == (202, True, False)
    shown = client.get(first.headers["Location"]).json()
    assert (shown["job_id"], shown["asset_id"]) == (first.json()["job_id"], hashlib.sha256(image).hexdigest())


def test_a_token_that_is_made_again_shares_no_idempotency_key_with_the_old(
    environment: dict[str, str], address: str, image: bytes
) -> None:
    jobs = []
    for _ in range(2):
        made = aii(environment, "tokens", "add", "again", "--scope", "submit")
        with client_of(address, made.stdout.strip()) as client:
            headers = IMAGE | {"Idempotency-Key": "order-17"}
            jobs += [client.post("/v1/activations", content=image, headers=headers).json()["job_id"] for _ in range(2)]
        assert aii(environment, "tokens", "remove", "again").returncode == 0
    assert jobs[0] == jobs[1] != jobs[2] == jobs[3]


@pytest.mark.usefixtures("shared_worker")
def test_what_a_producer_refuses_the_gateway_refuses_too(
    client: httpx.Client, environment: dict[str, str], address: str, image: bytes
) -> None:
    done = client.post("/v1/activations?asset_id=once", content=image, headers=WAIT | IMAGE).json()
    assert done["state"] == "done"
    protected = httpx.get(client.get("/v1/assets/once").json()["protected_url"], trust_env=False).content
    assert "once" in client.post("/v1/activations", content=protected, headers=IMAGE).json()["detail"]
    token = new_token(environment, "--scope", "submit", "--collection", "other")
    with client_of(address, token) as other_client:
        refused = other_client.post("/v1/activations?collection=other", content=protected, headers=IMAGE)
    assert (code_of(refused), "once" in refused.text) == ("already_protected", False)
    key = IMAGE | {"Idempotency-Key": "order-18"}
    assert client.post("/v1/activations?asset_id=a", content=image, headers=key).status_code == 202
    other = client.post("/v1/activations?asset_id=b", content=image, headers=key)
    assert (other.status_code, code_of(other)) == (409, "conflict")


def test_no_answer_leads_to_the_host_that_a_client_names(client: httpx.Client) -> None:
    answer = client.get("/v1/jobs/x/", headers={"Host": "evil.example"})
    assert (answer.status_code, "evil" in str(answer.headers)) == (404, False)


def test_a_large_image_reaches_the_store_in_parts(client: httpx.Client, settings: Settings) -> None:
    data = os.urandom(SMALL_LIMIT - 1)
    form = {"asset_id": (None, "large"), "file": ("large.jpg", data)}
    assert client.post("/v1/activations", files=form).status_code == 202
    store = ObjectStore.connect(settings)
    digest = hashlib.sha256(data).hexdigest()
    assert store.get_verified(Bucket.ORIGINALS, digest, digest, SMALL_LIMIT) == data
    assert not list(store.list_keys(Bucket.ORIGINALS, "incoming/"))


def test_too_large_a_body_is_refused_before_it_is_sent(client: httpx.Client) -> None:
    url, token = client.base_url, client.headers["Authorization"]
    head = f"POST /v1/activations HTTP/1.1\r\nHost: x\r\nAuthorization: {token}\r\nContent-Type: image/jpeg\r\n"
    with socket.create_connection((url.host, url.port or 80)) as connection:
        connection.sendall(f"{head}Content-Length: {SMALL_LIMIT + 1}\r\n\r\n".encode())
        assert connection.makefile("rb").readline().split()[1] == b"413"


def test_a_body_without_a_length_is_cut_off_at_the_limit(client: httpx.Client) -> None:
    chunks = (b"x" * 2**20 for _ in range(7))
    answer = client.post("/v1/activations", content=chunks, headers=IMAGE)
    assert (answer.status_code, code_of(answer)) == (413, "too_large")


@pytest.mark.parametrize(
    ("scope", "method", "path", "status"),
    [
        ("query", "POST", "/v1/activations", 403),
        ("submit", "POST", "/v1/queries", 403),
        ("submit", "GET", "/v1/assets/a", 403),
        ("query", "DELETE", "/v1/assets/a", 403),
        ("remove", "GET", "/metrics", 403),
        ("remove", "DELETE", "/v1/assets/a", 404),
        ("query", "GET", f"/v1/jobs/{'fade' * 8}", 404),
    ],
)
def test_a_token_does_what_its_scopes_say(
    environment: dict[str, str], address: str, scope: str, method: str, path: str, status: int
) -> None:
    with client_of(address, new_token(environment, "--scope", scope)) as client:
        assert client.request(method, path).status_code == status


def test_without_a_token_or_with_a_removed_one_nothing_is_answered(
    environment: dict[str, str], address: str, client: httpx.Client
) -> None:
    assert code_of(httpx.post(f"{address}/v1/queries", trust_env=False)) == "unauthenticated"
    tokens = TokenFile(Path(environment["AII_GATEWAY_TOKEN_FILE"]))
    assert client.get("/metrics").status_code == 200
    for token in tokens.read():
        tokens.remove(token.name)
    assert client.get("/metrics").status_code == 401


def test_the_file_of_tokens_holds_digests_only(environment: dict[str, str]) -> None:
    token = new_token(environment, "--scope", "query", "--collection", "starter", "--rate", "5/second")
    path = Path(environment["AII_GATEWAY_TOKEN_FILE"])
    assert token not in path.read_text()
    assert path.stat().st_mode & 0o077 == 0
    listed = aii(environment, "tokens", "list").stdout
    assert "query\tstarter\t5/second" in listed


def test_a_token_reaches_its_collections_only(
    environment: dict[str, str], address: str, client: httpx.Client, image: bytes
) -> None:
    job = client.post("/v1/activations", content=image, headers=IMAGE).headers["Location"]
    token = new_token(environment, "--scope", "admin", "--collection", "other")
    with client_of(address, token) as other_client:
        assert code_of(other_client.post("/v1/queries", content=image, headers=IMAGE)) == "access_denied"
        assert code_of(other_client.get("/v1/assets/a?collection=starter")) == "access_denied"
        other = uuid.uuid4().hex
        hidden, unknown = other_client.get(job, headers=WAIT), other_client.get(f"/v1/jobs/{other}")
        assert code_of(hidden) == "job_missing"
        assert hidden.text.replace(job.rpartition("/")[2], other) == unknown.text


def test_a_token_is_answered_as_often_as_its_rate_says(environment: dict[str, str], address: str) -> None:
    with client_of(address, new_token(environment, "--scope", "admin", "--rate", "3/hour")) as client:
        answers = [client.get("/metrics") for _ in range(4)]
    assert [answer.status_code for answer in answers] == [200, 200, 200, 429]
    assert int(answers[-1].headers["Retry-After"]) > 0


@pytest.mark.parametrize(
    ("body", "headers", "code"),
    [
        (b"x", {"Content-Type": "text/plain"}, "invalid_request"),
        (b"", IMAGE, "empty"),
        (b"{", {"Content-Type": "application/json"}, "invalid_request"),
        (b"[]", {"Content-Type": "application/json"}, "invalid_request"),
        (b"{}", {"Content-Type": "application/json"}, "invalid_request"),
        (b'{"collection": "NO"}', {"Content-Type": "application/json"}, "invalid_collection_name"),
        (b'{"unknown": 1}', {"Content-Type": "application/json"}, "invalid_request"),
        (b"{" * 70_000, {"Content-Type": "application/json"}, "too_large"),
        (b"--x\r\n", {"Content-Type": "multipart/form-data; boundary=x"}, "invalid_request"),
        (b"x", IMAGE | {"Content-Encoding": "gzip"}, "invalid_request"),
        (b"no form", {"Content-Type": "multipart/form-data"}, "invalid_request"),
        (b"no form", {"Content-Type": "multipart/form-data; boundary=x"}, "invalid_request"),
    ],
)
def test_a_body_that_cannot_be_used_is_a_problem_with_a_code(
    client: httpx.Client, body: bytes, headers: dict[str, str], code: str
) -> None:
    assert code_of(client.post("/v1/activations", content=body, headers=headers)) == code


def test_a_form_and_json_may_leave_parameters_to_the_query_string_and_say_none_twice(
    client: httpx.Client, host: str, image: bytes
) -> None:
    file, source, asset_id = {"file": ("a.jpg", image)}, {"source": f"http://{host}/image"}, uuid.uuid4().hex
    url = f"/v1/activations?asset_id={asset_id}"
    options = '&options={"steps": 2}'
    for answer in (client.post(url + options, files=file), client.post(url + options, json=source)):
        assert (answer.status_code, answer.json()["asset_id"]) == (202, asset_id), answer.text
    for twice in (
        client.post(url, files=file, data={"asset_id": "other"}),
        client.post(url, json=source | {"asset_id": "other"}),
        client.post(f"{url}&asset_id=other", files=file),
        client.post("/v1/activations", files=file, data={"asset_id": ["a", "b"]}),
        client.post("/v1/activations", files=[("file", ("a.jpg", image)), ("file", ("b.jpg", image))]),
    ):
        assert code_of(twice) == "invalid_request"


@pytest.mark.parametrize(
    "said", [[("Prefer", "respond-async"), ("prefer", "Wait = 300")], [("Prefer", 'wait="99999"')]]
)
@pytest.mark.usefixtures("shared_worker")
def test_a_client_may_say_in_several_ways_that_it_waits(
    client: httpx.Client, image: bytes, said: list[tuple[str, str]]
) -> None:
    answer = client.post("/v1/queries", content=image, headers=[*IMAGE.items(), *said])
    assert (answer.status_code, answer.json()["state"]) == (200, "done")


@pytest.mark.usefixtures("shared_worker")
def test_a_job_that_fails_says_why(client: httpx.Client) -> None:
    ended = client.post("/v1/queries", content=b"no image", headers=WAIT | IMAGE).json()
    assert (ended["state"], ended["error"]["code"]) == ("failed", "unsupported_format")


@pytest.mark.parametrize(
    ("url", "code"),
    [
        ("http://{host}/image", None),
        ("http://{host}/huge", "too_large"),
        ("http://{host}/missing", "url_refused"),
        ("http://{host}/away", "url_refused"),  # a redirect to a port that is not on the list
        ("http://{host}/nowhere", "url_refused"),
        ("http://{host}/broken", "source_unavailable"),
        ("http://a..example.test/", "url_refused"),
        ("http://user@{host}/image", "url_refused"),
        ("http://169.254.169.254/latest/meta-data", "url_refused"),
        ("http://localhost:9/", "url_refused"),
        ("http://{host}\\@localhost/image", "url_refused"),
        ("http://{host}/ima\nge", "url_refused"),
        ("file:///etc/passwd", "url_refused"),
        ("gopher://{host}/", "url_refused"),
    ],
)
def test_an_image_is_fetched_from_a_listed_host_only(
    client: httpx.Client, host: str, url: str, code: str | None
) -> None:
    answer = client.post("/v1/activations", json={"source": url.format(host=host)})
    if code is None:
        assert (answer.status_code, answer.json()["asset_id"]) == (202, hashlib.sha256(_Web.image).hexdigest())
    else:
        assert code_of(answer) == code
        assert answer.json()["retryable"] is (code == "source_unavailable")


def test_a_host_that_drips_its_answer_is_not_waited_for(settings: Settings) -> None:
    async def read(url: str) -> None:
        fetcher = Fetcher(settings.model_copy(update=allowed), total_s=0.5)
        async with aclosing(fetcher.read(url)) as chunks:
            with pytest.raises(SourceUnavailable, match="no whole image"):
                await anext(chunks)
        await fetcher.close()

    allowed = {"gateway_url_networks": "127.0.0.0/8"}
    with dripping_server() as address:
        allowed["gateway_url_hosts"] = urlsplit(address).netloc
        asyncio.run(read(address))


def test_a_host_that_is_down_may_be_asked_again_later(settings: Settings) -> None:
    place = f"127.0.0.1:{reserved_port()}"
    allowed = {"gateway_url_networks": "127.0.0.0/8", "gateway_url_hosts": place}

    async def read() -> None:
        fetcher = Fetcher(settings.model_copy(update=allowed))
        async with aclosing(fetcher.read(f"http://{place}/image")) as chunks:
            with pytest.raises(SourceUnavailable, match="does not give it"):
                await anext(chunks)
        await fetcher.close()

    asyncio.run(read())


@pytest.mark.parametrize("conformance_cases", [int(os.environ.get("AII_CONFORMANCE_CASES", "5"))])
def test_every_answer_is_one_that_the_openapi_document_names(
    environment: dict[str, str], conformance_cases: int, tmp_path: Path
) -> None:
    token = new_token(environment, "--scope", "admin")
    checks = "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance"
    command = [sys.executable, "-c", "from schemathesis.cli import schemathesis; schemathesis()", "run"]
    command += ["-H", f"Authorization: Bearer {token}", "--no-color", "-n", str(conformance_cases)]
    command += ["--checks", checks, "--suppress-health-check", "all"]
    run = partial(subprocess.run, capture_output=True, text=True, check=False, cwd=tmp_path, env=_no_proxy(environment))
    # No worker answers, so what waits for one is to wait for a moment only.
    with running_gateway(environment, tmp_path / "gateway.log", AII_GATEWAY_MAX_WAIT_S="0.5") as address:
        done = run([*command, f"{address}/openapi.json"])
    assert done.returncode == 0, done.stdout[-8_000:]


def _no_proxy(environment: dict[str, str]) -> dict[str, str]:
    return environment | {"NO_PROXY": "*", "no_proxy": "*"}


def test_each_error_code_has_a_page(client: httpx.Client) -> None:
    for kind in kinds():
        assert client.get(f"/v1/errors/{kind.code}").json()["what_to_do"]
    assert code_of(client.get("/v1/errors/none_of_ours")) == "not_found"


def test_health_and_submissions_say_when_a_service_is_away(settings: Settings) -> None:
    token = [{"name": "fixed", "sha256": hashlib.sha256(b"known").hexdigest(), "scopes": ["admin"]}]
    away = {"redis_url": SecretStr("redis://127.0.0.1:1/0"), "gateway_tokens": json.dumps(token)}
    with TestClient(create_gateway(settings.model_copy(update=away))) as client:
        for answer in (
            client.get("/health"),
            client.post("/v1/queries", content=b"x", headers=IMAGE | {"Authorization": "Bearer known"}),
        ):
            assert (answer.status_code, code_of(answer)) == (503, "redis_unavailable")
            assert answer.headers["Retry-After"]
        assert client.get("/live").status_code == 200  # by which it is restarted: that would not help


def test_tokens_can_come_from_a_setting(environment: dict[str, str], tmp_path: Path) -> None:
    digest = hashlib.sha256(b"known").hexdigest()
    tokens = json.dumps([{"name": "fixed", "sha256": digest, "scopes": ["admin"]}])
    with (
        running_gateway(environment, tmp_path / "log", AII_GATEWAY_TOKENS=tokens) as address,
        client_of(address, "known") as client,
    ):
        assert client.get("/metrics").status_code == 200


def test_a_gateway_with_unusable_tokens_does_not_start(environment: dict[str, str]) -> None:
    ended = aii(environment | {"AII_GATEWAY_TOKENS": "[{}]"}, "serve")
    assert (ended.returncode, "AII_GATEWAY_TOKENS" in ended.stderr) == (2, True)


def test_the_gateway_loads_no_heavy_library() -> None:
    code = (
        "import sys, producer.gateway.app as _; print({'torch', 'faiss', 'numpy', 'numba', 'PIL'} & set(sys.modules))"
    )
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert loaded.stdout.strip() == "set()"
