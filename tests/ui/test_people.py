"""People who log in without a key: named by a trusted proxy, or at an OpenID provider."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from dataclasses import dataclass
from urllib.parse import urlsplit
from uuid import uuid4

import httpx
import pytest
from playwright.async_api import Page, expect

from snapurl.accounts import create_account
from tests.integration.http.service import Service, environ_of, new_worker
from tests.support.openid_provider import CLIENT, SECRET, Provider, providing
from tests.support.waits import HANG_S
from tests.ui.conftest import PageMaker
from tests.ui.test_pages import AXE, SMALL_TARGETS

ADMIN_GROUP, STAFF_GROUP = "Domain Admins", "staff"


@dataclass
class Office:
    """A service behind a proxy, with an OpenID provider and an account."""

    service: Service
    provider: Provider
    account: str

    @property
    def url(self) -> str:
        return self.service.workers[0].url

    def browser(self, address: str = "127.0.0.1", **headers: str) -> httpx.AsyncClient:
        """Returns a client that connects from that address; the trusted proxy has 127.0.0.1."""
        transport = httpx.AsyncHTTPTransport(local_address=address)
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        client = httpx.AsyncClient(
            base_url=self.url, headers={"Origin": self.url, **named}, transport=transport, timeout=HANG_S
        )
        self.service.clients.append(client)
        return client


@pytest.fixture(scope="module")
async def office(service: Service, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Office]:
    account = (
        await create_account(service.settings, f"Office {uuid4()}")
    ).account_id  # made anew after other modules
    rights = (
        f"{ADMIN_GROUP}=admin@{account}; {STAFF_GROUP}=create,read,change@{account}; lost=read@acc_0000000000"
    )
    async with providing() as provider:
        worker = new_worker(environ_of(service.settings), tmp_path_factory.mktemp("office"))
        worker.environ |= {
            "SNAPURL_BASE_URL": worker.url,
            "SNAPURL_PROXIES": "127.0.0.1",
            "SNAPURL_LOGIN_HEADER": "X-Forwarded-User",
            "SNAPURL_LOGIN_GROUPS_HEADER": "X-Forwarded-Groups",
            "SNAPURL_LOGIN_RIGHTS": rights,
            "SNAPURL_OIDC_ISSUER": provider.url,
            "SNAPURL_OIDC_CLIENT_ID": CLIENT,
            "SNAPURL_OIDC_CLIENT_SECRET": SECRET,
        }
        await worker.start()
        found = Office(Service(service.settings, [worker], service.admin_key), provider, account)
        yield found
        for client in found.service.clients:
            await client.aclose()
        await worker.stop()
        worker.close()


async def page_of(office: Office, make_page: PageMaker, **headers: str) -> Page:
    """Returns a page of a new profile, without a session, whose requests have these headers."""
    page = await make_page(key=None, base_url=office.url)
    await page.context.set_extra_http_headers(headers)
    return page


# -- named by a proxy --------------------------------------------------------------------------------------------


async def test_a_person_whom_the_proxy_names_works_for_their_account(
    office: Office, make_page: PageMaker
) -> None:
    """Somebody whom the proxy names is logged in. Links that they make belong to their account, and name them."""
    page = await page_of(office, make_page, **{"X-Forwarded-User": "ann", "X-Forwarded-Groups": "web|staff"})
    await page.goto("/ui")
    await page.get_by_label("URL to shorten").fill("https://example.org/of-ann")
    await page.keyboard.press("Enter")
    await expect(page.get_by_text("The link is ready.")).to_be_visible()
    code = page.url.rpartition("/")[2].partition("?")[0]
    link = (
        await office.browser().get(f"/api/v1/links/{code}", headers={"X-Api-Key": office.service.admin_key})
    ).json()
    assert re.fullmatch("usr_[0-9A-Za-z]{16}", link["created_by"])
    listed = await office.browser().get(
        f"/api/v1/links?account={office.account}&creator={link['created_by']}",
        headers={"X-Api-Key": office.service.admin_key},
    )
    assert [each["code"] for each in listed.json()["links"]] == [code]
    await page.goto("/ui/settings")
    await expect(page.locator(".pairs")).to_contain_text(link["created_by"])
    await expect(page.get_by_role("button", name="Log out")).to_have_count(0)
    await expect(page.get_by_role("link", name="Keys")).to_have_count(0)
    again = office.browser(X_Forwarded_User="ann", X_Forwarded_Groups="staff")
    assert link["created_by"] in (await again.get("/ui/settings")).text


async def test_only_a_trusted_proxy_names_people(office: Office) -> None:
    """The header of any other peer is worth nothing, nor one that comes twice, is empty, or goes to the API."""
    names = {"X_Forwarded_User": "ann", "X_Forwarded_Groups": STAFF_GROUP}
    assert (await office.browser(**names).get("/ui/links")).status_code == 200
    assert (await office.browser("127.0.0.2", **names).get("/ui/links")).status_code == 303
    assert (await office.browser(**names).get("/api/v1/links")).status_code == 401
    for user in ("", "x" * 256):
        assert (
            await office.browser(**names | {"X_Forwarded_User": user}).get("/ui/links")
        ).status_code == 303
    twice = [("X-Forwarded-User", "eve"), ("X-Forwarded-User", "ann"), ("X-Forwarded-Groups", STAFF_GROUP)]
    assert (await office.browser().get("/ui/links", headers=twice)).status_code == 303


async def test_groups_say_what_a_person_may_do(office: Office) -> None:
    """People in no group get a page that says so, admins see the cluster, others do not."""
    admin = office.browser(X_Forwarded_User="root", X_Forwarded_Groups=f"x, {ADMIN_GROUP}")
    assert (await admin.get("/ui/keys")).status_code == 200
    staff = office.browser(X_Forwarded_User="ann", X_Forwarded_Groups=STAFF_GROUP)
    refused = await staff.get("/ui/keys")
    assert refused.status_code == 403 and "Your groups lack the right to admin" in refused.text
    nobody = await office.browser(X_Forwarded_User="eve", X_Forwarded_Groups="guests").get("/ui/links")
    assert nobody.status_code == 403 and "No group of eve may use this dashboard" in nobody.text
    lost = await office.browser(X_Forwarded_User="eve", X_Forwarded_Groups="lost").get("/ui/links")
    assert lost.status_code == 403 and "The account of your group does not exist" in lost.text


async def test_a_session_comes_before_the_proxys_word(office: Office) -> None:
    """Whoever logs in with a key uses the dashboard with that key, also behind a proxy that names them."""
    browser = office.browser(X_Forwarded_User="ann", X_Forwarded_Groups=STAFF_GROUP)
    await browser.post("/ui/login", data={"key": office.service.admin_key})
    assert (await browser.get("/ui/keys")).status_code == 200
    await browser.post("/ui/logout", data={"a": "form"})
    assert (await browser.get("/ui/keys")).status_code == 403


async def test_the_cookie_is_secure_behind_a_tls_proxy(office: Office) -> None:
    """Behind a proxy with TLS the cookie is Secure; what anybody else says of TLS does not count."""
    for address, scheme, is_secure in (
        ("127.0.0.1", "https", True), ("127.0.0.1", "http", False), ("127.0.0.2", "https", False),
    ):  # fmt: skip
        browser = office.browser(address, X_Forwarded_Proto=scheme)
        answer = await browser.post("/ui/login", data={"key": office.service.admin_key})
        parts = [part.strip() for part in answer.headers["set-cookie"].split(";")]
        assert ("Secure" in parts) == is_secure
        assert {"Path=/ui", "HttpOnly", "SameSite=Lax"} <= set(parts)
        assert not any(part.lower().startswith("domain") for part in parts)


# -- at an OpenID provider ---------------------------------------------------------------------------------------


async def test_a_person_logs_in_at_the_provider_and_out_again(office: Office, make_page: PageMaker) -> None:
    """The login leads to the provider, comes back to the page that was wanted, and the logout leads there again."""
    office.provider.reset()
    page = await page_of(office, make_page)
    await page.goto("/ui/links?q=wanted")
    await page.get_by_role("link", name="Log in with 127.0.0.1").click()
    await expect(page).to_have_url(re.compile(r"/ui/links\?q=wanted$"))
    await expect(page.locator(".menu-name")).to_have_text("Ann")
    await page.get_by_text("Account").locator("..").click()
    await page.get_by_role("button", name="Log out").click()
    await expect(page.get_by_text("You are logged out here.")).to_be_visible()
    await page.get_by_role("link", name="Log out of 127.0.0.1, too").click()
    await expect(page).to_have_url(re.compile("/ui/login$"))
    assert "/end" in office.provider.asked
    await page.goto("/ui/links")
    await expect(page).to_have_url(re.compile("/ui/login"))


async def test_a_login_that_fails_is_one_plain_page(office: Office) -> None:
    """Whatever goes wrong at the login, one sentence says it, nobody is logged in, and one may try again."""
    office.provider.reset()

    async def arrive(query: str, browser: httpx.AsyncClient) -> httpx.Response:
        answer = await browser.get(f"/ui/login/openid/return?{query}")
        assert "snapurl_session" not in browser.cookies
        assert "Try again" in answer.text and 'role="alert"' in answer.text
        return answer

    async def begun(browser: httpx.AsyncClient) -> str:
        """Begins a login and returns with what the provider sends the browser back."""
        away = await browser.get("/ui/login/openid")
        back = await browser.get(away.headers["location"])
        return urlsplit(back.headers["location"]).query

    stranger = office.browser()
    query = await begun(stranger)
    for other in ("", "code=x&state=y", query.replace("state=", "state=x")):
        assert (await arrive(other, stranger)).status_code == 400
    assert (await arrive(query, office.browser())).status_code == 400  # begun in another browser
    browser = office.browser()
    state = (await begun(browser)).partition("state=")[2].partition("&")[0]
    assert (await arrive(f"state={state}&error=access_denied", browser)).status_code == 403
    assert (await arrive(f"state={state}&error=access_denied", browser)).status_code == 400  # it is over
    browser = office.browser()
    query = await begun(browser)
    assert (await arrive(query.replace("iss=http", "iss=https"), browser)).status_code == 403
    browser = office.browser()
    query = await begun(browser)
    office.provider.claims["groups"] = ["guests"]
    failed = await arrive(query, browser)
    assert failed.status_code == 403 and "No group of Ann may use this dashboard" in failed.text
    browser = office.browser()
    query = await begun(browser)
    office.provider.answers = {"/token": b"down"}
    failed = await arrive(query, browser)
    assert failed.status_code == 503 and "The login service does not answer" in failed.text


async def test_a_form_outlives_the_session_of_a_person(office: Office, make_page: PageMaker) -> None:
    """A form that is sent after the session has ended is sent again after a login in another tab."""
    office.provider.reset()
    page = await page_of(office, make_page)
    await page.goto("/ui/login?next=/ui/new")
    await page.get_by_role("link", name="Log in with 127.0.0.1").click()
    await page.get_by_label("Target URL").fill("https://example.org/typed-before")
    await page.context.clear_cookies()
    await page.get_by_role("button", name="Shorten").click()
    async with page.context.expect_page() as opened:
        await page.get_by_role("link", name="Log in with 127.0.0.1, in a new tab").click()
    await expect((await opened.value).locator(".menu-name")).to_have_text("Ann")
    await page.get_by_role("button", name="Then send your form again").click()
    await expect(page.get_by_text("https://example.org/typed-before")).to_be_visible()


@pytest.mark.parametrize("theme", ["light", "dark"])
async def test_the_pages_of_a_login_fit_and_can_be_used_by_all(
    office: Office, make_page: PageMaker, theme: str
) -> None:
    """The login with a provider and its failure fit into 360 pixels, and axe finds nothing on them."""
    page = await make_page(key=None, base_url=office.url, width=360, theme=theme)
    for path in ("/ui/login", "/ui/login/openid/return"):
        await page.goto(path)
        assert await page.evaluate("document.documentElement.scrollWidth") <= 360
        assert not await page.evaluate(SMALL_TARGETS)
        await page.evaluate(AXE.read_text())
        found = await page.evaluate("axe.run().then((result) => result.violations)")
        assert not [(item["id"], item["nodes"][0]["html"]) for item in found], path


async def test_a_login_leads_to_no_other_site(office: Office) -> None:
    """Whatever address is wanted after the login, it is one of the dashboard."""
    office.provider.reset()
    for place in ("//evil.example", "https://evil.example/", "/\\evil.example", "/ui/..//evil.example"):
        browser = office.browser()
        away = await browser.get("/ui/login/openid", params={"next": place})
        back = await browser.get(away.headers["location"])
        answer = await browser.get(back.headers["location"])
        assert (answer.status_code, answer.headers["location"]) == (303, "/ui")


async def test_without_a_provider_there_is_no_login_at_one(service: Service) -> None:
    """Where no provider is configured its addresses do not exist, and the login does not speak of one."""
    for path in ("/ui/login/openid", "/ui/login/openid/return"):
        assert (await service.client().get(path)).status_code == 404
    assert "Log in with" not in (await service.client().get("/ui/login")).text
