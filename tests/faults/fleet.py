"""Real workers, in processes of their own, that can be killed, frozen and made to fail at a named point."""

from __future__ import annotations

import os
import resource
import signal
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any, Final, Literal

from tasks.connection import connect_redis
from tasks.names import QUEUES, worker_presence
from tasks.settings import Settings
from tests.forked import fork_worker
from tests.waiting import LIMIT_S, wait_for

__all__ = ["POINTS", "FaultyWorker", "Fleet", "Trap"]

POINTS: Final = (
    "claimed", "fetched", "computed", "file stored", "committed", "before the document", "document stored", "closed",
)  # fmt: skip


@dataclass(frozen=True)
class Trap:
    """A point at which a worker fails, always or for one image only.

    Attributes:
        point: one of POINTS.
        digest: of the image; "" for any.
        action: the worker is killed, or the thread never comes back.
    """

    point: str
    digest: str = ""
    action: Literal["die", "hang"] = "die"


@dataclass(frozen=True)
class Fault:
    """How a worker differs from a healthy one.

    Attributes:
        visibility_timeout_s: after which Celery delivers an unacknowledged message again.
        device_images: the most images that the device has memory for at a time.
        full_disk: no file can grow beyond 100 kB: images pass, segments do not.
    """

    trap: Trap | None = None
    visibility_timeout_s: float | None = None
    device_images: int | None = None
    full_disk: bool = False


class FaultyWorker:
    """One worker process."""

    def __init__(self, process: ForkServerProcess, settings: Settings, log: Path) -> None:
        self._process = process
        self._settings = settings
        self.log = log

    @property
    def pid(self) -> int:
        assert self._process.pid is not None
        return self._process.pid

    @property
    def exit_status(self) -> int | None:
        return self._process.exitcode

    def alive(self) -> bool:
        return self._process.is_alive()

    def ready(self) -> bool:
        with connect_redis(self._settings) as client:
            return bool(client.keys(worker_presence(f"*-{self.pid}")))

    def wait_until_ready(self) -> None:
        wait_for(lambda: not self.alive() or self.ready(), "a worker did not get ready")
        assert self.alive(), f"the worker ended: {self.log.read_text()[-2_000:]}"

    def wait_until_dead(self) -> None:
        self._process.join(LIMIT_S)
        assert not self.alive(), "the worker lives on"

    def kill(self) -> None:
        self._process.kill()
        self._process.join()

    def signal(self, number: int) -> None:
        os.kill(self.pid, number)

    def peak_mb(self) -> float:
        """The most memory that was ever resident."""
        status = Path(f"/proc/{self.pid}/status").read_text()
        return int(status.partition("VmHWM:")[2].split()[0]) / 1024


@dataclass
class Fleet:
    """The workers of one stack. `environment` leads them to its services, maybe through links."""

    settings: Settings
    environment: Mapping[str, str]
    folder: Path
    _healthy: list[FaultyWorker] = field(default_factory=list)
    _others: list[FaultyWorker] = field(default_factory=list)
    _started: int = 0

    def have(self, count: int) -> list[FaultyWorker]:
        """Exactly so many healthy workers, ready, and no other: those that are there, and new ones."""
        self._end(self._others)
        self._healthy = [worker for worker in self._healthy if worker.alive()]
        self._end(self._healthy[count:])
        self._healthy = self._healthy[:count]
        new = [self._fork() for _ in range(count - len(self._healthy))]
        self._healthy += new
        for worker in new:
            worker.wait_until_ready()
        return list(self._healthy)

    @property
    def healthy(self) -> list[FaultyWorker]:
        return list(self._healthy)

    def replace_dead(self) -> None:
        """What a supervisor does: another worker for each that ended. Does not wait for them."""
        for i, worker in enumerate(self._healthy):
            if not worker.alive():
                self._healthy[i] = self._fork()

    def start(self, fault: Fault | None = None, *, wait: bool = True, **environment: str) -> FaultyWorker:
        """A worker of its own kind, which ends with the next :meth:`have`."""
        worker = self._fork(fault, environment)
        self._others.append(worker)
        if wait:
            worker.wait_until_ready()
        return worker

    def peak_mb(self) -> float:
        return max(worker.peak_mb() for worker in self._healthy)

    def end(self) -> None:
        self._end(self._healthy)
        self._end(self._others)

    def _end(self, workers: list[FaultyWorker]) -> None:
        for worker in workers:
            if worker.alive():
                worker.kill()
        workers.clear()

    def _fork(self, fault: Fault | None = None, environment: Mapping[str, str] | None = None) -> FaultyWorker:
        self._started += 1
        log = self.folder / f"worker-{self._started}.log"
        given = {**self.environment, **(environment or {})}
        fault = fault or Fault()
        output = Path(os.devnull) if fault.full_disk else log
        queues = given.pop("QUEUES", ",".join(QUEUES))
        return FaultyWorker(fork_worker(given, queues, output, partial(_make_faulty, fault)), self.settings, log)


# ── in the worker's process ──────────────────────────────────────────────────────────────────────────────────────────


def _make_faulty(fault: Fault) -> None:
    if fault.trap:
        _set_trap(fault.trap)
    if fault.visibility_timeout_s:
        _redeliver_after(fault.visibility_timeout_s)
    if fault.device_images:
        _bound_device(fault.device_images)
    if fault.full_disk:
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, resource.RLIM_INFINITY))


def _set_trap(trap: Trap) -> None:
    from tasks.ledger.ledger import Ledger  # noqa: PLC0415
    from tasks.storage import Bucket, ObjectStore  # noqa: PLC0415

    def act() -> None:
        if trap.action == "die":
            os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(10 * LIMIT_S)

    def into(bucket: Bucket) -> Callable[..., bool]:
        return lambda _, chosen, *__: chosen is bucket

    def fetches(_: Any, __: Bucket, key: str, *___: Any) -> bool:
        return trap.digest in ("", key)

    points: dict[str, Callable[[], None]] = {
        "claimed": lambda: _wrap(Ledger, "claim", after=act),
        "fetched": lambda: _wrap(ObjectStore, "get_verified", after=act, when=fetches),
        "computed": lambda: _wrap(ObjectStore, "put", before=act, when=into(Bucket.PROTECTED)),
        "file stored": lambda: _wrap(ObjectStore, "put", after=act, when=into(Bucket.PROTECTED)),
        "committed": lambda: _wrap(Ledger, "commit", after=act),
        "before the document": lambda: _wrap(ObjectStore, "put", before=act, when=into(Bucket.RESULTS)),
        "document stored": lambda: _wrap(ObjectStore, "put", after=act, when=into(Bucket.RESULTS)),
        "closed": lambda: _wrap(Ledger, "close", after=act),
    }
    points[trap.point]()


def _wrap(
    owner: type,
    name: str,
    *,
    before: Callable[[], None] | None = None,
    after: Callable[[], None] | None = None,
    when: Callable[..., bool] = lambda *_: True,
) -> None:
    """Let a method do something more before or after its work."""
    original = getattr(owner, name)

    def wrapped(*arguments: Any, **options: Any) -> Any:
        met = when(*arguments)
        if met and before:
            before()
        answer = original(*arguments, **options)
        if met and after:
            after()
        return answer

    setattr(owner, name, wrapped)


def _redeliver_after(seconds: float) -> None:
    from workers.delivery import lanes  # noqa: PLC0415

    original = lanes.create_app

    def create_app(settings: Settings) -> Any:
        app = original(settings)
        app.conf.broker_transport_options = {**app.conf.broker_transport_options, "visibility_timeout": seconds}
        return app

    lanes.create_app = create_app  # type: ignore[assignment]


def _bound_device(images: int) -> None:
    import torch  # noqa: PLC0415

    from tests.prepared import warm_as_usual  # noqa: PLC0415
    from workers.activation.engine import Engine  # noqa: PLC0415

    warm_as_usual()
    original = Engine.activate

    def activate(self: Engine, works: Any) -> Any:
        if len(works) > images:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB")
        return original(self, works)

    Engine.activate = activate  # type: ignore[method-assign]
