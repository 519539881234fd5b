"""Hosts files: which hosts a line blocks, and what a file becomes."""

from __future__ import annotations

import io
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from snapurl.targets.hosts_file import (
    LINE_BYTES_MAX,
    HostsFileRefused,
    compile_file,
    hash_of,
    hosts_in,
    with_parents,
)
from snapurl.urls import UrlPolicy


@pytest.mark.parametrize(
    ("line", "hosts"),
    [
        ("0.0.0.0 Bad.Example. other.example # both", ["bad.example", "other.example"]),
        ("127.0.0.1\tbad.example", ["bad.example"]),
        (":: bad.example", ["bad.example"]),
        ("bad.example", ["bad.example"]),
        ("  BAD.EXAMPLE.  ", ["bad.example"]),
        ("münchen.example", ["xn--mnchen-3ya.example"]),
        ("0.0.0.0 MÜNCHEN.example", ["xn--mnchen-3ya.example"]),
        ("bad_one.example", ["bad_one.example"]),
        ("com", ["com"]),
        ("192.0.2.7", ["192.0.2.7"]),
        ("2001:DB8::0001", ["2001:db8::1"]),
        ("[2001:db8::1]", ["2001:db8::1"]),
        ("", []),
        ("# 0.0.0.0 bad.example", []),
        ("127.0.0.1 localhost localhost.localdomain", ["localhost.localdomain"]),
        ("::1 ip6-localhost ip6-loopback", []),
        ("fe80::1%lo0 localhost", []),
        ("0.0.0.0 0.0.0.0", []),
        ("<html>", None),
        ("bad.example good.example", None),
        ("https://bad.example/", None),
        ("bad.example:80", None),
        ("user@bad.example", None),
        ("-bad.example", None),
        ("\x00\x01", None),
        ("0.0.0.0 " + "a" * 64 + ".example", None),
    ],
)
def test_a_line_blocks_its_hosts(line: str, hosts: list[str] | None) -> None:
    """Addresses with names and plain hosts are read in any spelling; names of the machine itself block nothing."""
    assert hosts_in(line.encode()) == hosts


@given(st.binary(max_size=200))
def test_any_line_is_read_or_not(line: bytes) -> None:
    """No line is an error, and what it blocks is the host of a URL that a link could have."""
    for host in hosts_in(line) or ():
        assert UrlPolicy(8_192, frozenset()).check(f"http://{f'[{host}]' if ':' in host else host}/")


def test_a_host_blocks_those_below_it() -> None:
    """A host is looked up with all names above it, an address by itself."""
    assert list(with_parents("a.b.example")) == ["a.b.example", "b.example", "example"]
    assert list(with_parents("192.0.2.7")) == ["192.0.2.7"]
    assert list(with_parents("2001:db8::1")) == ["2001:db8::1"]


def compiled(text: bytes) -> tuple[int, int, bool, list[int]]:
    out = io.BytesIO()
    compile_file(io.BytesIO(text), out.write)
    count, unread, is_whole, *hashes = struct.unpack(f"={len(out.getvalue()) // 8}Q", out.getvalue())
    assert count == len(hashes)
    return count, unread, bool(is_whole), hashes


def test_a_file_becomes_sorted_hashes() -> None:
    """Each host is there once; lines that name none are counted, also those that are much too long."""
    hosts = [f"host-{number}.example" for number in range(1_000)]
    text = "\n".join(["# list", *hosts, *hosts[:10], "<p>", "x" * 3 * LINE_BYTES_MAX, ""])
    count, unread, is_whole, hashes = compiled(text.encode())
    assert (count, unread, is_whole) == (1_000, 2, True)
    assert hashes == sorted(map(hash_of, hosts))
    assert compiled(b"a.example\nb.exam")[2] is False
    assert compiled(b"")[:3] == (0, 0, False)


def test_a_web_page_is_no_list() -> None:
    """A file most of whose lines name no host is refused as a whole: a download may have failed."""
    with pytest.raises(HostsFileRefused, match="no list of hosts: 2 of its lines"):
        compiled(b"<html>\n<body>not found</body>\nexample.org\n")
