"""What a job does while a service is away."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from tasks.errors import (
    InvalidRequest,
    RedisUnavailable,
    StorageRefused,
    StorageUnavailable,
    Unavailable,
    WorkerStopping,
)
from tests.waiting import LIMIT_S, wait_for
from workers.delivery.retry_policy import JobRetryPolicy


class Service:
    """Is away for the first `failures` calls."""

    def __init__(self, failures: float, error: type[Unavailable] = RedisUnavailable) -> None:
        self.calls = 0
        self._failures = failures
        self._error = error

    def __call__(self) -> str:
        self.calls += 1
        if self.calls <= self._failures:
            raise self._error("It does not answer.")
        return "answer"


def test_a_call_is_repeated_until_the_service_is_back(caplog: pytest.LogCaptureFixture) -> None:
    service = Service(failures=9)
    assert JobRetryPolicy(first_s=0.001, longest_s=0.001)(service) == "answer"
    assert service.calls == 10
    assert caplog.text.count("It does not answer. Trying again in") == 9


def test_s3_is_waited_for_through_a_restart_but_no_longer() -> None:
    policy = JobRetryPolicy(first_s=0.001, longest_s=0.001, attempts=4)
    assert policy(Service(failures=3, error=StorageUnavailable)) == "answer"
    away = Service(failures=float("inf"), error=StorageUnavailable)
    with pytest.raises(StorageUnavailable):
        policy(away)
    assert away.calls == 4


def test_what_s3_refuses_is_not_asked_for_again_at_once() -> None:
    refused = Service(failures=float("inf"), error=StorageRefused)
    with pytest.raises(StorageRefused):
        JobRetryPolicy()(refused)
    assert refused.calls == 1


def test_other_errors_pass_at_once() -> None:
    calls = []

    def refuse() -> None:
        calls.append(1)
        raise InvalidRequest("no")

    with pytest.raises(InvalidRequest):
        JobRetryPolicy()(refuse)
    assert calls == [1]


def test_a_stop_ends_the_longest_pause_and_leaves_the_job_to_another_worker() -> None:
    policy, service = JobRetryPolicy(first_s=3_600, longest_s=3_600), Service(failures=float("inf"))
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(policy, service)
        wait_for(lambda: service.calls, "it was not called")
        policy.stop()
        assert isinstance(waiting.exception(LIMIT_S), WorkerStopping)


def test_threads_wait_independently() -> None:
    policy, back = JobRetryPolicy(first_s=0.001, longest_s=0.001), threading.Event()

    def away() -> str:
        if not back.is_set():
            raise RedisUnavailable("Redis does not answer.")
        return "late"

    with ThreadPoolExecutor(2) as pool:
        late = pool.submit(policy, away)
        assert pool.submit(policy, Service(failures=2)).result(LIMIT_S) == "answer"
        assert not late.done()
        back.set()
        assert late.result(LIMIT_S) == "late"
