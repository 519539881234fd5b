"""An OpenID provider on loopback, with real signatures, that also does what a provider must not do.

It checks what a client owes it: the redirect URI, the client's secret, and the PKCE verifier. A test sets its
fields to say who logs in and what goes wrong.
"""

from __future__ import annotations

import asyncio
import base64
import json
import secrets
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit

from joserfc import jwt
from joserfc.jwk import RSAKey

CLIENT, SECRET = "snapurl", "a client's secret"


def new_key() -> RSAKey:
    return RSAKey.generate_key(2048, {"kid": secrets.token_hex(4), "use": "sig"})


@dataclass
class Provider:
    """What it says of whoever logs in, in `claims` and `userinfo`; `answers` are those of addresses that are wrong.

    `asked` has the path of each request, `codes` the parameters of each login by its code.
    """

    url: str
    key: RSAKey = field(default_factory=new_key)
    signer: RSAKey | None = None
    claims: dict[str, Any] = field(default_factory=dict)
    userinfo: dict[str, Any] = field(default_factory=dict)
    answers: dict[str, bytes] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    codes: dict[str, dict[str, str]] = field(default_factory=dict)

    def reset(self) -> None:
        """Is a provider without faults again, at which Ann logs in."""
        self.signer = None
        self.claims = {"sub": "17", "name": "Ann", "groups": ["staff"]}
        self.userinfo, self.answers = {}, {}
        self.asked.clear()

    def _metadata(self) -> dict[str, Any]:
        return {
            "issuer": self.url,
            "authorization_endpoint": f"{self.url}/authorize",
            "token_endpoint": f"{self.url}/token",
            "jwks_uri": f"{self.url}/keys",
            "userinfo_endpoint": f"{self.url}/userinfo",
            "end_session_endpoint": f"{self.url}/end",
            "token_endpoint_auth_methods_supported": ["client_secret_basic"],
        }

    def answer(self, method: str, target: str, headers: dict[str, str], body: str) -> tuple[int, bytes, str]:
        """Returns the status of a response, its body, and where it leads."""
        path, query = urlsplit(target).path, dict(parse_qsl(urlsplit(target).query))
        self.asked.append(path)
        if path in self.answers:
            return 200, self.answers[path], ""
        if path == "/authorize":
            code = secrets.token_urlsafe(8)
            self.codes[code] = query
            back = urlencode({"code": code, "state": query["state"], "iss": self.url})
            return 303, b"", f"{query['redirect_uri']}?{back}"
        if path == "/end":
            return 303, b"", query["post_logout_redirect_uri"]
        if (method, path) == ("POST", "/token"):
            return self._token(headers, dict(parse_qsl(body)))
        documents = {
            "/.well-known/openid-configuration": self._metadata(),
            "/keys": {"keys": [self.key.as_dict(private=False)]},
            "/userinfo": self.userinfo,
        }
        return _json(200, documents[path])

    def _token(self, headers: dict[str, str], form: dict[str, str]) -> tuple[int, bytes, str]:
        asked = self.codes.pop(form.get("code", ""), None)
        challenge = sha256(form.get("code_verifier", "").encode()).digest()
        credentials = base64.b64encode(f"{CLIENT}:{SECRET}".encode()).decode()
        if asked is None or asked["code_challenge"] != base64.urlsafe_b64encode(challenge).decode().rstrip(
            "="
        ):
            return _json(400, {"error": "invalid_grant"})
        if asked["code_challenge_method"] != "S256" or asked["redirect_uri"] != form.get("redirect_uri"):
            return _json(400, {"error": "invalid_request"})
        if headers.get("authorization") != f"Basic {credentials}":
            return _json(401, {"error": "invalid_client"})
        now = int(time.time())
        own = {"iss": self.url, "aud": CLIENT, "iat": now, "exp": now + 300, "nonce": asked["nonce"]}
        claims = {name: value for name, value in (own | self.claims).items() if value is not None}
        token = jwt.encode({"alg": "RS256", "kid": self.key.kid}, claims, self.signer or self.key)
        return _json(200, {"access_token": "access", "token_type": "Bearer", "id_token": token})


def _json(status: int, value: object) -> tuple[int, bytes, str]:
    return status, json.dumps(value).encode(), ""


@asynccontextmanager
async def providing() -> AsyncIterator[Provider]:
    """Runs a provider."""
    provider = Provider("")

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            first, *lines = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
            headers = {
                name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)
            }
            body = (await reader.readexactly(int(headers.get("content-length", "0")))).decode()
            method, target, _ = first.split()
            status, answer, location = provider.answer(method, target, headers, body)
            head = (
                f"HTTP/1.1 {status} x\r\ncontent-type: application/json\r\ncontent-length: {len(answer)}\r\n"
            )
            head += f"location: {location}\r\n" if location else ""
            writer.write(f"{head}connection: close\r\n\r\n".encode() + answer)
            await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError):
            pass  # the client has seen enough
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    provider.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    provider.reset()
    try:
        yield provider
    finally:
        server.close()
