"""The implementation of `traces.py`, and the only module that imports OpenTelemetry.

Spans carry names, shards, statements without their values, and kinds of errors: never a value, the URL of a link or
the text of an error, which may quote one. They wait in a queue of the library: 2,048, or OTEL_BSP_MAX_QUEUE_SIZE;
more are dropped. A thread of the library sends them, so a collector that does not answer delays no request.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.propagate import extract
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import Span, SpanKind, StatusCode, format_trace_id, get_current_span

FLUSH_S_MAX = 0.5  # for the last spans at the end of the process
HEADER_CHARS_MAX = 1_000  # of a header that is parsed for the client's span; a longer one is ignored
SERVER_FAULT = 500


class Tracing:
    """Makes the spans of this process and sends them to the collector."""

    def __init__(self, process: str) -> None:
        resource = Resource.create({"snapurl.process": process})
        if str(resource.attributes["service.name"]).startswith("unknown_service"):
            resource = resource.merge(Resource({"service.name": "snapurl"}))
        self._provider = TracerProvider(resource=resource, shutdown_on_exit=False)
        self._provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
        self._tracer = self._provider.get_tracer("snapurl")

    def shut_down(self) -> None:
        """Sends the pending spans, within FLUSH_S_MAX."""
        flush = threading.Thread(target=self._provider.shutdown, daemon=True)
        flush.start()
        flush.join(FLUSH_S_MAX)

    @contextmanager
    def span(
        self,
        name: str,
        kind: str,
        attributes: Mapping[str, str | int] | None,
        headers: Mapping[str, str] | None = None,
    ) -> Iterator[Span]:
        """Makes the block the current span; a child of the span that `headers` name, if they are given."""
        with self._tracer.start_as_current_span(
            name,
            context=None if headers is None else extract(_short(headers)),
            kind=SpanKind[kind.upper()],
            attributes=attributes,
            record_exception=False,
            set_status_on_exception=False,
        ) as entered:
            try:
                yield entered
            except Exception as error:
                _fail(entered, type(error).__name__)
                raise

    def set_status(self, entered: Span, status: int) -> None:
        """Sets the HTTP status of the response on a request's span."""
        entered.set_attribute("http.response.status_code", status)
        if status >= SERVER_FAULT:
            _fail(entered, str(status))

    def trace_id(self) -> str:
        """Returns the trace id of the current span; empty if there is none."""
        context = get_current_span().get_span_context()
        return format_trace_id(context.trace_id) if context.is_valid else ""


def _short(headers: Mapping[str, str]) -> dict[str, str]:
    """Returns the headers that OpenTelemetry may parse, and name in a log line."""
    return {name: value for name, value in headers.items() if len(value) <= HEADER_CHARS_MAX}


def _fail(entered: Span, kind: str) -> None:
    entered.set_attribute("error.type", kind)
    entered.set_status(StatusCode.ERROR)
