"""Logs: one line an event, with the keys that find a job again."""

from __future__ import annotations

import logging
from typing import Final

_KEYS: Final = ("job_id", "queue", "error_code")


class _WithKeys(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        keys = " ".join(f"{key}={value}" for key in _KEYS if (value := getattr(record, key, "")))
        return f"{super().format(record)} {keys}".rstrip()


def set_up_logs(level: int) -> None:
    """Send all logs of this process to standard error."""
    handler = logging.StreamHandler()
    handler.setFormatter(_WithKeys("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    logging.basicConfig(level=level, handlers=[handler], force=True)
    # One line a job is enough: ours says how it ended.
    for chatty in ("celery.worker.strategy", "celery.app.trace"):
        logging.getLogger(chatty).setLevel(max(level, logging.WARNING))
