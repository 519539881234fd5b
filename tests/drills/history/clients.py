"""HTTP clients whose requests and answers can be recorded. Any other transport needs only `Client`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import httpx

from tests.drills.history.checker import Outcome


@dataclass(frozen=True, slots=True)
class Answer:
    outcome: Outcome
    value: str | None = None
    version: int | None = None


class Client(Protocol):
    """One way to access the links. `value` is what a write stores in the link; no method raises."""

    async def create(self, code: str, value: str) -> Answer: ...

    async def change(self, code: str, value: str, if_match: int | None) -> Answer: ...

    async def delete(self, code: str, if_match: int | None) -> Answer: ...

    async def read(self, code: str) -> Answer: ...


_REFUSALS = {
    404: Outcome.MISSING,
    409: Outcome.TAKEN,
    410: Outcome.GONE,
    412: Outcome.MISMATCH,
}


class HttpClient:
    """A client of one worker. `value` is the link's title.

    The outcome is unknown if no answer arrives or the answer says that it is. Any other 503 says that nothing was
    written, and the checker relies on that.
    """

    def __init__(self, http: httpx.AsyncClient) -> None:
        self._http = http

    async def create(self, code: str, value: str) -> Answer:
        body = {"url": "https://example.org/", "alias": code, "title": value}
        return await self._ask("POST", "/api/v1/links", json=body)

    async def change(self, code: str, value: str, if_match: int | None) -> Answer:
        return await self._ask(
            "PATCH", f"/api/v1/links/{code}", json={"title": value}, headers=_match(if_match)
        )

    async def delete(self, code: str, if_match: int | None) -> Answer:
        return await self._ask("DELETE", f"/api/v1/links/{code}", headers=_match(if_match))

    async def read(self, code: str) -> Answer:
        return await self._ask("GET", f"/api/v1/links/{code}")

    async def _ask(self, method: str, path: str, **request: Any) -> Answer:
        try:
            answer = await self._http.request(method, path, **request)
        except httpx.HTTPError:
            return Answer(Outcome.UNKNOWN)
        if answer.status_code == 204:
            return Answer(Outcome.DONE)
        body = answer.json()
        if answer.is_success:
            return Answer(Outcome.DONE, body["title"], body["version"])
        if answer.status_code == 503:
            unknown = body["type"].endswith("outcome-unknown")
            return Answer(Outcome.UNKNOWN if unknown else Outcome.REFUSED)
        assert answer.status_code in _REFUSALS, answer.text
        return Answer(_REFUSALS[answer.status_code])


def _match(if_match: int | None) -> dict[str, str]:
    return {} if if_match is None else {"If-Match": f'"{if_match}"'}
