"""Pictures in a zip or tar file -> a folder, as `folder:` reads it. Nothing that the archive says is trusted.

Only plain picture files are taken, one after the other and under names of our own, into a folder beside the final one
that is renamed at the end: a refused archive leaves nothing. What is in the pictures is judged by whoever decodes them.
"""

from __future__ import annotations

import bz2
import gzip
import hashlib
import io
import re
import shutil
import stat
import struct
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import IO, Any

from iekd.data.folder import TEST_NAMES, describe_folder
from iekd.data.images import SUFFIXES
from iekd.data.registry import FOLDER
from iekd.errors import DataError

ARCHIVES = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2")
ENDINGS = (".zip", ".tar", ".gz", ".tgz", ".bz2", ".tbz2")  # as a file dialog knows them
MOST_ENTRIES = 300_000  # of any kind
MOST_DIRECTORY = 128 * MOST_ENTRIES  # bytes of a zip's list of entries: it is read as a whole
LARGEST_IMAGE = 64 * 2**20  # bytes
MOST_RATIO, RATIO_FROM = 200, 256 * 2**20  # pictures hardly shrink; bytes from which it is asked
LEAST_FREE = 2**29  # bytes of the disk that are left to the runs
PIECE = 2**20
MADE = "made"
NAME = re.compile(r"[^.].*-[0-9a-f]{12}")  # of a folder that `unpack` has made
DAMAGE = (zipfile.BadZipFile, tarfile.TarError, zlib.error, EOFError, NotImplementedError, ValueError, struct.error)


@dataclass(frozen=True)
class Room:
    """What an archive may hold at most: pictures, and their bytes."""

    images: int = 250_000
    size: int = 20 * 2**30


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
        raise DataError(f"'{archive}' cannot be read ({error.strerror}). Check the path and its permissions.") from None
    folder = into / f"{re.sub(r'[^A-Za-z0-9_.-]+', '-', stem).strip('.-')[:60] or 'pictures'}-{stamp}"
    if folder.is_dir():
        return folder
    try:
        into.mkdir(parents=True, exist_ok=True)
        part = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", suffix=".part", dir=into))
    except OSError as error:
        raise DataError(f"Nothing can be unpacked into '{into}' ({error.strerror}). Make it writable.") from None
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
            why = error.strerror or _reason(error)
            raise DataError(f"'{archive.name}' cannot be unpacked into '{into}' ({why}).") from None
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
    for folders, suffix, size, packed in _pictures(archive, most):
        where = "/".join(folders)
        if len(found) == room.images:
            raise _Refused(f"it holds more than {room.images:,} pictures")
        if size > LARGEST_IMAGE:
            raise _Refused(f"a picture in '{where}' has {size / 2**20:,.0f} MB")
        if shutil.disk_usage(part).free < LEAST_FREE + size:
            raise _Refused("the disk of this machine is nearly full")
        files.append(flat / f"{len(found):06d}{suffix}")
        written += size
        if written > most:
            raise _Refused(f"it unpacks to more than {most / 2**20:,.0f} MB")
        with packed, open(files[-1], "xb") as file:
            shutil.copyfileobj(packed, file, PIECE)  # both kinds give `size` bytes at most
        found.append(folders)
    if not found:
        raise _Refused("there are no pictures in folders in it")
    for file_, folders in zip(files, _classes(found), strict=True):
        target = made.joinpath(*folders)
        target.mkdir(parents=True, exist_ok=True)
        file_.rename(target / file_.name)
    return made


def _classes(found: list[tuple[str, ...]]) -> Iterator[tuple[str, ...]]:
    """Of the folders around each picture those that count: (class,), or (train or test, class)."""
    depth = 0
    while all(len(f) > depth + 1 for f in found) and len({f[depth] for f in found}) == 1:
        depth += 1
    for folders in found:
        first, *rest = folders[depth:]
        yield (first.lower(), rest[0]) if rest and first.lower() in ("train", *TEST_NAMES) else (first,)


def _pictures(archive: Path, most: int) -> Iterator[tuple[tuple[str, ...], str, int, IO[bytes]]]:
    """(folders, suffix, bytes as the archive says, opened) of each picture that lies in a folder."""
    with open(archive, "rb") as file:
        entries = _zipped(file) if zipfile.is_zipfile(file) else _tarred(file, most)
        for count, (name, plain, size, opened) in enumerate(entries, 1):
            if count > MOST_ENTRIES:
                raise _Refused(f"it has more than {MOST_ENTRIES:,} entries")
            parts = _parts(name)
            if plain is None:  # a folder
                continue
            if not plain:
                raise _Refused(f"'{name[:80]}' is a link or a device")
            suffix = Path(parts[-1]).suffix.lower()
            hidden = any(p.startswith(".") or p == "__MACOSX" for p in parts)
            if len(parts) > 1 and suffix in SUFFIXES and not hidden:
                yield tuple(parts[:-1]), suffix, size, opened()


def _parts(name: str) -> list[str]:
    """The folders and the file of an entry's name, whatever system has written it."""
    shown = name[:80].encode("unicode_escape").decode()
    parts = [p for p in name.replace("\\", "/").split("/") if p not in ("", ".")]
    if name[:1] in ("/", "\\") or ".." in parts or re.match(r"[A-Za-z]:[\\/]", name):
        raise _Refused(f"'{shown}' would lie outside of its folder")
    if any(len(p.encode(errors="replace")) > 200 or not p.isprintable() for p in parts):
        raise _Refused(f"'{shown}' is no name for a folder or a file")
    return parts or ["."]


Entry = tuple[str, "bool | None", int, Callable[[], IO[bytes]]]  # plain: a file, else None: a folder


def _zipped(file: IO[bytes]) -> Iterator[Entry]:
    if _zip_directory(file) > MOST_DIRECTORY:
        raise _Refused(f"it has more than {MOST_ENTRIES:,} entries")
    with zipfile.ZipFile(file) as archive:
        for entry in archive.infolist():
            kind = stat.S_IFMT(entry.external_attr >> 16) if entry.create_system == 3 else 0
            if entry.flag_bits & 1:
                raise _Refused("it is encrypted")
            if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                raise _Refused("it is compressed in a way that is not read here")
            plain = None if entry.is_dir() else kind in (0, stat.S_IFREG)
            yield entry.filename, plain, entry.file_size, partial(archive.open, entry)


def _zip_directory(file: IO[bytes]) -> int:
    """Bytes of the list of entries, from the record at the end; `ZipFile` reads all of it at once."""
    end = file.seek(0, io.SEEK_END)
    file.seek(max(0, end - 2**16 - 22 - 76))
    tail = file.read()
    at = tail.rfind(b"PK\5\6")
    size = int(struct.unpack_from("<L", tail, at + 12)[0])
    at = tail.rfind(b"PK\6\6")  # the record of large archives
    return max(size if size != 0xFFFFFFFF else 0, int(struct.unpack_from("<Q", tail, at + 40)[0]) if at >= 0 else 0)


def _tarred(file: IO[bytes], most: int) -> Iterator[Entry]:
    file.seek(0)
    magic = file.read(3)
    file.seek(0)
    packed: Any = file
    if magic[:2] == b"\x1f\x8b":
        packed = gzip.GzipFile(fileobj=file)
    elif magic == b"BZh":
        packed = bz2.BZ2File(file)
    with tarfile.open(fileobj=_Measured(packed, 2 * most + 2**20), mode="r:") as archive:
        while entry := archive.next():
            archive.members = []  # type: ignore[attr-defined]  # it remembers all that it has passed
            plain = None if entry.isdir() else entry.isreg() and not entry.issparse()
            yield entry.name, plain, entry.size, partial(_opened, archive, entry)


def _opened(archive: tarfile.TarFile, entry: tarfile.TarInfo) -> IO[bytes]:
    opened = archive.extractfile(entry)
    assert opened is not None  # it is a plain file
    return opened


class _Measured(io.RawIOBase):
    """A stream of which no more is unpacked than it may hold, and no more at once than a picture's piece.

    A header of a tar file can announce gigabytes, which `tarfile` would read as a whole.
    """

    def __init__(self, stream: IO[bytes], most: int) -> None:
        self.stream, self.most = stream, most

    def read(self, size: int = -1) -> bytes:
        if not 0 <= size <= 2 * PIECE:
            raise ValueError("a header is too long")
        return self.stream.read(size)

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        if whence != io.SEEK_SET or offset > self.most:
            raise _Refused(f"it unpacks to more than {self.most / 2**21:,.0f} MB")
        return self.stream.seek(offset)

    def tell(self) -> int:
        return self.stream.tell()

    def seekable(self) -> bool:
        return True

    def readable(self) -> bool:
        return True


def _reason(error: BaseException) -> str:
    text = str(error).strip()
    return text.splitlines()[0][:120] if text else type(error).__name__
