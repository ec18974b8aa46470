"""What is started, and what other users of the machine can see of it."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from deploy.local.services import (
    Service,
    flower_service,
    flower_url,
    ping_redis,
    redis_configuration,
    redis_service,
    s3_service,
    worker_services,
    workers_here,
)
from deploy.local.stack import Stack, plan_stack
from tasks.errors import RedisUnavailable, Unavailable
from tasks.machine import cores

Build = Callable[[Stack, Path], Service]


def first_worker(stack: Stack, state: Path) -> Service:
    return worker_services(stack, state, 2)[0]


BUILDERS = [redis_service, s3_service, first_worker, flower_service]


@pytest.fixture
def stack(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Stack:
    for name in [name for name in os.environ if name.startswith("AII_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AII_STATE_DIR", str(tmp_path))
    return plan_stack({})


def secrets_of(stack: Stack) -> list[str]:
    settings = stack.settings
    password = settings.redis_url.get_secret_value().split(":")[2].split("@")[0]
    hidden = (settings.s3_access_key, settings.s3_secret_key, settings.flower_password)
    return [password, *(secret.get_secret_value() for secret in hidden)]


@pytest.mark.parametrize("build", BUILDERS)
def test_no_command_line_holds_a_secret(build: Build, stack: Stack, tmp_path: Path) -> None:
    command = " ".join(build(stack, tmp_path).command)
    assert not [secret for secret in secrets_of(stack) if secret in command]


@pytest.mark.parametrize("build", BUILDERS)
def test_no_representation_of_a_service_holds_a_secret(build: Build, stack: Stack, tmp_path: Path) -> None:
    shown = repr(build(stack, tmp_path))
    assert not [secret for secret in secrets_of(stack) if secret in shown]


@pytest.mark.parametrize("build", [redis_service, s3_service])
def test_the_stores_do_not_see_variables_of_the_caller_that_would_configure_them(
    build: Build, stack: Stack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RCLONE_ADDR", "0.0.0.0:1")
    monkeypatch.setenv("AII_DEVICE", "cpu")
    assert {"RCLONE_ADDR", "AII_DEVICE"}.isdisjoint(build(stack, tmp_path).environment)


def test_the_worker_is_told_the_addresses_and_keeps_the_callers_settings(
    stack: Stack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AII_DEVICE", "cpu")
    environment = first_worker(stack, tmp_path).environment
    assert environment["AII_S3_ENDPOINT"] == stack.settings.s3_endpoint
    assert environment["AII_REDIS_URL"] == stack.settings.redis_url.get_secret_value()
    assert (environment["AII_DEVICE"], environment["AII_STATE_DIR"]) == ("cpu", str(tmp_path))


def test_workers_beside_each_other_share_neither_cores_nor_a_port(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AII_METRICS_PORT", "9100")
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    several = [s.environment for s in worker_services(plan_stack({}), tmp_path, 3)]
    assert [e["OMP_NUM_THREADS"] for e in several] == ["1", "1", "1"]
    assert [e["AII_METRICS_PORT"] for e in several] == ["9100", "9101", "9102"]
    (alone,) = worker_services(plan_stack({}), tmp_path, 1)
    assert "OMP_NUM_THREADS" not in alone.environment


def test_a_processor_gets_a_worker_for_each_core_that_may_be_used(
    stack: Stack, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AII_DEVICE", "cpu")
    monkeypatch.setattr("deploy.local.services._WORKER_BYTES", 1)
    assert workers_here(plan_stack({}).settings) == min(8, cores())
    monkeypatch.setattr("deploy.local.services._WORKER_BYTES", 2**60)
    assert workers_here(plan_stack({}).settings) == 1


def test_workers_for_each_core_share_the_gpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    monkeypatch.setattr("deploy.local.services._WORKER_BYTES", 1)
    monkeypatch.setattr("deploy.local.services.cores", lambda: 12)
    monkeypatch.setattr("deploy.local.services.gpu_memory_bytes", lambda name: 0)
    stack = plan_stack({})
    assert workers_here(stack.settings) == 2  # no driver says what memory they have
    monkeypatch.setattr("deploy.local.services.gpu_memory_bytes", lambda name: 80 * 2**30)
    assert workers_here(stack.settings) == 12
    environments = [s.environment for s in worker_services(stack, tmp_path, 3)]
    assert [e["CUDA_VISIBLE_DEVICES"] for e in environments] == ["0", "1", "0"]
    monkeypatch.setattr("deploy.local.services.cores", lambda: 64)
    assert workers_here(stack.settings) == 16
    monkeypatch.setattr("deploy.local.services.gpu_memory_bytes", lambda name: 8 * 2**30)
    assert workers_here(stack.settings) == 4
    monkeypatch.setattr("deploy.local.services.cores", lambda: 1)
    assert workers_here(stack.settings) == 2  # no GPU is left without one


def test_the_redis_configuration_is_readable_by_its_owner_only(stack: Stack, tmp_path: Path) -> None:
    configuration = Path(redis_service(stack, tmp_path).command[-1])
    assert stat.S_IMODE(configuration.stat().st_mode) == 0o600


def test_redis_keeps_what_it_accepted_and_listens_on_this_machine_only(stack: Stack, tmp_path: Path) -> None:
    lines = redis_configuration(stack.settings, tmp_path).splitlines()
    assert {"bind 127.0.0.1", "appendonly yes", "appendfsync everysec", "maxmemory-policy noeviction"} <= set(lines)


def test_a_missing_package_is_named_with_its_extra(
    stack: Stack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(Unavailable, match="extra `worker`"):
        first_worker(stack, tmp_path)


def test_a_redis_that_does_not_answer_is_named_without_its_password(stack: Stack) -> None:
    with pytest.raises(RedisUnavailable, match=r"127\.0\.0\.1:\d+") as caught:
        ping_redis(stack.settings)
    assert secrets_of(stack)[0] not in caught.value.message


def test_flower_on_every_interface_is_still_opened_on_this_machine(
    stack: Stack, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AII_FLOWER_ADDRESS", "0.0.0.0")
    settings = plan_stack({}).settings
    assert flower_url(settings) == f"http://127.0.0.1:{settings.flower_port}"
