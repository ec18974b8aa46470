"""Where the ledger keeps what in Redis; :mod:`tasks.ledger.scripts` says what each key holds."""

from typing import Final

LEASES: Final = "aii:leases"
COUNTS: Final = "aii:counts"
CLOSED_BOUND: Final = 10_000


def job_key(job_id: str) -> str:
    return f"aii:job:{job_id}"


def open_key(queue: str) -> str:
    return f"aii:open:{queue}"


def seq_key(queue: str) -> str:
    return f"aii:seq:{queue}"


def head_key(queue: str) -> str:
    return f"aii:head:{queue}"


def since_key(queue: str) -> str:
    return f"aii:since:{queue}"


def closed_key(state: str) -> str:
    return f"aii:closed:{state}"


def submit_keys(job_id: str, queue: str) -> list[str]:
    """What a job that is opened, or opened again, touches."""
    lists = [since_key(queue), closed_key("failed"), closed_key("cancelled")]
    return [job_key(job_id), open_key(queue), seq_key(queue), COUNTS, *lists]
