"""The HTTP API as a command uses it: one request at a time, with the key of whoever runs it.

A response that redirects is an error, never followed: the key goes to the service that the settings name and to
nobody else. For the same reason the admin key of the local cluster is used only where SNAPURL_URL is not set.
"""

from __future__ import annotations

import http.client
import json
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode, urlsplit

from snapurl.config import Settings
from snapurl.errors import ConfigError, FieldError, SnapURLError
from snapurl.private_files import read_private
from snapurl.tls import tls_fault

ANSWER_S_MAX = 30.0  # between two packets of a response
ANSWER_BYTES_MAX = 16_777_216
REFUSED_CHARS_MAX = 300
KEY_ADVICE = ": set SNAPURL_API_KEY or SNAPURL_API_KEY_FILE"


class ApiRefusal(SnapURLError):
    """The service has refused a request (`answered` is its status), or cannot be reached (0)."""

    def __init__(self, detail: str, answered: int = 0) -> None:
        super().__init__(detail)
        self.answered = answered


@dataclass(frozen=True, slots=True)
class Api:
    """The API at `url`, without a trailing slash; `key` may be empty.

    `service` is what should answer there, and `setting` where the URL is from, as refusals say.
    """

    url: str
    key: str
    service: str = "SnapURL"
    setting: str = "SNAPURL_URL"

    @classmethod
    def of(cls, settings: Settings) -> Api:
        """Raises ConfigError if the file with the key cannot be used or others can read it, or has no key."""
        key = _key(settings)
        if not key.isascii() or not key.isprintable() or " " in key:
            raise ConfigError("the API key has a space or sign that no key has")
        return cls(settings.url or settings.local_url, key)

    def call(
        self,
        method: str,
        path: str,
        body: object = None,
        query: Mapping[str, object] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Any:
        """Returns the JSON of the response, None if it has no body. Raises ApiRefusal."""
        found = self.fetch(method, path, body, query, headers)
        try:
            return json.loads(found) if found else None
        except ValueError:
            raise self._is_not_snapurl() from None

    def fetch(
        self,
        method: str,
        path: str,
        body: object = None,
        query: Mapping[str, object] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> bytes:
        """Returns the body of the response. `body` is sent as JSON, which bytes are already. Raises ApiRefusal."""
        sent = {"Accept": "application/json", "User-Agent": "snapurl", **(headers or {})}
        if self.key:
            sent["X-Api-Key"] = self.key
        if body is not None:
            sent["Content-Type"] = "application/json"
        target = f"{path}?{urlencode(query, doseq=True)}" if query else path
        connection = self._connection()
        try:
            connection.request(method, target, _encoded(body), sent)
            response = connection.getresponse()
            found = response.read(ANSWER_BYTES_MAX + 1)
        except http.client.HTTPException:
            raise self._is_not_snapurl() from None
        except OSError as error:
            raise ApiRefusal(f"cannot reach {self.url}: {_why(error)}; is {self.setting} right?") from None
        finally:
            connection.close()
        if 200 <= response.status < 300 and len(found) <= ANSWER_BYTES_MAX:
            return found
        raise self._refusal(response, found)

    def _connection(self) -> http.client.HTTPConnection:
        parts = urlsplit(self.url)
        host, port = parts.hostname or "", parts.port
        if parts.scheme == "https":
            context = ssl.create_default_context()
            return http.client.HTTPSConnection(host, port, timeout=ANSWER_S_MAX, context=context)
        return http.client.HTTPConnection(host, port, timeout=ANSWER_S_MAX)

    def _refusal(self, response: http.client.HTTPResponse, body: bytes) -> ApiRefusal:
        """Returns a problem in words."""
        try:
            problem = json.loads(body)
            text = _in_words(problem)
        except (ValueError, KeyError, TypeError, AttributeError):
            return self._is_not_snapurl(response.status)
        if response.status == 401:
            text += KEY_ADVICE if self.service == "SnapURL" else f": {self.service} does not take this key"
        if after := response.headers.get("retry-after"):
            text += f" (try again in {after} s)"
        return ApiRefusal(text, response.status)

    def _is_not_snapurl(self, status: int = 0) -> ApiRefusal:
        said = f"answers {status} and" if status else "answers, but"
        return ApiRefusal(f"{self.url} {said} not as {self.service} does: is {self.setting} right?", status)


def _encoded(body: object) -> bytes | str | None:
    return body if body is None or isinstance(body, bytes) else json.dumps(body)


def _key(settings: Settings) -> str:
    if key := settings.api_key.get_secret_value():
        return key
    if settings.api_key_file is not None:
        return read_private(settings.api_key_file.expanduser(), "SNAPURL_API_KEY_FILE").strip()
    if not settings.url and settings.admin_key_file.exists():
        return read_private(settings.admin_key_file, "SNAPURL_HOME").strip()
    return ""


def _in_words(problem: Mapping[str, Any]) -> str:
    if errors := problem.get("errors"):
        texts = [str(FieldError(error["pointer"], error["detail"])) for error in errors]
        return "; ".join(texts)[:REFUSED_CHARS_MAX]
    title, detail = str(problem["title"]), str(problem["detail"])
    text = title if detail == title else f"{title}: {detail}"
    return text[:REFUSED_CHARS_MAX]


def _why(error: OSError) -> str:
    if fault := tls_fault(error):
        return f"it {fault}"
    if isinstance(error, TimeoutError):
        return f"no answer within {ANSWER_S_MAX:g} s"
    return (error.strerror or str(error)).lower()
