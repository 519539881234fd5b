"""The commands in deploy/aws/README.md exist in the program and in AWS, with the options used there."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from typing import Any

import botocore.session
import click
import pytest
from botocore import xform_name

from snapurl.cli import cli
from tests.deploy.templates import AWS, everywhere, template
from tools.cli import cli as reshard

TEXT = (AWS / "README.md").read_text(encoding="utf-8")
SESSION = botocore.session.get_session()

# Commands that only the AWS command line has, with the options used here; the API has no such operations.
ONLY_CLI = {
    ("cloudformation", "package"): {"--template-file", "--s3-bucket", "--output-template-file"},
    ("cloudformation", "deploy"): {
        "--template-file",
        "--stack-name",
        "--capabilities",
        "--parameter-overrides",
    },
    ("ecr", "get-login-password"): set(),
}
GLOBAL = {"--query", "--output"}
API = {"s3api": "s3"}


def lines() -> Iterator[str]:
    """Yields every command: after `$ ` in blocks, between backticks, and within $(…) of either."""
    blocks = re.findall(r"(?ms)^ *```console\n(.*?)^ *```", TEXT)
    found = [line for block in blocks for line in re.findall(r"(?m)^ *\$ (.*)$", block.replace("\\\n", " "))]
    inline = re.findall(r"`((?:aws|\./task) [^`]+)`", re.sub(r"(?ms)^ *```.*?^ *```", "", TEXT))
    for line in [*found, *(each for each in inline if "…" not in each)]:
        yield from re.findall(r"\$\(([^()]*)\)", line)
        yield re.sub(r"\$\([^()]*\)", "VALUE", line)


def commands(program: str) -> list[list[str]]:
    """Returns the words of every command of `program`, without duplicates."""
    found = set()
    for line in lines():
        words = shlex.split(line)
        for place, word in enumerate(words):
            if word.removeprefix("VALUE=") == program and (place == 0 or words[place - 1] in ("|", "&&")):
                end = next((i for i in range(place, len(words)) if words[i] in ("|", "&&")), len(words))
                found.add(tuple(words[place:end]))
    return [list(words) for words in sorted(found)]


def test_there_are_commands_to_check() -> None:
    """The parser finds the commands of the page."""
    assert len(commands("aws")) > 35
    assert len(commands("./task")) > 15


@pytest.mark.parametrize("words", commands("./task"), ids=" ".join)
def test_commands_of_the_program_exist(words: list[str]) -> None:
    """Every command given to `./task` exists in the program and accepts these arguments."""
    _, cluster, name, *rest = words
    assert cluster == "snapurl"
    if name in ("owner", "sql"):
        assert len(rest) == 2 if name == "sql" else all(re.fullmatch(r"[A-Z_]+=\w+", word) for word in rest)
        return
    group: click.Group = {"migrator": reshard, "clicks": cli}[name]
    while True:
        found, command, rest = group.resolve_command(click.Context(group), rest)
        assert command is not None and found is not None
        if not isinstance(command, click.Group):
            break
        group = command
    context = command.make_context(found, rest)
    if {"--yes"} & {option for each in command.params for option in each.opts} and not context.params.get(
        "dry_run"
    ):
        asks = found != "doctor" or context.params["fix"]
        assert context.params["yes"] or not asks, "it would wait for an answer that nobody can give"


def shape(service: str, operation: str) -> Any:
    model = SESSION.get_service_model(API.get(service, service))
    names = {xform_name(each, "-"): each for each in model.operation_names}
    assert operation in names, f"aws {service} has no {operation}"
    return model.operation_model(names[operation]).input_shape


def options_of(service: str, operation: str) -> set[str]:
    """Returns the AWS command line's options for the members of an operation's input."""
    members = shape(service, operation).members
    found = {f"--{xform_name(name, '-')}" for name in members}
    switches = [name for name, member in members.items() if member.type_name == "boolean"]
    return found | {f"--no-{xform_name(name, '-')}" for name in switches}


@pytest.mark.parametrize("words", commands("aws"), ids=" ".join)
def test_commands_of_aws_exist(words: list[str]) -> None:
    """Every `aws` command is an operation of the API, or a waiter, with these options."""
    _, service, operation, *rest = words
    given = {word.partition("=")[0] for word in rest if word.startswith("--")}
    if (service, operation) in ONLY_CLI:
        assert given <= ONLY_CLI[service, operation]
        return
    if operation == "wait":
        waiters = SESSION.get_waiter_model(service)
        names = {xform_name(each, "-"): each for each in waiters.waiter_names}
        operation = xform_name(waiters.get_waiter(names[rest[0]]).operation, "-")
    assert given - GLOBAL <= options_of(service, operation)


@pytest.mark.parametrize("words", [each for each in commands("aws") if "deploy" in each], ids=" ".join)
def test_deployments_give_parameters_that_there_are(words: list[str]) -> None:
    """Every parameter exists in the deployed template."""
    file = words[words.index("--template-file") + 1].removesuffix(".yml")
    known = template("snapurl" if file == "packaged" else file)["Parameters"]
    given = words[words.index("--parameter-overrides") + 1 :]
    assert given
    for word in given:
        name, equals, _ = word.partition("=")
        assert equals and (name in known or name == "VALUE")


def test_every_alarm_is_explained() -> None:
    """The table has one line for each alarm in the templates, and no other."""
    names = {each["AlarmName"]["Fn::Sub"] for each in everywhere("CloudWatch::Alarm").values()}
    expected = {name.removeprefix("${Cluster}-").replace("${Shard}", "dbN") for name in names}
    table = TEXT[TEXT.index("## Alarms") :]
    assert set(re.findall(r"(?m)^\| `([\w-]+)` \|", table)) == expected
