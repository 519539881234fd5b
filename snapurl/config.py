"""Settings: the only module that reads the environment (`SNAPURL_*`), and files with secrets.

Every bound of the service is here with its unit (last in its name) and its reason. A bad value stops the
start with one line that names the variable, and so does a variable that is no setting; a value that may hold a
password is never printed.

Any setting may be in a file instead, named like its variable in lower case and found in SNAPURL_SECRETS_DIR:
that is how Docker, Kubernetes and systemd hand over secrets. The environment wins.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, Self
from urllib.parse import parse_qs, quote, urlsplit, urlunsplit

from limits import parse as parse_rate
from pydantic import AfterValidator, Field, SecretStr, ValidationError, field_validator, model_validator
from pydantic.fields import FieldInfo
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SecretsSettingsSource,
    SettingsConfigDict,
)

from ring.topology import NAME_PATTERN
from snapurl.errors import ConfigError


@dataclass(frozen=True, slots=True)
class ShardDsn:
    """Where to reach one shard; `dsn` holds the password and is never shown."""

    name: str
    dsn: str = field(repr=False)


def _rate(value: str) -> str:
    """A `limits` rate such as `60/minute`, or `none`."""
    if value == "none":
        return value
    try:
        parse_rate(value)
    except ValueError:
        raise ValueError("is not a rate: write for example 60/minute, or none") from None
    return value


Rate = Annotated[str, AfterValidator(_rate)]


PREFIX = "SNAPURL_"
SECRETS_DIR = Path("/run/secrets")


class _SecretFiles(SecretsSettingsSource):
    """pydantic-settings' files with secrets, but one that cannot be used is an error rather than a warning, spaces
    around a password are part of it, and a directory need not be listable: /run/secrets may be others', too."""

    def __call__(self) -> dict[str, Any]:
        self._directory = Path(self.current_state.get("secrets_dir", SECRETS_DIR)).expanduser()
        if "secrets_dir" in self.current_state and not self._directory.is_dir():
            raise ConfigError(f"{PREFIX}SECRETS_DIR: there is no directory {self._directory}")
        if "secrets_dir" not in self.current_state and not os.access(self._directory, os.X_OK):
            return {}  # there is none, or it is somebody else's
        fields = self.settings_cls.model_fields.items()
        found = ((name, self.get_field_value(field, name)[0]) for name, field in fields)
        return {name: value for name, value in found if value is not None}

    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[str | None, str, bool]:
        """The text of the field's file without the newlines at its end; None if there is none, or no need of it."""
        file = self._directory / f"{PREFIX}{field_name}".lower()
        if field_name in self.current_state:
            return None, field_name, False
        try:
            text = file.read_text(encoding="utf-8").rstrip("\r\n")
        except (FileNotFoundError, NotADirectoryError):
            return None, field_name, False
        except OSError as error:
            raise ConfigError(f"the secret in {file} cannot be read: {error.strerror}") from None
        except UnicodeDecodeError:
            raise ConfigError(f"the secret in {file} cannot be read: it is not UTF-8") from None
        if not text:
            raise ConfigError(f"the secret in {file} is empty: write it there, or remove the file")
        return text, field_name, False


class Settings(BaseSettings):
    """All settings of the service, the click consumer and the tools."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX, frozen=True, extra="ignore", hide_input_in_errors=True, secrets_dir=SECRETS_DIR
    )

    shards: SecretStr = Field(
        SecretStr(""),
        description="The shards: `name=postgresql://user:password@host:port/database`, separated by spaces.",
    )
    shards_password: SecretStr = Field(
        SecretStr(""), description="Password of every shard whose address names none; not percent-encoded."
    )
    redis_url: SecretStr = Field(
        SecretStr("redis://127.0.0.1:6379/0"), description="The Redis that caches, limits and carries clicks."
    )
    redis_password: SecretStr = Field(
        SecretStr(""), description="Password of Redis if its URL names none; not percent-encoded."
    )
    secrets_dir: Path = Field(
        SECRETS_DIR,
        description="Where files such as `snapurl_shards_password` hold settings; the variables win.",
    )
    home: Path = Field(Path(".snapurl"), description="Where `snapurl up` keeps the local cluster's data.")
    host: str = Field("127.0.0.1", description="Address the HTTP service listens on.")
    port: int = Field(8000, ge=1, le=65535, description="Port the HTTP service listens on.")
    workers: int = Field(
        default_factory=lambda: os.cpu_count() or 1,
        ge=1,
        le=256,
        description="HTTP workers (default: cores).",
    )
    base_url: str = Field(
        "", description="Public address, the start of every short URL (default: `http://127.0.0.1:PORT`)."
    )
    own_domains: str = Field(
        "", description="Further host names of this service, by spaces: links to them are refused as loops."
    )
    anonymous_creation: bool = Field(False, description="Whether links may be created without an API key.")
    proxies_count: int = Field(
        0, ge=0, le=10, description="Trusted reverse proxies in front; 0 takes the address of the connection."
    )
    fast_path: bool = Field(
        True, description="Whether redirects and creates are answered ahead of Sanic: the same bytes, sooner."
    )
    migrate_on_start: bool = Field(True, description="Whether a start applies missing migrations.")
    virtual_nodes: int = Field(
        1024, ge=64, le=16_384, description="Virtual nodes per unit of weight, fixed at the first start."
    )
    log_level: str = Field("info", pattern="^(debug|info|warning|error)$", description="Least level logged.")
    log_format: str = Field(
        "", pattern="^(|json|text)$", description="`json` or `text` (default: text on a terminal, else JSON)."
    )

    limit_create: Rate = Field("120/minute", description="Links created per key or address.")
    limit_missing: Rate = Field(
        "60/minute",
        description="404 answers per address; beyond it the address gets 429 until the window ends.",
    )

    l1_links: int = Field(
        200_000, ge=0, le=5_000_000, description="Links that one worker caches; the least recently used goes."
    )
    l1_max_age_s: float = Field(
        240.0, gt=0, le=3600, description="Age at which a worker's cached link is reloaded."
    )
    l2_max_age_s: int = Field(300, ge=1, le=86_400, description="Age at which Redis forgets a link.")
    miss_max_age_s: int = Field(
        2, ge=1, le=60, description="Age at which a cached `no such link` is forgotten."
    )

    pool_connections: int = Field(
        8,
        ge=1,
        le=200,
        description="PostgreSQL connections per shard and worker (one more listens for news).",
    )
    pool_wait_ms: int = Field(
        500, ge=1, le=60_000, description="Longest wait for a free connection; then 503 with Retry-After."
    )
    statement_timeout_ms: int = Field(
        2_000, ge=50, le=60_000, description="Longest statement; also the wait for a silent shard."
    )
    busy_wait_ms: int = Field(
        1_000, ge=50, le=30_000, description="Longest retry on a slot in hand-off; then 503 with Retry-After."
    )
    redis_timeout_ms: int = Field(200, ge=10, le=10_000, description="Longest wait for Redis.")

    body_bytes_max: int = Field(
        4_194_304, ge=1024, le=67_108_864, description="Largest request body; beyond it 413."
    )
    bulk_links_max: int = Field(1_000, ge=1, le=1_000, description="Links in one bulk request.")
    url_chars_max: int = Field(8_192, ge=64, le=65_536, description="Longest target URL.")

    click_flush_ms: int = Field(
        100, ge=5, le=10_000, description="How often a worker ships its clicks: what `kill -9` may lose."
    )
    click_codes_max: int = Field(
        200_000, ge=100, le=10_000_000, description="Distinct codes whose clicks wait while Redis is gone."
    )
    click_sources_max: int = Field(
        50_000,
        ge=0,
        le=10_000_000,
        description="Sources (referring host, browser family) whose clicks wait meanwhile; 0 keeps none at all.",
    )
    click_stream_entries_max: int = Field(
        1_000_000, ge=1_000, le=100_000_000, description="Stream entries kept; workers hold clicks beyond it."
    )

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """What is said in the program, then the environment, then files."""
        return init_settings, env_settings, _SecretFiles(settings_cls)

    @field_validator("base_url")
    @classmethod
    def _check_base_url(cls, value: str) -> str:
        if not value:
            return value
        parts = urlsplit(value)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment:
            raise ValueError("must look like https://s.example.org")
        return value.rstrip("/")

    @model_validator(mode="after")
    def _check_shards(self) -> Self:
        parse_shards(self.shards.get_secret_value())
        return self

    @property
    def shard_dsns(self) -> tuple[ShardDsn, ...]:
        """The configured shards with their passwords, sorted by name. Raises ConfigError if there is none."""
        dsns = parse_shards(self.shards.get_secret_value())
        if not dsns:
            raise ConfigError(
                "SNAPURL_SHARDS is missing: set it to 'db0=postgresql://user:password@host/database db1=…', "
                "or run `snapurl up` for a cluster on this machine"
            )
        return tuple(ShardDsn(item.name, self.with_password(item.dsn)) for item in dsns)

    def with_password(self, dsn: str) -> str:
        """The DSN of a shard with SNAPURL_SHARDS_PASSWORD in it, unless it names a password or cannot be read."""
        password = self.shards_password.get_secret_value()
        try:
            parts = urlsplit(dsn)
        except ValueError:
            return dsn  # whoever connects says so
        user, _, hosts = parts.netloc.rpartition("@")
        if not password or user.partition(":")[2] or "password" in parse_qs(parts.query):
            return dsn
        user = f"{user.partition(':')[0]}:{quote(password, safe='')}"
        return urlunsplit(parts._replace(netloc=f"{user}@{hosts}"))

    @property
    def public_url(self) -> str:
        """Start of every short URL, without a slash at its end."""
        return self.base_url or f"http://127.0.0.1:{self.port}"

    @property
    def loop_domains(self) -> frozenset[str]:
        """Host names (lower case) to which no link may point."""
        own = urlsplit(self.public_url).hostname or ""
        return frozenset({own, *self.own_domains.lower().split()})


def parse_shards(text: str) -> tuple[ShardDsn, ...]:
    """The shards of a SNAPURL_SHARDS value, sorted by name. Raises ValueError with one line, no secret in it."""
    found: dict[str, ShardDsn] = {}
    for position, item in enumerate(text.split(), 1):
        name, equals, dsn = item.partition("=")
        if not equals or not NAME_PATTERN.fullmatch(name):
            raise ValueError(f"shard {position} must be written name=postgresql://… (names like db0)")
        if not dsn.startswith(("postgresql://", "postgres://")):
            raise ValueError(f"the DSN of shard {name} must start with postgresql://")
        if name in found:
            raise ValueError(f"shard {name} is listed twice")
        if dsn in (other.dsn for other in found.values()):
            raise ValueError(f"shard {name} has the same DSN as another shard")
        found[name] = ShardDsn(name, dsn)
    return tuple(found[name] for name in sorted(found))


def load_settings(**overrides: object) -> Settings:
    """Settings from `overrides`, the environment and files. Raises ConfigError with one line, no secret in it."""
    _refuse_unknown(os.environ)
    try:
        return Settings(**overrides)  # type: ignore[arg-type]  # pydantic checks the values
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        name = PREFIX + "_".join(str(part) for part in first["loc"] or ("shards",)).upper()
        message = str(first["msg"]).removeprefix("Value error, ")
        raise ConfigError(f"{name}: {message}") from None


def _refuse_unknown(names: Iterable[str]) -> None:
    """A variable with our prefix that is no setting is a typo, or of another version: nothing heeds it."""
    known = [PREFIX + name.upper() for name in Settings.model_fields]
    for name in sorted(names):
        if name.upper().startswith(PREFIX) and name.upper() not in known:
            (near,) = get_close_matches(name.upper(), known, n=1, cutoff=0.0)
            raise ConfigError(f"{name} is no setting; the nearest is {near}: correct it, or take it away")
