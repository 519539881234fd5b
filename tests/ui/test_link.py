"""One link: creating, its page and statistics, editing with conflicts, deleting."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

import pytest
from playwright.async_api import Page, expect

from ring.slots import slot_of
from snapurl.model import ClickRow, SourceClicks, SourceKind
from tests.integration.http.service import Service
from tests.support.click_rows import by_kind, count_clicks
from tests.ui.conftest import PageMaker


@pytest.mark.parametrize("javascript", [True, False])
async def test_every_field_of_a_new_link(service: Service, make_page: PageMaker, javascript: bool) -> None:
    """The form makes a link of all its fields, also where no script runs."""
    page = await make_page(javascript=javascript)
    alias = "with-script" if javascript else "without-script"
    await page.goto("/ui/new")
    await page.get_by_label("Target URL").fill("https://example.org/all-fields")
    await page.get_by_label("Alias").fill(alias)
    await page.get_by_label("Title").fill("Every field")
    await page.get_by_label("Tags").fill("one, two words, one")
    await page.get_by_role("combobox", name="Expires").select_option("week")
    await page.get_by_text("More options").click()
    await page.get_by_label("Redirect status").select_option("308")
    await page.get_by_role("button", name="Shorten").click()
    await expect(page.get_by_text("The link is ready.")).to_be_visible()
    link = (await service.api.get(f"/api/v1/links/{alias}")).json()
    assert (link["title"], link["tags"], link["redirect_status"]) == (
        "Every field",
        ["one", "two words"],
        308,
    )
    assert link["expires_at"] is not None
    await expect(page.get_by_text("in 6 days")).to_be_visible()


@pytest.mark.parametrize("javascript", [True, False])
async def test_every_option_of_a_link(service: Service, make_page: PageMaker, javascript: bool) -> None:
    """The options are folded away; with and without scripts they are set, shown as they are, and taken away."""
    page = await make_page(javascript=javascript)
    alias = f"options-{javascript}"
    await page.goto("/ui/links")
    await page.get_by_label("URL to shorten").fill("example.org/typed")
    await page.get_by_role("button", name="Options").click()
    await expect(page.get_by_label("Target URL")).to_have_value("https://example.org/typed")
    await expect(page.get_by_label("Clicks at most")).to_be_hidden()
    await page.get_by_text("More options").click()
    await page.get_by_label("Alias").fill(alias)
    await page.get_by_label("Switched off").check()
    await page.get_by_label("Starts").fill("2099-01-31T05:30")
    await page.get_by_label("Clicks at most").fill("many")
    await page.get_by_label("lead to").fill("example.org/over")
    await page.get_by_label("Password").fill("open sesame")
    await page.get_by_label("Forward the query").check()
    await page.get_by_label("Note").fill("of\ntwo lines")
    await page.get_by_role("button", name="Shorten").click()
    await expect(page.locator("#max_clicks-error")).to_be_visible()
    await page.get_by_label("Clicks at most").fill("7")
    await page.get_by_role("button", name="Shorten").click()
    await expect(page.get_by_text("The link is ready.")).to_be_visible()
    link = (await service.api.get(f"/api/v1/links/{alias}")).json()
    names = ("enabled", "starts_at", "max_clicks", "expired_url", "has_password", "forward_query", "note")
    assert [link[name] for name in names] == [
        False, "2099-01-31T05:30:00.000000Z", 7, "https://example.org/over", True, True, "of\ntwo lines",
    ]  # fmt: skip
    for text in ("Switched off", "Password", "0 of 7 clicks used"):
        await expect(page.locator(".facts").get_by_text(text)).to_be_visible()

    await page.goto(f"/ui/links/{alias}/edit")
    await expect(page.get_by_label("Starts")).to_have_value("2099-01-31T05:30")
    assert "open sesame" not in await page.content()
    await page.get_by_label("Switched off").uncheck()
    await page.get_by_label("Clicks at most").fill("")
    await page.get_by_label("Remove the password").check()
    await page.get_by_role("button", name="Save").click()
    await expect(page.get_by_text("Saved.")).to_be_visible()
    link = (await service.api.get(f"/api/v1/links/{alias}")).json()
    assert [link[name] for name in names] == [
        True, "2099-01-31T05:30:00.000000Z", None, "https://example.org/over", False, True, "of\ntwo lines",
    ]  # fmt: skip


@pytest.mark.parametrize("javascript", [True, False])
async def test_rules_are_edited_in_a_form(service: Service, make_page: PageMaker, javascript: bool) -> None:
    """Rules are added, moved and removed; what is wrong with one stands beside its field."""
    page = await make_page(javascript=javascript)
    alias = f"rules-{javascript}"
    await service.shorten(alias=alias)
    await page.goto(f"/ui/links/{alias}/edit")
    await page.get_by_text("More options").click()
    add = page.get_by_role("button", name="Add a rule")
    await add.click()
    first, second = (page.get_by_role("group", name=f"Rule {number}", exact=True) for number in (1, 2))
    await first.get_by_label("iOS").check()
    await first.get_by_label("Leads to").fill("example.org/ios")
    await add.click()
    await second.get_by_label("Language").fill("de")
    await second.get_by_label("Percentage").fill("150")
    await second.get_by_text("Other conditions").click()
    await second.get_by_label("As JSON").fill('{"query": {"from": "mail"}}')
    await second.get_by_label("Leads to").fill("https://example.org/de")
    await page.get_by_role("button", name="Save").click()
    await expect(second.get_by_text("Must be at most 99.")).to_be_visible()
    await second.get_by_label("Percentage").fill("50")
    await page.get_by_role("button", name="Move rule 2 up").click()
    await expect(first.get_by_label("Language")).to_have_value("de")
    await page.get_by_role("button", name="Save").click()
    await expect(page.get_by_text("Saved.")).to_be_visible()
    await expect(page.get_by_text("2 rules")).to_be_visible()
    link = (await service.api.get(f"/api/v1/links/{alias}")).json()
    assert link["rules"] == [
        {
            "if": {"query": {"from": "mail"}, "language": ["de"], "percentage": 50},
            "url": "https://example.org/de",
        },
        {"if": {"os": ["ios"]}, "url": "https://example.org/ios"},
    ]
    await page.goto(f"/ui/links/{alias}/edit")
    await page.get_by_role("button", name="Remove rule 1").click()
    await page.get_by_role("button", name="Remove rule 1").click()
    await expect(first).to_have_count(0)
    await page.get_by_role("button", name="Save").click()
    await expect(page.get_by_text("Saved.")).to_be_visible()
    assert (await service.api.get(f"/api/v1/links/{alias}")).json()["rules"] is None


async def test_a_refused_form_keeps_what_was_typed(service: Service, page: Page) -> None:
    """What is wrong stands beside its field, and nothing that was typed is gone."""
    await service.shorten(alias="is-taken")
    await page.goto("/ui/new")
    await page.get_by_label("Target URL").fill("ftp://example.org/")
    await page.get_by_label("Alias").fill("is-taken")
    await page.get_by_label("Title").fill("Typed")
    await page.keyboard.press("Enter")
    await expect(page.locator("#url-error")).to_be_visible()
    await page.get_by_label("Target URL").fill("https://example.org/")
    await page.get_by_role("button", name="Shorten").click()
    await expect(page.locator("#alias-error")).to_contain_text("Is taken")
    await expect(page.get_by_label("Title")).to_have_value("Typed")
    await page.get_by_label("Alias").fill("is-free")
    await page.get_by_role("button", name="Shorten").click()
    await expect(page).to_have_url(re.compile("/ui/links/is-free"))


async def test_sending_a_form_twice_makes_one_link(service: Service, page: Page) -> None:
    """A form that is sent twice, by whatever accident, makes one link; with other values it makes another."""
    await page.goto("/ui/new")
    once = await page.locator("[name=once]").get_attribute("value")
    cookies = {cookie["name"]: cookie["value"] for cookie in await page.context.cookies()}
    browser = service.client(Cookie="; ".join(f"{name}={value}" for name, value in cookies.items()))
    form = {"url": "https://example.org/twice", "once": once, "expires": "week"}
    headers = {"Sec-Fetch-Site": "same-origin"}
    answers = [await browser.post("/ui/links", data=form, headers=headers) for _ in range(2)]
    assert answers[0].headers["location"] == answers[1].headers["location"]
    other = await browser.post("/ui/links", data={**form, "title": "Another"}, headers=headers)
    assert other.headers["location"] != answers[0].headers["location"]


async def test_a_date_is_local_to_the_browser(service: Service, make_page: PageMaker) -> None:
    """A date is typed and shown in the time zone of the browser, and stored in UTC."""
    page = await make_page(zone="Asia/Kolkata")
    await page.goto("/ui/new")
    await page.get_by_label("Target URL").fill("https://example.org/zone")
    await page.get_by_label("Alias").fill("in-kolkata")
    await page.get_by_role("combobox", name="Expires").select_option("date")
    await page.get_by_label("Date and time").fill("2099-01-31T05:30")
    await page.get_by_role("button", name="Shorten").click()
    await expect(page.get_by_text("The link is ready.")).to_be_visible()
    link = (await service.api.get("/api/v1/links/in-kolkata")).json()
    assert link["expires_at"] == "2099-01-31T00:00:00.000000Z"
    await page.goto("/ui/links/in-kolkata/edit")
    await expect(page.get_by_label("Date and time")).to_have_value("2099-01-31T05:30")
    await page.get_by_label("Title").fill("Still the same moment")
    await page.get_by_role("button", name="Save").click()
    await expect(page.get_by_text("Saved.")).to_be_visible()
    again = (await service.api.get("/api/v1/links/in-kolkata")).json()
    assert (again["expires_at"], again["version"]) == (link["expires_at"], 2)


@pytest.mark.parametrize("javascript", [True, False])
async def test_a_conflict_shows_both_versions(
    service: Service, make_page: PageMaker, javascript: bool
) -> None:
    """Who edits a link that somebody has changed meanwhile sees both versions, and decides without typing again."""
    alias = f"conflict-{javascript}"
    await service.shorten("https://example.org/old", alias=alias, title="Old")
    page = await make_page(javascript=javascript)
    await page.goto(f"/ui/links/{alias}/edit")
    await page.get_by_label("Title").fill("Mine")
    await service.api.patch(f"/api/v1/links/{alias}", json={"url": "https://example.org/theirs"})
    await page.get_by_role("button", name="Save").click()
    await expect(page.get_by_text("Somebody has changed this link")).to_be_visible()
    table = page.get_by_role("table")
    await expect(table.get_by_role("row", name="Target")).to_contain_text("https://example.org/theirs")
    await expect(table.get_by_role("row", name="Title")).to_contain_text("Mine")
    await page.get_by_role("button", name="Save what I typed").click()
    await expect(page.get_by_text("Saved.")).to_be_visible()
    link = (await service.api.get(f"/api/v1/links/{alias}")).json()
    assert (link["url"], link["title"]) == ("https://example.org/old", "Mine")


@pytest.mark.parametrize("javascript", [True, False])
async def test_a_deleted_link_comes_back(service: Service, make_page: PageMaker, javascript: bool) -> None:
    """A link is deleted at once, and Undo brings it back as it was; later the list of deleted links does."""
    alias = f"undo-{javascript}"
    await service.shorten(alias=alias, title="Kept")
    page = await make_page(javascript=javascript)
    await page.goto(f"/ui/links/{alias}")
    await page.get_by_role("button", name="Delete").click()
    await expect(page.get_by_role("status").first).to_contain_text(f"{alias} is deleted")
    assert (await service.api.get(f"/api/v1/links/{alias}")).status_code == 410
    await page.get_by_role("button", name="Undo").click()
    await expect(page.get_by_text("The link is back.")).to_be_visible()
    assert (await service.api.get(f"/api/v1/links/{alias}")).json()["title"] == "Kept"
    await page.get_by_role("button", name="Delete").click()
    await page.goto("/ui/links?state=deleted")
    await page.locator(".row", has_text=alias).get_by_role("button", name="Restore").click()
    await expect(page.get_by_text("The link is back.")).to_be_visible()


async def test_clicks_are_drawn_and_told(service: Service, make_page: PageMaker) -> None:
    """The page of a link shows people, and bots if asked, by interval, beside the period before, and where they
    came from: as bars, as numbers and as CSV, without scripts."""
    await service.shorten(alias="clicked")
    today, slot = datetime.now(UTC).date(), slot_of("clicked")
    yesterday, earlier = today - timedelta(days=1), today - timedelta(days=40)
    told = (
        SourceClicks(SourceKind.REFERRER, "news.example", 2), SourceClicks(SourceKind.BROWSER, "firefox", 2),
        SourceClicks(SourceKind.DEVICE, "mobile", 1), SourceClicks(SourceKind.CHANNEL, "qr", 1),
        SourceClicks(SourceKind.BOT, "crawler", 1),
    )  # fmt: skip
    rows = [
        ClickRow(slot, 1, "clicked", earlier, 1_000),
        ClickRow(slot, 2, "clicked", yesterday, 1_240, hour=7),
        ClickRow(slot, 3, "clicked", today, 5, by_kind(told), hour=0, bots=3),
    ]
    await count_clicks(service.settings, "clicked", rows)
    page = await make_page(javascript=False)
    await page.goto("/ui/links/clicked")
    main = page.locator(".figure-main")
    await expect(main).to_contain_text(re.compile(r"People\s*1,242\s*\+24 %\s*24 % more than before\s*1,000"))
    await expect(page.locator(".figures")).to_contain_text(
        re.compile(r"Bots\s*3.*All clicks\s*2,245", re.DOTALL)
    )
    heights = [float(await bar.get_attribute("height") or 0) for bar in await page.locator(".bar-fill").all()]
    assert len(heights) == 30 and heights[-2] == max(heights) and 0 < heights[-1] < heights[-2]
    await expect(page.locator("polyline.before")).to_have_count(1)
    await page.get_by_text("Show as a table").click()
    cells = page.locator(".numbers tbody tr").first.locator("td")
    assert (await cells.all_text_contents())[1:] == ["2", "0"]
    await expect(page.get_by_role("row", name="news.example")).to_contain_text("2")
    numbers = await page.locator(".shares td:last-child").all()
    heights = [box["height"] for number in numbers if (box := await number.bounding_box())]
    assert len(set(heights)) == 1, "no number is broken over two lines"
    titles = await page.locator("#sources h2").all_text_contents()
    assert titles == ["Referrers", "Browsers", "Devices", "Link or QR code", "Bots"], "only what was told"
    await expect(page.get_by_role("row", name="QR code")).to_contain_text("1")
    referrers = page.locator(".panels section", has_text="Referrers")
    await expect(referrers.get_by_role("row", name="not told")).to_contain_text("1,240")
    await page.get_by_role("link", name="With bots").click()
    await expect(main).to_contain_text(re.compile(r"Clicks\s*1,245"))
    await expect(referrers.get_by_role("row", name="not told")).to_contain_text("1,243")
    await page.get_by_role("link", name="7 days").click()
    await expect(page.locator(".bar-fill")).to_have_count(7)
    await page.get_by_role("link", name="Hours").click()
    await expect(page.locator(".bar-fill")).to_have_count(7 * 24)
    await page.get_by_role("link", name="1 year").click()
    await expect(page.get_by_role("link", name="Weeks")).to_have_attribute("aria-current", "true")
    await page.get_by_role("link", name="Months").click()
    assert await page.locator(".bar-fill").count() in (12, 13)
    await page.get_by_label("From", exact=True).fill(f"{yesterday}")
    await page.get_by_label("To", exact=True).fill(f"{yesterday}")
    await page.get_by_role("button", name="Show").click()
    await expect(main).to_contain_text(re.compile(r"Clicks\s*1,240\s*0 before"))
    await expect(page.locator(".bar-fill")).to_have_count(24)
    await page.goto(f"/ui/links/clicked?from={today}&to={yesterday}")
    await expect(page.get_by_role("alert")).to_contain_text("no range")
    for name, lines in (
        ("CSV of the series", ["start,clicks,bots,visitors", f"{yesterday},1240,0,0", f"{today},5,3,0"]),
        ("CSV", ["value,clicks", ",1240", "news.example,2"]),
    ):
        async with page.expect_download() as download:
            await page.get_by_role("link", name=name, exact=True).first.click()
        assert (await (await download.value).path()).read_text().split() == lines


async def test_the_first_click_is_seen_live(service: Service, page: Page) -> None:
    """An open page counts a click as soon as its shard has, draws it, and says when the link is gone. A page that
    gets no events asks now and then."""
    slot, today = slot_of("seen-live"), datetime.now(UTC).date()
    await service.shorten(alias="seen-live")
    await page.goto("/ui/links/seen-live")
    await expect(page.locator("#live-state")).to_have_text("Live")
    await expect(page.get_by_text("No clicks yet.")).to_be_visible()
    source = SourceClicks(SourceKind.REFERRER, "news.example", 1)
    await count_clicks(
        service.settings, "seen-live", [ClickRow(slot, 1, "seen-live", today, 1, by_kind([source]))]
    )
    await expect(page.locator("[data-clicks]")).to_have_text("1")
    await expect(page.locator(".bar-fill")).to_have_count(30)
    await expect(page.get_by_role("row", name="news.example")).to_contain_text("1")
    await expect(page.locator("#spoken")).to_have_text("1 click in all")
    await page.get_by_text("Show as a table").click()
    await count_clicks(service.settings, "seen-live", [ClickRow(slot, 2, "seen-live", today, 1_999)])
    await expect(page.locator("[data-clicks]")).to_have_text("2,000")
    await expect(page.locator(".big")).to_have_text("2,000")

    await page.route("**/live/events", lambda route: route.fulfill(status=503))
    await page.reload()
    await expect(page.locator("#live-state")).to_have_text("Updated every 5 s")
    await page.unroute("**/live/events")
    await page.reload()
    await expect(page.locator("#live-state")).to_have_text("Live")
    await service.api.delete("/api/v1/links/seen-live")
    await expect(page.get_by_text("The link was deleted.")).to_be_visible()


@pytest.mark.parametrize("javascript", [True, False])
async def test_a_link_gets_another_code_on_its_page(
    service: Service, make_page: PageMaker, javascript: bool
) -> None:
    """The page of a link lists who changed what. A title is taken from public pages alone. The link gets another
    code, and the old one says so."""
    page, old, new = await make_page(javascript=javascript), f"old-{javascript}", f"new-{javascript}"
    await service.shorten(alias=old, title="First", expires_at="2099-01-31T12:00:00Z")
    await service.api.patch(
        f"/api/v1/links/{old}", json={"title": None, "expires_at": "2099-02-28T12:00:00Z"}
    )
    await page.goto(f"/ui/links/{old}")
    newest = page.locator(".history > li").first
    await expect(newest).to_contain_text(
        re.compile(r"Changed.*now.*by you.*Expires.*31 Jan 2099.*28 Feb", re.DOTALL)
    )
    await expect(newest).to_contain_text(re.compile(r"Title\s*First → nothing"))
    await expect(page.locator(".history > li").last).to_contain_text("Created")
    await service.api.patch(f"/api/v1/links/{old}", json={"url": "http://127.0.0.1:65000/"})
    await page.get_by_role("button", name="Take the page").click()
    await expect(page.get_by_role("alert")).to_have_text("The target is not on the public Internet.")
    await page.get_by_text("Give it another code").click()
    await page.get_by_label("New code").fill(old)
    await page.get_by_label("Give the old code up").check()
    await page.get_by_role("button", name="Rename").click()
    await expect(page.locator("#code-error")).to_have_text("Is the code that the link has.")
    await expect(page.get_by_label("New code")).to_have_value(old)
    await page.get_by_label("New code").fill(new)
    await page.get_by_label("Give the old code up").uncheck()
    await page.get_by_role("button", name="Rename").click()
    await expect(page.get_by_text("The link has its new code.")).to_be_visible()
    await expect(page).to_have_url(re.compile(f"/ui/links/{new}"))
    await page.goto(f"/ui/links/{old}")
    await expect(page.locator(".history > li").first).to_contain_text("Renamed")
    await page.locator(".facts").get_by_role("link", name=new).click()
    await expect(page).to_have_url(re.compile(f"/ui/links/{new}"))


async def test_a_qr_code_can_be_seen_and_saved(service: Service, page: Page) -> None:
    """The page of a link shows its QR code, and offers it as a picture of a size to print."""
    await service.shorten(alias="scanned")
    await page.goto("/ui/links/scanned")
    shown = page.get_by_role("img", name="QR code of the short URL")
    assert await shown.evaluate("image => image.complete && image.naturalWidth") == 320
    async with page.expect_download() as download:
        await page.get_by_role("link", name="PNG").click()
    saved = await download.value
    assert saved.suggested_filename == "scanned.png"
    assert (await saved.path()).read_bytes().startswith(b"\x89PNG")
