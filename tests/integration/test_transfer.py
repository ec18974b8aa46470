"""A collection is taken to another Redis and S3 as one file."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydantic import SecretStr

from producer import Producer
from tasks.connection import connect_redis
from tasks.errors import CollectionExists, CorruptSegment, InvalidRequest, RedisUnavailable
from tasks.settings import Settings
from tasks.storage import Bucket, ObjectStore
from tests.collections import Place, add, found, unit_vectors
from tests.moto_server import moto_server
from tests.own_redis import OwnRedis
from tests.photographs import crops
from tests.stack import WorkerProcess, aii_here
from tests.waiting import LIMIT_S, wait_for
from workers.index.collection.lock import write_lock
from workers.index.maintenance.transfer import export_collection, import_collection, manifest_in

NEW = unit_vectors(8, 1)


@pytest.fixture
def elsewhere(settings: Settings, tmp_path: Path) -> Iterator[Settings]:
    """Another Redis, and another S3 server."""
    redis = OwnRedis(tmp_path / "redis")
    redis.start()
    with moto_server(tmp_path) as address:
        keys = {"s3_access_key": SecretStr("key"), "s3_secret_key": SecretStr("secret")}
        given = keys | {"redis_url": SecretStr(redis.url), "s3_endpoint": address}
        other = settings.model_copy(update=given)
        wait_for(lambda: _answers(other), "Redis does not answer")
        ObjectStore.connect(other).ensure_buckets()
        yield other
    redis.stop()


def exported(place: Place, path: Path) -> Path:
    export_collection(place.store, place.files, place.compact(), path, images=True)
    return path


def imported(place: Place, path: Path) -> Place:
    with write_lock(place.redis, place.name) as lock:
        import_collection(place.store, place.files, place.journal, path, lock)
    return place


def test_it_answers_there_as_it_did_here_and_takes_what_comes(
    place: Place, elsewhere: Settings, tmp_path: Path
) -> None:
    collection = place.open()
    for i in range(4):
        add(collection, f"new-{i}", NEW[i], kind="photo")
    place.remove("new-3")
    there = imported(Place(place.name, elsewhere, tmp_path / "there"), exported(place, tmp_path / "c.tar"))
    assert there.files.current() == place.files.current().model_copy(update={"settled": None})
    other = there.open()
    assert found(other, NEW[0], k=1, kind="photo") == ["new-0"]
    assert "new-3" not in found(other, NEW[3], k=1_000)
    add(other, "later", NEW[5])
    assert found(there.open(), NEW[5], k=1) == ["later"]
    assert there.compact().assets == place.files.current().assets + 1
    there.close()


def test_a_name_that_is_taken_and_a_file_that_is_none_or_damaged_are_refused(
    place: Place, elsewhere: Settings, tmp_path: Path
) -> None:
    path = exported(place, tmp_path / "c.tar")
    with pytest.raises(CollectionExists, match="aii index delete"):
        imported(place, path)
    there = Place(place.name, elsewhere, tmp_path / "there")
    data = bytearray(path.read_bytes())
    with tarfile.open(path) as archive:
        index = next(m for m in archive if m.name == f"objects/{place.files.current().segments[0].index}")
        manifest = archive.extractfile("manifest.json").read()  # type: ignore[union-attr]
    data[index.offset_data + index.size // 2] ^= 1
    (tmp_path / "flipped.tar").write_bytes(data)
    (tmp_path / "text.tar").write_text("none")
    for name in ("../../escape", "objects/short", "protected/another/assets/a/b.png"):
        with tarfile.open(tmp_path / "odd.tar", "w") as archive:
            for member, content in (("manifest.json", manifest), (name, b"x")):
                info = tarfile.TarInfo(member)
                info.size = len(content)
                archive.addfile(info, io.BytesIO(content))
        with pytest.raises(InvalidRequest, match="does not belong"):
            imported(there, tmp_path / "odd.tar")
    with tarfile.open(tmp_path / "cut.tar", "w") as archive:
        info = tarfile.TarInfo("manifest.json")
        info.size = len(manifest)
        archive.addfile(info, io.BytesIO(manifest))
    for name, kind in (("flipped", CorruptSegment), ("cut", CorruptSegment), ("text", InvalidRequest)):
        with pytest.raises(kind):
            imported(there, tmp_path / f"{name}.tar")
    assert there.files.pointer_if_any() is None
    there.close()


def test_an_export_of_a_newer_version_is_called_that(place: Place, tmp_path: Path) -> None:
    document = json.loads(place.files.current().model_dump_json()) | {"later": 1}
    (tmp_path / "manifest.json").write_text(json.dumps(document))
    with tarfile.open(tmp_path / "newer.tar", "w") as archive:
        archive.add(tmp_path / "manifest.json", "manifest.json")
    with pytest.raises(InvalidRequest, match="newer version: upgrade"):
        manifest_in(tmp_path / "newer.tar")


def test_protected_files_go_with_it_and_the_asset_is_known_there(
    shared_worker: WorkerProcess, settings: Settings, stack_environment: dict[str, str], elsewhere: Settings,
    tmp_path: Path,
) -> None:  # fmt: skip
    with Producer.connect(settings) as producer:
        result = producer.activate(crops(1)[0], asset_id="moved").wait(LIMIT_S)
    path = str(tmp_path / "starter.tar")
    done = aii_here(stack_environment, "index", "export", "starter", path, "--images")
    assert done.returncode == 0, done.stderr
    other = {
        "AII_STATE_DIR": str(tmp_path), "AII_REDIS_URL": elsewhere.redis_url.get_secret_value(),
        "AII_S3_ENDPOINT": elsewhere.s3_endpoint, "AII_S3_ACCESS_KEY": "key", "AII_S3_SECRET_KEY": "secret",
    }  # fmt: skip
    done = aii_here(other, "index", "import", path)
    assert (done.returncode, "is current" in done.stdout) == (0, True), done.stderr
    listed = aii_here(other, "index", "list", "starter", "--prefix", "moved")
    assert listed.stdout.split()[0] == "moved"
    there = ObjectStore.connect(elsewhere)
    assert there.get_verified(Bucket.PROTECTED, result.protected_key, result.protected_sha256, 2**24)
    assert aii_here(other, "index", "verify", "starter").returncode == 0


def _answers(settings: Settings) -> bool:
    try:
        with connect_redis(settings) as client:
            client.check()
    except RedisUnavailable:
        return False
    return True
