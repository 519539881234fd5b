"""OpenID Connect: people log in at a provider, by Authorization Code with PKCE.

Theory. `begin` sends the browser to the provider with a state, a nonce and the hash of a verifier. The browser
keeps all three in a signed cookie, so nothing is stored here. It comes back with a code and the state. `finish`
takes the code to the provider, with the verifier, and gets an ID token: a statement about the person that the
provider has signed. It counts only if the signature is by one of the provider's keys, with an algorithm for public
keys, and if it is from this issuer, for this client, for this nonce, and not expired. Issuer and subject are the
person.

What the provider publishes about itself is read at the first login and kept for METADATA_AGE_MAX_S, and longer
while it does not answer. Its keys are read again when a token names one that is not among them, but not more often
than each KEYS_RENEWED_EVERY_S, since anybody can make up such a token. Each answer is bounded in bytes and time,
and so are the logins at once.

This is the only module that imports Authlib. It is an extra (`pip install 'snapurl[oidc]'`), and loaded only if
SNAPURL_OIDC_ISSUER is set.
"""

from __future__ import annotations

import asyncio
import secrets
import ssl
from collections.abc import Callable, Mapping
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode, urlsplit

import httpx2
from authlib.integrations.base_client import OAuthError
from authlib.integrations.httpx_client import AsyncOAuth2Client
from authlib.oidc.core import CodeIDToken
from joserfc import jwt
from joserfc.errors import InvalidKeyIdError, JoseError
from joserfc.jwk import JWKRegistry, KeySet

from snapurl.errors import NoAccess, Unavailable
from snapurl.people import Person, make_person
from snapurl.ui.sessions import Attempt
from snapurl.urls import is_confidential

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from snapurl.config import Settings

ANSWER_BYTES_MAX = 262_144
ANSWER_S_MAX = 5.0
METADATA_AGE_MAX_S = 3_600.0
KEYS_RENEWED_EVERY_S = 10.0
KEYS_MAX = 100
CLOCK_SKEW_S = 60
LOGINS_MAX = 16  # at once, per worker; a further one is refused
ALGORITHMS = (
    "RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA", "Ed25519",
)  # fmt: skip
SILENT = "the login service does not answer"
UNCONFIRMED = "the login service has not confirmed who you are"


class OpenId:
    """The provider, as a client of it. `clock_s` is Unix time. `back` is the address that it sends browsers to."""

    def __init__(self, settings: Settings, back: str, clock_s: Callable[[], float]) -> None:
        self.issuer = settings.oidc_issuer
        self._client_id = settings.oidc_client_id
        self._secret = settings.oidc_client_secret.get_secret_value()
        self._scope = settings.oidc_scope
        self._groups_claim = settings.oidc_groups_claim
        self._back = back
        self._clock_s = clock_s
        self._tls = ssl.create_default_context()
        self._reading = asyncio.Lock()
        self._logins = 0
        self._metadata: Mapping[str, Any] = {}
        self._keys = KeySet([])
        self._read_at_s = self._keys_renewed_at_s = float("-inf")

    @property
    def host(self) -> str:
        """What people know the provider by."""
        return urlsplit(self.issuer).hostname or self.issuer

    # -- the login -------------------------------------------------------------------------------------------

    async def begin(self, place: str) -> tuple[str, Attempt]:
        """Returns where to send the browser, and what it has to bring back. Raises Unavailable."""
        async with self._login():
            metadata = await self._provider()
        state, nonce, verifier = (secrets.token_urlsafe(32) for _ in range(3))
        attempt = Attempt(state, nonce, verifier, place)
        url, _ = self._client(code_challenge_method="S256").create_authorization_url(
            metadata["authorization_endpoint"],
            state=attempt.state, nonce=attempt.nonce, code_verifier=attempt.verifier,
        )  # fmt: skip
        return str(url), attempt

    async def finish(self, attempt: Attempt, code: str) -> Person:
        """Returns who has logged in. Raises NoAccess if the provider does not confirm it, Unavailable."""
        async with self._login(), self._client() as client:
            metadata = await self._provider()
            try:
                token = await client.fetch_token(
                    metadata["token_endpoint"], code=code, code_verifier=attempt.verifier,
                    grant_type="authorization_code", redirect_uri=self._back,
                )  # fmt: skip
            except OAuthError as error:
                raise NoAccess(UNCONFIRMED, cause=repr(error.error)[:100]) from None
            claims = await self._claims(token, attempt.nonce)
            groups = claims.get(self._groups_claim)
            if groups is None and "userinfo_endpoint" in metadata:
                groups = (await self._userinfo(client, token, claims["sub"])).get(self._groups_claim)
        name = next(
            (str(claims[each]) for each in ("name", "preferred_username", "email") if claims.get(each)), ""
        )
        person = make_person(self.issuer, claims["sub"], name, _texts(groups))
        if person is None:
            raise NoAccess(UNCONFIRMED, cause="subject")
        return person

    def end_url(self, back: str) -> str:
        """Returns where a browser ends its session at the provider and comes back; "" if it has no such."""
        end: str = self._metadata.get("end_session_endpoint", "")
        query = urlencode({"client_id": self._client_id, "post_logout_redirect_uri": back})
        return f"{end}{'&' if '?' in end else '?'}{query}" if end else ""

    async def _claims(self, token: Mapping[str, Any], nonce: str) -> CodeIDToken:
        """Returns what the ID token says, if it can be believed. Raises NoAccess, Unavailable."""
        text = token.get("id_token")
        try:
            if not isinstance(text, str):
                raise TypeError("no ID token")
            try:
                decoded = jwt.decode(text, self._keys, algorithms=ALGORITHMS)
            except InvalidKeyIdError:
                await self._renew_keys()
                decoded = jwt.decode(text, self._keys, algorithms=ALGORITHMS)
            expected = {"iss": self.issuer, "aud": self._client_id}
            claims = CodeIDToken(
                decoded.claims,
                decoded.header,
                {name: {"essential": True, "value": value} for name, value in expected.items()},
                {"nonce": nonce, "client_id": self._client_id, "access_token": token.get("access_token")},
            )
            claims.validate(int(self._clock_s()), CLOCK_SKEW_S)
        except (JoseError, ValueError, TypeError) as error:
            raise NoAccess(UNCONFIRMED, cause=repr(str(error))[:100]) from None
        return claims

    async def _userinfo(self, client: Any, token: Mapping[str, Any], subject: str) -> Mapping[str, Any]:
        """Returns what the provider says of a person besides the ID token; nothing if it is about somebody else."""
        found = await _read(client, self._metadata["userinfo_endpoint"], str(token.get("access_token", "")))
        return found if found.get("sub") == subject else {}

    # -- the provider ----------------------------------------------------------------------------------------

    async def _provider(self) -> Mapping[str, Any]:
        """Returns what the provider publishes about itself, which is read with its keys. Raises Unavailable."""
        async with self._reading:
            if self._clock_s() - self._read_at_s < METADATA_AGE_MAX_S:
                return self._metadata
            try:
                async with self._client() as client:
                    url = f"{self.issuer.rstrip('/')}/.well-known/openid-configuration"
                    metadata = _checked(await _read(client, url), self.issuer)
                    self._keys = _key_set(await _read(client, metadata["jwks_uri"]))
            except Unavailable:
                if not self._metadata:
                    raise
                return self._metadata
            self._metadata = metadata
            self._read_at_s = self._clock_s()
            return self._metadata

    async def _renew_keys(self) -> None:
        """Reads the keys of the provider again, unless that was done just now. Raises Unavailable."""
        async with self._reading:
            if self._clock_s() - self._keys_renewed_at_s < KEYS_RENEWED_EVERY_S:
                return
            self._keys_renewed_at_s = self._clock_s()
            async with self._client() as client:
                self._keys = _key_set(await _read(client, self._metadata["jwks_uri"]))

    @asynccontextmanager
    async def _login(self) -> AsyncIterator[None]:
        """Counts a login under way, and bounds it. Raises Unavailable."""
        if self._logins >= LOGINS_MAX:
            raise Unavailable("too many people log in at this moment", is_public=True, retry_after_s=1.0)
        self._logins += 1
        try:
            yield
        except (httpx2.HTTPError, httpx2.InvalidURL, ssl.SSLError, ValueError) as error:
            raise Unavailable(SILENT, is_public=True, cause=type(error).__name__) from None
        finally:
            self._logins -= 1

    def _client(self, **options: str) -> Any:
        """Returns a client of the provider for one login. It has to be closed if it was used."""
        methods = self._metadata.get("token_endpoint_auth_methods_supported", ["client_secret_basic"])
        method = "client_secret_basic" if "client_secret_basic" in methods else "client_secret_post"
        return AsyncOAuth2Client(
            self._client_id, self._secret,
            token_endpoint_auth_method=method if self._secret else "none",
            scope=self._scope, redirect_uri=self._back,
            transport=_Bounded(httpx2.AsyncHTTPTransport(verify=self._tls)),
            timeout=ANSWER_S_MAX, follow_redirects=False, **options,
        )  # fmt: skip


class _Bounded(httpx2.AsyncBaseTransport):
    """Reads each answer within ANSWER_S_MAX and ANSWER_BYTES_MAX, or not at all."""

    def __init__(self, transport: httpx2.AsyncBaseTransport) -> None:
        self._transport = transport

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        request.headers["accept-encoding"] = "identity"  # what is packed has no bound
        body = bytearray()
        try:
            async with asyncio.timeout(ANSWER_S_MAX):
                response = await self._transport.handle_async_request(request)
                try:
                    async for part in response.aiter_raw():
                        body += part
                        if len(body) > ANSWER_BYTES_MAX:
                            raise httpx2.ReadError("the answer is too long")
                finally:
                    await response.aclose()
        except TimeoutError:
            raise httpx2.ReadTimeout("the answer takes too long") from None
        headers = {"content-type": response.headers.get("content-type", "")}
        return httpx2.Response(response.status_code, headers=headers, content=bytes(body), request=request)

    async def aclose(self) -> None:
        await self._transport.aclose()


async def _read(client: Any, url: str, access_token: str = "") -> Mapping[str, Any]:
    """Returns the JSON object at a URL of the provider. Raises Unavailable."""
    headers = {"authorization": f"Bearer {access_token}"} if access_token else {}
    try:
        answer = await client.request("GET", url, headers=headers, withhold_token=True)
        found = answer.raise_for_status().json()
    except (httpx2.HTTPError, httpx2.InvalidURL, ValueError) as error:
        raise Unavailable(SILENT, is_public=True, cause=type(error).__name__) from None
    if not isinstance(found, dict):
        raise Unavailable(SILENT, is_public=True, cause="not an object")
    return found


def _checked(metadata: Mapping[str, Any], issuer: str) -> Mapping[str, Any]:
    """Returns what the provider publishes, if it is this provider's and all of it is safe. Raises Unavailable."""
    addresses = {name: value for name, value in metadata.items() if name.endswith(("_endpoint", "jwks_uri"))}
    needed = {"authorization_endpoint", "token_endpoint", "jwks_uri"}
    if metadata.get("issuer") != issuer or not needed <= addresses.keys():
        raise Unavailable(SILENT, is_public=True, cause="other issuer")
    if not all(
        isinstance(each, str) and each.isprintable() and is_confidential(each) for each in addresses.values()
    ):
        raise Unavailable(SILENT, is_public=True, cause="plain http")
    return metadata


def _key_set(found: Mapping[str, Any]) -> KeySet:
    """Returns the public keys for signatures of a JWK set, without those that cannot be used."""
    keys = []
    for each in list(found.get("keys", ()))[:KEYS_MAX]:
        if (
            isinstance(each, dict)
            and each.get("kty") in ("RSA", "EC", "OKP")
            and each.get("use", "sig") == "sig"
        ):
            with suppress(JoseError, ValueError, TypeError):
                keys.append(JWKRegistry.import_key(each))
    return KeySet(keys)


def _texts(claim: object) -> list[str]:
    """Returns the texts of a claim that is one text or a list."""
    items = claim if isinstance(claim, list) else [claim]
    return [item for item in items if isinstance(item, str)]
