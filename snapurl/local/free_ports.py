"""Free ports on loopback."""

from __future__ import annotations

import secrets
import socket

HOST = "127.0.0.1"

# Below what systems hand out to outgoing connections (from 32,768 on Linux, 49,152 elsewhere), so that a
# saved port is seldom taken by chance when its server comes back.
_FIRST, _LAST = 20_000, 32_000
_ATTEMPTS_MAX = 1_000


def is_free(port: int, host: str = HOST) -> bool:
    """Whether a server could listen on `port` now."""
    try:
        address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        with socket.socket(address[0], socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address[4])
    except OSError:
        return False
    return True


def free_port(taken: set[int]) -> int:
    """Returns a free port outside `taken`. Add it to `taken` before the next call."""
    for _ in range(_ATTEMPTS_MAX):
        port = _FIRST + secrets.randbelow(_LAST - _FIRST)
        if port not in taken and is_free(port):
            return port
    raise OSError(f"no free port between {_FIRST} and {_LAST}")
