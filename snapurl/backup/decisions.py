"""What a backup has of each table, and why. Pure.

A table that is not named here ends a backup before it begins: a new migration decides. In the order in which tables
are restored: months of clicks come before their days, so that the click consumer may fold restored days at once.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

KEPT: Mapping[str, str] = {
    "accounts": "Accounts, under their ids: links and keys name them.",
    "api_keys": "API keys: a hash of each secret, never the secret. Every key goes on working.",
    "links": "Links with all fields, also deleted ones: their codes stay taken, and they can be restored as long "
    "as before. Passwords as the hashes that they are; tags and domains are fields.",
    "link_uses": "How many of its `max_clicks` a link has used up.",
    "link_shares": "Public links to statistics, which go on working.",
    "link_history": "Who changed what of a link, and when.",
    "click_totals": "Clicks and clicks of bots of each link.",
    "click_months": "Clicks of each link by month, with their sources.",
    "click_days": "Clicks of each link by day and hour, with their sources and the estimate of visitors.",
    "imported_days": "What another service had counted for a link by day.",
    "click_group_months": "Clicks of domains, accounts and tags by month.",
    "click_groups": "Clicks of domains, accounts and tags by day.",
    "intents": "Idempotency keys of the last 24 hours: a create that is repeated after the restore makes no second "
    "link.",
}
"""Tables of which every row is kept, and why. Each has a slot."""

LEFT: Mapping[str, str] = {
    "click_cursor": "How far the click stream of the old cluster was counted. The new cluster has a stream of its "
    "own, under the id of the cluster.",
    "slots": "Which shard holds a slot. The new cluster has placed its slots itself; the row of a link keeps its "
    "slot, so it finds its shard.",
    "ownership": "The counter behind `slots`.",
    "topology": "The shards of the old cluster. The new one has others, and as many as you like.",
    "cluster": "The identity of a shard.",
    "peer_logs": "What a shard knows of the WAL timelines of the others.",
    "migrator": "The lease and the status of the migrator.",
    "audit": "Who changed the shards of the old cluster. Those of the new one are others; its audit log tells of "
    "the restore.",
    "schema_migrations": "The state of the schema. The manifest has its number, and a restore demands the same.",
}
"""Tables that a backup leaves out, and why."""


def undecided(tables: Iterable[str]) -> list[str]:
    """Returns the tables of which nothing is decided."""
    return sorted(set(tables) - KEPT.keys() - LEFT.keys())
