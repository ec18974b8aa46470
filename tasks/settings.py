"""The one place that reads the environment.

Every setting has the prefix ``AII_``. Besides the environment, the *stack file* that ``aii up`` writes
(``<state_dir>/stack.env``, readable by its owner only) is read, so that a second terminal finds the local stack without
being told; the environment wins over it.
"""

from __future__ import annotations

import os
from pathlib import Path
from urllib.parse import urlsplit

from pydantic import Field, SecretStr, ValidationError, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from tasks.errors import InvalidSetting


def state_dir() -> Path:
    """Folder of the local stack and of downloaded indexes: ``AII_STATE_DIR``, else the XDG state folder."""
    configured = os.environ.get("AII_STATE_DIR")
    if configured:
        return Path(configured).expanduser().absolute()
    base = os.environ.get("XDG_STATE_HOME") or "~/.local/state"
    return Path(base).expanduser().absolute() / "aii"


def stack_file() -> Path:
    """Where ``aii up`` notes the addresses and secrets of the stack it started (mode 0600)."""
    return state_dir() / "stack.env"


class Settings(BaseSettings):
    """Addresses, secrets, limits. Frozen; build it once with :func:`load_settings` and pass it on."""

    model_config = SettingsConfigDict(env_prefix="AII_", frozen=True, extra="ignore")

    # Redis: broker, ledger and journals. A secret because the URL carries the password.
    redis_url: SecretStr = SecretStr("redis://127.0.0.1:6379/0")

    # S3: MinIO or anything that speaks its protocol.
    s3_endpoint: str = Field(default="127.0.0.1:9000", pattern=r"^(\[[0-9A-Fa-f:]+\]|[\w.-]+)(:\d{1,5})?(/[\w./-]*)?$")
    s3_access_key: SecretStr = SecretStr("")
    s3_secret_key: SecretStr = SecretStr("")
    s3_secure: bool = False
    s3_region: str = "us-east-1"
    bucket_originals: str = "originals"
    bucket_queries: str = "queries"
    bucket_protected: str = "protected"
    bucket_results: str = "results"
    bucket_collections: str = "collections"
    bucket_extractors: str = "extractors"

    # Images: limits are checked before anything is decoded.
    max_image_bytes: int = Field(default=64 * 2**20, gt=0)
    max_image_pixels: int = Field(default=100_000_000, gt=0)

    # Jobs.
    default_collection: str = "starter"
    lease_s: float = Field(
        default=20.0, gt=0, description="a started job whose worker is silent for this long is re-sent"
    )
    grace_s: float = Field(default=10.0, ge=0, description="how long an overtaken message may still turn up")
    reconcile_every_s: float = Field(default=2.0, gt=0)
    # One more than the three that blame a job: three worker deaths in a row must not condemn an innocent neighbour.
    max_attempts: int = Field(default=4, ge=1)
    keep_closed_s: int = Field(default=30 * 86_400, gt=0, description="how long a closed job stays in the ledger")

    # Worker.
    extractor: str = Field(
        default="compact", description="compact, or [ARCHITECTURE@]ADDRESS[#size=SIDE&sha256=DIGEST] of weights"
    )
    device: str = Field(default="auto", description="auto, cpu, cuda or cuda:N")
    activate_threads: int = Field(default=16, ge=1, description="images in flight in the activation lane")
    query_threads: int = Field(default=4, ge=1, description="images in flight in the query lane")
    pixels_in_flight: int = Field(default=60_000_000, gt=0, description="bounds memory, at about 60 bytes a pixel")
    compact_after: int = Field(
        default=10_000, ge=0, description="changes in a journal from which on it is compacted by itself; 0: never"
    )
    metrics_port: int = Field(default=0, ge=0, description="of /live, /ready and /metrics; 0: none is opened")
    metrics_address: str = Field(default="127.0.0.1", description="where they listen: they need no login")
    batch_images: int = Field(default=0, ge=0, description="images optimised together; 0 picks by device")

    # Flower.
    flower_address: str = "127.0.0.1"
    flower_port: int = 5555
    flower_user: str = "operator"
    flower_password: SecretStr = SecretStr("")

    @field_validator("redis_url")
    @classmethod
    def _redis_url(cls, value: SecretStr) -> SecretStr:
        parts = urlsplit(value.get_secret_value())
        if parts.scheme not in ("redis", "rediss", "unix") or (parts.scheme != "unix" and not parts.hostname):
            raise ValueError("it must be an address such as redis://:PASSWORD@HOST:PORT/0")
        _ = parts.port  # raises ValueError when it is no number
        return value


def load_settings() -> Settings:
    """Read the environment and the stack file.

    Raises:
        InvalidSetting: a variable has a value that cannot be used; the message names it.
    """
    try:
        return Settings(_env_file=stack_file())  # type: ignore[call-arg]  # pydantic-settings' own keyword
    except ValidationError as error:
        problems = "; ".join(f"AII_{str(e['loc'][0]).upper()}: {e['msg']}" for e in error.errors())
        raise InvalidSetting(f"The environment holds a setting that cannot be used: {problems}") from None
