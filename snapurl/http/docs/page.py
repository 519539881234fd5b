"""/docs: Swagger UI on this deployment's OpenAPI document. The files lie in `viewer/`; nothing else is fetched."""

from __future__ import annotations

import gzip
from dataclasses import dataclass
from functools import cache
from hashlib import sha256
from importlib.resources import files

PAGE = (
    '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
    '<meta name="viewport" content="width=device-width, initial-scale=1"><title>SnapURL API</title>'
    '<link rel="icon" href="favicon.ico" type="image/svg+xml"><link rel="stylesheet" href="docs/swagger-ui.css">'
    '</head><body><div id="viewer"></div>'
    '<noscript><p>This page needs JavaScript. <a href="openapi.json">openapi.json</a> has the same.</p></noscript>'
    '<script src="docs/swagger-ui-bundle.js"></script><script type="module" src="docs/start.js"></script>'
    "</body></html>\n"
)
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


@dataclass(frozen=True, slots=True)
class ViewerFile:
    """A file of the viewer as it is sent, in gzip or not; `etag` is the same for both."""

    body: bytes
    etag: str


@cache
def viewer_file(name: str, *, compressed: bool) -> ViewerFile:
    """Returns a file of `viewer/`, and keeps it in memory: there are three, 1.9 MB and 0.5 MB compressed."""
    data = files("snapurl.http.docs").joinpath("viewer", name).read_bytes()
    etag = f'W/"{sha256(data).hexdigest()[:16]}"'
    return ViewerFile(gzip.compress(data) if compressed else data, etag)
