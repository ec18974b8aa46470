"""Waiting for jobs, and not: interruptions, deadlines, workers and services that are missing."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from pydantic import SecretStr

from producer import Producer
from producer.manifest import read_rows
from producer.search import Search
from producer.session import Wanted, prepare
from tasks.connection import connect_redis
from tasks.errors import StorageUnavailable
from tasks.ledger.operations import Operations
from tasks.ledger.states import JobState
from tasks.names import QUEUE_QUERY
from tasks.settings import Settings
from tests.own_redis import OwnRedis
from tests.photographs import crops
from tests.stack import AII, WorkerProcess, aii
from tests.waiting import LIMIT_S, wait_for


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    for i, data in enumerate(crops(2)):
        (folder / f"{i}.jpg").write_bytes(data)
    return folder


@pytest.fixture
def own_redis(tmp_path: Path) -> Iterator[OwnRedis]:
    redis = OwnRedis(tmp_path / "redis")
    yield redis
    redis.stop()


@pytest.mark.parametrize(
    ("wanted", "said"),
    [(Wanted(timeout_s=0.25), "at most 0.25 s"), (Wanted(timeout_s=5, services_s=0.5), "at most 0.5 s")],
)
def test_a_deadline_bounds_the_wait_for_a_service_that_goes_away(
    stack_environment: dict[str, str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
    wanted: Wanted, said: str,
) -> None:  # fmt: skip
    def away() -> None:
        raise StorageUnavailable("S3 is away.")

    for name, value in stack_environment.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(StorageUnavailable):
        prepare(Search(), wanted, QUEUE_QUERY).retry_policy.call(away)
    assert said in capsys.readouterr().err


class Running:
    """A command that runs while the test goes on."""

    def __init__(self, process: subprocess.Popen[str], said: Path) -> None:
        self.process = process
        self._said = said

    def says(self, words: str) -> str:
        def heard() -> str:
            text = self._said.read_text()
            assert words in text or self.process.poll() is None, text
            return text if words in text else ""

        return wait_for(heard, f"it does not say {words!r}")


@contextmanager
def running(environment: dict[str, str], folder: Path, *arguments: str) -> Iterator[Running]:
    said = folder / "said"
    with said.open("w") as output:
        process = subprocess.Popen([*AII, *arguments], env=environment, stdout=output, stderr=output, text=True)
    try:
        yield Running(process, said)
    finally:
        process.kill()
        process.wait()


def waiting(settings: Settings) -> list[str]:
    return [job.job_id for job in Operations.connect(settings).jobs(JobState.QUEUED, 10)]


def test_ctrl_c_says_what_goes_on_and_how_to_wait_for_it(
    settings: Settings, stack_environment: dict[str, str], photos: Path, tmp_path: Path
) -> None:
    with running(stack_environment, tmp_path, "activate", str(photos)) as command:
        command.says("No worker is running")
        wait_for(lambda: len(waiting(settings)) == 2)
        command.process.send_signal(signal.SIGINT)
        text = command.says("Cancel it:")
        assert command.process.wait(LIMIT_S) == 130
    assert "2 jobs were accepted and not done; the work goes on." in text
    assert "Traceback" not in text
    named = re.search(r"aii (jobs cancel .*)", text)
    assert named
    cancelled = aii(stack_environment, *named[1].split())
    assert (cancelled.returncode, waiting(settings)) == (0, []), cancelled.stderr


def test_what_was_stopped_or_killed_goes_on_with_the_same_command(
    settings: Settings, stack_environment: dict[str, str], start_worker: Callable[..., WorkerProcess], tmp_path: Path,
    photos: Path,
) -> None:  # fmt: skip
    out = tmp_path / "out"
    command = ("activate", str(photos), "--out", str(out))
    with running(stack_environment, tmp_path, *command) as stopped:
        wait_for(lambda: len(waiting(settings)) == 2)
        stopped.process.send_signal(signal.SIGINT)
        stopped.says("Cancel it:")
        assert stopped.process.wait(LIMIT_S) == 130
    assert not out.exists()
    with running(stack_environment, tmp_path, *command) as killed:
        killed.says("No worker is running")
        start_worker()
        wait_for(lambda: list(out.glob("*.jpg")), "no file was saved")
        killed.process.kill()
    done = aii(stack_environment, *command)
    assert done.returncode == 0, done.stderr
    assert {row.protected_file for row in read_rows(out)} == {"0.jpg", "1.jpg"} == {p.name for p in out.glob("*.jpg")}


def test_many_jobs_that_go_on_are_named_in_a_file_that_commands_read(
    settings: Settings, stack_environment: dict[str, str], tmp_path: Path
) -> None:
    folder = tmp_path / "photos"
    folder.mkdir()
    for i, data in enumerate(crops(7)):
        (folder / f"{i}.jpg").write_bytes(data)
    with running(stack_environment, tmp_path, "activate", str(folder)) as command:
        wait_for(lambda: len(waiting(settings)) == 7)
        command.process.send_signal(signal.SIGINT)
        text = command.says("Cancel it:")
    (name,) = re.findall(r"aii jobs cancel - < (.*)", text)
    assert aii(stack_environment, "jobs", "cancel", "-", stdin=Path(name)).returncode == 0
    Path(name).unlink()
    assert waiting(settings) == []


def test_a_query_that_is_late_or_interrupted_is_withdrawn(
    settings: Settings, stack_environment: dict[str, str], photos: Path, tmp_path: Path
) -> None:
    late = aii(stack_environment, "query", str(photos / "0.jpg"), "--timeout", "0.3")
    assert (late.returncode, "the question was withdrawn" in late.stdout) == (1, True)
    assert waiting(settings) == []
    with running(stack_environment, tmp_path, "query", str(photos / "0.jpg")) as command:
        wait_for(lambda: waiting(settings))
        command.process.send_signal(signal.SIGINT)
        command.says("1 job was withdrawn.")
        assert command.process.wait(LIMIT_S) == 130
    assert waiting(settings) == []


def test_a_worker_for_other_queues_is_no_worker_for_these_jobs(
    settings: Settings, stack_environment: dict[str, str], photos: Path, tmp_path: Path
) -> None:
    note = {
        "worker": "w", "pid": 1, "queues": ["index"], "started_at": 0.0, "device": "cpu", "extractor": "compact",
        "batch_images": 1, "memory_bytes": 0, "collections": {},
    }  # fmt: skip
    with connect_redis(settings) as client:
        client.zadd("aii:workers", {"w": 2e12})
        client.set("aii:worker:w", json.dumps(note), ex=600)
    seen = aii(stack_environment, "activate", str(photos), "--timeout", "0.1").stderr
    assert "No worker" in seen


def test_a_command_waits_for_redis_to_start_and_to_come_back(
    own_redis: OwnRedis, stack_environment: dict[str, str], settings: Settings, photos: Path, tmp_path: Path
) -> None:
    environment = stack_environment | {"AII_REDIS_URL": own_redis.url}
    with running(environment, tmp_path, "activate", str(photos), "--wait-for-services", "300") as command:
        command.says("Waiting for it, at most 300 s.")
        own_redis.start()
        command.says("No worker is running")
        own_redis.stop()
        wait_for(lambda: (tmp_path / "said").read_text().count("Waiting for it") == 2, "it does not notice")
        own_redis.start()
        wait_for(lambda: "2 jobs cancelled." in aii(environment, "jobs", "cancel", "--all", "--yes").stderr)
        assert command.process.wait(LIMIT_S) == 1
        assert command.says("2 failed").count("[cancelled]") == 2


@pytest.mark.usefixtures("settings")  # no documents of jobs that are the same
def test_redis_behind_a_unix_socket_serves_commands_and_a_worker(
    own_redis: OwnRedis, stack_environment: dict[str, str], shared_settings: Settings, photos: Path, tmp_path: Path
) -> None:
    own_redis.start()
    changed = {"AII_REDIS_URL": own_redis.socket_url, "AII_BUCKET_COLLECTIONS": "collections-of-a-socket"}
    environment = stack_environment | changed
    run = aii(environment, "activate", str(photos), "--no-wait", "--wait-for-services", "60")
    assert (run.returncode, run.stdout.count("submitted")) == (0, 2), run.stderr
    settings = shared_settings.model_copy(update={"redis_url": SecretStr(own_redis.socket_url)})
    worker = WorkerProcess(environment, settings, tmp_path / "worker.log", "query,activate")
    try:
        worker.wait_until_ready()
        done = aii(environment, "activate", str(photos))
        assert (done.returncode, done.stdout.count("done before")) == (0, 2), done.stdout
        assert aii(environment, "query", str(photos / "0.jpg")).stdout.count("match") == 1
        assert worker.stop() == 0
    finally:
        worker.kill()


def test_jobs_are_listed_as_json_and_named_by_their_first_digits(
    producer: Producer, settings: Settings, stack_environment: dict[str, str], photos: Path
) -> None:
    aii(stack_environment, "activate", str(photos), "--no-wait", "--asset-id-from", "name")
    listed = [json.loads(line) for line in aii(stack_environment, "jobs", "list", "--json").stdout.splitlines()]
    assert sorted((job["state"], job["asset_id"], job["name"]) for job in listed) == [
        ("queued", "0.jpg", "0.jpg"), ("queued", "1.jpg", "1.jpg"),
    ]  # fmt: skip
    assert f"{listed[0]['job_id']}  queued" in aii(stack_environment, "jobs", "show", listed[0]["job_id"][:10]).stdout
    assert aii(stack_environment, "jobs", "cancel", "xyz").returncode == 1
    assert aii(stack_environment, "jobs", "cancel").returncode == 2
    both = aii(stack_environment, "jobs", "cancel", uuid.uuid4().hex, listed[1]["job_id"])
    assert (both.returncode, "[job_missing]" in both.stderr, len(waiting(settings))) == (1, True, 1)
    unasked = aii(stack_environment, "jobs", "cancel", "--all")  # without a terminal there is no answer
    assert (unasked.returncode, "Cancel all 1 jobs" in unasked.stdout + unasked.stderr) == (1, True)
    assert "1 jobs cancelled." in aii(stack_environment, "jobs", "cancel", "--all", "--yes").stderr


@pytest.mark.parametrize("encoding", ["cp1252", "ascii", "utf-8"])
def test_no_encoding_of_a_terminal_keeps_a_message_from_being_shown(
    producer: Producer, stack_environment: dict[str, str], tmp_path: Path, encoding: str
) -> None:
    names = [os.fsencode(tmp_path) + b"/" + name for name in ("日本 é.jpg".encode(), b"\xff\xfe.jpg")]
    for name, data in zip(names, crops(2), strict=True):
        Path(os.fsdecode(name)).write_bytes(data)
    given = stack_environment | {"PYTHONIOENCODING": encoding, "LANG": "C", "LC_ALL": "C"}
    run = subprocess.run(
        [*AII, "activate", *map(os.fsdecode, names), "--no-wait"], env=given, capture_output=True, check=False
    )
    assert (run.returncode, run.stdout.count(b"submitted"), run.stderr.count(b"Traceback")) == (0, 2, 0), run.stderr


def test_a_reader_that_has_read_enough_does_not_end_the_work(
    producer: Producer, stack_environment: dict[str, str], photos: Path
) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    run = subprocess.run(
        [*AII, "activate", str(photos), "--no-wait"], env=stack_environment, stdout=writing, stderr=subprocess.PIPE,
        check=False,
    )  # fmt: skip
    os.close(writing)
    assert (run.returncode, b"Traceback" in run.stderr, b"Broken" in run.stderr) == (0, False, False), run.stderr
