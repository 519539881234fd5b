"""The file of a backup: a tar of compressed parts, with a manifest at its end that says what must be there.

A part has rows of one table as PostgreSQL's COPY writes them as text, in the order of slot and key. The manifest
names each part with its rows, bytes and SHA-256, and each slot with its rows and the sum of their digests; the last
member is the SHA-256 of the manifest. So a file is whole if its end is there and every sum is right.

The file has another name until all of it is on the disk. What a killed backup leaves is therefore never taken for
one, and the next backup to the same file begins anew. Memory is bounded by one part.
"""

from __future__ import annotations

import fcntl
import gzip
import hashlib
import io
import json
import os
import tarfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from itertools import groupby
from pathlib import Path
from typing import IO, Any

from snapurl.errors import SnapURLError

FORMAT = "snapurl-backup-1"
PART_BYTES = 4_194_304  # of rows; a part has more by one row at most
ROW_BYTES_MAX = 67_108_864
MANIFEST_BYTES_MAX = 268_435_456
COMPRESSION = 3  # of gzip's 9: half the time of its default
MANIFEST, SUM = "manifest.json", "manifest.sha256"
_DIGEST_BITS = 128


class BackupRefused(SnapURLError):
    """The backup cannot be made, is not whole, or cannot be restored here. The text says what to do."""


@dataclass(frozen=True, slots=True)
class Part:
    """Rows of one table. `rows` and `bytes` count them before compression, `sha256` is of these bytes."""

    name: str
    table: str
    shard: str
    rows: int
    bytes: int
    sha256: str


@dataclass(slots=True)
class SlotSums:
    """Slot -> how many rows a backup has of it, and the sum of the digests of these rows."""

    rows: dict[int, int] = field(default_factory=dict)
    digests: dict[int, int] = field(default_factory=dict)

    def add(self, table: str, rows: bytes) -> None:
        """Adds the rows of a part."""
        for slot, lines in by_slot(rows):
            digest = hashlib.sha256(table.encode() + b"\0" + b"".join(lines)).digest()[: _DIGEST_BITS // 8]
            self.rows[slot] = self.rows.get(slot, 0) + len(lines)
            total = self.digests.get(slot, 0) + int.from_bytes(digest, "big")
            self.digests[slot] = total % (1 << _DIGEST_BITS)

    def document(self) -> dict[str, list[object]]:
        """Returns the sums as the manifest has them: slot -> rows and digest."""
        return {str(slot): [self.rows[slot], f"{self.digests[slot]:032x}"] for slot in sorted(self.rows)}


def by_slot(rows: bytes) -> Iterator[tuple[int, list[bytes]]]:
    """Yields the rows of each slot. They begin with their slot, and those of a slot stand together."""
    lines = rows.splitlines(keepends=True)
    for slot, group in groupby(lines, key=lambda line: line[: line.index(b"\t")]):
        yield int(slot), list(group)


class ArchiveWriter:
    """A backup that is being written. `add` may be called from any thread, by one at a time."""

    def __init__(self, tar: tarfile.TarFile, made_at: float) -> None:
        self._tar = tar
        self._made_at = made_at
        self.parts: list[Part] = []
        self.sums = SlotSums()

    def add(self, table: str, shard: str, rows: bytes) -> Part:
        """Writes rows as a part."""
        name = f"rows/{len(self.parts) + 1:06}-{shard}-{table}.copy.gz"
        part = Part(name, table, shard, rows.count(b"\n"), len(rows), hashlib.sha256(rows).hexdigest())
        self._write(name, gzip.compress(rows, COMPRESSION, mtime=0))
        self.sums.add(table, rows)
        self.parts.append(part)
        return part

    def end(self, document: Mapping[str, Any]) -> None:
        """Writes the manifest, with what else there is to be said in it."""
        rows: dict[str, int] = {}
        for part in self.parts:
            rows[part.table] = rows.get(part.table, 0) + part.rows
        parts = [asdict(part) for part in self.parts]
        manifest = {"format": FORMAT, **document, "rows": rows, "parts": parts, "slots": self.sums.document()}
        text = json.dumps(manifest, indent=1).encode()
        self._write(MANIFEST, text)
        self._write(SUM, hashlib.sha256(text).hexdigest().encode() + b"\n")

    def _write(self, name: str, data: bytes) -> None:
        info = tarfile.TarInfo(name)
        info.size, info.mtime, info.mode = len(data), int(self._made_at), 0o600
        self._tar.addfile(info, io.BytesIO(data))


@contextmanager
def new_archive(path: Path, made_at: float) -> Iterator[ArchiveWriter]:
    """Yields what writes the file `path`, of mode 0600. It is there, and on the disk, once the block has ended.

    Raises BackupRefused if another backup writes the same file.
    """
    draft = path.with_name(f"{path.name}.part")
    with _locked(draft) as file:
        try:
            with tarfile.open(fileobj=file, mode="w", format=tarfile.PAX_FORMAT) as tar:
                yield ArchiveWriter(tar, made_at)
            file.flush()
            os.fsync(file.fileno())
            draft.replace(path)
        except BaseException:
            draft.unlink(missing_ok=True)
            raise
    directory = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


@contextmanager
def _locked(draft: Path) -> Iterator[IO[bytes]]:
    """Opens the file of a backup under way, empty, and locks it against others."""
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
    with os.fdopen(os.open(draft, flags, 0o600), "r+b") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise BackupRefused(f"another backup is writing {draft}") from None
        os.fchmod(file.fileno(), 0o600)
        file.truncate()
        yield file


class Archive:
    """A backup in a file. Raises BackupRefused if its end is missing or not right."""

    def __init__(self, path: Path, file: IO[bytes]) -> None:
        self._path = path
        try:
            self._tar = tarfile.open(fileobj=file, mode="r:")  # noqa: SIM115 - the caller closes the file
            members = self._tar.getmembers()
        except (tarfile.TarError, EOFError) as error:
            raise self._refusal(f"it is no backup, or not all of one ({error})") from None
        if not members or members[-1].name != SUM:
            raise self._refusal(
                "its end is missing: the backup was not finished, or not all of it was copied"
            )
        self._members = {member.name: member for member in members}
        self.manifest = self._manifest()
        try:
            self.parts = [Part(**part) for part in self.manifest["parts"]]
        except (KeyError, TypeError):
            raise self._refusal("its manifest cannot be read") from None

    def _manifest(self) -> dict[str, Any]:
        text = self._read(MANIFEST, MANIFEST_BYTES_MAX)
        if self._read(SUM, 128).strip().decode("ascii", "replace") != hashlib.sha256(text).hexdigest():
            raise self._refusal("its manifest is damaged")
        try:
            manifest: dict[str, Any] = json.loads(text)
            found = manifest["format"]
        except (ValueError, KeyError, TypeError):
            raise self._refusal("its manifest cannot be read") from None
        if found != FORMAT:
            raise self._refusal(f"it has the format {found!r}, and this release reads {FORMAT}")
        return manifest

    def rows(self, part: Part) -> bytes:
        """Returns the rows of a part. Raises BackupRefused if they are not those of the manifest."""
        packed = self._read(part.name, 2 * part.bytes + 65_536)
        unpacking = zlib.decompressobj(31)
        try:
            rows = unpacking.decompress(packed, part.bytes + 1)
        except zlib.error:
            rows = b""
        if hashlib.sha256(rows).hexdigest() != part.sha256 or rows.count(b"\n") != part.rows:
            raise self._refusal(f"{part.name} is damaged")
        return rows

    def _read(self, name: str, bytes_max: int) -> bytes:
        member = self._members.get(name)
        file = self._tar.extractfile(member) if member and member.isreg() else None
        if member is None or file is None or member.size > bytes_max:
            raise self._refusal(f"{name} is missing or damaged")
        with file:
            data = file.read(bytes_max + 1)
        if len(data) != member.size:
            raise self._refusal(f"{name} is not whole")
        return data

    def _refusal(self, why: str) -> BackupRefused:
        return BackupRefused(f"{self._path}: {why}")


@contextmanager
def opened(path: Path) -> Iterator[Archive]:
    """Opens a backup. Raises BackupRefused, OSError."""
    with path.open("rb") as file:
        yield Archive(path, file)


def verified_parts(archive: Archive, path: Path) -> Iterator[Part]:
    """Yields each part once its rows have been compared with the manifest. Raises BackupRefused.

    After the last one, the rows and digests of each slot and the rows of each table are compared too.
    """
    sums, rows = SlotSums(), dict.fromkeys(archive.manifest["rows"], 0)
    for part in archive.parts:
        found = archive.rows(part)
        with suppress(ValueError):
            sums.add(part.table, found)
        rows[part.table] = rows.get(part.table, 0) + part.rows
        yield part
    if sums.document() != archive.manifest["slots"] or rows != archive.manifest["rows"]:
        raise BackupRefused(f"{path}: its rows are not those that its manifest counts")
