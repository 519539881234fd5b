"""The deployment files, checked against what the program accepts: no Docker engine is needed."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import click
import pytest
import yaml

from snapurl.cli import cli
from snapurl.config import Settings, load_settings
from snapurl.serve import WORKER_STOP_S_MAX
from tools.cli import cli as reshard

ROOT = Path(__file__).parents[2]
SHARDS = ["db0", "db1", "db2", "db3"]
GIVEN = {"DB_PASSWORD": "dbpw", "REDIS_PASSWORD": "redispw"}
VARIABLE = re.compile(r"\$\{(\w+)(?:(:[?-])([^}]*))?\}")

Service = dict[str, Any]


@pytest.fixture(scope="module")
def text() -> str:
    return (ROOT / "docker-compose.yml").read_text()


@pytest.fixture(scope="module")
def services(text: str) -> dict[str, Service]:
    return dict(yaml.safe_load(text)["services"])


def filled(value: object) -> str:
    """A value as Compose hands it over, with the required variables set and all others at their defaults."""

    def fill(match: re.Match[str]) -> str:
        name, kind, rest = match.groups()
        if kind == ":-":
            return str(rest)
        return GIVEN[name]  # KeyError: a variable that is neither required here nor has a default

    return VARIABLE.sub(fill, str(value)).replace("$$", "$")


def environ(service: Service) -> dict[str, str]:
    return {name: filled(value) for name, value in service.get("environment", {}).items()}


def settings_of(service: Service) -> Settings:
    prefix = "SNAPURL_"
    return load_settings(
        **{name.removeprefix(prefix).lower(): value for name, value in environ(service).items()}
    )


def program_services(services: dict[str, Service]) -> dict[str, Service]:
    return {name: service for name, service in services.items() if "build" in service}


def test_services_are_those_of_the_design(services: dict[str, Service]) -> None:
    """There are the service, the consumer, the migrator, Redis and four shards, and nothing else."""
    assert sorted(services) == sorted(["api", "clicks", "migrator", "redis", *SHARDS])
    assert sorted(program_services(services)) == ["api", "clicks", "migrator"]


def test_every_variable_is_a_setting(services: dict[str, Service]) -> None:
    """Each SNAPURL_* variable is one that the program knows, and its value one that it accepts."""
    for service in program_services(services).values():
        for name in service["environment"]:
            assert name.startswith("SNAPURL_")
            assert name.removeprefix("SNAPURL_").lower() in Settings.model_fields
        settings_of(service)


def test_shards_lead_to_the_database_services(services: dict[str, Service]) -> None:
    """SNAPURL_SHARDS names exactly the database services, each at its own host, with its own credentials."""
    for service in program_services(services).values():
        found = {item.name: item.dsn for item in settings_of(service).shard_dsns}
        assert sorted(found) == SHARDS
        for name, dsn in found.items():
            shard = environ(services[name])
            user, password, database = (shard[f"POSTGRES_{part}"] for part in ("USER", "PASSWORD", "DB"))
            assert dsn == f"postgresql://{user}:{password}@{name}:5432/{database}"


def test_redis_keeps_what_it_is_given(services: dict[str, Service]) -> None:
    """Redis appends, never evicts, asks for the password that the services have, and has a volume."""
    redis = services["redis"]
    words = [filled(word) for word in redis["command"]]
    options = dict(zip(words[1::2], words[2::2], strict=True))
    assert options["--appendonly"] == "yes"
    assert options["--appendfsync"] == "always"
    assert options["--maxmemory-policy"] == "noeviction"
    for service in program_services(services).values():
        url = settings_of(service).redis_url.get_secret_value()
        assert url == f"redis://:{options['--requirepass']}@redis:6379/0"
    assert environ(redis)["REDISCLI_AUTH"] == options["--requirepass"]
    assert [volume.split(":")[1] for volume in redis["volumes"]] == ["/data"]


def test_shards_have_room_and_places_of_their_own(services: dict[str, Service]) -> None:
    """Every shard has locks for a hand-off, no prepared transactions, and a volume that no other has."""
    for name in SHARDS:
        command = services[name]["command"]
        assert "max_locks_per_transaction=256" in command
        assert "max_prepared_transactions=0" in command
    volumes = [volume for name in SHARDS for volume in services[name]["volumes"]]
    assert [volume.split(":")[0] for volume in volumes] == SHARDS


def test_everything_has_a_health_check_and_is_waited_for(text: str, services: dict[str, Service]) -> None:
    """Each service but the migrator has a health check; a dependency is waited for until it is healthy."""
    for name, service in services.items():
        if name == "migrator":
            assert service["healthcheck"] == {"disable": True}
        else:
            assert service["healthcheck"]["test"][0] in ("CMD", "CMD-SHELL")
        for condition in service.get("depends_on", {}).values():
            assert condition == {"condition": "service_healthy"}
    assert sorted(services["api"]["depends_on"]) == sorted(["redis", *SHARDS])
    assert sorted(services["clicks"]["depends_on"]) == ["api", "redis"]
    assert sorted(services["migrator"]["depends_on"]) == ["api"]
    assert set(yaml.safe_load(text)["volumes"]) == {"redis", *SHARDS}


def test_commands_are_those_of_the_program(services: dict[str, Service]) -> None:
    """What the services run, and what their health checks run, are commands (and options) that exist."""
    migrator = services["migrator"]
    assert migrator["entrypoint"] == ["snapurl-reshard"]
    _, _, words = reshard.resolve_command(click.Context(reshard), migrator["command"])
    reshard.commands["run"].make_context("run", words)
    for name, service in program_services(services).items():
        if name == "migrator":
            continue
        assert_is_command(service["command"])
        check = service["healthcheck"]["test"]
        assert check[:2] == ["CMD", "snapurl"]
        assert_is_command(check[2:])


def assert_is_command(words: list[str]) -> None:
    command = cli.commands[words[0]]
    known = {option for parameter in command.params for option in parameter.opts}
    assert isinstance(command, click.Command)
    assert set(words[1:]) <= known


def test_no_password_is_written_down(text: str) -> None:
    """Passwords come from variables that must be set; the file holds none."""
    code = re.sub(r"(?m)(^| )#.*$", "", text)
    places = re.compile(r"(?im)\w*(?:password|auth)\w*: +(\S.*)$|://\w*:(.*?)@")
    values = [match[1] or match[2] for match in places.finditer(code)]
    assert len(values) >= 6
    assert all(re.match(r"\$\{\w+:\?", value) for value in values)
    for name in GIVEN:
        assert f"${{{name}:?" in text and f"${{{name}}}" not in text


def test_service_is_published_on_loopback_and_listens_where_it_is_published(
    services: dict[str, Service],
) -> None:
    """By default only this machine reaches the service; nothing else is published at all."""
    settings = settings_of(services["api"])
    assert [filled(port) for port in services["api"]["ports"]] == [f"127.0.0.1:8000:{settings.port}"]
    assert settings.host == "0.0.0.0"
    assert not [name for name, service in services.items() if name != "api" and "ports" in service]


def test_time_to_stop_is_enough(services: dict[str, Service]) -> None:
    """Compose waits longer for the service than the service waits for its workers."""
    for service in program_services(services).values():
        assert float(service["stop_grace_period"].removesuffix("s")) > WORKER_STOP_S_MAX + 1
        assert service["cap_drop"] == ["ALL"]


def test_image_is_small_in_rights_and_says_how_it_is() -> None:
    """The image is made in two stages, does not run as root, has a health check, and runs the service."""
    lines = (ROOT / "Dockerfile").read_text().replace("\\\n", " ").splitlines()
    steps = [(line.split()[0], line.split(maxsplit=1)[1]) for line in lines if re.match(r"[A-Z]+ ", line)]
    last_stage = max(index for index, (word, _) in enumerate(steps) if word == "FROM")
    final = dict(steps[last_stage:])
    assert sum(word == "FROM" for word, _ in steps) == 2
    assert final["USER"].split(":")[0] not in ("0", "root")
    assert final["ENTRYPOINT"] == '["snapurl"]'
    assert_is_command(yaml.safe_load(final["CMD"]))
    check = yaml.safe_load(final["HEALTHCHECK"].partition("CMD ")[2])
    assert check[0] == "snapurl"
    assert_is_command(check[1:])
    for name in re.findall(r"SNAPURL_\w+", final["ENV"]):
        assert name.removeprefix("SNAPURL_").lower() in Settings.model_fields


def test_image_gets_all_that_it_copies() -> None:
    """Whatever the Dockerfile copies exists and is let through by .dockerignore; the rest stays out."""
    copied = set(re.findall(r"^COPY (?!--)(.+) \S+$", (ROOT / "Dockerfile").read_text(), re.MULTILINE))
    names = {name for line in copied for name in line.split()}
    ignore = (ROOT / ".dockerignore").read_text().splitlines()
    let_through = {line.removeprefix("!") for line in ignore if line.startswith("!")}
    assert "*" in ignore
    assert names == let_through
    assert all((ROOT / name).exists() for name in names)
