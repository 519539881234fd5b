"""Services that `snapurl import` reads over their own API, each with its key in a file."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from time import sleep
from typing import Any
from urllib.parse import SplitResult, quote, unquote, urlsplit

from snapurl.commands.api import Api, ApiRefusal
from snapurl.errors import ConfigError
from snapurl.imports.bitly_pages import BitlyPages
from snapurl.imports.rows import Reading
from snapurl.imports.shlink_pages import ShlinkPages
from snapurl.imports.source import Source
from snapurl.private_files import read_private
from snapurl.urls import DEFAULT_PORTS

LIMITED_S = 15.0  # between two attempts while Bitly wants fewer requests
LIMITED_ATTEMPTS = 300  # longer than the hour by which it counts

Opened = tuple[Source, Callable[[], float]]
"""A source, and what returns how much of it has been read, from 0 to 1."""


def open_url(source: str, url: str, key_file: Path, reading: Reading) -> Opened:
    """Opens a service. Raises ConfigError."""
    parts = urlsplit(url)
    if parts.scheme not in DEFAULT_PORTS or not parts.hostname:
        raise ConfigError(f"{url}: this is no URL such as https://s.example.org")
    return URL_SOURCES[source](parts, read_private(key_file, "--key-file").strip(), reading)


def _shlink(parts: SplitResult, key: str, reading: Reading) -> Opened:
    shlink = Api(f"{parts.scheme}://{parts.netloc}", key, "Shlink", "it")
    path = parts.path.rstrip("/").removesuffix("/rest/v3") + "/rest/v3/short-urls"

    def fetch(page: int) -> Any:
        return shlink.call(
            "GET", path, query={"page": page, "itemsPerPage": 500, "orderBy": "dateCreated-ASC"}
        )

    def visits(code: str, domain: str, page: int) -> Any:
        """The code may be that of a path, percent-encoded or not, with slashes."""
        query = {"itemsPerPage": 1_000, "page": page, **({"domain": domain} if domain else {})}
        return shlink.call("GET", f"{path}/{quote(unquote(code))}/visits", query=query)

    pages = ShlinkPages(fetch, reading, visits)
    return pages, lambda: pages.pages_read / pages.pages


def _bitly(parts: SplitResult, key: str, reading: Reading) -> Opened:
    bitly = Api(f"{parts.scheme}://{parts.netloc}", "", "Bitly", "it")
    path = parts.path.rstrip("/").removesuffix("/v4") + "/v4/"
    headers = {"Authorization": f"Bearer {key}"}

    def fetch(place: str, query: Mapping[str, str]) -> Any:
        """A title may have control characters as they are, so that it is no JSON in the strict sense."""
        answer = _when_unlimited(lambda: bitly.fetch("GET", path + place, query=query, headers=headers))
        try:
            return json.loads(answer, strict=False)
        except (ValueError, RecursionError):
            raise ApiRefusal(f"{bitly.url} answers, but not as Bitly does: is it right?") from None

    pages = BitlyPages(fetch, reading)
    return pages, lambda: pages.groups_read / pages.groups


def _when_unlimited(call: Callable[[], bytes]) -> bytes:
    """Calls, again for as long as Bitly wants fewer requests. Raises ApiRefusal."""
    for attempt in range(LIMITED_ATTEMPTS):
        if attempt:
            sleep(LIMITED_S)
        try:
            return call()
        except ApiRefusal as refusal:
            if refusal.answered in (401, 403):
                raise ApiRefusal("Bitly does not take this key, or it may not read that") from None
            if refusal.answered != 429:
                raise
    raise ApiRefusal("Bitly takes no more requests now: run it again later")


URL_SOURCES: Mapping[str, Callable[[SplitResult, str, Reading], Opened]] = {
    "shlink": _shlink,
    "bitly": _bitly,
}
"""By the name of a source: what opens it by its URL."""
