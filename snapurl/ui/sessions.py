"""Sessions of the dashboard: signed cookies that name an API key, and one-time links to log in. Pure.

Theory. Nothing is stored. A cookie holds the id of a key, a fingerprint of its secret's hash, when the session
began, and when the cookie was signed. It grants nothing by itself: each request asks the Authenticator for the key,
so a key that is revoked ends its sessions as soon as its requests. The fingerprint ties a session to that very key.
Whoever knows the secret of the signatures can make a session of any key: it is as powerful as an admin key.

A link to log in holds the same for five minutes, and a number by which its second use is noticed.
"""

from __future__ import annotations

import hmac
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import sha256

from itsdangerous import BadSignature, URLSafeSerializer

from snapurl.model import ApiKey

IDLE_S_MAX = 43_200  # 12 hours without a request
SESSION_S_MAX = 604_800  # 7 days from the login on
RENEWAL_S = 300  # age at which a cookie is signed anew
LINK_S_MAX = 300


@dataclass(frozen=True, slots=True)
class _KeyClaim:
    """A key by its id, and the fingerprint that ties the claim to that very key."""

    key_id: str
    fingerprint: str

    def belongs_to(self, key: ApiKey) -> bool:
        """Whether the key is the one that this was made for. Compares in constant time."""
        return hmac.compare_digest(self.fingerprint, fingerprint(key.secret_hash))


@dataclass(frozen=True, slots=True)
class Session(_KeyClaim):
    """What a cookie says. `is_due` is whether it should be signed anew. Times are Unix seconds."""

    began_s: int
    is_due: bool


@dataclass(frozen=True, slots=True)
class LoginToken(_KeyClaim):
    """What a one-time link says; `number` is its own."""

    number: str


class Sessions:
    """Signs and reads cookies and links. `clock_s` is Unix time."""

    def __init__(self, secret: str, clock_s: Callable[[], float]) -> None:
        self._cookies = _serializer(secret, "snapurl session")
        self._links = _serializer(secret, "snapurl login link")
        self._clock_s = clock_s

    def cookie(self, key: ApiKey, began_s: int | None = None) -> str:
        """Returns a cookie for a session that begins now, or began at `began_s`."""
        now_s = int(self._clock_s())
        began_s = now_s if began_s is None else began_s
        return str(self._cookies.dumps([key.key_id, fingerprint(key.secret_hash), began_s, now_s]))

    def read_cookie(self, text: str) -> Session | None:
        """Returns what a cookie says. None if it is forged or too old."""
        try:
            key_id, mark, began_s, signed_s = self._cookies.loads(text)
        except (BadSignature, ValueError, TypeError):
            return None
        now_s = self._clock_s()
        if now_s - signed_s > IDLE_S_MAX or now_s - began_s > SESSION_S_MAX:
            return None
        return Session(key_id, mark, began_s, now_s - signed_s > RENEWAL_S)

    def login_token(self, key_id: str, secret_hash: bytes) -> str:
        """Returns the token of a link that logs in with this key once, within LINK_S_MAX."""
        number = secrets.token_hex(8)
        return str(self._links.dumps([key_id, fingerprint(secret_hash), number, int(self._clock_s())]))

    def read_login_token(self, text: str) -> LoginToken | None:
        """Returns what a token says. None if it is forged or too old."""
        try:
            key_id, mark, number, signed_s = self._links.loads(text)
        except (BadSignature, ValueError, TypeError):
            return None
        return None if self._clock_s() - signed_s > LINK_S_MAX else LoginToken(key_id, mark, number)


def fingerprint(secret_hash: bytes) -> str:
    """Returns 16 characters that no other key has, and that do not lead to the hash of its secret."""
    return sha256(b"snapurl session" + secret_hash).hexdigest()[:16]


def _serializer(secret: str, purpose: str) -> URLSafeSerializer:
    signer = {"digest_method": sha256, "key_derivation": "hmac"}
    return URLSafeSerializer(secret, salt=purpose, signer_kwargs=signer)
