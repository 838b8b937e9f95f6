"""Pictures in a zip or tar file -> a folder, as `folder:` reads it. Nothing that the archive says is trusted.

Only plain picture files are taken, one after the other and under names of our own, into a folder beside the final one
that is renamed at the end: a refused archive leaves nothing. What is in the pictures is judged by whoever decodes them.
"""

from __future__ import annotations

import bz2
import contextlib
import gzip
import hashlib
import io
import os
import re
import shutil
import stat
import struct
import tarfile
import tempfile
import unicodedata
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import IO, Any

from iekd.data.base import FOLDER
from iekd.data.decoding import SUFFIXES
from iekd.data.folder import describe_folder, split_of
from iekd.errors import DataError

ARCHIVES = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2")
ENDINGS = (".zip", ".tar", ".gz", ".tgz", ".bz2", ".tbz2")  # as a file dialog knows them
MOST_ENTRIES = 300_000  # of any kind
DIRECTORY_ENTRY = 128  # bytes that an entry takes in a zip's list of them, which is read as a whole
LARGEST_IMAGE = 64 * 2**20  # bytes
MOST_RATIO, RATIO_FROM = 200, 256 * 2**20  # pictures hardly shrink; bytes from which it is asked
LEAST_FREE = 2**29  # bytes of the disk that are left to the runs
DEEPEST = 32  # folders
PIECE = 2**20
BIDI = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")  # let a name look like another
EXTENSIONS = (tarfile.GNUTYPE_LONGNAME, tarfile.XHDTYPE, tarfile.XGLTYPE)  # headers that speak of other entries
LONGEST_HEADER, MOST_HEADERS = 2**16, 8  # bytes; in a row
MADE = "made"
NAME = re.compile(r"[^.].*-[0-9a-f]{12}")  # of a folder that `unpack` has made
DAMAGE = (
    zipfile.BadZipFile, tarfile.TarError, zlib.error, gzip.BadGzipFile, EOFError, NotImplementedError, ValueError,
    struct.error, IndexError, OverflowError,
)  # fmt: skip


@dataclass(frozen=True)
class Room:
    """What an archive may hold at most: pictures, folders of classes, and bytes."""

    images: int = 250_000
    classes: int = 20_000
    size: int = 20 * 2**30

    @property
    def entries(self) -> int:
        """Of any kind: pictures have notes and folders beside them."""
        return min(MOST_ENTRIES, 2 * self.images + 1000)


class _Refused(Exception):  # noqa: N818 - never leaves this file
    """Why an archive is not taken."""


def is_archive(path: Path) -> bool:
    """Whether a file's name says that it is one."""
    return path.name.lower().endswith(ARCHIVES) and path.is_file()


def unpack(archive: Path, into: Path, room: Room = Room()) -> Path:
    """The folder below `into` with an archive's pictures; it is made once, and found again while the file is the same.

    A folder around all others is left out; pictures below a class's folder, however deep, are of that class.

    Raises:
        DataError: no archive, a damaged or a hostile one, more than `room`, or no pictures in folders.
    """
    ending = next((e for e in sorted(ARCHIVES, key=len)[::-1] if archive.name.lower().endswith(e)), "")
    if not ending:
        raise DataError(f"'{archive.name}' is no archive that is known. Use one of {', '.join(ARCHIVES)}.")
    stem = archive.name[: -len(ending)]
    try:
        about = archive.stat()
        stamp = _stamp(archive.resolve(), about.st_size, about.st_mtime_ns)
    except OSError as error:
        raise DataError(f"'{archive.name}' cannot be read ({error.strerror}). Give it again.") from None
    folder = into / f"{_plain(stem)}-{stamp}"
    if folder.is_dir():
        with contextlib.suppress(OSError):
            os.utime(folder)  # it is wanted: see runs/pictures.py
        return folder
    try:
        into.mkdir(parents=True, exist_ok=True)
        part = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", suffix=".part", dir=into))
    except OSError as error:
        raise DataError(f"Nothing can be unpacked here ({error.strerror}). Make '{into.name}' writable.") from None
    try:
        made = _take(archive, part, room)
        describe_folder(FOLDER + str(made))
        made.rename(folder)
    except _Refused as error:
        raise DataError(
            f"'{archive.name}' is not taken: {error}. Pack one folder of pictures per class as zip or tar.gz."
        ) from None
    except DataError as error:  # its folders are no data set
        raise DataError(str(error).replace(str(part / MADE), archive.name)) from None
    except DAMAGE as error:
        raise DataError(f"'{archive.name}' is damaged or no archive ({_reason(error)}). Pack it again.") from None
    except OSError as error:
        if not folder.is_dir():  # else somebody else was quicker, and theirs is as good
            if error.errno is None:  # how a decompressor speaks of its input
                raise DataError(f"'{archive.name}' is damaged ({_reason(error)}). Pack it again.") from None
            raise DataError(f"'{archive.name}' cannot be unpacked here ({error.strerror}).") from None
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return folder


@lru_cache(maxsize=8)
def _stamp(path: Path, size: int, changed: int) -> str:
    """What tells one archive from another: its content."""
    with open(path, "rb") as file:
        sha = hashlib.sha256()
        while piece := file.read(PIECE):
            sha.update(piece)
    return sha.hexdigest()[:12]


def _take(archive: Path, part: Path, room: Room) -> Path:
    """Write the pictures into a folder below `part`, each into its class's folder."""
    flat, made = part / "flat", part / MADE
    flat.mkdir()
    found: list[tuple[str, ...]] = []  # the folders around each picture
    files: list[Path] = []
    written, most = 0, min(room.size, max(RATIO_FROM, MOST_RATIO * archive.stat().st_size))
    for folders, name, size, packed in _pictures(archive, most, room.entries):
        where = "/".join(folders)
        if len(found) == room.images:
            raise _Refused(f"it holds more than {room.images:,} pictures")
        if size > LARGEST_IMAGE:
            raise _Refused(f"a picture in '{where}' has {size / 2**20:,.0f} MB")
        if shutil.disk_usage(part).free < LEAST_FREE + size:
            raise _Refused("the disk of this machine is nearly full")
        files.append(flat / f"{len(found):06d}-{name}")
        written += size
        if written > most:
            raise _Refused(f"it unpacks to more than {most / 2**20:,.0f} MB")
        with packed, open(files[-1], "xb") as file:
            shutil.copyfileobj(packed, file, PIECE)  # both kinds give `size` bytes at most
        found.append(folders)
    if not found:
        raise _Refused("there are no pictures in folders in it")
    placed = list(_classes(found))
    if len(set(placed)) > room.classes:
        raise _Refused(f"it has more than {room.classes:,} folders of classes")
    for file_, kept in zip(files, placed, strict=True):
        if kept is None:
            continue
        target = made.joinpath(*kept)
        target.mkdir(parents=True, exist_ok=True)
        file_.rename(target / file_.name)
    return made


def _classes(found: list[tuple[str, ...]]) -> Iterator[tuple[str, ...] | None]:
    """Of the folders around each picture those that count: (class,), or (train or test, class); None: of no class."""
    while len({f[0] for f in found if f}) == 1 and any(len(f) > 1 for f in found):
        found = [f[1:] for f in found]  # a folder around all others; () is beside the classes
    splits = {f: split for f in set(found) if len(f) > 1 and (split := split_of(f[0]))}
    if "train" in splits.values() and set(splits.values()) != {"train"}:
        inner = {f: f[1:] for f in splits}
        for split in set(splits.values()):
            of_split = [f for f in splits if splits[f] == split]
            while len({inner[f][0] for f in of_split}) == 1 and all(len(inner[f]) > 1 for f in of_split):
                inner.update({f: inner[f][1:] for f in of_split})  # seg_train/seg_train/<class>
        yield from ((splits[f], inner[f][0]) if f in splits else None for f in found)
    else:
        yield from (f[:1] or None for f in found)


def _class_name(text: str) -> str:
    """A folder's name as the system wrote it; rare spaces become plain ones, what cannot be read a question mark."""
    name = "".join(" " if unicodedata.category(c).startswith("Z") else c for c in text)
    name = name.encode(errors="replace").decode().strip()
    if (
        name in ("", ".", "..")
        or len(name.encode()) > 200
        or any(unicodedata.category(c) == "Cc" or c in BIDI for c in name)
    ):
        raise _Refused(f"'{_shown(text)}' is no name for a class")
    return name


def _pictures(archive: Path, most: int, entries: int) -> Iterator[tuple[tuple[str, ...], str, int, IO[bytes]]]:
    """(folders, plain name, bytes as the archive says, opened) of each picture that lies in a folder."""
    with open(archive, "rb") as file:
        found = _zipped(file, entries) if zipfile.is_zipfile(file) else _tarred(file, most)
        for count, (name, plain, size, opened) in enumerate(found, 1):
            if count > entries:
                raise _Refused(f"it has more than {entries:,} entries")
            parts = _parts(name)
            if plain is None:  # a folder
                continue
            if not plain:
                raise _Refused(f"'{_shown(name)}' is a link or a device")
            stem, suffix = Path(parts[-1]).stem, Path(parts[-1]).suffix.lower()
            hidden = any(p.startswith(".") or p == "__MACOSX" for p in parts)
            if len(parts) > 1 and suffix in SUFFIXES and not hidden:
                yield tuple(map(_class_name, parts[:-1])), _plain(stem) + suffix, size, opened()


def _plain(text: str) -> str:
    """What of a name any system can write, to find a picture again that cannot be read."""
    return re.sub(r"[^A-Za-z0-9_.-]+", "-", text).strip(".-")[:60] or "picture"


def _parts(name: str) -> list[str]:
    """The folders and the file of an entry's name, whatever system has written it."""
    parts = [p for p in name.replace("\\", "/").split("/") if p not in ("", ".")]
    if name[:1] in ("/", "\\") or ".." in parts or re.match(r"[A-Za-z]:[\\/]", name):
        raise _Refused(f"'{_shown(name)}' would lie outside of its folder")
    if len(parts) > DEEPEST:
        raise _Refused(f"'{_shown(name)}' lies more than {DEEPEST} folders deep")
    return parts or ["."]


def _shown(name: str) -> str:
    return name[:80].encode("unicode_escape").decode()


Entry = tuple[str, "bool | None", int, Callable[[], IO[bytes]]]  # plain: a file, else None: a folder


def _zipped(file: IO[bytes], entries: int) -> Iterator[Entry]:
    end = zipfile._EndRecData(file)  # type: ignore[attr-defined]  # as `ZipFile` does, which then reads all of the list
    if end is None or end[5] > DIRECTORY_ENTRY * entries:
        raise _Refused(f"it has more than {entries:,} entries")
    with zipfile.ZipFile(file) as archive:
        for entry in archive.infolist():
            kind = stat.S_IFMT(entry.external_attr >> 16) if entry.create_system == 3 else 0
            if entry.flag_bits & 1:
                raise _Refused("it is encrypted")
            if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                raise _Refused("it is compressed in a way that is not read here")
            plain = None if entry.filename.endswith("/") else kind in (0, stat.S_IFREG)
            name = entry.filename
            if not entry.flag_bits & 0x800:  # macOS writes UTF-8 and does not say so
                with contextlib.suppress(UnicodeError):
                    name = name.encode("cp437").decode()
            yield name, plain, entry.file_size, partial(archive.open, entry)


def _tarred(file: IO[bytes], most: int) -> Iterator[Entry]:
    """Header after header, forwards only.

    `tarfile` itself follows sizes backwards, reads headers of any length, and keeps what they say for all that follow.
    """
    file.seek(0)
    magic = file.read(3)
    file.seek(0)
    packed: Any = file
    if magic[:2] == b"\x1f\x8b":
        packed = gzip.GzipFile(fileobj=file)
    elif magic == b"BZh":
        packed = bz2.BZ2File(file)
    stream = _Forward(packed, 2 * most + PIECE)
    told: dict[str, str] = {}  # of the next entry, where its own header has no room
    headers = 0
    while any(block := stream.exactly(tarfile.BLOCKSIZE)):
        entry = tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
        size = int(told.get("size", entry.size))
        if size < 0:
            raise ValueError("a size is negative")
        if entry.type in (*EXTENSIONS, tarfile.GNUTYPE_LONGLINK):
            headers += 1
            if entry.size > LONGEST_HEADER or headers > MOST_HEADERS:
                raise ValueError("a header is too long")
            content = stream.exactly(_padded(entry.size))[: entry.size]
            if entry.type == tarfile.GNUTYPE_LONGNAME:
                told["path"] = content.rstrip(b"\0").decode("utf-8", "surrogateescape")
            elif entry.type == tarfile.XHDTYPE:
                told.update(_extended(content))
            continue
        name, told, headers = told.get("path", entry.name), {}, 0
        plain = None if entry.isdir() else entry.type in (tarfile.REGTYPE, tarfile.AREGTYPE, tarfile.CONTTYPE)
        content_of = _Part(stream, size if plain else 0)
        yield name, plain, size, lambda part=content_of: part  # type: ignore[misc]
        stream.skip(content_of.left + _padded(size) - size if plain else 0)


def _padded(size: int) -> int:
    return -(-size // tarfile.BLOCKSIZE) * tarfile.BLOCKSIZE


def _extended(content: bytes) -> dict[str, str]:
    """What counts of a pax header: lines of "length key=value"."""
    found = {}
    while content:
        length = int(content.split(b" ", 1)[0])
        if not 5 <= length <= len(content):
            raise ValueError("a header is broken")
        key, _, value = content[:length].split(b" ", 1)[1].rstrip(b"\n").partition(b"=")
        if key.startswith(b"GNU.sparse"):
            raise _Refused("it holds files with holes")
        if key in (b"path", b"size"):
            found[key.decode()] = value.decode("utf-8", "surrogateescape")
        content = content[length:]
    return found


class _Forward:
    """A stream of which no more is unpacked than it may hold."""

    def __init__(self, stream: IO[bytes], most: int) -> None:
        self.stream, self.left, self.most = stream, most, most

    def read(self, size: int) -> bytes:
        self.left -= size
        if self.left < 0:
            raise _Refused(f"it unpacks to more than {self.most / 2**21:,.0f} MB")
        return self.stream.read(size)

    def exactly(self, size: int) -> bytes:
        got = self.read(size)
        if len(got) < size:
            raise EOFError("it ends too early")
        return got

    def skip(self, size: int) -> None:
        while size:
            size -= len(self.exactly(min(PIECE, size)))


class _Part(io.RawIOBase):
    """The content of one entry of a stream."""

    def __init__(self, stream: _Forward, size: int) -> None:
        self.stream, self.left = stream, size

    def read(self, size: int = -1) -> bytes:
        got = self.stream.exactly(min(self.left, size if size >= 0 else self.left))
        self.left -= len(got)
        return got


def _reason(error: BaseException) -> str:
    text = str(error).strip()
    return text.splitlines()[0][:120] if text else type(error).__name__
