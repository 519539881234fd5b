"""How another command asks a running `snapurl up` for one more server: a file in the home, and its answer."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path

from snapurl.errors import ConfigError
from snapurl.local.cluster import LocalCluster, remembered

log = logging.getLogger("snapurl.local")

POLL_S = 0.2
UNSEEN_S_MAX = 5.0


def _place(home: Path) -> Path:
    return home.expanduser() / "wishes"


async def request_start(home: Path, name: str) -> None:
    """Has `up` start a server for shard `name`; returns when it runs. Raises ConfigError with the reason if not."""
    if f" {name}=" in " " + remembered(home).get("shards", ""):
        return
    place = _place(home)
    place.mkdir(mode=0o700, exist_ok=True)
    wish, answer = place / f"{name}.wish", place / f"{name}.answer"
    answer.unlink(missing_ok=True)
    wish.touch(mode=0o600)
    loop = asyncio.get_running_loop()
    unseen_until = loop.time() + UNSEEN_S_MAX
    while not answer.exists():
        if wish.exists() and loop.time() > unseen_until:
            wish.unlink(missing_ok=True)
            raise ConfigError(f"nobody runs the cluster in {home}: start it with `make up`, then ask again")
        await asyncio.sleep(POLL_S)
    text = answer.read_text()
    answer.unlink()
    if text:
        raise ConfigError(text)


async def serve_start_requests(cluster: LocalCluster) -> None:
    """Starts the servers that are asked for, for ever."""
    place = _place(cluster.home)
    while True:
        await asyncio.sleep(POLL_S)
        for wish in sorted(place.glob("*.wish")) if place.exists() else ():
            name = wish.stem
            wish.unlink(missing_ok=True)
            answer = place / f"{name}.answer"
            try:
                await cluster.add_shard(name)
                text = ""
            except ConfigError as error:
                text = error.detail
            draft = answer.with_suffix(".new")
            draft.write_text(text)
            draft.replace(answer)
