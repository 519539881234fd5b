"""The templates of deploy/aws as plain values: `!Ref X` is {"Ref": "X"}, `!Sub` is {"Fn::Sub": …}, and so on."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]
AWS = ROOT / "deploy/aws"
NAMES = sorted(path.stem for path in AWS.glob("*.yml"))

Resource = dict[str, Any]


class _Loader(yaml.SafeLoader):
    """Reads CloudFormation's short forms."""


def _function(loader: _Loader, suffix: str, node: yaml.Node) -> dict[str, Any]:
    value: Any
    if isinstance(node, yaml.ScalarNode):
        value = loader.construct_scalar(node)
    elif isinstance(node, yaml.SequenceNode):
        value = loader.construct_sequence(node, deep=True)
    else:
        assert isinstance(node, yaml.MappingNode)
        value = loader.construct_mapping(node, deep=True)
    if suffix == "GetAtt" and isinstance(value, str):
        value = value.split(".", 1)
    return {suffix if suffix in ("Ref", "Condition") else f"Fn::{suffix}": value}


_Loader.add_multi_constructor("!", _function)


def template(name: str) -> dict[str, Any]:
    """Returns the template `name`.yml."""
    loaded = yaml.load((AWS / f"{name}.yml").read_text(encoding="utf-8"), _Loader)
    assert isinstance(loaded, dict)
    return loaded


def resources(name: str, kind: str) -> dict[str, Resource]:
    """Returns the properties of the resources of type AWS::`kind` in a template, by logical name."""
    return {
        logical: each["Properties"]
        for logical, each in template(name)["Resources"].items()
        if each["Type"] == f"AWS::{kind}"
    }


def everywhere(kind: str) -> dict[str, Resource]:
    """Returns the same for all templates, with keys such as `service.ApiTask`."""
    return {f"{name}.{logical}": each for name in NAMES for logical, each in resources(name, kind).items()}


def walk(value: Any) -> Iterator[Any]:
    """Yields `value` and every value within it."""
    yield value
    if isinstance(value, dict):
        for each in value.values():
            yield from walk(each)
    elif isinstance(value, list):
        for each in value:
            yield from walk(each)
