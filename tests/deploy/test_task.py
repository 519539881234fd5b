"""deploy/aws/task, with a fake `aws` that records its calls and responds like AWS."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

from tests.deploy.templates import AWS, resources
from tests.support.waits import HANG_S

# Records each call in a line; `2` is the exit code of the task.
AWS_COMMAND = """#!/usr/bin/env bash
printf '%s\\x1f' "$@" >> "$CALLS"; echo >> "$CALLS"
case "$1 $2" in
    "ecs describe-services") echo '{"awsvpcConfiguration": {"subnets": ["subnet-1"]}}' ;;
    "ecs run-task") echo arn:aws:ecs:eu-central-1:123456789012:task/snapurl/abc123 ;;
    "ecs wait") [[ -e $CALLS.waited ]] || { touch "$CALLS.waited"; exit 255; } ;;
    "logs get-log-events") echo "a line of $6" ;;
    "ecs describe-tasks") case "$8" in *exitCode*) echo "$EXIT" ;; *) echo Essential container exited ;; esac ;;
esac
"""

Calls = list[list[str]]


def run(place: Path, *words: str, code: str = "0") -> tuple[subprocess.CompletedProcess[str], Calls]:
    command, calls = place / "aws", place / "calls"
    command.write_text(AWS_COMMAND)
    command.chmod(0o755)
    environ = {**os.environ, "PATH": f"{place}:{os.environ['PATH']}", "CALLS": str(calls), "EXIT": code}
    done = subprocess.run(
        [str(AWS / "task"), *words], env=environ, capture_output=True, text=True, check=False, timeout=HANG_S
    )
    listed = calls.read_text().splitlines() if calls.exists() else []
    return done, [line.split("\x1f")[:-1] for line in listed]


def option(calls: Calls, operation: str, name: str) -> str:
    (call,) = (each for each in calls if each[1] == operation)
    return call[call.index(name) + 1]


@pytest.mark.parametrize(
    ("words", "family", "overrides"),
    [
        (
            ["migrator", "add", "db4", "--yes"],
            "migrator",
            [{"name": "migrator", "command": ["add", "db4", "--yes"]}],
        ),
        (["clicks", "keys", "list"], "clicks", [{"name": "clicks", "command": ["keys", "list"]}]),
        (["owner"], "owner", [{"name": "owner", "environment": []}]),
        (
            ["owner", "RETIRED_USERS=api_a api_c"],
            "owner",
            [{"name": "owner", "environment": [{"name": "RETIRED_USERS", "value": "api_a api_c"}]}],
        ),
        (
            ["sql", "db1", "DELETE FROM peer_logs WHERE shard = 'db0'"],
            "owner",
            [
                {"name": "migrate", "command": ["--version"]},
                {"name": "owner", "command": ["sql", "db1", "DELETE FROM peer_logs WHERE shard = 'db0'"]},
            ],
        ),
    ],
)
def test_a_task_is_told_what_to_run(
    tmp_path: Path, words: list[str], family: str, overrides: list[dict[str, object]]
) -> None:
    """The script starts the right task in the right network, waits, prints its output, and deletes the log."""
    done, calls = run(tmp_path, "snapurl", *words)
    assert done.returncode == 0, done.stderr
    assert option(calls, "run-task", "--task-definition") == f"snapurl-{family}"
    assert json.loads(option(calls, "run-task", "--overrides")) == {"containerOverrides": overrides}
    assert json.loads(option(calls, "run-task", "--network-configuration"))
    assert option(calls, "describe-services", "--services") == ("migrator" if family == "owner" else family)
    streams = [f"owner/{name}/abc123" for name in ("migrate", "owner")]
    if family != "owner":
        streams = [f"{family}/{family}/abc123"]
    assert done.stdout.splitlines() == [f"a line of {stream}" for stream in streams]
    deleted = [each for each in calls if each[1] == "delete-log-stream"]
    assert [each[each.index("--log-stream-name") + 1] for each in deleted] == streams


@pytest.mark.parametrize(("said", "code"), [("2", 2), ("None", 1)])
def test_the_exit_code_is_that_of_the_program(tmp_path: Path, said: str, code: int) -> None:
    """The exit code is that of the program, or 1 if the program never ran."""
    done, _ = run(tmp_path, "snapurl", "migrator", "doctor", code=said)
    assert done.returncode == code


@pytest.mark.parametrize(
    "words", [[], ["snapurl"], ["snapurl", "sql", "db0", 'SELECT "a"'], ["snapurl", "clicks", "a\\b"]]
)
def test_what_cannot_be_passed_on_is_refused(tmp_path: Path, words: list[str]) -> None:
    """Arguments that cannot be passed on are refused before anything is started."""
    done, calls = run(tmp_path, *words)
    assert (done.returncode, calls) == (2, [])
    assert done.stderr


def test_names_are_those_of_the_templates() -> None:
    """Families, containers, log groups and stream prefixes in the templates are those that `task` composes."""
    for task in resources("service", "ECS::TaskDefinition").values():
        family = task["Family"]["Fn::Sub"].removeprefix("${Cluster}-")
        names = [each["Name"] for each in task["ContainerDefinitions"]]
        assert names == (["migrate", "owner"] if family == "owner" else [family])
        for each in task["ContainerDefinitions"]:
            options = each["LogConfiguration"]["Options"]
            group = resources("service", "Logs::LogGroup")[options["awslogs-group"]["Ref"]]
            assert group["LogGroupName"] == {"Fn::Sub": f"/${{Cluster}}/{family}"}
            assert options["awslogs-stream-prefix"] == family
