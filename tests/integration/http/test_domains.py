"""Several domains: each has links of its own, on both paths, in the API and on the command line."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Iterator
from typing import Any

import httpx
import pytest

from snapurl.config import Settings
from snapurl.model import MISSING, LinkPatch
from tests.integration.http.conversations import Case, bare_head, head
from tests.integration.http.paths import Pair, Side, paired
from tests.integration.http.service import PUBLIC_URL, Service, running
from tests.integration.http.test_clicks import consuming
from tests.integration.http.test_links_command import run
from tests.support.waits import until

GO, MUC, GONE = "go.example.org", "kurz.xn--mnchen-3ya.example", "gone.example.org"
HERE, THERE = "https://example.org/here", "https://example.org/there"
LINKS = "/api/v1/links"

# -- both paths --------------------------------------------------------------------------------------------------


def asks(host: str, target: bytes = b"/dm-both", **spelled: bytes) -> bytes:
    return head(b"Host: " + host.encode(), target=target, **spelled)


@pytest.fixture(scope="module", params=[100_000, 0], ids=["from L1", "looked up"])
def pair(shared_settings: Settings, request: pytest.FixtureRequest) -> Iterator[Pair]:
    """Yields a service of three domains with the fast path and without it.

    `dm-both` leads elsewhere on each domain, `dm-go` is on one only, `dm-shut` has a password there.
    """
    unlimited = {"limit_missing": "none", "limit_password": "none", "base_url": PUBLIC_URL}
    update = {**unlimited, "domains": f"{GO} kurz.münchen.example", "l1_links": request.param}
    with paired(shared_settings.model_copy(update=update)) as pair:
        made: list[tuple[str, str | None, dict[str, Any]]] = [
            ("dm-both", None, {"url": HERE}),
            ("dm-both", GO, {"url": THERE}),
            ("dm-both", MUC, {"url": THERE + "?muc"}),
            ("dm-go", GO, {"url": THERE, "redirect_status": 308}),
            ("dm-shut", GO, {"url": THERE, "password": "open sesame"}),
        ]
        pair.loop.run(_create_missing(pair.fast, made))
        yield pair


async def _create_missing(side: Side, made: list[tuple[str, str | None, dict[str, Any]]]) -> None:
    for alias, domain, fields in made:
        if await side.app.ctx.services.links.find(f"{domain}/{alias}" if domain else alias) == MISSING:
            await side.create(alias, domain=domain, **fields)


@pytest.fixture
def warm(pair: Pair) -> None:
    pair.warm("dm-both", f"{GO}/dm-both", f"{MUC}/dm-both", f"{GO}/dm-go", f"{GO}/dm-shut")


HOSTS = (
    Case("the default domain", (asks("s.example.org"),), 1),
    Case("another domain", (asks(GO),), 1),
    Case("an international domain", (asks(MUC),), 1),
    Case("a domain with a port", (asks(f"{GO}:8443"), asks(f"{GO}:443"), asks(f"{GO}:")), 3),
    Case("a domain in capitals", (asks("GO.Example.ORG"),), 1),
    Case("a domain with a trailing dot", (asks(f"{GO}."), asks(f"{GO}.:80")), 2),
    Case("spaces around a domain", (asks(f"  {GO}"), asks(f"{GO}\t ")), 1),
    Case("unknown hosts", (asks("x.example.org"), asks(f"x.{GO}"), asks("127.0.0.1:8000"), asks("[::1]")), 4),
    Case("no host name", (asks(""), asks(":80")), 2),
    Case("three domains in one packet", (asks(GO) + asks("s.example.org") + asks(MUC) + asks(GO),), 4),
    Case("a link that the default domain lacks", (asks(GO, b"/dm-go"), asks("s.example.org", b"/dm-go")), 1),
    Case("a link that another domain lacks", (asks(MUC, b"/dm-go"), asks(GO, b"/dm-go")), None),
    Case("a HEAD", (asks(GO, b"/dm-go", method=b"HEAD"),), 1),
    Case("a link with a password", (asks(GO, b"/dm-shut"),)),
    Case("a preview", (asks(GO, b"/dm-both+"), asks("s.example.org", b"/dm-both+"))),
    Case("a whole URL", (asks("s.example.org", f"http://{GO}/dm-both".encode()),)),
    Case("a whole URL of the default domain", (asks(GO, b"https://s.example.org:8443/dm-both"),)),
    Case("a whole URL of a strange host", (asks(GO, b"http://me@x.example.org/dm-both?a"),)),
    Case("HTTP/1.0 without Host", (bare_head(target=b"/dm-both", version=b"HTTP/1.0"),)),
    Case("HTTP/1.0 with Host", (asks(GO, version=b"HTTP/1.0"),)),
    Case("no Host", (bare_head(target=b"/dm-both"),)),
    Case("a percent sign in Host", (asks("%67o.example.org"),)),
    Case("two domains", (head(b"Host: " + GO.encode(), b"Host: s.example.org", target=b"/dm-both"),)),
    Case("one domain twice", (head(*[b"Host: " + GO.encode()] * 2, target=b"/dm-both"),)),
    Case("a key instead of a code", (asks("s.example.org", f"/{GO}%2Fdm-both".encode()),)),
    Case("a key of its own domain", (asks(GO, f"/{GO}/dm-both".encode()),)),
    Case("a word of the service", (asks(GO, b"/api"), asks(GO, b"/health/live"))),
)


@pytest.mark.usefixtures("warm")
@pytest.mark.parametrize("case", HOSTS, ids=lambda case: case.name)
def test_both_paths_find_the_same_domain(pair: Pair, case: Case) -> None:
    """Both paths give the same bytes and clicks whatever the Host, and the fast path answers for each domain."""
    exchange = pair.agree(*case.parts)
    assert case.fast_answers in (None, exchange.fast_answers)
    assert exchange.outcomes["failed"] == 0


@pytest.mark.usefixtures("warm")
def test_two_domains_with_one_alias_are_two_links(pair: Pair) -> None:
    """Each domain leads to the target of its own link, and its clicks count for that one; a strange host leads to
    the default domain's."""
    hosts = (GO, f"{GO.upper()}.:443", "s.example.org", "x.example.org", MUC)
    exchange = pair.agree(*map(asks, hosts))
    targets = [
        line.partition(b"location: ")[2] for line in exchange.answers.split(b"\r\n") if b"location" in line
    ]
    assert [target.decode() for target in targets] == [THERE, THERE, HERE, HERE, f"{THERE}?muc"]
    assert exchange.clicks == {"dm-both": 2, f"{GO}/dm-both": 2, f"{MUC}/dm-both": 1}
    refused = pair.agree(head(b"Host: " + GO.encode(), b"Host: s.example.org", target=b"/dm-both"))
    assert refused.answers.startswith(b"HTTP/1.1 400 ") and not refused.clicks


@pytest.mark.usefixtures("warm")
def test_a_change_reaches_the_caches_of_its_domain_only(pair: Pair) -> None:
    """A change of one of two links with the same alias reaches every worker, and leaves the other as it is."""
    changed = f"https://example.org/{time.time_ns()}"

    async def change(key: str, url: str) -> None:
        await pair.slow.app.ctx.services.links.change(key, LinkPatch(url=url), if_match=None, owner=None)

    pair.loop.run(change(f"{GO}/dm-both", changed))
    try:

        async def is_seen() -> bool:
            said = [(await side.converse([asks(GO)])).answers for side in (pair.fast, pair.slow)]
            return all(changed.encode() in answers for answers in said)

        pair.loop.run(until(is_seen))
        assert HERE.encode() in pair.agree(asks("s.example.org")).answers
    finally:
        pair.loop.run(change(f"{GO}/dm-both", THERE))


def test_a_loop_over_another_domain_is_refused(pair: Pair) -> None:
    """No link may lead to another domain of the service. One that is older than the setting is not followed, from
    whichever domain, by neither path."""
    code = f"dl-{time.time_ns()}"
    links = pair.fast.app.ctx.services.links

    async def close_loop() -> None:
        for domain, other in ((None, GO), (GO, "s.example.org")):
            await pair.fast.create(code, domain=domain)
            key = f"{domain}/{code}" if domain else code
            await links.change(key, LinkPatch(url=f"https://{other}/{code}"), if_match=None, owner=None)

    pair.loop.run(close_loop())
    pair.warm(code, f"{GO}/{code}")
    target = f"/{code}".encode()
    exchange = pair.agree(asks("s.example.org", target), asks(GO, target), asks("x.example.org", target))
    assert exchange.answers.count(b"urn:snapurl:problem:redirect-loop") == 3
    assert exchange.clicks == {} and exchange.outcomes["loop"] == 3


# -- the API -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
async def domains(
    shared_settings: Settings, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Service]:
    """Yields a service of two domains; a link of a third one is there, from when it was configured."""
    directory = tmp_path_factory.mktemp("domains")
    async with (
        running(shared_settings, directory, SNAPURL_DOMAINS=GO) as service,
        consuming(service),
        running(shared_settings, directory, SNAPURL_DOMAINS=GONE) as before,
    ):
        await before.shorten(HERE, alias=f"old-{service.admin_key[-6:]}", domain=GONE)
        yield service


@pytest.fixture
def alias() -> str:
    return f"d-{time.time_ns()}"


async def visit(service: Service, code: str, host: str = "s.example.org") -> httpx.Response:
    return await service.api.get(f"/{code}", headers={"Host": host})


async def test_a_link_is_made_read_changed_and_deleted_on_its_domain(domains: Service, alias: str) -> None:
    """`domain` in a create, and as a parameter wherever a link is addressed, chooses one of two links with one
    alias; every answer says the domain."""
    api, there = domains.api, {"domain": GO}
    here = await domains.shorten(HERE, alias=alias)
    answer = await api.post(LINKS, json={"url": THERE, "alias": alias, "domain": "Go.Example.org."})
    made, address = answer.json(), answer.headers["location"]
    assert (answer.status_code, address) == (201, f"{LINKS}/{alias}?domain={GO}")
    assert (here["domain"], here["code"], here["short_url"]) == (None, alias, f"{PUBLIC_URL}/{alias}")
    assert (made["domain"], made["code"], made["short_url"]) == (GO, alias, f"https://{GO}/{alias}")
    assert (await api.post(LINKS, json={"url": THERE, "alias": alias, "domain": GO})).status_code == 409

    assert (await api.get(address)).json() == made
    for name in ("s.example.org", "S.example.org."):
        assert (await api.get(f"{LINKS}/{alias}", params={"domain": name})).json() == here
    changed = await api.patch(f"{LINKS}/{alias}", params=there, json={"title": "There"})
    assert changed.json()["title"] == "There" and (await api.get(f"{LINKS}/{alias}")).json() == here
    shown = await api.get(f"/{alias}+", headers={"Host": GO, "Accept": "application/json"})
    assert shown.json() == {"domain": GO, "code": alias, "short_url": f"https://{GO}/{alias}", "url": THERE}
    history = (await api.get(f"{LINKS}/{alias}/history", params=there)).json()
    assert (history["domain"], [change["kind"] for change in history["changes"]]) == (
        GO,
        ["create", "change"],
    )
    images = [(await api.get(f"{LINKS}/{alias}/qr", params=asked)).content for asked in ({}, there)]
    assert images[0] != images[1]
    places = [
        (await api.get("/api/v1/ring", params={"code": alias, **asked})).json() for asked in ({}, there)
    ]
    assert places[0]["place"]["slot"] != places[1]["place"]["slot"]

    assert (await api.delete(f"{LINKS}/{alias}", params=there)).status_code == 204
    assert [(await visit(domains, alias, host)).status_code for host in ("s.example.org", GO)] == [302, 410]
    assert (await api.post(f"{LINKS}/{alias}/restore", params=there)).status_code == 200
    assert (await visit(domains, alias, GO)).headers["location"] == THERE


async def test_clicks_of_two_domains_are_counted_apart(domains: Service, alias: str) -> None:
    """Statistics are those of the domain that is asked for."""
    await domains.shorten(HERE, alias=alias)
    await domains.shorten(THERE, alias=alias, domain=GO)
    for host in ("s.example.org", GO, GO):
        assert (await visit(domains, alias, host)).status_code == 302

    async def counted() -> list[tuple[str | None, int]]:
        found = [
            await domains.api.get(f"{LINKS}/{alias}/stats", params=asked) for asked in ({}, {"domain": GO})
        ]
        return [(answer.json()["domain"], answer.json()["clicks"]) for answer in found]

    await until(lambda: _equals(counted, [(None, 1), (GO, 2)]))


async def _equals(call: Any, expected: object) -> bool:
    return bool(await call() == expected)


async def test_a_domain_that_is_not_configured_is_refused(domains: Service, alias: str) -> None:
    """A create, a read, a list and a batch that name one are refused, with the names of those that are."""
    api, other = domains.api, {"domain": "other.example.org"}
    await domains.shorten(HERE, alias=alias)
    batch = {"action": "disable", "codes": [alias]}
    answers = [
        await api.post(LINKS, json={"url": HERE, **other}),
        await api.get(f"{LINKS}/{alias}", params=other),
        await api.delete(f"{LINKS}/{alias}", params=other),
        await api.get(LINKS, params=other),
        await api.post(f"{LINKS}/batch", json={**batch, **other}),
        await api.post(f"{LINKS}/batch", json={"action": "disable", "filter": other, "dry_run": True}),
    ]
    pointers = ["/domain", *["/query/domain"] * 3, "/domain", "/filter/domain"]
    for answer, pointer in zip(answers, pointers, strict=True):
        assert answer.status_code == 422, answer.text
        (error,) = answer.json()["errors"]
        assert error["pointer"] == pointer and f"its domains are s.example.org, {GO}" in error["detail"]
    for name in ("https://go.example.org", "10.0.0.1", f"{GO}:443"):
        assert "is not a host name" in (await api.get(f"{LINKS}/{alias}", params={"domain": name})).text
    bulk = await api.post(
        f"{LINKS}/bulk", json={"links": [{"url": HERE, **other}, {"url": HERE, "domain": GO}]}
    )
    refused, made = bulk.json()["results"]
    assert (refused["status"], made["status"], made["link"]["domain"]) == (422, 201, GO)
    assert (await visit(domains, made["link"]["code"], GO)).headers["location"] == HERE


async def test_lists_and_batches_know_the_domain(domains: Service, alias: str) -> None:
    """A list can be that of one domain, also of the default one; a batch is of the domain that it names."""
    api = domains.api
    for domain in (None, GO):
        await domains.shorten(HERE, alias=alias, tags=[alias], **({"domain": domain} if domain else {}))

    async def listed(**asked: Any) -> list[tuple[str | None, bool]]:
        answer = await api.get(LINKS, params={"tags_all": alias, "sort": "code", "order": "asc", **asked})
        assert answer.status_code == 200, answer.text
        return [(link["domain"], link["enabled"]) for link in answer.json()["links"]]

    assert await listed() == [(None, True), (GO, True)]
    assert await listed(domain=GO) == [(GO, True)] and await listed(domain="s.example.org") == [(None, True)]
    first = (await api.get(LINKS, params={"tags_all": alias, "limit": 1})).json()
    rest = (
        await api.get(LINKS, params={"tags_all": alias, "limit": 1, "cursor": first["next_cursor"]})
    ).json()
    assert {link["domain"] for link in first["links"] + rest["links"]} == {None, GO}
    done = await api.post(f"{LINKS}/batch", json={"action": "disable", "codes": [alias], "domain": GO})
    assert [(each["domain"], each["code"], each["status"]) for each in done.json()["results"]] == [
        (GO, alias, 200)
    ]
    assert await listed() == [(None, True), (GO, False)]
    asked = {"action": "enable", "filter": {"domain": GO, "tags_all": [alias]}}
    assert (await api.post(f"{LINKS}/batch", json={**asked, "dry_run": True})).json()["total"] == 1
    await api.post(f"{LINKS}/batch", json={**asked, "confirm": 1})
    assert await listed(domain=GO) == [(GO, True)]


async def test_links_of_a_domain_that_was_taken_out_can_still_be_managed(domains: Service) -> None:
    """They are listed, read, changed and deleted, and are said to be of a domain that is not configured. Its host
    leads to the links of the default domain."""
    api, asked, code = domains.api, {"domain": GONE}, f"old-{domains.admin_key[-6:]}"
    for page in (await api.get(LINKS, params={"q": code}), await api.get(LINKS, params={**asked, "q": code})):
        (link,) = page.json()["links"]
        assert (link["domain"], link["domain_is_configured"]) == (GONE, False)
        assert link["short_url"] == f"https://{GONE}/{code}"
    assert (await visit(domains, code, GONE)).status_code == 404
    refused = await api.post(LINKS, json={"url": HERE, **asked})
    assert refused.json()["errors"][0]["pointer"] == "/domain"
    moved = await api.patch(f"{LINKS}/{code}", params=asked, json={"url": THERE})
    assert (moved.status_code, moved.json()["url"]) == (200, THERE)
    assert (await api.delete(f"{LINKS}/{code}", params=asked)).status_code == 204


async def test_the_command_line_names_a_domain(domains: Service, alias: str) -> None:
    """`--domain`, or a short URL, says of which domain a link is; a list shows it."""
    alias = alias[-8:]  # fits a column
    environ = {"SNAPURL_URL": domains.workers[0].url, "SNAPURL_API_KEY": domains.admin_key}
    for url, domain in ((HERE, ()), (THERE, ("--domain", GO))):
        made = await run(environ, "create", url, "--alias", alias, "--tag", alias, *domain)
        assert made.code == 0, made.err
    for words, url in (
        ([alias], HERE),
        ([alias, "--domain", GO], THERE),
        ([f"https://{GO}/{alias}"], THERE),
        ([f"{GO}/{alias}?qr"], THERE),
        ([f"{PUBLIC_URL}/{alias}"], HERE),
    ):
        assert (await run(environ, "show", *words)).document["url"] == url
    listed = await run(environ, "list", "--tag", alias, "--domain", GO, "--text")
    assert f"{GO}/{alias}" in listed.out and HERE not in listed.out
    deleted = await run(environ, "delete", alias, "--domain", GO, "--yes", "--text")
    assert deleted.out == f"Deleted {GO}/{alias}.\n"
    places = [(await run(environ, "where", alias, *domain)).document for domain in ((), ("--domain", GO))]
    assert places[0]["slot"] != places[1]["slot"]
    refused = await run(environ, "show", alias, "--domain", "other.example.org")
    assert refused.code == 1 and f"its domains are s.example.org, {GO}" in refused.err


async def test_a_repeated_create_is_of_the_same_domain(domains: Service, alias: str) -> None:
    """With one Idempotency-Key a repeat finds its link again; on another domain it is a different request. The name
    of the default domain is no difference."""
    once = {"Idempotency-Key": alias}

    async def create(**fields: str) -> httpx.Response:
        return await domains.api.post(LINKS, json={"url": HERE, **fields}, headers=once)

    first, again, other = await create(domain=GO), await create(domain=GO.upper()), await create()
    assert first.json() == again.json() and first.json()["domain"] == GO
    assert other.status_code == 422
    once["Idempotency-Key"] = f"{alias}-2"
    assert (await create()).json() == (await create(domain="s.example.org")).json()


# -- the dashboard -----------------------------------------------------------------------------------------------


async def test_the_dashboard_manages_links_of_each_domain(domains: Service, alias: str) -> None:
    """The form of a new link offers the domains; the pages of a link are those of its domain, and show its short
    URL."""
    async with httpx.AsyncClient(base_url=domains.workers[0].url, follow_redirects=False) as browser:
        ours = {"Sec-Fetch-Site": "same-origin"}
        login = await browser.post("/ui/login", data={"key": domains.admin_key}, headers=ours)
        session = {**ours, "Cookie": login.headers["set-cookie"].partition(";")[0]}
        form = await browser.get("/ui/new", headers=session)
        assert f'<option value="{GO}">' in form.text
        await domains.shorten(HERE, alias=alias)
        sent = {"url": THERE, "alias": alias, "domain": GO, "expires": "never", "status": "302"}
        made = await browser.post("/ui/links", data=sent, headers=session)
        page = f"/ui/links/{GO}~{alias}"
        assert (made.status_code, made.headers["location"]) == (303, f"{page}?made=1")
        shown = await browser.get(page, headers=session)
        assert (
            shown.status_code == 200 and f'href="https://{GO}/{alias}"' in shown.text and THERE in shown.text
        )
        other = await browser.get(f"/ui/links/{alias}", headers=session)
        assert f'href="{PUBLIC_URL}/{alias}"' in other.text and HERE in other.text
        assert (await browser.get(f"{page}/qr/svg", headers=session)).status_code == 200
        assert (await browser.get(f"{page}/edit", headers=session)).status_code == 200
        listed = await browser.get("/ui/links", params={"q": alias}, headers=session)
        assert f'href="{page}"' in listed.text and f'data-copy="https://{GO}/{alias}"' in listed.text
        gone = await browser.post(f"{page}/delete", data={"sure": ""}, headers=session)
        assert gone.status_code == 303
        states = [(await visit(domains, alias, host)).status_code for host in ("s.example.org", GO)]
        assert states == [302, 410]
        assert (await browser.post(f"{page}/restore", data={"sure": ""}, headers=session)).status_code == 303
