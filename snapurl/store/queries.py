"""SQL statements by name, from the `.sql` files of a package: `-- name: …` begins one."""

from __future__ import annotations

from importlib.resources import files


def load_queries(table: str, package: str = "snapurl.store") -> dict[str, str]:
    """The statements of `sql/{table}.sql` in `package`, by name; lines that start with `--` are comments."""
    queries: dict[str, str] = {}
    text = (files(package) / "sql" / f"{table}.sql").read_text(encoding="utf-8")
    for block in text.split("-- name: ")[1:]:
        name, _, body = block.partition("\n")
        lines = [line for line in body.splitlines() if line.strip() and not line.startswith("--")]
        queries[name.strip()] = "\n".join(lines)
    return queries
