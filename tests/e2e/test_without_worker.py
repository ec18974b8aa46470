"""What producers and the command line report while no worker, or no service, is there."""

from __future__ import annotations

from pathlib import Path

import pytest

from producer import Producer
from tasks.errors import DeadlineExceeded
from tests.photographs import photographs
from tests.stack import aii


def test_waiting_ends_at_the_callers_time_limit(producer: Producer) -> None:
    with pytest.raises(DeadlineExceeded, match="goes on"):
        producer.activate(photographs()["rocket.jpg"]).wait(0.1)


def test_an_unreachable_service_ends_the_command_line_with_status_3(
    stack_environment: dict[str, str], tmp_path: Path
) -> None:
    (tmp_path / "a.jpg").write_bytes(photographs()["rocket.jpg"])
    away = stack_environment | {"AII_REDIS_URL": "redis://127.0.0.1:1/0"}
    run = aii(away, "activate", str(tmp_path / "a.jpg"))
    assert run.returncode == 3
    assert "127.0.0.1:1 does not answer" in run.stderr


def test_the_command_line_says_that_no_worker_is_running(
    producer: Producer, stack_environment: dict[str, str], tmp_path: Path
) -> None:
    (tmp_path / "a.jpg").write_bytes(photographs()["rocket.jpg"])
    run = aii(stack_environment, "activate", str(tmp_path / "a.jpg"), "--timeout", "0.2")
    assert run.returncode == 1
    assert "deadline_exceeded" in run.stdout
    assert "No worker is running" in run.stderr


def test_wrong_usage_ends_with_status_2(stack_environment: dict[str, str], tmp_path: Path) -> None:
    run = aii(stack_environment, "activate", str(tmp_path))
    assert run.returncode == 2
    assert "There is no image file" in run.stderr
