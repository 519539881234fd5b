"""The fast path of a service with several domains: it takes the key of a link from Host, too.

Only then is there one of these instead of a `FastPath`, so that Host costs a service with one domain nothing.
"""

from __future__ import annotations

import re
from typing import Any

from snapurl.cache.local import Entry
from snapurl.codes import is_code, is_reserved, split_key
from snapurl.domains import Domains
from snapurl.http.fastpath.protocol import FOR_SANIC, FastPath, Lookup
from snapurl.urls import Origin, UrlRefused, origin_of

_PORTS = ("", ":80", ":443")


class FastPathOfDomains(FastPath):
    """As `FastPath`, for several domains. `own` is where the service is: links to there may be loops."""

    def __init__(self, domains: Domains, own: frozenset[Origin], *others: Any, **options: Any) -> None:
        super().__init__(*others, **options)
        self._domains = domains
        self._own = own
        # As browsers send it. Any other spelling, and any other host, is looked up by its name.
        self._prefixes = {
            f"{name}{port}".encode(): domains.prefixes.get(name, "")
            for name in domains.names
            for port in (*_PORTS, domains.port)
        }

    def redirect_from_l1(self, head: re.Match[bytes], peer: str) -> bytes | None:
        key = self._prefix(head) + head[1].decode("ascii")
        entry = self._entry(key)
        return None if entry is None else self._redirect(head, peer, key, entry)

    def start_lookup(self, head: re.Match[bytes], peer: str) -> Lookup | None:
        code = head[1].decode("ascii")
        key = self._prefix(head) + code
        if self._entry(key) is not None or is_reserved(code) or not is_code(code):
            return None
        return self._start_lookup(head, peer, key)

    def _prefix(self, head: re.Match[bytes]) -> str:
        prefix = self._prefixes.get(head[3])
        return self._domains.prefix_at(head[3].decode("ascii")) if prefix is None else prefix

    def _frame(self, code: str, entry: Entry) -> list[bytes]:
        return FOR_SANIC if self._leads_here(entry) else super()._frame(split_key(code)[1], entry)

    def _leads_here(self, entry: Entry) -> bool:
        """Whether the link leads to one of the domains, as it may if it is older than the setting."""
        try:
            return origin_of(entry.url.decode()) in self._own
        except UrlRefused:
            return False
