"""The services of the local stack: how each is started, and the probe that shows that it answers.

Secrets travel in files of mode 0600 or in the environment; a command line is readable by every user of the machine.
"""

from __future__ import annotations

import base64
import os
import socket
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit

import deploy
from deploy.local.programs import rclone, require_module
from deploy.local.redis_server import choose_server
from deploy.local.stack import LOOPBACK, Stack, make_private_folder, write_private
from producer.gateway.tokens import TokenFile, token_file
from producer.hooks.registry import HOOKS
from tasks.connection import connect_redis
from tasks.errors import Unavailable
from tasks.machine import cores, gpus, memory_bytes
from tasks.monitoring.presence import present_workers
from tasks.settings import Settings
from tasks.storage import ObjectStore

PACKAGES = Path(deploy.__file__).resolve().parent.parent
_OURS = ("AII_", "RCLONE_", "FLOWER_", "CELERY_")
_ANSWER_TIMEOUT_S = 5
_MOST_WORKERS = 8
_MOST_WORKERS_OF_GPUS = 16
_GPU_BYTES = 4 * 2**30  # of a worker that shares one: its context, the network in two forms, batches of sixteen
_WORKER_STOP_MARGIN_S = 5.0  # it ends by itself before
_STORE_STOP_S = 10.0
_OWN_SWEEP_S = 5
_INGEST_STOP_S = 20.0
_HOOKS_STOP_S = 20.0  # attempts that have begun are finished
_GATEWAY_STOP_S = 40.0  # requests that have begun are answered first
_WORKER_BYTES = 2 * 2**30  # with what its images take


@dataclass(frozen=True)
class Service:
    """One process to run: `probe` is given its process id and raises Unavailable until it answers."""

    name: str
    command: tuple[str, ...]
    environment: Mapping[str, str] = field(repr=False)
    probe: Callable[[int], None]
    start_timeout_s: float
    stop_timeout_s: float
    detail: str = ""  # said when it answers


def redis_service(stack: Stack, state: Path) -> Service:
    """Writes Redis's configuration, which holds the password."""
    folder = make_private_folder(state / "redis")
    configuration = folder / "redis.conf"
    write_private(configuration, redis_configuration(stack.settings, folder))
    server = choose_server(folder)
    command = (server.path, str(configuration))
    settings, detail = stack.settings, str(server)
    return Service("redis", command, _environment({}), lambda _: ping_redis(settings), 30, _STORE_STOP_S, detail)


def redis_configuration(settings: Settings, folder: Path) -> str:
    """Nothing is ever evicted (an evicted queue is lost work) and every write is on disk within a second."""
    url = urlsplit(settings.redis_url.get_secret_value())
    quoted = str(folder).replace("\\", "\\\\").replace('"', '\\"')
    return (
        f"bind {LOOPBACK}\nport {url.port}\nrequirepass {url.password}\n"
        f'dir "{quoted}"\nappendonly yes\nappendfsync everysec\nsave ""\nmaxmemory-policy noeviction\n'
    )


def ping_redis(settings: Settings) -> None:
    """Raises RedisUnavailable."""
    with connect_redis(settings) as client:
        client.ping()


def redis_version(settings: Settings) -> str:
    """Name and version, as the server says them; raises RedisUnavailable."""
    with connect_redis(settings) as client:
        told = client.info("server")
    name = "valkey" if "valkey_version" in told else "redis"
    return f"{name} {told[f'{name}_version']}"


def s3_service(stack: Stack, state: Path) -> Service:
    """rclone over a folder. The keys are CSV with a comma inside, hence the quotes."""
    settings = stack.settings
    keys = f"{settings.s3_access_key.get_secret_value()},{settings.s3_secret_key.get_secret_value()}"
    folder = make_private_folder(state / "s3")
    cache = make_private_folder(state / "cache" / "rclone")
    command = (rclone(), "serve", "s3", "--config", "", "--cache-dir", str(cache), "--addr", settings.s3_endpoint)
    environment = _environment({"RCLONE_AUTH_KEY": f'"{keys}"'})
    return Service("s3", (*command, str(folder)), environment, lambda _: ensure_buckets(settings), 30, _STORE_STOP_S)


def ensure_buckets(settings: Settings) -> None:
    """Create the buckets that are missing, those of AII_INGEST_BUCKETS too; raises StorageUnavailable."""
    ObjectStore.connect(settings).ensure_buckets(bucket.partition(":")[0] for bucket in settings.ingest_buckets)


def worker_services(stack: Stack, state: Path, count: int) -> list[Service]:
    """`count` processes. On a CPU, several processes of one thread each do more than one process of several threads:
    operations are small, and each ends with its slowest thread."""
    require_module("torch", "worker", "use --workers 0")
    return [_worker_service(stack, state, number, alone=count == 1) for number in range(1, count + 1)]


def _worker_service(stack: Stack, state: Path, number: int, *, alone: bool) -> Service:
    """The first start may compile kernels and warm the extractor, so it may take minutes; a crash ends the wait."""
    settings, variables = stack.settings, _variables(stack, state)
    if not alone:
        variables |= {"OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "1")}
    if settings.device in ("auto", "cuda") and len(found := gpus()) > 1:
        variables |= {"CUDA_VISIBLE_DEVICES": found[(number - 1) % len(found)]}
    if settings.metrics_port:
        variables |= {"AII_METRICS_PORT": str(settings.metrics_port + number - 1)}
    command = (sys.executable, "-m", "workers")
    probe = partial(find_worker, settings)
    stop_timeout_s = settings.stop_timeout_s + _WORKER_STOP_MARGIN_S
    return Service(f"worker-{number}", command, _environment(variables), probe, 180, stop_timeout_s)


def workers_here(settings: Settings) -> int:
    """How many workers suit this machine, within the limits of a container: one for each core, as far as there is
    memory, and no more than one producer and one S3 server keep busy. Several share a GPU, as far as there is memory on
    it: what is done with an image's pixels takes a core four to ten times as long as a GPU takes to optimise it."""
    if settings.device != "cpu" and (found := gpus()):
        used = found if ":" not in settings.device else [settings.device.partition(":")[2]]
        sharing = len(used) * (gpu_memory_bytes(used[0]) // _GPU_BYTES)
        return max(len(used), min(cores(), memory_bytes() // (2 * _WORKER_BYTES), sharing, _MOST_WORKERS_OF_GPUS))
    return max(1, min(cores(), memory_bytes() // _WORKER_BYTES, _MOST_WORKERS))


def gpu_memory_bytes(name: str) -> int:
    """Of the GPU that ``CUDA_VISIBLE_DEVICES`` names so; 0 where the driver does not say."""
    try:
        import pynvml  # noqa: PLC0415  # loads the driver's library: only where there is one
    except ImportError:
        return 0
    try:
        pynvml.nvmlInit()
        by_index, by_id = pynvml.nvmlDeviceGetHandleByIndex, pynvml.nvmlDeviceGetHandleByUUID
        return int(pynvml.nvmlDeviceGetMemoryInfo(by_index(int(name)) if name.isdigit() else by_id(name)).total)
    except pynvml.NVMLError:
        return 0


def find_worker(settings: Settings, pid: int) -> None:
    """Raises Unavailable until the worker that is this machine's process `pid` has reported itself warm."""
    with connect_redis(settings) as client:
        names = [note.worker for note in present_workers(client)]
    if not any(name.startswith(f"{socket.gethostname()}.") and name.endswith(f"-{pid}") for name in names):
        raise Unavailable("The worker has not reported itself ready.")


def flower_service(stack: Stack, state: Path) -> Service:
    require_module("flower", "monitor", "use --no-flower")
    make_private_folder(state / "flower")
    command = (sys.executable, "-m", "deploy.flower")
    return Service(
        "flower", command, _environment(_variables(stack, state)), lambda _: get_flower(stack.settings), 60, 10
    )


def flower_url(settings: Settings) -> str:
    """Where a browser on this machine finds Flower."""
    return _url_here(settings.flower_address, settings.flower_port)


def get_flower(settings: Settings) -> None:
    """Ask for a page that needs the password; raises Unavailable."""
    login = f"{settings.flower_user}:{settings.flower_password.get_secret_value()}".encode()
    request = urllib.request.Request(f"{flower_url(settings)}/workers")
    request.add_header("Authorization", f"Basic {base64.b64encode(login).decode()}")
    _get(request, "Flower", flower_url(settings))


def gateway_wanted(settings: Settings) -> bool:
    """Whether there is a token: without one the HTTP gateway would answer nothing."""
    return bool(settings.gateway_tokens or TokenFile(token_file(settings)).read())


def gateway_service(stack: Stack, state: Path) -> Service:
    require_module("fastapi", "gateway", "remove the tokens (`aii tokens remove`)")
    command = (sys.executable, "-m", "producer", "serve")
    environment = _environment(_variables(stack, state))
    return Service("gateway", command, environment, lambda _: get_gateway(stack.settings), 60, _GATEWAY_STOP_S)


def hooks_service(stack: Stack, state: Path) -> Service:
    require_module("standardwebhooks", "gateway", "remove the hooks (`aii hooks remove`)")
    command = (sys.executable, "-m", "producer", "hooks", "run")
    return Service("hooks", command, _environment(_variables(stack, state)), lambda _: None, 60, _HOOKS_STOP_S)


def hooks_wanted(settings: Settings) -> bool:
    """Whether there is a hook; raises RedisUnavailable."""
    with connect_redis(settings) as client:
        return bool(client.exists(HOOKS))


def ingest_services(stack: Stack, state: Path) -> list[Service]:
    """One for each bucket. Our own S3 tells of no object, so its buckets are listed often."""
    return [_ingest_service(stack, state, *bucket.partition(":")[::2]) for bucket in stack.settings.ingest_buckets]


def _ingest_service(stack: Stack, state: Path, bucket: str, kind: str) -> Service:
    command = [sys.executable, "-m", "producer", "ingest", "--bucket", bucket]
    command += ["--query"] if kind else []
    command += ["--sweep-every", str(_OWN_SWEEP_S)] if stack.owns_s3 else []
    environment = _environment(_variables(stack, state))
    return Service(f"ingest-{bucket}", tuple(command), environment, lambda _: None, 60, _INGEST_STOP_S)


def gateway_url(settings: Settings) -> str:
    """Where a program on this machine finds the HTTP gateway."""
    return _url_here(settings.gateway_address, settings.gateway_port)


def get_gateway(settings: Settings) -> None:
    """Ask for its health; raises Unavailable."""
    _get(urllib.request.Request(f"{gateway_url(settings)}/health"), "The gateway", gateway_url(settings))


def _url_here(address: str, port: int) -> str:
    return f"http://{LOOPBACK if address in ('', '0.0.0.0', '::') else address}:{port}"


def _get(request: urllib.request.Request, what: str, url: str) -> None:
    """Raise Unavailable unless a service on this machine answers, never through a proxy."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        opener.open(request, timeout=_ANSWER_TIMEOUT_S).close()
    except (OSError, urllib.error.URLError) as error:
        raise Unavailable(f"{what} at {url} does not answer: {error}.") from error


def _variables(stack: Stack, state: Path) -> dict[str, str]:
    """The caller's settings, completed by those that the stack supplies."""
    supplied = {f"AII_{name.upper()}": value for name, value in stack.supplied.items()}
    given = {name: value for name, value in os.environ.items() if name.startswith("AII_")}
    return given | supplied | {"AII_STATE_DIR": str(state)}


def _environment(own: Mapping[str, str]) -> dict[str, str]:
    """The caller's environment (PATH, HOME, CUDA…) without variables that would configure the service differently."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(_OURS)}
    return inherited | dict(own)
