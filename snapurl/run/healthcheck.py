"""Checks over HTTP whether the service is ready, and whose it is, for `snapurl health` and `snapurl up`."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass
from urllib.parse import urlsplit

from snapurl.config import Settings
from snapurl.errors import SnapURLError
from snapurl.host_names import resolve_host
from snapurl.store.cluster.shards import read_topology
from snapurl.urls import host_from_here, host_in_url

ANSWER_BYTES_MAX = 65_536
ANSWER_S_MAX = 3.0
"""Longer than /health/ready takes while a shard does not answer."""


async def service_fault(settings: Settings, cluster: Settings | None) -> str | None:
    """Returns why the HTTP service of these settings is not ready; None if it is.

    It must be the service of `cluster`, unless that is None or none of its shards answers.
    """
    address = own_address(settings)
    status, body = await _get(address, "/health/ready")
    if status != 200:
        return f"/health/ready: {status or 'no answer'}"
    if cluster is None:
        return None
    try:
        own = (await read_topology(cluster)).cluster_id
    except SnapURLError:
        return None
    found = _cluster_id(body)
    return None if found == own else f"{address.url} is the service of another cluster ({found or 'unknown'})"


def _cluster_id(body: bytes) -> str:
    try:
        return str(json.loads(body)["cluster_id"])
    except (ValueError, KeyError, TypeError):
        return ""


@dataclass(frozen=True, slots=True)
class Address:
    """Where an HTTP service listens."""

    host: str
    port: int
    tls: bool = False

    @classmethod
    def of_url(cls, url: str) -> Address:
        """Parses a URL such as `http://api:8000`. Raises ValueError."""
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.path.strip("/"):
            raise ValueError("is not a URL such as http://api:8000")
        tls = parts.scheme == "https"
        return cls(parts.hostname, parts.port or (443 if tls else 80), tls)

    @property
    def url(self) -> str:
        """The URL of this address, which is reached from the same machine if it is any address of it."""
        return f"http{'s' if self.tls else ''}://{host_in_url(host_from_here(self.host))}:{self.port}"


def own_address(settings: Settings) -> Address:
    """Returns the address that reaches the service of these settings from the same machine."""
    return Address(settings.local_host, settings.port)


async def http_status(address: Address, path: str, request_id: str = "") -> int:
    """Sends a GET; returns the HTTP status, or 0 without an answer within ANSWER_S_MAX.

    `request_id` becomes the request id in the logs of the service.
    """
    return (await _get(address, path, request_id))[0]


async def _get(address: Address, path: str, request_id: str = "") -> tuple[int, bytes]:
    """As `http_status`; returns the body too, both together up to ANSWER_BYTES_MAX."""
    header = f"X-Request-ID: {request_id}\r\n" if request_id else ""
    host = host_in_url(address.host)
    head = f"GET {path} HTTP/1.1\r\nHost: {host}\r\n{header}Connection: close\r\n\r\n"
    try:
        async with asyncio.timeout(ANSWER_S_MAX):
            await resolve_host(address.host, ANSWER_S_MAX)
            reader, writer = await asyncio.open_connection(
                address.host, address.port, ssl=address.tls or None
            )
            try:
                writer.write(head.encode())
                answer = await _read_all(reader)
            finally:
                writer.close()
    except (OSError, TimeoutError):
        return 0, b""
    words = answer.partition(b"\r\n")[0].split()
    status = int(words[1]) if len(words) > 1 and words[1].isdigit() else 0
    return status, answer.partition(b"\r\n\r\n")[2]


async def _read_all(reader: asyncio.StreamReader) -> bytes:
    answer = b""
    while len(answer) < ANSWER_BYTES_MAX and (part := await reader.read(ANSWER_BYTES_MAX)):
        answer += part
    return answer
