"""The content of the wheel, and the pinned dependencies."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
import tomllib
import zipfile
from hashlib import sha256
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from snapurl.run.up import MIGRATOR_MODULE
from tests.support.vendored import Vendored, all_vendored

ROOT = Path(__file__).parents[2]
LOCKS = sorted((ROOT / "requirements").glob("*.lock"))
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    place = tmp_path_factory.mktemp("wheel")
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(place)],
        cwd=ROOT, check=True, capture_output=True,
    )  # fmt: skip
    return zipfile.ZipFile(next(place.glob("*.whl")))


def test_wheel_carries_the_program_and_its_data(wheel: zipfile.ZipFile) -> None:
    """The wheel contains every module, every data file and the licence."""
    names = set(wheel.namelist())
    for package in ("ring", "snapurl", "tools", "migrations"):
        files = [
            file
            for file in (ROOT / package).rglob("*")
            if file.suffix in (".py", ".sql", ".lua", ".css", ".html", ".js", ".toml")
        ]
        assert files
        assert {str(file.relative_to(ROOT)) for file in files} <= names
    assert any(name.endswith("licenses/LICENSE") for name in names)


def test_wheel_carries_nothing_else(wheel: zipfile.ZipFile) -> None:
    """The wheel contains no tests, benchmarks or files of the repository's root."""
    tops = {name.split("/")[0] for name in wheel.namelist()}
    assert {top for top in tops if not top.endswith(".dist-info")} == {
        "ring",
        "snapurl",
        "tools",
        "migrations",
    }


def test_the_migrator_that_up_starts_is_the_installed_command() -> None:
    """`snapurl up` starts the program that is installed as `snapurl-reshard`, and that program exists."""
    assert PROJECT["scripts"]["snapurl-reshard"] == f"{MIGRATOR_MODULE}:main"
    assert importlib.util.find_spec(MIGRATOR_MODULE) is not None


def test_installed_ring_is_ours(wheel: zipfile.ZipFile, tmp_path: Path) -> None:
    """The installed `ring` is this project's package, not the library of that name on the package index."""
    wheel.extractall(tmp_path)
    program = (
        "import sys; sys.path.insert(0, sys.argv[1]); import ring.slots as s; print(s.__file__, s.SLOT_COUNT)"
    )
    done = subprocess.run(
        [sys.executable, "-I", "-c", program, str(tmp_path)], check=True, capture_output=True, text=True
    )
    assert done.stdout.split() == [str(tmp_path / "ring" / "slots.py"), "16384"]


def test_packages_of_this_environment_are_ours() -> None:
    """The tests run against the packages of this repository, not against namesakes."""
    for name in ("ring", "snapurl", "tools", "migrations"):
        spec = importlib.util.find_spec(name)
        assert spec is not None and spec.origin is not None
        assert Path(spec.origin).parent == ROOT / name


OWN_FILES = {"swagger-ui-dist": {"start.js"}}
"""The files of ours beside those of each vendored package."""


@pytest.mark.parametrize("vendored", all_vendored(), ids=lambda vendored: vendored.package)
def test_vendored_files_are_unchanged(vendored: Vendored) -> None:
    """Each file of another project has the SHA-256 that VENDORED.toml names, and its licence is there."""
    found = {path: sha256(vendored.file(path).read_bytes()).hexdigest() for path in vendored.digests}
    assert found == vendored.digests
    assert "LICENSE" in vendored.digests
    names = {vendored.file(path).name for path in vendored.digests}
    assert {file.name for file in vendored.place.iterdir()} == {
        *names,
        *OWN_FILES.get(vendored.package, ()),
        "VENDORED.toml",
    }


def pinned(lock: Path) -> dict[str, list[str]]:
    """Returns the pinned versions by canonical name (several if they differ by platform)."""
    found: dict[str, list[str]] = {}
    for name, version in re.findall(r"^([A-Za-z0-9._-]+)==(\S+)", lock.read_text(), re.MULTILINE):
        found.setdefault(canonicalize_name(name), []).append(version)
    return found


def asked(*extras: str) -> list[Requirement]:
    """Returns the direct dependencies and those of `extras`."""
    lines = [*PROJECT["dependencies"]]
    for extra in extras:
        lines += PROJECT["optional-dependencies"][extra]
    return [Requirement(line) for line in lines]


@pytest.mark.parametrize(
    ("lock", "extras"),
    [
        ("run", ()),
        ("local", ("local",)),
        ("bench", ("bench",)),
        ("docs", ("docs",)),
        ("dev", ("local", "dev")),
        ("release", ("release",)),
    ],
)
def test_lock_has_every_dependency(lock: str, extras: tuple[str, ...]) -> None:
    """Each dependency is pinned at a version that pyproject allows; after a change, run `make lock`."""
    versions = pinned(ROOT / "requirements" / f"{lock}.lock")
    for requirement in asked(*extras):
        found = versions.get(canonicalize_name(requirement.name), [])
        assert found, f"{requirement.name} is not in {lock}.lock: run `make lock`"
        assert all(requirement.specifier.contains(version) for version in found)


@pytest.mark.parametrize("lock", LOCKS, ids=lambda path: path.stem)
def test_lock_is_hashed_and_names_no_host(lock: Path) -> None:
    """Every pin has hashes, and no lock file names a package host."""
    text = lock.read_text()
    for entry in re.split(r"\n(?=[A-Za-z0-9])", text):
        if "==" in entry:
            assert "--hash=sha256:" in entry
    assert not re.search(r"https?:|//|--index|--extra-index|--find-links", text)


def test_locks_agree() -> None:
    """A package has the same version in all lock files."""
    versions: dict[str, list[str]] = {}
    for lock in LOCKS:
        for name, found in pinned(lock).items():
            assert versions.setdefault(name, found) == found, f"{name} differs: run `make lock`"
