"""Login at an OpenID provider: whom it may let in, and all that it must not believe."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest

from snapurl.app import create_app
from snapurl.config import Settings, load_settings
from snapurl.errors import ConfigError, NoAccess, Unavailable
from snapurl.people import Person
from snapurl.ui.openid import ANSWER_BYTES_MAX, KEYS_RENEWED_EVERY_S, METADATA_AGE_MAX_S, OpenId
from tests.support.openid_provider import CLIENT, SECRET, Provider, new_key, providing

BACK = "http://127.0.0.1/ui/login/openid/return"


class Clock:
    """The wall clock, which tests move on."""

    ahead_s = 0.0

    def __call__(self) -> float:
        return time.time() + self.ahead_s


@pytest.fixture(scope="module")
async def provider() -> AsyncIterator[Provider]:
    async with providing() as started:
        yield started


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def openid(provider: Provider, clock: Clock) -> OpenId:
    provider.reset()
    return OpenId(settings_for(provider.url), BACK, clock)


def settings_for(issuer: str, **values: str) -> Settings:
    return load_settings(
        oidc_issuer=issuer,
        oidc_client_id=CLIENT,
        oidc_client_secret=SECRET,
        login_rights="*=read@acc_7Fq2xWm0bZ",
        **values,
    )


async def log_in(openid: OpenId) -> Person:
    """Logs in as a browser does, and returns who that is."""
    url, attempt = await openid.begin("/ui")
    async with httpx.AsyncClient() as browser:
        back = parse_qs(urlsplit((await browser.get(url)).headers["location"]).query)
    assert back["state"] == [attempt.state]
    return await openid.finish(attempt, back["code"][0])


async def test_a_person_logs_in(openid: OpenId, provider: Provider) -> None:
    """Who logs in is the subject at this issuer, with name and groups. What the provider publishes is read once."""
    assert await log_in(openid) == Person(provider.url, "17", "Ann", ("staff",))
    provider.claims = {"sub": "18", "preferred_username": "ben", "groups": "staff"}
    assert await log_in(openid) == Person(provider.url, "18", "ben", ("staff",))
    assert provider.asked.count("/keys") == provider.asked.count("/.well-known/openid-configuration") == 1


@pytest.mark.parametrize(
    "claims",
    [
        {"iss": "https://id.example.org"},
        {"iss": None},
        {"aud": "another client"},
        {"aud": [CLIENT, "another client"]},  # and no azp
        {"azp": "another client"},
        {"aud": None},
        {"exp": 1_500_000_000},
        {"exp": None},
        {"iat": 4_000_000_000},
        {"nonce": "another"},
        {"nonce": None},
        {"sub": None},
        {"sub": ""},
        {"sub": 17},
        {"at_hash": "bm90IHRoZSBoYXNo"},
    ],
    ids=str,
)
async def test_no_other_statement_counts(openid: OpenId, provider: Provider, claims: dict[str, Any]) -> None:
    """A token that is not from this issuer, for this client and this login, or not of now, lets nobody in."""
    provider.claims |= claims
    with pytest.raises(NoAccess):
        await log_in(openid)


async def test_only_the_providers_signature_counts(openid: OpenId, provider: Provider) -> None:
    """A token that another key has signed lets nobody in, nor one without a signature, nor something else."""
    provider.signer = new_key()
    with pytest.raises(NoAccess):
        await log_in(openid)
    for token in (
        b'{"id_token": "eyJhbGciOiJub25lIn0.e30."}',
        b'{"id_token": 5}',
        b'{"id_token": "x.y.z"}',
        b"{}",
    ):
        provider.answers = {"/token": token}
        with pytest.raises(NoAccess):
            await log_in(openid)


async def test_a_code_is_of_one_login(openid: OpenId) -> None:
    """A code that belongs to the login of another browser is refused by the provider, and so by us."""
    (url, _), (_, other) = await openid.begin("/ui"), await openid.begin("/ui")
    async with httpx.AsyncClient() as browser:
        code = parse_qs(urlsplit((await browser.get(url)).headers["location"]).query)["code"][0]
    with pytest.raises(NoAccess):
        await openid.finish(other, code)


async def test_clocks_may_differ_a_little(openid: OpenId, clock: Clock) -> None:
    """A provider whose clock is half a minute ahead or behind lets people in."""
    clock.ahead_s = -30
    await log_in(openid)
    clock.ahead_s = 330  # the token is of 300 s
    await log_in(openid)


async def test_new_keys_are_found(openid: OpenId, provider: Provider, clock: Clock) -> None:
    """New keys of the provider count at once; but we do not ask for them with each token that names another."""
    await log_in(openid)
    provider.key = new_key()
    await log_in(openid)
    provider.key = new_key()
    with pytest.raises(NoAccess):
        await log_in(openid)
    assert provider.asked.count("/keys") == 2
    clock.ahead_s = KEYS_RENEWED_EVERY_S + 1
    await log_in(openid)


async def test_groups_may_come_from_the_userinfo_endpoint(openid: OpenId, provider: Provider) -> None:
    """Groups that the token leaves out are asked for, and count only if they are those of this person."""
    provider.claims = {"sub": "17", "name": "Ann"}
    provider.userinfo = {"sub": "17", "groups": ["staff", 5, "root"]}
    assert (await log_in(openid)).groups == ("staff", "root")
    provider.userinfo = {"sub": "18", "groups": ["root"]}
    assert (await log_in(openid)).groups == ()


async def test_a_provider_without_sense_lets_nobody_in(openid: OpenId, provider: Provider) -> None:
    """Answers that are endless, no JSON, of another issuer, or that lead to plain http are as no answer."""
    path = "/.well-known/openid-configuration"
    other = {"issuer": "https://id.example.org"}
    plain = {"issuer": provider.url, "jwks_uri": "https://a.example/", "token_endpoint": "https://a.example/"}
    plain["authorization_endpoint"] = "http://a.example/"
    answers = [b"[]", b"nonsense", b" " * (ANSWER_BYTES_MAX + 1) + b"{}"]
    for answer in answers + [json.dumps(each).encode() for each in (other, plain)]:
        provider.answers = {path: answer}
        with pytest.raises(Unavailable):
            await openid.begin("/ui")
    provider.answers = {}
    await log_in(openid)


async def test_what_a_provider_publishes_outlives_its_silence(
    openid: OpenId, provider: Provider, clock: Clock
) -> None:
    """What the provider has published is read again after an hour, and goes on to count if it cannot be read."""
    await log_in(openid)
    clock.ahead_s = METADATA_AGE_MAX_S + 1
    provider.answers = {"/.well-known/openid-configuration": b"down"}
    url, _ = await openid.begin("/ui")
    assert url.startswith(f"{provider.url}/authorize?")
    assert provider.asked.count("/.well-known/openid-configuration") == 2


async def test_a_silent_provider_is_said_to_be_silent() -> None:
    """A provider that does not answer is an error that says so."""
    openid = OpenId(settings_for("http://127.0.0.1:9"), BACK, time.time)
    with pytest.raises(Unavailable, match="the login service does not answer"):
        await openid.begin("/ui")


def test_the_library_is_an_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a provider the library is not loaded; with one and without the library the start says what to do."""
    probe = "import sys, snapurl.app; print({'authlib', 'httpx2', 'joserfc'} & set(sys.modules))"
    loaded = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True)
    assert loaded.stdout == "set()\n"
    monkeypatch.setitem(sys.modules, "snapurl.ui.openid", None)
    with pytest.raises(ConfigError, match=r"pip install 'snapurl\[oidc\]'"):
        create_app(settings_for("https://id.example.org"))
