"""deploy/proxy under HAProxy: replicas found by DNS, no request sent twice, clients distinguished."""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import signal
import socket
import ssl
import sys
from asyncio import StreamReader, StreamWriter
from asyncio.subprocess import Process
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
import trustme

from snapurl.config import Settings
from snapurl.http.schema.responses import TYPE_PREFIX
from snapurl.local.free_ports import free_port
from snapurl.tasks import cancel_and_wait
from tests.integration.http.service import Worker, environ_of, new_worker
from tests.integration.tools.conftest import ready
from tests.support.deployed import ROOT, composed, environ
from tests.support.requirements import program, requires
from tests.support.waits import HANG_S, unless_hung, until

__all__ = ["ready"]

HAPROXY = program("haproxy")
pytestmark = requires("haproxy")


@dataclass
class Names(asyncio.DatagramProtocol):
    """A name server with the addresses of one service, like Docker's."""

    addresses: list[str] = field(default_factory=list)
    transport: Any = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        """Answers a query for A records; there are no others."""
        end = data.index(0, 12) + 5
        found = self.addresses if data[end - 4 : end - 2] == b"\0\1" else []
        head = data[:2] + b"\x81\x80\0\1" + len(found).to_bytes(2) + b"\0\0\0\0"
        records = (b"\xc0\x0c\0\1\0\1\0\0\0\1\0\4" + socket.inet_aton(address) for address in found)
        self.transport.sendto(head + data[12:end] + b"".join(records), addr)


@dataclass
class Replica:
    """An HTTP server that counts. `answer` returns the response to a request, or None to disconnect at once."""

    address: str
    port: int
    answer: Callable[[str, str], Awaitable[bytes | None]] | None = None
    asked: list[tuple[str, str]] = field(default_factory=list)
    connections: int = 0
    heads: list[str] = field(default_factory=list)
    server: asyncio.Server | None = None
    writers: set[StreamWriter] = field(default_factory=set)

    async def start(self) -> None:
        self.server = await asyncio.start_server(self._serve, self.address, self.port)

    async def stop(self) -> None:
        if self.server is not None:
            self.server.close()
            for writer in self.writers:
                writer.close()
            self.server = None

    async def _serve(self, reader: StreamReader, writer: StreamWriter) -> None:
        self.writers.add(writer)
        seen = False
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode()
                method, path, _ = head.split(" ", 2)
                lengths = [
                    line.split(":")[1]
                    for line in head.lower().splitlines()
                    if line.startswith("content-length")
                ]
                await reader.readexactly(int(lengths[0]) if lengths else 0)
                if path != "/health/live":
                    self.connections += not seen
                    seen = True
                    self.asked.append((method, path))
                    self.heads.append(head)
                body: bytes | None = self.address.encode()
                if self.answer is not None and path != "/health/live":
                    body = await self.answer(method, path)
                if body is None:
                    break
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            self.writers.discard(writer)
            writer.close()


@dataclass
class Front:
    """The proxy, the name server that it queries, and the ports of both."""

    names: Names
    upstream_port: int
    port: int
    tls_port: int
    health_port: int
    replicas: list[Replica] = field(default_factory=list)

    async def replica(self, number: int, **how: object) -> Replica:
        made = Replica(f"127.0.0.{number}", self.upstream_port, **how)  # type: ignore[arg-type]
        await made.start()
        self.replicas.append(made)
        self.names.addresses.append(made.address)
        return made

    async def healthy(self) -> bool:
        try:
            async with httpx.AsyncClient() as client:
                return (await client.get(f"http://127.0.0.1:{self.health_port}/")).status_code == 200
        except httpx.HTTPError:
            return False

    def client(self, **how: object) -> httpx.AsyncClient:
        return httpx.AsyncClient(base_url=f"http://127.0.0.1:{self.port}", timeout=HANG_S, **how)  # type: ignore[arg-type]

    async def say(self, raw: bytes) -> bytes:
        """Sends raw bytes and returns all bytes received until the proxy closes the connection."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        try:
            writer.write(raw)
            return await asyncio.wait_for(reader.read(), HANG_S)
        finally:
            writer.close()


@asynccontextmanager
async def proxy(log: Path, which: str = "plain", **variables: str) -> AsyncIterator[Front]:
    """Runs HAProxy with the files and variables of its service, on ports of this machine."""
    loop = asyncio.get_running_loop()
    transport, names = await loop.create_datagram_endpoint(Names, ("127.0.0.1", 0))
    ports: list[int] = []
    for _ in range(4):
        ports.append(free_port(set(ports)))
    front = Front(names, ports[0], ports[1], ports[2], ports[3])
    place = ROOT / "deploy/proxy"
    with log.open("wb") as out:
        assert HAPROXY is not None
        process = await asyncio.create_subprocess_exec(
            *(HAPROXY, "-db", "-f", str(place / "haproxy.cfg"), "-f", str(place / f"{which}.cfg")),
            env={
                **os.environ,
                **environ(composed()["services"]["proxy"]),
                "DNS": "127.0.0.1:{}".format(transport.get_extra_info("sockname")[1]),
                "CONNECTIONS_MAX": "500",
                "API": f"api:{front.upstream_port}",
                "LISTEN": f"127.0.0.1:{front.port}",
                "LISTEN_TLS": f"127.0.0.1:{front.tls_port}",
                "LISTEN_HEALTH": f"127.0.0.1:{front.health_port}",
                **variables,
            },
            stdout=out,
            stderr=out,
        )
    try:

        async def listens() -> bool:
            assert process.returncode is None, log.read_text()
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", front.health_port)
            except OSError:
                return False
            writer.close()
            return True

        await until(listens)
        yield front
    finally:
        if process.returncode is None:
            process.terminate()
        await process.wait()
        transport.close()
        for replica in front.replicas:
            await replica.stop()


# -- replicas -----------------------------------------------------------------------------------------------------


async def test_replicas_come_and_go_while_requests_go_on(tmp_path: Path) -> None:
    """No read or write fails while one replica is stopped and one added; the new one gets its share."""
    async with proxy(tmp_path / "log") as front, front.client() as client:
        assert not await front.healthy()
        answer = await client.get("/nobody-there")
        assert answer.status_code == 503 and answer.headers["retry-after"] == "1"
        assert answer.json()["type"] == f"{TYPE_PREFIX}unavailable"
        first, second = await front.replica(2), await front.replica(3)

        async def asked_both() -> bool:
            if await front.healthy():
                assert (await client.get("/x")).status_code == 200
            return bool(first.asked and second.asked)

        await until(asked_both)
        await first.stop()  # without notice: the proxy still considers it healthy
        third = await front.replica(4)
        sent = 0

        async def asked_third() -> bool:
            nonlocal sent
            for method in ("GET", "POST"):
                sent += 1
                answer = await client.request(method, f"/{sent}", content=b"{}" if method == "POST" else b"")
                assert (answer.status_code, answer.text) in ((200, "127.0.0.3"), (200, "127.0.0.4"))
            await asyncio.sleep(0.02)
            return len(third.asked) > 10

        await until(asked_third)
        front.names.addresses.remove("127.0.0.2")
        front.names.addresses.remove("127.0.0.3")

        async def only_third() -> bool:
            answers = [await client.get("/only") for _ in range(20)]
            assert all(answer.status_code == 200 for answer in answers)
            return {answer.text for answer in answers} == {"127.0.0.4"}

        await until(only_third)
        posts = [path for replica in (second, third) for method, path in replica.asked if method == "POST"]
        assert sorted(posts) == sorted(f"/{number}" for number in range(2, sent + 1, 2))


async def test_what_was_sent_is_not_sent_again(tmp_path: Path) -> None:
    """If a replica disconnects without an answer, the client gets an error and the request is not resent."""

    async def dies(method: str, path: str) -> bytes | None:
        return None if path == "/die" else b"ok"

    async with proxy(tmp_path / "log") as front, front.client() as client:
        replicas = [await front.replica(number, answer=dies) for number in (2, 3)]
        await until(front.healthy)
        body = b'{"url": "https://example.org/"}'
        for count, method in enumerate(("POST", "PATCH", "DELETE", "POST", "POST", "POST"), 1):
            if count % 2:
                async with front.client() as fresh:
                    answer = await fresh.request(method, "/die", content=body)
                assert answer.status_code == 502
                assert answer.json()["type"] == f"{TYPE_PREFIX}outcome-unknown"
            else:
                assert (await client.get("/warm")).status_code == 200
                with suppress(httpx.RemoteProtocolError):  # a kept connection may be closed instead
                    assert (await client.request(method, "/die", content=body)).status_code == 502
            assert [path for replica in replicas for _, path in replica.asked].count("/die") == count


async def test_connections_to_replicas_are_kept(tmp_path: Path) -> None:
    """A hundred requests share a few connections to a replica; X-Forwarded-For ends with the client's address."""
    async with proxy(tmp_path / "log") as front:
        replica = await front.replica(2)
        await until(front.healthy)
        async with front.client() as client:
            for number in range(100):
                headers = {
                    "X-Forwarded-For": "6.6.6.6, 7.7.7.7",
                    "Forwarded": "for=6.6.6.6",
                    "X-Number": str(number),
                }
                assert (await client.get("/x", headers=headers)).status_code == 200
    assert len(replica.asked) == 100 and replica.connections < 10
    for head in replica.heads:
        hops = [
            line.partition(": ")[2]
            for line in head.splitlines()
            if line.lower().startswith("x-forwarded-for")
        ]
        assert ",".join(hops).split(",")[-1].strip() == "127.0.0.1"
        assert "\nforwarded:" not in head.lower()


# -- replicas that come and go ------------------------------------------------------------------------------------


@asynccontextmanager
async def whole_service(ready: Settings, address: str, port: int, log: Path) -> AsyncIterator[Process]:
    """Runs `snapurl serve` with one worker on that address, and stops it by SIGTERM."""
    delay_s = environ(composed()["services"]["api"])["SNAPURL_STOP_DELAY_S"]
    variables = {"SNAPURL_HOST": address, "SNAPURL_PORT": str(port), "SNAPURL_WORKERS": "1"}
    variables |= {"SNAPURL_BASE_URL": f"https://{address}", "SNAPURL_STOP_DELAY_S": delay_s}
    with log.open("ab") as out:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "snapurl", "serve"),
            env=environ_of(ready, **variables, SNAPURL_PROXIES="127.0.0.1"),
            stdout=out,
            stderr=out,
        )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.send_signal(signal.SIGTERM)
        assert await unless_hung(process.wait()) == 0, log.read_text()


@pytest.mark.long
async def test_replicas_that_stop_and_start_cost_no_request(ready: Settings, tmp_path: Path) -> None:
    """While one of two replicas is stopped and started in an orderly way, every redirect and create succeeds."""
    log = tmp_path / "service.log"
    failed: list[str] = []
    created: Counter[str] = Counter()  # by replica

    async def visit(client: httpx.AsyncClient, path: str) -> None:
        for number in itertools.count():
            if (answer := await client.get(path)).status_code != 302:
                failed.append(f"{path}: {answer.status_code} {answer.text}")
            answer = await client.post("/api/v1/links", json={"url": f"https://example.org/{number}"})
            if answer.status_code != 201:
                failed.append(f"create: {answer.status_code} {answer.text}")
            created[answer.json().get("short_url", "").split("/")[2]] += 1
            await asyncio.sleep(0.02)

    async def until_more(created_by: Callable[[], int]) -> None:
        until_count = created_by() + 50
        await until(lambda: created_by() >= until_count or any(task.done() for task in visits))

    async with proxy(tmp_path / "log") as front, front.client() as client:
        front.names.addresses += ["127.0.0.2", "127.0.0.3"]
        async with whole_service(ready, "127.0.0.2", front.upstream_port, log):

            async def works() -> bool:
                return (await client.get("/health/ready")).status_code == 200

            await until(works)
            made = await client.post("/api/v1/links", json={"url": "https://example.org/"})
            visits = [asyncio.create_task(visit(client, f"/{made.json()['code']}")) for _ in range(8)]
            for _ in range(2):
                async with whole_service(ready, "127.0.0.3", front.upstream_port, log):
                    await until_more(lambda: created["127.0.0.3"])
                await until_more(created.total)
            await cancel_and_wait(*visits)
    assert failed == []
    assert all(task.cancelled() for task in visits)


# -- bounds -------------------------------------------------------------------------------------------------------


async def test_what_is_too_large_does_not_get_in(tmp_path: Path) -> None:
    """The proxy refuses bodies (by their Content-Length) and heads above the bounds."""
    async with proxy(tmp_path / "log", BODY_BYTES_MAX="1000") as front, front.client() as client:
        await front.replica(2)
        await until(front.healthy)
        assert (await client.post("/x", content=b"x" * 1000)).status_code == 200
        answer = await client.post("/x", content=b"x" * 1001)
        assert answer.status_code == 413 and answer.json()["type"] == f"{TYPE_PREFIX}too-large"
        assert answer.headers["content-type"] == "application/problem+json"
        raw = b"POST /x HTTP/1.1\r\nHost: x\r\nContent-Length: 4000000000\r\n\r\n"
        assert (await front.say(raw)).startswith(b"HTTP/1.1 413")
        assert (await client.get("/x", headers={"X-Long": "x" * 16_000})).status_code == 200
        assert (await client.get("/x", headers={"X-Long": "x" * 30_000})).status_code == 400
        for raw in (
            b"GET /x HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello!",
            b"GET /x HTTP/1.1\r\nHost: x\r\nContent-Length : 5\r\n\r\nhello",
        ):
            assert (await front.say(raw)).startswith(b"HTTP/1.1 400")


async def test_metrics_are_not_behind_the_proxy(ready: Settings, tmp_path: Path) -> None:
    """No spelling of /metrics reaches the metrics of the service through the proxy, nor on its public port."""
    async with service_behind(ready, tmp_path) as (front, worker):
        for path in (
            "/metrics",
            "/metrics/",
            "//metrics",
            "/./metrics",
            "/x/../metrics",
            "/%6Detrics",
            "/METRICS",
            "/metrics;x",
            "http://x/metrics",
        ):
            raw = f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode()
            for said in (await front.say(raw), await worker.say(raw)):
                assert b"snapurl_" not in said, path


# -- clients ------------------------------------------------------------------------------------------------------


@asynccontextmanager
async def service_behind(
    ready: Settings, directory: Path, **variables: str
) -> AsyncIterator[tuple[Front, Worker]]:
    """Runs a worker behind the proxy and has it trust the proxy, which is 127.0.0.1; clients are not."""
    async with proxy(directory / "log") as front:
        found = environ_of(ready, SNAPURL_PROXIES="127.0.0.1", **variables)
        worker = new_worker(found, directory, front.upstream_port)
        try:
            await worker.start()
            front.names.addresses.append("127.0.0.1")
            await until(front.healthy)
            yield front, worker
        finally:
            await worker.stop()
            worker.close()


async def test_a_forged_address_does_not_fool_the_limits(ready: Settings, tmp_path: Path) -> None:
    """A client that guesses codes is refused whatever it sends in X-Forwarded-For; other clients are not."""
    async with service_behind(ready, tmp_path, SNAPURL_LIMIT_MISSING="5/minute") as (front, _):
        async with front.client(transport=httpx.AsyncHTTPTransport(local_address="127.0.0.8")) as client:
            statuses = []
            for number in range(12):
                forged = {"X-Forwarded-For": f"203.0.113.{number}", "Forwarded": f"for=203.0.113.{number}"}
                forged["X-Real-IP"] = f"203.0.113.{number}"
                statuses.append((await client.get(f"/none-{number}", headers=forged)).status_code)
            assert statuses.count(404) == 5 and statuses[-1] == 429
            two = [("X-Forwarded-For", "203.0.113.77"), ("X-Forwarded-For", "203.0.113.78")]
            assert (await client.get("/none", headers=two)).status_code == 429
        other = httpx.AsyncHTTPTransport(local_address="127.0.0.9")
        async with front.client(transport=other) as client:
            assert (await client.get("/none")).status_code == 404


async def test_the_service_works_through_the_proxy(ready: Settings, tmp_path: Path) -> None:
    """Through the proxy links are created and followed, errors are the service's, and the largest body passes."""
    async with (
        service_behind(ready, tmp_path, SNAPURL_LIMIT_MISSING="none") as (front, _),
        front.client() as client,
    ):
        made = await client.post("/api/v1/links", json={"url": "https://example.org/"})
        assert made.status_code == 201, made.text
        code = made.json()["code"]
        followed = await client.get(f"/{code}")
        assert followed.status_code == 302 and followed.headers["location"] == "https://example.org/"
        assert (await client.get("/no-such-link")).json()["detail"]
        padded = json.dumps({"links": [{"url": "https://example.org/"}]}).encode().ljust(4_194_304)
        assert (
            await client.post(
                "/api/v1/links/bulk", content=padded, headers={"Content-Type": "application/json"}
            )
        ).status_code == 200
        async with asyncio.timeout(HANG_S):

            async def chunks() -> AsyncIterator[bytes]:
                for _ in range(5):
                    yield b" " * 1_000_000

            measured = await client.post(
                "/api/v1/links", content=chunks(), headers={"Content-Type": "application/json"}
            )
        assert measured.status_code == 413


# -- one client against all others --------------------------------------------------------------------------------

GREEDY, MODEST = "127.0.0.8", "127.0.0.9"


@dataclass
class Held:
    """Connections of one client that send half a head, or nothing, and then only wait."""

    streams: list[tuple[StreamReader, StreamWriter]] = field(default_factory=list)
    refused: int = 0

    async def open(self, port: int, part: bytes) -> None:
        """Opens one more connection; the proxy may close it."""
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", port, local_addr=(GREEDY, 0))
        except ConnectionResetError:
            self.refused += 1
            return
        self.streams.append((reader, writer))
        with suppress(ConnectionError):
            writer.write(part)
            await writer.drain()

    async def closed(self) -> int:
        """Returns how many the proxy has closed without an answer."""
        count = self.refused
        for reader, _ in self.streams:
            with suppress(TimeoutError, ConnectionError):
                async with asyncio.timeout(0.001):
                    assert await reader.read(1) == b""
            count += reader.at_eof() or reader.exception() is not None
        return count

    def close(self) -> None:
        for _, writer in self.streams:
            writer.close()


@pytest.mark.parametrize("which", ["plain", "tls"])
async def test_held_connections_of_one_client_keep_nobody_out(tmp_path: Path, which: str) -> None:
    """Of half heads and idle connections of one address a part stays open; another address is answered."""
    authority = trustme.CA()
    certificate = tmp_path / "tls_certificate"
    certificate.write_bytes(authority.issue_cert("127.0.0.1").private_key_and_cert_chain_pem.bytes())
    bounds = {"CONNECTIONS_MAX": "60", "CLIENT_CONNECTIONS_MAX": "20", "CERTIFICATE": str(certificate)}
    context = ssl.create_default_context()
    authority.configure_trust(context)
    async with proxy(tmp_path / "log", which, **bounds) as front:
        await front.replica(2)
        await until(front.healthy)
        url = f"http://127.0.0.1:{front.port}" if which == "plain" else f"https://127.0.0.1:{front.tls_port}"
        held = Held()
        try:
            for number in range(80):
                part = b"" if number % 2 else b"GET /x HTTP/1.1\r\nHost: x\r\nX-Half: "
                await held.open(front.port if which == "plain" else front.tls_port, part)

            async def only_its_part_is_open() -> bool:
                return await held.closed() == 60

            await until(only_its_part_is_open)
            transport = httpx.AsyncHTTPTransport(local_address=MODEST, verify=context)
            async with httpx.AsyncClient(base_url=url, transport=transport, timeout=HANG_S) as client:
                assert (await client.get("/x")).text == "127.0.0.2"
            assert await held.closed() == 60
        finally:
            held.close()


async def test_a_client_that_connects_again_and_again_is_refused(tmp_path: Path) -> None:
    """Above its rate of new connections a client is refused, while another one is answered."""
    async with proxy(tmp_path / "log", CLIENT_CONNECTIONS_PER_10S_MAX="20") as front:
        await front.replica(2)
        await until(front.healthy)

        async def is_answered(address: str) -> bool:
            transport = httpx.AsyncHTTPTransport(local_address=address)
            async with front.client(transport=transport) as client:
                try:
                    return (await client.get("/x")).status_code == 200
                except httpx.TransportError:
                    return False

        async def is_refused() -> bool:
            return not await is_answered(GREEDY)

        assert await is_answered(GREEDY)
        await until(is_refused)
        assert await is_answered(MODEST)


async def test_a_proxy_in_front_is_not_one_client(tmp_path: Path) -> None:
    """Networks in PROXIES have as many connections as they like: all visitors share their addresses."""
    bounds = {"CLIENT_CONNECTIONS_MAX": "5", "PROXIES": f"192.0.2.0/24 {GREEDY}/32"}
    async with proxy(tmp_path / "log", **bounds) as front:
        await front.replica(2)
        await until(front.healthy)
        held = Held()
        try:
            for _ in range(20):
                await held.open(front.port, b"")
            transport = httpx.AsyncHTTPTransport(local_address=GREEDY)
            async with front.client(transport=transport) as client:
                assert (await client.get("/x")).status_code == 200
            assert await held.closed() == 0
        finally:
            held.close()


# -- TLS ----------------------------------------------------------------------------------------------------------


async def test_tls_at_the_proxy(tmp_path: Path) -> None:
    """With tls.cfg the proxy serves HTTPS with the certificate and HSTS, and redirects plain HTTP to it."""
    authority = trustme.CA()
    certificate = tmp_path / "tls_certificate"
    made = authority.issue_cert("s.example.org", "127.0.0.1")
    certificate.write_bytes(made.private_key_and_cert_chain_pem.bytes())
    context = ssl.create_default_context()
    authority.configure_trust(context)
    async with proxy(tmp_path / "log", "tls", CERTIFICATE=str(certificate)) as front:
        await front.replica(2)
        await until(front.healthy)
        async with httpx.AsyncClient(verify=context) as client:
            answer = await client.get(f"https://127.0.0.1:{front.tls_port}/x")
            assert answer.status_code == 200 and answer.text == "127.0.0.2"
            refused = await client.get(f"https://127.0.0.1:{front.tls_port}/metrics")
            for each in (answer, refused):
                assert each.headers["strict-transport-security"] == "max-age=31536000"
        async with front.client() as client:
            answer = await client.get("/x?y=1", headers={"Host": "s.example.org"})
            assert answer.status_code == 308 and answer.headers["location"] == "https://s.example.org/x?y=1"
            assert "strict-transport-security" not in answer.headers
