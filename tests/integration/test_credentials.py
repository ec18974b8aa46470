"""Content credentials (C2PA): signed again for the protected file, kept, and found by a copy that lost its own."""

from __future__ import annotations

import base64
import io
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx2 as httpx
import pytest
from PIL import Image

from producer import ActivationResult, Producer
from tasks.assets.manifest_store import active_id, active_only
from tasks.assets.manifests import ALGORITHM, Manifests, binding_value
from tasks.errors import NotFound
from tasks.names import sha256_hex
from tasks.storage import ObjectStore
from tests.certificates import SelfMade, credentials_of, taken_by_a_camera
from tests.gateway import client_of, new_token, running_gateway
from tests.photographs import crops
from tests.stack import WorkerProcess, aii
from tests.waiting import LIMIT_S
from workers.handlers.credentials import Credentials, SigningKey
from workers.images import EncodedImage, Limits, decode

Start = Callable[..., WorkerProcess]


@pytest.fixture(scope="module")
def camera() -> SelfMade:
    return SelfMade.make()


@pytest.fixture(scope="module")
def signed_photo(camera: SelfMade) -> bytes:
    return taken_by_a_camera(crops(3, side=320)[2], camera)


@pytest.fixture
def key(tmp_path: Path) -> dict[str, str]:
    """The settings of a worker that signs."""
    made, paths = SelfMade.make(), {name: tmp_path / f"{name}.pem" for name in ("key", "certificates")}
    paths["key"].write_bytes(made.key)
    paths["certificates"].write_bytes(made.chain)
    return {f"AII_C2PA_{name.upper()}": str(path) for name, path in paths.items()}


@pytest.fixture
def gateway(stack_environment: dict[str, str], tmp_path: Path) -> Iterator[tuple[dict[str, str], str]]:
    environment = stack_environment | {"AII_GATEWAY_TOKEN_FILE": str(tmp_path / "tokens.json")}
    environment |= {"AII_GATEWAY_MAX_WAIT_S": str(LIMIT_S)}
    with running_gateway(environment, tmp_path / "gateway.log") as address:
        yield environment, address


def activated(producer: Producer, photo: bytes, asset_id: str = "") -> ActivationResult:
    return producer.activate(photo, asset_id=asset_id or uuid.uuid4().hex).wait(LIMIT_S)


def copy_of(data: bytes) -> bytes:
    """Cropped, and without anything but its picture."""
    with Image.open(io.BytesIO(data)) as image:
        picture = image.convert("RGB").crop((6, 6, image.width - 6, image.height - 6))
    target = io.BytesIO()
    picture.save(target, "PNG")
    return target.getvalue()


def assertion(manifest: dict[str, Any], label: str) -> dict[str, Any]:
    return next(one["data"] for one in manifest["assertions"] if one["label"].startswith(label))


def test_a_stripped_and_cropped_copy_returns_the_manifest_that_was_signed_for_its_asset(
    producer: Producer, start_worker: Start, key: dict[str, str], signed_photo: bytes,
    gateway: tuple[dict[str, str], str],
) -> None:  # fmt: skip
    start_worker(**key)
    result = activated(producer, signed_photo)
    protected = producer.protected_image(result)
    state, manifest = credentials_of(protected, "image/jpeg")
    assert (state, result.metadata_lost) == ("Valid", [])
    assert manifest["ingredients"][0]["active_manifest"] == source_id(signed_photo)
    assert manifest["ingredients"][0]["relationship"] == "parentOf"
    actions = [action["action"] for action in assertion(manifest, "c2pa.actions")["actions"]]
    assert actions == ["c2pa.opened", "c2pa.edited"]
    binding = binding_value("starter", base64.b64decode(result.code))
    assert assertion(manifest, "c2pa.soft-binding")["alg"] == ALGORITHM
    assert assertion(manifest, "c2pa.soft-binding")["blocks"][0]["value"] == binding
    assert result.manifest
    assert (result.manifest.manifest_id, result.manifest.signed) == (manifest["label"], True)

    environment, address = gateway
    with client_of(address, new_token(environment, "--scope", "query")) as client:
        resolved(client, copy_of(protected), binding, result)
    with client_of(address, new_token(environment, "--scope", "query", "--collection", "other")) as client:
        hidden, unknown = (client.get(f"/v1/manifests/{one}") for one in (result.manifest.manifest_id, "urn:c2pa:none"))
        assert (hidden.status_code, unknown.status_code) == (404, 404)
        found = client.get("/v1/matches/byBinding", params={"alg": ALGORITHM, "value": binding})
        assert found.json() == {"matches": []}
        assert client.post("/v1/matches/byContent", content=protected, headers=JPEG).status_code == 403


JPEG = {"Content-Type": "image/jpeg"}


def resolved(client: httpx.Client, copy: bytes, binding: str, result: ActivationResult) -> None:
    """As C2PA's OpenAPI document says."""
    assert result.manifest
    manifest_id = result.manifest.manifest_id
    assert httpx.get(f"{client.base_url}/v1/services/supportedAlgorithms", trust_env=False).json() == {
        "watermarks": [], "fingerprints": [{"alg": ALGORITHM}],
    }  # fmt: skip
    by_content = client.post("/v1/matches/byContent", content=copy, headers={"Content-Type": "image/png"}).json()
    assert by_content["matches"][0]["manifestId"] == manifest_id
    assert 0 <= by_content["matches"][0]["similarityScore"] <= 100
    asked = {"alg": ALGORITHM, "value": binding}
    for answer in (client.get("/v1/matches/byBinding", params=asked), client.post("/v1/matches/byBinding", json=asked)):
        assert answer.json() == {"matches": [{"manifestId": manifest_id}]}
    fetched = client.get(f"/v1/manifests/{manifest_id}")
    assert (fetched.headers["content-type"], sha256_hex(fetched.content)) == (
        "application/c2pa",
        result.manifest.sha256,
    )
    alone = client.get(f"/v1/manifests/{manifest_id}", params={"returnActiveManifest": True}).content
    assert (active_id(alone), len(alone) < len(fetched.content)) == (manifest_id, True)
    assert client.get("/v1/matches/byBinding", params={"alg": "other.1", "value": binding}).status_code == 400
    assert (
        client.post("/v1/matches/byContent", content=b"%PDF", headers={"Content-Type": "text/plain"}).status_code == 415
    )
    assert client.post("/v1/matches/byContent", content=b"no image", headers=JPEG).status_code == 415


def manifest_store_of(file: bytes) -> bytes | None:
    return decode(file, Limits(max_bytes=2**24, max_pixels=10**7)).blocks.manifest


def source_id(photo: bytes) -> str:
    return active_id(manifest_store_of(photo) or b"") or ""


@pytest.mark.usefixtures("shared_worker")
def test_without_a_key_the_manifest_is_lost_to_the_file_and_kept(
    producer: Producer, store: ObjectStore, signed_photo: bytes
) -> None:
    photo = signed_photo + b"another"
    result = activated(producer, photo)
    assert result.manifest
    assert (result.manifest.manifest_id, result.manifest.signed) == (source_id(photo), False)
    assert any(line.startswith("C2PA manifest") for line in result.metadata_lost)
    assert manifest_store_of(producer.protected_image(result)) is None
    manifests = Manifests(store)
    note = manifests.named(source_id(photo))
    assert manifests.bytes_of(note) == manifest_store_of(photo)
    with pytest.raises(NotFound):
        manifests.named("urn:c2pa:other")

    other = activated(producer, signed_photo + b"a later one that says the same")
    assert other.manifest
    assert manifests.named(other.manifest.manifest_id).asset_id == note.asset_id


@pytest.mark.usefixtures("shared_worker")
def test_a_file_that_is_to_say_less_keeps_no_manifest(producer: Producer, signed_photo: bytes) -> None:
    result = producer.activate(signed_photo + b"less", options={"metadata": "rights"}).wait(LIMIT_S)
    assert result.manifest is None
    assert any(line.startswith("C2PA manifest") for line in result.metadata_lost)


@pytest.mark.parametrize("content_type", ["image/png", "image/webp", "image/tiff", "image/gif", "image/avif"])
def test_the_store_of_other_formats_is_read_and_signed_again(content_type: str, camera: SelfMade) -> None:
    import c2pa  # noqa: PLC0415

    target, plain = io.BytesIO(), io.BytesIO()
    with Image.open(io.BytesIO(crops(1)[0])) as image:
        image.save(plain, content_type.partition("/")[2])
    signer = c2pa.Signer.from_info(c2pa.C2paSignerInfo(c2pa.C2paSigningAlg.ES256, camera.chain, camera.key, None))
    manifest = {"claim_generator_info": [{"name": "camera", "version": "1"}]}
    builder = c2pa.Builder(manifest)
    builder.set_intent(c2pa.C2paBuilderIntent.CREATE, c2pa.C2paDigitalSourceType.DIGITAL_CAPTURE)
    store = builder.sign(signer, content_type, io.BytesIO(plain.getvalue()), target)
    blocks = decode(target.getvalue(), Limits(max_bytes=2**24, max_pixels=10**7)).blocks
    assert blocks.manifest == store
    assert blocks.lost[0].startswith("C2PA manifest")
    assert b"c2pa" not in (blocks.exif or b"")
    key = SigningKey(camera.chain, camera.key, "es256")
    published = EncodedImage(copy_of(plain.getvalue()), "png", "image/png", blocks.lost)
    issued = Credentials(key).issue(target.getvalue(), store, published, "photo", "binding", changed=True)
    state, said = credentials_of(issued.encoded.data, "image/png")
    assert (state, issued.encoded.lost) == ("Valid", ())
    assert said["ingredients"][0]["active_manifest"] == active_id(store)


def test_what_is_no_manifest_store_has_no_manifest(signed_photo: bytes) -> None:
    store = manifest_store_of(signed_photo) or b""
    assert active_only(store) == store  # it has one manifest
    for size in range(0, 200, 7):
        assert active_id(store[:size]) is None
    for damaged in (
        b"",
        b"\0" * 100,
        b"\xff" * 100,
        store[:4] + b"jumd" + store[8:],
        store.replace(b"c2pa\0", b"c2pb\0"),
    ):
        assert active_id(damaged) is None
        assert active_only(damaged) == damaged


@pytest.mark.parametrize("name", ["AII_C2PA_KEY", "AII_C2PA_CERTIFICATES"])
def test_a_key_that_cannot_be_used_is_named_at_the_start(
    stack_environment: dict[str, str], key: dict[str, str], name: str, tmp_path: Path
) -> None:
    refused = aii(stack_environment | key | {name: str(tmp_path / "missing.pem")}, "worker")
    assert (refused.returncode, "missing.pem" in refused.stderr) == (2, True), refused.stderr
    (tmp_path / "missing.pem").write_text("no PEM")
    refused = aii(stack_environment | key | {name: str(tmp_path / "missing.pem")}, "worker")
    assert (refused.returncode, "AII_C2PA_KEY" in refused.stderr) == (2, True), refused.stderr
