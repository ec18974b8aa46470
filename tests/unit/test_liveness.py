"""What a worker that does not get on says of itself."""

from __future__ import annotations

import json
import socket

import pytest

from tasks.errors import NotReady, RedisUnavailable
from tasks.monitoring.metrics import Counters
from tasks.periodic import PeriodicThread
from tests.health import probe
from tests.waiting import LIMIT_S
from workers.delivery.pulse import Pulse
from workers.monitoring.health import HealthServer, Readiness


def live(port: int) -> tuple[int, dict[str, object]]:
    status, body = probe(port, "/live")
    return status, json.loads(body)


def test_a_worker_that_is_stuck_says_so_where_it_is_asked_whether_it_lives() -> None:
    stuck: dict[str, str] = {}
    server = HealthServer("127.0.0.1", 0, Readiness(), Counters, lambda: stuck)
    server.start()
    assert live(server.port) == (200, {"live": True, "stuck": {}})
    stuck["lanes"] = "It is stuck."
    assert live(server.port) == (503, {"live": False, "stuck": stuck})
    server.stop()


def test_a_connection_that_says_nothing_is_closed() -> None:
    server = HealthServer("127.0.0.1", 0, Readiness(), Counters, silent_s=0.1)
    server.start()
    with socket.create_connection(("127.0.0.1", server.port), timeout=LIMIT_S) as silent:
        assert silent.recv(1) == b""
    server.stop()


class Redis:
    away = False

    def ping(self) -> None:
        if self.away:
            raise RedisUnavailable("Redis does not answer.")


def test_a_lane_that_does_not_turn_is_stuck_unless_it_waits_for_redis() -> None:
    redis, now = Redis(), [0.0]
    pulse = Pulse(redis.ping, lambda: now[0])
    pulse.beat("query@w")
    now[0] = 170.0
    pulse.check()
    now[0] = 190.0
    with pytest.raises(NotReady, match="query@w"):
        pulse.check()
    redis.away = True
    pulse.check()
    redis.away, now[0] = False, 300.0
    pulse.check()
    now[0] = 380.0
    with pytest.raises(NotReady):
        pulse.check()


def test_a_background_thread_that_was_stopped_or_never_started_has_not_died() -> None:
    thread = PeriodicThread("one", 60.0, lambda: None)
    thread.check_alive()
    thread.start()
    thread.check_alive()
    thread.stop()
    thread.check_alive()
