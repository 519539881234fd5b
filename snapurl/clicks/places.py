"""Country and city of a click, from a file that the operator provides or from a header of a trusted proxy.

`SNAPURL_GEO_FILE` is a database in MMDB format (MaxMind, DB-IP, IPinfo and others publish such files). Only the
network of an address is looked up, and cached: the /24 of an IPv4 address, the /48 of an IPv6 address. New
networks are looked up NEW_MAX times per flush at most.

The file is mapped into memory, which all workers share. When another file has taken its place, that is opened
instead. A file that cannot be used leaves the one before it in use.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable
from ipaddress import IPv6Network
from pathlib import Path
from typing import Any, NamedTuple

from snapurl.clicks.campaigns import cut
from snapurl.clicks.sources import NONE
from snapurl.errors import ConfigError

log = logging.getLogger("snapurl.clicks")

NEW_MAX = 500  # networks that are looked up per flush; the place of further new ones is not told
NETWORKS_CACHED = 16_384  # about 4 MB; the least recently used is evicted
CHECK_S = 10.0  # how often the file is checked for a change

_IPV4 = re.compile(r"([0-9]{1,3}\.[0-9]{1,3}\.[0-9]{1,3})\.[0-9]{1,3}", re.ASCII)
_COUNTRY = re.compile(r"[A-Z]{2}")
_UNKNOWN = ("XX", "ZZ")


class Location(NamedTuple):
    """A country as its ISO 3166 code, and a city with the country's code, as in `Paris, FR`; NONE if not known."""

    country: str = NONE
    city: str = NONE


NOWHERE = Location()


def country_of(header: str) -> str:
    """Returns the country that a header of a proxy names; NONE if it names none."""
    code = header.strip().upper()
    return code if _COUNTRY.fullmatch(code) and code not in _UNKNOWN else NONE


class Places:
    """Address -> Location, by the geo file. Opening it raises ConfigError.

    `unread` counts addresses whose network was new when NEW_MAX had been looked up since `renew`.
    """

    def __init__(self, file: Path, clock: Callable[[], float]) -> None:
        self._file = file.expanduser()
        self._clock = clock
        self._known: dict[str, Location] = {}
        self._left = NEW_MAX
        self.unread = 0
        self._checked_s = clock()
        self._is_failing = False
        try:
            self._reader, self._version = _opened(self._file), _version(self._file)
        except ImportError:
            raise ConfigError(
                "SNAPURL_GEO_FILE needs the extra analytics: pip install 'snapurl[analytics]'"
            ) from None
        except (OSError, ValueError) as error:
            raise ConfigError(f"SNAPURL_GEO_FILE: {self._file} cannot be used: {_reason(error)}") from None

    def renew(self) -> None:
        """Allows NEW_MAX more look-ups; opens the file anew if it has changed."""
        self._left = NEW_MAX
        now_s = self._clock()
        if now_s - self._checked_s < CHECK_S:
            return
        self._checked_s = now_s
        try:
            version = _version(self._file)
            if version == self._version:
                return
            self._reader, self._version = _opened(self._file), version
        except (OSError, ValueError) as error:
            if not self._is_failing:
                log.error(
                    "the geo file %s cannot be used: %s; the one before it stays in use",
                    self._file,
                    _reason(error),
                )
            self._is_failing = True
            return
        self._known.clear()
        self._is_failing = False
        log.info("the geo file %s has changed and is in use", self._file)

    def of(self, address: str) -> Location:
        """Returns where an address or network is; NOWHERE if it is unknown or too many are new."""
        network = _network_of(address)
        if network is None:
            return NOWHERE
        found = self._known.pop(network, None)
        if found is None:
            if not self._left:
                self.unread += 1
                return NOWHERE
            self._left -= 1
            found = self._find(network)
            if len(self._known) >= NETWORKS_CACHED:
                del self._known[next(iter(self._known))]
        self._known[network] = found
        return found

    def _find(self, network: str) -> Location:
        try:
            return _place_in(self._reader.get(network))
        except Exception:  # a malformed file, in whatever way
            if not self._is_failing:
                log.exception("the geo file %s cannot be read", self._file)
            self._is_failing = True
            return NOWHERE


def _network_of(address: str) -> str | None:
    """Returns the first address of the /24 or /48 that an address or network is in; None if it is neither."""
    if found := _IPV4.fullmatch(address):
        return f"{found[1]}.0"
    try:
        return str(IPv6Network((address.partition("/")[0], 48), strict=False).network_address)
    except ValueError:
        return None


def _place_in(record: Any) -> Location:
    """Returns the place in a record: nested as in MaxMind's files, or flat as in IPinfo's."""
    if not isinstance(record, dict):
        return NOWHERE
    country = record.get("country_code") or record.get("country")
    if isinstance(country, dict):
        country = country.get("iso_code")
    city = record.get("city")
    if isinstance(city, dict):
        names = city.get("names")
        city = names.get("en") if isinstance(names, dict) else None
    code = country_of(country) if isinstance(country, str) else NONE
    name = cut("".join(filter(str.isprintable, city))) if isinstance(city, str) else NONE
    return Location(code, f"{name}, {code}" if name and code else name)


def _opened(file: Path) -> Any:
    """Opens the file. Raises ImportError, OSError, ValueError."""
    from maxminddb import InvalidDatabaseError, open_database  # noqa: PLC0415  # the extra `analytics`

    try:
        return open_database(file)
    except InvalidDatabaseError as error:
        raise ValueError(str(error)) from None


def _version(file: Path) -> tuple[int, int, int]:
    found = file.stat()
    return found.st_ino, found.st_mtime_ns, found.st_size


def _reason(error: Exception) -> str:
    return (error.strerror if isinstance(error, OSError) else None) or "it is no MMDB file"
