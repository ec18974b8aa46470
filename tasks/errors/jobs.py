"""How a job, or the process that has it, comes to its end otherwise than by its result."""

from __future__ import annotations

from tasks.errors.base import AiiError

__all__ = [
    "Cancelled",
    "DeadlineExceeded",
    "Forked",
    "LeaseLost",
    "Poison",
    "WorkerStopping",
]


class Poison(AiiError):
    """The image ended the decoder of a process of its own, or workers died while the job ran alone (AII_MAX_ATTEMPTS).

    What to do: Check the image and the worker's log, then `aii jobs retry`.
    """

    code = "poison"


class Cancelled(AiiError):
    """An operator cancelled the job.

    What to do: Submit it again, or `aii jobs retry` it.
    """

    code = "cancelled"


class LeaseLost(AiiError):
    """The worker's lease of the job expired: the job continues elsewhere.

    What to do: Nothing: it never ends a job.
    """

    code = "lease_lost"


class WorkerStopping(AiiError):
    """The worker is stopping and takes up no more work: the job continues elsewhere.

    What to do: Nothing: it never ends a job.
    """

    code = "worker_stopping"


class DeadlineExceeded(AiiError):
    """A time limit passed: of the job or one of its stages (AII_JOB_TIMEOUT_S, AII_STAGE_TIMEOUT_S), which has failed;
    or of the caller, while the job goes on.

    What to do: Check the image, or raise the limit, then `aii jobs retry`; a caller waits again.
    """

    code = "deadline_exceeded"


class Forked(AiiError):
    """A producer was used before a fork, and again in the child, where the S3 client cannot go on.

    What to do: Use it in the child only (gunicorn `post_fork`, Celery `worker_process_init`), or spawn the child.
    """

    code = "forked"
