"""The Compose files agree with what the program accepts. No Docker engine is needed."""

from __future__ import annotations

import re
import stat
from graphlib import TopologicalSorter
from pathlib import Path

import click
import pytest
import trustme
import yaml

from snapurl.app import HEAD_BYTES_MAX, KEEP_ALIVE_S, REQUEST_S_MAX, RESPONSE_S_MAX
from snapurl.cli import cli
from snapurl.config import Settings, load_settings
from snapurl.redis_client import redis_pool
from snapurl.run.serve import WORKER_STOP_S_MAX
from tests.support.deployed import (
    ROOT,
    SECRETS_PLACE,
    Service,
    composed,
    environ,
    filled,
    image_environ,
    make_secrets,
    mount_secrets,
    secrets_of,
)
from tools.cli import cli as reshard

SHARDS = ["db0", "db1", "db2", "db3"]
PROGRAMS = ["api", "clicks", "migrate", "migrator"]
LOGINS = {
    "api": "snapurl_api",
    "clicks": "snapurl_api",
    "migrate": "snapurl_owner",
    "migrator": "snapurl_resharder",
}
SECRETS = ["superuser_password", "owner_password", "service_password", "migrator_password", "redis_password"]


@pytest.fixture(scope="module")
def services() -> dict[str, Service]:
    return dict(composed()["services"])


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Returns a directory in which the operator's script has made the secrets."""
    directory = tmp_path_factory.mktemp("operator")
    make_secrets(directory)
    return directory


def settings_of(
    service: Service, made: Path, place: Path, monkeypatch: pytest.MonkeyPatch, **given: str
) -> Settings:
    """Returns the settings that the program reads in a container: from the image, the file and the secrets."""
    for name, value in {**image_environ(), **environ(service, given)}.items():
        if name.startswith("SNAPURL_"):
            monkeypatch.setenv(name, value)
    mount_secrets(service, made, place)
    monkeypatch.setenv("SNAPURL_SECRETS_DIR", str(place))
    return load_settings()


# -- the program --------------------------------------------------------------------------------------------------


def test_services_are_those_of_the_design(services: dict[str, Service]) -> None:
    """The file has proxy, service, consumer, migrator, migrations, Redis, four shards and an optional fifth."""
    assert sorted(services) == sorted(["proxy", *PROGRAMS, "redis", *SHARDS, "db4"])
    assert sorted(name for name, service in services.items() if service["image"] == "snapurl") == PROGRAMS
    assert {name: service["profiles"] for name, service in services.items() if "profiles" in service} == {
        "db4": ["scale-out"]
    }


def database_of(service: Service) -> str:
    return str(service["environment"]["POSTGRES_DB"])


@pytest.mark.parametrize("name", PROGRAMS)
def test_the_program_accepts_what_it_is_given(
    services: dict[str, Service], made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """Every variable and secret is a setting with a valid value, and the shards are the databases of the file."""
    service = services[name]
    settings = settings_of(service, made, tmp_path, monkeypatch)
    for variable in environ(service):
        assert variable == "PGUSER" or variable.removeprefix("SNAPURL_").lower() in Settings.model_fields
    assert all(target.removeprefix("snapurl_") in Settings.model_fields for target in secrets_of(service))
    password = (tmp_path / "snapurl_shards_password").read_text()
    assert [(item.name, item.dsn) for item in settings.shard_dsns] == [
        (shard, f"postgresql://:{password}@{shard}:5432/{database_of(services[shard])}?sslmode=disable")
        for shard in SHARDS
    ]
    if name in ("api", "clicks"):
        assert settings.redis_url.get_secret_value() == "redis://redis:6379/0"
        redis = made / composed()["secrets"][secrets_of(services["redis"])["redis_password"]]["file"]
        assert settings.redis_password.get_secret_value() == redis.read_text()


def test_more_shards_and_others_may_be_given(
    services: dict[str, Service], made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """MORE_SHARDS adds to the four shards; SHARDS and REDIS_URL replace them by servers elsewhere."""
    more = {"MORE_SHARDS": "db4=postgresql://db4:5432/snapurl"}
    settings = settings_of(services["api"], made, tmp_path / "a", monkeypatch, **more)
    assert [item.name for item in settings.shard_dsns] == [*SHARDS, "db4"]
    others = {"SHARDS": "a=postgresql://a/x b=postgresql://b/x", "REDIS_URL": "rediss://r:6380"}
    settings = settings_of(services["api"], made, tmp_path / "b", monkeypatch, **others)
    assert [item.name for item in settings.shard_dsns] == ["a", "b"]
    assert settings.redis_url.get_secret_value() == "rediss://r:6380"


def test_everybody_logs_in_with_the_least_rights(services: dict[str, Service]) -> None:
    """Service and consumer, migrator, and owner each have a separate user and secret, and no other secret."""
    own = {"api": "service", "clicks": "service", "migrate": "owner", "migrator": "migrator"}
    for name, login in LOGINS.items():
        assert environ(services[name])["PGUSER"] == login
        secrets = secrets_of(services[name])
        assert secrets.pop("snapurl_shards_password") == f"{own[name]}_password"
        assert secrets == ({"snapurl_redis_password": "redis_password"} if name in ("api", "clicks") else {})
    init = (ROOT / "deploy/compose/init-shard.sh").read_text()
    for login in LOGINS.values():
        assert f"ALTER ROLE {login} LOGIN" in init


def test_commands_are_those_of_the_program(services: dict[str, Service]) -> None:
    """The commands and health checks of the services use commands and options that exist."""
    migrator = services["migrator"]
    assert migrator["entrypoint"] == ["snapurl-reshard"]
    _, _, words = reshard.resolve_command(click.Context(reshard), migrator["command"])
    reshard.commands["run"].make_context("run", words)
    for name in ("api", "clicks", "migrate"):
        assert_is_command(services[name]["command"])
    assert services["api"]["healthcheck"]["test"] == ["CMD", "snapurl-probe"]
    for name in ("clicks", "migrator"):
        port = services[name]["command"][services[name]["command"].index("--metrics-port") + 1]
        url = f"http://127.0.0.1:{port}/health/ready"
        assert services[name]["healthcheck"]["test"] == ["CMD", "snapurl-probe", url]


def assert_is_command(words: list[str]) -> None:
    command = cli.commands[words[0]]
    assert isinstance(command, click.Command)
    command.make_context(words[0], words[1:])


def test_time_to_stop_is_enough(services: dict[str, Service]) -> None:
    """Compose waits longer than the service waits for its workers, and longer than the proxy for its clients."""
    delay_s = float(environ(services["api"])["SNAPURL_STOP_DELAY_S"])
    for name in PROGRAMS:
        assert seconds(services[name]["stop_grace_period"]) > delay_s + WORKER_STOP_S_MAX + 1
    checks = re.search(r"check inter (\d+)s fall (\d+)", (ROOT / "deploy/proxy/haproxy.cfg").read_text())
    assert checks is not None and delay_s > int(checks[1]) * int(checks[2])
    assert seconds(services["proxy"]["stop_grace_period"]) > seconds(proxy_setting("hard-stop-after"))


def seconds(text: str) -> float:
    return float(text.removesuffix("s"))


# -- secrets ------------------------------------------------------------------------------------------------------


def test_secrets_are_made_once_and_are_random(made: Path, tmp_path: Path) -> None:
    """The script creates the files that the compose file names, and keeps existing ones."""
    files = [made / entry["file"] for entry in composed()["secrets"].values()]
    assert list(composed()["secrets"]) == SECRETS
    first = {file: file.read_text() for file in files}
    assert len(set(first.values())) == len(SECRETS)
    assert all(re.fullmatch(r"[0-9a-f]{48}", text) for text in first.values())
    assert stat.S_IMODE((made / "secrets").stat().st_mode) == 0o700
    assert all(stat.S_IMODE(file.stat().st_mode) == 0o444 for file in files)
    files[0].unlink()
    make_secrets(made)
    assert files[0].read_text() != first[files[0]]
    assert all(file.read_text() == first[file] for file in files[1:])
    make_secrets(tmp_path)
    assert {file.read_text() for file in (tmp_path / "secrets").iterdir()}.isdisjoint(first.values())


def test_secrets_are_in_files_and_nowhere_else(services: dict[str, Service]) -> None:
    """No variable, command or health check contains or requests a secret; git and the images exclude them."""
    assert {"/secrets/", "/.env"} <= set((ROOT / ".gitignore").read_text().splitlines())
    assert "*" in (ROOT / ".dockerignore").read_text().splitlines()
    for service in services.values():
        for name, value in environ(service).items():
            if re.search(r"(?i)password|secret|auth", name):
                assert name.endswith("_FILE") and value.startswith(f"{SECRETS_PLACE}/")
                assert value.removeprefix(f"{SECRETS_PLACE}/") in secrets_of(service)
            assert not re.search(r"//[^/ ]*:[^/ ]*@", value)
        for word in (*service.get("command", []), *service.get("healthcheck", {}).get("test", [])):
            for path in re.findall(rf"{SECRETS_PLACE}/(\w+)", word):
                assert path in secrets_of(service)
            assert not re.search(r"requirepass|password=|\$\{", word)
        assert set(secrets_of(service).values()) <= set(SECRETS)


# -- what containers may do ---------------------------------------------------------------------------------------


def test_containers_are_confined(services: dict[str, Service]) -> None:
    """No container writes to its file system, has or gains a capability, runs as root, or logs without a bound."""
    for name, service in services.items():
        assert service["read_only"] is True, name
        assert service["cap_drop"] == ["ALL"] and "cap_add" not in service, name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert "privileged" not in service and "network_mode" not in service, name
        assert service["restart"] == ("no" if name == "migrate" else "unless-stopped"), name
        assert set(service["logging"]["options"]) == {"max-size", "max-file"}, name
        if service["image"] != "snapurl":  # for our image, the Dockerfile sets the user
            assert service["user"] in ("postgres", "redis", "haproxy"), name
            assert re.fullmatch(r"[a-z]+:\d+(\.\d+)?(-alpine)?", service["image"]), name


def test_everything_has_limits(services: dict[str, Service]) -> None:
    """CPU, memory and processes of every container are bounded, with enough room for its configured work."""
    for name, service in services.items():
        limits = service["deploy"]["resources"]["limits"]
        assert float(filled(limits["cpus"])) > 0, name
        assert memory(limits["memory"]) >= 2**28, name
        assert 16 <= limits["pids"] <= 256, name
    for name in SHARDS:
        connections = next(
            int(word.split("=")[1]) for word in services[name]["command"] if "max_conn" in word
        )
        assert services[name]["deploy"]["resources"]["limits"]["pids"] > connections + 20
        each = Settings.model_fields["pool_connections"].default + 1
        assert connections >= 20 * each
    bound = memory(environ(services["redis"])["REDIS_MAXMEMORY"].removesuffix("b"))
    assert memory(services["redis"]["deploy"]["resources"]["limits"]["memory"]) >= 2 * bound
    api = services["api"]
    assert environ(api)["SNAPURL_WORKERS"] == filled(api["deploy"]["resources"]["limits"]["cpus"])
    assert filled(services["api"]["ulimits"]["nofile"]) == filled(services["proxy"]["ulimits"]["nofile"])
    assert environ(services["proxy"])["CONNECTIONS_MAX"] == proxy_setting("CONNECTIONS_MAX")
    connections = int(proxy_setting("CONNECTIONS_MAX"))
    assert int(filled(services["proxy"]["ulimits"]["nofile"])) >= 2 * connections + 1_000
    given = {"OPEN_FILES_MAX": "20000", "CONNECTIONS_MAX": "9000"}  # an engine that gives no more
    assert filled(services["api"]["ulimits"]["nofile"], given) == "20000"
    assert environ(services["proxy"], given)["CONNECTIONS_MAX"] == "9000"


def memory(text: str) -> int:
    shown = filled(text)
    return int(shown[:-1]) * {"m": 2**20, "g": 2**30}[shown[-1]]


def test_only_the_proxy_reaches_outside(services: dict[str, Service]) -> None:
    """Only the proxy publishes a port, by default on loopback; databases and Redis are on another network. The
    click consumer reaches receivers of webhooks, on a network of its own."""
    networks = composed()["networks"]
    inner = {name for name, how in networks.items() if how.get("internal") is True}
    assert networks.keys() - inner == {"outside", "receivers"}
    for name, service in services.items():
        assert ("ports" in service) == (name == "proxy")
        assert ("outside" in service["networks"]) == (name == "proxy")
        assert ("receivers" in service["networks"]) == (name == "clicks")
    assert [filled(port) for port in services["proxy"]["ports"]] == ["127.0.0.1:8000:8080"]
    reached = {name for name, service in services.items() if {"inside"} & set(service["networks"])}
    assert reached == {"proxy", "api"}
    assert all("data" in service["networks"] for name, service in services.items() if name != "proxy")


def test_what_is_mounted_is_there_and_cannot_be_written(services: dict[str, Service]) -> None:
    """Repository files are mounted read-only, each volume has one owner, and other writable paths are in memory."""
    owners: dict[str, str] = {}
    for name, service in services.items():
        for entry in service.get("volumes", []):
            source, _, target = entry.partition(":")
            if source.startswith("./"):
                assert (ROOT / source).exists() and target.endswith(":ro"), entry
            else:
                assert owners.setdefault(source, name) == name
        for entry in service.get("tmpfs", []):
            assert "size=" in entry and "noexec" in entry and "nosuid" in entry, entry
    assert owners == {name: name for name in ("redis", *SHARDS, "db4")}
    assert sorted(composed()["volumes"]) == sorted(owners)
    for name in (*SHARDS, "db4"):
        assert {entry.partition(":")[0] for entry in services[name]["tmpfs"]} == {
            "/tmp",
            "/var/run/postgresql",
        }


# -- the order of things ------------------------------------------------------------------------------------------


def test_things_start_in_an_order(services: dict[str, Service]) -> None:
    """Services wait for healthy or completed ones, without cycles, and none requires db4."""
    graph = {name: set(service.get("depends_on", {})) for name, service in services.items()}
    order = list(TopologicalSorter(graph).static_order())  # raises CycleError
    assert set(order) == set(services)
    for name, service in services.items():
        for other, how in service.get("depends_on", {}).items():
            check = services[other]["healthcheck"]
            if how["condition"] == "service_completed_successfully":
                assert check == {"disable": True} and services[other]["restart"] == "no"
            else:
                assert how["condition"] == "service_healthy", name
                assert check["test"][0] in ("CMD", "CMD-SHELL"), other
                assert {"interval", "timeout", "retries", "start_period"} <= set(check), other
            assert how.get("required", True) != ("profiles" in services[other])
    assert [name for name, service in services.items() if service["healthcheck"] == {"disable": True}] == [
        "migrate"
    ]
    assert graph["migrate"] == {*SHARDS, "db4"}
    for name in ("api", "clicks"):
        assert graph[name] == {"migrate", "redis"}
    assert graph["migrator"] == {"migrate", "api"}
    assert graph["proxy"] == {"api"}


def test_a_shard_more_is_as_the_others(services: dict[str, Service]) -> None:
    """The optional shard differs only in volume, profile and the variable that leaves it out, so the same users log
    in with the same passwords."""
    kept = [
        {key: value for key, value in services[name].items() if key not in ("volumes", "profiles", "scale")}
        for name in (*SHARDS, "db4")
    ]
    assert [services[name]["scale"] for name in (*SHARDS, "db4")] == [
        f"${{{name.upper()}_REPLICAS:-1}}" for name in (*SHARDS, "db4")
    ]
    assert all(service == kept[0] for service in kept)
    mounts = [services[name]["volumes"][1:] for name in (*SHARDS, "db4")]
    assert all(mount == mounts[0] for mount in mounts)
    targets = [entry.split(":")[1] for entry in mounts[0]]
    assert targets == ["/docker-entrypoint-initdb.d/snapurl.sh", "/usr/share/snapurl/migrations"]
    assert f"migrations=${{MIGRATIONS:-{targets[1]}}}" in (ROOT / "deploy/compose/init-shard.sh").read_text()
    for name in (*SHARDS, "db4"):
        assert "max_locks_per_transaction=256" in services[name]["command"]
        assert "max_prepared_transactions=0" in services[name]["command"]


# -- the proxy's bounds -------------------------------------------------------------------------------------------


def proxy_setting(name: str) -> str:
    found = re.search(
        rf"^ +(?:presetenv |timeout )?{name} (\S+)", (ROOT / "deploy/proxy/haproxy.cfg").read_text(), re.M
    )
    assert found is not None, name
    return found[1]


def test_the_proxy_has_the_bounds_of_the_service(services: dict[str, Service]) -> None:
    """The proxy passes every body and head that the service accepts, and the service times out first."""
    assert int(proxy_setting("BODY_BYTES_MAX")) == Settings.model_fields["body_bytes_max"].default
    both = environ(services["proxy"])["BODY_BYTES_MAX"], environ(services["api"])["SNAPURL_BODY_BYTES_MAX"]
    assert both == (proxy_setting("BODY_BYTES_MAX"),) * 2
    given = {"SNAPURL_BODY_BYTES_MAX": "123456"}
    assert environ(services["proxy"], given)["BODY_BYTES_MAX"] == "123456"
    assert environ(services["api"], given)["SNAPURL_BODY_BYTES_MAX"] == "123456"
    assert int(proxy_setting("tune.bufsize")) >= HEAD_BYTES_MAX + 2048  # 1,024 of it are for added headers
    assert seconds(proxy_setting("http-request")) == REQUEST_S_MAX
    assert seconds(proxy_setting("http-keep-alive")) <= KEEP_ALIVE_S
    assert seconds(proxy_setting("server")) > RESPONSE_S_MAX
    assert environ(services["proxy"])["CLIENT_CONNECTIONS_MAX"] == proxy_setting("CLIENT_CONNECTIONS_MAX")
    assert 4 * int(proxy_setting("CLIENT_CONNECTIONS_MAX")) <= int(proxy_setting("CONNECTIONS_MAX"))
    (inside,) = composed()["networks"]["inside"]["ipam"]["config"]
    assert environ(services["api"])["SNAPURL_PROXIES"].split() == [filled(inside["subnet"])]
    given = {"INSIDE_SUBNET": "10.9.0.0/24", "SNAPURL_PROXIES": "192.0.2.0/24"}
    assert environ(services["api"], given)["SNAPURL_PROXIES"].split() == ["10.9.0.0/24", "192.0.2.0/24"]
    assert filled(inside["subnet"], given) == "10.9.0.0/24"
    assert environ(services["proxy"], given)["PROXIES"] == "192.0.2.0/24"
    assert proxy_setting("API") == f"api:{environ(services['api'])['SNAPURL_PORT']}"


def test_tls_is_one_file_more(services: dict[str, Service]) -> None:
    """The TLS file changes the proxy's configuration and adds a port and a secret, and nothing else."""
    more = composed("deploy/compose/tls.yml")
    assert list(more["services"]) == ["proxy"] and set(more) == {"services", "secrets"}
    proxy = more["services"]["proxy"]
    assert set(proxy) == {"command", "ports", "secrets"}
    assert [filled(port) for port in proxy["ports"]] == ["0.0.0.0:443:8443"]
    assert list(more["secrets"]) == proxy["secrets"] == [proxy_setting("CERTIFICATE").rpartition("/")[2]]
    assert proxy["command"] == [word.replace("plain", "tls") for word in services["proxy"]["command"]]
    for word in (*proxy["command"], *services["proxy"]["command"]):
        assert not word.startswith("/") or (ROOT / "deploy/proxy" / Path(word).name).exists()


def test_shards_elsewhere_are_one_file_more(
    made: Path, services: dict[str, Service], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file adds only a CA and a route outside, and the program accepts the addresses in its comments."""
    text = (ROOT / "deploy/compose/hosts.yml").read_text()
    more = composed("deploy/compose/hosts.yml")
    assert set(more) == {"services", "networks", "secrets"}
    assert more["services"] == {
        name: {"secrets": ["ca"]} for name in ("migrate", "api", "clicks", "migrator")
    }
    assert more["networks"] == {"data": {"internal": False}} and list(more["secrets"]) == ["ca"]
    given = {
        name: value.replace(" db1=…", "") for name, value in re.findall(r"(\w+)='(.+)'$", text, re.MULTILINE)
    }
    assert set(given) == {"SHARDS", "REDIS_URL"}
    settings = settings_of(services["api"], made, tmp_path, monkeypatch, **given)
    password = (tmp_path / "snapurl_shards_password").read_text()
    query = "sslmode=verify-full&sslrootcert=/run/secrets/ca"
    assert settings.shard_dsns[0].dsn == f"postgresql://:{password}@db0.internal:5432/snapurl?{query}"
    ca = tmp_path / "ca.pem"
    trustme.CA().cert_pem.write_to_path(str(ca))
    url = settings.redis_url.get_secret_value().replace("/run/secrets/ca", str(ca))
    words = redis_pool(load_settings(redis_url=url)).connection_kwargs
    assert (
        words["host"] == "redis.internal" and words["password"] == settings.redis_password.get_secret_value()
    )


# -- the image ----------------------------------------------------------------------------------------------------


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
    assert check == ["snapurl-probe"]
    variables = [name for name in image_environ() if name.startswith("SNAPURL_")]
    assert variables
    assert all(name.removeprefix("SNAPURL_").lower() in Settings.model_fields for name in variables)


def test_one_service_builds_the_image_and_none_fetches_it(services: dict[str, Service]) -> None:
    """`migrate` builds the image that all programs run; it is on no registry."""
    ours = {name: service for name, service in services.items() if service["image"] == "snapurl"}
    assert sorted(ours) == sorted(PROGRAMS)
    assert {name for name, service in services.items() if "build" in service} == {"migrate"}
    assert {name for name, service in ours.items() if service.get("pull_policy") != "never"} == {"migrate"}


def test_image_gets_all_that_it_copies() -> None:
    """Everything that the Dockerfile copies exists and passes .dockerignore; other files are excluded."""
    copied = set(re.findall(r"^COPY (?!--)(.+) \S+$", (ROOT / "Dockerfile").read_text(), re.MULTILINE))
    names = {name for line in copied for name in line.split()}
    ignore = (ROOT / ".dockerignore").read_text().splitlines()
    let_through = {line.removeprefix("!") for line in ignore if line.startswith("!")}
    assert "*" in ignore
    assert names == let_through
    assert all((ROOT / name).exists() for name in names)
