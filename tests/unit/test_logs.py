"""Log lines."""

from __future__ import annotations

import ast
import asyncio
import json
import logging
import re
import sys

import pytest

from snapurl.tasks import cancel_and_wait
from snapurl.telemetry import logs
from snapurl.telemetry.logs import REQUEST_ID, JsonFormatter, detached_task, endless_task
from tests.support.deployed import ROOT
from tests.support.source_code import parsed
from tests.support.waits import unless_hung


def record(message: str, *args: object, **extra: object) -> logging.LogRecord:
    made = logging.LogRecord("snapurl.x", logging.WARNING, "f.py", 1, message, args, None)
    made.__dict__.update(extra)
    return made


def test_a_record_is_one_json_line() -> None:
    """A record is one line of JSON, even if the message contains line breaks or other client input."""
    text = JsonFormatter().format(record("a %s", "b\n\u2028ä\x00"))
    assert "\n" not in text and text.isascii()
    line = json.loads(text)
    assert line["message"] == "a b\n\u2028ä\x00"
    assert (line["level"], line["logger"]) == ("warning", "snapurl.x")
    assert "request_id" not in line


def test_a_record_names_its_request() -> None:
    """The request id comes from the context or from the record."""
    token = REQUEST_ID.set("r-1")
    try:
        assert json.loads(JsonFormatter().format(record("x")))["request_id"] == "r-1"
        assert json.loads(JsonFormatter().format(record("x", request_id="r-2")))["request_id"] == "r-2"
    finally:
        REQUEST_ID.reset(token)


def test_a_stack_stays_on_the_line() -> None:
    """The stack trace is a field of the JSON object."""
    try:
        raise ValueError("boom")
    except ValueError:
        made = record("x", exc_info=sys.exc_info())
    assert "ValueError: boom" in json.loads(JsonFormatter().format(made))["stack"]


async def test_an_endless_task_that_fails_or_ends_is_started_again(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A background task that must not end runs again after any failure and after its end, and both are logged."""
    monkeypatch.setattr(logs, "RESTART_S_MIN", 0.001)
    runs = 0
    third = asyncio.Event()

    async def work() -> None:
        nonlocal runs
        runs += 1
        if runs == 1:
            raise RuntimeError("a bug")
        if runs == 3:
            third.set()
            await asyncio.Event().wait()

    task = endless_task(work, "sweep")
    await unless_hung(third.wait())
    await cancel_and_wait(task)
    assert [record.getMessage() for record in caplog.records] == [
        "the task sweep has failed; it is started again",
        "the task sweep has ended; it is started again",
    ]


async def test_a_detached_task_that_fails_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    """A task that nobody awaits does not fail in silence."""

    async def work() -> None:
        raise RuntimeError("a bug")

    await asyncio.wait([detached_task(work(), "refresh")])
    await asyncio.sleep(0)
    assert [record.getMessage() for record in caplog.records] == ["the task refresh has failed"]


def test_a_task_that_runs_for_ever_is_an_endless_task() -> None:
    """No program starts an unguarded task for a coroutine with an endless loop."""
    sources = [path for folder in ("snapurl", "tools") for path in (ROOT / folder).rglob("*.py")]
    found, unguarded = set(), set()
    for path in sources:
        text = path.read_text()
        functions = [node for node in ast.walk(parsed(path)) if isinstance(node, ast.AsyncFunctionDef)]
        endless = {function.name for function in functions if _loops_for_ever(function)}
        started = re.findall(r"(?:create_task|detached_task)\(\s*(?:\w+\.)*(\w+)\(", text)
        found |= endless
        unguarded |= {(path.name, name) for name in started if name in endless}
    assert {"_heartbeat", "_watch_forever", "_watch"} <= found
    assert unguarded == {("logs.py", "_keep_running")}


def _loops_for_ever(function: ast.AsyncFunctionDef) -> bool:
    loops = (node for node in ast.walk(function) if isinstance(node, ast.While))
    return any(
        isinstance(loop.test, ast.Constant)
        and not any(isinstance(node, ast.Return) for node in ast.walk(loop))
        for loop in loops
    )
