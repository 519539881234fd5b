"""Start requests: another command asks a running `snapurl up` to start a further server, through files in the
home."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path

from snapurl.errors import ConfigError
from snapurl.local.cluster import LocalCluster, saved_settings

log = logging.getLogger("snapurl.local")

POLL_S = 0.2
PICKUP_S_MAX = 5.0


def _directory(home: Path) -> Path:
    return home.expanduser() / "start-requests"


async def request_start(home: Path, name: str) -> None:
    """Asks `up` to start a server for shard `name`. Returns when it runs. Raises ConfigError with the reason if
    not."""
    if f" {name}=" in " " + saved_settings(home).get("shards", ""):
        return
    directory = _directory(home)
    directory.mkdir(mode=0o700, exist_ok=True)
    request, answer = directory / f"{name}.request", directory / f"{name}.answer"
    answer.unlink(missing_ok=True)
    request.touch(mode=0o600)
    loop = asyncio.get_running_loop()
    pickup_until = loop.time() + PICKUP_S_MAX
    while not answer.exists():
        if request.exists() and loop.time() > pickup_until:
            request.unlink(missing_ok=True)
            raise ConfigError(f"the cluster in {home} does not run: start it with `make up`, then try again")
        await asyncio.sleep(POLL_S)
    text = answer.read_text()
    answer.unlink()
    if text:
        raise ConfigError(text)


async def serve_start_requests(cluster: LocalCluster) -> None:
    """Starts the requested servers, forever."""
    directory = _directory(cluster.home)
    while True:
        await asyncio.sleep(POLL_S)
        for request in sorted(directory.glob("*.request")) if directory.exists() else ():
            name = request.stem
            request.unlink(missing_ok=True)
            answer = directory / f"{name}.answer"
            try:
                await cluster.add_shard(name)
                text = ""
            except ConfigError as error:
                text = error.detail
            draft = answer.with_suffix(".new")
            draft.write_text(text)
            draft.replace(answer)
