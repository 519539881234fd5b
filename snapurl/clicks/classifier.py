"""Makes classes of what the request of a click has said. It remembers nothing of who clicked.

A bot's click keeps the bot's name and nothing else. A request with `DNT: 1` or `Sec-GPC: 1` is counted, and
nothing of it is kept.

A visitor is a digest of the day's salt, the code, the address and the user agent. The salt is random, and gone
after two days: then nobody can tell who a digest stands for, or whether two links had the same visitor.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from hashlib import blake2b

from snapurl.clicks.agents import Agent, Agents
from snapurl.clicks.campaigns import NO_CAMPAIGN, campaign_of, channel_of
from snapurl.clicks.counts import NOTHING, Classes
from snapurl.clicks.languages import language_of
from snapurl.clicks.origins import Origin
from snapurl.clicks.places import NOWHERE, Places, country_of
from snapurl.clicks.sources import referrer_of
from snapurl.clicks.tally import Click, Said
from snapurl.model import SourceKind

VISITOR_BYTES = 8
_CAMPAIGN = (SourceKind.UTM_SOURCE, SourceKind.UTM_MEDIUM, SourceKind.UTM_CAMPAIGN)


class Classifier:
    """Click -> classes. Without `places`, places are what a trusted proxy says.

    `read_agent` reads a user agent, `read_origin` returns address and country, as `Origins.read` does.
    """

    def __init__(
        self,
        read_agent: Callable[[bytes], Agent],
        read_origin: Callable[[Origin], tuple[str, str]],
        places: Places | None = None,
    ) -> None:
        self._agents = Agents(read_agent)
        self._read_origin = read_origin
        self._places = places
        self._known: dict[Said, Classes] = {}  # of this flush, so at most as many as a tally keeps

    def renew(self) -> None:
        """Begins a flush: as much that is new may be read as in any other."""
        self._agents.renew()
        self._known.clear()
        if self._places is not None:
            self._places.renew()

    @property
    def unread(self) -> Mapping[str, int]:
        """How often something was not read because too much was new."""
        places = self._places
        return {"user_agent": self._agents.unread, "place": 0 if places is None else places.unread}

    def of(self, click: Click, salt: bytes) -> Classes:
        """Returns the classes of a click. Without a salt its visitor is left out."""
        code, said, origin, target = click
        if said is None or said[4]:
            return NOTHING
        known = self._known.get(said)
        if known is None:
            known = self._known[said] = self._read(said)
        if known.is_bot:
            return known
        query, _, user_agent, _, _ = said
        address, named = self._read_origin(origin)
        place = NOWHERE if self._places is None else self._places.of(address)
        country = country_of(named) or place.country
        values = [*known.values]
        if country:
            values.append((SourceKind.COUNTRY, country))
        if place.city and country == place.country:
            values.append((SourceKind.CITY, place.city))
        campaign = campaign_of(query, target)
        if campaign is not NO_CAMPAIGN:
            values += [(kind, value) for kind, value in zip(_CAMPAIGN, campaign, strict=True) if value]
        visitor = visitor_of(salt, code, address, user_agent) if salt and address else b""
        return Classes(values, visitor=visitor)

    def _read(self, said: Said) -> Classes:
        """Returns the classes that are the same for all clicks whose requests said this."""
        query, referrer, user_agent, language, _ = said
        agent = self._agents.of(user_agent)
        if agent.bot:
            return Classes(((SourceKind.BOT, agent.bot),), is_bot=True)
        pairs = (
            (SourceKind.REFERRER, referrer_of(referrer)),
            (SourceKind.DEVICE, agent.device),
            (SourceKind.OS, agent.system),
            (SourceKind.BROWSER, agent.browser),
            (SourceKind.LANGUAGE, language_of(language)),
            (SourceKind.CHANNEL, channel_of(query)),
        )
        return Classes([pair for pair in pairs if pair[1]])


def visitor_of(salt: bytes, code: str, address: str, user_agent: bytes | None) -> bytes:
    """Returns the digest of a visitor of a link on the day of the salt."""
    who = b"\0".join((salt, code.encode(), address.encode(), (user_agent or b"").strip()))
    return blake2b(who, digest_size=VISITOR_BYTES).digest()
