"""What the machine and its user have set, and tests must not see: they pass everywhere, or nowhere."""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile
from pathlib import Path

__all__ = ["leave_to_the_tests"]

# Read by our programs, or by the libraries and browsers that they use.
_PREFIXES = ("AWS_", "FLOWER_", "OTEL_", "CELERY_", "REDISCLI_", "RCLONE_")
_NAMES = {
    "ALL_PROXY", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE",
    "COLUMNS", "LINES", "NO_COLOR", "FORCE_COLOR", "CLICOLOR", "CLICOLOR_FORCE", "XDG_STATE_HOME", "PYTHONWARNINGS",
}  # fmt: skip
_OF_TESTS = ("AII_TEST_", "AII_INGEST_OBJECTS", "AII_HOOK_", "AII_CONFORMANCE_")


def leave_to_the_tests() -> None:
    """Take such variables away from this process and those that it starts, and give it a state folder of its own."""
    for name in list(os.environ):
        ours = name.startswith("AII_") and not name.startswith(_OF_TESTS)
        if ours or name.upper() in _NAMES or name.startswith(_PREFIXES):
            del os.environ[name]
    # One thread for each process: where the cores are busy, two threads that wait for each other after every operation
    # take many times as long.
    os.environ["OMP_NUM_THREADS"] = "1"
    os.environ["LC_ALL"] = "C.UTF-8"
    state = tempfile.mkdtemp(prefix="aii-tests-")
    atexit.register(_remove, state, os.getpid())
    os.environ["AII_STATE_DIR"] = state
    # Compiling takes ten seconds of each process: what one has compiled, the others and the next run load.
    os.environ["NUMBA_CACHE_DIR"] = str(Path(__file__).parents[1] / ".pytest_cache" / "compiled")


def _remove(folder: str, owner: int) -> None:
    if os.getpid() == owner:  # and not a child that a test forked
        shutil.rmtree(folder, ignore_errors=True)
