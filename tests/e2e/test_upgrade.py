"""An upgrade: workers of an earlier commit beside those of this one, on the schema of this one."""

from __future__ import annotations

import asyncio
import io
import subprocess
import sys
import tarfile
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx

from tests.integration.clicks.test_clicks import consumer, until_counted
from tests.integration.http.conftest import ServiceMaker
from tests.integration.http.service import Worker, environ_of, new_worker
from tests.integration.store.conftest import Store
from tests.support.requirements import skip_without
from tests.support.waits import HANG_S, until

ROOT = Path(__file__).parents[2]
EARLIER = "79e5b262bbbb"
"""The commit whose workers have to live with this schema. Once a version is released this is its tag."""


def earlier_program(place: Path) -> Path:
    """Returns a directory with the program of the earlier commit. Skips the test where there is no history."""
    words = ["git", "archive", "--format=tar", EARLIER, "ring", "snapurl", "tools", "migrations"]
    try:
        packed = subprocess.run(words, cwd=ROOT, capture_output=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        skip_without(f"the commit {EARLIER} of this repository")
    with tarfile.open(fileobj=io.BytesIO(packed)) as archive:
        archive.extractall(place, filter="data")
    return place


@asynccontextmanager
async def earlier_worker(program: Path, environ: dict[str, str]) -> AsyncIterator[Worker]:
    """Runs a worker of the earlier commit."""
    worker = new_worker({**environ, "PYTHONPATH": str(program)}, program)
    fds = worker.listener.fileno(), worker.metrics_listener.fileno()
    words = ("-m", "snapurl.run.worker", "--fd", str(fds[0]), "--metrics-fd", str(fds[1]))
    with worker.log.open("wb") as log:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, *words),
            cwd=program, env=worker.environ, pass_fds=fds, stdout=log, stderr=log,
        )  # fmt: skip
    worker.process = process  # started anew, not forked from this program
    try:
        await worker.answering()
        mapped = Path(f"/proc/{process.pid}/cwd")
        assert not mapped.exists() or mapped.readlink() == program
        yield worker
        assert await worker.stop() == 0, worker.log.read_text()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
        worker.close()


async def test_old_and_new_workers_serve_side_by_side(
    make_service: ServiceMaker, store: Store, tmp_path: Path
) -> None:
    """On the new schema workers of both versions serve and change each other's links, and every click counts."""
    program = earlier_program(tmp_path / "earlier")
    expected: Counter[str] = Counter()
    async with make_service() as service:
        environ = environ_of(service.settings, SNAPURL_MIGRATE_ON_START="false")
        async with earlier_worker(program, environ) as old:
            new = service.workers[0]
            for name, maker, other in (("by-old", old, new), ("by-new", new, old)):
                await serve(name, maker.url, other.url, service.admin_key)
                expected[name] += 2
            async with consumer(service.settings):
                await until_counted(store, expected)


async def serve(code: str, maker: str, other: str, key: str) -> None:
    """Makes a link at one worker, changes it at another, follows it once at each, deletes and restores it."""
    async with httpx.AsyncClient(headers={"X-Api-Key": key}, timeout=HANG_S) as client:
        link = {"url": "https://example.org/1", "alias": code, "tags": ["a"], "max_clicks": 1000, "note": "n"}
        made = await client.post(f"{maker}/api/v1/links", json=link)
        assert made.status_code == 201, made.text
        read = await client.get(f"{other}/api/v1/links/{code}")
        assert {field: read.json()[field] for field in ("url", "tags", "max_clicks", "note")} == {
            field: link[field] for field in ("url", "tags", "max_clicks", "note")
        }
        changed = await client.patch(
            f"{other}/api/v1/links/{code}",
            json={"url": "https://example.org/2"},
            headers={"If-Match": read.headers["etag"]},
        )
        assert changed.status_code == 200, changed.text

        async def is_changed() -> bool:
            return bool((await client.get(f"{maker}/api/v1/links/{code}")).json()["version"] == 2)

        await until(is_changed)
        for url in (maker, other):
            followed = await client.get(f"{url}/{code}")
            assert (followed.status_code, followed.headers["location"]) == (302, "https://example.org/2")
        for url, verb, path, status in (
            (maker, "DELETE", "", 204),
            (other, "POST", "/restore", 200),
        ):
            answer = await client.request(verb, f"{url}/api/v1/links/{code}{path}")
            assert answer.status_code == status, answer.text
        listed = await client.get(f"{other}/api/v1/links", params={"tags_all": "a"})
        assert code in {each["code"] for each in listed.json()["links"]}
