"""Logs: one line an event, with the keys that find a job again; as text for people, or as JSON for a store of logs."""

from __future__ import annotations

import datetime
import json
import logging
from typing import Final

from tasks.settings import Settings

__all__ = ["set_up_logs"]

_KEYS: Final = ("job_id", "queue", "error_code")


class _WithKeys(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        keys = " ".join(f"{key}={value}" for key in _KEYS if (value := getattr(record, key, "")))
        return f"{super().format(record)} {keys}".rstrip()


class _AsJson(logging.Formatter):
    """One object a line: time (RFC 3339, UTC), level, logger, message, the keys, and the traceback if there is one."""

    def format(self, record: logging.LogRecord) -> str:
        at = datetime.datetime.fromtimestamp(record.created, datetime.UTC).isoformat(timespec="milliseconds")
        line = {"time": at, "level": record.levelname, "logger": record.name, "message": record.getMessage()}
        line |= {key: str(value) for key in _KEYS if (value := getattr(record, key, ""))}
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False)


def set_up_logs(level: int, settings: Settings) -> None:
    """Send all logs of this process to standard error, in the form that AII_LOG_FORMAT names."""
    handler = logging.StreamHandler()
    text = _WithKeys("%(asctime)s %(levelname)s %(name)s: %(message)s")
    handler.setFormatter(_AsJson() if settings.log_format == "json" else text)
    logging.basicConfig(level=level, handlers=[handler], force=True)
    # One line a job is enough: ours says how it ended.
    for chatty in ("celery.worker.strategy", "celery.app.trace"):
        logging.getLogger(chatty).setLevel(max(level, logging.WARNING))
