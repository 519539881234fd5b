"""SQL statements by name, from the `.sql` files of a package: `-- name: …` begins one.

`l.{link}` stands for the columns of a row `l` of `links`, and for its clicks.
"""

from __future__ import annotations

import re
from importlib.resources import files

from snapurl.model import LINK_COLUMNS

_LINK = re.compile(r"(\S+)\.\{link\}")


def load_queries(table: str, package: str = "snapurl.store") -> dict[str, str]:
    """The statements of `sql/{table}.sql` in `package`, by name; lines that start with `--` are comments."""
    queries: dict[str, str] = {}
    text = (files(package) / "sql" / f"{table}.sql").read_text(encoding="utf-8")
    for block in text.split("-- name: ")[1:]:
        name, _, body = block.partition("\n")
        lines = [line for line in body.splitlines() if line.strip() and not line.startswith("--")]
        queries[name.strip()] = _LINK.sub(lambda found: link_columns(found[1]), "\n".join(lines))
    return queries


def link_columns(row: str) -> str:
    """Returns what a statement selects to read a `Link`: the columns of that row of `links`, and its clicks."""
    columns = ", ".join(f"{row}.{column}" for column in LINK_COLUMNS)
    return f"{columns}, {clicks_of(row)} AS clicks"


def clicks_of(row: str) -> str:
    """Returns the expression for the clicks of that row of `links`, null if it has none: one look-up by its key."""
    same = f"t.slot = {row}.slot AND t.code = {row}.code"
    return f"(SELECT t.clicks FROM click_totals t WHERE {same})"  # noqa: S608 - a name in our own statements
