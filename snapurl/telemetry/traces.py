"""OpenTelemetry traces of API requests, redirects on Sanic's path, calls to shards and Redis, clicks and moves.

Traces are an extra (`pip install 'snapurl[otel]'`) and off unless OTEL_EXPORTER_OTLP_ENDPOINT is set. The library
(`otel.py`) reads the standard OTEL_* variables. While traces are off, a span costs one comparison.

A redirect on the fast path has no span of its own, which would cost several times as much as the redirect. Its
calls to Redis or a shard have spans. Work for several requests at once (a batch of creates, a batch of clicks) is
a trace of its own.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from importlib import import_module
from typing import TYPE_CHECKING, Any, Literal

from snapurl.errors import ConfigError

if TYPE_CHECKING:
    from snapurl.telemetry.otel import Tracing

PROTOCOL = "http/protobuf"
ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
PROTOCOLS = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")

POSTGRESQL = {"db.system.name": "postgresql"}
REDIS = {"db.system.name": "redis"}

Kind = Literal["server", "client", "internal"]


class _Switch:
    """The tracing of this process; None while traces are off."""

    tracing: Tracing | None = None


_NONE: AbstractContextManager[Any] = nullcontext()


def configure(process: str) -> None:
    """Turns traces on for this process ("worker", "clicks", "migrator") if the environment asks for them.

    Raises ConfigError if the extra is missing, or the endpoint or protocol is not supported.
    """
    endpoint = _first(ENDPOINTS)
    if (
        not endpoint
        or _first(("OTEL_SDK_DISABLED",)) == "true"
        or _first(("OTEL_TRACES_EXPORTER",)) == "none"
    ):
        return
    if not endpoint.startswith(("http://", "https://")):
        raise ConfigError("OTEL_EXPORTER_OTLP_ENDPOINT must begin with http:// or https://")
    if (_first(PROTOCOLS) or PROTOCOL) != PROTOCOL:
        raise ConfigError(f"OTEL_EXPORTER_OTLP_PROTOCOL: only {PROTOCOL} is supported")
    try:
        otel = import_module("snapurl.telemetry.otel")
    except ImportError:
        raise ConfigError(
            "OTEL_EXPORTER_OTLP_ENDPOINT is set, but traces need an extra: pip install 'snapurl[otel]'"
        ) from None
    _Switch.tracing = otel.Tracing(process)


def shut_down() -> None:
    """Sends the pending spans and turns traces off. Bounded: a collector must not delay the end of a process."""
    tracing, _Switch.tracing = _Switch.tracing, None
    if tracing is not None:
        tracing.shut_down()


def span(
    name: str, kind: Kind = "internal", attributes: Mapping[str, Any] | None = None
) -> AbstractContextManager[Any]:
    """Traces the block as a child of the current span; enters None while traces are off."""
    tracing = _Switch.tracing
    return _NONE if tracing is None else tracing.span(name, kind, attributes)


def request_span(
    method: str, route: str, request_id: str, headers: Mapping[str, str]
) -> AbstractContextManager[Any]:
    """Traces a request as a child of the client's span, if its `traceparent` header names one."""
    tracing = _Switch.tracing
    if tracing is None:
        return _NONE
    attributes = {"http.request.method": method, "http.route": route, "snapurl.request_id": request_id}
    return tracing.span(f"{method} {route}", "server", attributes, headers)


def set_status(entered: Any, status: int) -> None:
    """Sets the HTTP status of the response on a request's span, as it was entered."""
    if entered is not None and _Switch.tracing is not None:
        _Switch.tracing.set_status(entered, status)


def trace_id() -> str:
    """Returns the trace id of the current span as 32 hexadecimal digits; empty if there is none."""
    tracing = _Switch.tracing
    return "" if tracing is None else tracing.trace_id()


def _first(names: tuple[str, ...]) -> str:
    return next((value for name in names if (value := os.environ.get(name, "").strip())), "")
