"""Log lines."""

from __future__ import annotations

import json
import logging
import sys

from snapurl.telemetry.logs import REQUEST_ID, JsonFormatter


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
