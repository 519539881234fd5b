"""The Helm chart: its manifests for several values, held to Kubernetes' schemas, the program and rules for pods."""

from __future__ import annotations

import re
import tomllib
from functools import cache
from pathlib import Path
from typing import Any

import click
import kubernetes_validate
import pytest
import yaml

from snapurl.config import PREFIX, Settings, load_settings
from snapurl.run.serve import WORKER_STOP_S_MAX
from tests.support.deployed import image_environ
from tests.support.helm import CHART, ROOT, helm, rendered
from tests.support.requirements import requires
from tests.unit.test_compose import assert_is_command
from tools.cli import cli as reshard

pytestmark = requires("helm")

Manifest = dict[str, Any]

KUBERNETES = ("1.28", "1.37")
OUTSIDE: Manifest = {
    "settings": {"base_url": "https://s.example.org"},
    "shards": [{"name": f"db{n}", "dsn": f"postgresql://db{n}.internal:5432/snapurl"} for n in range(2)],
    "secrets": {"session": "snapurl-session"},
}
CLUSTERS: Manifest = {
    **OUTSIDE,
    "shards": [
        {"name": "db0", "cloudNativePG": True},
        {"name": "db1", "cloudNativePG": True},
        {"name": "db2", "cloudNativePG": True, "listed": False},
    ],
}
SMALL: Manifest = {
    "settings": {"base_url": "http://s.local", "dashboard": False},
    "shards": OUTSIDE["shards"][:1],
    "api": {"replicas": 1},
    "clicks": {"replicas": 1},
    "networkPolicy": {"enabled": False},
}
EVERYTHING: Manifest = {
    "settings": {
        "base_url": "https://s.example.org",
        "proxies": "10.0.0.0/8 fd00::/8",
        "domains": "go.example.org",
        "dashboard_host": "admin.example.org",
        "anonymous_creation": True,
        "body_bytes_max": 16_777_216,
        "l1_max_age_s": 12.5,
    },
    "shards": [*OUTSIDE["shards"], {"name": "db2", "cloudNativePG": True}],
    "secrets": {"session": "snapurl-session", "oidc": "snapurl-oidc", "ca": "snapurl-ca"},
    "image": {"repository": "registry.internal/snapurl", "digest": f"sha256:{'0' * 64}"},
    "imagePullSecrets": [{"name": "registry"}],
    "redis": {"url": "rediss://redis.internal:6380/0"},
    "api": {
        "autoscaling": {"enabled": True},
        "volumes": [{"name": "places", "emptyDir": {}}],
        "volumeMounts": [{"name": "places", "mountPath": "/places"}],
    },
    "ingress": {
        "enabled": True,
        "className": "nginx",
        "annotations": {"a": "b"},
        "hosts": ["s.example.org", "go.example.org"],
        "tlsSecret": "tls",
    },
    "httpRoute": {"enabled": True, "parentRefs": [{"name": "gateway"}], "hosts": ["s.example.org"]},
    "networkPolicy": {
        "from": [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "ingress"}}}],
        "metricsFrom": [
            {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "monitoring"}}}
        ],
        "egress": [{"to": [{"ipBlock": {"cidr": "10.0.0.0/8"}}]}],
    },
    "monitoring": {"serviceMonitor": True, "rules": True, "dashboard": True, "labels": {"release": "p"}},
    "nodeSelector": {"kubernetes.io/os": "linux"},
    "tolerations": [{"key": "a", "operator": "Exists"}],
    "affinity": {"nodeAffinity": {}},
    "podAnnotations": {"a": "b"},
    "priorityClassName": "high",
}
MATRIX = {"outside": OUTSIDE, "clusters": CLUSTERS, "small": SMALL, "everything": EVERYTHING}
OF_OPERATORS = {"Cluster", "ServiceMonitor", "PrometheusRule", "HTTPRoute"}
"""Kinds that operators bring, and no schema of Kubernetes has."""
PROGRAMS = ("api", "clicks", "migrator", "migrate")

over_the_matrix = pytest.mark.parametrize("name", MATRIX)


@cache
def manifests(name: str, *options: str) -> list[Manifest]:
    return rendered(MATRIX[name], *options)


def of_kind(found: list[Manifest], *kinds: str) -> list[Manifest]:
    return [each for each in found if each["kind"] in kinds]


def workloads(found: list[Manifest]) -> dict[str, Manifest]:
    """Returns what runs pods, by component."""
    return {
        each["metadata"]["labels"]["app.kubernetes.io/component"]: each
        for each in of_kind(found, "Deployment", "StatefulSet", "Job")
    }


def pod(workload: Manifest) -> Manifest:
    return dict(workload["spec"]["template"]["spec"])


def container(workload: Manifest) -> Manifest:
    (only,) = pod(workload)["containers"]
    return dict(only)


@over_the_matrix
def test_kubernetes_would_take_the_manifests(name: str) -> None:
    """Helm finds nothing to warn of, and every manifest fits the schemas of Kubernetes, newest and oldest."""
    done = helm("lint", "--strict", CHART, values=MATRIX[name])
    assert done.returncode == 0, done.stdout + done.stderr
    found = manifests(name)
    names = [(each["kind"], each["metadata"]["name"]) for each in found]
    assert len(set(names)) == len(names) > 10
    for each in found:
        if each["kind"] in OF_OPERATORS:
            continue
        for version in KUBERNETES if name == "everything" else KUBERNETES[-1:]:
            kubernetes_validate.validate(each, version, strict=True)


@over_the_matrix
def test_pods_are_restricted(name: str) -> None:
    """Every pod keeps the restricted profile, writes to volumes alone, and has neither token nor service links."""
    for workload in workloads(manifests(name)).values():
        described, only = pod(workload), container(workload)
        assert described["enableServiceLinks"] is False
        assert described["automountServiceAccountToken"] is False
        assert not {"hostNetwork", "hostPID", "hostIPC", "initContainers"} & described.keys()
        assert described["securityContext"]["runAsNonRoot"] is True
        assert described["securityContext"]["runAsUser"] > 0
        assert described["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert only["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        assert all("hostPort" not in port for port in only.get("ports", ()))
        assert all("hostPath" not in volume for volume in described["volumes"])
        assert "memory" in only["resources"]["limits"]
        assert {"cpu", "memory"} <= only["resources"]["requests"].keys()


def secret_files(workload: Manifest) -> dict[str, str]:
    """Returns the Secret of each file in /run/secrets."""
    (volume,) = [each for each in pod(workload)["volumes"] if each["name"] == "secrets"]
    return {
        item["path"]: source["secret"]["name"]
        for source in volume["projected"]["sources"]
        for item in source["secret"]["items"]
    }


@over_the_matrix
@pytest.mark.parametrize("program", PROGRAMS)
def test_the_program_accepts_what_it_is_given(
    name: str, program: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every variable and secret is a setting with a valid value; no variable holds a secret; the command exists."""
    workload = workloads(manifests(name))[program]
    only = container(workload)
    environ = {each["name"]: each.get("value", "2") for each in only["env"]}
    assert len(environ) == len(only["env"])
    for variable, value in {**image_environ(), **environ}.items():
        if variable.startswith(PREFIX):
            assert variable.removeprefix(PREFIX).lower() in Settings.model_fields
            monkeypatch.setenv(variable, value)
    for file in secret_files(workload):
        (tmp_path / file).write_text(f"{file}-of-at-least-32-characters")
        assert file == "ca.crt" or file.removeprefix("snapurl_") in Settings.model_fields
    monkeypatch.setenv("SNAPURL_SECRETS_DIR", str(tmp_path))
    settings = load_settings()
    assert not re.search(r"(?i)password|//[^/ ]*@", str(environ))
    wanted = [each["name"] for each in MATRIX[name]["shards"] if each.get("listed", True)]
    assert [each.name for each in settings.shard_dsns] == wanted
    assert all(":snapurl_shards_password-" in each.dsn for each in settings.shard_dsns)
    for each, value in MATRIX[name]["settings"].items():
        assert getattr(settings, each) == value
    if program == "migrator":
        assert only["command"] == ["snapurl-reshard"]
        _, _, words = reshard.resolve_command(click.Context(reshard), only["args"])
        reshard.commands["run"].make_context("run", words)
    else:
        assert "command" not in only
        assert_is_command(only["args"])


def test_everybody_logs_in_with_the_least_rights() -> None:
    """Each program has its own user and password; only the service has the secrets of sessions and the provider."""
    found = workloads(manifests("everything"))
    files = {program: secret_files(found[program]) for program in PROGRAMS}
    users = {
        program: next(each["value"] for each in container(found[program])["env"] if each["name"] == "PGUSER")
        for program in PROGRAMS
    }
    service = {"snapurl_shards_password": "snapurl-service", "snapurl_redis_password": "snapurl-redis"}
    ca = {"ca.crt": "snapurl-ca"}
    dashboard = {
        "snapurl_session_secret": "snapurl-session",
        "snapurl_oidc_client_secret": "snapurl-oidc",
    }
    assert files == {
        "api": {**service, **dashboard, **ca},
        "clicks": {**service, **ca},
        "migrator": {"snapurl_shards_password": "snapurl-migrator", **ca},
        "migrate": {"snapurl_shards_password": "snapurl-owner", **ca},
    }
    assert users == {
        "api": "snapurl_api",
        "clicks": "snapurl_api",
        "migrator": "snapurl_resharder",
        "migrate": "snapurl_owner",
    }


@over_the_matrix
def test_what_selects_pods_finds_them(name: str) -> None:
    """Services, budgets and policies select the pods that they are for, and their ports have these names."""
    found = manifests(name)
    running = workloads(found)
    labels = {
        component: each["spec"]["template"]["metadata"]["labels"] for component, each in running.items()
    }
    ports = {
        component: {port["name"]: port["containerPort"] for port in container(each).get("ports", ())}
        for component, each in running.items()
    }

    def selected(selector: Manifest) -> set[str]:
        (within,) = selector.get("matchExpressions", [{"key": "", "values": []}])
        return {
            component
            for component, given in labels.items()
            if selector["matchLabels"].items() <= given.items()
            and (not within["key"] or given[within["key"]] in within["values"])
        }

    for each in of_kind(found, "Service"):
        (component,) = selected({"matchLabels": each["spec"]["selector"]})
        assert component == each["metadata"]["labels"]["app.kubernetes.io/component"]
        assert all(port["targetPort"] in ports[component] for port in each["spec"]["ports"])
    for each in of_kind(found, "PodDisruptionBudget"):
        assert len(selected(each["spec"]["selector"])) == 1
    policies = of_kind(found, "NetworkPolicy")
    isolated = set().union(*(selected(each["spec"]["podSelector"]) for each in policies))
    assert isolated == (set() if name == "small" else set(running))
    for each in policies:
        for component in selected(each["spec"]["podSelector"]):
            for rule in each["spec"].get("ingress", ()):
                for port in rule["ports"]:
                    assert port["port"] in {*ports[component], 9100}
    # The ingress reaches the service only, never metrics.
    for each in of_kind(found, "Ingress"):
        for rule in each["spec"]["rules"]:
            assert rule["http"]["paths"][0]["backend"]["service"] == {
                "name": "snapurl-api",
                "port": {"name": "http"},
            }


def test_what_holds_data_is_never_deleted() -> None:
    """Helm keeps the clusters of shards and no hook touches them; the claim of Redis outlives its StatefulSet."""
    clusters = of_kind(manifests("clusters"), "Cluster")
    assert [each["metadata"]["name"] for each in clusters] == ["snapurl-db0", "snapurl-db1", "snapurl-db2"]
    for each in clusters:
        assert each["metadata"]["annotations"] == {"helm.sh/resource-policy": "keep"}
    redis = workloads(manifests("clusters"))["redis"]["spec"]
    assert redis["persistentVolumeClaimRetentionPolicy"] == {"whenDeleted": "Retain", "whenScaled": "Retain"}
    (claim,) = redis["volumeClaimTemplates"]
    assert claim["spec"]["resources"]["requests"]["storage"]


def test_a_cluster_of_the_operator_is_a_shard() -> None:
    """Each cluster has the logins, rights and limits that a shard needs; programs verify it by its own CA."""
    for each in of_kind(manifests("clusters"), "Cluster"):
        spec, made = each["spec"], each["spec"]["bootstrap"]["initdb"]
        assert spec["postgresql"]["parameters"]["max_locks_per_transaction"] == "256"
        assert (made["database"], made["owner"], made["localeCollate"]) == ("snapurl", "snapurl_owner", "C")
        assert {role["name"]: role["inRoles"] for role in spec["managed"]["roles"]} == {
            "snapurl_api": ["snapurl_service"],
            "snapurl_resharder": ["snapurl_migrator"],
        }
        assert {role["passwordSecret"]["name"] for role in spec["managed"]["roles"]} == {
            "snapurl-service",
            "snapurl-migrator",
        }
    api = workloads(manifests("clusters"))["api"]
    (shards,) = [each["value"] for each in container(api)["env"] if each["name"] == "SNAPURL_SHARDS"]
    files = re.findall(r"sslmode=verify-full&sslrootcert=(\S+)", shards)
    assert files == ["/run/tls/db0.crt", "/run/tls/db1.crt"]
    (tls,) = [each for each in pod(api)["volumes"] if each["name"] == "tls"]
    given = {
        f"/run/tls/{source['secret']['items'][0]['path']}": source["secret"]["name"]
        for source in tls["projected"]["sources"]
    }
    # None of a cluster that is only started: a pod would wait for its Secret, and with it the hook of an upgrade.
    assert given == {"/run/tls/db0.crt": "snapurl-db0-ca", "/run/tls/db1.crt": "snapurl-db1-ca"}


@pytest.mark.parametrize(
    ("name", "options", "is_hook"),
    [
        ("outside", (), True),
        ("outside", ("--is-upgrade",), True),
        ("clusters", (), False),
        ("clusters", ("--is-upgrade",), True),
    ],
)
def test_migrations_come_first(name: str, options: tuple[str, ...], is_hook: bool) -> None:
    """Migrations run before anything of an upgrade, and before an installation whose databases are there."""
    job = workloads(manifests(name, *options))["migrate"]
    hooks = job["metadata"].get("annotations", {}).get("helm.sh/hook", "")
    assert hooks == ("pre-install,pre-upgrade" if is_hook else "")
    assert job["spec"]["backoffLimit"] >= (1 if is_hook else 10)


def test_a_stopping_pod_has_enough_time() -> None:
    """Kubernetes waits longer than the service, which answers until a failing probe has taken traffic elsewhere."""
    api = workloads(manifests("outside"))["api"]
    environ = {each["name"]: each.get("value") for each in container(api)["env"]}
    delay_s = float(str(environ["SNAPURL_STOP_DELAY_S"]))
    probe = container(api)["readinessProbe"]
    assert delay_s > probe["periodSeconds"] * probe["failureThreshold"] + probe["timeoutSeconds"]
    for program in ("api", "clicks", "migrator"):
        delay = delay_s if program == "api" else 0
        grace = pod(workloads(manifests("outside"))[program])["terminationGracePeriodSeconds"]
        assert grace > delay + WORKER_STOP_S_MAX + 1


def test_monitoring_is_that_of_the_other_deployments() -> None:
    """Rules and dashboard are the files of deploy/, and the jobs have the names that they ask for."""
    found = manifests("everything")
    (rules,) = of_kind(found, "PrometheusRule")
    assert rules["spec"] == yaml.safe_load((ROOT / "deploy/prometheus/alerts.yml").read_text())
    (dashboard,) = [each for each in of_kind(found, "ConfigMap") if "snapurl.json" in each["data"]]
    assert dashboard["data"]["snapurl.json"] == (ROOT / "deploy/grafana/snapurl.json").read_text()
    (monitor,) = of_kind(found, "ServiceMonitor")
    label = monitor["spec"]["jobLabel"]
    services = [each for each in of_kind(found, "Service") if label in each["metadata"]["labels"]]
    scraped = yaml.safe_load((ROOT / "deploy/prometheus/prometheus.yml").read_text())["scrape_configs"]
    assert {each["metadata"]["labels"][label] for each in services} == {each["job_name"] for each in scraped}
    for each in services:
        assert monitor["spec"]["selector"]["matchLabels"].items() <= each["metadata"]["labels"].items()
        assert each["spec"]["ports"][0]["name"] == monitor["spec"]["endpoints"][0]["port"]


def test_redis_is_that_of_the_compose_file() -> None:
    """Redis starts with the configuration and the script that the tests of the compose file run."""
    (files,) = [each for each in of_kind(manifests("outside"), "ConfigMap") if "redis.conf" in each["data"]]
    for name, text in files["data"].items():
        assert text == (ROOT / "deploy/compose" / name).read_text()
    assert not workloads(manifests("everything")).get("redis")


def test_the_chart_is_of_this_version() -> None:
    """Chart and program have one version, and the image of that version is the default."""
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    assert (chart["version"], chart["appVersion"]) == (version, version)
    assert container(workloads(manifests("outside"))["api"])["image"] == f"snapurl:{version}"


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"settings": {}}, "base_url"),
        ({"settings": {"base_url": "https://s", "base_ulr": "x"}}, "base_ulr"),
        ({"settings": {"base_url": "https://s", "redis_password": "x"}}, "redis_password"),
        ({"shards": []}, "shards"),
        ({"shards": [{"name": "db0", "dsn": "postgresql://u:p@h/d"}]}, "dsn"),
        ({"shards": [{"name": "db0"}]}, "shard db0: give it a dsn, or cloudNativePG: true"),
        ({"shards": [{"name": "a", "dsn": "postgresql://h/d", "cloudNativePG": True}]}, "not both"),
        ({"shards": [{"name": "a", "cloudNativePG": True, "listed": False}]}, "shards: list at least one"),
        ({"secrets": {"session": ""}}, "secrets.session"),
        ({"ingress": {"enabled": True, "hosts": ["s"]}}, "settings.proxies"),
        ({"replicas": 3}, "replicas"),
    ],
)
def test_wrong_values_are_refused_with_their_name(changed: Manifest, said: str) -> None:
    """Values that cannot work are refused before anything reaches the cluster, and the message names them."""
    done = helm("template", "snapurl", CHART, values={**OUTSIDE, **changed})
    assert done.returncode != 0
    assert said in done.stderr
