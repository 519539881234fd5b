"""HTTP clients whose requests and answers can be recorded. Any other transport needs only `Client`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import httpx

from snapurl.history import CHANGES_MAX
from tests.drills.history.checker import Entry, Fields, Kind, Outcome

LINKS = "/api/v1/links"
PASSWORD = "correct horse"
SHOWN = ("title", "enabled", "max_clicks", "tags", "has_password", "account", "renamed_to")
"""The fields that the check follows, as `LinkBody` has them."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What an answer says: the version, and the fields or the history of the link.

    `is_down`: the service could not do it (503), whatever was asked.
    """

    outcome: Outcome
    version: int | None = None
    shown: Fields = field(default_factory=dict)
    log: tuple[Entry, ...] = ()
    is_down: bool = False


class Client(Protocol):
    """One way to access the links. `fields` are those of SHOWN that a write sets; no method raises.

    The answer to `rename` shows the link at its new code.
    """

    async def create(self, code: str, fields: Fields) -> Answer: ...

    async def change(self, code: str, fields: Fields, if_match: int | None) -> Answer: ...

    async def delete(self, code: str, if_match: int | None) -> Answer: ...

    async def restore(self, code: str, if_match: int) -> Answer: ...

    async def transfer(self, code: str, account: str, if_match: int | None) -> Answer: ...

    async def rename(self, code: str, new: str) -> Answer: ...

    async def read(self, code: str) -> Answer: ...

    async def history(self, code: str) -> Answer: ...


_REFUSALS = {
    404: Outcome.MISSING,
    409: Outcome.TAKEN,
    410: Outcome.GONE,
    412: Outcome.MISMATCH,
    422: Outcome.REFUSED,  # a rename of a link with `max_clicks`, or of one that has been renamed
}


class HttpClient:
    """A client of one worker.

    The outcome is unknown if no answer arrives or the answer says that it is. Any other 503 says that nothing was
    written, and the checker relies on that.
    """

    def __init__(self, http: httpx.AsyncClient) -> None:
        self._http = http

    async def create(self, code: str, fields: Fields) -> Answer:
        body = {"url": "https://example.org/", "alias": code, **_body(fields)}
        return await self.ask("POST", LINKS, json=body)

    async def change(self, code: str, fields: Fields, if_match: int | None) -> Answer:
        return await self.ask("PATCH", f"{LINKS}/{code}", json=_body(fields), headers=_match(if_match))

    async def delete(self, code: str, if_match: int | None) -> Answer:
        """Deletes without If-Match go in a batch of one."""
        if if_match is None:
            return await self.ask("POST", f"{LINKS}/batch", json={"action": "delete", "codes": [code]})
        return await self.ask("DELETE", f"{LINKS}/{code}", headers=_match(if_match))

    async def restore(self, code: str, if_match: int) -> Answer:
        return await self.ask("POST", f"{LINKS}/{code}/restore", headers=_match(if_match))

    async def transfer(self, code: str, account: str, if_match: int | None) -> Answer:
        body = {"account": account}
        return await self.ask("POST", f"{LINKS}/{code}/transfer", json=body, headers=_match(if_match))

    async def rename(self, code: str, new: str) -> Answer:
        return await self.ask("POST", f"{LINKS}/{code}/rename", json={"code": new})

    async def read(self, code: str) -> Answer:
        return await self.ask("GET", f"{LINKS}/{code}")

    async def history(self, code: str) -> Answer:
        return await self.ask("GET", f"{LINKS}/{code}/history")

    async def ask(self, method: str, path: str, **request: Any) -> Answer:
        """Sends a request about one link."""
        try:
            answer = await self._http.request(method, path, **request)
        except httpx.HTTPError:
            return Answer(Outcome.UNKNOWN)
        if answer.status_code == 204:
            return Answer(Outcome.DONE)
        status, body = answer.status_code, answer.json()
        if "results" in body:
            (result,) = body["results"]
            status, body = result["status"], result["link"] if "link" in result else result["error"]
        if status < 300:
            return _history(body) if "changes" in body else _link(body)
        if status == 503:
            unknown = body["type"].endswith("outcome-unknown")
            return Answer(Outcome.UNKNOWN if unknown else Outcome.REFUSED, is_down=True)
        assert status in _REFUSALS, answer.text
        return Answer(_REFUSALS[status])


def _match(if_match: int | None) -> dict[str, str]:
    return {} if if_match is None else {"If-Match": f'"{if_match}"'}


def _body(fields: Fields) -> dict[str, object]:
    body = dict(fields)
    if "has_password" in body:
        body["password"] = PASSWORD if body.pop("has_password") else None
    return body


def _link(body: Mapping[str, Any]) -> Answer:
    shown = {} if body["deleted_at"] else {name: body[name] for name in SHOWN}
    return Answer(Outcome.DONE, body["version"], shown)


def _history(body: Mapping[str, Any]) -> Answer:
    _, *changes = body["changes"]
    version = 1 + body["dropped"] + len(changes)
    assert not body["dropped"] or len(changes) == CHANGES_MAX
    return Answer(Outcome.DONE, version, log=tuple(map(_entry, changes)))


def _entry(change: Mapping[str, Any]) -> Entry:
    fields = {item["name"]: item["new"] for item in change["fields"] if item["name"] != "password"}
    for item in change["fields"]:
        if item["name"] == "password" and item["new"] != "changed":
            fields["has_password"] = item["new"] == "set"
    return Entry(change["version"], Kind(change["kind"]), fields)
