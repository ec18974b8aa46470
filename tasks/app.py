"""The Celery application: JSON only, our queues, time-outs that notice a dead connection; and how a job is sent."""

from __future__ import annotations

import json
import os
import time

from celery import Celery
from kombu import Queue
from kombu.exceptions import OperationalError

from tasks.connection import broker_options, broker_url, redis_address, sending_policy
from tasks.errors import RedisUnavailable
from tasks.kinds import QUEUE_OF_TASK
from tasks.ledger.ledger import Ledger
from tasks.ledger.records import Resend
from tasks.messages import Request
from tasks.names import QUEUE_ACTIVATE
from tasks.settings import Settings
from tasks.shares import ALL_QUEUES, share_queue
from tasks.tracing import JobTracer, tracer_of


def create_app(settings: Settings) -> Celery:
    """Build the application. Connects to nothing."""
    app = Celery("aii", broker=broker_url(settings), set_as_current=False)
    app.conf.update(
        task_serializer="json",
        accept_content=["json"],
        result_backend=None,
        task_ignore_result=True,  # results are documents in S3; the ledger knows the state
        task_queues=[Queue(name) for name in ALL_QUEUES],
        task_default_queue=QUEUE_ACTIVATE,
        task_create_missing_queues=False,
        task_routes={task: {"queue": queue} for task, queue in QUEUE_OF_TASK.items()},
        # Late acknowledgement with a prefetch of one: a worker holds as many messages as it has threads and none
        # waits in its memory, so jobs start in the order of the queue. The ledger relies on that.
        task_acks_late=True,
        worker_prefetch_multiplier=1,
        worker_send_task_events=True,  # for Flower's own pages; waiting jobs are in the ledger
        broker_connection_retry_on_startup=True,
        **broker_options(settings),
        broker_connection_max_retries=None,  # a worker waits for Redis for as long as it takes
        broker_channel_error_retry=True,  # and while Redis refuses commands: it is full, or read-only
        worker_hijack_root_logger=False,
        worker_redirect_stdouts=False,
        timezone="UTC",
    )
    return app


class Sender:
    """Sends the messages of jobs that the ledger has accepted. Thread-safe."""

    def __init__(self, app: Celery, settings: Settings) -> None:
        self._app = app
        self._settings = settings
        self._pid = os.getpid()
        self._address = redis_address(settings)
        self._policy = sending_policy(settings)

    def send(self, job_id: str, task: str, queue: str, payload: dict[str, object]) -> None:
        """Raises RedisUnavailable; the job then stays in the ledger and the reconciler sends it later."""
        if self._pid != os.getpid():  # after a fork: the connections are the parent's
            self._app, self._pid = create_app(self._settings), os.getpid()
        try:
            # What Flower shows of the request. Celery's own representation would take longer to make than the sending.
            shown = {"argsrepr": "()", "kwargsrepr": json.dumps(payload)}
            self._app.send_task(
                task, kwargs={"request": payload}, task_id=job_id, queue=queue, ignore_result=True,
                **self._policy, **shown,
            )  # fmt: skip
        except OperationalError as error:
            raise RedisUnavailable(
                f"Redis at {self._address} did not take the message of job {job_id} ({type(error).__name__}); "
                "it is accepted nevertheless, and a worker will send it."
            ) from error

    @property
    def tracer(self) -> JobTracer | None:
        """Where traces are sent; None where they are not."""
        return tracer_of(self._settings, "aii-producer") if self._settings.otlp_endpoint else None

    def send_again(self, message: Resend) -> None:
        self.send(message.job_id, message.task, message.queue, json.loads(message.payload))


def submit(ledger: Ledger, sender: Sender, request: Request, job_id: str | None = None, client: str = "") -> bool:
    """Accept a request as a job: write it into the ledger, then send its message, which is sent again if it is lost.

    The job has the request's id, unless it is one that an earlier version named `job_id`, and its place among those of
    `client`. Returns False when the same request had been accepted before.
    """
    job_id, began_ns = job_id or request.job_id, time.time_ns()
    new = ledger.submit([request], [job_id], client)[0]
    if new:
        sender.send(job_id, request.task, share_queue(request.queue, client), request.message())
        if tracer := sender.tracer:
            tracer.submitted(job_id, request.task, began_ns, time.time_ns())
    return new
