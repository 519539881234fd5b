"""The stacks as created by `moto`, which imitates AWS.

moto's CloudFormation does not support every type, and ignores some properties of the types that it supports. The
tests check the created resource where moto uses a property, and otherwise `Cloud.made`: the properties of every
resource after moto has resolved all references. STAND_INS are the types in the templates that moto does not
support. They only return a name and fictitious addresses, so that references resolve. cfn-lint checks that their
properties exist.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

import boto3
from moto import mock_aws
from moto.cloudformation import parsing
from moto.cloudformation.models import Stack
from moto.core.common_models import CloudFormationModel
from moto.elbv2.models import FakeTargetGroup
from moto.rds.models import DBParameterGroup

from tests.deploy.templates import NAMES, template

REGION = "us-east-1"  # the region whose zones moto has built in
ACCOUNT = "123456789012"
BUCKET = "templates"

STAND_INS = (
    "ApplicationAutoScaling::ScalableTarget",
    "ApplicationAutoScaling::ScalingPolicy",
    "CloudWatch::Alarm",
    "ElastiCache::ParameterGroup",
    "ElastiCache::ReplicationGroup",
    "ElastiCache::SubnetGroup",
    "Logs::MetricFilter",
    "RDS::EventSubscription",
    "SecretsManager::Secret",
    "ServiceDiscovery::PrivateDnsNamespace",
    "ServiceDiscovery::Service",
)

Properties = dict[str, Any]


class _StandIn(CloudFormationModel):
    kind = ""

    def __init__(self, name: str) -> None:
        self.name = name

    @property
    def physical_resource_id(self) -> str:
        if self.kind == "SecretsManager::Secret":
            return f"arn:aws:secretsmanager:{REGION}:{ACCOUNT}:secret:{self.name}-AbCdEf"
        return self.name

    @staticmethod
    def cloudformation_name_type() -> str:
        return ""

    @classmethod
    def has_cfn_attr(cls, attr: str) -> bool:
        return bool(attr)

    def get_cfn_attribute(self, attribute_name: str) -> str:
        return f"{self.name.lower()}.{attribute_name.lower()}.test"

    @classmethod
    def create_from_cloudformation_json(
        cls, resource_name: str, cloudformation_json: Any, account_id: str, region_name: str, **kwargs: Any
    ) -> CloudFormationModel:
        return cls(resource_name)


def _stand_in(kind: str) -> type[CloudFormationModel]:
    name = "Name" if kind == "SecretsManager::Secret" else ""
    members = {
        "kind": kind,
        "cloudformation_type": staticmethod(lambda: f"AWS::{kind}"),
        "cloudformation_name_type": staticmethod(lambda: name),
    }
    return type(kind.replace("::", ""), (_StandIn,), members)


def known_types() -> set[str]:
    """Returns the types that moto's CloudFormation supports."""
    return {
        model.cloudformation_type() for model in CloudFormationModel.__subclasses__() if model is not _StandIn
    }


def _output(stack: Stack, attribute: str) -> str:
    """Returns `Outputs.Name` of a nested stack."""
    found = stack.output_map[attribute.removeprefix("Outputs.")]
    assert found is not None
    return found.value


class Cloud:
    """One AWS account. `made`: stack -> logical name -> properties, resolved."""

    def __init__(self) -> None:
        self.made: dict[str, dict[str, Properties]] = {}

    def stack(self, logical: str) -> dict[str, Properties]:
        """Returns the resources of the nested stack with this logical name in the root."""
        (found,) = (name for name in self.made if name.startswith(f"snapurl-{logical}-"))
        return self.made[found]


@contextmanager
def account() -> Iterator[Cloud]:
    """Provides an AWS account for the duration of the block."""
    cloud = Cloud()
    types = {f"AWS::{kind}": _stand_in(kind) for kind in STAND_INS}
    find, read = parsing.resource_class_from_type, parsing.parse_resource_and_generate_name

    def find_ours(kind: str) -> type[CloudFormationModel]:
        return types.get(kind) or find(kind)

    def remember(logical: str, resource: Any, known: Any) -> Any:
        found = read(logical, resource, known)
        if found:
            cloud.made.setdefault(known["AWS::StackName"], {})[logical] = found[1]["Properties"]
        return found

    with (
        mock_aws(),
        patch.object(parsing, "resource_class_from_type", find_ours),
        patch.object(parsing, "parse_resource_and_generate_name", remember),
        # Missing in moto: outputs of nested stacks, attributes of a target group, and the name that
        # stands for a parameter group wherever something refers to it.
        patch.object(Stack, "get_cfn_attribute", _output, create=True),
        patch.object(
            FakeTargetGroup, "get_cfn_attribute", lambda group, name: f"{group.name}.{name}", create=True
        ),
        patch.object(
            DBParameterGroup, "physical_resource_id", property(lambda group: group.name), create=True
        ),
    ):
        put_templates()
        yield cloud


def client(service: str) -> Any:
    return boto3.client(service, region_name=REGION)


def put_templates() -> None:
    """Does what `aws cloudformation package` does: puts the templates into S3 and their addresses into the root.

    It writes JSON, since moto splits the short form `!GetAtt Nested.Outputs.Name` at every dot.
    """
    s3 = client("s3")
    s3.create_bucket(Bucket=BUCKET)
    for name in NAMES:
        body = json.dumps(template(name))
        for nested in NAMES:
            body = body.replace(f'"TemplateURL": "{nested}.yml"', f'"TemplateURL": "{address(nested)}"')
        s3.put_object(Bucket=BUCKET, Key=f"{name}.json", Body=body.encode())


def address(name: str) -> str:
    return f"https://{BUCKET}.s3.amazonaws.com/{name}.json"


def create(stack: str, name: str, **parameters: str) -> dict[str, str]:
    """Creates a stack of the template `name`. Returns its outputs."""
    cloudformation = client("cloudformation")
    cloudformation.create_stack(
        StackName=stack,
        TemplateURL=address(name),
        Parameters=[{"ParameterKey": key, "ParameterValue": value} for key, value in parameters.items()],
        Capabilities=["CAPABILITY_IAM"],
    )
    return outputs(stack)


def outputs(stack: str) -> dict[str, str]:
    found = client("cloudformation").describe_stacks(StackName=stack)["Stacks"][0]
    assert found["StackStatus"] in ("CREATE_COMPLETE", "UPDATE_COMPLETE")
    return {each["OutputKey"]: each["OutputValue"] for each in found.get("Outputs", ())}


def certificate() -> str:
    found = client("acm").request_certificate(DomainName="s.example.org")
    return str(found["CertificateArn"])
