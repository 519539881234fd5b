"""YOURLS' API: what its clients send and read, in every format and kind of form."""

from __future__ import annotations

import json
import re
import uuid
from datetime import datetime
from typing import Any
from xml.etree import ElementTree as ET

import httpx

from snapurl.model import Right
from tests.integration.http.conftest import ServiceMaker
from tests.integration.http.service import PUBLIC_URL, Service
from tests.integration.http.test_statistics import count

PATH = "/yourls-api.php"


def asked(service: Service, **parameters: Any) -> dict[str, Any]:
    """Returns parameters with the admin key, for an answer in JSON."""
    return {"signature": service.admin_key, "format": "json", **parameters}


async def said(client: httpx.AsyncClient, status: int = 200, **parameters: Any) -> dict[str, Any]:
    answer = await client.get(PATH, params=parameters)
    assert answer.status_code == status, answer.text
    found: dict[str, Any] = answer.json()
    assert str(found.get("statusCode") or found.get("errorCode") or 200) == str(status)
    return found


async def test_a_url_is_shortened_expanded_and_counted(service: Service) -> None:
    """Each action answers with what clients read: strings, dates without a zone, titles that are never null."""
    client, keyword = service.client(), f"k{uuid.uuid4().hex[:8]}"
    url = f"https://example.org/{keyword}?a=1&b=2"
    short = f"{PUBLIC_URL}/{keyword}"
    made = await said(client, **asked(service, action="shorturl", url=url, keyword=keyword))
    assert (made["status"], made["statusCode"], made["shorturl"], made["title"]) == (
        "success",
        "200",
        short,
        url,
    )
    assert (made["url"]["keyword"], made["url"]["url"], made["url"]["ip"]) == (keyword, url, "")
    datetime.strptime(made["url"]["date"], "%Y-%m-%d %H:%M:%S")  # noqa: DTZ007 - as clients read it
    await count(service, keyword)
    for name in (keyword, short, short.removeprefix("https://"), short + "?x"):
        expanded = await said(client, **asked(service, action="expand", shorturl=name))
        assert (expanded["keyword"], expanded["longurl"], expanded["message"]) == (keyword, url, "success")
    link = (await said(client, **asked(service, action="url-stats", shorturl=keyword)))["link"]
    assert link == {
        "shorturl": short, "url": url, "title": url, "timestamp": made["url"]["date"], "ip": "", "clicks": 18,
    }  # fmt: skip
    for action in ("expand", "url-stats"):
        for name in ("none-" + keyword, "", "https://other.example.org/" + keyword, "a.b"):
            missing = await said(client, 404, **asked(service, action=action, shorturl=name))
            assert (missing["message"], missing["code"]) == ("Error: short URL not found", "error:notfound")
    assert (await said(client, **asked(service, action="version", db=1))).keys() == {"version", "db_version"}
    for action in ("", "nothing"):
        refused = await said(client, 400, **asked(service, action=action))
        assert refused["message"] == 'Unknown or missing "action" parameter'


async def test_what_cannot_be_shortened_is_refused(service: Service) -> None:
    """Each refusal has its code: a keyword is never changed in silence, and nothing is made."""
    client, keyword = service.client(), f"k{uuid.uuid4().hex[:8]}"
    wanted = asked(service, action="shorturl", url="example.org/x", keyword=keyword, title="a\nb" + "x" * 400)
    made = await said(client, **wanted)
    assert (made["url"]["url"], made["title"][:4], len(made["title"])) == (
        "http://example.org/x",
        "a bx",
        300,
    )
    for parameters, code in (
        ({"keyword": keyword}, "error:keyword"),
        ({"keyword": "health"}, "error:keyword"),
        ({"keyword": "a b"}, "error:keyword"),
        ({"url": ""}, "error:nourl"),
        ({"url": "mailto:a@example.org"}, "error:nourl"),
        ({"url": f"{PUBLIC_URL}/{keyword}", "keyword": ""}, "error:noloop"),
    ):
        refused = await said(client, 400, **{**wanted, **parameters})
        assert (refused["status"], refused["code"], refused["statusCode"]) == ("fail", code, "400"), (
            parameters
        )


async def test_every_format_says_the_same(service: Service) -> None:
    """JSON, JSONP, XML and one word; XML without a format; a callback is told back and cannot hold a script."""
    client = service.client()
    made = asked(service, action="shorturl", url="https://example.org/?a=1&b=<2>", title="A & <B>")
    xml = await client.get(PATH, params={**made, "format": "xml"})
    assert xml.headers["content-type"].startswith("application/xml")
    root = ET.fromstring(xml.text)
    assert (root.tag, root.findtext("title"), root.findtext("url/url")) == (
        "root", "A & <B>", "https://example.org/?a=1&b=<2>",
    )  # fmt: skip
    without = await client.get(PATH, params={"signature": service.admin_key, "action": "version"})
    assert ET.fromstring(without.text).findtext("version") == "1.10.4"
    word = await client.get(PATH, params={**made, "format": "simple"})
    assert word.headers["content-type"].startswith("text/plain")
    assert re.fullmatch(rf"{PUBLIC_URL}/\w+", word.text)
    for parameters, text in (
        ({"action": "expand", "shorturl": word.text}, "https://example.org/?a=1&b=<2>"),
        ({"action": "expand", "shorturl": "none"}, "not found"),
        ({"action": "version"}, "1.10.4"),
        ({"action": "shorturl", "url": ""}, ""),
        ({"action": "stats"}, "Need either XML or JSON format for stats"),
        ({"action": "stats", "signature": ""}, "Please log in"),
    ):
        answer = await client.get(PATH, params={**made, "format": "simple", **parameters})
        assert answer.text == text, parameters
    for name in ("a.b_$1", "__yourls123_jsonp[456]"):
        script = await client.get(PATH, params={**made, "format": "jsonp", "callback": name})
        assert script.headers["content-type"] == "application/javascript"
        assert (script.text.startswith(name + "({"), script.text.endswith("})")) == (True, True)
        assert json.loads(script.text.removeprefix(name)[1:-1])["callback"] == name
    for name in ("alert(1)//", "", "x" * 300):
        answer = await client.get(PATH, params={**made, "format": "jsonp", "callback": name})
        assert (answer.status_code, answer.json()["error"]) == (400, "Invalid callback parameter")


async def test_parameters_come_in_a_query_or_a_form(service: Service) -> None:
    """ShareX posts multipart, extensions and pyourls3 urlencoded, n8n a query with an empty JSON object."""
    client = service.client()
    made = asked(service, action="shorturl", url="https://example.org/ä", format="simple")
    multipart = {name: (None, value) for name, value in made.items()}
    answers = [
        await client.post(PATH, data=made),
        await client.post(PATH, files=multipart),
        await client.post(PATH, params=made, json={}),
        await client.post(PATH, params={"action": "shorturl", "format": "simple"}, data=made),
        await client.request(
            "GET", PATH, params=made, headers={"content-type": "application/json"}, content=b"{}"
        ),
    ]
    for answer in answers:
        assert re.fullmatch(rf"{PUBLIC_URL}/\w+", answer.text), answer.text
    assert (
        await client.post(PATH, data={"signature": service.admin_key, "format": "json"})
    ).status_code == 400
    kind = "multipart/form-data"
    for content_type, body, status in (
        (kind, b"x", 400),
        (f"{kind}; boundary=b", b"--b\r\n\r\nx", 400),
        (f"{kind}; boundary=b", b"--b\r\n" * 100 + b"--b--", 400),
        (f"{kind}; boundary=b", b"--b--", 403),
        ("text/plain", b"x", 415),
        ("application/x-www-form-urlencoded", b"a=%ff", 400),
        ("application/x-www-form-urlencoded", b"&".join(b"a=%d" % n for n in range(60)), 400),
        ("application/x-www-form-urlencoded", b"a=" + b"x" * 1_000_000, 413),
    ):
        answer = await client.post(PATH, content=body, headers={"content-type": content_type})
        assert answer.status_code == status, (content_type, body[:20], answer.text)
    assert service.admin_key not in service.workers[0].log.read_text()


async def test_a_key_is_the_signature_or_the_password(service: Service) -> None:
    """403 in the words that clients know, without a key, with a wrong one, without the right, or signed by time."""
    client = service.client()
    mine = await service.key("create", "read")
    made = await said(
        client, action="shorturl", url="https://example.org", format="json", username="x", password=mine
    )
    for parameters, message in (
        ({}, "Please log in"),
        ({"signature": "0123456789"}, "Invalid username or password"),
        ({"username": "x", "password": "snap_0123456789_" + "x" * 32}, "Invalid username or password"),
        ({"signature": await service.key("read")}, f"this API key lacks the right to {Right.CREATE.value}"),
        ({"signature": mine, "timestamp": "1"}, "Signatures with a timestamp"),
    ):
        answer = await client.get(
            PATH, params={"action": "shorturl", "url": "https://example.org", "format": "json", **parameters}
        )
        assert (answer.status_code, answer.json()["errorCode"], answer.json()["callback"]) == (403, "403", "")
        assert answer.json()["message"].startswith(message)
    other = await service.key("read")
    hidden = {"signature": other, "format": "json", "action": "url-stats", "shorturl": made["shorturl"]}
    assert (await said(client, 404, **hidden))["code"] == "error:notfound"
    assert (await said(client, action="db-stats", format="json", signature=other))["db-stats"] == {
        "total_links": 0,
        "total_clicks": 0,
    }


async def test_stats_list_links_in_each_order(make_service: ServiceMaker) -> None:
    """Links by clicks, by age or at random, numbered from 1 without a gap, from `start`; none without a limit."""
    async with make_service(SNAPURL_YOURLS_API="true") as service:
        client = service.client()
        codes = [(await service.shorten(f"https://example.org/{number}"))["code"] for number in range(4)]
        await count(service, codes[2])

        async def listed(**parameters: Any) -> list[str]:
            found = await said(client, **asked(service, action="stats", **parameters))
            assert found["stats"] == {"total_links": 4, "total_clicks": 18}
            links: dict[str, Any] = found.get("links", {})
            assert list(links) == [f"link_{place}" for place in range(1, len(links) + 1)]
            return [link["shorturl"].rpartition("/")[2] for link in links.values()]

        assert await listed(limit=2, filter="last") == codes[:1:-1]
        assert await listed(limit=9, filter="last", start=3) == codes[:1]
        assert (await listed(limit=1))[0] == (await listed(limit=4, filter="bottom"))[3] == codes[2]
        assert sorted(await listed(limit=4, filter="rand")) == sorted(codes)
        assert len(await listed(limit=2, filter="random")) == 2
        assert await listed() == await listed(limit=0) == await listed(limit="x") == []
        assert (await said(client, **asked(service, action="db-stats")))["db-stats"]["total_clicks"] == 18
        await said(client, 400, **asked(service, action="stats", limit=10_000))


# -- requests as programs send them, byte for byte -----------------------------------------------------------------


async def test_sharex_gets_the_short_url_alone(service: Service) -> None:
    """ShareX posts multipart and takes the whole body for the short URL: by signature, or by name and password."""
    who = [{"signature": service.admin_key}, {"username": "me", "password": service.admin_key}]
    for number, signed in enumerate(who):
        boundary = "-" * 20 + uuid.uuid4().hex[:16]
        fields = {
            "action": "shorturl",
            "url": f"https://example.org/sharex/ä?{number}",
            "format": "simple",
            **signed,
        }
        kind = "Content-Type: text/plain; charset=utf-8"
        parts = (
            f'--{boundary}\r\n{kind}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'
            for name, value in fields.items()
        )
        said = await raw(
            service,
            "POST /yourls-api.php HTTP/1.1",
            {
                "User-Agent": "ShareX/17.0.0",
                "Content-Type": f'multipart/form-data; boundary="{boundary}"',
                "Expect": "100-continue",
            },
            f"{''.join(parts)}--{boundary}--\r\n".encode(),
        )
        assert said.status_code == 200 and said.text.startswith(f"{PUBLIC_URL}/")
        code = said.text.removeprefix(f"{PUBLIC_URL}/")
        assert (await service.api.get(f"/api/v1/links/{code}")).json()["url"].endswith(f"?{number}")
    assert service.admin_key not in service.workers[0].log.read_text()


async def test_n8n_gets_json_for_a_query_with_an_empty_body(service: Service) -> None:
    """The YOURLS node of n8n: GET, everything in the query, an empty JSON object as the body. It throws unless the
    status is 2xx, and reads `status` and `link`."""
    code, url = f"c{uuid.uuid4().hex[:10]}", "https://example.org/n8n?a=1"

    async def asked(**query: str) -> httpx.Response:
        all_of_it = httpx.QueryParams({"signature": service.admin_key, "format": "json", **query})
        headers = {"Accept": "application/json,text/*;q=0.99", "Content-Type": "application/json",
                   "User-Agent": "axios/1.12.0"}  # fmt: skip
        return await raw(service, f"GET /yourls-api.php?{all_of_it} HTTP/1.1", headers, b"{}")

    made = await asked(action="shorturl", url=url, keyword=code, title="n8n")
    assert (made.status_code, made.json()["status"], made.json()["shorturl"]) == (
        200,
        "success",
        f"{PUBLIC_URL}/{code}",
    )
    assert (await asked(action="expand", shorturl=code)).json()["longurl"] == url
    link = (await asked(action="url-stats", shorturl=f"{PUBLIC_URL}/{code}")).json()["link"]
    assert (link["url"], link["title"]) == (url, "n8n")
    taken = await asked(action="shorturl", url=url, keyword=code)
    assert (taken.status_code, taken.json()["status"]) == (400, "fail")


async def raw(service: Service, line: str, headers: dict[str, str], body: bytes) -> httpx.Response:
    """Sends a request byte for byte. Returns the last answer."""
    sent = {"Host": "s.example.org", "Connection": "close", "Content-Length": str(len(body)), **headers}
    head = "\r\n".join([line, *(f"{name}: {value}" for name, value in sent.items()), "", ""])
    found = await service.workers[0].say(head.encode() + body)
    while found.startswith(b"HTTP/1.1 100"):
        found = found.partition(b"\r\n\r\n")[2]
    top, _, content = found.partition(b"\r\n\r\n")
    first, *lines = top.decode().split("\r\n")
    pairs = [tuple(each.split(": ", 1)) for each in lines]
    return httpx.Response(int(first.split()[1]), headers=pairs, content=content)  # type: ignore[arg-type]
