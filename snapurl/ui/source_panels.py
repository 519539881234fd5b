"""The tables of a page of statistics: what is told of clicks, kind by kind. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import ceil

from snapurl.model import SourceClicks, SourceKind

VALUES_SHOWN = 8
_NAMES = {"": "Not told"}
_OTHERS = "All others"
_ALWAYS = (SourceKind.REFERRER, SourceKind.BROWSER)
_REST = "*"  # the value of clicks whose value was beyond the bound of its day


@dataclass(frozen=True, slots=True)
class ValueShare:
    """One value, its clicks, and how many hundredths of the clicks it has."""

    name: str
    clicks: int
    percent: float


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
    _Kind("bots", "Bots", "Bot", SourceKind.BOT, {"": "Without a name"}),
)

PANEL_KINDS: Mapping[str, SourceKind] = {each.name: each.kind for each in _KINDS}
"""The kinds by the names of their tables."""


@dataclass(frozen=True, slots=True)
class Panel:
    """One table: its name in addresses, its title, the head of its column, and its rows."""

    name: str
    title: str
    column: str
    rows: Sequence[ValueShare]


def panels_of(sources: Sequence[SourceClicks], wholes: Mapping[SourceKind, int]) -> list[Panel]:
    """Returns the tables of a page: those of the kinds _ALWAYS, and of the others of which something is told.

    `wholes` are the clicks of each kind that is shown, of which `sources` has at least those with the most clicks.
    """
    reported = {item.kind for item in sources if item.value}
    return [
        Panel(each.name, each.title, each.column, _shares(sources, each, wholes[each.kind]))
        for each in _KINDS
        if each.kind in wholes and (each.kind in reported or each.kind in _ALWAYS)
    ]


def _shares(sources: Sequence[SourceClicks], kind: _Kind, whole: int) -> list[ValueShare]:
    """Returns the values of one kind, most clicks first, and all others as one."""
    listed = [item for item in sources if item.kind is kind.kind and item.value != _REST][:VALUES_SHOWN]
    rest = whole - sum(item.clicks for item in listed)
    names = {**_NAMES, **kind.names}
    shown = [(names.get(item.value, item.value), item.clicks) for item in listed]
    if rest > 0:
        shown.append((_OTHERS, rest))
    return [ValueShare(name, clicks, ceil(1000 * clicks / whole) / 10) for name, clicks in shown]
