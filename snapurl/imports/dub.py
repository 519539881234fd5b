"""Dub: its CSV of chosen columns, of which the short link and the destination must be there. Pure.

The key `_root` is the domain itself and no link. Archived links are switched off. Leads, sales and the like have no
place here.
"""

from __future__ import annotations

from snapurl.imports.source import TableSource


class DubFile(TableSource):
    """`Short link,Destination URL,Clicks,…,Created at,…,Tags,Archived`."""

    tag_separator = ","
    shared_hosts = frozenset(["dub.sh"])
