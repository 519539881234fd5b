"""What an operator may type and set by mistake: each call ends with a documented exit code and one line."""

from __future__ import annotations

import contextlib
import io
import logging
import os
import re
from collections.abc import Callable, Iterator
from typing import NoReturn
from unittest.mock import patch

import pytest
from hypothesis import HealthCheck, example, given
from hypothesis import settings as trying
from hypothesis import strategies as st

from snapurl.cli import main as snapurl
from snapurl.config import Settings
from tools.cli import MEANT
from tools.cli import cli as reshard_commands
from tools.cli import main as reshard

SECRET = "s3cret-of-the-dsn"
CLOSED = f"db0=postgresql://me:{SECRET}@127.0.0.1:1/x"
"""A shard at which nothing listens."""

Main = Callable[[list[str]], NoReturn]

names = st.sampled_from(["db0", "db4", "redis", "DB 4", "", "-1", "é", "\udcff", "a\nb", "--", "x" * 300])
numbers = st.sampled_from(["1", "0.5", "0", "-1", "nan", "inf", "1e999", "much", "", "9" * 400])
dsns = st.sampled_from(
    [
        f"postgresql://me:{SECRET}@127.0.0.1:1/x",
        f"postgresql://me:{SECRET}@[127:1/x",
        f"postgresql://me:{SECRET}@127.0.0.1:99999/x",
        f"mysql://me:{SECRET}@127.0.0.1/x",
        "postgresql://",
        "",
    ]
)
options = st.one_of(
    st.sampled_from(
        ["--yes", "--json", "--dry-run", "--watch", "--fix", "--nosuch", "-x", "--rows", "--dsn"]
    ),
    st.builds("--weight={}".format, numbers),
    st.builds("--dsn={}".format, dsns),
    st.builds("--disk-free={}".format, numbers),
    st.builds("--grace-s={}".format, numbers),
    st.builds("--rows={}".format, numbers),
    st.builds("--lanes={}".format, numbers),
    st.builds("--service-url={}".format, names),
)
changes = st.sampled_from(["add", "drain", "weight", "remove"])
commands = st.sampled_from([*reshard_commands.commands, *MEANT, "nosuch", "Status"])
calls = st.builds(
    lambda command, words: [command, *words],
    commands,
    st.lists(st.one_of(changes, names, numbers, dsns, options), max_size=6),
)


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: object, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Runs the commands in an empty directory, and undoes what `run` does to the loggers."""
    monkeypatch.chdir(str(tmp_path))
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)


def ended(main: Main, words: list[str], variables: dict[str, str]) -> tuple[int, str, str]:
    """Runs a command in this process. Returns its exit code, stdout and stderr."""
    out, err = io.StringIO(), io.StringIO()
    environ = {name: value for name, value in os.environ.items() if not name.startswith("SNAPURL_")}
    with (
        patch.dict(os.environ, {**environ, **variables}, clear=True),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
        pytest.raises(SystemExit) as raised,
    ):
        main(words)
    code = raised.value.code
    assert isinstance(code, int)
    return code, out.getvalue(), err.getvalue()


def assert_refused_plainly(found: tuple[int, str, str]) -> None:
    code, out, err = found
    assert code in (0, 1, 2), found
    assert "Traceback" not in out + err
    assert not re.match("snapurl(-reshard)?: unexpected", err), found
    assert SECRET not in out + err
    said = [
        line for line in err.splitlines() if '"level"' not in line and " WARNING " not in line
    ]  # no log lines
    if code:
        assert len(said) == 1 or said[0].startswith("Usage: "), found


@trying(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(words=calls)
def test_any_call_of_snapurl_reshard_ends_with_one_line(words: list[str]) -> None:
    """Wrong names, weights, options and commands, and a shard that does not answer, end with one line."""
    assert_refused_plainly(ended(reshard, words, {"SNAPURL_SHARDS": CLOSED}))


# Not the programs that stay: serve, up, clicks. Nor `health`, which connects to what SNAPURL_HOST names.
@trying(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    words=st.lists(
        st.one_of(
            st.sampled_from(
                ["keys", "create", "list", "revoke", "migrate", "openapi", "nosuch", "--right=admin"]
            ),
            st.builds("--limit={}".format, names),
            st.builds("--right={}".format, names),
            st.builds("--port={}".format, numbers),
            names,
            dsns,
        ),
        max_size=5,
    )
)
def test_any_call_of_snapurl_ends_with_one_line(words: list[str]) -> None:
    """Wrong commands, rights, limits and ids, and shards that do not answer, end with one line and no secret."""
    assert_refused_plainly(ended(snapurl, words, {"SNAPURL_SHARDS": CLOSED}))


values = st.one_of(
    numbers,
    names.filter(lambda value: "\0" not in value),
    st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=20),
    st.sampled_from(
        ["true", "none", "5/minute", "~nobody-of-this-name/x", "/dev/null", "http://[x", "json", " "]
    ),
)
shard_lists = st.one_of(
    st.just(CLOSED),
    st.builds("db0={}".format, dsns),
    st.builds(" ".join, st.lists(st.builds("{}={}".format, names, dsns), max_size=3)),
    values,
)
variables = st.dictionaries(
    st.sampled_from(sorted(Settings.model_fields.keys() - {"shards"})).map(
        lambda name: f"SNAPURL_{name.upper()}"
    ),
    values,
    max_size=4,
)


@trying(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    found=variables,
    shards=shard_lists,
    extra=st.sampled_from(["", "SNAPURL_NOSUCH", "SNAPURL_SHARD", "snapurl_port"]),
    call=st.sampled_from(
        [
            (snapurl, "openapi"),
            (snapurl, "keys list"),
            (snapurl, "migrate"),
            (reshard, "status"),
            (reshard, "add db4"),
        ]
    ),
)
@example({"SNAPURL_SECRETS_DIR": "~nobody-of-this-name/x"}, CLOSED, "", (snapurl, "openapi"))
@example({"SNAPURL_HOME": "~nobody-of-this-name/x"}, "", "", (snapurl, "keys list"))
@example({}, f"db0=postgresql://me:{SECRET}@127.0.0.1:99999/x", "", (snapurl, "keys list"))
@example({"SNAPURL_HOME": "/dev/null"}, "", "", (reshard, "status"))
@example({"SNAPURL_HOME": "x" * 300}, "", "", (reshard, "status"))
def test_any_environment_ends_with_one_line(
    found: dict[str, str], shards: str, extra: str, call: tuple[Main, str]
) -> None:
    """Settings that cannot work end a command with one line and exit code 2 or 1, and no secret."""
    main, words = call
    environ = {**found, "SNAPURL_SHARDS": shards, **({extra: "x"} if extra else {})}
    assert_refused_plainly(ended(main, words.split(), environ))
