"""The ECS tasks: their commands, environment and rights."""

from __future__ import annotations

import json
import re
from typing import Any

import click
import pytest

from snapurl.cli import cli
from snapurl.config import Settings, load_settings
from snapurl.run.serve import WORKER_STOP_S_MAX
from tests.deploy.cloud import Cloud, client
from tests.deploy.templates import everywhere, resources, template, walk
from tools.cli import cli as reshard

PREFIX = "SNAPURL_"
FAMILIES = ["api", "clicks", "migrator", "owner"]
# Variables of owner.py, which is not part of the program and creates the users of the other two.
OF_USERS = {"SERVICE_USER", "SERVICE_PASSWORD", "MIGRATOR_USER", "MIGRATOR_PASSWORD"}
SECRETS = {
    "api": {"SHARDS_PASSWORD": "ServicePassword", "REDIS_PASSWORD": "RedisPassword"},
    "clicks": {"SHARDS_PASSWORD": "ServicePassword", "REDIS_PASSWORD": "RedisPassword"},
    "migrator": {"SHARDS_PASSWORD": "MigratorPassword"},
    "migrate": {"SHARDS_PASSWORD": "OwnerPassword"},
    "owner": {"SHARDS_PASSWORD": "OwnerPassword"},
}

Container = dict[str, Any]


def containers() -> dict[str, Container]:
    """Returns the containers of all task definitions in ECS by name."""
    ecs = client("ecs")
    arns = ecs.list_task_definitions()["taskDefinitionArns"]
    definitions = [ecs.describe_task_definition(taskDefinition=arn)["taskDefinition"] for arn in arns]
    assert sorted(each["family"] for each in definitions) == [f"snapurl-{name}" for name in FAMILIES]
    return {each["name"]: each for definition in definitions for each in definition["containerDefinitions"]}


def environment(container: Container) -> dict[str, str]:
    return {each["name"]: each["value"] for each in container["environment"]}


def secrets(container: Container) -> dict[str, str]:
    return {each["name"]: each["valueFrom"] for each in container["secrets"]}


@pytest.fixture(scope="module")
def found(cloud: Cloud) -> dict[str, Container]:
    return containers()


def test_services_run_the_task_of_their_name(cloud: Cloud) -> None:
    """api, clicks and migrator are services; owner is only a task that is run by hand."""
    ecs = client("ecs")
    made = ecs.describe_services(cluster="snapurl", services=["api", "clicks", "migrator"])["services"]
    assert sorted(each["serviceName"] for each in made) == ["api", "clicks", "migrator"]
    for each in made:
        assert f"/snapurl-{each['serviceName']}:" in each["taskDefinition"]
    assert len(ecs.list_services(cluster="snapurl")["serviceArns"]) == 3


def test_services_are_inside_and_each_in_its_own_group(cloud: Cloud) -> None:
    """No service has a public address or a shell. moto drops this: the resolved properties are checked."""
    for name, group in (("ApiService", "Api"), ("ClicksService", "Clicks"), ("MigratorService", "Migrator")):
        made = cloud.stack("Service")[name]
        where = made["NetworkConfiguration"]["AwsvpcConfiguration"]
        assert where["AssignPublicIp"] == "DISABLED"
        (given,) = where["SecurityGroups"]
        said = client("ec2").describe_security_groups(GroupIds=[given])["SecurityGroups"][0]["Description"]
        assert said == f"snapurl: {group.lower()}"
        assert len(where["Subnets"]) == 2
        assert made["EnableExecuteCommand"] is False
        assert made["DeploymentConfiguration"]["DeploymentCircuitBreaker"] == {
            "Enable": True,
            "Rollback": True,
        }


def test_api_scales_on_requests_and_on_processors(cloud: Cloud) -> None:
    """api scales within its bounds, by requests or CPU, whichever needs more tasks (as resolved: moto lacks it)."""
    made = cloud.stack("Service")
    target = made["ApiScaling"]
    assert (target["MinCapacity"], target["MaxCapacity"]) == (2, 10)
    assert target["ResourceId"].endswith("/api")
    policies = [
        made[name]["TargetTrackingScalingPolicyConfiguration"] for name in ("ApiByRequests", "ApiByCpu")
    ]
    assert [each["PredefinedMetricSpecification"]["PredefinedMetricType"] for each in policies] == [
        "ALBRequestCountPerTarget",
        "ECSServiceAverageCPUUtilization",
    ]


# -- environment --------------------------------------------------------------------------------------------------


def test_variables_are_those_that_the_program_accepts(found: dict[str, Container]) -> None:
    """Every variable and secret is a setting, or one of the few that owner.py reads."""
    for name, container in found.items():
        given = [*environment(container), *secrets(container)]
        assert len(given) == len(set(given))
        ours = {each for each in given if each.startswith(PREFIX)}
        assert {each.removeprefix(PREFIX).lower() for each in ours} <= set(Settings.model_fields)
        assert {*given} - ours == (OF_USERS if name == "owner" else set())


def settings_of(container: Container) -> Settings:
    values = environment(container) | dict.fromkeys(secrets(container), "s3cret")
    ours = {name: value for name, value in values.items() if name.startswith(PREFIX)}
    with pytest.MonkeyPatch.context() as patch:
        for name, value in ours.items():
            patch.setenv(name, value)
        return load_settings()


def test_the_program_starts_with_what_it_is_given(found: dict[str, Container]) -> None:
    """The settings load, with all four shards over verified TLS, and each program has its own user."""
    users = {"api": "api_a", "clicks": "api_a", "migrator": "resharder_a"}
    for name, container in found.items():
        settings = settings_of(container)
        dsns = {item.name: item.dsn for item in settings.shard_dsns}
        assert sorted(dsns) == ["db0", "db1", "db2", "db3"]
        user = users.get(name, "snapurl_owner")
        for shard, dsn in dsns.items():
            assert re.fullmatch(
                rf"postgresql://{user}(:s3cret)?@snapurl-{shard}\.[a-z0-9.-]+\.rds\.amazonaws\.com:5432/snapurl"
                r"\?sslmode=verify-full&sslrootcert=/etc/snapurl/rds-ca\.pem",
                dsn,
            )
        assert settings.shards_password.get_secret_value() == "s3cret"
    api, clicks = settings_of(found["api"]), settings_of(found["clicks"])
    for settings in (api, clicks):
        assert re.fullmatch(r"rediss://[a-z0-9.-]+:6379/0", settings.redis_url.get_secret_value())
        assert settings.redis_password.get_secret_value() == "s3cret"
    assert (api.public_url, api.port) == ("https://s.example.org", 8000)
    assert api.proxies == "10.80.0.0/24 10.80.1.0/24"
    assert found["api"]["portMappings"][0]["containerPort"] == api.port


def test_no_secret_is_in_plain_sight(found: dict[str, Container]) -> None:
    """Passwords come from Secrets Manager, each only for its own tasks, and no plain value contains one."""
    for name, container in found.items():
        given = secrets(container)
        expected = {f"{PREFIX}{key}": value for key, value in SECRETS[name].items()}
        if name == "owner":
            expected |= {"SERVICE_PASSWORD": "ServicePassword", "MIGRATOR_PASSWORD": "MigratorPassword"}
        assert sorted(given) == sorted(expected)
        for variable, arn in given.items():
            assert arn.startswith("arn:aws:secretsmanager:")
            assert f"-{expected[variable]}-" in arn
        for variable, value in environment(container).items():
            assert not re.search("PASSWORD|TOKEN|SECRET|KEY", variable)
            assert not re.search(r"://[^/@]*:[^/@]*@|secretsmanager|resolve:", value)


def test_secrets_are_made_by_aws(cloud: Cloud) -> None:
    """The four secrets are long and alphanumeric, so that they fit into any address. moto does not create them."""
    made = {key: value for key, value in cloud.stack("Secrets").items() if "GenerateSecretString" in value}
    assert sorted(made) == ["MigratorPassword", "OwnerPassword", "RedisPassword", "ServicePassword"]
    for each in made.values():
        assert each["GenerateSecretString"] == {"PasswordLength": 40, "ExcludePunctuation": True}
    for name in ("db0", "db1", "db2", "db3"):
        password = cloud.stack(name.title())["Database"]["MasterUserPassword"]
        assert re.fullmatch(
            r"\{\{resolve:secretsmanager:[^}]*-OwnerPassword-[^}]*:SecretString\}\}", password
        )


# -- rights ------------------------------------------------------------------------------------------------------


def test_containers_are_small_in_rights(found: dict[str, Container]) -> None:
    """No container has root or capabilities; each has a read-only root, a /tmp, an init and bounded logs."""
    groups = client("logs").describe_log_groups()["logGroups"]
    kept = {each["logGroupName"]: each["retentionInDays"] for each in groups}
    for container in found.values():
        assert container["user"] == "10001:10001"
        assert container["readonlyRootFilesystem"] is True
        assert container["linuxParameters"] == {"initProcessEnabled": True, "capabilities": {"drop": ["ALL"]}}
        assert [each["containerPath"] for each in container["mountPoints"]] == ["/tmp"]
        assert container["logConfiguration"]["options"]["awslogs-group"] in kept
    assert set(kept.values()) <= {30, 90}


def test_tasks_have_no_right_in_aws(cloud: Cloud) -> None:
    """Tasks have no task role, so a compromised task reaches shards and Redis but no AWS API (as resolved)."""
    tasks = resources("service", "ECS::TaskDefinition")
    assert len(tasks) == len(FAMILIES)
    for each in tasks.values():
        assert "TaskRoleArn" not in each
        assert (each["NetworkMode"], each["RequiresCompatibilities"]) == ("awsvpc", ["FARGATE"])


def statements(cloud: Cloud) -> list[tuple[str, dict[str, Any]]]:
    """Returns role and statement of every role, as resolved: moto writes the documents differently."""
    roles = {
        name: made for name, made in cloud.stack("Service").items() if "AssumeRolePolicyDocument" in made
    }
    assert len(client("iam").list_roles()["Roles"]) == len(roles) == 3
    assert not [role for role in roles.values() if "ManagedPolicyArns" in role]
    return [
        (name, statement)
        for name, role in roles.items()
        for policy in role["Policies"]
        for statement in policy["PolicyDocument"]["Statement"]
    ]


def listed(value: object) -> list[str]:
    return [str(each) for each in value] if isinstance(value, list) else [str(value)]


# AWS defines no resource for these actions.
ANY_RESOURCE = {"ecr:GetAuthorizationToken"}


def test_roles_name_what_they_reach(cloud: Cloud) -> None:
    """No action is a pattern, and `*` is a resource only for actions for which AWS defines none."""
    for _, each in statements(cloud):
        actions = listed(each["Action"])
        assert not [action for action in actions if "*" in action]
        if [resource for resource in listed(each["Resource"]) if resource == "*"]:
            assert set(actions) <= ANY_RESOURCE


def test_roles_read_the_secrets_of_their_tasks_only(cloud: Cloud) -> None:
    """Each execution role can read exactly the secrets that its task definitions name."""
    may = {
        name.removesuffix("Execution"): sorted(
            re.findall(r"-(\w+Password)-", " ".join(listed(each["Resource"])))
        )
        for name, each in statements(cloud)
        if "secretsmanager:GetSecretValue" in listed(each["Action"])
    }
    assert may == {
        "Service": ["RedisPassword", "ServicePassword"],
        "Migrator": ["MigratorPassword"],
        "Owner": ["MigratorPassword", "OwnerPassword", "ServicePassword"],
    }


def test_templates_have_no_policy_that_allows_everything() -> None:
    """No policy in any template, including those of endpoints, allows everything."""
    seen = 0
    for value in walk(
        [template(name) for name in ("network", "secrets", "shard", "redis", "balancer", "service")]
    ):
        if isinstance(value, dict) and value.get("Effect") == "Allow":
            seen += 1
            assert not [action for action in listed(value["Action"]) if "*" in action]
            if value.get("Resource") == "*":
                assert set(listed(value["Action"])) <= ANY_RESOURCE
    assert seen == 3 * 5 + 1


# -- commands, health, room --------------------------------------------------------------------------------------


def assert_is_command(words: list[str]) -> None:
    command = cli.commands[words[0]]
    command.make_context(words[0], words[1:])


def test_commands_are_those_of_the_program(found: dict[str, Container]) -> None:
    """The commands and health checks of the containers use commands and options that exist."""
    for name in ("api", "clicks", "migrate"):
        assert "entryPoint" not in found[name]
        assert_is_command(found[name]["command"])
    assert found["migrator"]["entryPoint"] == ["snapurl-reshard"]
    _, _, words = reshard.resolve_command(click.Context(reshard), found["migrator"]["command"])
    reshard.commands["run"].make_context("run", words)
    assert found["api"]["healthCheck"]["command"] == ["CMD", "snapurl-probe"]
    port = found["clicks"]["command"][found["clicks"]["command"].index("--metrics-port") + 1]
    url = f"http://127.0.0.1:{port}/health/ready"
    assert found["clicks"]["healthCheck"]["command"] == ["CMD", "snapurl-probe", url]


def test_nobody_restarts_a_task_because_a_shard_is_away(found: dict[str, Container]) -> None:
    """ECS replaces an api task for failed readiness only when its caches have nothing left to serve."""
    check = found["api"]["healthCheck"]
    settings = load_settings()
    assert check["interval"] * check["retries"] > settings.l1_max_age_s + settings.l2_max_age_s


def test_the_migrator_asks_the_service_by_its_name(cloud: Cloud, found: dict[str, Container]) -> None:
    """--service-url is the name and port under which the api tasks are registered."""
    made = cloud.stack("Service")
    url = found["migrator"]["command"][found["migrator"]["command"].index("--service-url") + 1]
    assert url == f"http://{made['ApiName']['Name']}.{made['Names']['Name']}:8000"
    assert made["ApiService"]["ServiceRegistries"]


def test_time_to_stop_is_enough(found: dict[str, Container]) -> None:
    """ECS waits longer for the service than the service waits for its workers."""
    for name in ("api", "clicks", "migrator"):
        assert found[name]["stopTimeout"] > WORKER_STOP_S_MAX + 1


@pytest.mark.parametrize("cores", ["1", "2"])
def test_connections_suffice_while_a_deployment_replaces_tasks(cores: str) -> None:
    """The maximum of api tasks plus two clicks tasks stay below the alarm and the connection limit of a shard."""
    size = template("service")["Mappings"]["Api"][cores]
    assert int(size["Cpu"]) == 1024 * int(cores)
    most = template("snapurl")["Parameters"]["ApiTasksMax"]["MaxValue"]
    deployment = resources("service", "ECS::Service")["ApiService"]["DeploymentConfiguration"]
    api = most * deployment["MaximumPercent"] / 100 * int(cores) * (int(size["Pool"]) + 1)
    clicks = resources("service", "ECS::TaskDefinition")["ClicksTask"]["ContainerDefinitions"][0]
    pools = (each["Value"] for each in clicks["Environment"] if each["Name"] == "SNAPURL_POOL_CONNECTIONS")
    taken = api + 2 * (int(next(pools)) + 1)
    alarm = resources("shard", "CloudWatch::Alarm")["ConnectionsAlarm"]["Threshold"]
    room = resources("shard", "RDS::DBParameterGroup")["Settings"]["Parameters"]["max_connections"]
    assert taken <= alarm < int(room)


def test_every_alarm_reaches_the_topic() -> None:
    """Each alarm has a unique name and description, and notifies the one topic."""
    found = everywhere("CloudWatch::Alarm")
    names = [json.dumps(each["AlarmName"]) for each in found.values()]
    assert len(names) == len({*names}) == 15
    for each in found.values():
        assert each["AlarmDescription"].endswith(".")
        assert each["AlarmActions"] in (
            [{"Ref": "Alarms"}],
            [{"Fn::ImportValue": {"Fn::Sub": "${Cluster}-alarms"}}],
        )
