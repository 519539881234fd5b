"""Settings come from variables and secret files; errors are one line."""

from __future__ import annotations

import re
import warnings
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

from snapurl.config import Settings, load_settings
from snapurl.errors import ConfigError
from snapurl.redis_client import redis_pool
from snapurl.urls import origin_of
from tests.support.requirements import requires

ODD = " p@ss:w/o%rd#?&+ ü'\"\\ "


@pytest.fixture
def secrets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Returns the directory of the program's secrets, which is empty."""
    monkeypatch.setenv("SNAPURL_SECRETS_DIR", str(tmp_path))
    return tmp_path


LOGIN = {"proxies": "10.0.0.1", "login_rights": "*=read@acc_7Fq2xWm0bZ"}


def refusal(**overrides: object) -> str:
    with pytest.raises(ConfigError) as caught:
        load_settings(**overrides)
    assert "\n" not in caught.value.detail
    return caught.value.detail


def password_of(settings: Settings, position: int = 0) -> str:
    return unquote(urlsplit(settings.shard_dsns[position].dsn).password or "")


# -- files --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("end", ["", "\n", "\r\n", "\n\n"])
def test_a_secret_is_read_from_a_file_as_it_is(secrets: Path, end: str) -> None:
    """A secret is read from its file with every character, including outer spaces, except trailing newlines."""
    (secrets / "snapurl_shards_password").write_bytes(f"{ODD}{end}".encode())
    (secrets / "snapurl_redis_password").write_bytes(f"{ODD}{end}".encode())
    settings = load_settings(shards="db0=postgresql://api@h/x")
    assert settings.shards_password.get_secret_value() == ODD
    assert password_of(settings) == ODD
    assert redis_pool(settings).connection_kwargs["password"] == ODD


def test_the_environment_wins_over_a_file(secrets: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A variable takes precedence over a file, which is then not read; an argument precedes both."""
    (secrets / "snapurl_shards_password").write_text("of the file")
    (secrets / "snapurl_redis_password").write_text("")
    monkeypatch.setenv("SNAPURL_SHARDS_PASSWORD", "of the variable")
    monkeypatch.setenv("SNAPURL_REDIS_PASSWORD", "too")
    assert load_settings().shards_password.get_secret_value() == "of the variable"
    assert load_settings(shards_password="said").shards_password.get_secret_value() == "said"


def test_any_setting_may_be_a_file(secrets: Path) -> None:
    """Any setting can be in a file, and an invalid value there is refused like that of a variable."""
    (secrets / "snapurl_shards").write_text("db0=postgresql://a:b@h/x\ndb1=postgresql://a:b@h/y\n")
    assert [item.name for item in load_settings().shard_dsns] == ["db0", "db1"]
    (secrets / "snapurl_port").write_text("many\n")
    assert refusal().startswith("SNAPURL_PORT: ")


def test_files_of_others_do_not_matter(secrets: Path) -> None:
    """Files without our prefix, or that are not a setting, are ignored."""
    for name in ("shards_password", "rhsm", "snapurl_owner_password", "SNAPURL_SHARDS_PASSWORD"):
        (secrets / name).write_text("other")
    assert load_settings().shards_password.get_secret_value() == ""


def test_secrets_that_cannot_be_read(secrets: Path) -> None:
    """An unreadable secret (empty, not UTF-8, a directory) gives one line with the file name and no content."""
    file = secrets / "snapurl_redis_password"
    for contents in (b"", b"\n", b"\r\n\n"):
        file.write_bytes(contents)
        assert refusal() == f"the secret in {file} is empty: write the secret to it, or remove the file"
    file.write_bytes(b"p\xffw")
    assert refusal() == f"the secret in {file} cannot be read: it is not UTF-8"
    file.unlink()
    file.mkdir()
    assert refusal() == f"the secret in {file} cannot be read: Is a directory"


def test_a_directory_that_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The default directory may be missing; one that is set must exist."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        monkeypatch.setattr("snapurl.config.SECRETS_DIR", tmp_path / "none")
        assert load_settings().shards_password.get_secret_value() == ""
    monkeypatch.setenv("SNAPURL_SECRETS_DIR", str(tmp_path / "none"))
    assert refusal() == f"SNAPURL_SECRETS_DIR: there is no directory {tmp_path}/none"


@requires("a user other than root")  # root can read every directory
def test_a_directory_that_is_somebody_elses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The default directory may be inaccessible; one that is set must be accessible."""
    tmp_path.chmod(0o600)
    monkeypatch.setattr("snapurl.config.SECRETS_DIR", tmp_path)
    assert load_settings().shards_password.get_secret_value() == ""
    monkeypatch.setenv("SNAPURL_SECRETS_DIR", str(tmp_path))
    assert refusal().endswith("cannot be read: Permission denied")


# -- variables ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", sorted(Settings.model_fields))
def test_an_empty_variable_is_unset(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every variable that is empty counts as unset: the default applies, and no error is raised."""
    default = load_settings()
    monkeypatch.setenv(f"SNAPURL_{name.upper()}", "")
    assert getattr(load_settings(), name) == getattr(default, name)


def test_empty_variables_of_other_versions_do_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty variable that is no setting is no error either; with a value it is."""
    monkeypatch.setenv("SNAPURL_NO_SUCH_THING", "")
    load_settings()
    monkeypatch.setenv("SNAPURL_NO_SUCH_THING", "1")
    assert refusal().startswith("SNAPURL_NO_SUCH_THING is not a setting")


def test_the_count_of_proxies_says_what_to_set_instead(monkeypatch: pytest.MonkeyPatch) -> None:
    """A number of proxies is refused with the setting that has taken its place; so is a number of networks."""
    monkeypatch.setenv("SNAPURL_PROXIES_COUNT", "1")
    assert "set SNAPURL_PROXIES to the networks of your proxies" in refusal()
    assert refusal(proxies="1").startswith("SNAPURL_PROXIES_COUNT")
    monkeypatch.delenv("SNAPURL_PROXIES_COUNT")
    assert refusal(proxies="1") == (
        "SNAPURL_PROXIES: '1' is not a network: write networks such as 10.0.0.0/8, separated by spaces"
    )
    assert len(load_settings(proxies=" 10.0.0.0/8  192.0.2.7 2001:db8::/48 ").proxy_networks) == 3


# -- where the service is -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("host", "url"),
    [
        ("127.0.0.1", "http://127.0.0.1:81"),
        ("0.0.0.0", "http://127.0.0.1:81"),
        ("::", "http://[::1]:81"),
        ("::1", "http://[::1]:81"),
        ("2001:db8::1", "http://[2001:db8::1]:81"),
        (" 192.0.2.1 ", "http://192.0.2.1:81"),
        ("api.internal", "http://api.internal:81"),
    ],
)
def test_short_urls_begin_with_the_address_that_is_listened_on(host: str, url: str) -> None:
    """Without SNAPURL_BASE_URL short URLs lead to SNAPURL_HOST, or to loopback if it is all addresses."""
    settings = load_settings(host=host, port=81)
    assert settings.public_url == settings.local_url == url
    assert origin_of(url) in settings.own_origins
    assert load_settings(host=host, base_url="https://s.example.org/").public_url == "https://s.example.org"


@pytest.mark.parametrize(
    ("name", "value", "why"),
    [
        ("host", "[::1]", "without a port"),
        ("host", "127.0.0.1:8000", "without a port"),
        ("host", "fe80::1%eth0", "such as 0.0.0.0 or ::1"),
        ("host", "a b", "must be a host name"),
        ("base_url", "https://s.example.org/s", "must have no path"),
        ("base_url", "https://s.example.org:99999", "invalid port number"),
        ("base_url", "https://s.example.org\nX: y", "must not contain spaces"),
        ("base_url", "https://me:secret@s.example.org", "must not hold a user name or password"),
        ("own_domains", "s.example.org https://t.example.org", "is not a host name"),
    ],
)
def test_an_address_that_could_not_be_used_is_refused(name: str, value: str, why: str) -> None:
    """What could not stand in a URL is refused at the start in one line, which shows no password."""
    line = refusal(**{name: value})
    assert line.startswith(f"SNAPURL_{name.upper()}: ") and why in line and "secret" not in line


# -- passwords ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("dsn", "completed"),
    [
        ("postgresql://u@h:1/x", "postgresql://u:p%40%20w@h:1/x"),
        ("postgresql://u:@h/x", "postgresql://u:p%40%20w@h/x"),
        ("postgres://u@a:1,b:2/x?sslmode=require", "postgres://u:p%40%20w@a:1,b:2/x?sslmode=require"),
        ("postgresql://h/x", "postgresql://:p%40%20w@h/x"),
        ("postgresql://[::1]:1/x?user=u", "postgresql://:p%40%20w@[::1]:1/x?user=u"),
        ("postgresql://u:own@h/x", "postgresql://u:own@h/x"),
        ("postgresql://u@h/x?password=own", "postgresql://u@h/x?password=own"),
        ("postgresql://u@[::1/x", "postgresql://u@[::1/x"),
    ],
)
def test_the_password_of_shards_goes_where_none_is(dsn: str, completed: str) -> None:
    """The shard password is added, percent-encoded, to each DSN without one; otherwise DSNs stay unchanged."""
    assert load_settings(shards=f"db0={dsn}", shards_password="p@ w").shard_dsns[0].dsn == completed
    assert load_settings(shards=f"db0={dsn}").shard_dsns[0].dsn == dsn


def test_a_redis_url_keeps_its_own_password() -> None:
    """SNAPURL_REDIS_PASSWORD is used for a URL without a password, with or without a user."""
    for url, expected in (("redis://:own@h", "own"), ("redis://h", "set"), ("redis://u@h/1", "set")):
        pool = redis_pool(load_settings(redis_url=url, redis_password="set"))
        assert pool.connection_kwargs["password"] == expected
    assert "password" not in redis_pool(load_settings(redis_url="redis://h")).connection_kwargs


def test_passwords_are_not_shown() -> None:
    """The settings and objects made from them do not show passwords."""
    settings = load_settings(
        shards="db0=postgresql://u@h/x", shards_password="n0body-may", redis_password="n0body-may"
    )
    assert "n0body" not in f"{settings!r} {settings} {settings.shard_dsns!r} {settings.model_dump_json()}"


# -- values -------------------------------------------------------------------------------------------------------

CORS_WORDS = "must be origins such as https://app.example.org, separated by spaces, or *"


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("log_format", "xml", "must be one of json, text"),
        ("log_level", "DEBUG", "must be one of debug, info, warning, error"),
        ("robots", "maybe", "must be one of allow, deny"),
        ("port", "many", "must be a whole number"),
        ("port", "80.5", "must be a whole number"),
        ("port", "0", "must be at least 1"),
        ("port", "65536", "must be at most 65535"),
        ("l1_max_age_s", "old", "must be a number"),
        ("l1_max_age_s", "0", "must be more than 0.0"),
        ("fast_path", "perhaps", "must be true or false"),
        ("click_days_kept", "30", "must be 0 (for ever), or at least 31"),
        ("cors_origins", "app.example.org", CORS_WORDS),
        ("cors_origins", "https://app.example.org/", CORS_WORDS),
        ("cors_origins", "https://App.example.org", CORS_WORDS),
        ("cors_origins", "https://u@app.example.org", CORS_WORDS),
        ("cors_origins", "* https://app.example.org", CORS_WORDS),
        ("cors_origins", "null", CORS_WORDS),
        ("base_url", "s.example.org", "must look like https://s.example.org"),
    ],
)
def test_a_value_that_cannot_be_is_refused_in_plain_words(
    name: str, value: str, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each kind of invalid value is refused in the words of this program, with the name of the variable."""
    variable = f"SNAPURL_{name.upper()}"
    monkeypatch.setenv(variable, value)
    assert refusal() == f"{variable}: {words}"


# -- variables that are not settings-----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "near"),
    [
        ("SNAPURL_POOL_CONECTIONS", "SNAPURL_POOL_CONNECTIONS"),
        ("SNAPURL_SHARD_PASSWORD", "SNAPURL_SHARDS_PASSWORD"),
        ("snapurl_bas_url", "SNAPURL_BASE_URL"),
    ],
)
def test_a_variable_that_is_no_setting_is_refused(
    monkeypatch: pytest.MonkeyPatch, name: str, near: str
) -> None:
    """One line names the variable and the most similar setting; its value is not shown."""
    monkeypatch.setenv(name, "n0body-may-see-this")
    assert refusal() == f"{name} is not a setting: did you mean {near}? Correct or unset it"


def test_variables_of_others_do_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    """Variables without our prefix are ignored; a setting may be in lower case."""
    monkeypatch.setenv("SNAPURLS_PORT", "x")
    monkeypatch.setenv("_SNAPURL_COMPLETE", "bash_source")
    monkeypatch.setenv("snapurl_port", "8123")
    assert load_settings().port == 8123


def test_our_variables_are_read_in_one_place() -> None:
    """Only config.py and the probe read `SNAPURL_*`; each use of the environment is listed with its purpose."""
    uses = {
        "snapurl/config.py": "all settings",
        "snapurl/telemetry/metrics_port.py": "PROMETHEUS_MULTIPROC_DIR, which prometheus_client defines",
        "snapurl/probe.py": "host and port, without the imports of config.py",
        "snapurl/telemetry/traces.py": "OTEL_*, which OpenTelemetry defines",
        "snapurl/local/binaries.py": "inherited by a child",
        "snapurl/local/process.py": "inherited by a child",
        "snapurl/local/sockets.py": "XDG_RUNTIME_DIR, which freedesktop.org defines",
        "snapurl/store/cluster/dsn.py": "PGSSLMODE, which PostgreSQL defines",
        "snapurl/run/supervisor.py": "inherited by a child",
    }
    root = Path(__file__).parents[2]
    found = {
        str(file.relative_to(root))
        for package in ("ring", "snapurl", "tools", "migrations")
        for file in (root / package).rglob("*.py")
        if re.search(r"\bos\.environ\b|\bgetenv\b", file.read_text("utf-8"))
    }
    assert found == set(uses)


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        (
            {"geo_header": "CF-IPCountry"},
            "SNAPURL_GEO_HEADER: anybody could send this header: set SNAPURL_PROXIES",
        ),
        (
            {"geo_header": "X-Forwarded-For", "proxies": "10.0.0.1"},
            "SNAPURL_GEO_HEADER: must be the name of a header of its own",
        ),
        (
            {"login_header": "X-User"},
            "SNAPURL_LOGIN_HEADER: anybody could send this header: set SNAPURL_PROXIES",
        ),
        ({"login_header": "X-User", "proxies": "10.0.0.1"}, "SNAPURL_LOGIN_HEADER: nobody could do anything"),
        (
            {"login_header": "X User", **LOGIN},
            "SNAPURL_LOGIN_HEADER: must be the name of a header of its own",
        ),
        (
            {"login_header": "Cookie", **LOGIN},
            "SNAPURL_LOGIN_HEADER: must be the name of a header of its own",
        ),
        ({"login_groups_header": "X-Groups", **LOGIN}, "SNAPURL_LOGIN_GROUPS_HEADER: means nothing without"),
        (
            {"login_rights": "staff=read"},
            "SNAPURL_LOGIN_RIGHTS: 'staff=read' must be written group=rights@account",
        ),
        (
            {"oidc_issuer": "https://id.example.org", **LOGIN},
            "SNAPURL_OIDC_ISSUER: the provider has to know this",
        ),
        (
            {"oidc_issuer": "http://id.example.org", "oidc_client_id": "x", **LOGIN},
            "SNAPURL_OIDC_ISSUER: must be",
        ),
        (
            {"oidc_issuer": "https://id.example.org", "oidc_client_id": "x"},
            "SNAPURL_OIDC_ISSUER: nobody could",
        ),
        ({"oidc_scope": "profile"}, "SNAPURL_OIDC_SCOPE: must include openid"),
    ],
)
def test_a_login_of_people_that_could_not_work_is_refused(settings: dict[str, str], reason: str) -> None:
    """A login without a key is refused at the start if it would let in anybody, or nobody."""
    assert refusal(**settings).startswith(reason)
