"""Settings: the only module, besides `probe.py`, that reads `SNAPURL_*` variables and secret files.

What an operator may need to change is a setting, with its unit last in its name. All other bounds are constants
beside the code that they bound. Variables that other standards define are read where they apply: `OTEL_*` in
`telemetry/traces.py`, `PROMETHEUS_MULTIPROC_DIR` in `telemetry/metrics_port.py`. Child processes inherit the
environment.

An invalid value stops the start with one line that names the variable. So does an unknown `SNAPURL_*` variable. A
value that may hold a password is never printed. An empty variable counts as unset: container files pass those on.

Each setting can also come from a file in SNAPURL_SECRETS_DIR that is named like the variable in lower case. Docker,
Kubernetes and systemd provide secrets in this form. An environment variable takes precedence over a file.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
from collections.abc import Iterable
from dataclasses import dataclass, field
from difflib import get_close_matches
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal, Self
from urllib.parse import parse_qs, quote, urlsplit, urlunsplit

from pydantic import (
    AfterValidator,
    Field,
    SecretStr,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SecretsSettingsSource,
    SettingsConfigDict,
)

from ring.topology import NAME_PATTERN
from snapurl.addresses import Network, parse_networks
from snapurl.domains import Domains
from snapurl.errors import ConfigError
from snapurl.model import is_limit
from snapurl.people import Permit, parse_permits
from snapurl.private_files import check_directory
from snapurl.urls import (
    Origin,
    UrlRefused,
    host_from_here,
    host_in_url,
    is_confidential,
    origin_of,
    own_origins,
    parse_base_url,
)


@dataclass(frozen=True, slots=True)
class ShardDsn:
    """The name and DSN of a shard. `dsn` may hold a password, so `repr` leaves it out."""

    name: str
    dsn: str = field(repr=False)


def _rate(value: str) -> str:
    """Accepts a rate of the `limits` library, such as `60/minute`, or `none`."""
    if not is_limit(value):
        raise ValueError("is not a rate: write a rate such as 60/minute, or none")
    return value


Rate = Annotated[str, AfterValidator(_rate)]


PREFIX = "SNAPURL_"
SECRETS_DIR = Path("/run/secrets")
SESSION_SECRET_CHARS_MIN = 32
CLICK_DAYS_KEPT_MIN = 31
REPLACED = {
    "SNAPURL_PROXIES_COUNT": "set SNAPURL_PROXIES to the networks of your proxies, such as '10.0.0.0/8 192.0.2.7'"
}
"""Settings of earlier versions, and what to do instead."""


_ORIGIN = re.compile(r"https?://(?:[a-z0-9.-]+|\[[0-9a-f:.]+\])(?::[0-9]{1,5})?")  # as browsers send it


_HEADER = re.compile(r"[A-Za-z0-9-]{1,100}")
_OTHER_HEADERS = (
    "authorization",
    "cookie",
    "forwarded",
    "host",
    "x-api-key",
    "x-forwarded-for",
    "x-forwarded-proto",
)


def _header_name(text: str) -> str:
    """Returns the name of a header in lower case, "" for none. Raises ValueError."""
    name = text.strip().lower()
    if name and (not _HEADER.fullmatch(name) or name in _OTHER_HEADERS):
        raise ValueError("must be the name of a header of its own, such as X-Forwarded-User")
    return name


def _require_permits(info: ValidationInfo) -> None:
    """Raises ValueError if nobody who logs in without a key could do anything."""
    if not info.data.get("login_rights"):
        raise ValueError(
            "nobody could do anything: set SNAPURL_LOGIN_RIGHTS to what groups may do, such as "
            "'admins=admin@acc_…; *=create,read@acc_…'"
        )


@cache
def _split(text: str) -> frozenset[str]:
    return frozenset(text.split())


class _SecretFiles(SecretsSettingsSource):
    """Reads settings from secret files.

    It differs from pydantic-settings in three points: a file that cannot be used is an error and not a warning,
    spaces around a password belong to it, and the directory need not be listable, since programs may share
    /run/secrets.
    """

    def __call__(self) -> dict[str, Any]:
        try:
            self._directory = Path(self.current_state.get("secrets_dir", SECRETS_DIR)).expanduser()
        except RuntimeError:
            raise ConfigError(f"{PREFIX}SECRETS_DIR: there is no such user") from None
        if "secrets_dir" in self.current_state and not self._directory.is_dir():
            raise ConfigError(f"{PREFIX}SECRETS_DIR: there is no directory {self._directory}")
        if "secrets_dir" not in self.current_state and not os.access(self._directory, os.X_OK):
            return {}  # the default directory does not exist, or belongs to another program
        fields = self.settings_cls.model_fields.items()
        read = ((name, self.get_field_value(field, name)[0]) for name, field in fields)
        found = {name: value for name, value in read if value is not None}
        if found:
            check_directory(self._directory, f"{PREFIX}SECRETS_DIR")
        return found

    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[str | None, str, bool]:
        """Returns the text of the field's file without trailing newlines, or None if there is no such file.

        Returns None too if the environment has set the field. Raises ConfigError if the file cannot be used.
        """
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
            raise ConfigError(f"the secret in {file} is empty: write the secret to it, or remove the file")
        return text, field_name, False


class Settings(BaseSettings):
    """The settings of all programs: the HTTP service, the click consumer and the operator's tools."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX,
        env_ignore_empty=True,
        frozen=True,
        extra="ignore",
        hide_input_in_errors=True,
        secrets_dir=SECRETS_DIR,
    )

    shards: SecretStr = Field(
        SecretStr(""),
        description="Shards, separated by spaces: `name=postgresql://user:password@host:port/database`.",
    )
    shards_password: SecretStr = Field(
        SecretStr(""), description="Password for each shard whose DSN has none; not percent-encoded."
    )
    redis_url: SecretStr = Field(
        SecretStr("redis://127.0.0.1:6379/0"),
        description="Redis for the shared cache, rate limits and the click stream.",
    )
    redis_password: SecretStr = Field(
        SecretStr(""), description="Password for Redis if its URL has none; not percent-encoded."
    )
    secrets_dir: Path = Field(
        SECRETS_DIR,
        description="Directory with settings in files such as `snapurl_shards_password`; variables override files.",
    )
    home: Path = Field(Path(".snapurl"), description="Data directory of the local cluster (`snapurl up`).")
    host: str = Field("127.0.0.1", description="Address the HTTP service listens on.")
    port: int = Field(8000, ge=1, le=65535, description="Port the HTTP service listens on.")
    metrics_port: int = Field(
        0,
        ge=0,
        le=65535,
        description="Port of the HTTP service's metrics, and of its readiness with details; 0: none "
        "(`snapurl up`: any free port).",
    )
    metrics_host: str = Field(
        "127.0.0.1", description="Address for SNAPURL_METRICS_PORT; `0.0.0.0`: all interfaces."
    )
    workers: int = Field(
        default_factory=lambda: os.cpu_count() or 1,
        ge=1,
        le=256,
        description="Number of HTTP worker processes (default: one per CPU core).",
    )
    base_url: str = Field(
        "",
        description="Public URL that short URLs begin with, such as `https://s.example.org`: without a path "
        "(default: `http://HOST:PORT`).",
    )
    domains: str = Field(
        "",
        description="Further host names with links of their own, separated by spaces, such as `go.example.org`; "
        "short URLs have the scheme and the port of SNAPURL_BASE_URL.",
    )
    own_domains: str = Field(
        "",
        description="Other hosts of this service, without links of their own, `host` or `host:port`, separated by "
        "spaces; links to them (loops) are refused.",
    )
    cors_origins: str = Field(
        "",
        description="Origins whose web pages may use the API (CORS), such as `https://app.example.org`, separated "
        "by spaces; `*` for all, none by default.",
    )
    url: str = Field(
        "",
        description="URL of the service that `snapurl links` and `import` use, such as `https://s.example.org` "
        "(default: `http://HOST:PORT`).",
    )
    api_key: SecretStr = Field(SecretStr(""), description="API key of `snapurl links`.")
    api_key_file: Path | None = Field(
        None,
        description="File with the API key of `snapurl links`, which only its owner may read (default, without "
        "SNAPURL_URL: the admin key that `snapurl up` keeps in SNAPURL_HOME).",
    )
    anonymous_creation: bool = Field(False, description="Whether links may be created without an API key.")
    proxies: str = Field(
        "",
        description="Networks of trusted reverse proxies, separated by spaces, such as `10.0.0.0/8`; only they may "
        "name the client, in `X-Forwarded-For` or `Forwarded`.",
    )
    webhook_networks: str = Field(
        "",
        description="Networks that webhooks may lead to besides the public Internet, separated by spaces, such as "
        "`10.0.0.0/8` (default: none).",
    )
    webhook_days_kept: int = Field(
        30,
        ge=2,
        le=3_650,
        description="Days for which messages of webhooks are kept that were sent or given up.",
    )
    geo_file: Path | None = Field(
        None,
        description="Database of places (MMDB) from which clicks get their country and city; needs "
        "`pip install 'snapurl[analytics]'` (default: none).",
    )
    geo_header: str = Field(
        "",
        description="Header in which the proxies of SNAPURL_PROXIES name the country of a click, such as "
        "`CF-IPCountry`; from any other peer it is not read (default: none).",
    )
    dashboard: bool = Field(True, description="Whether there is a dashboard, at `/ui`.")
    dashboard_host: str = Field(
        "",
        description="The only host that shows the dashboard, `host` or `host:port` (default: all of the service).",
    )
    session_secret: SecretStr = Field(
        SecretStr(""),
        description="Secret that signs the sessions of the dashboard: 32 characters or more, the same on all "
        "hosts (default: a new one at each start, which ends all sessions).",
    )
    login_rights: str = Field(
        "",
        description="What people who log in without an API key may do: `group=rights@account`, separated by `;`; "
        "the first entry of a person's groups counts, `*` is everybody.",
    )
    login_header: str = Field(
        "",
        description="Header in which the proxies of SNAPURL_PROXIES name who uses the dashboard, such as "
        "`X-Forwarded-User`; from any other peer it is not read (default: none).",
    )
    login_groups_header: str = Field(
        "",
        description="Header in which they list the groups of that person, separated by `,` or `|`, such as "
        "`X-Forwarded-Groups`.",
    )
    oidc_client_id: str = Field("", description="Client id of this service at the OpenID provider.")
    oidc_client_secret: SecretStr = Field(
        SecretStr(""), description="Client secret at the OpenID provider; empty for a public client."
    )
    oidc_issuer: str = Field(
        "",
        description="Issuer URL of the OpenID provider at which people log in to the dashboard; needs "
        "`pip install 'snapurl[oidc]'` (default: none).",
    )
    oidc_scope: str = Field(
        "openid profile",
        description="Scopes that the OpenID provider is asked for, separated by spaces; some want `groups` too.",
    )
    oidc_groups_claim: str = Field(
        "groups",
        description="Claim with the groups of a person, in the ID token or at the userinfo endpoint.",
    )
    fast_path: bool = Field(
        True,
        description="Whether the fast path answers plain redirects and creates; the responses stay the same.",
    )
    stop_delay_s: float = Field(
        0.0,
        ge=0,
        le=60,
        description="Seconds between SIGTERM and the end of service in which health checks fail, for balancers.",
    )
    migrate_on_start: bool = Field(True, description="Whether missing migrations are applied at start.")
    virtual_nodes: int = Field(
        1024,
        ge=64,
        le=16_384,
        description="Virtual nodes per unit of shard weight; fixed when the cluster is initialised.",
    )
    preview: bool = Field(
        True, description="Whether `/{code}+` shows where a link leads; if not, nothing is there."
    )
    fetch_titles: bool = Field(
        False,
        description="Whether workers may fetch the title of a link's target when somebody asks for it, from public "
        "addresses alone.",
    )
    blocked_hosts_file: Path | None = Field(
        None,
        description="File of hosts to which no link may lead, nor to one below them: a hosts file, or one host a "
        "line; read again when it changes (default: none).",
    )
    url_check_command: str = Field(
        "",
        description="Program that is asked whether links may lead to a URL, with its arguments; each worker starts "
        "it once, without a shell (default: none).",
    )
    url_check_timeout_ms: int = Field(
        1_000,
        ge=10,
        le=10_000,
        description="Maximum wait for an answer of that program; then it is killed, and started again later.",
    )
    url_check_failure: Literal["refuse", "allow"] = Field(
        "refuse",
        description="What becomes of links while it does not answer: `refuse` with 503, or `allow` unchecked.",
    )
    shlink_api: bool = Field(
        False, description="Whether clients of Shlink can use this service: its REST API, at `/rest`."
    )
    yourls_api: bool = Field(
        False, description="Whether clients of YOURLS can use this service: its API, at `/yourls-api.php`."
    )
    robots: Literal["allow", "deny"] = Field(
        "allow",
        description="Whether `/robots.txt` lets crawlers follow links (`allow`) or keeps them away (`deny`).",
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        "info",
        description="Minimum log level: `debug`, `info`, `warning` or `error`.",
    )
    log_format: Literal["", "json", "text"] = Field(
        "",
        description="Log format, `json` or `text` (default: text on a terminal, otherwise JSON).",
    )

    limit_create: Rate = Field(
        "1200/10minute",
        description="Rate limit for creating links, per API key or client address; `none` for no limit.",
    )
    limit_api: Rate = Field(
        "1200/minute",
        description="Rate limit for other API requests, per API key that is no admin key; beyond it 429.",
    )
    limit_public_stats: Rate = Field(
        "60/minute",
        description="Rate limit for public statistics, per client address; beyond it 429.",
    )
    limit_unauthorized: Rate = Field(
        "60/minute",
        description="Rate limit for refused API keys, per client address; then 429 until the window ends.",
    )
    limit_missing: Rate = Field(
        "60/minute",
        description="Rate limit for redirects to missing links, per client; beyond it they get 429, and after ten "
        "times as many existing links do too, until the window ends.",
    )

    limit_password: Rate = Field(
        "10/minute",
        description="Rate limit for wrong passwords of links, per client address, and ten times as many per link; "
        "beyond it 429 until the window ends.",
    )

    l1_links: int = Field(
        200_000,
        ge=0,
        le=5_000_000,
        description="Links in the cache of each worker (L1); what was not used for longest is evicted.",
    )
    l1_bytes: int = Field(
        134_217_728,
        ge=1_048_576,
        le=68_719_476_736,
        description="Memory of the cache of each worker (L1), in bytes; what was not used for longest is evicted.",
    )
    l1_max_age_s: float = Field(
        240.0, gt=0, le=3600, description="Age at which a link expires from the cache of a worker (L1)."
    )
    l2_max_age_s: int = Field(
        300, ge=1, le=86_400, description="Age at which a link expires from the cache in Redis (L2)."
    )
    l2_bytes: int = Field(
        268_435_456,
        ge=1_048_576,
        le=1_099_511_627_776,
        description="Memory in use of Redis, in bytes, up to which links are added to the cache in it (L2); "
        "never more than half of its `maxmemory`.",
    )
    miss_max_age_s: int = Field(
        2, ge=1, le=60, description="Age at which a cached miss (no such link) expires."
    )

    pool_connections: int = Field(
        8,
        ge=1,
        le=200,
        description="PostgreSQL connections per shard and worker; one more connection per shard is for LISTEN.",
    )
    pool_wait_ms: int = Field(
        500,
        ge=1,
        le=60_000,
        description="Maximum wait for a free PostgreSQL connection; then 503 with Retry-After.",
    )
    statement_timeout_ms: int = Field(
        2_000,
        ge=50,
        le=60_000,
        description="Maximum time of a statement, and maximum wait for a shard that does not answer.",
    )
    busy_wait_ms: int = Field(
        1_000,
        ge=50,
        le=30_000,
        description="Maximum time of retries while a slot is in hand-off; then 503 with Retry-After.",
    )
    redis_timeout_ms: int = Field(
        200, ge=10, le=10_000, description="Maximum wait for a connection to Redis or its reply."
    )

    body_bytes_max: int = Field(
        4_194_304,
        ge=1024,
        le=67_108_864,
        description="Maximum size of a request body; less if it may hold few links; beyond it 413.",
    )
    bulk_links_max: int = Field(
        1_000,
        ge=1,
        le=1_000,
        description="Maximum number of links in one bulk request; less if the client's limit allows less at once.",
    )
    url_chars_max: int = Field(8_192, ge=64, le=65_536, description="Maximum length of a target URL.")

    click_flush_ms: int = Field(
        100,
        ge=5,
        le=10_000,
        description="Interval at which a worker sends its clicks to Redis; `kill -9` loses at most one interval.",
    )
    click_codes_max: int = Field(
        200_000,
        ge=100,
        le=10_000_000,
        description="Distinct codes whose clicks a worker holds while Redis is down; clicks of others are dropped.",
    )
    click_sources_max: int = Field(
        50_000,
        ge=0,
        le=10_000_000,
        description="Values of break-downs (referrers, countries, …) that a worker holds; 0: clicks are counted "
        "and nothing else is kept of them.",
    )
    click_stream_entries_max: int = Field(
        1_000_000,
        ge=1_000,
        le=100_000_000,
        description="Maximum length of the click stream in Redis; beyond it workers hold their clicks.",
    )
    click_days_kept: int = Field(
        400,
        ge=0,
        le=36_500,
        description="Days for which clicks are kept by day, at least 31; later, only by month. 0: for ever.",
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
        """Returns the sources by precedence: arguments, environment variables, secret files."""
        return init_settings, env_settings, _SecretFiles(settings_cls)

    @field_validator("host")
    @classmethod
    def _check_host(cls, value: str) -> str:
        host = value.strip(" ")
        try:
            origin_of(f"http://{host_in_url(host)}")
        except UrlRefused:
            raise ValueError(
                "must be a host name or an address such as 0.0.0.0 or ::1, without a port"
            ) from None
        return host

    @field_validator("home")
    @classmethod
    def _check_home(cls, value: Path) -> Path:
        try:
            value.expanduser()
        except RuntimeError:
            raise ValueError("there is no such user") from None
        return value

    @field_validator("base_url", "url")
    @classmethod
    def _check_base_url(cls, value: str) -> str:
        return parse_base_url(value) if value.strip() else ""

    @field_validator("own_domains")
    @classmethod
    def _check_own_domains(cls, value: str) -> str:
        own_origins("https://s.example.org", value.split())
        return value

    @field_validator("domains")
    @classmethod
    def _check_domains(cls, value: str, info: ValidationInfo) -> str:
        if "host" in info.data and "base_url" in info.data:  # otherwise one of those is refused
            local = f"http://{host_in_url(host_from_here(info.data['host']))}"
            Domains.of(info.data["base_url"] or local, value.split())
        return value

    @field_validator("dashboard_host")
    @classmethod
    def _check_dashboard_host(cls, value: str) -> str:
        host = value.strip(" ").lower()
        if host:
            try:
                origin_of(f"http://{host}")
            except UrlRefused:
                host = "/"
        if "/" in host or "@" in host:
            raise ValueError(
                "must be a host or host:port, such as admin.example.org, without https:// and path"
            )
        return host

    @field_validator("session_secret")
    @classmethod
    def _check_session_secret(cls, value: SecretStr) -> SecretStr:
        if 0 < len(value.get_secret_value()) < SESSION_SECRET_CHARS_MIN:
            raise ValueError(f"must have at least {SESSION_SECRET_CHARS_MIN} characters, chosen at random")
        return value

    @field_validator("login_rights")
    @classmethod
    def _check_login_rights(cls, value: str) -> str:
        parse_permits(value)
        return value

    @field_validator("url_check_command")
    @classmethod
    def _check_url_check_command(cls, value: str) -> str:
        try:
            argv = shlex.split(value)
        except ValueError:
            raise ValueError("must be a program and its arguments, with quotes in pairs") from None
        if argv and shutil.which(argv[0]) is None:
            raise ValueError("there is no such program")
        return value

    @field_validator("geo_header")
    @classmethod
    def _check_geo_header(cls, value: str, info: ValidationInfo) -> str:
        header = _header_name(value)
        if header and not info.data.get("proxies"):
            raise ValueError(
                "anybody could send this header: set SNAPURL_PROXIES to the networks of your proxies"
            )
        return header

    @field_validator("login_header")
    @classmethod
    def _check_login_header(cls, value: str, info: ValidationInfo) -> str:
        header = _header_name(value)
        if header and not info.data.get("proxies"):
            raise ValueError(
                "anybody could send this header: set SNAPURL_PROXIES to the networks of your proxies"
            )
        if header:
            _require_permits(info)
        return header

    @field_validator("login_groups_header")
    @classmethod
    def _check_login_groups_header(cls, value: str, info: ValidationInfo) -> str:
        header = _header_name(value)
        if header and not info.data.get("login_header"):
            raise ValueError("means nothing without SNAPURL_LOGIN_HEADER, the header that names the person")
        return header

    @field_validator("oidc_issuer")
    @classmethod
    def _check_oidc_issuer(cls, value: str, info: ValidationInfo) -> str:
        issuer = value.strip()
        if not issuer:
            return ""
        if not is_confidential(issuer) or "?" in issuer or "#" in issuer:
            raise ValueError(
                "must be the issuer URL of a provider, such as https://id.example.org/realms/main"
            )
        if not info.data.get("oidc_client_id"):
            raise ValueError("the provider has to know this service: set SNAPURL_OIDC_CLIENT_ID, too")
        _require_permits(info)
        return issuer

    @field_validator("oidc_scope")
    @classmethod
    def _check_oidc_scope(cls, value: str) -> str:
        scopes = value.split()
        if "openid" not in scopes:
            raise ValueError("must include openid")
        return " ".join(scopes)

    @field_validator("click_days_kept")
    @classmethod
    def _check_click_days_kept(cls, value: int) -> int:
        if 0 < value < CLICK_DAYS_KEPT_MIN:
            raise ValueError(f"must be 0 (for ever), or at least {CLICK_DAYS_KEPT_MIN}")
        return value

    @field_validator("proxies", "webhook_networks")
    @classmethod
    def _check_networks(cls, value: str) -> str:
        parse_networks(value)
        return value

    @field_validator("cors_origins")
    @classmethod
    def _check_cors_origins(cls, value: str) -> str:
        origins = value.split()
        if origins != ["*"] and not all(map(_ORIGIN.fullmatch, origins)):
            raise ValueError("must be origins such as https://app.example.org, separated by spaces, or *")
        return value

    @model_validator(mode="after")
    def _check_shards(self) -> Self:
        parse_shards(self.shards.get_secret_value())
        return self

    @property
    def shard_dsns(self) -> tuple[ShardDsn, ...]:
        """The configured shards with their passwords, sorted by name. Raises ConfigError if there are none."""
        dsns = parse_shards(self.shards.get_secret_value())
        if not dsns:
            raise ConfigError(
                "SNAPURL_SHARDS is missing: set it to 'db0=postgresql://user:password@host/database db1=…', "
                "or run `snapurl up` for a local cluster"
            )
        return tuple(ShardDsn(item.name, self.with_password(item.dsn)) for item in dsns)

    def with_password(self, dsn: str) -> str:
        """Adds SNAPURL_SHARDS_PASSWORD to a DSN. Returns a DSN that has a password or is malformed unchanged."""
        password = self.shards_password.get_secret_value()
        try:
            parts = urlsplit(dsn)
        except ValueError:
            return dsn  # connecting to it reports the error
        user, _, hosts = parts.netloc.rpartition("@")
        if not password or user.partition(":")[2] or "password" in parse_qs(parts.query):
            return dsn
        user = f"{user.partition(':')[0]}:{quote(password, safe='')}"
        return urlunsplit(parts._replace(netloc=f"{user}@{hosts}"))

    @property
    def url_check_argv(self) -> tuple[str, ...]:
        """The program that is asked of URLs with its arguments, empty for none."""
        return tuple(shlex.split(self.url_check_command))

    @property
    def proxy_networks(self) -> tuple[Network, ...]:
        """The networks of the trusted proxies."""
        return parse_networks(self.proxies)

    @property
    def receiver_networks(self) -> tuple[Network, ...]:
        """The networks that webhooks may lead to besides the public Internet."""
        return parse_networks(self.webhook_networks)

    @property
    def permits(self) -> tuple[Permit, ...]:
        """What the groups of people may do who log in without a key."""
        return parse_permits(self.login_rights)

    @property
    def cors_allowed(self) -> frozenset[str]:
        """The origins of other sites that may use the API; `*` for all."""
        return _split(self.cors_origins)

    @property
    def public_url(self) -> str:
        """The URL that short URLs begin with, without a trailing slash."""
        return self.base_url or self.local_url

    @property
    def dashboard_url(self) -> str:
        """The URL of the dashboard, without a trailing slash."""
        scheme, _, host = self.public_url.partition("://")
        return f"{scheme}://{self.dashboard_host or host}/ui"

    def shared_statistics_url(self, key: str, secret: str) -> str:
        """The URL of the public page with the statistics of a link."""
        return f"{self.dashboard_url}/shared/{key.replace('/', '~')}/{secret}"

    def has_dashboard_at(self, host: str) -> bool:
        """Whether the dashboard answers requests to this host, as in the header `Host`."""
        return self.dashboard and self.dashboard_host in ("", host.lower())

    @property
    def local_host(self) -> str:
        """The host that reaches the service from the same machine."""
        return host_from_here(self.host)

    @property
    def local_url(self) -> str:
        """The URL that reaches the service from the same machine, without a trailing slash."""
        return f"http://{host_in_url(self.local_host)}:{self.port}"

    @property
    def admin_key_file(self) -> Path:
        """Where the admin key of the local cluster is kept."""
        return self.home.expanduser().resolve() / "admin.key"

    @property
    def own_origins(self) -> frozenset[Origin]:
        """Where this service is; a link to there would be a redirect loop."""
        return own_origins(self.public_url, [*self.own_domains.split(), *self.link_domains.others])

    @property
    def link_domains(self) -> Domains:
        """The domains that have links."""
        return Domains.of(self.public_url, self.domains.split())


def parse_shards(text: str) -> tuple[ShardDsn, ...]:
    """Parses a SNAPURL_SHARDS value; returns the shards sorted by name.

    Raises ValueError with one line that contains no secret.
    """
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
    """Loads the settings from `overrides`, the environment and secret files.

    Raises ConfigError with one line that contains no secret.
    """
    _refuse_unknown(name for name, value in os.environ.items() if value)
    try:
        return Settings(**overrides)  # type: ignore[arg-type]  # pydantic checks the values
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        name = PREFIX + "_".join(str(part) for part in first["loc"] or ("shards",)).upper()
        raise ConfigError(f"{name}: {_reason(first)}") from None


_WORDS = {
    "int_parsing": "must be a whole number",
    "int_from_float": "must be a whole number",
    "float_parsing": "must be a number",
    "bool_parsing": "must be true or false",
    "greater_than": "must be more than {gt}",
    "greater_than_equal": "must be at least {ge}",
    "less_than_equal": "must be at most {le}",
}


def _reason(error: ErrorDetails) -> str:
    """Returns what is wrong with a setting, in the words of this program."""
    kind, context = error["type"], error.get("ctx", {})
    if kind == "literal_error":
        return "must be one of " + ", ".join(filter(None, re.findall(r"'([^']*)'", context["expected"])))
    if kind in _WORDS:
        return _WORDS[kind].format(**context)
    return error["msg"].removeprefix("Value error, ")


def override(**values: object) -> None:
    """Sets settings in the environment, which child processes inherit. None leaves a setting as it is."""
    os.environ.update(
        {PREFIX + name.upper(): str(value) for name, value in values.items() if value is not None}
    )


def _refuse_unknown(names: Iterable[str]) -> None:
    """Raises ConfigError for an unknown SNAPURL_* variable: a typo, or a setting of another version."""
    known = [PREFIX + name.upper() for name in Settings.model_fields]
    for name in sorted(names):
        if name.upper() in REPLACED:
            raise ConfigError(f"{name} is not a setting: {REPLACED[name.upper()]}")
        if name.upper().startswith(PREFIX) and name.upper() not in known:
            (near,) = get_close_matches(name.upper(), known, n=1, cutoff=0.0)
            raise ConfigError(f"{name} is not a setting: did you mean {near}? Correct or unset it")
