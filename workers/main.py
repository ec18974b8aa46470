"""The composition root of a worker: opens and warms everything once, and refuses to start when something is missing."""

from __future__ import annotations

import importlib.metadata
import logging
import os
import socket
import warnings
from collections.abc import Sequence
from contextlib import ExitStack
from functools import partial
from typing import Any, Final

import torch
from celery.exceptions import CPendingDeprecationWarning

from tasks.app import Sender, create_app, submit
from tasks.connection import connect_redis
from tasks.errors import ExtractorMismatch
from tasks.ledger.ledger import Ledger
from tasks.messages import ActivateRequest, CompactRequest, ExtractRequest, QueryRequest
from tasks.monitoring.metrics import Metrics
from tasks.monitoring.presence import WorkerNote
from tasks.names import QUEUES
from tasks.periodic import PeriodicThread
from tasks.results import ExtractorIdentity
from tasks.settings import Settings, state_dir
from tasks.storage import ObjectStore
from workers.activation.engine import BATCH_IMAGES
from workers.delivery.job_runner import Identity, JobRunner, Kind, RetryPolicy
from workers.delivery.lanes import lanes_for, run_lanes
from workers.delivery.leases import Leases
from workers.delivery.reconciler import LostPlaces, Reconciler
from workers.device.device import Device
from workers.extractors.base import Extractor
from workers.extractors.registry import load_extractor, pick_device
from workers.handlers.image_jobs import Handlers
from workers.handlers.index_jobs import IndexHandlers
from workers.handlers.pixel_budget import PixelBudget
from workers.images import Limits
from workers.index.collection.follower import Follower
from workers.index.collection.open_collections import OpenCollections
from workers.index.maintenance import starter
from workers.monitoring.health import HealthServer, Readiness
from workers.monitoring.presence import Presence, memory_bytes
from workers.monitoring.recorder import Recorder

logger = logging.getLogger(__name__)

_PACKAGES: Final = ("active-image-indexing", "torch", "faiss-gpu", "faiss-cpu", "pillow", "celery")


def run_worker(settings: Settings, queues: Sequence[str] = QUEUES) -> int:
    """Build a worker, serve the queues until a signal ends it; returns the exit status.

    Raises:
        AiiError: Redis or S3 does not answer, or the extractor cannot be loaded.
    """
    # Damaged EXIF makes Pillow warn in thousands of different words, each of which Python would remember for ever.
    warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.")
    # Said at every lost connection, of a default to come: our jobs end by themselves, and the ledger knows them.
    warnings.filterwarnings("ignore", category=CPendingDeprecationWarning)
    client = connect_redis(settings)
    recorder, readiness = Recorder(Metrics(client)), Readiness()
    with ExitStack() as running:  # what is started last is stopped first
        if settings.metrics_port:  # before all that can take long: a worker that still starts is alive
            health = HealthServer(settings.metrics_address, settings.metrics_port, readiness, lambda: recorder.total)
            health.start()
            running.callback(health.stop)
        store, ledger = ObjectStore.connect(settings), Ledger.connect(settings)
        readiness.starting("Redis and S3 are asked.")
        ledger.check()
        store.ensure_buckets()
        readiness.starting("The extractor is loaded.")
        extractor = load_extractor(settings.extractor, pick_device(settings.device), store)
        identity = Identity(
            worker=f"{socket.gethostname()}-{os.getpid()}", device=_describe(extractor.device), versions=_versions()
        )
        collections = OpenCollections(store, client, state_dir() / "cache", extractor.identity)
        _open_starter(collections, extractor.identity)
        sender = Sender(create_app(settings), settings)
        places = {queue: LostPlaces(settings.grace_s) for queue in QUEUES}
        reconciler = Reconciler(ledger, sender, client, settings.reconcile_every_s, places)
        readiness.starting("The extractor is warmed.")
        device = _device(settings, extractor, running)
        leases, retry_policy = Leases(ledger, settings.lease_s), RetryPolicy()
        note = partial(_note, identity, extractor, queues, settings, collections)
        presence = Presence(client, identity.worker, note)
        follower = Follower(collections, settings.compact_after, partial(submit, ledger, sender))
        reconciling = PeriodicThread("reconciler", settings.reconcile_every_s, reconciler.run_once)
        for part in (recorder, leases.thread, follower.thread, reconciling):
            part.start()
            running.callback(part.stop)
        running.callback(retry_policy.stop)
        running.callback(presence.stop)
        readiness.started(
            {"redis": ledger.check, "s3": store.check, "warm": presence.check, "collection": collections.check}
        )
        runner = JobRunner(ledger, store, leases, identity, retry_policy, recorder.observe)
        done = kinds(settings, store, collections, device, extractor)
        return run_lanes(lanes_for(queues, settings), settings, identity.worker, runner, done, presence.start)


def kinds(
    settings: Settings, store: ObjectStore, collections: OpenCollections, device: Device, extractor: Extractor
) -> list[Kind[Any]]:
    """The kinds of jobs a worker does."""
    limits = Limits.of(settings)
    budget, known, side = PixelBudget(settings.pixels_in_flight), extractor.identity, extractor.input_size
    handlers = Handlers(store, collections, device, known, side, limits, budget)
    index_handlers = IndexHandlers(store, collections, device, known, side, limits)
    return [
        Kind(ActivateRequest, handlers.activate, handlers.restore_activation),
        Kind(QueryRequest, handlers.query),
        Kind(CompactRequest, index_handlers.compact),
        Kind(ExtractRequest, index_handlers.extract),
    ]


def _device(settings: Settings, extractor: Extractor, running: ExitStack) -> Device:
    """The device, started and warm: the first job shall not pay for the extractor's preparation."""
    device = Device(extractor, batch_images=_batch_images(settings, extractor))
    device.start()
    running.callback(device.stop)
    device.extract(torch.full((3, extractor.input_size, extractor.input_size), 0.5))
    return device


def _batch_images(settings: Settings, extractor: Extractor) -> int:
    return settings.batch_images or BATCH_IMAGES[extractor.device.type]


def _note(
    identity: Identity, extractor: Extractor, queues: Sequence[str], settings: Settings, collections: OpenCollections
) -> WorkerNote:
    """What this worker says of itself now."""
    on_cuda = extractor.device.type == "cuda"
    return WorkerNote(
        worker=identity.worker,
        pid=os.getpid(),
        device=identity.device,
        extractor=extractor.name,
        queues=list(queues),
        batch_images=_batch_images(settings, extractor),
        memory_bytes=memory_bytes(),
        device_memory_bytes=torch.cuda.memory_allocated(extractor.device) if on_cuda else None,
        collections=collections.states(),
    )


def _open_starter(collections: OpenCollections, extractor: ExtractorIdentity) -> None:
    """Publish the starter collection where it is missing, and map it. One that belongs to another extractor does not
    keep the worker from serving other collections: its jobs are refused one by one."""
    try:
        files, journal = collections.files(starter.NAME), collections.journal(starter.NAME)
        starter.publish_starter(files, journal, extractor, collections.write_lock)
        collections.get(starter.NAME)
    except ExtractorMismatch as error:
        logger.error("%s", error)


def _describe(device: torch.device) -> str:
    if device.type == "cuda":
        return f"cuda ({torch.cuda.get_device_name(device)})"
    return f"cpu ({torch.get_num_threads()} threads)"


def _versions() -> dict[str, str]:
    """Versions of what has a say in the result, of those packages that are installed."""
    installed = {d.metadata["Name"].lower(): d.version for d in importlib.metadata.distributions()}
    return {name: installed[name] for name in _PACKAGES if name in installed}
