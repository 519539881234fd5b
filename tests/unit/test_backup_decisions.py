"""What a backup has of each table."""

from __future__ import annotations

import re
from pathlib import Path

from snapurl.backup.decisions import KEPT, LEFT, undecided

SCHEMA = (Path(__file__).parents[2] / "migrations" / "schema.sql").read_text(encoding="utf-8")
TABLES = dict(re.findall(r"^CREATE TABLE (\w+) \(\n(.*?)^\);", SCHEMA, re.MULTILINE | re.DOTALL))


def test_every_table_is_kept_or_left() -> None:
    """A migration that adds a table decides whether a backup has it."""
    assert set(TABLES) == KEPT.keys() | LEFT.keys() and not KEPT.keys() & LEFT.keys()
    assert undecided([*TABLES, "another"]) == ["another"]


def test_kept_rows_have_a_slot_first_and_months_come_before_days() -> None:
    """A restore sends rows to the owners of their slots; the consumer may fold restored days into their months."""
    assert all(TABLES[name].lstrip().startswith("slot smallint") for name in KEPT)
    order = list(KEPT)
    assert order.index("click_months") < order.index("click_days")
    assert order.index("click_group_months") < order.index("click_groups")
