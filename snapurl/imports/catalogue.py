"""All sources by the name that `snapurl import` has for them. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import BinaryIO

from snapurl.imports.bitly import BitlyFile
from snapurl.imports.dub import DubFile
from snapurl.imports.kutt import KuttFile
from snapurl.imports.plain import PlainFile
from snapurl.imports.rows import Reading
from snapurl.imports.shlink import ShlinkFile
from snapurl.imports.source import Source
from snapurl.imports.yourls import open_yourls

SOURCES: Mapping[str, Callable[[BinaryIO, Reading], Source]] = {
    "csv": PlainFile,
    "shlink": ShlinkFile,
    "yourls": open_yourls,
    "kutt": KuttFile,
    "bitly": BitlyFile,
    "dub": DubFile,
}
