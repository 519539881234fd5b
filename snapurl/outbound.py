"""Requests to addresses that others choose: of targets whose title is wanted, and of the receivers of webhooks.

Theory. Whoever may change links or webhooks chooses the URL, so this is a request that strangers can aim. It goes
to public addresses alone, unless the deployment allows others: a name is looked up here, once, a name with an
address that is not allowed is refused, and the connection is made to the very address that was looked at, so that
no second answer of the name server counts. Nothing is connected to before that: not even how long a refusal takes
tells whether something listens inside. Redirects are not followed here; who follows one checks it as the first.

The bytes of an answer are bounded here, its time by the caller. Each request has a connection of its own.
"""

from __future__ import annotations

import asyncio
import io
import re
import ssl
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from email.message import Message
from functools import cache
from http.client import HTTPException, HTTPResponse, IncompleteRead
from ipaddress import IPv6Address, IPv6Network, ip_address
from urllib.parse import SplitResult, urlsplit

from snapurl.host_names import addresses_of
from snapurl.urls import DEFAULT_PORTS

PORT_MIN = 1_024  # besides 80 and 443: services of other protocols are below it
LOOKUP_S_MAX = 5.0
CHUNK_BYTES = 16_384

_HEAD_END = b"\r\n\r\n"
_INTERIM = re.compile(rb"HTTP/1\.[01] 1[0-9]{2}\b")

# Addresses that carry another one: a public one of these may lead to one that is not.
_CARRIERS = tuple(map(IPv6Network, ("::/96", "64:ff9b::/96", "64:ff9b:1::/48", "2001::/32", "2002::/16")))

Resolve = Callable[[str, int], Awaitable[Sequence[str]]]
"""Returns the addresses of a host. Raises OSError, UnicodeError."""


class TargetRefused(Exception):
    """The request is not made. The text says why of the server, and may be shown to whoever has chosen the URL."""


class TargetUnreachable(Exception):
    """Nothing that speaks HTTP answers. The text says of the server what happens instead."""


@dataclass(frozen=True, slots=True)
class OutboundResponse:
    """An answer, perhaps cut. `headers` have names in any case."""

    status: int
    headers: Message
    body: bytes


def is_public(address: str) -> bool:
    """Whether an IP address is on the public Internet, and stands for itself alone."""
    found = ip_address(address.partition("%")[0])
    if isinstance(found, IPv6Address):
        if found.ipv4_mapped is not None:
            found = found.ipv4_mapped
        elif any(found in network for network in _CARRIERS):
            return False
    return found.is_global and not found.is_multicast and not found.is_reserved


async def resolve(host: str, port: int) -> Sequence[str]:
    return await addresses_of(host, LOOKUP_S_MAX)


async def exchange(
    method: str,
    url: str,
    headers: Mapping[str, str],
    body: bytes,
    *,
    bytes_max: int,
    is_enough: Callable[[bytearray, int], bool],
    resolve: Resolve,
    is_allowed: Callable[[str], bool],
) -> OutboundResponse:
    """Returns what the server at a URL answers until it ends, or `is_enough`, or it has `bytes_max` bytes.

    `is_enough` gets all bytes so far, and where to look for what is new. Raises TargetRefused, TargetUnreachable.
    """
    parts = urlsplit(url)
    port = parts.port or DEFAULT_PORTS[parts.scheme]
    if port < PORT_MIN and port not in DEFAULT_PORTS.values():
        raise TargetRefused(f"has port {port}, where other protocols are")
    try:
        addresses = await resolve(parts.hostname or "", port)
    except (OSError, UnicodeError):
        raise TargetUnreachable("has a host name that is not known") from None
    if not addresses or not all(map(is_allowed, addresses)):
        raise TargetRefused("is not on the public Internet")
    head = _head(method, parts, headers, body)
    try:
        return _parse(await _send(parts, addresses[0], port, head + body, bytes_max, is_enough))
    except ssl.SSLCertVerificationError:
        raise TargetUnreachable("has a certificate that is not valid for it") from None
    except ConnectionRefusedError:
        raise TargetUnreachable("refuses connections") from None
    except (OSError, ssl.SSLError):
        raise TargetUnreachable("closes the connection") from None
    except (HTTPException, ValueError):
        raise TargetUnreachable("does not answer as a web server does") from None


def _head(method: str, parts: SplitResult, headers: Mapping[str, str], body: bytes) -> bytes:
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    sent = {
        "Host": parts.netloc.rpartition("@")[2],
        "Accept-Encoding": "identity",
        "Connection": "close",
        **headers,
    }
    if body:
        sent["Content-Length"] = str(len(body))
    lines = [f"{method} {path} HTTP/1.1", *(f"{name}: {value}" for name, value in sent.items()), "", ""]
    return "\r\n".join(lines).encode("ascii")


async def _send(
    parts: SplitResult,
    address: str,
    port: int,
    request: bytes,
    bytes_max: int,
    is_enough: Callable[[bytearray, int], bool],
) -> bytes:
    secure = {}
    if parts.scheme == "https":
        secure = {"ssl": _tls(), "server_hostname": parts.hostname}
    reader, writer = await asyncio.open_connection(address, port, **secure)  # type: ignore[arg-type]
    try:
        writer.write(request)
        found = bytearray()
        while len(found) < bytes_max:
            some = await reader.read(CHUNK_BYTES)
            if not some:
                break
            begin = max(0, len(found) - 8)
            found += some
            if is_enough(found, begin):
                break
        return bytes(found[:bytes_max])
    finally:
        writer.transport.abort()


@cache
def _tls() -> ssl.SSLContext:
    return ssl.create_default_context()


class _Received:
    """What was received, as `HTTPResponse` wants it: a socket that has a file."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    def makefile(self, _mode: str) -> io.BytesIO:
        return io.BytesIO(self._data)


def has_head(found: bytearray | bytes) -> bool:
    """Whether the head of the answer is here to its end."""
    return found.find(_HEAD_END, _after_interim(found)) >= 0


def _after_interim(found: bytearray | bytes) -> int:
    """Returns where the answer begins: behind any 1xx, which a server may send before it, asked or not."""
    begin = 0
    while (end := found.find(_HEAD_END, begin)) >= 0 and _INTERIM.match(found, begin):
        begin = end + len(_HEAD_END)
    return begin


def _parse(data: bytes) -> OutboundResponse:
    """Parses an answer that may have been cut. Raises HTTPException, ValueError."""
    response = HTTPResponse(_Received(data[_after_interim(data) :]))  # type: ignore[arg-type]
    response.begin()
    try:
        body = response.read()
    except IncompleteRead as error:
        body = error.partial
    return OutboundResponse(response.status, response.headers, body)
