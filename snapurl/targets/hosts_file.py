"""Hosts files: reads a file of blocked hosts and writes what workers look hosts up in.

Lines are those of a hosts file, an address and names, or one host each. A host blocks all hosts below it too. `#`
begins a comment. Case, a trailing dot and the spelling of non-ASCII names make no difference. Names without a dot
that a hosts file gives to this machine itself, such as `localhost`, block nothing.

Theory. A list has millions of hosts, and every worker holds it. So a host is stored as 8 bytes of its BLAKE2b hash,
sorted: a look-up is a binary search. A host that is not in a list of ten million has the hash of one that is with a
chance of 1 in 1.8 million million. The file is compiled by a process of its own (`python -m
snapurl.targets.hosts_file FILE`, the result on stdout), because a thread would share the lock of the interpreter
with the event loop. It holds 8 bytes per host, too: the hashes are sorted in BUCKETS parts.

What is written begins with a header of three numbers: hosts, lines that could not be read, and whether the last
line ended. A line that does not end may be that of a file that is still being written.
"""

from __future__ import annotations

import os
import re
import sys
from array import array
from collections.abc import Callable, Iterator
from hashlib import blake2b
from ipaddress import ip_address
from pathlib import Path
from typing import BinaryIO

from snapurl.urls import HOST_CHARS_MAX, LOOPBACK, UrlRefused, comparable_host, host_of

HOSTS_MAX = 10_000_000  # 80 MB per worker
FILE_BYTES_MAX = 1_073_741_824
LINE_BYTES_MAX = 4_096
NAMES_MAX = 64  # of one line
READABLE_SHARE_MIN = (
    0.5  # of the lines that are no comments: otherwise it is no list of hosts, but a web page
)
BUCKETS = 256
HASH_BYTES = 8
NICENESS = 10
REFUSED_EXIT = 2

_BLOCKING = frozenset(("0.0.0.0", "127.0.0.1", "::", "::1"))  # noqa: S104  # what hosts files nearly always have
_NAME = re.compile(r"(?:[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?\.)*[a-z](?:[a-z0-9_-]{0,61}[a-z0-9_])?")


class HostsFileRefused(Exception):
    """The file is no list of hosts, or too large; the text says which, in one line."""


def hash_of(host: str) -> int:
    """Returns the hash of a host in its comparable form."""
    return int.from_bytes(blake2b(host.encode(), digest_size=HASH_BYTES).digest(), sys.byteorder)


def with_parents(host: str) -> Iterator[str]:
    """Iterates over a host in its comparable form and the names above it. An address has none."""
    yield host
    if not _is_address(host):
        while dot := host.find(".") + 1:
            host = host[dot:]
            yield host


def hosts_in(line: bytes) -> list[str] | None:
    """Returns the hosts that a line blocks, in their comparable form; None if it cannot be read."""
    text = line.partition(b"#")[0].decode("utf-8", "replace").strip().lower()
    if not text:
        return []
    first, *names = text.split()
    if not names:
        host = _host(first)
        return None if host is None else [host]
    if len(names) > NAMES_MAX or not (first in _BLOCKING or _is_address(first.partition("%")[0])):
        return None
    hosts = [_host(name) for name in names]
    if None in hosts:
        return None
    return [host for host in hosts if host and host != LOOPBACK and "." in host and not _is_address(host)]


def _host(text: str) -> str | None:
    """Returns a host in its comparable form, None if it is none."""
    name = text.removesuffix(".")
    if len(name) <= HOST_CHARS_MAX and _NAME.fullmatch(name):
        return LOOPBACK if name == LOOPBACK or name.endswith(f".{LOOPBACK}") else name
    if any(sign in name for sign in "/?#@\\") or (":" in name and not _is_address(name.strip("[]"))):
        return None
    try:
        return comparable_host(host_of(f"http://[{name}]/" if _is_bare_ipv6(name) else f"http://{name}/"))
    except UrlRefused:
        return None


def _is_address(text: str) -> bool:
    if not (text[:1].isdigit() or ":" in text):
        return False
    try:
        ip_address(text)
    except ValueError:
        return False
    return True


def _is_bare_ipv6(name: str) -> bool:
    return ":" in name and not name.startswith("[")


# -- the program -------------------------------------------------------------------------------------------------


def compile_file(source: BinaryIO, write: Callable[[bytes], object]) -> None:
    """Writes the header and the sorted hashes of a file. Raises HostsFileRefused, OSError."""
    buckets = [array("Q") for _ in range(BUCKETS)]
    shift = 8 * HASH_BYTES - (BUCKETS - 1).bit_length()
    count = read_lines = unread_lines = size = 0
    is_whole = False
    for line in _lines(source):
        size += len(line)
        is_whole = line.endswith(b"\n")
        if size > FILE_BYTES_MAX:
            raise HostsFileRefused(f"it has more than {FILE_BYTES_MAX:,} bytes")
        hosts = hosts_in(line) if len(line) <= LINE_BYTES_MAX else None
        if hosts is None:
            unread_lines += 1
            continue
        read_lines += bool(hosts)
        count += len(hosts)
        if count > HOSTS_MAX:
            raise HostsFileRefused(f"it has more than {HOSTS_MAX:,} hosts")
        for host in hosts:
            found = hash_of(host)
            buckets[found >> shift].append(found)
    if unread_lines and read_lines < READABLE_SHARE_MIN * (read_lines + unread_lines):
        raise HostsFileRefused(f"it is no list of hosts: {unread_lines:,} of its lines name none")
    sorted_buckets = [array("Q", sorted(set(bucket))) for bucket in _emptied(buckets)]
    write(array("Q", (sum(map(len, sorted_buckets)), unread_lines, is_whole)).tobytes())
    for bucket in sorted_buckets:
        write(bucket.tobytes())


def _lines(source: BinaryIO) -> Iterator[bytes]:
    """Iterates over the lines. Of one that is too long the begin is kept, with more than LINE_BYTES_MAX bytes."""
    while line := source.readline(LINE_BYTES_MAX + 1):
        end = line
        while len(end) > LINE_BYTES_MAX and not end.endswith(b"\n"):
            end = source.readline(LINE_BYTES_MAX + 1)
        yield line if end is line else line + end[-1:]


def _emptied(buckets: list[array[int]]) -> Iterator[array[int]]:
    """Iterates over the buckets; each is freed before the next is taken."""
    buckets.reverse()
    while buckets:
        yield buckets.pop()


def main() -> int:
    """Compiles the file that the first argument names. What is wrong is one line on stderr, and exit code 2."""
    os.nice(NICENESS)
    try:
        with Path(sys.argv[1]).open("rb") as source:
            compile_file(source, sys.stdout.buffer.write)
        sys.stdout.flush()
    except OSError as error:
        print(f"it cannot be compiled: {error.strerror}", file=sys.stderr)
        return REFUSED_EXIT
    except HostsFileRefused as refusal:
        print(refusal, file=sys.stderr)
        return REFUSED_EXIT
    return 0


if __name__ == "__main__":
    sys.exit(main())
