"""A Docker engine of the drill's own, in namespaces that end with it, and the commands that use it."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import json
import os
import signal
import socket
import struct
import subprocess
import tempfile
import time
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from snapurl.parent_death import signal_at_parent_death

STAND_IN = "snapurl-stand-in"
STAND_INS = {
    "python:3.13-slim": "",
    "redis:8": "WORKDIR /data",
    "haproxy:3.2-alpine": "",
    "postgres:18": "ENV PGDATA=/var/lib/postgresql/18/docker PATH=/usr/lib/postgresql/17/bin:/usr/local/bin:/bin\n"
    'ENTRYPOINT ["run-postgres"]',
}
"""The official images that the files name, and what those have besides their programs."""
REGISTRY = "127.0.0.1:5000"
"""Where the engine looks for images before their own registry, which it cannot reach; see `registry`."""
CGROUPS = Path("/sys/fs/cgroup")
CGROUPS_S_MAX = 10.0
COMMAND_S_MAX = 300.0
_SIOCGIFFLAGS, _SIOCSIFFLAGS, _IFF_UP = 0x8913, 0x8914, 1


def isolated(*words: str) -> list[str]:
    """Returns a command line that runs `words` in namespaces of their own: network, mounts, processes.

    The engine's bridges, its firewall rules, its containers and mounts end with it, even if it is killed.
    """
    alone = ("--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc")
    return ["unshare", *alone, *words]


def remove_cgroups(name: str) -> None:
    """Removes the cgroups that an engine has left, which no namespace owns, once their last processes are gone."""
    until = time.monotonic() + CGROUPS_S_MAX
    for ours in [CGROUPS / name, *(each / name for each in CGROUPS.iterdir())]:
        while ours.is_dir() and time.monotonic() < until:
            for place, _, _ in os.walk(ours, topdown=False):
                with contextlib.suppress(OSError):
                    Path(place).rmdir()
            time.sleep(0.02)


@dataclass(frozen=True, slots=True)
class Said:
    """How a command ended, and all that it wrote."""

    code: int
    text: str

    @property
    def last(self) -> str:
        return (self.text.strip().splitlines() or ["nothing was written"])[-1]


class CommandFailed(Exception):
    """A command of the drill ended with another code than 0."""


async def run(
    *words: str,
    environ: Mapping[str, str],
    cwd: Path | None = None,
    given: bytes | None = None,
    only_out: bool = False,
    seconds_max: float = COMMAND_S_MAX,
) -> Said:
    """Runs a command to its end; `only_out` leaves out what it writes to stderr, unless it fails."""
    process = await asyncio.create_subprocess_exec(
        *words,
        env=environ,
        cwd=cwd,
        stdin=subprocess.DEVNULL if given is None else subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE if only_out else subprocess.STDOUT,
        preexec_fn=signal_at_parent_death(signal.SIGKILL),
    )
    try:
        async with asyncio.timeout(seconds_max):
            out, err = await process.communicate(given)
    except TimeoutError:
        process.kill()
        await process.wait()
        return Said(-1, f"{' '.join(words[:4])} … did not end within {seconds_max:.0f} s")
    assert process.returncode is not None
    text = out if process.returncode == 0 or err is None else out + err
    return Said(process.returncode, text.decode(errors="replace"))


async def must(*words: str, environ: Mapping[str, str], **more: object) -> str:
    """Returns what a command writes to stdout and stderr. Raises CommandFailed."""
    said = await run(*words, environ=environ, **more)  # type: ignore[arg-type]
    if said.code:
        raise CommandFailed(f"{' '.join(words[:6])} ended with {said.code}: {said.text.strip()[-2000:]}")
    return said.text


def enter() -> None:
    """Prepares the namespaces that this process has been started in."""
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", "/run"], check=True)  # sockets of containerd's shims
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        flags = struct.unpack("16sH", fcntl.ioctl(probe, _SIOCGIFFLAGS, struct.pack("16sH", b"lo", 0)))[1]
        fcntl.ioctl(probe, _SIOCSIFFLAGS, struct.pack("16sH", b"lo", flags | _IFF_UP))


@contextlib.asynccontextmanager
async def engine(place: Path, given: Mapping[str, str], cgroup: str) -> AsyncIterator[dict[str, str]]:
    """Runs an engine with its data below `place`, which outlives it. Yields the environment for commands."""
    sockets = Path(tempfile.mkdtemp(prefix="snapurl-drill-", dir="/run"))
    environ = {**os.environ, **given, "DOCKER_HOST": f"unix://{sockets}/docker.sock", "COMPOSE_ANSI": "never"}
    environ = {name: value for name, value in environ.items() if not name.startswith("SNAPURL_")}
    words = [
        *("dockerd", "--host", environ["DOCKER_HOST"], "--pidfile", f"{sockets}/pid"),
        *("--data-root", f"{place}/data", "--exec-root", f"{sockets}/exec"),
        *("--cgroup-parent", f"/{cgroup}", "--exec-opt", "native.cgroupdriver=cgroupfs"),
        *("--registry-mirror", f"http://{REGISTRY}"),
    ]
    with (place / "engine.log").open("wb") as log:
        daemon = await asyncio.create_subprocess_exec(
            *words, env=environ, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            preexec_fn=signal_at_parent_death(signal.SIGKILL),
        )  # fmt: skip
    try:
        while (await run("docker", "version", environ=environ)).code:
            if daemon.returncode is not None:
                tail = (place / "engine.log").read_text(errors="replace").strip().splitlines()
                raise CommandFailed(f"the engine does not start: {tail[-1] if tail else 'no reason given'}")
            await asyncio.sleep(0.1)
        yield environ
    finally:
        with contextlib.suppress(ProcessLookupError):
            daemon.terminate()
        try:
            async with asyncio.timeout(60):
                await daemon.wait()
        except TimeoutError:
            daemon.kill()
            await daemon.wait()


@contextlib.asynccontextmanager
async def registry(place: Path, environ: Mapping[str, str]) -> AsyncIterator[None]:
    """Runs an empty registry with its data in `place`."""
    storage = {"filesystem": {"rootdirectory": str(place / "registry")}}
    config = {"version": "0.1", "storage": storage, "http": {"addr": REGISTRY}, "log": {"level": "error"}}
    (place / "registry.yml").write_text(json.dumps(config))
    words = ("docker-registry", "serve", str(place / "registry.yml"))
    process = await asyncio.create_subprocess_exec(
        *words, env=environ, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        preexec_fn=signal_at_parent_death(signal.SIGKILL),
    )  # fmt: skip
    try:
        yield
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()


async def make_stand_ins(packed: Path, environ: Mapping[str, str]) -> None:
    """Makes images of Debian's packages under the names that the repository's files use."""
    path = "ENV PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
    await must("docker", "import", "--change", path, str(packed), STAND_IN, environ=environ)
    for name, settings in STAND_INS.items():
        recipe = f"FROM {STAND_IN}\n{settings}\n".encode()
        await must("docker", "build", "--tag", name, "-", environ=environ, given=recipe)
