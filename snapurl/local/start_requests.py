"""Start requests: another command asks a running `snapurl up` to start a further server, over a socket.

The command sends the name of the shard and a line break. `up` starts the server, creates the tables there as their
owner, and answers `ok` or the reason why not, in one line. The end of `up` ends the connection, so nobody waits for
an answer that cannot come, and no answer needs space on a disk that may be full.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from snapurl.config import load_settings
from snapurl.errors import ConfigError, SnapURLError
from snapurl.local.state import is_cluster_running, saved_sockets
from snapurl.store.cluster.migrate import migrate_all
from snapurl.tasks import cancel_and_wait

if TYPE_CHECKING:
    from snapurl.local.cluster import LocalCluster  # a command that only asks needs no servers

log = logging.getLogger("snapurl.local")

_OK = "ok"


async def request_start(home: Path, name: str) -> None:
    """Asks `up` to start a server for shard `name`. Returns when its tables are there.

    Raises ConfigError with the reason if not.
    """
    try:
        reader, writer = await asyncio.open_unix_connection(saved_sockets(home).start_requests)
    except OSError:
        state = "has not started yet" if is_cluster_running(home) else "is not running"
        raise ConfigError(
            f"the cluster in {home} {state}: start it with `snapurl up`, then try again"
        ) from None
    try:
        writer.write(f"{name}\n".encode())
        answer = (await reader.read()).decode().strip()
    except OSError:
        answer = ""
    finally:
        writer.close()
    if answer != _OK:
        raise ConfigError(answer or f"`snapurl up` has ended while it started {name}: start it again")


@asynccontextmanager
async def serving_start_requests(cluster: LocalCluster) -> AsyncIterator[None]:
    """Starts the requested servers, one at a time, during the block."""
    turn = asyncio.Lock()
    serving: set[asyncio.Task[Any]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        serving.add(task)
        try:
            name = (await reader.readline()).decode(errors="replace").strip()
            async with turn:
                answer = await _start(cluster, name)
            writer.write(answer.encode())
            await writer.drain()
        except (OSError, ValueError):
            pass  # whoever asked is gone, or sent no name
        finally:
            writer.close()
            serving.discard(task)

    server = await asyncio.start_unix_server(serve, cluster.sockets.start_requests)
    try:
        yield
    finally:
        server.close()
        await cancel_and_wait(*serving)  # a server that is starting must not outlive the others


async def _start(cluster: LocalCluster, name: str) -> str:
    """Starts a server, unless an earlier request has. Returns the answer."""
    try:
        dsn = cluster.dsns.get(name) or await cluster.add_shard(name)
        await migrate_all(load_settings(shards=f"{name}={dsn}"))
    except SnapURLError as error:
        return " ".join(str(error).split())
    except Exception as error:  # whatever it is, whoever asked waits for it
        log.exception("the server of %s could not be started", name)
        return f"{name} could not be started: {type(error).__name__}: {' '.join(str(error).split())}"
    return _OK
