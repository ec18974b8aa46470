"""The composition root of a worker: opens and warms everything once, and refuses to start when something is missing."""

from __future__ import annotations

import gc
import importlib.metadata
import logging
import os
import shutil
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from functools import cached_property, partial

import torch

from tasks.app import Sender, create_app, submit
from tasks.connection import connect_redis
from tasks.errors import JobMissing
from tasks.ledger.dead_letters import DeadLetters
from tasks.ledger.ledger import Ledger
from tasks.ledger.operations import Operations
from tasks.machine import memory_bytes as memory_limit
from tasks.monitoring.metrics import Metrics
from tasks.monitoring.presence import WorkerNote
from tasks.monitoring.series import Series
from tasks.names import QUEUES
from tasks.periodic import PeriodicThread
from tasks.results import Result
from tasks.settings import Settings
from tasks.shards import Shard
from tasks.state_folder import state_dir
from tasks.storage import ObjectStore
from tasks.tracing import JobTracer, tracer_of
from workers.activation.engine import BATCH_IMAGES
from workers.delivery.handing_back import hand_back_and_end
from workers.delivery.identity import Identity
from workers.delivery.isolation import Isolation
from workers.delivery.job_runner import JobRunner, Services
from workers.delivery.lanes import lanes_for, run_lanes, worker_app
from workers.delivery.leases import Leases
from workers.delivery.pulse import Pulse
from workers.delivery.reconciler import LostPlaces, Reconciler
from workers.delivery.retry_policy import JobRetryPolicy
from workers.delivery.revoked import Revocations
from workers.delivery.set_aside import SetAside
from workers.delivery.stopping import StopDeadline
from workers.device.device import Device
from workers.extractors.base import Extractor
from workers.extractors.registry import load_extractor, pick_device, why_no_gpu
from workers.handlers.credentials import Credentials, SigningKey
from workers.handlers.kinds import kinds_of_jobs
from workers.handlers.pixel_budget import PixelBudget, within_memory
from workers.handlers.resources import Resources
from workers.images import Limits
from workers.images.compiled import load_kernels
from workers.index.codec.gpu import use_gpu
from workers.index.collection.follower import Follower
from workers.index.collection.open_collections import OpenCollections
from workers.index.maintenance.continuity import Continuity
from workers.index.maintenance.starter import open_starter
from workers.index.shards.answering import ShardServer
from workers.index.shards.asking import ShardPeers
from workers.monitoring.gpu import gpu_state
from workers.monitoring.health import Check, HealthServer, Readiness, failed_checks
from workers.monitoring.presence import Presence, memory_bytes
from workers.monitoring.recorder import Recorder
from workers.monitoring.warnings_of_libraries import silence_libraries

logger = logging.getLogger(__name__)

_SERIES_EVERY_S = 10.0


def run_worker(settings: Settings, queues: Sequence[str] = QUEUES) -> int:
    """Build a worker, serve the queues until a signal ends it; returns the exit status.

    Raises:
        AiiError: Redis or S3 does not answer, or the extractor cannot be loaded.
    """
    silence_libraries()
    with ExitStack() as running:  # what is started last is stopped first
        return _Worker(settings, queues).run(running)


class _Worker:
    """The parts of a worker. Each property makes its part at the first use; :meth:`run` says in which order."""

    def __init__(self, settings: Settings, queues: Sequence[str]) -> None:
        self._settings = settings
        self._queues = queues
        self._readiness = Readiness()
        self._vital: dict[str, Check] = {}
        self._redis = connect_redis(settings)
        metrics = Metrics(self._redis)
        self._recorder, self._series = Recorder(metrics), Series(self._redis, metrics)
        self._retry_policy = JobRetryPolicy()
        self._background: list[PeriodicThread] = []

    def run(self, running: ExitStack) -> int:
        """Open, warm, start, serve; `running` is told what to stop in the end."""
        self._serve_health(running)
        self._check_services()
        self._load_extractor()
        self._warm_device(running)
        background = self._background = self._start_background(running)
        self._readiness.started(self._checks(background))
        self._vital = {
            "lanes": self._pulse.check,
            "device": self._device.check,
            "deadlines": self._runner.deadlines.check,
            **{thread.name: thread.check_alive for thread in background},
        }
        StopDeadline(self._settings.stop_timeout_s, self._leases.count, self._give_up_waiting).watch()
        Revocations(Operations.connect(self._settings), self._store).replace_celerys()
        kinds = kinds_of_jobs(self._resources, self._settings)
        make_app = partial(worker_app, self._settings, self._runner, kinds, self._set_aside, self._pulse)
        lanes = lanes_for(self._queues, self._settings)
        _leave_out_of_collections()
        return run_lanes(lanes, self._identity.worker, make_app, self._presence.start)

    # ── the steps of the start ───────────────────────────────────────────────────────────────────────────────────────

    def _serve_health(self, running: ExitStack) -> None:
        """First of all, because the other steps may take long: a worker that still starts is alive."""
        settings = self._settings
        if settings.metrics_port:
            counters = lambda: self._recorder.total  # noqa: E731  # a property, asked anew at every scrape
            health = HealthServer(
                settings.metrics_address, settings.metrics_port, self._readiness, counters, self._stuck
            )
            health.start()
            running.callback(health.stop)

    def _check_services(self) -> None:
        self._credentials = Credentials(SigningKey.of(self._settings))  # a key that cannot be used is told at once
        self._readiness.starting("Redis and S3 are asked.")
        self._ledger.check()
        self._store.ensure_buckets()

    def _load_extractor(self) -> None:
        self._readiness.starting("The extractor is loaded.")
        logger.info("Extractor %s is loaded", self._extractor.name)
        use_gpu(self._extractor.device)
        reason = why_no_gpu() if self._settings.device == "auto" else None
        self._readiness.notes["device"] = self._identity.device + (f": {reason}" if reason else "")

    def _warm_device(self, running: ExitStack) -> None:
        """Start the device after batches of all sizes, forwards and backwards: no job pays for the first of its
        size, and none for compiling."""
        self._readiness.starting("Loops over pixels are compiled, or loaded.")
        load_kernels()
        self._readiness.starting("The starter collection is opened.")
        codec = open_starter(self._collections, self._extractor.identity)
        self._readiness.starting("The extractor is warmed.")
        self._device.warm(codec)
        self._device.start()
        running.callback(self._device.stop)

    def _start_background(self, running: ExitStack) -> list[PeriodicThread]:
        """Start what runs beside the jobs; presence is announced later, once the worker takes messages."""
        follower = Follower(
            self._collections, self._settings.compact_after, partial(submit, self._ledger, self._sender)
        )
        reconciler = PeriodicThread("reconciler", self._settings.reconcile_every_s, self._reconciler.run_once)
        background = [
            self._recorder.thread, self._leases.thread, follower.thread, reconciler, self._set_aside.thread,
            self._runner.deadlines.thread, PeriodicThread("series", _SERIES_EVERY_S, self._series.roll_up),
        ]  # fmt: skip
        if self._settings.auto_repair:
            background.append(
                Continuity(self._collections, self._redis, self._store, looks_later=not self._shard).thread
            )
        if self._shard:
            background += ShardServer(self._redis, self._collections, self._shard).threads(self._settings.query_threads)
        running.callback(self._recorder.publish)  # what was counted until the end
        if self._tracer:
            running.callback(self._tracer.flush)
        for thread in background:
            thread.start()
            running.callback(thread.stop)
        running.callback(self._give_up_waiting)
        running.callback(self._presence.stop)
        return background

    def _give_up_waiting(self) -> None:
        """What waits for a service, or for other jobs to end, ends now: the jobs are left to other workers."""
        self._retry_policy.stop()
        self._isolation.stop()

    def _checks(self, background: Sequence[PeriodicThread]) -> dict[str, Check]:
        """What being ready consists of."""
        return {
            "redis": self._ledger.check,
            "s3": self._store.check,
            "warm": self._presence.check,
            "collection": self._collections.check,
            "device": self._device.check,
            **{thread.name: thread.check for thread in background},
        }

    # ── the parts ────────────────────────────────────────────────────────────────────────────────────────────────────

    @cached_property
    def _store(self) -> ObjectStore:
        return ObjectStore.connect(self._settings)

    @cached_property
    def _ledger(self) -> Ledger:
        return Ledger.connect(self._settings)

    @cached_property
    def _sender(self) -> Sender:
        return Sender(create_app(self._settings), self._settings)

    @cached_property
    def _extractor(self) -> Extractor:
        settings = self._settings
        return load_extractor(
            settings.extractor, pick_device(settings.device), self._store, precision=settings.precision
        )

    @cached_property
    def _identity(self) -> Identity:
        return Identity.of_this_process(self._extractor.device)

    @cached_property
    def _collections(self) -> OpenCollections:
        return OpenCollections(self._store, self._redis, state_dir() / "cache", self._extractor.identity, self._peers)

    @cached_property
    def _shard(self) -> Shard | None:
        return Shard.parse(self._settings.shard) if self._settings.shard else None

    @cached_property
    def _peers(self) -> ShardPeers | None:
        return ShardPeers(self._redis, self._shard, self._settings.shard_wait_s) if self._shard else None

    @cached_property
    def _device(self) -> Device:
        return Device(self._extractor, batch_images=self._batch_images)

    @cached_property
    def _leases(self) -> Leases:
        return Leases(self._ledger, self._settings.lease_s)

    @cached_property
    def _presence(self) -> Presence:
        return Presence(self._redis, self._identity.worker, self._note)

    @cached_property
    def _reconciler(self) -> Reconciler:
        lost_places = partial(LostPlaces, self._settings.grace_s)
        every_s = self._settings.reconcile_every_s
        return Reconciler(self._ledger.recovery, self._sender, self._redis, every_s, lost_places, self._set_aside)

    @cached_property
    def _set_aside(self) -> SetAside:
        return SetAside(DeadLetters(self._redis, self._identity.worker))

    @cached_property
    def _isolation(self) -> Isolation:
        return Isolation()

    @cached_property
    def _runner(self) -> JobRunner:
        services = Services(
            self._ledger, self._store, self._leases, self._identity, self._retry_policy, self._isolation,
            self._set_aside,
        )  # fmt: skip
        end = partial(hand_back_and_end, self._ledger, self._leases, self._sender)
        return JobRunner(services, self._settings.stage_timeout_s, self._observe, end)

    @cached_property
    def _resources(self) -> Resources:
        return Resources(
            store=self._store,
            collections=self._collections,
            device=self._device,
            extractor=self._extractor.identity,
            input_size=self._extractor.input_size,
            limits=Limits.of(self._settings),
            budget=PixelBudget(within_memory(self._settings.pixels_in_flight, memory_limit())),
            query_budget=PixelBudget(self._settings.query_pixels_in_flight),
            trial_timeout_s=self._settings.stage_timeout_s / 2,
            credentials=self._credentials,
        )

    @cached_property
    def _pulse(self) -> Pulse:
        return Pulse(self._ledger.check)

    @cached_property
    def _tracer(self) -> JobTracer | None:
        return tracer_of(self._settings, "aii-worker") if self._settings.otlp_endpoint else None

    def _observe(self, result: Result) -> None:
        """Count a job that was closed, and write its trace."""
        self._recorder.observe(result)
        if self._tracer:
            with suppress(JobMissing):
                self._tracer.ended(result, self._ledger.get(result.job_id).submitted_at)

    # ── what it says of itself ───────────────────────────────────────────────────────────────────────────────────────

    def _stuck(self) -> dict[str, str]:
        """Why a restart would help."""
        return failed_checks(self._vital)

    @property
    def _batch_images(self) -> int:
        return self._settings.batch_images or BATCH_IMAGES[self._extractor.device.type]

    def _note(self) -> WorkerNote:
        """This worker's note of presence, as it is now."""
        device = self._extractor.device
        disk = shutil.disk_usage(state_dir())
        return WorkerNote(
            worker=self._identity.worker,
            pid=os.getpid(),
            device=self._identity.device,
            extractor=self._extractor.name,
            queues=list(self._queues),
            shard=self._settings.shard,
            batch_images=self._batch_images,
            memory_bytes=memory_bytes(),
            device_memory_bytes=torch.cuda.memory_allocated(device) if device.type == "cuda" else None,
            collections=self._collections.states(),
            version=importlib.metadata.version("active-image-indexing"),
            disk_free_bytes=disk.free,
            disk_total_bytes=disk.total,
            device_busy=round(self._device.busy.share(), 3),
            gpu=gpu_state(device),
            idle_s={thread.name: round(thread.last_run_s or 0.0, 1) for thread in self._background},
            dead=failed_checks({thread.name: thread.check_alive for thread in self._background}),
        )


def _leave_out_of_collections() -> None:
    """Have garbage collections leave out what exists now, some 400,000 objects of libraries that stay to the end: going
    through them keeps Python's lock for 0.2 s, in which no query is answered."""
    gc.collect()
    gc.freeze()
