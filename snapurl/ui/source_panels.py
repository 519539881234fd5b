"""The tables of a link's page: what is told of its clicks, kind by kind. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from snapurl.model import SourceClicks, SourceKind
from snapurl.ui.charts import Share, shares

_NAMES = {"": "Not told", "*": "All others"}
_ALWAYS = (SourceKind.REFERRER, SourceKind.BROWSER)
_PEOPLE = {"": "People and unnamed bots"}


@dataclass(frozen=True, slots=True)
class _Kind:
    """How a kind is shown. `name` is that of its table in addresses, `names` are those of values for people."""

    name: str
    title: str
    column: str
    kind: SourceKind
    names: Mapping[str, str]


_KINDS = (
    _Kind("referrers", "Referrers", "Referrer", SourceKind.REFERRER, {"": "Direct or not told"}),
    _Kind("browsers", "Browsers", "Browser", SourceKind.BROWSER, {"program": "Programs"}),
    _Kind("countries", "Countries", "Country", SourceKind.COUNTRY, {}),
    _Kind("cities", "Cities", "City", SourceKind.CITY, {}),
    _Kind("devices", "Devices", "Device", SourceKind.DEVICE, {"tv": "TV"}),
    _Kind("systems", "Systems", "System", SourceKind.OS, {}),
    _Kind("languages", "Languages", "Language", SourceKind.LANGUAGE, {}),
    _Kind("channels", "Link or QR code", "Way", SourceKind.CHANNEL, {"link": "Link", "qr": "QR code"}),
    _Kind("sources", "Campaign sources", "Source", SourceKind.UTM_SOURCE, {}),
    _Kind("media", "Campaign media", "Medium", SourceKind.UTM_MEDIUM, {}),
    _Kind("campaigns", "Campaigns", "Campaign", SourceKind.UTM_CAMPAIGN, {}),
    _Kind("bots", "Bots", "Bot", SourceKind.BOT, _PEOPLE),
)

PANEL_KINDS: Mapping[str, SourceKind] = {each.name: each.kind for each in _KINDS}
"""The kinds by the names of their tables."""


@dataclass(frozen=True, slots=True)
class Panel:
    """One table: its name in addresses, its title, the head of its column, and its rows."""

    name: str
    title: str
    column: str
    rows: Sequence[Share]


def panels_of(sources: Sequence[SourceClicks]) -> list[Panel]:
    """Returns the tables of a page: referrers and browsers, and the other kinds of which something is told."""
    kinds = {item.kind for item in sources if item.value}
    return [
        Panel(each.name, each.title, each.column, shares(sources, each.kind, {**_NAMES, **each.names}))
        for each in _KINDS
        if each.kind in kinds or each.kind in _ALWAYS
    ]
