"""Logs: one line per record on stderr, with the ids that it can be found by; JSON for programs, text for people."""

from __future__ import annotations

import asyncio
import contextvars
import json
import logging
import sys
from collections.abc import Callable, Coroutine
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Any

from snapurl.telemetry.traces import trace_id

log = logging.getLogger("snapurl.tasks")

RESTART_S_MIN, RESTART_S_MAX = 1.0, 60.0

REQUEST_ID: ContextVar[str] = ContextVar("request_id", default="")
MOVE: ContextVar[str] = ContextVar("move", default="")

# Attributes of a record that a line is found by, besides request and trace id.
ID_FIELDS = ("move", "shipment", "shard", "slot")


def ids_of(record: logging.LogRecord) -> dict[str, Any]:
    """Returns the ids that a record can be found by: from its attributes, else request and move of the context."""
    request_id = getattr(record, "request_id", "") or REQUEST_ID.get()
    found = {"request_id": request_id, "move": MOVE.get(), "trace_id": trace_id()}
    found |= {name: value for name in ID_FIELDS if (value := getattr(record, name, "")) != ""}
    return {name: value for name, value in found.items() if value != ""}


class JsonFormatter(logging.Formatter):
    """Fields: time, level, logger, message; if present request_id, move, trace_id, shipment, shard, slot, stack."""

    def format(self, record: logging.LogRecord) -> str:
        line = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **ids_of(record),
        }
        if record.exc_info:
            line["stack"] = self.formatException(record.exc_info)
        return json.dumps(line)


class TextFormatter(logging.Formatter):
    """Local time, level, logger, message and ids; a stack trace follows on separate lines."""

    def format(self, record: logging.LogRecord) -> str:
        at = datetime.fromtimestamp(record.created).astimezone()
        message = record.getMessage().encode("unicode_escape").decode()  # may quote a client's line breaks
        ids = "".join(f" {name}={value}" for name, value in ids_of(record).items())
        when = f"{at:%H:%M:%S}.{at.microsecond // 1000:03}"
        line = f"{when} {record.levelname.lower()} {record.name}: {message}{ids}"
        return f"{line}\n{self.formatException(record.exc_info)}" if record.exc_info else line


def configure(level: str, kind: str = "") -> None:
    """Configures all loggers: records of at least `level` go to stderr, and nowhere else.

    `kind` is json or text; if empty, text on a terminal and json otherwise.
    """
    text = kind == "text" or (not kind and sys.stderr.isatty())
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(TextFormatter() if text else JsonFormatter())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    for name in ("sanic.root", "sanic.server"):  # silences start and stop messages, which we log ourselves
        logging.getLogger(name).setLevel(logging.WARNING)


def detached_task(work: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
    """Starts a task outside the context of the current request, whose id its log lines must not carry.

    Nobody needs to await it: if it fails, that is logged when it happens.
    """
    task = asyncio.create_task(work, name=name, context=contextvars.Context())
    task.add_done_callback(_log_failure)
    return task


def endless_task(work: Callable[[], Coroutine[Any, Any, None]], name: str) -> asyncio.Task[None]:
    """Starts a detached task that runs until it is cancelled.

    If `work` fails or ends, that is logged and `work` is called again, after RESTART_S_MIN to RESTART_S_MAX.
    """
    return detached_task(_keep_running(work, name), name)


async def _keep_running(work: Callable[[], Coroutine[Any, Any, None]], name: str) -> None:
    clock = asyncio.get_running_loop().time
    delay_s = RESTART_S_MIN
    while True:
        started_s = clock()
        try:
            await work()
            log.error("the task %s has ended; it is started again", name)
        except Exception:
            log.exception("the task %s has failed; it is started again", name)
        delay_s = RESTART_S_MIN if clock() - started_s > RESTART_S_MAX else delay_s
        await asyncio.sleep(delay_s)
        delay_s = min(2 * delay_s, RESTART_S_MAX)


def _log_failure(task: asyncio.Task[None]) -> None:
    if not task.cancelled() and (error := task.exception()) is not None:
        log.error("the task %s has failed", task.get_name(), exc_info=error)
