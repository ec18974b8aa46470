"""A set of Redis that fails over: a primary, a replica, and three sentinels that watch them."""

from __future__ import annotations

import signal
import subprocess
from contextlib import suppress
from pathlib import Path

import redis

from deploy.local.redis_server import choose_server
from tests.ports import reserved_port
from tests.waiting import wait_for

__all__ = ["SentinelSet"]

_PASSWORD = "of-the-set"
_SENTINELS_PASSWORD = "of-the-sentinels"
NAME = "aii-primary"
_PERIODS = ("publish-period", 200, "info-period", 500, "ask-period", 200, "slave-reconf-timeout", 1_000)


class SentinelSet:
    """Five processes. Not running yet; give it `stop` at the end."""

    def __init__(self, folder: Path, program: str | None = None) -> None:
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self._program = program or choose_server(folder).path
        self._servers = [reserved_port(), reserved_port()]
        self.sentinels = [reserved_port() for _ in range(3)]
        self._processes: dict[int, subprocess.Popen[bytes]] = {}
        hosts = ",".join(f"127.0.0.1:{port}" for port in self.sentinels)
        self.url = f"sentinel://:{_PASSWORD}@{hosts}/{NAME}/0?sentinel_password={_SENTINELS_PASSWORD}"
        self.password = _PASSWORD

    def start(self) -> None:
        first, second = self._servers
        self._start_server(first, "")
        self._start_server(second, f"replicaof 127.0.0.1 {first}")
        # Sentinels ask for replicas when they start, and then every ten seconds.
        wait_for(self._synced, "the replica did not reach the primary")
        for port in self.sentinels:
            self._start(port, f"port {port}\nrequirepass {_SENTINELS_PASSWORD}\n"
                f"sentinel sentinel-pass {_SENTINELS_PASSWORD}\n"
                f"sentinel monitor {NAME} 127.0.0.1 {first} 2\nsentinel auth-pass {NAME} {_PASSWORD}\n"
                f"sentinel down-after-milliseconds {NAME} 3000\nsentinel failover-timeout {NAME} 10000\n",
                "--sentinel")  # fmt: skip
        for port in self.sentinels:
            wait_for(lambda: self._hastened(port), "a sentinel does not answer")  # noqa: B023  # called at once
        wait_for(self._complete, "the sentinels did not find each other and the replica")

    def primary(self) -> int:
        """The port of the server that the sentinels call the primary."""
        for port in self.sentinels:
            with suppress(redis.RedisError), self.asked(port, _SENTINELS_PASSWORD) as sentinel:
                return int(sentinel.sentinel_get_master_addr_by_name(NAME)[1])
        raise AssertionError("no sentinel answers")

    def replica(self) -> int:
        return next(port for port in self._servers if port != self.primary())

    def kill_primary(self) -> int:
        """As a machine that loses its power; returns its port, to bring it back."""
        port = self.primary()
        self._end(port)
        return port

    def lose_replica(self) -> int:
        """Nothing that is written from now on reaches the replica; returns its port, for `promote`."""
        replica = self.replica()
        self._processes[replica].send_signal(signal.SIGSTOP)
        with self.asked(self.primary()) as primary:
            primary.execute_command("CLIENT", "KILL", "TYPE", "replica")
        return replica

    def promote(self, replica: int) -> None:
        """Kill the primary, and let a lost replica take its place as it is."""
        self.kill_primary()
        self._processes[replica].send_signal(signal.SIGCONT)
        wait_for(lambda: self.primary() == replica, "the replica was not promoted")

    def bring_back(self, port: int) -> None:
        """With its data, and as the primary that it was: the sentinels make a replica of it."""
        self._start_server(port, "")

    def stop(self) -> None:
        for port in list(self._processes):
            self._end(port)

    def asked(self, port: int, password: str = _PASSWORD) -> redis.Redis:
        """A client of one process of the set."""
        return redis.Redis(port=port, password=password, decode_responses=True, socket_timeout=10)

    def _hastened(self, port: int) -> bool:
        """Let a sentinel ask and tell several times a second, where it is new enough: else it takes seconds to notice
        anything."""
        with suppress(redis.ConnectionError), self.asked(port, _SENTINELS_PASSWORD) as sentinel:
            with suppress(redis.ResponseError):
                sentinel.execute_command("SENTINEL", "DEBUG", *_PERIODS)
            return True
        return False

    def _complete(self) -> bool:
        """Whether every sentinel knows the two others and the replica."""
        with suppress(redis.RedisError):
            states = []
            for port in self.sentinels:
                with self.asked(port, _SENTINELS_PASSWORD) as sentinel:
                    states.append(sentinel.sentinel_master(NAME))
            return all(s["num-other-sentinels"] == 2 and s["num-slaves"] == 1 for s in states)
        return False

    def _synced(self) -> bool:
        """Whether the replica has the primary's data."""
        with suppress(redis.RedisError), self.asked(self._servers[1]) as replica:
            return bool(replica.info("replication")["master_link_status"] == "up")
        return False

    def _start_server(self, port: int, role: str) -> None:
        folder = self._folder / str(port)
        folder.mkdir(exist_ok=True)
        self._start(port, f"port {port}\nrequirepass {_PASSWORD}\nmasterauth {_PASSWORD}\nappendonly yes\n"
            f'save ""\nmaxmemory-policy noeviction\nrepl-diskless-sync-delay 0\n{role}\n')  # fmt: skip

    def _start(self, port: int, configuration: str, *options: str) -> None:
        folder = self._folder / str(port)
        folder.mkdir(exist_ok=True)
        file = folder / "redis.conf"
        if not file.exists():  # the sentinels write what they learnt into it
            file.write_text(f"bind 127.0.0.1\ndir {folder}\n{configuration}")
        with (folder / "log").open("a") as log:
            self._processes[port] = subprocess.Popen([self._program, str(file), *options], stdout=log, stderr=log)

    def _end(self, port: int) -> None:
        process = self._processes.pop(port, None)
        if process:
            process.kill()
            process.wait()
