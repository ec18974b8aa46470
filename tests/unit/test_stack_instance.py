"""One stack to a state folder."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from deploy.local.instance import Instance, Status, claim, running


@pytest.fixture
def instance(tmp_path: Path) -> Iterator[Instance]:
    claimed = claim(tmp_path)
    assert isinstance(claimed, Instance)
    yield claimed
    claimed.close()


def test_an_empty_folder_runs_no_stack(tmp_path: Path) -> None:
    assert running(tmp_path) is None


def test_a_second_claim_learns_who_has_the_first(instance: Instance, tmp_path: Path) -> None:
    assert claim(tmp_path) == Status(os.getpid())


def test_a_status_outlives_a_shorter_one(instance: Instance, tmp_path: Path) -> None:
    instance.report(Status(os.getpid(), lines={"Redis": "x" * 200}))
    instance.report(Status(os.getpid()))
    assert running(tmp_path) == Status(os.getpid())


def test_what_the_supervisor_reports_is_what_others_read(instance: Instance, tmp_path: Path) -> None:
    status = Status(os.getpid(), ready=True, lines={"Redis": "127.0.0.1:1"})
    instance.report(status)
    assert running(tmp_path) == status


def test_a_folder_is_free_once_its_supervisor_is_gone(tmp_path: Path) -> None:
    first = claim(tmp_path)
    assert isinstance(first, Instance)
    first.close()
    assert running(tmp_path) is None
    second = claim(tmp_path)
    assert isinstance(second, Instance)
    second.close()


HOLD = "import sys, time; file = open(sys.argv[1], 'r+'); print('held', flush=True); time.sleep(600)"
DEAF = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); " + HOLD


@pytest.fixture
def leave(tmp_path: Path) -> Iterator[Callable[..., subprocess.Popen[bytes]]]:
    """Leaves the child of a supervisor that was killed: the lock is inherited, its owner is gone."""
    left: list[subprocess.Popen[bytes]] = []

    def leave(code: str) -> subprocess.Popen[bytes]:
        first = claim(tmp_path)
        assert isinstance(first, Instance)
        command = [sys.executable, "-c", code, str(tmp_path / "stack.lock")]
        process = subprocess.Popen(command, pass_fds=[first.descriptor], stdout=subprocess.PIPE, start_new_session=True)
        left.append(process)
        assert process.stdout
        assert process.stdout.readline() == b"held\n"
        first.report(Status(_pid_of_the_past()))
        first.close()
        return process

    yield leave
    for process in left:
        process.kill()
        process.communicate()


def _pid_of_the_past() -> int:
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    return gone.pid


@pytest.mark.parametrize("frozen", [False, True])
def test_what_an_earlier_stack_left_behind_is_named_and_ended(
    leave: Callable[..., subprocess.Popen[bytes]], tmp_path: Path, frozen: bool
) -> None:
    left, said = leave(HOLD), list[str]()
    if frozen:
        left.send_signal(signal.SIGSTOP)
    claimed = claim(tmp_path, said.append, terminate_timeout_s=60)
    assert isinstance(claimed, Instance)
    claimed.close()
    left.wait()
    assert not [line for line in said if "killed" in line]
    assert [line for line in said if f"Process {left.pid} (python" in line and "is ended" in line]


def test_what_does_not_end_when_asked_is_killed(leave: Callable[..., subprocess.Popen[bytes]], tmp_path: Path) -> None:
    left, said = leave(DEAF), list[str]()
    claimed = claim(tmp_path, said.append, terminate_timeout_s=0.1)
    assert isinstance(claimed, Instance)
    claimed.close()
    left.wait()
    assert "is killed" in said[-1]


def test_a_process_that_only_reads_is_not_ended(leave: Callable[..., subprocess.Popen[bytes]], tmp_path: Path) -> None:
    leave(HOLD)
    with (
        (tmp_path / "stack.lock").open("rb"),
        subprocess.Popen(
            [sys.executable, "-c", HOLD.replace("'r+'", "'r'"), str(tmp_path / "stack.lock")], stdout=subprocess.PIPE
        ) as reader,
    ):
        assert reader.stdout
        reader.stdout.readline()
        claimed = claim(tmp_path, terminate_timeout_s=60)
        assert isinstance(claimed, Instance)
        claimed.close()
        assert reader.poll() is None
        reader.kill()


def test_a_supervisor_of_the_first_version_is_not_taken_for_something_left(
    leave: Callable[..., subprocess.Popen[bytes]], tmp_path: Path
) -> None:
    """It holds the one lock that it knows of, and is named in it."""
    supervisor = leave(HOLD)
    text = json.dumps({"pid": supervisor.pid, "ready": True, "lines": {}})
    (tmp_path / "stack.lock").write_text(text)
    assert claim(tmp_path) == Status(supervisor.pid, ready=True)
    assert supervisor.poll() is None
