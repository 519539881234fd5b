"""How clients reach the servers of a local cluster: Unix sockets, or TCP on loopback.

A cluster listens on Unix sockets alone, in a directory that only its user may enter, and asks for no password
(`trust`). Nobody else reaches them, and there is no password that could get into other hands. `peer` would ask for
the same account once more, and cannot: the servers of root run in a user namespace, or as another user, where they
do not know root by name.

Tests put TCP proxies before servers, so they can have them on loopback, with a password.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from itertools import count
from urllib.parse import quote

from snapurl.local.free_ports import HOST, free_port, is_free
from snapurl.local.sockets import SocketDirectory

DATABASE = "snapurl"
FIRST_PORT = 5432


class LocalUser(StrEnum):
    """The logins of a local cluster's PostgreSQL: who migrates, and those with the rights of one role each."""

    OWNER = "snapurl"
    SERVICE = "snapurl_api"
    MIGRATOR = "snapurl_resharder"


@dataclass(frozen=True, slots=True)
class SocketAccess:
    """Unix sockets without a password. A port is only a part of a socket's name."""

    directory: SocketDirectory

    def port(self, taken: Collection[int], wanted: int = 0) -> int:
        """Returns a port for a server: `wanted` if it is given and can be used, else one outside `taken`."""
        return wanted or next(port for port in count(FIRST_PORT) if port not in taken)

    def dsn(self, port: int, database: str = DATABASE, user: str = LocalUser.OWNER) -> str:
        return f"postgresql://{user}@{quote(str(self.directory.postgres), safe='')}:{port}/{database}"

    def redis_url(self, port: int, database: int = 0) -> str:
        return f"unix://{quote(str(self.directory.redis(port)))}?db={database}"

    def redis_address(self, port: int) -> str:
        """Returns what the command line of a running Redis shows of its address."""
        return str(self.directory.redis(port))

    def postgres_settings(self) -> Mapping[str, str]:
        quoted = str(self.directory.postgres).replace('"', '""')
        return {
            "listen_addresses": "",
            "unix_socket_directories": f'"{quoted}"',
            "unix_socket_permissions": "0700",
        }

    def redis_settings(self, port: int) -> Mapping[str, str]:
        quoted = str(self.directory.redis(port)).replace("\\", "\\\\").replace('"', '\\"')
        return {"port": "0", "unixsocket": f'"{quoted}"', "unixsocketperm": "700"}


@dataclass(frozen=True, slots=True)
class LoopbackAccess:
    """TCP on loopback, with one password for all, as OWNER only."""

    password: str = field(repr=False)

    def port(self, taken: Collection[int], wanted: int = 0) -> int:
        return wanted if wanted and is_free(wanted) else free_port({*taken, wanted})

    def dsn(self, port: int, database: str = DATABASE, user: str = LocalUser.OWNER) -> str:
        return f"postgresql://{LocalUser.OWNER}:{self.password}@{HOST}:{port}/{database}"

    def redis_url(self, port: int, database: int = 0) -> str:
        return f"redis://:{self.password}@{HOST}:{port}/{database}"

    def redis_address(self, port: int) -> str:
        return f"{HOST}:{port}"

    def postgres_settings(self) -> Mapping[str, str]:
        return {"listen_addresses": HOST, "unix_socket_directories": ""}

    def redis_settings(self, port: int) -> Mapping[str, str]:
        return {"bind": HOST, "port": str(port), "requirepass": self.password}


Access = SocketAccess | LoopbackAccess
