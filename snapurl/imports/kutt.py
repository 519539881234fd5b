"""Kutt: the table `links` of its database as CSV, or the fields of its API. Pure.

Links that are banned, or protected by a password, are switched off: the hash of a password leads nowhere here. The
description is the only text for people, so it is the title.
"""

from __future__ import annotations

from snapurl.imports.source import TableSource


class KuttFile(TableSource):
    """`address,target,domain,description,created_at,expire_in,visit_count,banned,password`, in any order."""
