"""Fetches the engine, Compose, and one file system for all base images, from Debian's packages.

Nothing is installed on the machine: packages are unpacked into a directory, which later runs use again. The
file system is Debian 13 (`SUITE`) with Python, PostgreSQL, Redis and HAProxy, and the wheels that the Dockerfile
installs, so that the image can be built without a network.
"""

from __future__ import annotations

import hashlib
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from urllib.parse import urlsplit

from tests.support.requirements import program

ROOT = Path(__file__).parents[3]
STAND_INS = Path(__file__).parent / "stand_ins"
SUITE = "trixie"
ENGINE = ("docker.io", "iptables", "docker-registry")
IN_IMAGES = ("python3", "python3-venv", "postgresql", "redis-server", "haproxy", "busybox")
LOCKS = ("build", "run")
_LIBRARIES = ("usr/lib/x86_64-linux-gnu", "usr/lib/aarch64-linux-gnu", "lib/x86_64-linux-gnu")
_PIP_OPTIONS = ("cert", "extra-index-url", "index-url", "proxy", "timeout", "default-timeout")


class CannotBeHad(Exception):
    """A package or program that the drill needs cannot be had on this machine."""


def why_not() -> str | None:
    """Returns why the drill cannot run here, or None if it can as far as one can tell beforehand."""
    if sys.platform != "linux":
        return "Docker's engine needs Linux"
    if os.geteuid() != 0:
        return "only root may start Docker's engine"
    for name in ("apt-get", "dpkg", "debootstrap", "unshare"):
        if not program(name):
            return f"no {name} here: the engine and the base images are made from Debian's packages"
    return None


def _run(words: Sequence[str | Path], environ: Mapping[str, str] | None = None) -> str:
    """Returns what a command writes to stdout. Raises CannotBeHad with the last line of stderr."""
    done = subprocess.run(
        [str(word) for word in words],
        env={**os.environ, "DEBIAN_FRONTEND": "noninteractive", "LC_ALL": "C.UTF-8", **(environ or {})},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        last = (done.stderr.strip() or done.stdout.strip() or "no reason given").splitlines()[-1]
        raise CannotBeHad(f"{shlex.join(str(word) for word in words[:2])} failed: {last}")
    return done.stdout


class _Packages:
    """Packages of a release of Debian, or of this machine's own sources, without a change of the machine."""

    def __init__(self, place: Path, source: str | None = None) -> None:
        self._place = place
        for name in ("lists", "archives"):
            (place / name / "partial").mkdir(parents=True, exist_ok=True)
        self._options = [
            "-qq",
            *("-o", "APT::Sandbox::User=root"),
            *("-o", f"Dir::State::Lists={place}/lists"),
            *("-o", f"Dir::Cache::Archives={place}/archives"),
        ]
        if source:
            (place / "sources.list").write_text(source + "\n")
            self._options += ["-o", f"Dir::Etc::SourceList={place}/sources.list"]
            self._options += ["-o", "Dir::Etc::SourceParts=/dev/null"]
        _run(["apt-get", *self._options, "update"])

    def fetch_missing(self, names: Sequence[str]) -> None:
        """Fetches packages, and those that they need, unless they are installed."""
        words = ["install", "--download-only", "--yes", "--no-install-recommends", *names]
        _run(["apt-get", *self._options, *words])

    def fetch(self, name: str) -> None:
        """Fetches one package, whatever is installed."""
        words = [shlex.quote(word) for word in ("apt-get", *self._options, "download", name)]
        _run(["sh", "-c", f"cd {shlex.quote(str(self._place))}/archives && {' '.join(words)}"])

    def unpack(self, target: Path) -> None:
        for package in sorted((self._place / "archives").glob("*.deb")):
            _run(["dpkg", "-x", package, target])


def mirror() -> str:
    """Returns the address from which this machine gets Debian's packages."""
    targets = _run(["apt-get", "indextargets", "--format", "$(LABEL) $(REPO_URI)", "Created-By: Packages"])
    for line in targets.splitlines():
        label, _, address = line.rpartition(" ")
        if label == "Debian":
            return address
    raise CannotBeHad("this machine has no source of Debian's packages")


def fetch_engine(home: Path) -> dict[str, str]:
    """Fetches the engine and Compose into `home`. Returns the environment in which they run."""
    unpacked, done = home / "engine", home / "engine" / "complete"
    wanted = f"{' '.join(ENGINE)} {SUITE}"
    if not done.exists() or done.read_text() != wanted:
        shutil.rmtree(unpacked, ignore_errors=True)
        own = _Packages(home / "packages")
        own.fetch_missing(ENGINE)
        own.unpack(unpacked)
        keys = "/usr/share/keyrings/debian-archive-keyring.gpg"
        newer = _Packages(home / "newer-packages", f"deb [signed-by={keys}] {mirror()} {SUITE} main")
        newer.fetch("docker-compose")
        newer.unpack(unpacked / "compose")
        _name_alternatives(unpacked)
        plugins = unpacked / "config" / "cli-plugins"
        plugins.mkdir(parents=True)
        found = next((unpacked / "compose").rglob("cli-plugins/docker-compose"))
        (plugins / "docker-compose").symlink_to(found)
        done.write_text(wanted)
    places = [unpacked / name for name in ("bin", "usr/bin", "usr/sbin", "sbin")]
    libraries = [unpacked / name for name in _LIBRARIES if (unpacked / name).is_dir()]
    environ = {
        "PATH": os.pathsep.join([*map(str, places), os.environ["PATH"], "/usr/sbin", "/sbin"]),
        "LD_LIBRARY_PATH": os.pathsep.join(map(str, libraries)),
        "DOCKER_CONFIG": str(unpacked / "config"),
    }
    if extensions := [str(each / "xtables") for each in libraries if (each / "xtables").is_dir()]:
        environ["XTABLES_LIBDIR"] = extensions[0]  # where iptables is installed, it knows
    return environ


def _name_alternatives(unpacked: Path) -> None:
    """Makes the names that the installation of `iptables` would make."""
    (unpacked / "bin").mkdir(exist_ok=True)
    for name in ("iptables", "ip6tables"):
        if (real := unpacked / "usr/sbin/xtables-nft-multi").exists():
            (unpacked / "bin" / name).symlink_to(real)


def make_file_system(home: Path) -> Path:
    """Makes the file system of the base images in `home`. Returns it as a tar file.

    One that is there is used again while neither its contents nor the lock files have changed.
    """
    locks = [ROOT / "requirements" / f"{name}.lock" for name in LOCKS]
    parts = [Path(__file__).read_bytes().partition(b"def make_file_system")[2], repr(IN_IMAGES).encode()]
    parts += [part.read_bytes() for part in (*sorted(STAND_INS.iterdir()), *locks)]
    stamp = hashlib.sha256(b"".join(parts)).hexdigest()[:16]
    packed = home / f"base-{stamp}.tar"
    if packed.exists():
        return packed
    for old in home.glob("base-*.tar"):
        old.unlink()
    root = home / "root"
    shutil.rmtree(root, ignore_errors=True)
    try:
        included = f"--include={','.join(IN_IMAGES)}"
        _run(["unshare", "--mount", "debootstrap", "--variant=minbase", included, SUITE, root, mirror()])
        _fetch_wheels(root, locks)
        _complete(root)
        _run(["tar", "--create", "--file", f"{packed}.new", "--directory", root, "--one-file-system", "."])
    finally:
        shutil.rmtree(root, ignore_errors=True)
    Path(f"{packed}.new").rename(packed)
    return packed


def _fetch_wheels(root: Path, locks: Sequence[Path]) -> None:
    """Fetches what the Dockerfile installs, with the pip settings of this machine, and has pip look there only."""
    environ = _pip_settings()
    if bundle := environ.get("PIP_CERT"):
        target = root / bundle.lstrip("/")
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(bundle, target)
    wanted = []
    for lock in locks:
        shutil.copyfile(lock, root / "tmp" / lock.name)
        wanted += ["-r", f"/tmp/{lock.name}"]
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PIP_")}
    inside = {"PATH": "/usr/sbin:/usr/bin", "HOME": "/root", **environ}
    chroot: list[str | Path] = ["env", "-i", *(f"{k}={v}" for k, v in inside.items()), "chroot", root]
    _run([*chroot, "python3", "-m", "venv", "/tmp/fetch"], kept)
    pip = ["/tmp/fetch/bin/pip", "download", "--quiet", "--require-hashes", "--dest", "/opt/wheels"]
    _run([*chroot, *pip, *wanted], kept)
    for name in ("tmp", "root/.cache"):
        shutil.rmtree(root / name, ignore_errors=True)
    (root / "etc/pip.conf").write_text("[global]\nno-index = true\nfind-links = /opt/wheels\n")


def _pip_settings() -> dict[str, str]:
    """Returns the settings of this machine's pip that say how packages are fetched over the network."""
    settings: dict[str, str] = {}
    said = _run([sys.executable, "-m", "pip", "config", "list"])
    for name, value in re.findall(
        r"^(?:global|install|download|:env:)\.([\w-]+)='(.*)'$", said, re.MULTILINE
    ):
        words = [word for word in value.split() if name == "cert" or urlsplit(word).scheme != "file"]
        if name in _PIP_OPTIONS and words:
            settings["PIP_" + name.upper().replace("-", "_")] = " ".join(words)
    return settings


def _complete(root: Path) -> None:
    """Adds the names, directories and owners that the official images have, and removes what packages have made."""
    (root / "tmp").mkdir(exist_ok=True)
    (root / "tmp").chmod(0o1777)
    for path, target in (
        ("usr/local/bin/wget", "/usr/bin/busybox"),
        ("usr/local/bin/python", "/usr/bin/python3"),
    ):
        (root / path).symlink_to(target)
    data = root / "var/lib/postgresql"
    for each in data.iterdir():
        shutil.rmtree(each) if each.is_dir() else each.unlink()
    (root / "data").mkdir(exist_ok=True)
    for owner, place in (("postgres", "var/lib/postgresql"), ("redis", "data")):
        _run(["chroot", root, "chown", f"{owner}:{owner}", f"/{place}"])
    (root / "run/postgresql").mkdir(exist_ok=True)
    (root / "run/postgresql").chmod(0o3777)
    shutil.copyfile(STAND_INS / "postgres.sh", root / "usr/local/bin/run-postgres")
    (root / "usr/local/bin/run-postgres").chmod(0o755)
    shutil.rmtree(root / "var/cache/apt/archives", ignore_errors=True)
