"""``aii up`` as a process of its own, with a real Redis and a real S3 server."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import redis

from deploy.local.instance import running
from deploy.local.services import redis_version
from deploy.local.stack import write_stack_file
from tasks.connection import connect_redis
from tasks.errors import RedisUnavailable
from tasks.settings import Settings
from tasks.storage import Bucket, ObjectStore
from tests.ports import reserved_port
from tests.stack import reserve_ports
from tests.waiting import LIMIT_S, wait_for

UP = (sys.executable, "-c", "from deploy.local.cli import up; up()")
STORES_ONLY = ("--workers", "0", "--no-flower")


@dataclass
class Stack:
    """An ``aii up`` of a folder, with clients of its services."""

    state: Path
    process: subprocess.Popen[str]
    open_until_the_end: ExitStack = field(default_factory=ExitStack)

    @property
    def settings(self) -> Settings:
        return Settings(_env_file=self.state / "stack.env")  # type: ignore[call-arg]  # pydantic-settings' own keyword

    def redis(self) -> redis.Redis:
        """A fresh client, as a killed Redis leaves dead connections; closed with the test."""
        return self.open_until_the_end.enter_context(connect_redis(self.settings))

    def store(self) -> ObjectStore:
        return ObjectStore.connect(self.settings)

    def redis_pid(self) -> int | None:
        """None while Redis does not answer."""
        with suppress(RedisUnavailable):
            return int(self.redis().info("server")["process_id"])
        return None

    def stop(self, number: int = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        return self.process.wait(LIMIT_S)

    def output(self) -> str:
        return (self.state / "output").read_text()


def is_ready(stack: Stack) -> bool:
    assert stack.process.poll() is None, stack.output()
    status = running(stack.state)
    return status is not None and status.ready


def is_free(state: Path) -> bool:
    """No process of a stack is left: each of them holds the lock."""
    process = subprocess.run([*UP, "--check"], env=environment(state), capture_output=True, text=True, check=False)
    return "No stack is running" in process.stdout and running(state) is None


def environment(state: Path, **more: str) -> dict[str, str]:
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("AII_")}
    return inherited | {"AII_STATE_DIR": str(state)} | more


def up(state: Path, *options: str, **more: str) -> subprocess.CompletedProcess[str]:
    """``aii up`` where it is expected to return by itself."""
    return subprocess.run(
        [*UP, *options], env=environment(state, **more), capture_output=True, text=True, timeout=LIMIT_S, check=False
    )


@pytest.fixture(autouse=True)
def no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("AII_")]:
        monkeypatch.delenv(name)


@pytest.fixture
def state(tmp_path: Path) -> Path:
    return tmp_path / "state with a space"


@contextmanager
def starting(state: Path) -> Iterator[Callable[..., Stack]]:
    """Starts the stack of `state` and waits until it is ready; what still runs at the end is stopped."""
    started: list[Stack] = []

    def start(*options: str) -> Stack:
        state.mkdir(exist_ok=True)
        with (state / "output").open("w") as output:
            process = subprocess.Popen(
                [*UP, *options], env=environment(state), stdout=output, stderr=subprocess.STDOUT, text=True
            )
        started.append(Stack(state, process))
        wait_for(lambda: is_ready(started[-1]))
        return started[-1]

    try:
        yield start
    finally:
        for stack in started:
            stack.open_until_the_end.close()
            if stack.process.poll() is None:
                stack.stop()


@pytest.fixture
def start(state: Path) -> Iterator[Callable[..., Stack]]:
    reserve_ports(state)
    with starting(state) as start:
        yield start


@pytest.fixture
def stack(start: Callable[..., Stack]) -> Stack:
    """A stack for one test, which may kill parts of it."""
    return start(*STORES_ONLY)


@pytest.fixture(scope="module")
def shared_stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """A stack for all tests that leave it as it is."""
    with starting(tmp_path_factory.mktemp("shared") / "state") as start:
        yield start(*STORES_ONLY)


def test_redis_answers_with_the_password_of_the_stack_file_only(shared_stack: Stack) -> None:
    assert shared_stack.redis().ping()
    port = shared_stack.redis().connection_pool.connection_kwargs["port"]
    with redis.Redis(port=port) as anonymous, pytest.raises(redis.AuthenticationError):
        anonymous.ping()


def test_s3_gives_back_what_was_put_into_each_bucket(shared_stack: Stack) -> None:
    store = shared_stack.store()
    for bucket in Bucket:
        store.put(bucket, "a/b.bin", bucket.value.encode(), "application/octet-stream")
    assert [store.get(bucket, "a/b.bin", 100).decode() for bucket in Bucket] == [bucket.value for bucket in Bucket]


def test_a_killed_redis_comes_back_with_its_data(stack: Stack) -> None:
    stack.redis().set("kept", "value")
    before = stack.redis_pid()
    assert before is not None
    os.kill(before, signal.SIGKILL)
    wait_for(lambda: stack.redis_pid() not in (None, before))
    assert stack.redis().get("kept") == "value"


def test_a_restart_is_announced_with_the_path_of_the_log(stack: Stack) -> None:
    before = stack.redis_pid()
    assert before is not None
    os.kill(before, signal.SIGKILL)
    wait_for(lambda: "redis was ended by SIGKILL; starting it again" in stack.output())
    assert str(stack.state / "logs" / "redis.log") in stack.output()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stopped_stack_leaves_no_process_behind(stack: Stack, number: int) -> None:
    assert stack.stop(number) == 0
    assert is_free(stack.state)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a child of its parent's death")
def test_a_killed_supervisor_leaves_no_process_behind(stack: Stack) -> None:
    stack.stop(signal.SIGKILL)
    wait_for(lambda: is_free(stack.state))


def test_a_second_start_finds_the_data_and_the_addresses_of_the_first(start: Callable[..., Stack]) -> None:
    first = start(*STORES_ONLY)
    addresses = first.settings
    first.redis().set("kept", "value")
    first.store().put(Bucket.RESULTS, "kept.json", b"{}", "application/json")
    first.stop()
    second = start(*STORES_ONLY)
    assert second.settings == addresses
    assert second.redis().get("kept") == "value"
    assert second.store().get(Bucket.RESULTS, "kept.json", 10) == b"{}"


def test_stacks_that_want_one_port_at_the_same_moment_all_get_up(tmp_path: Path) -> None:
    """Each finds the port free; those that are too late to listen there take another."""
    port = reserved_port()
    states = [tmp_path / name for name in "abc"]
    for state in states:
        write_stack_file(state / "stack.env", {"redis_url": f"redis://127.0.0.1:{port}/0"})
    with ExitStack() as ends, ThreadPoolExecutor() as threads:
        starts = [ends.enter_context(starting(state)) for state in states]
        stacks = [begun.result() for begun in [threads.submit(start, *STORES_ONLY) for start in starts]]
        assert len({stack.settings.redis_url for stack in stacks}) == len(stacks)
        assert all(stack.redis().ping() for stack in stacks)


def test_a_start_beside_a_running_stack_names_its_addresses_and_ends(shared_stack: Stack) -> None:
    second = up(shared_stack.state, *STORES_ONLY)
    assert second.returncode == 0
    assert f"http://{shared_stack.settings.s3_endpoint}" in second.stdout


def test_a_check_without_a_stack_says_so(state: Path) -> None:
    checked = up(state, "--check")
    assert (checked.returncode, "No stack is running" in checked.stdout) == (3, True)


def test_a_redis_of_the_environment_that_does_not_answer_is_named(state: Path) -> None:
    refused = up(state, *STORES_ONLY, AII_REDIS_URL="redis://:hush@127.0.0.1:1/0")
    assert refused.returncode == 3
    assert "Redis at 127.0.0.1:1 does not answer" in refused.stderr
    assert "hush" not in refused.stdout + refused.stderr


def test_an_s3_of_the_environment_that_does_not_answer_is_named(state: Path) -> None:
    refused = up(state, *STORES_ONLY, AII_S3_ENDPOINT="127.0.0.1:1")
    assert refused.returncode == 3
    assert "S3 at 127.0.0.1:1 does not answer" in refused.stderr


def test_a_stack_uses_the_stores_of_the_environment_and_starts_none(shared_stack: Stack, tmp_path: Path) -> None:
    settings = shared_stack.settings
    guest = tmp_path / "guest"
    process = subprocess.Popen(
        [*UP, *STORES_ONLY],
        env=environment(
            guest,
            AII_REDIS_URL=settings.redis_url.get_secret_value(),
            AII_S3_ENDPOINT=settings.s3_endpoint,
            AII_S3_ACCESS_KEY=settings.s3_access_key.get_secret_value(),
            AII_S3_SECRET_KEY=settings.s3_secret_key.get_secret_value(),
        ),
        stdout=subprocess.DEVNULL,
        text=True,
    )
    try:
        wait_for(lambda: (status := running(guest)) and status.ready)
    finally:
        process.terminate()
        process.wait(LIMIT_S)
    assert not (guest / "redis").exists()
    assert not (guest / "s3").exists()


def test_flower_shows_its_pages_to_who_knows_the_password_only(start: Callable[..., Stack]) -> None:
    pytest.importorskip("flower")
    settings = start("--workers", "0").settings  # ready: the supervisor itself has seen a page with the password
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(f"http://127.0.0.1:{settings.flower_port}/workers", timeout=LIMIT_S)
    refused.value.close()
    assert refused.value.code == 401


def test_nothing_that_a_person_sees_holds_a_secret(shared_stack: Stack) -> None:
    settings = shared_stack.settings
    seen = shared_stack.output() + "".join(log.read_text() for log in (shared_stack.state / "logs").glob("*.log"))
    hidden = (settings.s3_access_key, settings.s3_secret_key, settings.flower_password, settings.redis_url)
    assert not [secret for secret in hidden if secret.get_secret_value() in seen]


def test_what_redis_6_wrote_is_read(start: Callable[..., Stack], state: Path) -> None:
    """Its append-only file is one file: a snapshot's header, or none, and commands."""
    (state / "redis").mkdir(parents=True)
    commands = b"*2\r\n$6\r\nSELECT\r\n$1\r\n0\r\n*3\r\n$3\r\nSET\r\n$4\r\nkept\r\n$5\r\nvalue\r\n"
    (state / "redis" / "appendonly.aof").write_bytes(b"REDIS0009\xff" + bytes(8) + commands)
    stack = start(*STORES_ONLY)
    assert stack.redis().get("kept") == "value"
    stack.stop()
    assert start(*STORES_ONLY).redis().get("kept") == "value"


def test_the_server_in_use_is_named(stack: Stack) -> None:
    assert "redis answers (valkey " in stack.output()
    checked = up(stack.state, "--check")
    assert f"({redis_version(stack.settings)})" in checked.stdout
    assert redis_version(stack.settings) in stack.output()


# Holds the lock as a service does that inherited it, and is stuck.
_STUCK = """
import fcntl, os, signal, sys
lock = open(sys.argv[1], "r+")
fcntl.flock(lock, fcntl.LOCK_EX)  # once the first stack's services are gone
print("stuck", flush=True)
os.kill(os.getpid(), signal.SIGSTOP)
signal.pause()
"""


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a child of its parent's death")
def test_after_a_killed_supervisor_the_next_one_ends_what_is_left_and_starts(
    start: Callable[..., Stack], state: Path
) -> None:
    """A frozen Redis is thawed and asked to end as its supervisor dies; what stays is stuck otherwise."""
    first = start(*STORES_ONLY)
    first.redis().set("kept", "value")
    frozen = first.redis_pid()
    assert frozen is not None
    os.kill(frozen, signal.SIGSTOP)
    first.stop(signal.SIGKILL)
    command = [sys.executable, "-c", _STUCK, str(state / "stack.lock")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as stuck:
        assert stuck.stdout is not None
        assert stuck.stdout.readline() == "stuck\n"
        second = start(*STORES_ONLY)
        assert f"Process {stuck.pid} (python" in second.output()
        assert stuck.wait(LIMIT_S) == -signal.SIGTERM
    assert second.redis().get("kept") == "value"


def test_a_disk_that_takes_nothing_is_named_and_leaves_nothing_that_keeps_the_next_start_from_working(
    start: Callable[..., Stack], state: Path
) -> None:
    """A limit on the size of files takes the place of a full disk."""
    refused = subprocess.run(
        [*UP, *STORES_ONLY],
        env=environment(state),
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        check=False,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0)),
    )
    assert refused.returncode == 3
    assert "Traceback" not in refused.stderr
    assert start(*STORES_ONLY).redis().ping()


def test_output_that_cannot_be_written_stops_neither_the_start_nor_the_stop(state: Path) -> None:
    with Path("/dev/full").open("w") as full:
        process = subprocess.Popen([*UP, *STORES_ONLY], env=environment(state), stdout=full)
    wait_for(lambda: (status := running(state)) and status.ready)
    process.terminate()
    process.wait(LIMIT_S)
    assert is_free(state)
