"""Shlink: the CSV of its web client, and the columns of its own importer."""

from __future__ import annotations

from datetime import UTC, datetime

from tests.unit.imports.reading import links, read

HEAD = '"createdAt","domain","shortCode","shortUrl","longUrl","title","tags","visits"\n'


def test_the_csv_of_the_web_client() -> None:
    """Codes are decoded once, tags are joined by |, the host of the default domain is a domain like any other."""
    rows = [
        '"2023-04-05T06:07:08+02:00","s.test","%C3%BCber","https://s.test/%C3%BCber","https://example.org/",'
        '"A, ""b""","x|y z",7',
        '"2023-04-05T06:07:08+00:00","go.test","a/b","https://go.test/a/b","https://example.org/","","",0',
    ]
    first, second = links("shlink", HEAD + "\n".join(rows))  # no newline at the end
    assert (first.domain, first.code, first.title, first.tags, first.clicks) == (
        "s.test",
        "über",
        'A, "b"',
        ("x", "y z"),
        7,
    )
    assert first.created_at == datetime(2023, 4, 5, 4, 7, 8, tzinfo=UTC)
    assert (second.domain, second.code, second.title, second.tags) == ("go.test", "a/b", None, ())


def test_the_columns_of_its_importer() -> None:
    """Names with spaces in any case, `;`, and a row without a code, which is no link of Shlink."""
    content = "LONG url;short CODE;Title;Tags\nhttps://example.org/;abc;t;a|b\nhttps://example.org/;;t;\n"
    found = read("shlink", content)
    assert found[1] == "it has no code"
    assert links("shlink", content.rsplit("\n", 2)[0])[0].tags == ("a", "b")
