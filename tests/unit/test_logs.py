"""What a worker logs, in a process of its own: logging is set up once for a whole process."""

from __future__ import annotations

import datetime
import json
import subprocess
import sys

_PROGRAM = """
import logging
from tasks.logs import set_up_logs
from tasks.settings import Settings
set_up_logs(logging.{level}, Settings(log_format={form!r}))
logging.getLogger("workers.test").info("Job done", extra={{"job_id": "abc", "queue": "query", "other": "hidden"}})
logging.getLogger("workers.test").error("Without keys")
logging.getLogger("celery.app.trace").info("Task succeeded")
"""


def logged(level: str, form: str = "text") -> list[str]:
    program = _PROGRAM.format(level=level, form=form)
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


def test_as_json_each_line_is_an_object_with_the_jobs_id() -> None:
    first, second = (json.loads(line) for line in logged("INFO", "json"))
    assert first == {
        "time": first["time"], "level": "INFO", "logger": "workers.test", "message": "Job done", "job_id": "abc",
        "queue": "query",
    }  # fmt: skip
    assert datetime.datetime.fromisoformat(first["time"]).utcoffset() == datetime.timedelta(0)
    assert (second["level"], second["message"]) == ("ERROR", "Without keys")


def test_a_traceback_stays_in_the_one_line_of_its_event() -> None:
    program = _PROGRAM.format(level="INFO", form="json") + "\ntry: 1 / 0\nexcept Exception: logging.exception('a\\nb')"
    said = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stderr
    last = json.loads(said.splitlines()[-1])
    assert last["message"] == "a\nb"
    assert "ZeroDivisionError" in last["traceback"]
