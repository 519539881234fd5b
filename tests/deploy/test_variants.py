"""The effects of the templates' parameters. Each test uses a new account."""

from __future__ import annotations

import re

from tests.deploy.cloud import account, certificate, client, create
from tests.deploy.conftest import GIVEN
from tests.deploy.test_tasks import Container, containers, environment

SHARDS = ["db0", "db1", "db2", "db3"]


def test_shards_can_differ_in_size() -> None:
    """Class, storage and throughput are set per shard; a shard with an empty class is neither created nor named."""
    with account() as cloud:
        sizes = {
            "Db1Class": "db.r7g.xlarge",
            "Db1StorageGb": "500",
            "Db1StorageIops": "12000",
            "Db2Class": "",
        }
        create("snapurl", "snapurl", Certificate=certificate(), **GIVEN, **sizes)
        found = {
            each["DBInstanceIdentifier"]: each
            for each in client("rds").describe_db_instances()["DBInstances"]
        }
        assert sorted(found) == ["snapurl-db0", "snapurl-db1", "snapurl-db3"]
        large, usual = found["snapurl-db1"], found["snapurl-db0"]
        assert (large["DBInstanceClass"], large["AllocatedStorage"], large["Iops"]) == (
            "db.r7g.xlarge",
            500,
            12000,
        )
        assert (usual["DBInstanceClass"], usual["AllocatedStorage"]) == ("db.m7g.large", 100)
        assert "Iops" not in cloud.stack("Db0")["Database"]
        shards = cloud.made["snapurl"]["Service"]["Parameters"]["Shards"]
        assert re.findall(r"(db\d)=", shards) == ["db0", "db1", "db3"]


def test_a_shard_more_is_a_stack_of_its_own() -> None:
    """Another shard is a separate stack that changes no other; once named in MoreShards, the programs use it."""
    with account() as cloud:
        create("snapurl", "snapurl", Certificate=certificate(), **GIVEN)
        before = {stack: dict(made) for stack, made in cloud.made.items()}
        said = create("snapurl-db4", "shard", Cluster="snapurl", Shard="db4", InstanceClass="db.r7g.large")
        assert {stack: made for stack, made in cloud.made.items() if stack != "snapurl-db4"} == before
        (made,) = client("rds").describe_db_instances(DBInstanceIdentifier="snapurl-db4")["DBInstances"]
        (like,) = client("rds").describe_db_instances(DBInstanceIdentifier="snapurl-db0")["DBInstances"]
        assert made["MultiAZ"]
        for same in ("DBSubnetGroup", "VpcSecurityGroups", "MasterUsername", "EngineVersion"):
            assert made[same] == like[same]
        assert said["Address"] == f"{made['Endpoint']['Address']}:5432/snapurl"
        assert said["Dsn"].startswith(f"db4=postgresql://USER@{said['Address']}?")
    with account() as cloud:
        create("snapurl", "snapurl", Certificate=certificate(), MoreShards=said["Dsn"], **GIVEN)
        assert {named(each) for each in containers().values()} == {(*SHARDS, "db4")}
    with account():  # before it has tables and users, only the owner's task gets it
        create("snapurl", "snapurl", Certificate=certificate(), NextShards=said["Dsn"], **GIVEN)
        for name, container in containers().items():
            assert named(container) == ((*SHARDS, "db4") if name in ("migrate", "owner") else (*SHARDS,))


def test_a_new_version_migrates_before_it_serves() -> None:
    """Only the owner's task runs the image NextVersion; without it all tasks run the same image."""
    for more, expected in (({}, "1.0"), ({"NextVersion": "2.0"}, "2.0")):
        with account():
            create("snapurl", "snapurl", Certificate=certificate(), **GIVEN, **more)
            tags = {name: each["image"].rpartition(":")[2] for name, each in containers().items()}
        assert (tags.pop("migrate"), tags.pop("owner")) == (expected, expected)
        assert set(tags.values()) == {"1.0"}


def named(container: Container) -> tuple[str, ...]:
    """Returns the shards in a container's settings."""
    user = r"(?:api_a|resharder_a|snapurl_owner)"
    return tuple(re.findall(rf"(db\d)=postgresql://{user}@", environment(container)["SNAPURL_SHARDS"]))


def test_a_first_start_waits_for_the_tables() -> None:
    """With FirstStart nothing runs or scales; without it, scaling decides the number of api tasks."""
    for first, counts in (("true", (0, 0, 0)), ("false", (None, 1, 1))):
        with account() as cloud:
            create("snapurl", "snapurl", Certificate=certificate(), FirstStart=first, **GIVEN)
            made = cloud.stack("Service")
            services = ("ApiService", "ClicksService", "MigratorService")
            assert tuple(made[name].get("DesiredCount") for name in services) == counts
            assert ("ApiScaling" in made) is (first == "false")


def test_the_other_user_comes_with_the_other_turn() -> None:
    """ServiceTurn and MigratorTurn give each program its second user, which the owner's task creates."""
    with account():
        create("snapurl", "snapurl", Certificate=certificate(), ServiceTurn="b", MigratorTurn="b", **GIVEN)
        found = containers()
    assert found["owner"]["name"] == "owner"
    for name, user in (("api", "api_b"), ("clicks", "api_b"), ("migrator", "resharder_b")):
        assert environment(found[name])["SNAPURL_SHARDS"].count(f"//{user}@") == 4
    made = environment(found["owner"])
    assert (made["SERVICE_USER"], made["MIGRATOR_USER"]) == ("api_b", "resharder_b")
