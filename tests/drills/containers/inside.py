"""The drill itself, inside its namespaces: an engine, the images, and every step of an operator's life."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import random
import resource
import sys
from pathlib import Path

from tests.drills.containers.engine import CommandFailed, engine, enter, make_stand_ins
from tests.drills.containers.project import Project, copy_sources
from tests.drills.containers.report import Report
from tests.drills.containers.steps import Drill

OPEN_FILES_WANTED = 32_768  # OPEN_FILES_MAX of docker-compose.yml


def settings() -> dict[str, str]:
    """Returns what has to be in `.env` on this machine, as docs/operate/containers.md says."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard == resource.RLIM_INFINITY or hard >= OPEN_FILES_WANTED:
        return {}
    return {"OPEN_FILES_MAX": str(hard), "CONNECTIONS_MAX": str((hard - 1_000) // 2)}


async def drill(
    place: Path, packed: Path, environ: dict[str, str], cgroup: str, seed: int, only: list[str]
) -> int:
    report = Report()
    async with contextlib.AsyncExitStack() as stack:
        with report.step("engine and base images") as step:
            running = await stack.enter_async_context(engine(place, environ, cgroup))
            await make_stand_ins(packed, running)
            step.note(" ".join(f"{name}={value}" for name, value in settings().items()))
        if step.broken:
            return 1
        copy_sources(place / "snapurl")
        project = Project(place / "snapurl", running, settings())
        try:
            await Drill(project, report, random.Random(seed)).run(only)
        except CommandFailed as error:
            print(f"the drill cannot go on: {error}", flush=True)
            return 1
        finally:
            if report.broken:
                logs = await project.try_compose("logs", "--no-color", "--timestamps", "--tail", "400")
                kept = packed.with_name("containers.log")
                kept.write_text(logs.text)
                print(f"what the containers wrote is in {kept}", flush=True)
            await project.try_compose("down", "--volumes", "--timeout", "5")
    print("all is well" if not report.broken else f"{report.broken} promises are broken", flush=True)
    return 1 if report.broken else 0


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--place", type=Path, required=True)
    parser.add_argument("--packed", type=Path, required=True)
    parser.add_argument("--environ", type=json.loads, required=True)
    parser.add_argument("--cgroup", required=True)
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("steps", nargs="*")
    asked = parser.parse_args()
    enter()
    sys.exit(
        asyncio.run(drill(asked.place, asked.packed, asked.environ, asked.cgroup, asked.seed, asked.steps))
    )


if __name__ == "__main__":
    main()
