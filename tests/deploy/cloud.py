"""The stacks as created by `moto`, which imitates AWS.

moto's CloudFormation does not support every type, and ignores some properties of the types that it supports. The
tests check the created resource where moto uses a property, and otherwise `Cloud.made`: the properties of every
resource after moto has resolved all references. `moto_types.py` stands in for the types that moto does not support.
cfn-lint checks that their properties exist.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tests.deploy.templates import NAMES, template

REGION = "us-east-1"  # the region whose zones moto has built in
ACCOUNT = "123456789012"
BUCKET = "templates"

Properties = dict[str, Any]


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
    from tests.deploy.moto_types import imitated_aws  # noqa: PLC0415  # most test processes do not need it

    cloud = Cloud()
    with imitated_aws(cloud.made):
        put_templates()
        yield cloud


def client(service: str) -> Any:
    import boto3  # noqa: PLC0415  # like moto

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
