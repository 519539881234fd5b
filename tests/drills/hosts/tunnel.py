"""One host's network: a device in a separate network namespace, whose packets a process reads and writes.

    unshare --net python tunnel.py ADDRESS FD

puts the device into the new namespace, sends its file descriptor through the socket FD, and keeps the namespace
until that socket is closed. Nothing has to be removed: a namespace disappears with its last process.
"""

from __future__ import annotations

import fcntl
import os
import socket
import struct
import sys

DEVICE = "link"
MTU_BYTES = 1500
PREFIX = "255.255.255.0"

_TUNSETIFF = 0x400454CA
_IFF_TUN, _IFF_NO_PI = 0x0001, 0x1000
_SIOCSIFADDR, _SIOCSIFNETMASK, _SIOCSIFMTU = 0x8916, 0x891C, 0x8922
_SIOCGIFFLAGS, _SIOCSIFFLAGS = 0x8913, 0x8914
_IFF_UP = 0x1


def open_tunnel(address: str) -> int:
    """Creates the device of this process's namespace, with `address`, and returns its file descriptor.

    Reads from it return the packets that the namespace sends. Raises OSError where that is not allowed.
    """
    tunnel = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
    fcntl.ioctl(tunnel, _TUNSETIFF, struct.pack("16sH22x", DEVICE.encode(), _IFF_TUN | _IFF_NO_PI))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        _bring_up(control, "lo")
        _set(control, DEVICE, _SIOCSIFADDR, _inet(address))
        _set(control, DEVICE, _SIOCSIFNETMASK, _inet(PREFIX))
        _set(control, DEVICE, _SIOCSIFMTU, struct.pack("i", MTU_BYTES))
        _bring_up(control, DEVICE)
    return tunnel


def _inet(address: str) -> bytes:
    return struct.pack("HH4s8x", socket.AF_INET, 0, socket.inet_aton(address))


def _set(control: socket.socket, name: str, request: int, value: bytes) -> bytes:
    return fcntl.ioctl(control, request, struct.pack("16s24s", name.encode(), value))


def _bring_up(control: socket.socket, name: str) -> None:
    flags = struct.unpack_from("16sH", _set(control, name, _SIOCGIFFLAGS, b""))[1]
    _set(control, name, _SIOCSIFFLAGS, struct.pack("H", flags | _IFF_UP))


def main() -> None:
    if len(sys.argv) == 2:  # only to find out whether it is possible
        open_tunnel(sys.argv[1])
        return
    address, fd = sys.argv[1], int(sys.argv[2])
    with socket.socket(fileno=fd) as parent:
        tunnel = open_tunnel(address)
        socket.send_fds(parent, [b"up"], [tunnel])
        os.close(tunnel)
        parent.recv(1)  # returns when the socket is closed


if __name__ == "__main__":
    main()
