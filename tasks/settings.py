"""The settings: the one place, but for :mod:`tasks.state_folder`, that reads the environment.

Every setting has the prefix ``AII_``. Besides the environment, the *stack file* that ``aii up`` writes
(``<state_dir>/stack.env``, readable by its owner only) is read, so that a second terminal finds the local stack without
being told; the environment wins over it.
"""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal

from pydantic import Field, SecretStr, ValidationError, ValidationInfo, field_validator, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from tasks.errors import InvalidSetting
from tasks.names import BUCKET_PATTERN, INGEST_PATTERN
from tasks.redis_address import parsed_redis_url
from tasks.s3_address import parsed_s3_endpoint
from tasks.shards import ShardName
from tasks.state_folder import stack_file

_CONTRADICTION: Final = "http:// and HTTPS"


class Settings(BaseSettings):
    """Addresses, secrets, limits. Frozen; build it once with :func:`load_settings` and pass it on."""

    model_config = SettingsConfigDict(env_prefix="AII_", frozen=True, extra="ignore")

    redis_url: SecretStr = Field(
        default=SecretStr("redis://127.0.0.1:6379/0"),
        description="Redis: broker, ledger, journals. `rediss://` for TLS, "
        "`sentinel://:PASSWORD@HOST:PORT,HOST:PORT/NAME/0` for a set that fails over, `sentinels://` for both, "
        "`unix:///PATH?db=0` for a socket. A secret, since it carries the password, in which `#`, `/`, `?`, `@`, `%` "
        "are written `%23`, `%2F`, `%3F`, `%40`, `%25`",
    )

    s3_endpoint: str = Field(
        default="127.0.0.1:9000",
        description="S3 service as HOST:PORT, `http://HOST:PORT` or `https://HOST`: MinIO, AWS, or any other",
    )
    s3_access_key: SecretStr = Field(default=SecretStr(""), description="access key of S3")
    s3_secret_key: SecretStr = Field(default=SecretStr(""), description="secret key of S3")
    s3_session_token: SecretStr = Field(default=SecretStr(""), description="session token of temporary keys")
    s3_credentials: Literal["keys", "role", "web-identity"] = Field(
        default="keys",
        description="where the keys come from: `keys`: the settings above; `role`: the role of this machine, container "
        "or service account (AWS, whose variables `AWS_…` are read then); `web-identity`: a token, exchanged at "
        "AII_S3_STS_ENDPOINT",
    )
    s3_sts_endpoint: str = Field(
        default="", description="URL at which a token is exchanged for keys; default: that of AII_S3_ENDPOINT"
    )
    s3_token_file: str = Field(
        default="", description="file of the token for `web-identity`; it is read again whenever keys are renewed"
    )
    s3_role_arn: str = Field(
        default="", description="role that the token is exchanged for, where the service asks for one"
    )
    s3_secure: bool = Field(default=False, description="reach S3 over HTTPS; so does `https://`")
    s3_region: str = Field(default="us-east-1", description="region that S3 requests are signed for")
    bucket_originals: str = Field(default="originals", description="bucket of submitted images")
    bucket_queries: str = Field(default="queries", description="bucket of queried images; they may expire after a day")
    bucket_protected: str = Field(default="protected", description="bucket of protected images")
    bucket_results: str = Field(default="results", description="bucket of result documents")
    bucket_collections: str = Field(default="collections", description="bucket of collections' files")
    bucket_extractors: str = Field(default="extractors", description="bucket of extractors' weights")

    ingest_buckets: Annotated[tuple[Annotated[str, Field(pattern=INGEST_PATTERN)], ...], NoDecode] = Field(
        default=(),
        description="buckets whose objects `aii up` submits as they appear (`aii ingest`), with commas between; the "
        "objects of `BUCKET:query` are queried, those of others activated. They count as AII_SOURCE_BUCKETS too",
    )
    source_buckets: Annotated[tuple[Annotated[str, Field(pattern=BUCKET_PATTERN)], ...], NoDecode] = Field(
        default=(),
        validate_default=True,
        description="buckets of the same S3 service from which workers read images that a request names as "
        "`s3://BUCKET/KEY`, with commas between; none by default",
    )

    # Both are checked before anything is decoded.
    max_image_bytes: int = Field(default=64 * 2**20, gt=0, description="largest image file, in bytes")
    max_image_pixels: int = Field(
        default=100_000_000, gt=0, description="largest image, as width × height; no side may be above 65,535"
    )

    default_collection: str = Field(default="starter", description="collection of requests that name none")
    client: str = Field(
        default="",
        max_length=128,
        description="name under which a producer submits: clients take turns, however many jobs each has. Default: "
        "none; all that have none are one client",
    )
    lease_s: float = Field(
        default=20.0, gt=0, description="seconds without a renewal after which a running job is sent to another worker"
    )
    grace_s: float = Field(
        default=10.0, ge=0, description="seconds that a message may be late before its job is sent again"
    )
    reconcile_every_s: float = Field(default=2.0, gt=0, description="seconds between two searches for lost jobs")
    # One start beside other jobs, two alone: a worker that is killed from outside must not condemn what it was doing.
    max_attempts: int = Field(
        default=4,
        ge=1,
        description="start at which a job fails as `poison`, when workers died at those before; from the second on it "
        "runs alone",
    )
    stage_timeout_s: float = Field(
        default=120.0,
        gt=0,
        description="seconds that a stage of a job may take, decoding for example, before the job fails with "
        "`deadline_exceeded`; stages that wait for the device are bounded by the job's limit only",
    )
    job_timeout_s: float = Field(
        default=3600.0, gt=0, description="seconds that an activation or a query may run before it fails likewise"
    )
    index_job_timeout_s: float = Field(
        default=6 * 3600.0,
        gt=0,
        description="seconds that a compaction or an extraction may run",
    )
    keep_closed_s: int = Field(
        default=30 * 86_400,
        gt=0,
        description="seconds that a failed or cancelled job, or one of an index, stays in the ledger",
    )
    keep_done_s: int = Field(
        default=6 * 3600,
        gt=0,
        description="seconds that an activation, a query or a look-up that ended well stays in the ledger; its "
        "document stays in S3, and the same request finds it there",
    )

    extractor: str = Field(
        default="compact", description="`compact`, or [ARCHITECTURE@]ADDRESS[#size=SIDE&sha256=DIGEST] of weights"
    )
    device: str = Field(
        default="auto",
        description="device of the extractor, and of FAISS where it trains and calibrates: auto, cpu, cuda or cuda:N",
    )
    precision: Literal["auto", "float32", "bfloat16", "float16"] = Field(
        default="auto",
        description="precision in which images are optimised: auto is half where the device computes in it and agrees "
        "with float32. Codes are registered in float32, or in what gives the same codes",
    )
    activate_threads: int = Field(default=16, ge=1, description="activations that a worker runs at the same time")
    query_threads: int = Field(default=4, ge=1, description="queries that a worker runs at the same time")
    pixels_in_flight: int = Field(
        default=60_000_000,
        gt=0,
        description="pixels of activations and extractions in work at the same time, at about 60 bytes each",
    )
    query_pixels_in_flight: int = Field(
        default=20_000_000,
        gt=0,
        description="pixels of queries in work at the same time, at about 25 bytes each",
    )
    compact_after: int = Field(
        default=10_000, ge=0, description="changes in a journal at which workers compact it by themselves; 0: never"
    )
    shard: ShardName = Field(
        default="",
        description="which part of every collection's cells a worker searches, as `2/4`: the second of four; the other "
        "workers search the others. Default: all",
    )
    shard_wait_s: float = Field(
        default=2.0, gt=0, le=10, description="seconds that a query waits for the other shards; then it goes without"
    )
    auto_repair: bool = Field(
        default=True,
        description="whether a worker that finds Redis emptied, replaced or set back repairs its collections' journals",
    )
    stop_timeout_s: float = Field(
        default=45.0,
        gt=0,
        description="seconds within which a worker ends when told to stop; unfinished jobs are done by others",
    )
    metrics_port: int = Field(
        default=0, ge=0, lt=65_536, description="port of a worker's /live, /ready and /metrics; 0: closed"
    )
    metrics_address: str = Field(default="127.0.0.1", description="address that this port listens on, without login")
    batch_images: int = Field(default=0, ge=0, description="images optimised in one batch; 0: by device")

    flower_address: str = Field(default="127.0.0.1", description="address that Flower listens on")
    flower_port: int = Field(default=5555, gt=0, lt=65_536, description="port that Flower listens on")
    flower_user: str = Field(default="operator", description="user of Flower's login")
    flower_password: SecretStr = Field(
        default=SecretStr(""), description="password of Flower's login; `aii up` generates one"
    )

    audit_entries: int = Field(
        default=100_000,
        ge=0,
        description="entries of the audit log that are kept (`aii audit`), at about 200 bytes each; 0: none is written",
    )
    c2pa_key: str = Field(
        default="",
        description="file of the private key (PEM) with which workers sign protected files whose source has a C2PA "
        "manifest (extra `c2pa`); default: they are not signed",
    )
    c2pa_certificates: str = Field(
        default="", description="file of its certificate and those up to the authority's own, in this order (PEM)"
    )
    c2pa_algorithm: Literal["es256", "es384", "es512", "ps256", "ps384", "ps512", "ed25519"] = Field(
        default="es256", description="algorithm of these signatures, which suits the key"
    )
    c2pa_timestamp_url: str = Field(
        default="", description="RFC 3161 service that dates them; without, they end with the certificate"
    )

    log_format: Literal["text", "json"] = Field(
        default="text",
        description="form of the logs of workers, gateway and Flower: `text`, or `json`, an object a line",
    )
    otlp_endpoint: str = Field(
        default="",
        description="OpenTelemetry collector that traces of jobs are sent to by OTLP over HTTP, "
        "`http://HOST:4318` (extra `tracing`); default: none",
    )

    # Goals of the operator: the dashboard, `aii status` and the metrics say what misses them.
    target_ten_steps_ms: float = Field(
        default=0.0, ge=0, description="target of the dashboard: milliseconds an image activated in ten steps; 0: none"
    )
    target_one_step_ms: float = Field(default=0.0, ge=0, description="the same for one step")
    target_search_ms: float = Field(default=0.0, ge=0, description="the same for a search with nprobe 16")
    target_query_wait_s: float = Field(
        default=5.0, gt=0, description="seconds that a query may wait before the dashboard calls it late"
    )
    target_job_wait_s: float = Field(default=900.0, gt=0, description="the same for other jobs")
    target_failed_share: float = Field(
        default=0.05, ge=0, le=1, description="share of the jobs of five minutes that may fail"
    )
    target_free_disk_share: float = Field(
        default=0.05, ge=0, le=1, description="share of a disk that has to be free, and of Redis' memory"
    )
    target_journal_entries: int = Field(
        default=50_000, gt=0, description="changes of a collection that may wait for a compaction"
    )

    gateway_address: str = Field(default="127.0.0.1", description="address that the HTTP gateway listens on")
    gateway_port: int = Field(default=8080, gt=0, lt=65_536, description="port that the HTTP gateway listens on")
    gateway_token_file: str = Field(
        default="", description="file of the gateway's tokens; default: `tokens.json` in AII_STATE_DIR"
    )
    gateway_tokens: str = Field(
        default="", description="further tokens as JSON, in the form of that file: names, digests, scopes"
    )
    gateway_url_hosts: str = Field(
        default="",
        description="hosts whose URLs the gateway fetches images from, separated by commas: `img.example.org`, "
        "`*.example.org`, `HOST:PORT`; default: none",
    )
    gateway_url_networks: str = Field(
        default="",
        description="private networks that these hosts may be in, separated by commas, such as `10.1.0.0/16`; default: "
        "public addresses only",
    )
    gateway_max_wait_s: float = Field(
        default=30.0, ge=0, description="seconds that a request with `Prefer: wait` is kept at most"
    )
    gateway_link_s: int = Field(
        default=900, gt=0, le=604_800, description="seconds for which the link of a protected file is valid"
    )
    s3_public_endpoint: str = Field(
        default="",
        description="S3's address as clients of the gateway reach it, for such links; default: AII_S3_ENDPOINT",
    )

    @model_validator(mode="before")
    @classmethod
    def _scheme_of_s3(cls, given: Any) -> Any:
        """An endpoint that begins with a scheme says by it whether to use HTTPS."""
        if not isinstance(given, dict) or not isinstance(given.get("s3_endpoint"), str):
            return given
        try:
            endpoint, secure = parsed_s3_endpoint(given["s3_endpoint"])
        except ValueError:
            return given  # named below, with the variable
        if secure is None:
            return given
        if not secure and str(given.get("s3_secure", "")).strip().lower() in ("true", "1", "yes", "on"):
            return given | {"s3_endpoint": _CONTRADICTION}
        return given | {"s3_endpoint": endpoint, "s3_secure": secure}

    @field_validator("source_buckets", "ingest_buckets", mode="before")
    @classmethod
    def _listed(cls, value: Any) -> Any:
        return tuple(name.strip() for name in value.split(",") if name.strip()) if isinstance(value, str) else value

    @field_validator("source_buckets")
    @classmethod
    def _with_ingested(cls, value: tuple[str, ...], info: ValidationInfo) -> tuple[str, ...]:
        ingested = (bucket.partition(":")[0] for bucket in info.data.get("ingest_buckets", ()))
        return tuple(dict.fromkeys([*value, *ingested]))

    @field_validator("*", mode="before")
    @classmethod
    def _trimmed(cls, value: Any, info: ValidationInfo) -> Any:
        """Blanks around a value are never meant; an empty one is meant where that is the default."""
        if not isinstance(value, str):
            return value
        default = cls.model_fields[str(info.field_name)].default
        if not value.strip() and default not in ("", SecretStr("")):
            raise ValueError("it is empty: give it a value, or unset it")
        return value.strip()

    @field_validator("redis_url")
    @classmethod
    def _redis_url(cls, value: SecretStr) -> SecretStr:
        return SecretStr(parsed_redis_url(value.get_secret_value()))

    @field_validator("s3_endpoint")
    @classmethod
    def _s3_endpoint(cls, value: str) -> str:
        if value == _CONTRADICTION:
            raise ValueError("it begins with http://, and AII_S3_SECURE asks for HTTPS: correct one of them")
        return parsed_s3_endpoint(value)[0]


def load_settings() -> Settings:
    """Read the environment and the stack file.

    Raises:
        InvalidSetting: a variable has a value that cannot be used; the message names it.
    """
    file = stack_file()
    try:
        return Settings(_env_file=file)  # type: ignore[call-arg]  # pydantic-settings' own keyword
    except ValidationError as error:
        problems = "; ".join(_problem(str(e["loc"][0]), e["msg"]) for e in error.errors())
        raise InvalidSetting(f"The environment holds a setting that cannot be used: {problems}.") from None
    except (OSError, UnicodeDecodeError):
        raise InvalidSetting(f"{file} cannot be read: correct its owner, or set AII_STATE_DIR.") from None


def _problem(name: str, message: str) -> str:
    """The variable and the remedy, without the value: it may be a secret."""
    own = message.removeprefix("Value error, ")
    remedy = "" if own != message else f" (unset it for the default, {Settings.model_fields[name].default})"
    return f"AII_{name.upper()}: {own}{remedy}"
