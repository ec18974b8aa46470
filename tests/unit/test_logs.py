"""What a worker logs, in a process of its own: logging is set up once for a whole process."""

from __future__ import annotations

import subprocess
import sys

_PROGRAM = """
import logging
from workers.monitoring.logs import set_up_logs
set_up_logs(logging.{level})
logging.getLogger("workers.test").info("Job done", extra={{"job_id": "abc", "queue": "query", "other": "hidden"}})
logging.getLogger("workers.test").error("Without keys")
logging.getLogger("celery.app.trace").info("Task succeeded")
"""


def logged(level: str) -> list[str]:
    program = _PROGRAM.format(level=level)
    return subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    ).stderr.splitlines()


def test_a_line_ends_with_the_keys_that_find_a_job_again() -> None:
    first, second = logged("INFO")
    assert first.endswith("INFO workers.test: Job done job_id=abc queue=query")
    assert second.endswith("ERROR workers.test: Without keys")


def test_the_level_holds_for_all_loggers() -> None:
    (only,) = logged("ERROR")
    assert "Without keys" in only
