"""SQL statements by name, from the `.sql` files of a package: `-- name: …` begins one.

`l.{link}` stands for the columns of `model.Link`, each with that prefix.
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
        queries[name.strip()] = _LINK.sub(_link_columns, "\n".join(lines))
    return queries


def _link_columns(prefix: re.Match[str]) -> str:
    return ", ".join(f"{prefix[1]}.{column}" for column in LINK_COLUMNS)
