"""Every setting: name, default, unit, bound and help; read from a TOML file, the environment and the command line.

`MODELYARD_<SECTION>__<KEY>` overrides the file, flags override both. The help texts are the reference page
(docs/reference/settings.md), compared with it by a test.
"""

from __future__ import annotations

import ipaddress
import os
import re
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import (
    Field,
    FieldSerializationInfo,
    SecretStr,
    ValidationError,
    field_serializer,
    field_validator,
    model_validator,
)
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)

from modelyard.core.addresses import Address
from modelyard.core.errors import SettingsError
from modelyard.core.model_settings import MIB as MIB
from modelyard.core.model_settings import ModelsSettings as ModelsSettings
from modelyard.core.model_settings import Section as Section

ROOT_PATH = re.compile(r"(?:/[A-Za-z0-9_~-][A-Za-z0-9._~-]*)+")
BUCKET_URL = re.compile(r"s3://[a-z0-9][a-z0-9.-]{1,61}[a-z0-9](?:/[A-Za-z0-9!_.*'()-]+)*/?")
COUNTER_URL = re.compile(
    r"(?:redis|valkey)s?://(?:[^:@/?#\s]+@)?(?:[A-Za-z0-9.-]+|\[[0-9a-fA-F:.]+\])(?::[0-9]{1,5})?(?:/[0-9]{0,5})?"
    r"|iam://[A-Za-z0-9-]+@[A-Za-z0-9.-]+(?::[0-9]{1,5})?/[A-Za-z0-9-]+|dynamodb://[A-Za-z0-9_.-]{3,255}"
)
REVEALED = "revealed"
"""The context in which a dump holds secrets: for a process of ours, never for people or files."""
_URL_PASSWORD = re.compile(r"(://[^/\s:@]*:)[^/\s]*@")
OWN_SEGMENTS = frozenset({"v1", "v2", "ping", "invocations", "docs", "openapi.json", "metrics", "console"})
"""What the server's own paths begin with: as a prefix they could not be told apart."""


class HttpSettings(Section):
    """The server."""

    host: str = Field("127.0.0.1", description="Address to listen on.")
    port: int = Field(8080, ge=0, le=65535, description="Port to listen on; 0 picks a free one.")
    max_body_bytes: int = Field(64 * MIB, ge=1024, description="Largest body, compressed or not.")
    max_inflight_bytes: int = Field(256 * MIB, ge=1024, description="Bodies in memory per worker; beyond it 503.")
    max_headers: int = Field(64, ge=8, description="Most header fields of a request.")
    max_header_bytes: int = Field(16 * 1024, ge=1024, description="Most bytes of header names and values together.")
    max_url_bytes: int = Field(8 * 1024, ge=256, description="Longest request target.")
    max_pipelined: int = Field(16, ge=1, description="Requests that may wait on one connection.")
    max_chunks: int = Field(65_536, ge=16, description="Most chunks of a chunked body.")
    max_connections: int = Field(16_384, ge=1, description="Connections per worker; beyond it 503 and close.")
    write_buffer_bytes: int = Field(4 * MIB, ge=65_536, description="Unread answers per connection before it is cut.")
    header_timeout_s: float = Field(10, gt=0, description="From a request's first byte to the end of its headers.")
    body_timeout_s: float = Field(30, gt=0, description="From a body's first byte to its last.")
    request_timeout_s: float = Field(25, gt=0, description="From a body's last byte to the answer; then 503.")
    keep_alive_s: float = Field(75, gt=0, description="How long an idle connection stays open.")
    drain_delay_s: float = Field(2, ge=0, description="Serving goes on this long after readiness went false.")
    ready_when_empty: bool = Field(False, description="Whether a server without any model calls itself ready.")
    default_endpoint: str | None = Field(
        None, description="Endpoint of `/invocations` where the request names none; if unset, the only one there is."
    )
    tls: Literal["off", "self-signed"] = Field(
        "off", description="`self-signed`: TLS with a certificate made at the start, for a proxy that checks none."
    )
    tls_cert: Path | None = Field(None, description="Certificate chain, PEM; with `tls_key` it turns TLS on.")
    tls_key: Path | None = Field(None, description="Its private key, PEM, without a passphrase.")
    root_path: str = Field(
        "", description="Prefix under which a proxy serves this, as `/models`; accepted with and without it."
    )
    trusted_proxies: tuple[str, ...] = Field(
        (), description="Addresses and networks whose `X-Forwarded-For` is believed, as `10.0.0.0/8`."
    )

    @field_validator("root_path")
    @classmethod
    def _is_prefix(cls, value: str) -> str:
        if value and (not ROOT_PATH.fullmatch(value) or value.split("/")[1] in OWN_SEGMENTS):
            raise ValueError("a path as /models, without a slash at its end, that is none of the server's own")
        return value

    @field_validator("trusted_proxies")
    @classmethod
    def _are_networks(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for text in value:
            ipaddress.ip_network(text)
        return value

    @model_validator(mode="after")
    def _both_files(self) -> Self:
        if (self.tls_cert is None) != (self.tls_key is None):
            raise ValueError("tls_cert and tls_key go together")
        return self


class AuthSettings(Section):
    """Keys."""

    admin_key: SecretStr | None = Field(
        None, description="The first administrator's key; made and shown at first start if unset."
    )


class LimitsSettings(Section):
    """Limits of clients that have none of their own, and of the worker."""

    default_rate: str = Field("1000/s", description="Rate of a new client, as count/unit (s, m, h, d).")
    max_concurrency: int = Field(1024, ge=1, description="Predictions in flight per worker; beyond it 503.")
    max_clients: int = Field(65_536, ge=16, description="Slots of the shared limit table.")
    on_failure: Literal["allow", "refuse"] = Field("refuse", description="What happens when the counter fails.")
    url: str | None = Field(
        None,
        description="Where hosts count together: `valkey://host:6379`, `redis://…`, or `rediss://…` for TLS; "
        "`iam://user@host:6379/cache` in ElastiCache; `dynamodb://table`; each host by itself, in memory, if unset.",
    )
    password: SecretStr | None = Field(None, description="The password of `url`; its user, if any, is in the URL.")
    tls_ca: Path | None = Field(
        None, description="Authorities that sign the certificate of `url`, PEM; the system's if unset."
    )
    timeout_ms: float = Field(50, gt=0, le=10_000, description="How long one count by `url` may take (ms).")

    @field_validator("url")
    @classmethod
    def _is_counter(cls, value: str | None) -> str | None:
        if value is not None and not COUNTER_URL.fullmatch(value):
            raise ValueError(
                "valkey://user@host:6379/0, redis:// or rediss:// (the password is limits.password), "
                "iam://user@host:6379/cache, or dynamodb://table"
            )
        return value

    @field_serializer("password", when_used="json")
    def _starred(self, value: SecretStr | None, info: FieldSerializationInfo) -> str | None:
        if value is None:
            return None
        return value.get_secret_value() if info.context == REVEALED else str(value)


class BatchingSettings(Section):
    """Batches."""

    max_rows: int = Field(128, ge=1, description="Most rows of one run.")
    max_wait_ms: float = Field(
        100, gt=0, description="Expected time in a version's queue and run beyond which a request gets 503 (ms)."
    )
    max_queue: int = Field(512, ge=1, description="Most requests that wait for one version; beyond it 503.")
    max_loop_run_us: float = Field(300, gt=0, description="A run longer than this leaves the event loop (µs).")
    executor_threads: int = Field(
        4, ge=1, description="Most threads per worker for models that are too slow for the loop; each model uses one."
    )


class CodecSettings(Section):
    """Reading bodies."""

    max_json_depth: int = Field(100, ge=4, description="Deepest nesting of a JSON body.")
    max_json_values: int = Field(1_000_000, ge=100, description="Most values in a JSON body.")
    max_items: int = Field(100, ge=1, description="Most items of one predictions request (API-3).")


class JournalSettings(Section):
    """The prediction log's way to the database."""

    durability: Literal["process", "host", "store"] = Field(
        "process",
        description="When an answer leaves: after the write (process), after fdatasync (host), or after the database's "
        "commit, without a spool (store).",
    )
    on_failure: Literal["refuse", "spool"] = Field("spool", description="When the database is away: refuse or spool.")
    max_spool_bytes: int = Field(1024 * MIB, ge=64 * 1024, description="Most bytes waiting for the drain, then 503.")
    max_file_bytes: int = Field(64 * MIB, ge=4096, description="A spool file is closed at this size.")
    max_kept_bytes: int = Field(
        256 * MIB, ge=64 * 1024, description="Most bytes of answers kept under Idempotency-Keys; the oldest go first."
    )
    drain_interval_s: float = Field(0.2, gt=0, description="How often the drain looks for new records.")
    drain_urgent_age_s: float = Field(
        120, gt=0, description="A record that waited this long for the drain makes it an equal of the workers."
    )
    drain_batch: int = Field(2000, ge=1, description="Most records of one drain transaction.")


class SnapshotSettings(Section):
    """How a worker learns of changes."""

    poll_interval_s: float = Field(0.5, gt=0, le=0.5, description="How often the version is looked at.")
    max_age_s: float = Field(30, gt=0, description="Oldest snapshot that is served without question.")
    on_stale: Literal["serve", "refuse"] = Field("serve", description="What happens past max_age_s.")


class DatabaseSettings(Section):
    """Metadata and prediction log."""

    url: str | None = Field(
        None,
        description="`postgresql://user@host/database`, `mysql://user@host/database`, `dynamodb://prefix`, "
        "`iam://user@host:port/database`, `sqlite:///path`, or a reference to a secret (`aws-sm://ARN#key`, "
        "`aws-ssm://NAME`) as its password or instead of it; a SQLite file in the data folder if unset.",
    )
    busy_timeout_s: float = Field(5, gt=0, description="How long to wait for a lock, a connection or an answer (s).")
    upgrade: Literal["auto", "pre", "off"] = Field(
        "auto",
        description="What a start does to an older schema: `pre` adds what is missing, `auto` also removes what only "
        "older programs use where the database is a SQLite file, `off` refuses (`modelyard migrate`).",
    )
    region: str | None = Field(None, description="The region of DynamoDB's tables; as AWS's own settings say if unset.")
    endpoint_url: Address = Field(None, description="Another service that speaks DynamoDB; https, or on this machine.")


class ArtifactsSettings(Section):
    """Where the files of versions live: in the data folder, or in S3 with a cache in the data folder."""

    url: str | None = Field(
        None, description="`s3://bucket/prefix`; the folder `artifacts` in the data folder if unset."
    )
    region: str | None = Field(None, description="The bucket's region; as AWS's own variables and files say if unset.")
    endpoint_url: Address = Field(None, description="Another service that speaks S3; https, or on this machine.")
    encryption: Literal["aws:kms", "AES256", "bucket"] = Field(
        "aws:kms", description="How S3 encrypts what is written; `bucket`: by the bucket's default, without saying so."
    )
    kms_key_id: str | None = Field(
        None, description="The KMS key of `aws:kms`; the bucket's own, or the account's for S3, if unset."
    )
    cache_bytes: int = Field(
        16 * 1024 * MIB,
        ge=MIB,
        description="Most bytes of copies in the data folder; versions in use are never removed.",
    )
    part_bytes: int = Field(
        8 * MIB, ge=5 * MIB, le=1024 * MIB, description="Size of the parts that are sent and fetched side by side."
    )
    connections: int = Field(8, ge=1, le=64, description="Parts that are sent or fetched at once.")
    connect_timeout_s: float = Field(3, gt=0, description="How long a connection to S3 may take.")
    read_timeout_s: float = Field(10, gt=0, description="How long S3 may be silent within an answer.")
    attempts: int = Field(5, ge=1, le=20, description="How often a request is tried, each from where it was cut.")
    timeout_s: float = Field(600, gt=0, description="Storing or fetching a version, all attempts together.")

    @field_validator("url")
    @classmethod
    def _is_bucket(cls, value: str | None) -> str | None:
        if value is not None and (not BUCKET_URL.fullmatch(value) or ".." in value):
            raise ValueError("s3://bucket/prefix, the prefix of letters, digits and !_.*'()-, or nothing")
        return value

    @model_validator(mode="after")
    def _key_of_kms(self) -> Self:
        if self.kms_key_id is not None and self.encryption != "aws:kms":
            raise ValueError("kms_key_id goes with encryption = aws:kms")
        return self


class RetentionSettings(Section):
    """When records leave."""

    days: int = Field(90, ge=0, le=36_500, description="How long a prediction and its outcomes stay; 0 for ever.")
    quarantine_days: int | None = Field(
        None, ge=0, le=36_500, description="The same for what was set aside; as `days` if unset."
    )
    interval_s: float = Field(3600, gt=0, description="How often what is due leaves.")
    batch: int = Field(2000, ge=1, le=100_000, description="Most records of one transaction.")
    archive_url: str | None = Field(
        None,
        pattern=rf"^(file://)?/[^\x00]+$|^{BUCKET_URL.pattern}$",
        description="A folder, or `s3://bucket/prefix`: what leaves by age goes there first, as Parquet.",
    )
    max_share: float = Field(
        0.5, gt=0, le=1, description="A sweep that would take more of all records waits for `retention run --force`."
    )
    max_gap_days: float = Field(
        3, gt=0, description="So does one whose predecessor is longer ago: the clock may be wrong."
    )


class AnalyticsSettings(Section):
    """Figures of the prediction log."""

    interval_s: float = Field(30, gt=0, description="How often minutes that are over, or changed, are rolled up.")


class LogSettings(Section):
    """Event logs."""

    level: Literal["debug", "info", "warning", "error"] = Field("info", description="Least level that is written.")


class Settings(BaseSettings):
    """All settings, frozen. `data` is the data folder (0700); `workers` the number of HTTP worker processes."""

    model_config = SettingsConfigDict(
        env_prefix="MODELYARD_",
        env_nested_delimiter="__",
        frozen=True,
        extra="forbid",
        nested_model_default_partial_update=True,
    )

    data: Path = Field(Path("modelyard-data"), description="The data folder; made private (0700).")
    workers: int = Field(1, ge=1, le=256, description="HTTP worker processes.")
    start_method: Literal["fork", "spawn"] = Field(
        "fork", description="How the first workers start: forked (quick, shared memory), or as fresh interpreters."
    )
    http: HttpSettings = HttpSettings()
    auth: AuthSettings = AuthSettings()
    limits: LimitsSettings = LimitsSettings()
    batching: BatchingSettings = BatchingSettings()
    codec: CodecSettings = CodecSettings()
    journal: JournalSettings = JournalSettings()
    snapshot: SnapshotSettings = SnapshotSettings()
    database: DatabaseSettings = DatabaseSettings()
    artifacts: ArtifactsSettings = ArtifactsSettings()
    models: ModelsSettings = ModelsSettings()
    retention: RetentionSettings = RetentionSettings()
    analytics: AnalyticsSettings = AnalyticsSettings()
    log: LogSettings = LogSettings()

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Flags, then environment, then the file named by MODELYARD_CONFIG."""
        sources: list[PydanticBaseSettingsSource] = [init_settings, env_settings]
        if path := os.environ.get("MODELYARD_CONFIG"):
            sources.append(TomlConfigSettingsSource(settings_cls, Path(path)))
        return tuple(sources)


def _nest(flags: dict[str, Any]) -> dict[str, Any]:
    """`{"http.port": 1}` as `{"http": {"port": 1}}`; None values were not given."""
    nested: dict[str, Any] = {}
    for name, value in flags.items():
        if value is None:
            continue
        section, _, key = name.rpartition(".")
        if section:
            nested.setdefault(section, {})[key] = value
        else:
            nested[key] = value
    return nested


def load_settings(config: Path | None = None, **flags: Any) -> Settings:
    """The effective settings. `flags` are dotted names (`**{"http.port": 0}`), None where not given.

    Raises SettingsError("setting_invalid") that names the setting, what was expected and what came.
    """
    if config is not None:
        if not config.is_file():
            raise SettingsError("setting_invalid", f"There is no configuration file at `{config}`.", field="--config")
        os.environ["MODELYARD_CONFIG"] = str(config)
    try:
        return Settings(**_nest(flags))
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False)[0]
        name = ".".join(str(part) for part in first["loc"])
        raise SettingsError(
            "setting_invalid",
            f"The setting `{name}` is wrong: {first['msg'].lower()}.",
            field=name,
            expected=first["msg"],
            got=_URL_PASSWORD.sub(r"\1***@", repr(first.get("input")))[:200],
        ) from None
    except (ValueError, TypeError) as error:
        raise SettingsError("setting_invalid", f"The settings cannot be read: {error}", field="--config") from None
