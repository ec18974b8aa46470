"""The composition root of a worker: opens and warms everything once, and refuses to start when something is missing."""

from __future__ import annotations

import datetime
import importlib.metadata
import logging
import os
import socket
import warnings
from collections.abc import Sequence
from typing import Any, Final

import torch

from tasks.app import Sender, create_app, submit
from tasks.connection import connect_redis, redis_address
from tasks.errors import ExtractorMismatch
from tasks.ledger import Ledger
from tasks.messages import ActivateRequest, CompactRequest, ExtractRequest, QueryRequest
from tasks.metrics import Metrics
from tasks.names import QUEUES, TASK_ACTIVATE, TASK_COMPACT, TASK_EXTRACT, TASK_QUERY
from tasks.presence import WorkerNote
from tasks.results import ExtractorIdentity
from tasks.settings import Settings, state_dir
from tasks.storage import ObjectStore
from workers.collections import Collections
from workers.extractors.base import Extractor
from workers.extractors.registry import load_extractor, pick_device
from workers.follower import Follower
from workers.handlers import Handlers
from workers.images import Limits
from workers.index import starter
from workers.index_jobs import IndexHandlers
from workers.jobs import Identity, JobRunner, Kind, Patience
from workers.lanes import lanes_for, run_lanes
from workers.leases import Leases
from workers.memory import PixelBudget
from workers.presence import Presence, memory_bytes
from workers.reconciler import LostPlaces, Reconciler, reconciler_step
from workers.recorder import Recorder
from workers.scheduler import DeviceThread

logger = logging.getLogger(__name__)

_BATCH_IMAGES: Final = {"cpu": 4, "cuda": 64}
_PACKAGES: Final = ("active-image-indexing", "torch", "faiss-gpu", "faiss-cpu", "pillow", "celery")


def run_worker(settings: Settings, queues: Sequence[str] = QUEUES) -> int:
    """Build a worker, serve the queues until a signal ends it; returns the exit status.

    Raises:
        AiiError: Redis or S3 does not answer, or the extractor cannot be loaded.
    """
    # Damaged EXIF makes Pillow warn in thousands of different words, each of which Python would remember for ever.
    warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.")
    store = ObjectStore.connect(settings)
    ledger = Ledger.connect(settings)
    ledger.check()
    store.ensure_buckets()
    extractor = load_extractor(settings.extractor, pick_device(settings.device), store)
    identity = Identity(
        worker=f"{socket.gethostname()}-{os.getpid()}", device=_describe(extractor.device), versions=_versions()
    )
    known = extractor.identity
    client, address = connect_redis(settings), redis_address(settings)
    collections = Collections(store, client, address, state_dir() / "cache", known)
    _open_starter(collections, known)
    batch_images = settings.batch_images or _BATCH_IMAGES[extractor.device.type]
    device = DeviceThread(extractor, batch_images=batch_images)
    device.start()
    _warm(device, extractor)
    leases, patience = Leases(ledger, settings.lease_s), Patience()
    leases.start()
    limits = Limits(max_bytes=settings.max_image_bytes, max_pixels=settings.max_image_pixels)
    budget = PixelBudget(settings.pixels_in_flight)
    handlers = Handlers(store, collections, device, known, extractor.input_size, limits, budget)
    index_handlers = IndexHandlers(store, collections, device, known, extractor.input_size, limits)
    sender = Sender(create_app(settings), settings)
    reconciler = Reconciler(
        ledger=ledger,
        sender=sender,
        client=client,
        address=address,
        every_s=settings.reconcile_every_s,
        places={queue: LostPlaces(settings.grace_s) for queue in QUEUES},
    )
    recorder = Recorder(Metrics(client, address))
    recorder.start()
    began_at = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")

    def note() -> WorkerNote:
        return WorkerNote(
            worker=identity.worker,
            pid=os.getpid(),
            device=identity.device,
            extractor=known.name,
            queues=list(queues),
            batch_images=batch_images,
            memory_bytes=memory_bytes(),
            device_memory_bytes=torch.cuda.memory_allocated() if extractor.device.type == "cuda" else None,
            collections=collections.states(),
            started_at=began_at,
        )

    presence = Presence(client, identity.worker, note)
    follower = Follower(collections, settings.compact_after, lambda request: submit(ledger, sender, request))
    follower.start()
    try:
        runner = JobRunner(ledger, store, leases, identity, patience, recorder.observe)
        lanes = lanes_for(queues, settings)
        step, done = reconciler_step(reconciler), kinds(handlers, index_handlers)
        return run_lanes(lanes, settings, identity.worker, runner, done, step, presence.start)
    finally:
        follower.stop()
        presence.stop()
        recorder.stop()
        patience.stop()
        leases.stop()
        device.stop()


def kinds(handlers: Handlers, index_handlers: IndexHandlers) -> list[Kind[Any]]:
    """The kinds of jobs a worker does."""
    return [
        Kind(TASK_COMPACT, CompactRequest, index_handlers.compact),
        Kind(TASK_EXTRACT, ExtractRequest, index_handlers.extract),
        Kind(TASK_ACTIVATE, ActivateRequest, handlers.activate, handlers.restore_activation),
        Kind(TASK_QUERY, QueryRequest, handlers.query),
    ]


def _open_starter(collections: Collections, extractor: ExtractorIdentity) -> None:
    """Publish the starter collection where it is missing, and map it. One that belongs to another extractor does not
    keep the worker from serving other collections: its jobs are refused one by one."""
    try:
        starter.publish_starter(collections.files(starter.NAME), extractor)
        collections.get(starter.NAME)
    except ExtractorMismatch as error:
        logger.error("%s", error)


def _describe(device: torch.device) -> str:
    if device.type == "cuda":
        return f"cuda ({torch.cuda.get_device_name(device)})"
    return f"cpu ({torch.get_num_threads()} threads)"


def _warm(device: DeviceThread, extractor: Extractor) -> None:
    """Run the extractor once, so that the first job does not pay for its preparation."""
    device.extract(torch.full((3, extractor.input_size, extractor.input_size), 0.5))


def _versions() -> dict[str, str]:
    """Versions of what has a say in the result, of those packages that are installed."""
    installed = {d.metadata["Name"].lower(): d.version for d in importlib.metadata.distributions()}
    return {name: installed[name] for name in _PACKAGES if name in installed}
