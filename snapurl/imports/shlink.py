"""Shlink: `short_urls.csv` of its web client, and the columns that its own importer takes. Pure.

The web client writes the host of the default domain, too, and codes percent-encoded where they are not ASCII. Its
`visits` include those of bots. The CSV has neither the times of validity nor the limit of visits.
"""

from __future__ import annotations

from snapurl.imports.source import TableSource


class ShlinkFile(TableSource):
    """`createdAt,domain,shortCode,shortUrl,longUrl,title,tags,visits`, or `Long URL;Short code;…`."""

    tag_separator = "|"
