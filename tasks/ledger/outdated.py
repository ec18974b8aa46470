"""Jobs that ended well, and whose asset has changed since: submitted again, they run again."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from tasks.connection import RedisClient
from tasks.ledger.keys import job_key

__all__ = ["mark_outdated"]

# KEYS job; ARGV field, value. Sets it in a job that is known, and not there yet.
_MARK: Final = """
if redis.call('EXISTS', KEYS[1]) == 1 then redis.call('HSETNX', KEYS[1], ARGV[1], ARGV[2]) end
"""


def mark_outdated(client: RedisClient, superseded: Mapping[str, str], removed: Mapping[str, int]) -> None:
    """Say of jobs, where the ledger knows them, by which job they were superseded, or when (ms) their asset was
    removed."""
    mark = client.register_script(_MARK)
    pipe = client.pipeline(transaction=False)
    for job_id, by in superseded.items():
        mark(keys=[job_key(job_id)], args=["superseded_by", by], client=pipe)
    for job_id, at_ms in removed.items():
        mark(keys=[job_key(job_id)], args=["removed_ms", at_ms], client=pipe)
    pipe.execute()
