"""Logs: one line per record on stderr, with the request it belongs to; JSON for programs, text for people."""

from __future__ import annotations

import asyncio
import contextvars
import json
import logging
import sys
from collections.abc import Coroutine
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Any

from snapurl.telemetry.traces import trace_id

REQUEST_ID: ContextVar[str] = ContextVar("request_id", default="")
MOVE: ContextVar[str] = ContextVar("move", default="")

# What else a line can be found by: the attempt to move slots, the entry of the click stream, and where it was.
NAMES = ("move", "shipment", "shard", "slot")


def names_of(record: logging.LogRecord) -> dict[str, Any]:
    """What a record can be found by: request and move, from the context or as told, and what else it names."""
    request_id = getattr(record, "request_id", "") or REQUEST_ID.get()
    found = {"request_id": request_id, "move": MOVE.get(), "trace_id": trace_id()}
    found |= {name: value for name in NAMES if (value := getattr(record, name, "")) != ""}
    return {name: value for name, value in found.items() if value != ""}


class JsonFormatter(logging.Formatter):
    """time, level, logger, message; request_id, move, trace_id, shipment, shard, slot, stack where it has them."""

    def format(self, record: logging.LogRecord) -> str:
        line = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **names_of(record),
        }
        if record.exc_info:
            line["stack"] = self.formatException(record.exc_info)
        return json.dumps(line)


class TextFormatter(logging.Formatter):
    """Local time, level, logger, message and the names; a stack follows on lines of its own."""

    def format(self, record: logging.LogRecord) -> str:
        at = datetime.fromtimestamp(record.created).astimezone()
        message = record.getMessage().encode("unicode_escape").decode()  # a client may have sent line breaks
        names = "".join(f" {name}={value}" for name, value in names_of(record).items())
        when = f"{at:%H:%M:%S}.{at.microsecond // 1000:03}"
        line = f"{when} {record.levelname.lower()} {record.name}: {message}{names}"
        return f"{line}\n{self.formatException(record.exc_info)}" if record.exc_info else line


def configure(level: str, kind: str = "") -> None:
    """Sends every logger's lines of at least `level` to stderr, and nothing anywhere else.

    `kind` is json or text; empty: text on a terminal, else json.
    """
    text = kind == "text" or (not kind and sys.stderr.isatty())
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(TextFormatter() if text else JsonFormatter())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    for name in ("sanic.root", "sanic.server"):  # start and stop notices that ours say already
        logging.getLogger(name).setLevel(logging.WARNING)


def detached_task(work: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
    """A task for everybody: it does not go by the id of the request that happened to begin it."""
    return asyncio.create_task(work, name=name, context=contextvars.Context())
