"""`snapurl links` against a running service."""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
import re
import socket
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import asyncpg
import pytest

from ring.slots import slot_of
from snapurl.cli import main
from snapurl.qr import Style, blocks, draw, scan_url
from tests.integration.http.service import PUBLIC_URL, Service
from tests.support.waits import HANG_S

TARGET = "https://example.org/a/long/page"


@dataclass(frozen=True)
class Finished:
    """The exit code, stdout and stderr of a command."""

    code: int
    out: str
    err: str

    @property
    def document(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.out)
        return found


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


Say = Callable[..., Awaitable[Finished]]


def _say(environ: dict[str, str], words: tuple[str, ...], out: io.StringIO, typed: io.StringIO) -> Finished:
    err = io.StringIO()
    with (
        pytest.MonkeyPatch.context() as patch,
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
    ):
        patch.setattr("sys.stdin", typed)
        for name, value in {"COLUMNS": "100", **environ}.items():
            patch.setenv(name, value)
        try:
            main(words)
        except SystemExit as ended:
            said = Finished(int(ended.code or 0), out.getvalue(), err.getvalue())
    assert "Traceback" not in said.err
    assert environ.get("SNAPURL_API_KEY") not in (said.out + said.err).split()
    return said


async def run(
    environ: dict[str, str],
    *words: str,
    command: str = "links",
    terminal: bool = False,
    answer: str | None = None,
    stdin: str = "",
) -> Finished:
    """Runs a command with these SNAPURL_* variables; `answer` is typed on a terminal, `stdin` comes from a pipe."""
    out = Terminal() if terminal else io.StringIO()
    typed = io.StringIO(stdin) if answer is None else Terminal(answer)
    return await asyncio.wait_for(asyncio.to_thread(_say, environ, (command, *words), out, typed), HANG_S)


@pytest.fixture
def say(service: Service) -> Say:
    """Returns `run` with the address of the shared service and its admin key."""

    async def run_here(*words: str, **how: Any) -> Finished:
        return await run(
            {"SNAPURL_URL": service.workers[0].url, "SNAPURL_API_KEY": service.admin_key}, *words, **how
        )

    return run_here


async def test_a_link_can_be_made_shown_changed_and_deleted(say: Say, service: Service) -> None:
    """Each command does over the API what it says; CODE may be the short URL."""
    alias = "cli-" + service.admin_key[-6:]
    made = await say(
        "create",
        TARGET,
        "--alias",
        alias,
        "--title",
        "For you",
        "--tag",
        "a",
        "--tag",
        "b",
        "--expires",
        "7d",
    )
    assert (made.code, made.err) == (0, "")
    link = made.document
    assert (link["code"], link["url"], link["title"], link["tags"]) == (alias, TARGET, "For you", ["a", "b"])
    left = datetime.fromisoformat(link["expires_at"]) - datetime.now(UTC)
    assert timedelta(days=6, hours=23) < left < timedelta(days=7, minutes=1)

    shown = await say("show", f"{PUBLIC_URL}/{alias}?qr", "--text")
    for word in (link["short_url"], TARGET, "For you", "a, b"):
        assert word in shown.out
    changed = await say(
        "edit", alias, "--url", "https://example.org/new", "--title", "", "--no-tags",
        "--expires", "never", "--status", "307",
    )  # fmt: skip
    now = changed.document
    assert {name for name in link if now[name] != link[name]} - {"changed_at", "changed_by"} == {
        "url", "title", "tags", "expires_at", "redirect_status", "version",
    }  # fmt: skip
    assert (now["url"], now["title"], now["tags"], now["expires_at"], now["redirect_status"]) == (
        "https://example.org/new", None, [], None, 307,
    )  # fmt: skip
    assert (await say("show", alias)).document == changed.document

    kept = await say("delete", alias)
    assert (kept.code, kept.err) == (
        2,
        "snapurl: nothing was changed: without a terminal, confirm with --yes\n",
    )
    assert (await say("delete", alias, answer="n\n")).code == 2
    assert (await say("delete", alias, answer="y\n", terminal=True)).out == f"Deleted {alias}.\n"
    gone = await say("show", alias)
    assert (gone.code, gone.err) == (
        1, f"snapurl: {alias}: The link is expired or deleted: the link was deleted\n",
    )  # fmt: skip


async def test_a_link_can_be_switched_off_and_restored(say: Say, service: Service) -> None:
    """A link that is switched off or deleted leads nowhere, and leads on when it is switched on or restored."""
    code = (await service.shorten())["code"]
    for off, on in ((("disable",), ("enable",)), (("delete", "--yes"), ("restore",))):
        assert (await say(*off, code)).code == 0
        assert (await service.api.get(f"/{code}")).status_code in (404, 410)
        assert (await say(*on, code)).document["enabled"] is True
        assert (await service.api.get(f"/{code}")).status_code == 302


async def test_each_option_of_a_link_can_be_set_and_removed(say: Say) -> None:
    """What a create sets by an option an edit removes again; a password is read from stdin. What is wrong with a
    field of the body is said after its name."""
    options = ("--note", "never", "--starts", "2001-01-01T00:00:00Z", "--expires", "2w", "--expired-url", TARGET,
               "--max-clicks", "5", "--forward-query", "--forward-path", "--password")  # fmt: skip
    link = (await say("create", TARGET, *options, stdin="open sesame\n")).document
    assert {name: link[name] for name in ("note", "starts_at", "expired_url", "max_clicks")} == {
        "note": "never", "starts_at": "2001-01-01T00:00:00.000000Z", "expired_url": TARGET, "max_clicks": 5,
    }  # fmt: skip
    assert (link["forward_query"], link["forward_path"], link["has_password"]) == (True, True, True)
    said = await say("rename", link["code"], f"new-{link['code']}")
    why = "a link with max_clicks keeps its code: its uses are counted there"
    assert (said.code, said.err) == (1, f"snapurl: code: {why}\n")
    removed = ("--note", "", "--starts", "never", "--expires", "never", "--expired-url", "", "--max-clicks", "0",
               "--no-forward-query", "--no-forward-path", "--no-password")  # fmt: skip
    plain = (await say("create", TARGET)).document
    bare = (await say("edit", link["code"], *removed)).document
    own = ("code", "short_url", "created_at", "changed_at", "changed_by", "version")
    assert {**bare, **{name: plain[name] for name in own}} == plain


async def test_rules_come_from_a_file_or_stdin(say: Say, tmp_path: Path) -> None:
    """Rules are written as in the API. What is wrong with one is one line that says where it is."""
    rules = [{"if": {"os": ["ios"]}, "url": "https://example.org/ios"}]
    file = tmp_path / "rules.json"
    file.write_text(json.dumps(rules))
    link = (await say("create", TARGET, "--rules", str(file))).document
    assert link["rules"] == rules
    rules[0]["if"] = {"percentage": 50}
    assert (await say("edit", link["code"], "--rules", "-", stdin=json.dumps(rules))).document[
        "rules"
    ] == rules
    said = await say("edit", link["code"], "--rules", "-", stdin='[{"if": {"os": ["dos"]}, "url": "x"}]')
    assert said.code == 1 and said.err.startswith("snapurl: rules/0/if/os/0: ") and said.err.count("\n") == 1
    assert (await say("edit", link["code"], "--no-rules")).document["rules"] is None


async def test_a_link_is_found_by_a_word_of_it(say: Say, service: Service) -> None:
    """`find` finds by a part of the target; tags, state and order narrow and sort what is listed."""
    word = "w" + service.admin_key[-8:].lower()
    codes = [
        (await service.shorten(f"https://example.org/{word}/{tag}", alias=f"{tag}-{word}", tags=[tag]))[
            "code"
        ]
        for tag in ("b", "a", "c")
    ]
    await say("delete", codes[2], "--yes")

    async def found(*words: str) -> list[str]:
        return [link["code"] for link in (await say(*words)).document["links"]]

    assert await found("find", word) == [codes[1], codes[0]]
    assert await found("find", f"{word}/A", "--tag", "a") == [codes[1]]
    assert await found("find", word, "--reverse") == codes[:2]
    assert await found("find", word, "--sort", "code") == sorted(codes[:2])
    assert await found("find", word, "--state", "deleted") == [codes[2]]
    assert await found("find", word, "--limit", "1") == [codes[1]]
    assert (await say("find", "no such word at all", terminal=True)).out == "There is no link.\n"


async def test_people_get_text_and_programs_json(say: Say) -> None:
    """On a terminal a create prints the short URL, elsewhere the link as JSON; either can be asked for."""
    made = await say("create", TARGET, terminal=True)
    assert made.out.startswith(f"{PUBLIC_URL}/") and made.out.count("\n") == 1
    assert (await say("create", TARGET, "--json", terminal=True)).document["url"] == TARGET
    assert (await say("create", TARGET, "--text")).out.startswith(f"{PUBLIC_URL}/")


async def test_a_list_is_as_long_as_asked_for(say: Say, service: Service) -> None:
    """A list has the newest links, over as many pages as it takes, and says when there are more."""
    bulk = [{"url": TARGET, "tags": ["listed"]}] * 203
    made = await service.api.post("/api/v1/links/bulk", json={"links": bulk})
    codes = [result["link"]["code"] for result in made.json()["results"]]
    listed = await say("list", "--limit", "202")
    assert {link["code"] for link in listed.document["links"]} < set(codes)
    assert len(listed.document["links"]) == 202
    assert (listed.document["more"], listed.document["complete"]) == (True, True)
    table = await say("list", "--limit", "3", terminal=True)
    assert table.err == "There are more: see --limit.\n"
    heading, *rows = re.sub(r"\x1b\[[0-9;]*m", "", table.out).splitlines()
    assert heading.split() == ["code", "leads", "to", "title", "tags", "clicks", "created", "expires"]
    assert len(rows) == 3 and all("listed" in row and row.split()[0] in codes for row in rows)
    by_clicks = await say("list", "--tag", "listed", "--sort", "clicks", "--limit", "3")
    assert [link["clicks"] for link in by_clicks.document["links"]] == [0, 0, 0]


async def test_a_qr_code_is_shown_or_written(say: Say, service: Service, tmp_path: Path) -> None:
    """The QR code is drawn on the terminal, or written as the image that the file's name asks for."""
    code = (await service.shorten())["code"]
    says = scan_url(f"{PUBLIC_URL}/{code}")
    assert (await say("qr", code)).out == blocks(says) + "\n"
    shown = (await say("qr", code, terminal=True)).out
    assert "\x1b[" in shown  # black and white, whatever the colours of the terminal are
    for name, style, words in (
        ("a.svg", Style(), ()),
        ("a.PNG", Style("png", 300, error="H"), ("--size", "300", "--error", "H")),
    ):
        assert (await say("qr", code, "--output", str(tmp_path / name), *words)).code == 0
        assert (tmp_path / name).read_bytes() == draw(says, style)


async def test_clicks_and_place_are_shown(say: Say, service: Service) -> None:
    """`stats` shows the clicks of a link or of many, `where` the slot and the shard that has the row. A public link
    is made and revoked."""
    code = (await service.shorten())["code"]
    assert (await say(code, command="stats")).document["clicks"] == 0
    assert (await say(code, "--text", command="stats")).out == "0 people, 0 bots; 0 people before\n"
    by = await say(code, "--by", "country", command="stats")
    assert (by.err, by.document["values"]) == ("", [])
    for words in (("--all",), ("--tag", "none", "--tz", "Asia/Kolkata", "--interval", "hour", "--days", "2")):
        assert (await say(*words, command="stats")).document["complete"] is True, words
    for wrong in (
        "",
        f"{code} --all",
        "--all --tag x",
        f"{code} --tz Mars",
        f"{code} --interval hour --days 60",
    ):
        refused = await say(*wrong.split(), command="stats")
        assert (refused.code, refused.out, len(refused.err.splitlines())) == (2, "", 1), refused.err
    url = (await say("share-stats", code, "--text")).out.strip()
    assert (await say("share-stats", code)).document["url"] == url
    assert (await say("unshare-stats", code)).document == {"code": code, "url": None}
    found = (await say("where", code)).document
    assert (found["slot"], found["target"], found["in_hand_off"]) == (slot_of(code), found["shard"], False)
    dsn = next(item.dsn for item in service.settings.shard_dsns if item.name == found["shard"])
    connection = await asyncpg.connect(dsn)
    assert await connection.fetchval("SELECT count(*) FROM links WHERE code = $1", code) == 1
    await connection.close()
    text = (await say("where", code, terminal=True)).out
    assert text == f"{code} is in slot {found['slot']}, on shard {found['shard']}\n"


@pytest.mark.parametrize(
    ("words", "exit_code", "line"),
    [
        (("show", "nobody-has-this"), 1, "nobody-has-this: There is no such link"),
        (("create", "ftp://example.org/"), 1, "snapurl: url: "),
        (("create", TARGET, "--alias", "health"), 1, "alias: is reserved for the service itself"),
        (("create", TARGET, "--expires", "2001-01-01"), 1, "expires_at: must be in the future"),
        (("create", TARGET, "--expires", "soon"), 2, "'soon' is no time: write 7d, 2030-01-31,"),
        (("create",), 2, "Missing argument 'URL'"),
        (("show", "no code"), 2, "'no code' is neither a code nor a short URL"),
        (("create", TARGET, "--rules", "-"), 2, "this is no JSON: Expecting value: line 1 column 1"),
        (("create", TARGET, "--rules", "/nowhere/rules.json"), 2, "'/nowhere/rules.json': No such file"),
        (("edit", "abc", "--rules", "-", "--no-rules"), 2, "--rules and --no-rules: choose one"),
        (("edit", "abc"), 2, "say what to change, for example with --url"),
        (("list", "--limit", "0"), 2, "0 is not in the range"),
        (
            ("qr", "abc", "--size", "300"),
            2,
            "size, border, colours and error are for images: name a file with --output",
        ),
        (("qr", "abc", "--output", "a.gif"), 2, "'a.gif' must end with .svg or .png"),
        (("qr", "nobody-has-this", "--output", "a.svg"), 1, "nobody-has-this: There is no such link"),
        (("where", "abc", "--days"), 2, "No such option"),
    ],
)
async def test_a_refusal_is_one_line(say: Say, words: tuple[str, ...], exit_code: int, line: str) -> None:
    """A wrong call exits with 2, a refusal of the service with 1; both say in one line what is wrong."""
    said = await say(*words)
    assert (said.code, said.out) == (exit_code, "")
    assert said.err.startswith("snapurl: ") and line in said.err and said.err.count("\n") == 1


# -- where the service is, and the key -----------------------------------------------------------------------


async def test_a_key_is_found_where_the_settings_say(service: Service, tmp_path: Path) -> None:
    """The key comes from SNAPURL_API_KEY, from SNAPURL_API_KEY_FILE, or without SNAPURL_URL from the local cluster;
    a file that others can read is refused."""
    url = service.workers[0].url
    file = tmp_path / "key"
    file.write_text(service.admin_key + "\n")
    file.chmod(0o644)
    by_file = {"SNAPURL_URL": url, "SNAPURL_API_KEY_FILE": str(file)}
    said = await run(by_file, "list")
    assert (said.code, said.err) == (
        2, f"snapurl: SNAPURL_API_KEY_FILE: other users can read or change {file}: chmod 600 {file}\n",
    )  # fmt: skip
    file.chmod(0o600)
    assert (await run(by_file, "list")).code == 0
    file.rename(tmp_path / "admin.key")
    assert "cannot be read: No such file" in (await run(by_file, "list")).err
    local = {"SNAPURL_HOME": str(tmp_path), "SNAPURL_PORT": str(service.workers[0].port)}
    assert (await run(local, "list")).code == 0
    said = await run({**local, "SNAPURL_URL": url}, "list")
    assert said.code == 1 and "set SNAPURL_API_KEY or SNAPURL_API_KEY_FILE" in said.err
    said = await run({"SNAPURL_URL": url, "SNAPURL_API_KEY": "a key\nX-Evil: 1"}, "list")
    assert (said.code, said.err) == (2, "snapurl: the API key has a space or sign that no key has\n")
    said = await run({"SNAPURL_URL": url, "SNAPURL_API_KEY": await service.key("create")}, "list")
    assert said.code == 1 and "This API key may not do that" in said.err


@pytest.fixture
def elsewhere() -> Iterator[tuple[str, list[str]]]:
    """Yields the URL of a server that redirects everything to itself, and the API keys that reached it."""
    keys: list[str] = []

    class Server(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            keys.append(self.headers.get("x-api-key", ""))
            self.send_response(200 if "arrived" in self.path else 307)
            self.send_header("location", f"http://localhost:{server.server_port}/arrived")
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Server)
    thread = Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}", keys
    server.shutdown()
    thread.join()
    server.server_close()


async def test_what_is_no_service_is_said_so(elsewhere: tuple[str, list[str]]) -> None:
    """Nobody at the address, another program there, or a redirect to another host is one line that names the
    setting; the key goes to the address that was set, and no further."""
    url, keys = elsewhere
    said = await run({"SNAPURL_URL": url, "SNAPURL_API_KEY": "secret"}, "list")
    assert (said.code, said.err) == (
        1, f"snapurl: {url} answers 307 and not as SnapURL does: is SNAPURL_URL right?\n",
    )  # fmt: skip
    assert keys == ["secret"]
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    for address, why in (
        (f"http://127.0.0.1:{port}", "connection refused"),
        (url.replace("http:", "https:"), "it does not speak TLS in the way that is asked of it"),
    ):
        said = await run({"SNAPURL_URL": address}, "list")
        assert (said.code, said.err) == (
            1, f"snapurl: cannot reach {address}: {why}; is SNAPURL_URL right?\n",
        )  # fmt: skip
    said = await run({"SNAPURL_URL": "s.example.org"}, "list")
    assert said.code == 2 and "SNAPURL_URL" in said.err
