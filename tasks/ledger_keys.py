"""Where the ledger keeps what in Redis; :mod:`tasks.ledger_scripts` says what each key holds."""

from typing import Final

LEASES: Final = "aii:leases"
CLOSED: Final = "aii:closed"
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
