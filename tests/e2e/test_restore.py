"""Backup and restore as the operations' page has it: Redis lost, S3 set back, and both."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from producer import Producer
from tasks.connection import connect_redis
from tests.photographs import crops
from tests.stack import WorkerProcess, aii, running_stack, settings_of
from tests.waiting import LIMIT_S

BEFORE, AFTER = crops(2, 256)
NO_REPAIR = {"AII_AUTO_REPAIR": "0"}  # the commands are what is tested


@contextmanager
def working(environment: dict[str, str], state: Path) -> Iterator[Producer]:
    """A worker, and a producer for it."""
    settings = settings_of(state)
    worker = WorkerProcess(environment, settings, state / "worker.log", "query,activate,index")
    try:
        worker.wait_until_ready()
        with Producer.connect(settings) as producer:
            yield producer
        worker.stop()
    finally:
        worker.kill()


def back_up(state: Path, backup: Path) -> None:
    """Redis first, S3 after it."""
    with connect_redis(settings_of(state)) as client:
        before = client.config_get("auto-aof-rewrite-percentage")["auto-aof-rewrite-percentage"]
        client.config_set("auto-aof-rewrite-percentage", "0")
        shutil.copytree(state / "redis" / "appendonlydir", backup / "redis" / "appendonlydir")
        client.config_set("auto-aof-rewrite-percentage", before)
    shutil.copytree(state / "s3", backup / "s3")


def restore(state: Path, backup: Path, what: str) -> None:
    shutil.rmtree(state / what)
    shutil.copytree(backup / what, state / what)


@pytest.mark.parametrize("lost", ["Redis", "S3 set back", "both set back"])
def test_after_a_loss_and_a_repair_every_asset_of_the_backup_is_found(lost: str, tmp_path: Path) -> None:
    state, backup = tmp_path / "state", tmp_path / "backup"
    state.mkdir()
    with running_stack(state) as environment, working(environment | NO_REPAIR, state) as producer:
        producer.activate(BEFORE, asset_id="before").wait(LIMIT_S)
        back_up(state, backup)
        producer.activate(AFTER, asset_id="after").wait(LIMIT_S)
    if lost == "Redis":
        shutil.rmtree(state / "redis" / "appendonlydir")
    else:
        restore(state, backup, "s3")
    if lost == "both set back":
        restore(state, backup, "redis")
    with running_stack(state) as environment:
        for command in ("repair", "verify"):
            done = aii(environment, "index", command, "starter")
            assert done.returncode == 0, done.stderr
        listed = aii(environment, "index", "list", "starter", "--json").stdout.splitlines()
        known = {json.loads(line)["asset_id"] for line in listed}
        assert ("before" in known, "after" in known) == (True, lost != "both set back")
        with working(environment | NO_REPAIR, state) as producer:
            producer.activate(AFTER, asset_id="after", again=lost == "S3 set back").wait(LIMIT_S)
            for image, asset_id in ((BEFORE, "before"), (AFTER, "after")):
                assert producer.query(image).wait(LIMIT_S).matches[0].asset_id == asset_id
