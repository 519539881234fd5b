"""Bitly: its CSV files, whose columns differ from one to the next. Pure.

A custom link wins over the generated one. The host bit.ly is shared by everybody, so it is no domain. Links
that are archived are switched off.
"""

from __future__ import annotations

from snapurl.imports.source import TableSource


class BitlyFile(TableSource):
    """Columns by name: a bitlink or link, its long URL, and perhaps a custom link, title, tags, created, clicks."""

    shared_hosts = frozenset(["bit.ly", "j.mp", "bitly.is"])
