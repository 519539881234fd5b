"""What `make release` builds, as somebody uses it who has nothing else of this project."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tomllib
from hashlib import sha256
from pathlib import Path
from urllib.request import Request, urlopen

import pytest

from snapurl.local.binaries import find_postgres, find_redis
from snapurl.local.free_ports import free_port
from tests.support.requirements import requires
from tests.support.waits import HANG_S, blocking_until

ROOT = Path(__file__).parents[2]
VERSION = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
LOCAL_HOST = "http://127.0.0.1"


@pytest.mark.long
@requires("what `make release` needs")
def test_a_release_is_complete_and_its_wheel_runs_a_cluster(tmp_path: Path) -> None:
    """The files of a release are sound, and `snapurl up` works from its wheel alone, in an empty environment."""
    out = tmp_path / "dist"
    told = said(sys.executable, ROOT / "deploy/release.py", out)
    files = {file.name.removeprefix(f"snapurl-{VERSION}"): file for file in out.iterdir()}
    assert {".tar.gz", "-py3-none-any.whl", ".cdx.json", ".md", "SHA256SUMS"} <= set(files)
    assert (".image.tar.gz" in files) is ("no image: no container engine answers" not in told)
    for line in files["SHA256SUMS"].read_text().splitlines():
        digest, name = line.split()
        assert sha256((out / name).read_bytes()).hexdigest() == digest
    assert files[".md"].read_text() in (ROOT / "CHANGELOG.md").read_text()
    sbom = json.loads(files[".cdx.json"].read_text())
    assert (sbom["metadata"]["component"]["name"], sbom["metadata"]["component"]["version"]) == (
        "snapurl",
        VERSION,
    )
    listed = {(each["name"].lower().replace("_", "-"), each["version"]) for each in sbom["components"]}
    assert {("htmx.org", "4.0.1"), ("swagger-ui-dist", "5.35.0")} <= listed
    pinned = re.findall(
        r"^([\w.-]+)==(\S+) \\$", (ROOT / "requirements/run.lock").read_text(), re.MULTILINE
    )  # those without a marker are for every platform
    assert set(pinned) - listed == set()
    assert str(tmp_path) not in files[".cdx.json"].read_text()

    bare = tmp_path / "bare"
    said(sys.executable, "-m", "venv", bare)
    said(bare / "bin/pip", "install", "--quiet", "--no-input", files["-py3-none-any.whl"])
    assert_runs_a_cluster(bare, tmp_path)


def said(*words: str | Path) -> str:
    """Returns what a program prints; it must succeed."""
    done = subprocess.run([*map(str, words)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def assert_runs_a_cluster(environment: Path, place: Path) -> None:
    """Runs `snapurl up` of an environment, makes a link and follows it."""
    found = [str(file.parent) for file in (find_postgres().postgres, find_redis().server)]
    port, log = free_port(set()), place / "up.log"
    with log.open("wb") as out:
        process = subprocess.Popen(
            [environment / "bin/snapurl", "up"],
            cwd=place,
            env={
                "PATH": os.pathsep.join((*found, os.environ["PATH"])),
                "SNAPURL_PORT": str(port),
                "SNAPURL_WORKERS": "1",
            },
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        blocking_until(lambda: "SnapURL is up at" in log.read_text() or process.poll() is not None)
        assert process.poll() is None, log.read_text()
        key = (place / ".snapurl/admin.key").read_text().strip()
        head = {"Content-Type": "application/json", "X-Api-Key": key}
        body = b'{"url": "https://example.org/x", "alias": "made"}'
        with urlopen(Request(f"{LOCAL_HOST}:{port}/api/v1/links", body, head)) as answer:
            assert json.load(answer)["code"] == "made"
        with urlopen(f"{LOCAL_HOST}:{port}/made+") as answer:
            assert b"https://example.org/x" in answer.read()
    finally:
        process.terminate()
        process.wait(HANG_S)
    assert process.returncode == 0, log.read_text()
