"""OpenTelemetry traces: of the API's requests, of redirects through Sanic, of statements, of calls to Redis, of
deliveries of clicks and of moves.

They are an extra (`pip install 'snapurl[otel]'`) and off until OTEL_EXPORTER_OTLP_ENDPOINT says where to send them.
The library (`otel.py`) reads its own variables, in the words of its standard. Off, a span is a comparison.

A redirect that is answered ahead of Sanic has no span of its own: it would cost several times what the redirect
does. What it asks of Redis or a shard has. Work that is done for several requests at once (creates that come
together, a batch of clicks) is a trace of its own.
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
    """Whether this process is traced, and by what."""

    tracing: Tracing | None = None


_NONE: AbstractContextManager[Any] = nullcontext()


def configure(process: str) -> None:
    """Begins to trace this process ("worker", "clicks", "migrator"), if the environment asks for it.

    Raises ConfigError if the extra is missing, or the endpoint or protocol is none that it can serve.
    """
    endpoint = _first(ENDPOINTS)
    if (
        not endpoint
        or _first(("OTEL_SDK_DISABLED",)) == "true"
        or _first(("OTEL_TRACES_EXPORTER",)) == "none"
    ):
        return
    if not endpoint.startswith(("http://", "https://")):
        raise ConfigError("OTEL_EXPORTER_OTLP_ENDPOINT has to begin with http:// or https://")
    if (_first(PROTOCOLS) or PROTOCOL) != PROTOCOL:
        raise ConfigError(f"OTEL_EXPORTER_OTLP_PROTOCOL: only {PROTOCOL} is spoken")
    try:
        otel = import_module("snapurl.telemetry.otel")
    except ImportError:
        raise ConfigError(
            "OTEL_EXPORTER_OTLP_ENDPOINT is set, and traces need an extra: pip install 'snapurl[otel]'"
        ) from None
    _Switch.tracing = otel.Tracing(process)


def end() -> None:
    """Sends what waits; bounded, since no collector may hold up the end of a process."""
    tracing, _Switch.tracing = _Switch.tracing, None
    if tracing is not None:
        tracing.end()


def span(
    name: str, kind: Kind = "internal", attributes: Mapping[str, Any] | None = None
) -> AbstractContextManager[Any]:
    """What is inside, as a span under the current one; None is entered where nothing is traced."""
    tracing = _Switch.tracing
    return _NONE if tracing is None else tracing.span(name, kind, attributes)


def request_span(
    name: str, headers: Mapping[str, str], attributes: Mapping[str, Any]
) -> AbstractContextManager[Any]:
    """A request, under the span that its client names in `traceparent`, if it does."""
    tracing = _Switch.tracing
    return _NONE if tracing is None else tracing.span(name, "server", attributes, headers)


def answered(entered: Any, status: int) -> None:
    """Tells the span of a request, as it was entered, what the answer is."""
    if entered is not None and _Switch.tracing is not None:
        _Switch.tracing.answered(entered, status)


def trace_id() -> str:
    """That of the current span, as 32 hexadecimal digits; empty where there is none."""
    tracing = _Switch.tracing
    return "" if tracing is None else tracing.trace_id()


def _first(names: tuple[str, ...]) -> str:
    return next((value for name in names if (value := os.environ.get(name, "").strip())), "")
