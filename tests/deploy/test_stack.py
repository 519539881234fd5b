"""The resources of the created stacks. tests/deploy/cloud.py describes what moto supports."""

from __future__ import annotations

import re
from ipaddress import ip_network
from typing import Any

import yaml

from snapurl.app import KEEP_ALIVE_S
from tests.deploy.cloud import REGION, Cloud, client, outputs
from tests.deploy.conftest import GIVEN
from tests.deploy.templates import ROOT, resources, template

ASSOCIATION = {"SubnetId", "RouteTableId"}  # moto creates it, but does not report it
SHARDS = ["db0", "db1", "db2", "db3"]


def test_the_stand_ins_are_needed() -> None:
    """No stand-in replaces a type that moto's CloudFormation supports."""
    from tests.deploy.moto_types import STAND_INS, known_types  # noqa: PLC0415

    assert not {f"AWS::{kind}" for kind in STAND_INS} & known_types()


def test_all_stacks_are_complete(cloud: Cloud) -> None:
    """The root and all nested stacks are created, and the root outputs the target of the public name."""
    found = client("cloudformation").describe_stacks()["Stacks"]
    assert {stack["StackStatus"] for stack in found} == {"CREATE_COMPLETE"}
    names = {re.sub(r"-[A-Z0-9]{12}$", "", stack["StackName"]) for stack in found}
    nested = ["Network", "Secrets", "Db0", "Db1", "Db2", "Db3", "Redis", "Balancer", "Service"]
    assert names == {"snapurl", *(f"snapurl-{name}" for name in nested)}
    assert outputs("snapurl")["Address"].endswith(".elb.amazonaws.com")


# -- network ------------------------------------------------------------------------------------------------------


def subnets(cloud: Cloud, ring: str) -> list[dict[str, Any]]:
    (vpc,) = (stack for stack in client("ec2").describe_vpcs()["Vpcs"] if not stack["IsDefault"])
    found = client("ec2").describe_subnets(Filters=[{"Name": "vpc-id", "Values": [vpc["VpcId"]]}])["Subnets"]
    return [
        each for each in found if any(tag["Value"].startswith(f"snapurl-{ring}-") for tag in each["Tags"])
    ]


def test_each_ring_of_subnets_is_in_two_zones(cloud: Cloud) -> None:
    """Public, tasks and data each have a subnet in two zones, without overlaps and without public addresses."""
    rings = [subnets(cloud, ring) for ring in ("public", "tasks", "data")]
    for ring in rings:
        assert {each["AvailabilityZone"] for each in ring} == {f"{REGION}a", f"{REGION}b"}
        assert not [each for each in ring if each["MapPublicIpOnLaunch"]]
    networks = [ip_network(each["CidrBlock"]) for ring in rings for each in ring]
    assert len(networks) == 6
    assert not [1 for a in networks for b in networks if a is not b and a.overlaps(b)]


def test_only_the_public_ring_has_a_way_to_the_internet(cloud: Cloud) -> None:
    """Tasks reach only S3, through an endpoint; data has only the local route of the network."""
    made = cloud.stack("Network")
    tables = {each["SubnetId"]: each["RouteTableId"] for each in made.values() if {*each} == ASSOCIATION}
    for ring, expected in (("public", {"local", "igw"}), ("tasks", {"local", "vpce"}), ("data", {"local"})):
        for subnet in subnets(cloud, ring):
            routes = client("ec2").describe_route_tables(RouteTableIds=[tables[subnet["SubnetId"]]])
            (table,) = routes["RouteTables"]
            assert {route["GatewayId"].partition("-")[0] for route in table["Routes"]} == expected
    assert not client("ec2").describe_nat_gateways()["NatGateways"]


def test_tasks_reach_what_starts_them(cloud: Cloud) -> None:
    """Registry, secrets and logs have endpoints in both zones of the tasks; S3 serves image layers only."""
    found = client("ec2").describe_vpc_endpoints()["VpcEndpoints"]
    inside = {each["SubnetId"] for each in subnets(cloud, "tasks")}
    by_name = {each["ServiceName"].removeprefix(f"com.amazonaws.{REGION}."): each for each in found}
    assert sorted(by_name) == ["ecr.api", "ecr.dkr", "logs", "s3", "secretsmanager"]
    for name, each in by_name.items():
        assert each["VpcEndpointType"] == ("Gateway" if name == "s3" else "Interface")
        if name != "s3":
            assert {*each["SubnetIds"]} == inside
    (statement,) = cloud.stack("Network")["LayersEndpoint"]["PolicyDocument"]["Statement"]
    assert statement["Action"] == "s3:GetObject"
    assert statement["Resource"] == f"arn:aws:s3:::prod-{REGION}-starport-layer-bucket/*"


def groups(cloud: Cloud) -> dict[str, str]:
    """Returns the name of every security group of the stacks by id."""
    found = client("ec2").describe_security_groups()["SecurityGroups"]
    said = "snapurl: "
    return {
        each["GroupId"]: each["Description"].removeprefix(said)
        for each in found
        if each["Description"].startswith(said)
    }


def test_each_part_is_reached_only_by_those_who_need_it(cloud: Cloud) -> None:
    """Exactly these connections between security groups are allowed, each to its port."""
    names = groups(cloud)
    reached = set()
    for each in client("ec2").describe_security_groups(GroupIds=list(names))["SecurityGroups"]:
        for rule in each["IpPermissions"]:
            assert rule["FromPort"] == rule["ToPort"]
            sources = [names[pair["GroupId"]] for pair in rule["UserIdGroupPairs"]]
            sources += [block["CidrIp"] for block in rule["IpRanges"]]
            reached |= {(source, names[each["GroupId"]], rule["FromPort"]) for source in sources}
    assert reached == {
        ("0.0.0.0/0", "load balancer", 443),
        ("0.0.0.0/0", "load balancer", 80),
        ("load balancer", "api", 8000),
        ("migrator", "api", 8000),
        *((task, "shards", 5432) for task in ("api", "clicks", "migrator")),
        *((task, "redis", 6379) for task in ("api", "clicks")),
        *((task, "endpoints of AWS", 443) for task in ("api", "clicks", "migrator")),
    }


def test_each_part_reaches_only_what_it_needs(cloud: Cloud) -> None:
    """The egress rules mirror the ingress rules. moto does not create them: the resolved properties are checked."""
    names = groups(cloud)
    leaving = set()
    for logical, made in cloud.stack("Network").items():
        if "GroupDescription" not in made:
            continue
        assert made["SecurityGroupEgress"], f"{logical} might reach everything"
        me = made["GroupDescription"].removeprefix("snapurl: ")
        for rule in made["SecurityGroupEgress"]:
            if rule.get("CidrIp"):
                assert (rule["CidrIp"], me in ("shards", "redis", "endpoints of AWS")) == (
                    "127.0.0.1/32",
                    True,
                )
                continue
            assert rule["FromPort"] == rule["ToPort"]
            to = rule.get("DestinationPrefixListId") or names[rule["DestinationSecurityGroupId"]]
            leaving.add((me, to, rule["FromPort"]))
    tasks = ("api", "clicks", "migrator")
    assert leaving == {
        ("load balancer", "api", 8000),
        ("migrator", "api", 8000),
        *((task, "shards", 5432) for task in tasks),
        *((task, "redis", 6379) for task in ("api", "clicks")),
        *((task, "endpoints of AWS", 443) for task in tasks),
        *((task, GIVEN["S3PrefixList"], 443) for task in tasks),
    }


# -- shards -------------------------------------------------------------------------------------------------------


def test_every_shard_has_a_standby_and_is_for_insiders(cloud: Cloud) -> None:
    """Each shard is Multi-AZ, private, encrypted, restorable, protected, in the data subnets and its own group."""
    inside = {each["SubnetId"] for each in subnets(cloud, "data")}
    names = groups(cloud)
    found = {
        each["DBInstanceIdentifier"]: each for each in client("rds").describe_db_instances()["DBInstances"]
    }
    assert sorted(found) == [f"snapurl-{name}" for name in SHARDS]
    for each in found.values():
        assert (each["MultiAZ"], each["PubliclyAccessible"], each["StorageEncrypted"]) == (True, False, True)
        assert each["BackupRetentionPeriod"] == 14
        assert each["CopyTagsToSnapshot"]
        assert {subnet["SubnetIdentifier"] for subnet in each["DBSubnetGroup"]["Subnets"]} == inside
        assert (each["DBName"], each["MasterUsername"]) == ("snapurl", "snapurl_owner")
    for name in SHARDS:  # moto names them differently from CloudFormation
        assert [names[group] for group in cloud.stack(name.title())["Database"]["VPCSecurityGroups"]] == [
            "shards"
        ]
    windows = {each["PreferredMaintenanceWindow"] for each in found.values()}
    assert len(windows) == len(SHARDS)


def test_nothing_takes_a_shard_away_by_mistake(cloud: Cloud) -> None:
    """Deleting a shard takes two steps and leaves a snapshot. moto drops this: resolved properties are checked."""
    for name in SHARDS:
        made = cloud.stack(name.title())["Database"]
        assert made["DeletionProtection"] is True
        assert made["DeleteAutomatedBackups"] is False
        assert made["DBInstanceIdentifier"] == f"snapurl-{name}"
    (kept,) = (
        each for each in template("shard")["Resources"].values() if each["Type"] == "AWS::RDS::DBInstance"
    )
    assert (kept["DeletionPolicy"], kept["UpdateReplacePolicy"]) == ("Snapshot", "Snapshot")


def compose_settings() -> dict[str, str]:
    """Returns the settings on a shard's command line in docker-compose.yml."""
    words = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]["db0"]["command"]
    return dict(
        word.split("=", 1) for flag, word in zip(words[1::2], words[2::2], strict=True) if flag == "-c"
    )


def test_shards_are_set_as_in_the_compose_file(cloud: Cloud) -> None:
    """The parameter group has exactly the shard settings of docker-compose.yml, and requires TLS."""
    rds = client("rds")
    for each in rds.describe_db_instances()["DBInstances"]:
        (group,) = each["DBParameterGroups"]
        set_to = rds.describe_db_parameters(DBParameterGroupName=group["DBParameterGroupName"])["Parameters"]
        found = {item["ParameterName"]: item["ParameterValue"] for item in set_to}
        assert found.pop("rds.force_ssl") == "1"
        assert found == compose_settings()


# -- Redis, balancer ---------------------------------------------------------------------------------------------


def test_redis_has_a_replica_and_evicts_nothing(cloud: Cloud) -> None:
    """Redis has two nodes in two zones, failover, TLS, a password and noeviction (as resolved: moto lacks it)."""
    made = cloud.stack("Redis")
    group = made["Group"]
    assert (group["NumCacheClusters"], group["AutomaticFailoverEnabled"], group["MultiAZEnabled"]) == (
        2,
        True,
        True,
    )
    assert (group["TransitEncryptionEnabled"], group["AtRestEncryptionEnabled"]) == (True, True)
    assert re.fullmatch(
        r"\{\{resolve:secretsmanager:arn:aws:secretsmanager:[^}]*RedisPassword[^}]*:SecretString\}\}",
        group["AuthToken"],
    )
    assert made["Settings"]["Properties"] == {"maxmemory-policy": "noeviction"}
    assert {*made["Subnet"]["SubnetIds"]} == {each["SubnetId"] for each in subnets(cloud, "data")}
    assert [groups(cloud)[group_id] for group_id in group["SecurityGroupIds"]] == ["redis"]


def test_visitors_get_https_and_no_metrics(cloud: Cloud) -> None:
    """HTTP redirects to HTTPS, HTTPS is TLS 1.2 or newer with the given certificate, and only the service's port is
    a target, not that of the metrics."""
    elb = client("elbv2")
    (balancer,) = elb.describe_load_balancers()["LoadBalancers"]
    assert balancer["Scheme"] == "internet-facing"
    assert {zone["SubnetId"] for zone in balancer["AvailabilityZones"]} == {
        each["SubnetId"] for each in subnets(cloud, "public")
    }
    listeners = elb.describe_listeners(LoadBalancerArn=balancer["LoadBalancerArn"])["Listeners"]
    by_port = {each["Port"]: each for each in listeners}
    assert sorted(by_port) == [80, 443]
    (redirect,) = by_port[80]["DefaultActions"]
    assert (redirect["Type"], redirect["RedirectConfig"]["Protocol"]) == ("redirect", "HTTPS")
    assert by_port[443]["SslPolicy"] == "ELBSecurityPolicy-TLS13-1-2-2021-06"
    assert by_port[443]["Certificates"][0]["CertificateArn"].startswith("arn:aws:acm:")
    rules = elb.describe_rules(ListenerArn=by_port[443]["ListenerArn"])["Rules"]
    assert all(rule["IsDefault"] for rule in rules)
    assert {group["Port"] for group in elb.describe_target_groups()["TargetGroups"]} == {8000}


def test_the_balancer_asks_for_life_and_closes_first(cloud: Cloud) -> None:
    """The balancer drops a task only if it does not respond itself, and is the first to close idle connections."""
    (group,) = client("elbv2").describe_target_groups()["TargetGroups"]
    assert (group["TargetType"], group["Port"], group["HealthCheckPath"]) == ("ip", 8000, "/health/live")
    attributes = resources("balancer", "ElasticLoadBalancingV2::LoadBalancer")["Balancer"][
        "LoadBalancerAttributes"
    ]
    values = {each["Key"]: each["Value"] for each in attributes}
    assert float(values["idle_timeout.timeout_seconds"]) < KEEP_ALIVE_S
    assert values["deletion_protection.enabled"] == "true"
