"""What a worker's port for probes answers."""

from __future__ import annotations

import urllib.error
import urllib.request

from tests.waiting import LIMIT_S

__all__ = ["probe"]


def probe(port: int, path: str) -> tuple[int, str]:
    """Status and body of a GET; (0, "") where no process listens."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=LIMIT_S) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()
    except OSError:
        return 0, ""
