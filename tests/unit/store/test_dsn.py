"""DSNs: their addresses, and what may go over a network unprotected."""

from __future__ import annotations

from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ring.topology import Shard
from snapurl.config import load_settings
from snapurl.store.cluster.dsn import address_of, dsn_for, plain_text_warning
from snapurl.store.cluster.failover import hosts_of


@pytest.mark.parametrize(
    ("dsn", "address"),
    [
        ("postgresql://u:p@h/x", "h:5432/x"),
        ("postgresql://u@%2Frun%2Fpg:5433/x", "%2Frun%2Fpg:5433/x"),
        ("postgresql://u@/x?host=/run/pg&port=5433", "%2Frun%2Fpg:5433/x"),
        ("postgresql:///x?host=/run/pg", "%2Frun%2Fpg:5432/x"),
        ("postgresql:///x?host=/a,/b&port=5433,5434&sslmode=disable", "%2Fa:5433,%2Fb:5434/x"),
        ("postgresql:///x?host=a,b&port=5433", "a:5433,b:5433/x"),
    ],
)
def test_address_of_a_dsn(dsn: str, address: str) -> None:
    """The address is one that a topology takes, however the DSN names its hosts, sockets among them."""
    assert address_of(dsn) == address
    Shard("db4", 1.0, address)


def test_another_shard_gets_the_credentials_and_options_of_a_dsn_but_not_its_host() -> None:
    """Host and port of the template do not get into the DSN of another shard, in whichever form it has them."""
    template = "postgresql://u:p%40@/x?host=/run/pg&port=5433&sslmode=require"
    assert dsn_for("%2Fother:5434/y", template) == "postgresql://u:p%40@%2Fother:5434/y?sslmode=require"


@given(st.text(min_size=1, max_size=60).filter(lambda path: "\0" not in path))
def test_any_directory_of_sockets_survives_its_dsn(path: str) -> None:
    """A directory with any characters comes out of a percent-encoded DSN as it was."""
    try:
        encoded = quote(f"/{path}", safe="")
    except UnicodeEncodeError:
        return  # a lone surrogate, which no path has
    assert hosts_of(f"postgresql://u@{encoded}:5433/x") == ((f"/{path}", 5433),)


@pytest.mark.parametrize(
    ("address", "variable", "warns"),
    [
        ("u@db.internal/x", "", True),
        ("u@10.0.0.1:5432/x?sslmode=prefer", "", True),
        ("u@127.0.0.1,db.internal/x", "", True),
        ("u@db.internal/x?sslmode=verify-full", "", False),
        ("u@db.internal/x?sslmode=disable", "", False),
        ("u@db.internal/x", "verify-full", False),
        ("u@127.0.0.1:5432/x", "", False),
        ("u@[::1]:5432/x", "", False),
        ("u@localhost/x", "", False),
        ("u@%2Frun%2Fpg:5433/x", "", False),
        ("u@/x?host=/run/pg", "", False),
    ],
)
def test_who_is_warned_of_plain_text(
    address: str, variable: str, warns: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A warning names shards on other machines whose DSN leaves TLS to the server, and none other."""
    monkeypatch.delenv("PGSSLMODE", raising=False)
    if variable:
        monkeypatch.setenv("PGSSLMODE", variable)
    settings = load_settings(shards=f"good=postgresql://u@localhost/good db7=postgresql://{address}")
    warning = plain_text_warning(settings)
    assert ("db7" in warning) is warns
    assert "good" not in warning and "\n" not in warning
