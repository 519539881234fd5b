"""CSV files of any program: encodings, delimiters, dates, and rows that are no links."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from snapurl.imports.rows import FileRefused, Found, Reading
from tests.unit.imports.reading import NOW, links, read

URL = "https://example.org/ü?a=1,2"
HEAD = "code,url,title"


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "cp1252"])
@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_encoding_delimiter_and_line_ends_are_recognised(encoding: str, delimiter: str, end: str) -> None:
    """Whatever a spreadsheet writes is read: byte order marks, UTF-16, Windows-1252, and any kind of line end."""
    rows = [("Code", "Long URL", "Title"), ("abc", f'"{URL}"', '"Grün, ""neu"""'), ("", "", "")]
    text = end.join(delimiter.join(row) for row in rows)
    (found,) = links("csv", text.encode(encoding))
    assert (found.code, found.url, found.title) == ("abc", URL, 'Grün, "neu"')


def test_the_first_line_may_say_the_delimiter() -> None:
    """`sep=;` is not the header."""
    (found,) = links("csv", "sep=;\r\nurl;slug\r\nhttps://example.org/a,b,c,d;x\r\n")
    assert (found.code, found.url) == ("x", "https://example.org/a,b,c,d")


def test_columns_are_found_by_any_of_their_names_in_any_order() -> None:
    """Case, spaces, `_` and `-` do not count; a file without a target is refused with the columns that it has."""
    content = "Hits,LONG_URL,Date created,Labels,Back-half,Expires at,host\n7,https://e.org/,2020-01-02,a;b,x,2031-01-01,GO.example.org:443\n"
    (found,) = links("csv", content)
    assert (found.code, found.clicks, found.tags, found.domain) == ("x", 7, ("a", "b"), "go.example.org")
    assert found.created_at == datetime(2020, 1, 2, tzinfo=UTC)
    assert found.expires_at == datetime(2031, 1, 1, tzinfo=UTC)
    for bad in ("code,ziel\nx,https://e.org/\n", "https://e.org/,x\n", "\n\n", ""):
        with pytest.raises(FileRefused):
            read("csv", bad)
    with pytest.raises(FileRefused, match="code, ziel") as refusal:
        read("csv", "code,ziel\x1b[2J\nx,https://e.org/\n")
    assert str(refusal.value).isprintable()


@pytest.mark.parametrize(
    ("short", "host", "code"),
    [
        ("https://s.example.org/abc", "s.example.org", "abc"),
        ("S.example.org:8080/abc/?ref=1#x", "s.example.org", "abc"),
        ("//s.example.org/%C3%BCber", "s.example.org", "über"),
        ("/abc/", "", "abc"),
        ("abc", "", "abc"),
        ("https://s.example.org/a/b%2525", "s.example.org", "a/b%25"),
    ],
)
def test_short_urls_are_read_however_they_are_written(short: str, host: str, code: str) -> None:
    """Only the path is the code, decoded once."""
    (found,) = links("csv", f'link,url\n"{short}",https://example.org/\n')
    assert (found.domain, found.code) == (host, code)


@pytest.mark.parametrize(
    "short", ["https://s.example.org/", "https://s.example.org", "s.example.org/_root", "http://[/x"]
)
def test_a_short_url_without_a_code_is_no_link(short: str) -> None:
    """The address of the domain itself is refused, not given another code."""
    assert isinstance(read("csv", f'link,url\n"{short}",https://example.org/\n')[0], str)


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("2026-11-23T06:13:07+00:00", datetime(2026, 11, 23, 6, 13, 7, tzinfo=UTC)),
        ("2026-11-23T06:13:07Z", datetime(2026, 11, 23, 6, 13, 7, tzinfo=UTC)),
        ("2026-11-23t06:13:07.123z", datetime(2026, 11, 23, 6, 13, 7, 123_000, tzinfo=UTC)),
        ("2026-11-23T06:13:07+0100", datetime(2026, 11, 23, 5, 13, 7, tzinfo=UTC)),
        ("2026-11-23 06:13:07", datetime(2026, 11, 23, 4, 13, 7, tzinfo=UTC)),  # in the zone of the import
        ("2026-11-23 06:13:07 UTC", datetime(2026, 11, 23, 6, 13, 7, tzinfo=UTC)),
        ("2026-11-23", datetime(2026, 11, 22, 22, tzinfo=UTC)),
        ("1795413187", datetime(2026, 11, 23, 5, 53, 7, tzinfo=UTC)),
        ("1795413187000", datetime(2026, 11, 23, 5, 53, 7, tzinfo=UTC)),
        ("", None),
        ("NULL", None),
        ("0000-00-00 00:00:00", None),
        ("2999-01-01", None),
        ("1970-01-01", None),
    ],
)
def test_times_of_creation(text: str, moment: datetime | None) -> None:
    """Zones count, a time without one is in that of the import; what cannot be true is left out with a remark."""
    reading = Reading(timezone(timedelta(hours=2)), NOW)
    (found,) = read("csv", f"url,created\nhttps://example.org/,{text}\n", reading)
    assert isinstance(found, Found) and found.created_at == moment
    assert bool(found.remarks) == (text in ("2999-01-01", "1970-01-01"))


@pytest.mark.parametrize(
    "text", ["11/23/2026", "23.11.2026", "2026-13-01", "yesterday", "2026-11-23T99:00:00Z", "7"]
)
def test_a_date_that_can_be_read_in_two_ways_or_none_is_refused(text: str) -> None:
    """Nobody guesses which number is the month."""
    assert "date" in str(read("csv", f"url,expires\nhttps://example.org/,{text}\n")[0])


def test_states_do_not_become_links_that_work_for_everybody() -> None:
    """Disabled, archived, protected and used up links are switched off; deleted ones are no links."""
    content = """url,enabled,archived,password,max visits,visits,deleted at
https://e.org/1,true,false,,,5,
https://e.org/2,no,,,,,
https://e.org/3,,Yes,,,,
https://e.org/4,,,$2b$12$hash,,,
https://e.org/5,,,,10,"1,234",
https://e.org/6,,,,10,4,
https://e.org/7,,,,,,2020-01-01
https://e.org/8,maybe,,,,,
"""
    found = read("csv", content)
    assert [link.enabled for link in found[:6] if isinstance(link, Found)] == [
        True,
        False,
        False,
        False,
        False,
        True,
    ]
    assert [bool(link.remarks) for link in found[:6] if isinstance(link, Found)] == [
        False,
        False,
        True,
        True,
        True,
        True,
    ]
    assert isinstance(found[5], Found) and (found[5].max_clicks, found[5].clicks) == (6, 4)
    assert found[6:] == ["the link was deleted", "'maybe' is neither yes nor no"]


def test_texts_for_people_are_made_to_fit_with_a_remark() -> None:
    """Control characters become spaces; what is too long or too much is cut, and said."""
    many = "|".join(f"t{number}" for number in range(25))
    content = (
        'url,title,tags,clicks\nhttps://e.org/,"a\nb\x01c",x| X |x||y,"1,234"\n'
        f"https://e.org/,{'t' * 301},{many},-3\n"
        'https://e.org/,NULL,"[""a,b"", ""c""]",many\n'
    )
    first, second, third = links("csv", content)
    assert (first.title, first.tags, first.clicks, first.remarks) == ("a b c", ("x", "X", "y"), 1_234, [])
    assert (
        second.title == "t" * 300
        and len(second.tags) == 20
        and second.clicks == 0
        and len(second.remarks) == 3
    )
    assert (third.title, third.tags, third.clicks, len(third.remarks)) == (None, ("a,b", "c"), None, 1)


def test_guards_of_formulas_are_taken_off_and_formulas_stay_what_they_are() -> None:
    """A leading quote before a sign of a formula is no part of the text."""
    first, second = links("csv", "code,url,title\n'-x,https://e.org/,'=1+1\n=A1,https://e.org/,'quoted'\n")
    assert (first.code, first.title, second.code, second.title) == ("-x", "=1+1", "=A1", "'quoted'")


def test_rows_of_another_length_than_the_header() -> None:
    """Missing cells are empty; cells that belong to no column mean that something is wrong with the row."""
    short, long, padded = read(
        "csv", f"{HEAD}\nx,https://e.org/\ny,https://e.org/a,b,c\nz,https://e.org/,t,,\n"
    )
    assert isinstance(short, Found) and isinstance(padded, Found)
    assert "more cells" in str(long)


def test_a_quote_without_an_end_costs_its_row_and_names_its_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    """The rows behind it are read again, after a bounded number of lines."""
    monkeypatch.setattr("snapurl.imports.table.ROW_LINES_MAX", 3)
    rows = [f"c{number},https://e.org/{number}," for number in range(8)]
    rows[1] = 'c1,"https://e.org/1,'
    found = read("csv", "\n".join([HEAD, *rows]))
    assert [link.code for link in found if isinstance(link, Found)] == ["c0", "c5", "c6", "c7"]
    assert [why for why in found if isinstance(why, str)] == [
        "lines 3 to 5 cannot be read: it goes on for more than 3 lines: is a quote missing?"
    ]


def test_a_line_without_an_end_is_no_csv(monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory is bounded by a line."""
    monkeypatch.setattr("snapurl.imports.table.LINE_CHARS_MAX", 50)
    with pytest.raises(FileRefused, match="no CSV"):
        read("csv", f"{HEAD}\nx,https://e.org/{'y' * 100},t\n")


def test_the_own_fields_of_an_export_are_read() -> None:
    """What only SnapURL has comes back: status, rules, forwarding, where it leads once it is over."""
    content = 'code,url,redirect_status,expired_url,forward_query,rules,clicks,imported_clicks\nx,https://e.org/,308,https://e.org/over,true,"[{""if"":{""os"":[""ios""]},""url"":""https://e.org/i""}]",3,4\n'
    (found,) = links("csv", content)
    assert found.clicks == 7 and found.others == {
        "redirect_status": 308,
        "expired_url": "https://e.org/over",
        "forward_query": True,
        "rules": [{"if": {"os": ["ios"]}, "url": "https://e.org/i"}],
    }


@given(content=st.binary(max_size=400))
def test_any_bytes_are_read_or_refused_as_a_whole(content: bytes) -> None:
    """A file that is no table at all is refused with one line."""
    for source in ("csv", "yourls"):
        try:
            read(source, b"url,code\n" + content)
        except FileRefused as refusal:
            assert "\n" not in str(refusal)
