"""The static files of the dashboard, in memory: plain and in gzip, at addresses that change with their content.

All files share one version, a digest of everything, as a directory of their address. So a script can import its
neighbour by a relative address, and browsers may keep each file for ever. While workers of two releases run, a page
of one may ask a worker of the other: it gets the file that there is, and keeps it for no time.
"""

from __future__ import annotations

import gzip
from dataclasses import dataclass
from hashlib import sha256
from importlib.resources import files
from importlib.resources.abc import Traversable

MEDIA = {".css": "text/css; charset=utf-8", ".js": "text/javascript; charset=utf-8"}
IMMUTABLE = "public, max-age=31536000, immutable"


@dataclass(frozen=True, slots=True)
class Asset:
    """A file as it is sent: `plain`, or `packed` (gzip) to clients that accept it."""

    plain: bytes
    packed: bytes
    media: str


class Assets:
    """All static files by name; about 30 kB in gzip. Names of two files never differ in their directory only."""

    def __init__(self) -> None:
        self._found = {
            item.name: Asset(data := item.read_bytes(), gzip.compress(data, mtime=0), MEDIA[suffix])
            for item in _walk(files("snapurl.ui").joinpath("static"))
            if (suffix := item.name[item.name.rfind(".") :]) in MEDIA
        }
        contents = b"".join(name.encode() + asset.plain for name, asset in sorted(self._found.items()))
        self.version = sha256(contents).hexdigest()[:12]

    def address(self, name: str) -> str:
        """Returns the path of a file. Raises KeyError if there is none of that name."""
        _ = self._found[name]
        return f"/ui/static/{self.version}/{name}"

    def get(self, name: str) -> Asset | None:
        return self._found.get(name)


def _walk(place: Traversable) -> list[Traversable]:
    found = []
    for item in place.iterdir():
        found += _walk(item) if item.is_dir() else [item]
    return found
