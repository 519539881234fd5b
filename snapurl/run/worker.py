"""`python -m snapurl.run.worker --fd N [--metrics-fd M]`: one HTTP worker on inherited listening sockets.

With an invalid configuration it prints one line and exits with code 2. On SIGUSR1 its health checks fail. On
SIGTERM or SIGINT it accepts no more connections, finishes its requests, ships its clicks and ends, within
DRAIN_S_MAX + CLOSE_S_MAX.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import signal
import socket
import sys
from contextlib import ExitStack
from functools import partial
from typing import Any

import uvloop

from snapurl.app import App, create_app
from snapurl.config import Settings, load_settings
from snapurl.errors import ConfigError
from snapurl.http.schema.responses import ready_details
from snapurl.telemetry import logs, traces
from snapurl.telemetry.metrics_port import MetricsPort, Reply, metrics

BACKLOG = 1024
DRAIN_S_MAX = 2.0
CLOSE_S_MAX = 1.5
POLL_S = 0.02

# The threshold of generation 0 of Python's garbage collector (default 700). A bulk create makes ten thousand
# objects that all live until its response, and no code here leaves many reference cycles.
YOUNG_OBJECTS = 20_000

# For how long a thread that parses a large body keeps Python's interpreter lock while the event loop wants it.
# uvloop takes the lock once per packet, so with Python's default each packet would wait 5 ms.
SWITCH_S = 0.0005

EXIT_CONFIG = 2


def main(arguments: list[str] | None = None) -> int:
    """Runs a worker until a signal. Returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m snapurl.run.worker")
    parser.add_argument("--fd", type=int, required=True, help="file descriptor of the listening socket")
    parser.add_argument("--metrics-fd", type=int, help="file descriptor of the metrics port's socket")
    given = parser.parse_args(arguments)
    gc.set_threshold(YOUNG_OBJECTS, *gc.get_threshold()[1:])
    sys.setswitchinterval(SWITCH_S)
    try:
        settings = load_settings()
        logs.configure(settings.log_level, settings.log_format)
        traces.configure("worker")
        with ExitStack() as stack:
            listener = stack.enter_context(socket.socket(fileno=given.fd))
            own = given.metrics_fd
            of_metrics = None if own is None else stack.enter_context(socket.socket(fileno=own))
            uvloop.run(run(settings, listener, of_metrics))
    except ConfigError as error:
        print(f"snapurl: {error.detail}", file=sys.stderr, flush=True)
        return EXIT_CONFIG
    finally:
        traces.shut_down()
    return 0


async def run(
    settings: Settings, listener: socket.socket, metrics_listener: socket.socket | None = None
) -> None:
    """Serves until SIGTERM or SIGINT; with `metrics_listener` the metrics port, too. Raises ConfigError."""
    stop = asyncio.Event()
    for signum in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(signum, stop.set)
    app = create_app(settings)
    asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, setattr, app.ctx, "is_leaving", True)
    server = await start(app, listener)
    port = metrics_port(app)
    if metrics_listener is not None:
        await port.start(metrics_listener)
    # What is loaded now lives as long as the process. A full collection would examine its 90,000 objects each time,
    # and all requests wait meanwhile.
    gc.collect()
    gc.freeze()
    await stop.wait()
    await port.close()
    await finish(app, server)


def metrics_port(app: App) -> MetricsPort:
    """Returns the metrics port of an app that has been started."""

    async def ready() -> Reply:
        found = await app.ctx.services.readiness()
        return Reply.of(ready_details(found), 503 if found.status == "down" else 200)

    return MetricsPort({"/metrics": partial(metrics, app.ctx.fast_path.flush), "/health/ready": ready})


async def start(app: App, listener: socket.socket) -> Any:
    """Connects to PostgreSQL and Redis (`app.open_services`) and accepts connections. Raises ConfigError.

    Returns Sanic's server, which has no types.
    """
    server: Any = await app.create_server(
        sock=listener,
        protocol=app.ctx.protocol,
        backlog=BACKLOG,
        access_log=False,
        asyncio_server_kwargs={"start_serving": False},
    )
    await server.startup()
    await server.before_start()
    try:
        await server.start_serving()
    except OSError as error:  # the supervisor has bound the socket, and another program listens on that port
        host, port = listener.getsockname()[:2]
        raise ConfigError(f"cannot listen on {host}:{port}: {error.strerror}; set SNAPURL_PORT") from None
    await server.after_start()
    return server


async def finish(app: App, server: Any) -> None:
    """Accepts no more connections, finishes the requests, then closes everything; bounded in time."""
    server.server.close()
    app.ctx.event_streams.close()
    try:
        async with asyncio.timeout(DRAIN_S_MAX):
            while server.connections:
                for connection in list(server.connections):
                    _close_quietly(connection)
                await asyncio.sleep(POLL_S)
    except TimeoutError:
        for connection in list(server.connections):
            connection.abort()
    await server.before_stop()
    try:
        async with asyncio.timeout(CLOSE_S_MAX):
            await server.after_stop()
    except TimeoutError:
        pass
    app.__class__.unregister_app(app)


def _close_quietly(connection: Any) -> None:
    """Closes an idle connection; lets any other close after its next response."""
    # Sanic considers a connection idle until its task has read the received bytes. If it were closed before, Sanic
    # would handle the request, count the click, and then have no connection for the response.
    if not connection.recv_buffer and connection.close_if_idle():
        return
    if connection.http is not None:
        connection.http.keep_alive = False


if __name__ == "__main__":
    sys.exit(main())
