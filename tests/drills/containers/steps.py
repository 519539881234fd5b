"""The steps of the drill: each does what the documents say, under traffic, and checks what they promise."""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
import random
import re
import ssl
import sys
import tarfile
import tomllib
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any

import httpx
import trustme

from ring.slots import slot_of
from tests.drills.containers.engine import REGISTRY, STAND_INS, CommandFailed, must, registry
from tests.drills.containers.project import STATUS_EVERY_S, Project
from tests.drills.containers.report import Report, Step
from tests.drills.containers.traffic import LINKS, PER_SECOND, Request, Traffic

URL = "http://127.0.0.1:8000"
LINKS_BEFORE = 200
REPLICAS = 3
WORKERS = 2  # of a replica
SHARDS = ("db0", "db1", "db2", "db3")
ADDRESS = "{0}=postgresql://{0}:5432/snapurl?sslmode=disable"
REPLICAS_IN_USE = ("exec", "-T", "proxy", "wget", "-q", "-O", "-", "http://127.0.0.1:8404/replicas")
METRICS_PROBE = ("snapurl-probe", "http://127.0.0.1:9100/health/ready")
LED_IN_A_ROW = 8 * REPLICAS * WORKERS
STOP_S_MAX = 10.0
STATUS_S_MAX = 8.0
ASKING_AT_A_TIME = 16
WRONG_IN_LOGS = re.compile(r"Traceback|never retrieved|Task exception|unhandled", re.IGNORECASE)


def tar_of(content: str) -> bytes:
    """Returns a tar file with one file, as the file system of an image that runs nothing."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        entry = tarfile.TarInfo("name")
        entry.size = len(content)
        archive.addfile(entry, io.BytesIO(content.encode()))
    return packed.getvalue()


class Drill:
    """One run. `traffic` exists after the first step."""

    def __init__(self, project: Project, report: Report, rng: random.Random) -> None:
        self._project = project
        self._report = report
        self._rng = rng
        self._lost_max = 0  # clicks that killed replicas may have lost
        self._extra_max = 0  # redirects that were answered but whose answers were lost
        self.traffic: Traffic

    async def run(self, only: list[str]) -> None:
        with self._report.step("start") as step:
            await self.start(step)
        if step.broken:
            return
        async with self.traffic.flowing():
            for name in ("scale", "stop", "kill", "grow", "upgrade", "drain"):
                if not only or name in only:
                    await STEPS[name](self)
        for name in ("down", "tls", "release", "pin"):
            if not only or name in only:
                await STEPS[name](self)

    # -- start ---------------------------------------------------------------------------------------------------

    async def start(self, step: Step) -> None:
        """Runs the first commands of the page word for word; they end with a key."""
        commands = self._project.blocks["Containers on one host"][0]
        said = await self._project.shell(commands)
        step.note("the page's commands end with 0")
        self.traffic = Traffic(URL, said.strip().splitlines()[-1].strip(), self._rng)
        await self.traffic.create(LINKS_BEFORE)
        unhealthy = await self._project.unhealthy()
        step.expect(not unhealthy, f"not healthy: {unhealthy}")
        image = await self._project.docker("image", "inspect", "--format", "{{.Id}}", "snapurl")
        await self._project.compose("build")
        again = await self._project.docker("image", "inspect", "--format", "{{.Id}}", "snapurl")
        step.expect(image == again, "building unchanged sources again gives another image")

    # -- replicas ------------------------------------------------------------------------------------------------

    async def in_use(self) -> int:
        said = await self._project.try_compose(*REPLICAS_IN_USE)
        return int(said.text) if said.code == 0 and said.text.strip().isdigit() else 0

    async def until_in_use(self, count: int) -> None:
        """Waits until the proxy uses that many replicas, and everything is healthy."""

        async def wrong() -> list[str]:
            used = await self.in_use()
            return [] if used == count else [f"the proxy uses {used} replicas instead of {count}"]

        await self._project.until_empty(wrong)
        await self._project.until_healthy()

    async def to_replicas(self, count: int) -> None:
        await self._project.shell(f"docker compose up --detach --scale api={count}")
        await self.until_in_use(count)

    async def scale(self) -> None:
        with self._report.step(f"scale api {REPLICAS} -> 1 -> {REPLICAS}, three times") as step:
            await self.to_replicas(REPLICAS)
            async with self.traffic.window() as window:
                for _ in range(3):
                    await self.to_replicas(1)
                    await self.to_replicas(REPLICAS)
            step.none_failed(window)

    async def stop(self) -> None:
        await self.to_replicas(REPLICAS)
        with self._report.step("docker stop of each replica, and start again") as step:
            async with self.traffic.window() as window:
                for each in await self._project.containers("api"):
                    await self._project.docker("stop", each["Id"])
                    await self._project.docker("start", each["Id"])
                    await self.until_in_use(REPLICAS)
            step.none_failed(window)
        await self.clicks_are_right("clicks after orderly stops")

    async def upgrade(self) -> None:
        await self.to_replicas(REPLICAS)
        with self._report.step("upgrade to a new image, by the page's command") as step:
            with (self._project.place / "snapurl" / "__init__.py").open("a") as source:
                source.write('\nNEWER = "a release later"\n')
            before = {each["Id"] for each in await self._project.containers("api", "clicks", "migrator")}
            async with self.traffic.window() as window:
                await self._project.shell(self._project.blocks["Upgrade"][0])
                await self.until_in_use(REPLICAS)
            step.none_failed(window)
            after = await self._project.containers("api", "clicks", "migrator")
            image = (await self._project.docker("image", "inspect", "--format", "{{.Id}}", "snapurl")).strip()
            step.expect(not before & {each["Id"] for each in after}, "a container of the old image is left")
            step.expect(
                {each["Image"] for each in after} == {image}, "a container does not run the new image"
            )
            await self._project.shell("docker compose up --detach --wait --scale api=3")
            again = {each["Id"] for each in await self._project.containers("api", "clicks", "migrator")}
            step.expect(
                again == {each["Id"] for each in after}, "`up` after the upgrade recreates containers"
            )

    # -- kills ---------------------------------------------------------------------------------------------------

    async def kill(self) -> None:
        await self.to_replicas(REPLICAS)
        for container in await self._project.containers():
            service = container["Config"]["Labels"]["com.docker.compose.service"]
            if service != "migrate":
                with self._report.step(f"SIGKILL of {container['Name'].removeprefix('/')}") as step:
                    await self._kill(step, service, container)
        await self.clicks_are_right("clicks after kills")

    async def _kill(self, step: Step, service: str, container: dict[str, Any]) -> None:
        clock = asyncio.get_running_loop().time
        slots = await self._slots_of(service) if service.startswith("db") else set()
        async with self.traffic.window() as window:
            await asyncio.sleep(1)
            began = clock()
            await self._project.kill(container)
            killed = clock()
            await self._project.until_empty(lambda: self._runs_again(container))
            await self.until_in_use(REPLICAS)
            await self._until_led(slots)
            back = clock()
            await asyncio.sleep(1)

        def in_its_hands(request: Request) -> bool:
            under_way = request.began <= killed + 0.1 and request.ended >= began
            if service == "proxy":
                return under_way or request.began <= back
            if service.startswith("db"):
                is_its_own = bool(request.code) and slot_of(request.code) in slots
                return under_way or (request.began <= back and is_its_own)
            return under_way and service == "api"

        step.note(f"{window}; all well after {back - began:.1f} s")
        others = [each for each in window.failed if not in_its_hands(each)]
        told = Counter(f"{each.kind} {each.failure} {each.began - killed:.0f} s after" for each in others)
        step.expect(not others, f"{len(others)} failed that were not in its hands: {dict(told)}")
        self._extra_max += sum(each.kind == "redirect" for each in window.failed)
        if service == "api":
            self._lost_max += PER_SECOND  # those of a second; README says 100 ms, normally

    async def _until_led(self, slots: set[int]) -> None:
        """Waits until every worker, as far as many requests tell, leads to the links of these slots again."""
        codes = [code for code in self.traffic.codes[:LINKS_BEFORE] if slot_of(code) in slots]
        right = 0
        while codes and right < LED_IN_A_ROW:
            code = self._rng.choice(codes)
            led = await self.traffic.leads(code)
            right = right + 1 if led else 0
            await asyncio.sleep(0 if led else 0.1)

    async def _runs_again(self, before: dict[str, Any]) -> list[str]:
        (now,) = [each for each in await self._project.containers() if each["Id"] == before["Id"]]
        started = now["State"]["StartedAt"] != before["State"]["StartedAt"]
        return [] if started else [f"{now['Name']} has not been started again"]

    async def _slots_of(self, shard: str) -> set[int]:
        found = await self._query(shard, "SELECT slot FROM slots WHERE state = 'owned'")
        return {int(line) for line in found.split()}

    # -- shards --------------------------------------------------------------------------------------------------

    async def grow(self) -> None:
        with self._report.step("db4 is added, by the page's commands") as step:
            async with self.traffic.window() as window:
                await self._project.shell(self._project.blocks["One more shard, while traffic goes on"][0])
                await self._project.until_settled()
            step.none_failed(window)
            names = [each["name"] for each in (await self._project.status())["shards"]]
            step.expect(names == [*SHARDS, "db4"], f"the shards are {names}")
            self._project.write_settings(COMPOSE_PROFILES="scale-out", MORE_SHARDS=ADDRESS.format("db4"))

    async def drain(self) -> None:
        left = [*SHARDS, "db4"]
        for name in SHARDS:
            left.remove(name)
            with self._report.step(f"{name} is drained and switched off") as step:
                await self._drain(step, name, left)
        await self.clicks_are_right("clicks after every shard has changed")

    async def _drain(self, step: Step, name: str, left: list[str]) -> None:
        clock = asyncio.get_running_loop().time

        async def still_there() -> list[str]:
            shards = [each["name"] for each in (await self._project.status())["shards"]]
            return await self._project.unsettled() + (
                [f"{name} is in the topology"] if name in shards else []
            )

        async with self.traffic.window() as window:
            began = clock()
            drain, stop = self._project.blocks["One shard fewer"][0].replace("db0", name).splitlines()
            await self._project.shell(drain)
            step.note(f"drained in {clock() - began:.1f} s")
            left_behind = await still_there()
            step.expect(not left_behind, f"the command has ended, but {left_behind}")
            await self._project.until_empty(still_there, pause_s=STATUS_EVERY_S)
            await self._project.shell(stop)
            began = clock()
            await self._project.until_settled()
            step.note(f"status {clock() - began:.1f} s after it was off")
            began = clock()
            wrong = await self._project.unsettled()
            step.expect(
                not wrong and clock() - began < STATUS_S_MAX, f"status {clock() - began:.1f} s: {wrong}"
            )
            for service in ("clicks", "migrator"):
                said = await self._project.try_compose("exec", "-T", service, *METRICS_PROBE)
                step.expect(said.code == 0, f"{service}: {said.last}")
            began = clock()
            await self._project.compose("restart", "migrator", "clicks")
            step.note(f"migrator and consumer restarted in {clock() - began:.1f} s")
            step.expect(clock() - began < 2 * STOP_S_MAX, "a restart takes too long")
            await self._project.until_settled()
            services = ["api", "clicks", "migrator", "proxy", "redis", *left]
            await self._project.until_healthy(*services)
        step.none_failed(window)
        logs = await self._project.compose(
            "logs", "--no-color", "--since", "60s", "api", "clicks", "migrator"
        )
        wrong_lines = [line for line in logs.splitlines() if WRONG_IN_LOGS.search(line)]
        step.expect(not wrong_lines, f"in the logs: {wrong_lines[:3]}")
        first = [each for each in left if each in SHARDS]
        self._project.write_settings(
            **{f"{name.upper()}_REPLICAS": "0"},
            SHARDS=" ".join(ADDRESS.format(each) for each in first or left),
            MORE_SHARDS=ADDRESS.format("db4") if first else "",
        )

    # -- the end -------------------------------------------------------------------------------------------------

    async def down(self) -> None:
        with self._report.step("down, and up again") as step:
            before = await self._counted()
            await self._project.shell("docker compose down")
            await self._project.shell("docker compose up --detach --wait")
            await self._project.until_settled()
            running = {each["Name"] for each in await self._project.containers()}
            gone = [name for name in SHARDS if self._project.settings.get(f"{name.upper()}_REPLICAS") == "0"]
            back = [name for name in gone if f"/snapurl-{name}-1" in running]
            step.expect(not back, f"drained shards run again: {back}")
            after = await self._counted()
            step.expect(
                before == after, f"{len(before)} links had {before.total()} clicks, now {after.total()}"
            )
            await self.links_are_there(step)

    async def links_are_there(self, step: Step) -> None:
        answers = await self._ask_each(lambda code: self.traffic.api.get(f"/{code}"))
        wrong = {code: answer.status_code for code, answer in answers.items() if answer.status_code != 302}
        self.traffic.clicks.update(answers.keys() - wrong.keys())
        step.note(f"{len(answers):,} links lead where they did")
        step.expect(not wrong, f"{len(wrong)} links do not: {list(wrong.items())[:3]}")

    async def tls(self) -> None:
        with self._report.step("TLS, by the page's file") as step:
            authority = trustme.CA()
            issued = authority.issue_cert("127.0.0.1")
            file = self._project.place / "secrets" / "tls_certificate.pem"
            file.write_bytes(
                b"".join(each.bytes() for each in issued.cert_chain_pems) + issued.private_key_pem.bytes()
            )
            file.chmod(0o444)
            files = "docker-compose.yml:deploy/compose/tls.yml"
            self._project.write_settings(COMPOSE_FILE=files, PUBLISH_TLS="443")
            await self._project.shell("docker compose up --detach --wait")
            context = ssl.create_default_context()
            authority.configure_trust(context)
            code = self.traffic.codes[0]
            async with httpx.AsyncClient(verify=context) as client:
                answer = await client.get(f"https://127.0.0.1/{code}")
                step.expect(answer.status_code == 302, f"a link over TLS answers {answer.status_code}")
                step.note(f"a link over TLS answers {answer.status_code}")
            plain = await self.traffic.api.get(f"/{code}")
            step.note(f"without TLS {plain.status_code}, to {plain.headers.get('location', 'nowhere')}")

    async def release(self) -> None:
        """Builds the image as `make release` does, and runs what is in the file that it saves."""
        with self._report.step("the image of a release: built, saved, loaded, run") as step:
            place = self._project.place
            version = tomllib.loads((place / "pyproject.toml").read_text())["project"]["version"]
            image = f"snapurl:{version}"
            build = (
                "from pathlib import Path; from deploy.release import build_image;"
                f"build_image('docker', '{version}', Path('image.tar.gz'))"
            )
            await must(sys.executable, "-c", build, environ=self._project.environ, cwd=place)
            await self._project.docker("rmi", image)
            await self._project.docker("load", "--input", str(place / "image.tar.gz"))
            said = (await self._project.docker("run", "--rm", image, "--version")).strip()
            step.expect(version in said, f"--version says {said}")
            step.note(f"{(place / 'image.tar.gz').stat().st_size / 1e6:.0f} MB; --version says {said}")

    async def pin(self) -> None:
        """The images' names get other images of a registry: last, since nothing would run with those."""
        with self._report.step("images by digest, by the page's command") as step:
            await self._project.compose("down")
            place = self._project.place
            async with registry(place.parent, self._project.environ):
                first, second = await self._pinned("one"), await self._pinned("two")
            for found in (first, second):
                step.expect(len(found) == len(set(found.values())) == len(STAND_INS), f"pinned: {found}")
            step.expect(not set(first.values()) & set(second.values()), "a newer image is not taken")
            self._project.write_settings(COMPOSE_FILE="docker-compose.yml:deploy/compose/images.yml")
            read = json.loads(await self._project.compose("config", "--format", "json"))["services"]
            images = {name: read[name]["image"] for name in ("db1", "redis", "proxy")}
            images["migrate"] = read["migrate"]["build"]["args"]["PYTHON"]
            wrong = {name: image for name, image in images.items() if image not in second.values()}
            step.expect(not wrong, f"Compose would run {wrong}")
            step.note(", ".join(sorted(image[: image.index("@") + 15] for image in images.values())))

    async def _pinned(self, content: str) -> dict[str, str]:
        """Pushes other images under the names to the registry, and pins them. Returns `name@digest` by name."""
        for name in STAND_INS:
            packed = tar_of(f"{name} {content}")
            pushed = f"{REGISTRY}/library/{name}"
            await must("docker", "import", "-", pushed, environ=self._project.environ, given=packed)
            await self._project.docker("push", pushed)
            await self._project.docker("rmi", pushed)
        await self._project.shell("sh deploy/compose/pin-images.sh")
        written = (self._project.place / "deploy/compose/images.yml").read_text()
        return {
            found.partition("@")[0]: found for found in re.findall(r'"([^"]+@sha256:[0-9a-f]{64})"', written)
        }

    # -- clicks --------------------------------------------------------------------------------------------------

    async def _ask_each(self, ask: Callable[[str], Awaitable[httpx.Response]]) -> dict[str, httpx.Response]:
        turns = asyncio.Semaphore(ASKING_AT_A_TIME)

        async def one(code: str) -> httpx.Response:
            async with turns:
                return await ask(code)

        codes = list(self.traffic.codes)
        return dict(zip(codes, await asyncio.gather(*map(one, codes)), strict=True))

    async def _counted(self) -> Counter[str]:
        """Returns the clicks of each link, from the shards that own them."""
        statement = (
            "SELECT code || ' ' || clicks FROM click_totals JOIN slots USING (slot) WHERE state = 'owned'"
        )
        shards = [each["name"] for each in (await self._project.status())["shards"]]
        lines: list[str] = []
        for shard in shards:
            lines += (await self._query(shard, statement)).splitlines()
        return Counter({code: int(clicks) for code, clicks in (line.split() for line in lines)})

    async def _query(self, shard: str, statement: str) -> str:
        words = ("psql", "-U", "snapurl", "-d", "snapurl", "-t", "-A", "-c", statement)
        return await self._project.compose("exec", "-T", shard, *words)

    async def clicks_are_right(self, name: str) -> None:
        """Compares the clicks that the service tells with the redirects that visitors got until now."""
        with self._report.step(name) as step:
            told: Counter[str] = Counter()

            async def differ() -> list[str]:
                before = self.traffic.clicks.copy()
                told.clear()
                told.update(await self._counted())
                after = self.traffic.clicks
                low = sum(max(0, clicks - told[code]) for code, clicks in before.items())
                high = sum(max(0, clicks - after[code]) for code, clicks in told.items())
                few = low > self._lost_max
                many = high > self._extra_max + ASKING_AT_A_TIME
                return [f"{low} clicks are missing"] * few + [f"{high} are too many"] * many

            with contextlib.suppress(CommandFailed):
                await self._project.until_empty(differ, seconds_max=15)
            wrong = await differ()
            some = self._rng.sample(sorted(told), ASKING_AT_A_TIME)
            shown = {
                code: (await self.traffic.api.get(f"{LINKS}/{code}/stats")).json()["clicks"] for code in some
            }
            less = {code: clicks for code, clicks in shown.items() if clicks < told[code]}
            step.note(f"{told.total():,} clicks of {len(told):,} links")
            step.expect(not less, f"the API tells fewer than the shards have: {less}")
            step.expect(not wrong, "; ".join(wrong))


STEPS: dict[str, Callable[[Drill], Awaitable[None]]] = {
    "scale": Drill.scale,
    "stop": Drill.stop,
    "kill": Drill.kill,
    "grow": Drill.grow,
    "upgrade": Drill.upgrade,
    "drain": Drill.drain,
    "down": Drill.down,
    "tls": Drill.tls,
    "release": Drill.release,
    "pin": Drill.pin,
}
