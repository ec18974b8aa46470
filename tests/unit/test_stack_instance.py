"""One stack to a state folder."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from deploy.local.instance import Instance, Status, claim, running
from tasks.errors import Unavailable


@pytest.fixture
def instance(tmp_path: Path) -> Iterator[Instance]:
    claimed = claim(tmp_path)
    assert isinstance(claimed, Instance)
    yield claimed
    os.close(claimed.descriptor)


def test_an_empty_folder_runs_no_stack(tmp_path: Path) -> None:
    assert running(tmp_path) is None


def test_a_second_claim_learns_who_has_the_first(instance: Instance, tmp_path: Path) -> None:
    assert claim(tmp_path) == Status(os.getpid())


def test_what_the_supervisor_reports_is_what_others_read(instance: Instance, tmp_path: Path) -> None:
    status = Status(os.getpid(), ready=True, lines={"Redis": "127.0.0.1:1"})
    instance.report(status)
    assert running(tmp_path) == status


def test_a_folder_is_free_once_its_supervisor_is_gone(tmp_path: Path) -> None:
    first = claim(tmp_path)
    assert isinstance(first, Instance)
    os.close(first.descriptor)
    assert running(tmp_path) is None
    second = claim(tmp_path)
    assert isinstance(second, Instance)
    os.close(second.descriptor)


def test_a_folder_is_refused_while_children_of_a_dead_supervisor_hold_it(instance: Instance, tmp_path: Path) -> None:
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    instance.report(Status(gone.pid))
    with pytest.raises(Unavailable, match="earlier stack"):
        claim(tmp_path, timeout_s=0)
