"""Files of other projects that this one ships, unchanged: `make vendor` fetches them again.

A VENDORED.toml lies beside the files of one npm package. It names the package, its version, licence and integrity
(as npm computes it), and the SHA-256 of each file by its path in the package.
"""

from __future__ import annotations

import base64
import hashlib
import io
import subprocess
import sys
import tarfile
import tempfile
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True, slots=True)
class Vendored:
    """What a VENDORED.toml says. `digests` maps the path of a file in the package to its SHA-256."""

    place: Path
    package: str
    version: str
    licence: str
    integrity: str
    digests: Mapping[str, str]

    @classmethod
    def read(cls, file: Path) -> Vendored:
        ((package, said),) = tomllib.loads(file.read_text("utf-8")).items()
        return cls(file.parent, package, said["version"], said["licence"], said["integrity"], said["sha256"])

    def file(self, path: str) -> Path:
        """Returns where a file of the package lies here."""
        return self.place / Path(path).name


def all_vendored() -> list[Vendored]:
    """Returns every package that is vendored in this repository."""
    places = (ROOT / "snapurl", ROOT / "tests")
    return [Vendored.read(file) for place in places for file in sorted(place.rglob("VENDORED.toml"))]


def fetch(wanted: Vendored) -> None:
    """Writes the files of a package. Ends the program if it is not the one that VENDORED.toml names."""
    with tempfile.TemporaryDirectory() as directory:
        name = f"{wanted.package}@{wanted.version}"
        subprocess.run(["npm", "pack", "--silent", name], cwd=directory, check=True, stdout=sys.stderr)
        packed = next(Path(directory).glob("*.tgz")).read_bytes()
    integrity = "sha512-" + base64.b64encode(hashlib.sha512(packed).digest()).decode()
    if integrity != wanted.integrity:
        sys.exit(f"{name} has another integrity than {wanted.place}/VENDORED.toml says: {integrity}")
    with tarfile.open(fileobj=io.BytesIO(packed)) as archive:
        for path, digest in wanted.digests.items():
            member = archive.extractfile(f"package/{path}")
            assert member is not None, path
            data = member.read()
            if (found := hashlib.sha256(data).hexdigest()) != digest:
                sys.exit(f"{path} of {name} has another SHA-256 than VENDORED.toml says: {found}")
            wanted.file(path).write_bytes(data)


if __name__ == "__main__":
    for each in all_vendored():
        fetch(each)
