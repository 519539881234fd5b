"""Look-ups of host names while a name server is slow or silent."""

from __future__ import annotations

import asyncio
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator

import pytest

from snapurl.host_names import resolve_host
from tests.support.waits import HANG_S, unless_hung

GETADDRINFO = socket.getaddrinfo


class NameServer:
    """Answers no look-up of a name that ends in `.silent` before it is told to."""

    def __init__(self) -> None:
        self.may_answer = threading.Event()
        self.asked: list[str] = []

    def __call__(self, host: str, *args: object, **options: object) -> object:
        if str(host).endswith(".silent"):
            self.asked.append(host)
            self.may_answer.wait(HANG_S)
            raise socket.gaierror(socket.EAI_AGAIN, "try again")
        return GETADDRINFO(host, *args, **options)  # type: ignore[arg-type]


@pytest.fixture
def silent(monkeypatch: pytest.MonkeyPatch) -> Iterator[NameServer]:
    server = NameServer()
    monkeypatch.setattr(socket, "getaddrinfo", server)
    yield server
    server.may_answer.set()


async def test_callers_share_a_look_up_and_wait_no_longer_than_they_want(silent: NameServer) -> None:
    """While a name is not answered, each caller gives up after its own time, and the name is asked for once."""
    tries = (resolve_host("db0.silent", 0.05) for _ in range(50))
    found = await unless_hung(asyncio.gather(*tries, return_exceptions=True))
    assert all(isinstance(error, socket.gaierror) for error in found)
    assert silent.asked == ["db0.silent"]


async def test_silent_names_do_not_delay_others(silent: NameServer) -> None:
    """A known name is found while more names than any loop has threads are not answered."""
    waiting = [asyncio.create_task(resolve_host(f"slow{n}.silent", HANG_S)) for n in range(40)]
    await asyncio.sleep(0)
    await unless_hung(resolve_host("localhost", HANG_S))
    assert not any(task.done() for task in waiting)
    silent.may_answer.set()
    answers = await unless_hung(asyncio.gather(*waiting, return_exceptions=True))
    assert all(isinstance(error, socket.gaierror) for error in answers)


async def test_addresses_and_sockets_are_not_looked_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """An address of either family and a socket directory need no name server; a malformed name is an error."""
    monkeypatch.setattr(socket, "getaddrinfo", None)
    for host in ("127.0.0.1", "::1", "fe80::1%eth0", "/run/postgresql", ""):
        await resolve_host(host, 1.0)
    monkeypatch.undo()
    with pytest.raises(socket.gaierror):
        await unless_hung(resolve_host("x" * 64 + ".example", HANG_S))


PROGRAM = """
import asyncio, socket, threading
from snapurl.config import load_settings
from snapurl.errors import ConfigError
from snapurl.redis_client import redis_client
from snapurl.run.healthcheck import Address, http_status
from snapurl.store.cluster.shards import read_topology

socket.getaddrinfo = lambda *args, **options: threading.Event().wait()

async def ask():
    settings = load_settings(
        shards="db0=postgresql://u:p@db0.silent/x", redis_url="redis://redis.silent/0", statement_timeout_ms=50
    )
    client = redis_client(settings, 0.05)
    answer = asyncio.wait_for(http_status(Address("api.silent", 80), "/"), 0.05)
    for question in (read_topology(settings), client.ping(), answer):
        try:
            await question
        except Exception as error:
            print(type(error).__name__)

asyncio.run(ask())
"""


def test_a_process_ends_while_a_look_up_is_under_way() -> None:
    """A program that has asked for a shard, Redis and the service by names that nobody answers can end."""
    ended = subprocess.run(
        [sys.executable, "-c", PROGRAM], check=True, capture_output=True, text=True, timeout=HANG_S
    )
    assert ended.stdout.split() == ["ConfigError", "ConnectionError", "TimeoutError"]
    assert "retrieved" not in ended.stderr
