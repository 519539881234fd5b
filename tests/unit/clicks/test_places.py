"""Country and city of a click, from an MMDB file that the operator provides."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mmdb_writer import MMDBWriter
from netaddr import IPSet

from snapurl.clicks import places
from snapurl.clicks.campaigns import VALUE_BYTES_MAX
from snapurl.clicks.places import NOWHERE, Location, Places, _place_in, country_of
from snapurl.errors import ConfigError

NESTED = {
    "country": {"iso_code": "FR", "names": {"en": "France"}},
    "city": {"names": {"de": "-", "en": "Paris"}},
}
FLAT = {"country_code": "BR", "country": "Brazil", "city": "S\u00e3o Paulo"}


def write(path: Path, networks: dict[str, Any]) -> None:
    """Writes a geo file, and puts it in the place of the one before."""
    writer = MMDBWriter(ip_version=6, ipv4_compatible=True)
    for network, record in networks.items():
        writer.insert_network(IPSet([network]), record)
    writer.to_db_file(str(path.with_suffix(".new")))
    path.with_suffix(".new").replace(path)


class Clock:
    now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "geo.mmdb"
    write(path, {"198.51.100.0/24": NESTED, "203.0.113.0/24": FLAT, "2001:db8:1::/48": NESTED})
    return path


@pytest.mark.parametrize(
    ("address", "place"),
    [
        ("198.51.100.7", Location("FR", "Paris, FR")),
        ("203.0.113.200", Location("BR", "S\u00e3o Paulo, BR")),
        ("2001:db8:1:2::/64", Location("FR", "Paris, FR")),
        ("2001:db8:1::9", Location("FR", "Paris, FR")),
        ("192.0.2.1", NOWHERE),
        ("::1", NOWHERE),
        ("999.1.1.1", NOWHERE),
        ("", NOWHERE),
        ("unix:", NOWHERE),
    ],
)
def test_a_place_is_that_of_the_network(file: Path, address: str, place: Location) -> None:
    """Country and city are those of the network of the address, from files with nested and with flat records."""
    assert Places(file, Clock()).of(address) == place


def test_a_new_file_is_used_and_an_unusable_one_is_not(file: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A file that takes the place of the one before is used; while it cannot be used, the one before it is."""
    clock = Clock()
    known = Places(file, clock)

    def seen() -> str:
        clock.now_s += places.CHECK_S
        known.renew()
        return known.of("198.51.100.7").country

    assert seen() == "FR"
    file.with_suffix(".new").write_bytes(b"no MMDB file")
    file.with_suffix(".new").replace(file)
    assert [seen(), seen()] == ["FR", "FR"]
    file.unlink()
    assert seen() == "FR"
    write(file, {"198.51.100.0/24": FLAT})
    assert seen() == "BR"
    assert [record.levelname for record in caplog.records if record.levelno >= 30] == ["ERROR"]


@pytest.mark.parametrize("content", [None, b"", b"no MMDB file"])
def test_a_file_that_cannot_be_used_stops_the_start(tmp_path: Path, content: bytes | None) -> None:
    """A geo file that is missing or no MMDB file ends the start with one line that names the setting."""
    path = tmp_path / "geo.mmdb"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ConfigError, match=r"SNAPURL_GEO_FILE: .*geo\.mmdb cannot be used: [^\n]+$"):
        Places(path, Clock())


def test_new_networks_cost_a_bounded_amount_per_flush(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A flush looks up a fixed number of new networks; known ones, and other addresses in them, cost nothing."""
    monkeypatch.setattr(places, "NEW_MAX", 2)
    known = Places(file, Clock())
    known.renew()
    asked = ["192.0.2.1", "203.0.113.1", "198.51.100.1", "203.0.113.9"]
    assert [known.of(address).country for address in asked] == ["", "BR", "", "BR"]
    assert known.unread == 1
    known.renew()
    assert known.of("198.51.100.1").country == "FR"


def test_the_cache_of_networks_is_bounded(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The least recently used networks are evicted."""
    monkeypatch.setattr(places, "NETWORKS_CACHED", 2)
    known = Places(file, Clock())
    for number in (1, 2, 1, 3):
        known.of(f"10.0.{number}.1")
    assert list(known._known) == ["10.0.1.0", "10.0.3.0"]


@pytest.mark.parametrize(
    ("header", "country"),
    [("de", "DE"), (" FR ", "FR"), ("XX", ""), ("T1", ""), ("", ""), ("DEU", ""), ("\u00fcx", "")],
)
def test_a_header_names_a_country_by_its_code(header: str, country: str) -> None:
    """The header of a proxy names a country by two letters, and anything else is no country."""
    assert country_of(header) == country


def _records() -> Any:
    leaf = st.none() | st.integers() | st.text(max_size=300)
    return st.recursive(
        leaf, lambda inner: st.dictionaries(st.sampled_from([*FLAT, "iso_code", "names", "en"]), inner)
    )


@given(record=_records())
def test_whatever_a_file_has_fits(record: Any) -> None:
    """No record raises an error, and what is kept of one is short and can be printed."""
    place = _place_in(record)
    assert len(place.city.encode()) <= VALUE_BYTES_MAX + len(", FR") and len(place.country) in (0, 2)
    assert not place.city or place.city.isprintable()
