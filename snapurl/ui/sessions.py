"""Sessions of the dashboard: signed cookies that say who has logged in, and one-time links to log in. Pure.

Theory. Nothing is stored. A cookie names an API key or a person, and says when the session began. The name of a key
grants nothing by itself: each request asks the Authenticator for the key, so a key that is revoked ends its
sessions as soon as its requests. A fingerprint of its secret's hash ties the session to that very key.

Nobody can be asked about a person before each request. So the cookie also carries that group of theirs which
counts, and each request asks SNAPURL_LOGIN_RIGHTS what the group may do. Such a session ends PERSON_S_MAX after the
login, however much it is used: whoever has left a group by then has to log in again.

Whoever knows the secret of the signatures can make a session of any key: it is as powerful as an admin key.

While somebody logs in at an OpenID provider, a cookie of its own ties what comes back to this very browser.

A link to log in holds a key and its fingerprint for five minutes, and a number by which its second use is noticed.
"""

from __future__ import annotations

import hmac
import secrets
from collections.abc import Callable
from dataclasses import astuple, dataclass
from hashlib import sha256

from itsdangerous import BadSignature, URLSafeSerializer

from snapurl.model import ApiKey
from snapurl.people import Person

IDLE_S_MAX = 43_200  # 12 hours without a request
SESSION_S_MAX = 604_800  # 7 days from the login on
PERSON_S_MAX = 28_800  # 8 hours from the login on, for a session without a key
RENEWAL_S = 300  # age at which a cookie is signed anew
LINK_S_MAX = 300
ATTEMPT_S_MAX = 900  # that somebody may take to log in at a provider

KEY, PERSON = "key", "person"


@dataclass(frozen=True, slots=True)
class KeyClaim:
    """A key by its id, and the fingerprint that ties the claim to that very key."""

    key_id: str
    fingerprint: str

    @classmethod
    def of(cls, key: ApiKey) -> KeyClaim:
        return cls(key.key_id, fingerprint(key.secret_hash))

    def belongs_to(self, key: ApiKey) -> bool:
        """Whether the key is the one that this was made for. Compares in constant time."""
        return hmac.compare_digest(self.fingerprint, fingerprint(key.secret_hash))


@dataclass(frozen=True, slots=True)
class Session:
    """What a cookie says. `is_due` is whether it should be signed anew. Times are Unix seconds."""

    who: KeyClaim | Person
    began_s: int
    is_due: bool


@dataclass(frozen=True, slots=True)
class LoginToken(KeyClaim):
    """What a one-time link says; `number` is its own."""

    number: str


@dataclass(frozen=True, slots=True)
class Attempt:
    """A login at an OpenID provider that has begun: what must come back, and where to go then."""

    state: str
    nonce: str
    verifier: str
    place: str


class Sessions:
    """Signs and reads cookies and links. `clock_s` is Unix time."""

    def __init__(self, secret: str, clock_s: Callable[[], float]) -> None:
        self._cookies = _serializer(secret, "snapurl session")
        self._links = _serializer(secret, "snapurl login link")
        self._attempts = _serializer(secret, "snapurl login attempt")
        self._clock_s = clock_s
        self._secret = secret.encode()

    def mark(self, text: str) -> bytes:
        """Returns what nobody makes of a text without the secret."""
        return hmac.digest(self._secret, b"snapurl mark" + text.encode(), "sha256")

    def cookie(self, who: KeyClaim | Person, began_s: int | None = None) -> str:
        """Returns a cookie for a session that begins now, or began at `began_s`."""
        now_s = int(self._clock_s())
        began_s = now_s if began_s is None else began_s
        kind = PERSON if isinstance(who, Person) else KEY
        return str(self._cookies.dumps([kind, *astuple(who), began_s, now_s]))

    def read_cookie(self, text: str) -> Session | None:
        """Returns what a cookie says. None if it is forged or too old."""
        try:
            kind, *said, began_s, signed_s = self._cookies.loads(text)
            who = _person(*said) if kind == PERSON else KeyClaim(*said)
        except (BadSignature, ValueError, TypeError):
            return None
        age_s, idle_s = self._clock_s() - began_s, self._clock_s() - signed_s
        if isinstance(who, Person):
            return None if age_s > PERSON_S_MAX else Session(who, began_s, is_due=False)
        if idle_s > IDLE_S_MAX or age_s > SESSION_S_MAX:
            return None
        return Session(who, began_s, is_due=idle_s > RENEWAL_S)

    def attempt_cookie(self, attempt: Attempt) -> str:
        """Returns the cookie of a login that begins now."""
        return str(self._attempts.dumps([*astuple(attempt), int(self._clock_s())]))

    def read_attempt(self, text: str) -> Attempt | None:
        """Returns the login that a cookie is about. None if it is forged or too old."""
        try:
            *said, began_s = self._attempts.loads(text)
        except (BadSignature, ValueError, TypeError):
            return None
        return None if self._clock_s() - began_s > ATTEMPT_S_MAX else Attempt(*said)

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


def _person(issuer: str, subject: str, name: str, groups: list[str]) -> Person:
    return Person(issuer, subject, name, tuple(groups))


def fingerprint(secret_hash: bytes) -> str:
    """Returns 16 characters that no other key has, and that do not lead to the hash of its secret."""
    return sha256(b"snapurl session" + secret_hash).hexdigest()[:16]


def _serializer(secret: str, purpose: str) -> URLSafeSerializer:
    signer = {"digest_method": sha256, "key_derivation": "hmac"}
    return URLSafeSerializer(secret, salt=purpose, signer_kwargs=signer)
