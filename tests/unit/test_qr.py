"""How QR codes are drawn."""

from __future__ import annotations

import struct
import xml.etree.ElementTree as ET

import pytest

from snapurl.qr import FORMATS, DoesNotFit, Style, blocks, draw, identity, scan_url

URL = scan_url("https://s.example.org/abc1234")


@pytest.mark.parametrize("size", [37, 100, 2_048])
def test_an_image_has_the_size_that_was_asked_for(size: int) -> None:
    """An SVG is exactly as wide as asked for; a PNG has whole pixels per module, and one more would not fit."""
    svg = ET.fromstring(draw(URL, Style("svg", size)))
    assert svg.get("width") == svg.get("height") == str(size)
    modules = int((svg.get("viewBox") or "").split()[-1])
    width, height = struct.unpack(">II", draw(URL, Style("png", size))[16:24])
    assert width == height == size // modules * modules


@pytest.mark.parametrize("kind", FORMATS)
def test_a_size_without_room_for_the_code_is_refused(kind: str) -> None:
    """Below one pixel per module the refusal says what it takes."""
    with pytest.raises(DoesNotFit, match="must be at least 37 "):
        draw(URL, Style(kind, 36))


def test_an_image_of_its_own_has_an_identity_of_its_own() -> None:
    """Another text or look is another identity; the same ones are the same."""
    assert identity(URL, Style()) == identity(URL, Style())
    assert len({identity(URL, Style()), identity(URL, Style(size=401)), identity(URL + "x", Style())}) == 3


def test_the_code_of_a_terminal_is_a_rectangle_with_a_quiet_zone() -> None:
    """Half blocks draw two rows of modules per line, and the light quiet zone is on all sides."""
    lines = blocks(URL, border=2).splitlines()
    assert len({len(line) for line in lines}) == 1
    assert set(lines[0]) == {"█"} and set(lines[-1]) == {"█"}
    assert all(line.startswith("██") and line.endswith("██") for line in lines)
