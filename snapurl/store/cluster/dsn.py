"""DSNs and addresses of shards: taken apart and put together, without a connection."""

from __future__ import annotations

import os
import re
from pathlib import Path
from urllib.parse import parse_qsl, quote, urlencode, urlsplit, urlunsplit

from ring.topology import Topology
from snapurl.config import Settings

PORT = 5432
_PORT = re.compile(r":[0-9]+$")
_LOCAL = re.compile(r"%2F|:|localhost:|127\.|\[::1\]", re.IGNORECASE)  # ":" is the default, a socket
_HOST_OPTIONS = ("host", "port")
DSN_FILES = ("sslrootcert", "sslcert", "sslkey", "sslcrl")  # options of a DSN that name a file


def address_of(dsn: str) -> str:
    """`host:port/database` of a DSN, several `host:port` by commas: what the topology may know of it.

    A directory of Unix sockets is percent-encoded, as in `%2Frun%2Fpostgresql:5432/snapurl`.
    """
    parts = urlsplit(dsn)
    hosts = (parts.netloc.rpartition("@")[2] or _host_option(parts.query)).split(",")
    return ",".join(host if _PORT.search(host) else f"{host}:{PORT}" for host in hosts) + parts.path


def dsn_for(address: str, template: str) -> str:
    """The DSN of the shard at `address`, with the credentials and options of another shard's DSN."""
    parts = urlsplit(template)
    credentials = parts.netloc.rpartition("@")[0]
    host, _, database = address.partition("/")
    netloc = f"{credentials}@{host}" if credentials else host
    options = [(name, value) for name, value in parse_qsl(parts.query, True) if name not in _HOST_OPTIONS]
    return urlunsplit((parts.scheme, netloc, "/" + database, urlencode(options, quote_via=quote), ""))


def _host_option(query: str) -> str:
    """Returns the host and port that a DSN gives in its options (`?host=/run/postgresql`); empty if it does not."""
    options = dict(parse_qsl(query))
    ports = options.get("port", "").split(",")
    hosts = [quote(host, safe="") for host in options.get("host", "").split(",")]
    if len(ports) != len(hosts):
        ports = ports[:1] * len(hosts)
    return ",".join(f"{host}:{port or PORT}" for host, port in zip(hosts, ports, strict=True) if host)


def dsn_of(settings: Settings, topology: Topology, name: str) -> str:
    """The DSN of a shard of `topology`: the configured one, or its address with the first DSN's credentials."""
    for item in settings.shard_dsns:
        if item.name == name:
            return item.dsn
    return dsn_for(topology.shard(name).address, settings.shard_dsns[0].dsn)


def plain_text_warning(settings: Settings) -> str:
    """Returns a warning if DSNs lead to other machines and let those decide about TLS; empty if none does.

    That is sslmode=prefer, the default: whoever can change what is sent can turn TLS off, and gets the password.
    """
    names = [item.name for item in settings.shard_dsns if _may_be_plain(item.dsn)]
    if not names:
        return ""
    return (
        f"connections to {', '.join(names)} may go without TLS: their DSNs lead to other machines with "
        "sslmode=prefer; set verify-full, or disable if that network is yours alone"
    )


def _may_be_plain(dsn: str) -> bool:
    try:
        sslmode = dict(parse_qsl(urlsplit(dsn).query)).get("sslmode", os.environ.get("PGSSLMODE", "prefer"))
        hosts = address_of(dsn).rpartition("/")[0].split(",")
    except ValueError:
        return False  # connecting to it reports the error
    return sslmode in ("prefer", "allow") and not all(_LOCAL.match(host) for host in hosts)


def missing_file(dsn: str) -> str:
    """The parameter of a DSN whose file is not there, which would look as if the server were not; empty if none."""
    words = parse_qsl(urlsplit(dsn).query)
    files = (word for word, value in words if word in DSN_FILES and not Path(value).is_file())
    return next(files, "")
