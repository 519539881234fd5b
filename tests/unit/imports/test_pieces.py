"""A file in pieces: wherever it is cut, its rows are those of the whole file."""

from __future__ import annotations

import random
from dataclasses import dataclass
from datetime import UTC
from io import BytesIO

import pytest

from snapurl.imports.catalogue import SOURCES
from snapurl.imports.pieces import PiecePlace, PieceRow, read_piece
from snapurl.imports.rows import FileRefused, Found, Reading, RowRefused
from tests.unit.imports.reading import NOW
from tests.unit.imports.test_yourls import MYSQLDUMP

READING = Reading(UTC, NOW)
FILE_SEEDS = range(60)
HEADER = "code,url,title\r\n"


@dataclass(frozen=True)
class Outcome:
    """What a row says, in a form that can be compared."""

    place: int
    cells: tuple[str, ...]
    found: str


def whole(kind: str, data: bytes) -> list[Outcome]:
    source = SOURCES[kind](BytesIO(data), READING)

    def found(row: object) -> str:
        try:
            return repr(source.link(row))  # type: ignore[arg-type]
        except RowRefused as refusal:
            return str(refusal)

    return [Outcome(row.place, tuple(row.cells), found(row)) for row in source.rows()]


def outcome(each: PieceRow) -> Outcome:
    found = each.found if isinstance(each.found, str) else repr(each.found)
    return Outcome(each.row.place, tuple(each.row.cells), found)


def in_pieces(kind: str, data: bytes, chance: random.Random, head: int) -> list[Outcome]:
    """Sends a file as the page does, but with cuts at any byte and any number of rows taken of a piece."""
    place, position, outcomes, size = PiecePlace(), 0, list[Outcome](), 0
    while True:
        size = chance.randint(size, 2 * size + 40) if size else head + chance.randint(1, 40)
        end = min(position + size, len(data))
        piece = read_piece(
            kind,
            data[: place.head] + data[position:end],
            PiecePlace.parse(str(place)),
            READING,
            is_last=end == len(data),
            rows_max=chance.randint(1, 5),
        )
        taken = piece.rows[: chance.randint(1, 5)]
        outcomes += map(outcome, taken)
        if taken:
            place, position, size = taken[-1].then, position + taken[-1].used, 1
        if piece.is_over and len(taken) == len(piece.rows):
            return outcomes


def some_file(chance: random.Random) -> str:
    """Returns rows with quotes that are closed or not, line ends of all kinds, blank lines and wide characters."""
    ends = ["\n", "\r\n", "\r"]
    bits = ["a", "é", "🎉", '""', ",", ";", "\n", "\r\n", "\r", "=1+1", " "]
    rows = []
    for number in range(chance.randint(0, 25)):
        title = "".join(chance.choices(bits, k=chance.randint(0, 8)))
        row = f'c{number},https://example.org/{number},"{title}"'
        wrong = [
            "",
            "x",
            f"{row},more",
            f'c,https://example.org/,"open {number}',
            "c,not a url,'",
            ",,",
            '""',
        ]
        rows.append(row if chance.random() < 0.7 else chance.choice(wrong))
    text = "".join(row + chance.choice(ends) for row in rows)
    return text if chance.random() < 0.7 else text.rstrip("\r\n")


@pytest.mark.parametrize("seed", FILE_SEEDS)
def test_a_file_may_be_cut_at_any_byte(seed: int) -> None:
    """Whatever is cut where, the pieces have the rows of the whole file, with their numbers, links and reasons."""
    chance = random.Random(seed)
    header = chance.choice([HEADER, f"\ufeff{HEADER}", f"sep=,\n{HEADER}", f"\n\n{HEADER}"])
    data = (header + some_file(chance)).encode()
    assert in_pieces("csv", data, chance, len(header.encode())) == whole("csv", data)


def test_a_dump_is_sent_again_for_its_next_rows() -> None:
    """The rows of a dump come in parts, with the clicks by day that are behind all of them."""
    data = MYSQLDUMP.encode()
    rows, place = list[PieceRow](), PiecePlace()
    is_over = False
    while not is_over:
        piece = read_piece("yourls", data, place, READING, is_last=True, rows_max=1)
        rows += piece.rows
        place, is_over = rows[-1].then, piece.is_over
    assert [outcome(each) for each in rows] == whole("yourls", data)
    assert any(isinstance(each.found, Found) for each in rows)


def test_part_of_a_dump_is_refused_with_what_to_do() -> None:
    """A dump that is too large for one piece names the command that takes it."""
    with pytest.raises(FileRefused, match="snapurl import yourls"):
        read_piece("yourls", MYSQLDUMP.encode()[:400], PiecePlace(), READING, is_last=False)


def test_a_row_that_no_piece_can_hold_is_refused() -> None:
    """A piece of the largest size without the end of a row ends the import, which would not go on."""
    body = (HEADER + "c,https://example.org/," + "x" * 1_000).encode()
    assert not read_piece("csv", body, PiecePlace(), READING, is_last=False).rows
    with pytest.raises(FileRefused, match="more than 900 bytes"):
        read_piece("csv", body, PiecePlace(), READING, is_last=False, bytes_max=900)


@pytest.mark.parametrize("text", ["", "1", "1.2", "-1.0.0", "1.2.3.4", "a.b.c", "\u0661.0.0", "99999999.0.0"])
def test_what_is_no_place_is_refused(text: str) -> None:
    """A place is three numbers of bounded size."""
    with pytest.raises(ValueError, match="is no place"):
        PiecePlace.parse(text)


def test_another_file_is_not_taken_for_the_rest_of_the_first() -> None:
    """A piece whose header ends elsewhere than before is refused."""
    with pytest.raises(FileRefused, match="no longer the file"):
        read_piece("csv", b"url\nhttps://example.org/\n", PiecePlace(9, 1, 2), READING, is_last=True)
    with pytest.raises(FileRefused, match="UTF-8"):
        read_piece("csv", b"url\n\xff\n", PiecePlace(), READING, is_last=True)
