"""moto with what it lacks for the templates. Imported late: moto takes seconds to import.

STAND_INS are the types in the templates that moto's CloudFormation does not support. They only return a name and
fictitious addresses, so that references resolve.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

from moto import mock_aws
from moto.cloudformation import parsing
from moto.cloudformation.models import Stack
from moto.core.common_models import CloudFormationModel
from moto.elbv2.models import FakeTargetGroup
from moto.rds.models import DBParameterGroup

from tests.deploy.cloud import ACCOUNT, REGION, Properties

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


@contextmanager
def imitated_aws(made: dict[str, dict[str, Properties]]) -> Iterator[None]:
    """Imitates AWS for the duration of the block, and puts the properties of every resource into `made`."""
    types = {f"AWS::{kind}": _stand_in(kind) for kind in STAND_INS}
    find, read = parsing.resource_class_from_type, parsing.parse_resource_and_generate_name

    def find_ours(kind: str) -> type[CloudFormationModel]:
        return types.get(kind) or find(kind)

    def remember(logical: str, resource: Any, known: Any) -> Any:
        found = read(logical, resource, known)
        if found:
            made.setdefault(known["AWS::StackName"], {})[logical] = found[1]["Properties"]
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
        yield
