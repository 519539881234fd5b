"""SQL dumps of MySQL and MariaDB: the rows that INSERT statements put into tables. Pure.

Theory. A statement may be one line of gigabytes, and strings may have anything in them. So the text is read as
tokens from a window: a token that touches the end of the window may go on behind it, and is read again once there
is more. Names of columns come from the INSERT itself, else from the CREATE TABLE before it. All else is skipped.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TextIO

from snapurl.imports.rows import FileRefused

WINDOW_CHARS = 65_536
TOKEN_CHARS_MAX = 4_194_304
BEHIND_CHARS = 2  # characters behind a token that may change what it is: a second quote, the space behind --
CELLS_MAX = 200  # of a row

_TOKEN = re.compile(
    r"""
    \s++
    | (?:--(?=[\s])|\#)[^\n]*+(?:\n|\Z)
    | /\*(?:[^*]|\*(?!/))*+\*/
    | (?P<string>'(?:[^'\\]++|\\.|'')*+')
    | (?P<quoted>"(?:[^"\\]++|\\.|"")*+"|`(?:[^`]++|``)*+`)
    | (?P<hex>0x[0-9A-Fa-f]*+|[xX]'[0-9A-Fa-f]*+')
    | (?P<word>[A-Za-z_$\x80-\U0010ffff][\w$]*+)
    | (?P<number>[+-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?)
    | (?P<sign>.)
    """,
    re.VERBOSE | re.DOTALL,
)
_ESCAPE = re.compile(r"\\(.)|''", re.DOTALL)
_ESCAPED = {"n": "\n", "t": "\t", "r": "\r", "0": "\0", "b": "\b", "Z": "\x1a"}

Token = tuple[str, str]
"""Its kind (a group of _TOKEN) and text."""


@dataclass(frozen=True, slots=True)
class Inserted:
    """A row of a table. `cells` are texts, None for NULL; `columns` their names, as far as the dump says them."""

    table: str
    columns: tuple[str, ...]
    cells: tuple[str | None, ...]


def inserted(text: TextIO) -> Iterator[Inserted]:
    """Yields the rows of all tables. Raises FileRefused where the dump cannot be read."""
    tokens = _Tokens(text)
    known: dict[str, tuple[str, ...]] = {}
    while (token := tokens.next()) is not None:
        word = token[1].upper() if token[0] == "word" else ""
        if word == "CREATE":
            _create(tokens, known)
        elif word in ("INSERT", "REPLACE"):
            yield from _insert(tokens, known)
        else:
            tokens.skip_statement(token)


class _Tokens:
    def __init__(self, text: TextIO) -> None:
        self._text = text
        self._window = ""
        self._at = 0
        self._is_over = False

    def next(self) -> Token | None:
        """Returns the next token that is no space or comment; None at the end. Raises FileRefused."""
        while True:
            match = _TOKEN.match(self._window, self._at)
            if match is None or match.end() + BEHIND_CHARS > len(self._window) or self._is_open(match):
                if not self._is_over:
                    self._read_more()
                    continue
                if match is None:
                    return None
                if self._is_open(match):
                    raise FileRefused("the dump ends in the middle of a text: it is not complete")
            self._at = match.end()
            if match.lastgroup is not None:
                return match.lastgroup, match.group()

    @staticmethod
    def _is_open(match: re.Match[str]) -> bool:
        """Whether a token is the begin of a string or a comment whose end is not in the window."""
        return match.lastgroup == "sign" and (
            match.group() in "'\"`" or match.string.startswith("/*", match.start())
        )

    def _read_more(self) -> None:
        rest = self._window[self._at :]
        if len(rest) > TOKEN_CHARS_MAX:
            raise FileRefused(
                f"a text has more than {TOKEN_CHARS_MAX:,} characters: this is no dump of links"
            )
        more = self._text.read(max(WINDOW_CHARS, len(rest)))
        self._is_over = not more
        self._window, self._at = rest + more, 0

    def skip_statement(self, token: Token | None) -> None:
        """Skips what is left of a statement; `token` is the one that was read last."""
        while token is not None and token != ("sign", ";"):
            token = self.next()

    def name(self) -> str:
        """Returns the name of a table, without that of its database."""
        found = ""
        while (token := self.next()) is not None:
            if token[0] in ("word", "quoted"):
                found = _unquoted(token)
                if not self.follows("."):
                    return found
                self.next()
            else:
                break
        return found

    def follows(self, sign: str) -> bool:
        """Whether the next token is this sign. It is not consumed."""
        token = self.next()
        if token is None:
            return False
        self._at -= len(token[1])
        return token == ("sign", sign)


def _unquoted(token: Token) -> str:
    kind, text = token
    return text[1:-1].replace(text[0] * 2, text[0]) if kind == "quoted" else text


def _create(tokens: _Tokens, known: dict[str, tuple[str, ...]]) -> None:
    """Reads the columns of a CREATE TABLE."""
    token = tokens.next()
    if token is None or token[1].upper() != "TABLE":
        tokens.skip_statement(token)
        return
    name = tokens.name()
    if name.upper() == "IF":  # NOT EXISTS
        tokens.name()
        tokens.name()
        name = tokens.name()
    depth, is_first = 0, False
    columns: list[str] = []
    while (token := tokens.next()) is not None and token != ("sign", ";"):
        if token == ("sign", "("):
            depth += 1
            is_first = depth == 1
        elif token == ("sign", ")"):
            depth -= 1
        elif token == ("sign", ",") and depth == 1:
            is_first = True
        elif is_first:
            is_first = False
            if token[0] == "quoted" or token[1].upper() not in _NO_COLUMN:
                columns.append(_unquoted(token))
    known[name] = tuple(columns[:CELLS_MAX])


_NO_COLUMN = frozenset(
    ["PRIMARY", "KEY", "UNIQUE", "INDEX", "CONSTRAINT", "FULLTEXT", "SPATIAL", "FOREIGN", "CHECK"]
)


def _insert(tokens: _Tokens, known: dict[str, tuple[str, ...]]) -> Iterator[Inserted]:
    """Yields the rows of one INSERT."""
    token = tokens.next()
    while token is not None and token[1].upper() in ("IGNORE", "INTO", "LOW_PRIORITY", "DELAYED"):
        if token[1].upper() == "INTO":
            break
        token = tokens.next()
    table = tokens.name()
    columns = known.get(table, ())
    token = tokens.next()
    if token == ("sign", "("):
        columns = tuple(_names(tokens))
        token = tokens.next()
    if token is None or token[1].upper() not in ("VALUES", "VALUE"):
        tokens.skip_statement(token)
        return
    while (token := tokens.next()) is not None and token != ("sign", ";"):
        if token == ("sign", "("):
            yield Inserted(table, columns, tuple(_cells(tokens)))
        elif token != ("sign", ","):
            tokens.skip_statement(token)  # ON DUPLICATE KEY UPDATE
            return


def _names(tokens: _Tokens) -> Iterator[str]:
    while (token := tokens.next()) is not None and token != ("sign", ")"):
        if token[0] in ("quoted", "word"):
            yield _unquoted(token)


def _cells(tokens: _Tokens) -> Iterator[str | None]:
    """Yields the values of one row. An expression becomes what its last token says."""
    value: str | None = None
    depth = count = 0
    while (token := tokens.next()) is not None:
        kind, text = token
        if kind == "sign" and depth == 0 and text in ",)":
            yield value
            value, count = None, count + 1
            if text == ")" or count >= CELLS_MAX:
                return
        elif kind == "sign":
            depth += (text == "(") - (text == ")")
        elif kind != "word" or not text.startswith("_"):  # no character set, as in _binary 'x'
            value = _value(kind, text)
    raise FileRefused("the dump ends in the middle of a row: it is not complete")


def _value(kind: str, text: str) -> str | None:
    match kind:
        case "string":
            return _text(text[1:-1])
        case "quoted":
            return _text(text[1:-1].replace('""', '"'))
        case "hex":
            digits = text[2:].rstrip("'")
            return bytes.fromhex(digits if len(digits) % 2 == 0 else f"0{digits}").decode("utf-8", "replace")
        case "word":
            return None if text.upper() == "NULL" else text
        case _:
            return text


def _text(text: str) -> str:
    if "\\" not in text and "''" not in text:
        return text
    return _ESCAPE.sub(lambda match: _ESCAPED.get(match[1], match[1]) if match[1] else "'", text)
