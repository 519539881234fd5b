"""The four formats of an answer: JSON, JSONP, XML, and a plain text that is one word."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from xml.sax.saxutils import escape

CALLBACK_CHARS_MAX = 200
NO_WORD = "Need either XML or JSON format for stats"

_CALLBACK = re.compile(r"[A-Za-z0-9_$.]+(?:\[[0-9]+\])*")
_NOT_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")

Answer = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Said:
    """What is answered. `word` is what it is in one word, for clients that ask for that."""

    members: Answer
    word: str = NO_WORD

    @property
    def status(self) -> int:
        return int(self.members.get("statusCode") or self.members.get("errorCode") or 200)


def written(said: Said, parameters: Mapping[str, str]) -> tuple[int, str, str]:
    """Returns the status, the text and the media type of an answer, in the format that is asked for."""
    name = parameters.get("format", "xml")
    callback = parameters.get("callback") or parameters.get("jsonp", "")
    members = {**said.members, "callback": callback} if callback else said.members
    match name:
        case "json":
            return said.status, _json(members), "application/json"
        case "jsonp":
            if len(callback) > CALLBACK_CHARS_MAX or not _CALLBACK.fullmatch(callback):
                refusal = {"errorCode": "400", "error": "Invalid callback parameter"}
                return 400, _json(refusal), "application/json"
            return said.status, f"{callback}({_json(members)})", "application/javascript"
        case "xml":
            text = f'<?xml version="1.0" encoding="UTF-8"?>\n{_xml("root", members)}\n'
            return said.status, text, "application/xml; charset=utf-8"
        case _:
            return said.status, said.word, "text/plain; charset=utf-8"


def _json(members: Answer) -> str:
    return json.dumps(members)


def _xml(name: str, value: Any) -> str:
    """Returns an element. The names of members are names of elements, too."""
    if isinstance(value, Mapping):
        text = "".join(_xml(key, item) for key, item in value.items())
    else:
        text = escape(_NOT_XML.sub("", str(value)))
    return f"<{name}>{text}</{name}>"
