"""OpenTelemetry traces as a collector receives them."""

from __future__ import annotations

import asyncio
import gzip
import json
import sys
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from snapurl.config import Settings
from snapurl.errors import ConfigError
from snapurl.keys import create_key
from snapurl.local.free_ports import free_port
from snapurl.telemetry import traces
from tests.integration.store.conftest import Store
from tests.integration.test_secrets import program
from tests.integration.tools.conftest import add_fifth, fifth, five, new_link, ready, store
from tests.support.waits import BUSY_S, HANG_S, until

__all__ = ["fifth", "five", "new_link", "ready", "store"]

DESTINATION = "https://nobody-may-see-this.example/"
TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
PARENT = "00f067aa0ba902b7"


@dataclass
class Collector:
    """A collector on loopback for OTLP over HTTP, and the requests it received."""

    url: str = ""
    raw: list[bytes] = field(default_factory=list)

    async def take(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
                length = int(head.partition("content-length: ")[2].partition("\r\n")[0])
                body = await reader.readexactly(length)
                self.raw.append(gzip.decompress(body) if "content-encoding: gzip" in head else body)
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

    @property
    def spans(self) -> list[tuple[str, Any]]:
        """Returns (process, span) for all received spans."""
        found = []
        for raw in self.raw:
            for resource in ExportTraceServiceRequest.FromString(raw).resource_spans:
                named = {each.key: each.value.string_value for each in resource.resource.attributes}
                assert named["service.name"] == "snapurl"
                found += [
                    (named["snapurl.process"], span) for scope in resource.scope_spans for span in scope.spans
                ]
        return found

    def named(self, process: str, beginning: str) -> list[Any]:
        return [span for its, span in self.spans if its == process and span.name.startswith(beginning)]

    def under(self, parent: Any) -> list[Any]:
        """Returns the children of a span, in order."""
        found = [span for _, span in self.spans if span.parent_span_id == parent.span_id]
        return sorted(found, key=lambda span: span.start_time_unix_nano)


def attributes_of(span: Any) -> dict[str, Any]:
    return {each.key: each.value.string_value or each.value.int_value for each in span.attributes}


@asynccontextmanager
async def collecting() -> AsyncIterator[Collector]:
    collector = Collector()
    server = await asyncio.start_server(collector.take, "127.0.0.1", 0)
    host, port = server.sockets[0].getsockname()
    collector.url = f"http://{host}:{port}"
    async with server:
        yield collector


@asynccontextmanager
async def traced(settings: Settings, log: Path, collector_url: str) -> AsyncIterator[httpx.AsyncClient]:
    """Runs a service of one worker, a click consumer and a migrator that send their spans to `collector_url`."""
    port = free_port(set())
    url = f"http://127.0.0.1:{port}"
    tracing = {"OTEL_EXPORTER_OTLP_ENDPOINT": collector_url, "OTEL_BSP_SCHEDULE_DELAY": "100"}
    key = await create_key(settings, "admin", ("create", "read", "change", "admin"), "none")
    async with AsyncExitStack() as stack:
        enter = stack.enter_async_context
        http = {"SNAPURL_PORT": str(port), "SNAPURL_WORKERS": "1"}
        await enter(program(settings, log, "snapurl", "serve", **http, **tracing))
        await enter(program(settings, log, "snapurl", "clicks", **tracing))
        await enter(program(settings, log, "tools.cli", "run", **tracing))
        api = await enter(httpx.AsyncClient(base_url=url, headers={"X-Api-Key": key}, timeout=HANG_S))

        async def is_ready() -> bool:
            try:
                return (await api.get("/health/ready")).status_code == 200
            except httpx.HTTPError:
                return False

        await until(is_ready)
        yield api


async def test_a_request_a_batch_of_clicks_and_a_move_are_traced(
    ready: Settings, five: Settings, fifth: str, store: Store, tmp_path: Path
) -> None:
    """A client's trace continues through the service to the shard. Consumer and migrator
    have separate traces, with the steps of the hand-off in order. Log lines name the trace; no span contains the
    URL of a link."""
    log = tmp_path / "everything.log"
    async with collecting() as collector, traced(five, log, collector.url) as api:
        parent = {"traceparent": f"00-{TRACE}-{PARENT}-01"}
        made = await api.post("/api/v1/links", json={"url": DESTINATION})
        code = made.json()["code"]
        read = await api.get(f"/api/v1/links/{code}", headers=parent)
        assert read.status_code == 200
        assert (await api.get(f"/{code}", headers={"Upgrade": "websocket"})).status_code == 302
        assert (await api.get("/api/v1/links/none-such")).status_code == 404
        await (await add_fifth(ready, five, fifth, 0.2)).close()

        async def all_came() -> bool:
            ends = [
                step.name for move in collector.named("migrator", "move") for step in collector.under(move)
            ]
            return "step release" in ends and bool(collector.named("clicks", "clicks"))

        await until(all_came)
        (of_client,) = [span for _, span in collector.spans if span.parent_span_id.hex() == PARENT]
        assert of_client.name == "GET /api/v1/links/{code}" and of_client.trace_id.hex() == TRACE
        told = attributes_of(of_client)
        assert told["http.response.status_code"] == 200
        assert told["snapurl.request_id"] == read.headers["x-request-id"]
        (asked,) = [span for span in collector.under(of_client) if span.name.startswith("postgresql db")]
        assert asked.trace_id.hex() == TRACE and "SELECT" in attributes_of(asked)["db.query.text"].upper()
        statuses = [
            attributes_of(span)["http.response.status_code"] for span in collector.named("worker", "GET /")
        ]
        assert {302, 404} <= set(statuses)
        assert collector.named("worker", "POST /api/v1/links") and collector.named("worker", "redis ")
        steps = [step.name for step in collector.under(collector.named("migrator", "move")[0])]
        assert steps.index("step copy") < steps.index("step freeze") < steps.index("step commit")
        (applied,) = collector.named("clicks", "clicks")[:1]
        assert [span.name[:10] for span in collector.under(applied)] == ["postgresql"] * 2
        assert not any(DESTINATION.encode() in raw or code.encode() in raw for raw in collector.raw)
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    assert any(line.get("trace_id") == TRACE for line in lines)


async def test_a_collector_that_is_not_there_harms_nobody(
    ready: Settings, store: Store, tmp_path: Path
) -> None:
    """If the collector is down, a service works and stops normally; its log names it without a stack trace."""
    log = tmp_path / "everything.log"
    async with traced(ready, log, f"http://127.0.0.1:{free_port(set())}") as api:
        for _ in range(20):
            assert (await api.post("/api/v1/links", json={"url": DESTINATION})).status_code == 201
        await asyncio.sleep(0.5)
        ending = time.monotonic()
    assert time.monotonic() - ending < 15 + BUSY_S
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    told = [line for line in lines if line["logger"].startswith("opentelemetry")]
    assert told and not any("stack" in line for line in told)
    assert not any("was killed" in line["message"] for line in lines)


@pytest.mark.parametrize(
    ("variables", "said"),
    [
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "localhost:4318"}, "must begin with http"),
        (
            {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://localhost:4317", "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"},
            "only http/protobuf",
        ),
    ],
)
async def test_what_cannot_be_traced_is_said_in_one_line(
    ready: Settings, tmp_path: Path, variables: dict[str, str], said: str
) -> None:
    """A program with an invalid traces endpoint does not start, and says why in one line."""
    log = tmp_path / "log"
    async with program(
        ready, log, "snapurl", "serve", SNAPURL_PORT=str(free_port(set())), **variables
    ) as one:
        assert await asyncio.wait_for(one.wait(), HANG_S) == 2
    assert said in log.read_text() and "Traceback" not in log.read_text()


def test_without_the_extra_it_is_said_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    """An endpoint without the packages is an error that says what to install; without one nothing is traced."""
    for name in ("snapurl.telemetry.otel", "opentelemetry.exporter.otlp.proto.http.trace_exporter"):
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.delenv("OTEL_EXPORTER_OTLP_ENDPOINT", raising=False)
    traces.configure("worker")
    with traces.span("nothing") as entered:
        assert entered is None and not traces.trace_id()
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1")
    with pytest.raises(ConfigError, match=r"pip install 'snapurl\[otel\]'"):
        traces.configure("worker")
