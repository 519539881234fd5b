"""Bitly: the columns that its files are said to have, in each of the forms."""

from __future__ import annotations

import pytest

from snapurl.imports.rows import Found
from tests.unit.imports.reading import links, read


@pytest.mark.parametrize(
    "content",
    [
        "Link,Custom Link,Destination URL\nhttps://bit.ly/3xYz,,https://example.org/\n",
        "Bitlink,Long URL,Title,Tags,Created,Total Clicks,Campaign,Archived\nbit.ly/3xYz,https://example.org/,,,,,,false\n",
        "link,long_url,title,created_at,tags,custom_bitlink,clicks\nhttp://bit.ly/3xYz,https://example.org/,,,,,\n",
    ],
)
def test_each_form_of_its_csv(content: str) -> None:
    """The host bit.ly is nobody's domain."""
    (found,) = links("bitly", content)
    assert (found.code, found.domain, found.url) == ("3xYz", "", "https://example.org/")


def test_a_custom_link_wins_and_an_archived_one_is_switched_off() -> None:
    """The generated code is lost; a link without a target has its reason."""
    found = read(
        "bitly",
        "link,long_url,title,created_at,tags,custom_bitlink,clicks,archived\n"
        'https://bit.ly/3xYz,https://example.org/,"a\x0bb",2020-10-26T17:20:40+0000,"x,y",https://go.test/Sale,"1,234",\n'
        "https://bit.ly/4,https://example.org/,,,,,,TRUE\n"
        "https://bit.ly/5,,,,,,,\n",
    )
    assert isinstance(found[0], Found) and isinstance(found[1], Found)
    assert (found[0].code, found[0].domain, found[0].title, found[0].clicks) == (
        "Sale",
        "go.test",
        "a b",
        1_234,
    )
    assert found[0].created_at and found[0].created_at.hour == 17 and found[0].tags == ("x", "y")
    assert not found[1].enabled
    assert found[2] == "it has no target"
