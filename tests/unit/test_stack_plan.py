"""Ports, secrets and the file that remembers them."""

from __future__ import annotations

import os
import socket
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from deploy.local.stack import free_port, plan_stack, read_stack_file, write_stack_file
from tasks.errors import InvalidRequest
from tasks.settings import load_settings
from tasks.state_folder import stack_file


@pytest.fixture(autouse=True)
def empty_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No AII_ variable but a fresh state folder."""
    for name in [name for name in os.environ if name.startswith("AII_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AII_STATE_DIR", str(tmp_path / "state"))


@pytest.fixture
def taken_port() -> Iterator[int]:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        yield listener.getsockname()[1]


def test_what_is_written_to_the_stack_file_is_read_back(tmp_path: Path) -> None:
    fields = {"redis_url": "redis://:a-_b@127.0.0.1:1/0", "s3_secret_key": 'it\'s $HOME\\ #"x"'}
    write_stack_file(tmp_path / "stack.env", fields)
    assert read_stack_file(tmp_path / "stack.env") == fields


def test_the_settings_read_the_stack_file_as_it_was_written() -> None:
    stack = plan_stack({})
    write_stack_file(stack_file(), stack.supplied)
    assert load_settings() == stack.settings


def test_the_stack_file_is_readable_by_its_owner_only(tmp_path: Path) -> None:
    write_stack_file(tmp_path / "stack.env", {"s3_secret_key": "x"})
    assert stat.S_IMODE((tmp_path / "stack.env").stat().st_mode) == 0o600


def test_a_line_of_another_program_in_the_stack_file_is_kept(tmp_path: Path) -> None:
    (tmp_path / "stack.env").write_text("AII_DEVICE=cpu\n")
    write_stack_file(tmp_path / "stack.env", {"flower_port": "5555"})
    assert read_stack_file(tmp_path / "stack.env") == {"device": "cpu", "flower_port": "5555"}


def test_a_missing_stack_file_reads_as_empty(tmp_path: Path) -> None:
    assert read_stack_file(tmp_path / "stack.env") == {}


def test_a_second_start_supplies_the_same_ports_and_secrets() -> None:
    first = plan_stack({})
    assert plan_stack(first.supplied) == first


def test_two_first_starts_have_different_secrets() -> None:
    first, second = plan_stack({}), plan_stack({})
    assert first.settings.s3_secret_key != second.settings.s3_secret_key
    assert first.settings.redis_url != second.settings.redis_url


def test_a_redis_of_the_environment_is_used_and_not_supplied(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AII_REDIS_URL", "redis://elsewhere:1/0")
    stack = plan_stack({"redis_url": "redis://:old@127.0.0.1:2/0"})
    assert not stack.owns_redis
    assert stack.settings.redis_url.get_secret_value() == "redis://elsewhere:1/0"


def test_an_s3_of_the_environment_is_used_and_not_supplied(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AII_S3_ENDPOINT", "elsewhere:1")
    stack = plan_stack({"s3_endpoint": "127.0.0.1:2", "s3_access_key": "old"})
    assert not stack.owns_s3
    assert (stack.settings.s3_endpoint, stack.settings.s3_access_key.get_secret_value()) == ("elsewhere:1", "")


def test_a_variable_that_cannot_be_used_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AII_FLOWER_PORT", "many")
    with pytest.raises(InvalidRequest, match="AII_FLOWER_PORT"):
        plan_stack({})


def test_a_taken_port_is_replaced(taken_port: int) -> None:
    assert free_port(taken_port) != taken_port


def test_a_free_port_is_kept(taken_port: int) -> None:
    other = free_port(taken_port)
    assert free_port(other) == other


def test_secrets_do_not_appear_in_the_representation_of_a_stack() -> None:
    stack = plan_stack({})
    assert stack.settings.s3_secret_key.get_secret_value() not in repr(stack)
