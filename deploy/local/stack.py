"""What the local stack consists of: which services it supplies itself, on which ports, under which secrets.

A service that the environment names (``AII_REDIS_URL``, ``AII_S3_ENDPOINT``) is used and never started. The others get
a free port and generated secrets, remembered in the stack file, so that the next start suits their data and clients.
"""

from __future__ import annotations

import secrets
import socket
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from dotenv import dotenv_values

from tasks.files import write_atomically
from tasks.settings import Settings, load_settings

LOOPBACK = "127.0.0.1"
_PREFIX = "AII_"
_REDIS_PORT, _S3_PORT, _FLOWER_PORT, _GATEWAY_PORT = 6379, 9000, 5555, 8080


@dataclass(frozen=True)
class Stack:
    """The settings every service is started with, and the part of them that this stack supplies itself."""

    settings: Settings
    supplied: Mapping[str, str] = field(repr=False)  # by the names of the settings' fields

    @property
    def owns_redis(self) -> bool:
        return "redis_url" in self.supplied

    @property
    def owns_s3(self) -> bool:
        return "s3_endpoint" in self.supplied


def plan_stack(remembered: Mapping[str, str]) -> Stack:
    """Complete the environment's settings; `remembered` holds the fields that an earlier start supplied.

    Raises InvalidSetting when a variable cannot be used.
    """
    load_settings()  # raises for unusable values in the environment and in the stack file
    environment = Settings(_env_file=None)  # type: ignore[call-arg]  # pydantic-settings' own keyword
    given = {name: _plain(getattr(environment, name)) for name in environment.model_fields_set}
    supplied = _supply_flower(given, remembered) | _supply_gateway(given, remembered)
    if "redis_url" not in given:
        supplied |= _supply_redis(remembered)
    if "s3_endpoint" not in given:
        supplied |= _supply_s3(given, remembered)
    settings = Settings(_env_file=None, **supplied)  # type: ignore[call-arg, arg-type]  # validated by pydantic
    return Stack(settings, supplied)


def _plain(value: object) -> str:
    reveal = getattr(value, "get_secret_value", None)
    return str(reveal() if reveal else value)


def _supply_redis(remembered: Mapping[str, str]) -> dict[str, str]:
    before = urlsplit(remembered.get("redis_url", ""))
    port = free_port(before.port or _REDIS_PORT)
    return {"redis_url": f"redis://:{before.password or new_secret()}@{LOOPBACK}:{port}/0"}


def _supply_s3(given: Mapping[str, str], remembered: Mapping[str, str]) -> dict[str, str]:
    before = urlsplit(f"//{remembered.get('s3_endpoint', '')}")
    return {
        "s3_endpoint": f"{LOOPBACK}:{free_port(before.port or _S3_PORT)}",
        "s3_access_key": given.get("s3_access_key") or remembered.get("s3_access_key") or secrets.token_hex(10),
        "s3_secret_key": given.get("s3_secret_key") or remembered.get("s3_secret_key") or new_secret(),
        "s3_secure": "false",
    }


def _supply_flower(given: Mapping[str, str], remembered: Mapping[str, str]) -> dict[str, str]:
    preferred = given.get("flower_port") or remembered.get("flower_port") or _FLOWER_PORT
    password = given.get("flower_password") or remembered.get("flower_password") or new_secret()
    return {"flower_port": str(free_port(int(preferred))), "flower_password": password}


def _supply_gateway(given: Mapping[str, str], remembered: Mapping[str, str]) -> dict[str, str]:
    preferred = given.get("gateway_port") or remembered.get("gateway_port") or _GATEWAY_PORT
    return {"gateway_port": str(free_port(int(preferred)))}


def new_secret() -> str:
    """192 random bits in an alphabet that needs no quoting in a URL, a shell, CSV or Redis's configuration."""
    return secrets.token_urlsafe(24)


def free_port(preferred: int) -> int:
    """`preferred` unless something listens there, else one that the system picks."""
    return preferred if _is_free(preferred) else _any_port()


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # closed connections of the last run don't count
        try:
            probe.bind((LOOPBACK, port))
        except OSError:
            return False
        return True


def _any_port() -> int:
    with socket.socket() as probe:
        probe.bind((LOOPBACK, 0))
        return int(probe.getsockname()[1])


def read_stack_file(path: Path) -> dict[str, str]:
    """The setting fields in the file; empty when there is no file."""
    values = dotenv_values(path, interpolate=False) if path.exists() else {}
    return {name.removeprefix(_PREFIX).lower(): value for name, value in values.items() if value is not None}


def write_stack_file(path: Path, fields: Mapping[str, str]) -> None:
    """Write `fields`, keep the other lines of the file."""
    merged = read_stack_file(path) | dict(fields)
    lines = [f"{_PREFIX}{name.upper()}={_quoted(value)}\n" for name, value in sorted(merged.items())]
    write_private(path, "# Written by `aii up`; holds secrets.\n" + "".join(lines))


def _quoted(value: str) -> str:
    """Quoted as python-dotenv reads it; what we generate needs no escape and a shell reads it alike."""
    return "'" + value.replace("\\", "\\\\").replace("'", "\\'") + "'"


def write_private(path: Path, text: str) -> None:
    """Replace a file atomically; only its owner can read it at any moment."""
    make_private_folder(path.parent)
    write_atomically(path, text, mode=0o600)


def make_private_folder(path: Path) -> Path:
    """Create `path` for its owner only; a folder that exists keeps its mode."""
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    return path
