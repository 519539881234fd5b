"""Looks up host names so that a slow name server holds up nothing but connections to that name.

An event loop looks names up in few threads: uvloop two at a time, asyncio in a pool that `asyncio.run` joins at the
end. A name that takes ten seconds to fail then delays connections to all other hosts, and the end of the process.
Here each name has a thread of its own, for which the process does not wait, and callers share a look-up. A caller
connects to an address that was found, or only after its name was found: the loop's look-up that follows is as quick
as this one was.
"""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass, field
from ipaddress import ip_address

LOOKUPS_MAX = 64


@dataclass(slots=True)
class _Lookup:
    """`answer` is the addresses of the name, or an error: no one has to retrieve it."""

    began: float = field(default_factory=time.monotonic)
    answer: Future[tuple[str, ...] | OSError] = field(default_factory=Future)


_running: dict[str, _Lookup] = {}
_lock = threading.Lock()


async def resolve_host(host: str, timeout_s: float) -> None:
    """Returns once the host name is found; at once for an address or a socket directory. Raises as
    `addresses_of`."""
    if not _is_address(host):
        await addresses_of(host, timeout_s)


async def addresses_of(host: str, timeout_s: float) -> tuple[str, ...]:
    """Returns the addresses of a host name, or of an address itself.

    Raises socket.gaierror if there is no such name, if there is no answer `timeout_s` after the look-up began, or
    if LOOKUPS_MAX other names are being looked up.
    """
    lookup = _shared_lookup(host)
    answer = asyncio.wrap_future(lookup.answer)
    # Not `wait_for`, which would cancel the look-up of the others too.
    await asyncio.wait((answer,), timeout=max(0.0, lookup.began + timeout_s - time.monotonic()))
    if not answer.done():
        raise socket.gaierror(socket.EAI_AGAIN, "no name server has answered in time")
    found = answer.result()
    if isinstance(found, OSError):
        raise found
    return found


def _is_address(host: str) -> bool:
    if not host or host.startswith(("/", "@")):
        return True
    with suppress(ValueError):
        return bool(ip_address(host.partition("%")[0]))
    return False


def _shared_lookup(host: str) -> _Lookup:
    with _lock:
        if (running := _running.get(host)) is not None:
            return running
        if len(_running) >= LOOKUPS_MAX:
            raise socket.gaierror(socket.EAI_AGAIN, "too many names are being looked up")
        lookup = _running[host] = _Lookup()
    threading.Thread(target=_resolve, args=(host, lookup), name=f"look up {host}", daemon=True).start()
    return lookup


def _resolve(host: str, lookup: _Lookup) -> None:
    answer: tuple[str, ...] | OSError
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
        answer = tuple(dict.fromkeys(str(each[4][0]) for each in found))
    except OSError as raised:
        answer = raised
    except UnicodeError:  # a label that is empty or too long
        answer = socket.gaierror(socket.EAI_NONAME, "not a host name")
    with _lock:
        del _running[host]
    lookup.answer.set_result(answer)
