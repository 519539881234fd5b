"""`migrations/schema.sql` shows the schema that the migrations make."""

from __future__ import annotations

import os
from pathlib import Path

from migrations.render import render
from snapurl.config import Settings
from snapurl.store.cluster.migrate import migrate_all
from tests.support.roles import connected

SCHEMA = Path(__file__).parents[3] / "migrations" / "schema.sql"


async def test_schema_sql_is_what_the_migrations_make(
    settings: Settings, fresh_shards: dict[str, str]
) -> None:
    """schema.sql contains every change that the migrations make; `make schema` writes the file with this test."""
    await migrate_all(settings)
    async with connected(fresh_shards["db0"]) as shard:
        made = await render(shard)
    if os.environ.get("WRITE_SCHEMA"):
        SCHEMA.write_text(made, encoding="utf-8")
    assert SCHEMA.read_text(encoding="utf-8") == made, "the migrations make another schema: run `make schema`"
