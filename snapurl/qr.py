"""QR codes of short URLs: what they say, and how they are drawn. Pure.

A code says the short URL with SCAN_MARK as its query, so that scans can be told from other clicks. Drawing takes
milliseconds of pure Python: servers do it in a thread.
"""

from __future__ import annotations

import io
from dataclasses import asdict, dataclass
from hashlib import sha256

import segno

SCAN_MARK = "qr"
"""The query of a short URL in a QR code: `/{code}?qr`. It tells how a link was opened, so no target gets it."""

FORMATS = {"svg": "image/svg+xml", "png": "image/png"}
"""Format -> media type."""

ERRORS = "LMQH"
"""How much of a code may be damaged: 7, 15, 25, 30 %."""

TRANSPARENT = "transparent"
SIZE_PX_MIN = 32
SIZE_PX_MAX = 2_048
BORDER_MAX = 16  # modules


class DoesNotFit(ValueError):
    """The size is too small; the text says what it takes."""


@dataclass(frozen=True, slots=True)
class Style:
    """How a code is drawn. `size` is its width in pixels, `border` the quiet zone in modules.

    Colours are `#rrggbb`; `light` may be TRANSPARENT.
    """

    format: str = "svg"
    size: int = 400
    border: int = 4
    dark: str = "#000000"
    light: str = "#ffffff"
    error: str = "M"


def scan_url(short_url: str) -> str:
    """Returns what the QR code of a short URL says."""
    return f"{short_url}?{SCAN_MARK}"


def identity(text: str, style: Style) -> str:
    """Returns a digest that differs whenever the image would."""
    drawn = repr((segno.__version__, text, asdict(style)))
    return sha256(drawn.encode()).hexdigest()[:24]


def draw(text: str, style: Style) -> bytes:
    """Returns the image. Raises DoesNotFit.

    An SVG is exactly `size` wide, a PNG at most: its modules are whole pixels.
    """
    code = segno.make_qr(text, error=style.error)
    modules = code.symbol_size(border=style.border)[0]
    scale = style.size // modules
    if scale == 0:
        raise DoesNotFit(f"must be at least {modules} for this code and border")
    colours = {"dark": style.dark, "light": None if style.light == TRANSPARENT else style.light}
    image = io.BytesIO()
    if style.format == "png":
        code.save(image, kind="png", scale=scale, border=style.border, **colours)
        return image.getvalue()
    plain = {"svgclass": None, "lineclass": None, "xmldecl": False, "omitsize": True}
    code.save(image, kind="svg", border=style.border, **plain, **colours)
    size = f'<svg width="{style.size}" height="{style.size}" shape-rendering="crispEdges" '.encode()
    return image.getvalue().replace(b"<svg ", size, 1)


def blocks(text: str, border: int = 2) -> str:
    """Returns the code as lines of half blocks, for a terminal.

    Light modules are drawn, so that it can be read on a dark background.
    """
    rows = [list(row) for row in segno.make_qr(text, error="L").matrix_iter(border=border)]
    if len(rows) % 2:
        rows.append([0] * len(rows[0]))
    pairs = zip(rows[::2], rows[1::2], strict=True)
    signs = {(0, 0): "█", (0, 1): "▀", (1, 0): "▄", (1, 1): " "}
    return "\n".join("".join(signs[pair] for pair in zip(*two, strict=True)) for two in pairs)
