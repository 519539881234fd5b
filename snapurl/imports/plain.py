"""CSV files of any program, and those of `snapurl export`. A row without a code gets a new one. Pure."""

from __future__ import annotations

from snapurl.imports.source import TableSource


class PlainFile(TableSource):
    """Rows with a target, and whatever else has a name that is known."""

    needs_code = False
