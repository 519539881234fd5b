"""A copy of the repository on the drill's engine, and what an operator does with it."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from tests.drills.containers.engine import CommandFailed, Said, must, run

ROOT = Path(__file__).parents[3]
PAGE = "docs/operate/containers.md"
SETTLED_S_MAX = 180.0
STATUS_EVERY_S = 3.0  # each is a new Python in a container: half a second of CPU time
_FENCE = re.compile(r"^```sh\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def blocks_of(page: str) -> dict[str, list[str]]:
    """Returns the blocks of shell commands in a document by the heading that they are under."""
    found: dict[str, list[str]] = {}
    for part in re.split(r"^#+ ", page, flags=re.MULTILINE)[1:]:
        heading, _, rest = part.partition("\n")
        found[heading] = _FENCE.findall(rest)
    return found


def copy_sources(place: Path) -> None:
    """Copies all files that git has or would take."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT, capture_output=True, check=True,
    )  # fmt: skip
    there = b"\0".join(
        name for name in listed.stdout.split(b"\0") if name and (ROOT / os.fsdecode(name)).exists()
    )
    packed = subprocess.run(
        ["tar", "--null", "--create", "--files-from=-"],
        cwd=ROOT,
        input=there,
        capture_output=True,
        check=True,
    )
    place.mkdir()
    subprocess.run(["tar", "--extract"], cwd=place, input=packed.stdout, check=True)


class Project:
    """The directory with docker-compose.yml, and its containers. `settings` is what `.env` holds."""

    def __init__(self, place: Path, environ: Mapping[str, str], settings: Mapping[str, str]) -> None:
        self.place = place
        self.settings = dict(settings)
        self.blocks = blocks_of((place / PAGE).read_text())
        self.environ = environ
        self.write_settings()

    def write_settings(self, **more: str) -> None:
        self.settings.update(more)
        text = "".join(f"{name}={value}\n" for name, value in self.settings.items())
        (self.place / ".env").write_text(text)

    # -- commands ------------------------------------------------------------------------------------------------

    async def shell(self, commands: str, seconds_max: float = 600.0) -> str:
        """Runs commands as they stand in the document, in the project's directory. Raises CommandFailed."""
        words = ("sh", "-euc", commands)
        return await must(*words, environ=self.environ, cwd=self.place, seconds_max=seconds_max)

    async def compose(self, *words: str) -> str:
        return await must("docker", "compose", *words, environ=self.environ, cwd=self.place)

    async def try_compose(self, *words: str) -> Said:
        return await run("docker", "compose", *words, environ=self.environ, cwd=self.place)

    async def docker(self, *words: str) -> str:
        return await must("docker", *words, environ=self.environ)

    # -- containers ----------------------------------------------------------------------------------------------

    async def containers(self, *services: str) -> list[dict[str, Any]]:
        """Returns what `docker inspect` says of the containers of these services, or of all, by name."""
        ids = (await self.compose("ps", "--all", "--quiet", *services)).split()
        found: list[dict[str, Any]] = json.loads(await self.docker("inspect", *ids)) if ids else []
        return sorted(found, key=lambda each: str(each["Name"]))

    async def unhealthy(self, *services: str) -> list[str]:
        """Returns which containers do not run or are not healthy; `migrate` has to have ended with 0."""
        wrong = []
        for each in await self.containers(*services):
            state, health = each["State"], each["State"].get("Health", {}).get("Status", "none")
            right = health == "healthy" and state["Running"]
            if each["Config"]["Labels"]["com.docker.compose.service"] == "migrate":
                right = state["Status"] == "exited" and state["ExitCode"] == 0
            if not right:
                wrong.append(f"{each['Name'].removeprefix('/')}: {state['Status']}, {health}")
        return wrong

    async def until_healthy(self, *services: str, seconds_max: float = SETTLED_S_MAX) -> float:
        """Waits until nothing is unhealthy. Returns how long it took; raises CommandFailed if it took too long."""
        return await self.until_empty(lambda: self.unhealthy(*services), seconds_max)

    async def until_empty(
        self, find: Callable[[], Any], seconds_max: float = SETTLED_S_MAX, pause_s: float = 1.0
    ) -> float:
        """Waits until `find` finds nothing wrong. Returns the seconds.

        Raises CommandFailed when the same has been wrong for `seconds_max`: slots that become fewer are progress.
        """
        clock = asyncio.get_running_loop().time
        began = changed = clock()
        before = None
        while wrong := await find():
            if wrong != before:
                before, changed = wrong, clock()
            elif clock() - changed > seconds_max:
                raise CommandFailed(f"for {seconds_max:.0f} s: {'; '.join(map(str, wrong))}")
            await asyncio.sleep(pause_s)
        return clock() - began

    async def kill(self, container: Mapping[str, Any]) -> None:
        """Kills the first process of a container, as a crash does: the engine starts it again.

        Returns when all its processes have ended, which is before the first one has: until then the others answer.
        """
        pid = container["State"]["Pid"]
        os.kill(pid, signal.SIGKILL)
        while Path(f"/proc/{pid}").exists():
            await asyncio.sleep(0.01)

    # -- the cluster ---------------------------------------------------------------------------------------------

    async def status(self) -> dict[str, Any]:
        words = ("exec", "-T", "migrator", "snapurl-reshard", "status", "--json")
        said = await run(
            "docker", "compose", *words, environ=self.environ, cwd=self.place, only_out=True, seconds_max=60
        )
        if said.code:
            raise CommandFailed(f"status ended with {said.code}: {said.text}")
        found: dict[str, Any] = json.loads(said.text)
        return found

    async def unsettled(self) -> list[str]:
        """Returns what the status of the cluster lacks."""
        try:
            status = await self.status()
        except CommandFailed as error:
            return [str(error)]
        wrong = [] if status["migrator_runs"] else [f"state: {status['state']}"]
        silent = [f"{each['name']}: {each['silent']}" for each in status["shards"] if each["silent"]]
        if not status["settled"]:
            wrong += silent or [f"{status['slots_left']} slots left"]
        return wrong

    async def until_settled(self) -> float:
        return await self.until_empty(self.unsettled, pause_s=STATUS_EVERY_S)
