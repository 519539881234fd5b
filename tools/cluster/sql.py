"""The statements of `tools/sql/handoff.sql` by name."""

from __future__ import annotations

from snapurl.store.queries import load_queries

SQL = load_queries("handoff", package="tools")
