"""Builds the files of a release and checks them: `make release`.

It writes into one directory, from which it first removes what an earlier run has left:

    snapurl-VERSION.tar.gz             the sources (sdist)
    snapurl-VERSION-py3-none-any.whl   the program (wheel)
    snapurl-VERSION.cdx.json           what the image is made of, besides its base image (SBOM, CycloneDX)
    snapurl-VERSION.image.tar.gz       the image, for `docker load`; only where a container engine answers
    snapurl-VERSION.md                 what has changed: the section of CHANGELOG.md
    SHA256SUMS

Each failure is one line on stderr and exit code 1. Nothing is uploaded or tagged.
"""

from __future__ import annotations

import gzip
import json
import re
import shutil
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterator
from hashlib import file_digest
from pathlib import Path
from typing import Any, NoReturn

ROOT = Path(__file__).parents[1]
ENGINES = ("docker", "podman")


def fail(why: str) -> NoReturn:
    sys.exit(f"release: {why}")


def run(*words: str | Path) -> str:
    """Returns what a program prints. Ends the release with its output if it fails."""
    done = subprocess.run(  # noqa: S603  # programs of this environment, and a container engine
        [str(word) for word in words],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if done.returncode:
        fail(f"{' '.join(str(word) for word in words[:4])} … failed:\n{done.stdout.rstrip()}")
    return done.stdout


def module(name: str, *words: str | Path) -> str:
    return run(sys.executable, "-m", name, *words)


def empty(out: Path) -> None:
    """Makes the directory, and removes the files of an earlier release in it. Ends if there are any others."""
    out.mkdir(parents=True, exist_ok=True)
    files = list(out.iterdir())
    others = [file.name for file in files if not re.match(r"snapurl-|SHA256SUMS$|\.gitignore$", file.name)]
    if others:
        fail(f"{out} has files of something else, such as {others[0]}: name another directory")
    for file in files:
        file.unlink()


def changes(version: str) -> tuple[str, str]:
    """Returns the section of CHANGELOG.md for a version without its heading, and the date in the heading."""
    text = (ROOT / "CHANGELOG.md").read_text("utf-8")
    found = re.search(
        rf"^## \[{re.escape(version)}\] - (\S+)\n(.*?)(?=^## \[|\Z)", text, re.MULTILINE | re.DOTALL
    )
    if found is None or not found[2].strip():
        fail(f"CHANGELOG.md has no section '## [{version}] - DATE'")
    return found[2].strip() + "\n", found[1]


def vendored() -> Iterator[dict[str, Any]]:
    """Yields a CycloneDX component for each package of other projects whose files are in the wheel."""
    for file in sorted((ROOT / "snapurl").rglob("VENDORED.toml")):
        for name, said in tomllib.loads(file.read_text("utf-8")).items():
            purl = f"pkg:npm/{name}@{said['version']}"
            yield {
                "bom-ref": purl,
                "type": "library",
                "name": name,
                "version": said["version"],
                "purl": purl,
                "licenses": [{"license": {"id": said["licence"]}}],
            }


def write_sbom(wheel: Path, place: Path) -> None:
    """Writes the SBOM of an environment with the wheel and the pinned dependencies, made as the Dockerfile does."""
    with tempfile.TemporaryDirectory() as directory:
        module("venv", "--without-pip", directory)
        python = Path(directory) / "bin/python"
        pip = ("pip", "--quiet", "--disable-pip-version-check", "--no-input", "--python", python)
        module(*pip, "install", "--require-hashes", "-r", "requirements/run.lock")
        module(*pip, "install", "--no-deps", "--no-index", wheel)
        module(*pip, "check")
        run(python, "-m", "snapurl", "--version")
        module(
            *("cyclonedx_py", "environment", "--output-reproducible", "--pyproject", "pyproject.toml"),
            *("--mc-type", "application", "--output-file", place, python),
        )
    sbom = json.loads(place.read_text("utf-8"))
    sbom["components"] += vendored()
    place.write_text(json.dumps(sbom, indent=1, ensure_ascii=False) + "\n", "utf-8")


def engine() -> str | None:
    """Returns the path of a program whose container engine answers; None if there is none."""
    for name in ENGINES:
        path = shutil.which(name)
        if path and not subprocess.run([path, "info"], capture_output=True, check=False).returncode:  # noqa: S603
            return path
    return None


def build_image(program: str, version: str, place: Path) -> None:
    """Builds the image and saves it, compressed."""
    image = f"snapurl:{version}"
    run(program, "build", "--tag", image, "--label", f"org.opencontainers.image.version={version}", ".")
    with (
        gzip.open(place, "wb") as archive,
        subprocess.Popen(  # noqa: S603
            [program, "save", image], stdout=subprocess.PIPE
        ) as saved,
    ):
        assert saved.stdout is not None
        shutil.copyfileobj(saved.stdout, archive)
    if saved.returncode:
        fail(f"{program} save {image} failed")


def main(out: Path) -> None:
    """Builds everything into `out`."""
    version = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["version"]
    notes, date = changes(version)
    empty(out)
    named = out / f"snapurl-{version}"
    module("hatchling", "build", "-t", "sdist", "-t", "wheel", "-d", out)
    wheel, sdist = named.with_name(f"{named.name}-py3-none-any.whl"), named.with_name(f"{named.name}.tar.gz")
    module("check_wheel_contents", wheel)
    module("twine", "check", "--strict", wheel, sdist)
    named.with_name(f"{named.name}.md").write_text(notes, "utf-8")
    write_sbom(wheel, named.with_name(f"{named.name}.cdx.json"))
    if program := engine():
        build_image(program, version, named.with_name(f"{named.name}.image.tar.gz"))
    else:
        print(f"no image: no container engine answers ({' or '.join(ENGINES)})")
    files = sorted(out.iterdir())
    sums = [f"{file_digest(file.open('rb'), 'sha256').hexdigest()}  {file.name}\n" for file in files]
    (out / "SHA256SUMS").write_text("".join(sums))
    for file in files:
        print(f"{file.stat().st_size / 1e6:7.2f} MB  {file}")
    if not re.fullmatch(r"\d{4}-\d\d-\d\d", date):
        print(f"not to be published: CHANGELOG.md dates {version} as {date}")


if __name__ == "__main__":
    main((ROOT / sys.argv[1]).resolve())
