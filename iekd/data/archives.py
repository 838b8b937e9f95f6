"""Images in a zip or tar file -> a folder, as `folder:` reads it. Nothing that the archive says is trusted.

Only plain image files are taken, one after the other and under names of our own, into a folder beside the final one
that is renamed at the end: a refused archive leaves nothing. Whether the images can be read is found out by whoever
decodes them.
"""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import lzma
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
from typing import IO, TYPE_CHECKING

from iekd.data.decoding import SUFFIXES
from iekd.data.layout import scan, split_of
from iekd.errors import DataError
from iekd.paths import cache_dir, make_cache_dir

if TYPE_CHECKING:
    from typing_extensions import Self

ZIP = ".zip"
TAR = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2")
ARCHIVES = (ZIP, *TAR)
MOST_ENTRIES = 300_000  # of any kind
DIRECTORY_ENTRY = 128  # bytes that an entry takes in a zip's list of them, which is read as a whole
LARGEST_IMAGE = 64 * 2**20  # bytes
MOST_RATIO, RATIO_FROM = 200, 256 * 2**20  # images hardly shrink; bytes from which the ratio is checked
LEAST_FREE = 2**29  # bytes of the disk that are left to the runs
DEEPEST = 32  # folders
PIECE = 2**20
BIDI = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")  # let a name look like another
CLASSES = "classes"
UNPACKED_NAME = re.compile(r"(?P<stem>[^.].*)-[0-9a-f]{12}")  # of a folder that `unpack` has made
DAMAGE = (
    zipfile.BadZipFile, tarfile.TarError, zlib.error, lzma.LZMAError, gzip.BadGzipFile, EOFError, NotImplementedError,
    ValueError, struct.error, IndexError, OverflowError,
)  # fmt: skip


@dataclass(frozen=True)
class Room:
    """What an archive may hold at most: images, folders of classes, and bytes."""

    images: int = 250_000
    classes: int = 20_000
    size: int = 20 * 2**30

    @property
    def entries(self) -> int:
        """Of any kind: there are notes and folders beside the images."""
        return min(MOST_ENTRIES, 2 * self.images + 1000)


class _Refused(Exception):  # noqa: N818 - never leaves this file
    """Why an archive is not taken."""


def is_archive(path: Path) -> bool:
    """Whether there is a file of that name, and the name says that it is an archive."""
    return path.name.lower().endswith(ARCHIVES) and path.is_file()


def unpack(archive: Path, into: Path, room: Room = Room(), *, tar: bool = False) -> Path:
    """The folder below `into` with an archive's images; it is made once, and found again while the file is the same.

    A folder around all others is left out; images below a class's folder, however deep, are of that class.

    Args:
        archive: the file.
        into: where the folder goes.
        room: limits.
        tar: whether tar files are read too. What strangers send is read only if it is a zip: much less can be said
            in one.
    Raises:
        DataError: no archive, a damaged or a hostile one, more than `room`, or no images in folders.
    """
    known = ARCHIVES if tar else (ZIP,)
    ending = next((e for e in sorted(ARCHIVES, key=len)[::-1] if archive.name.lower().endswith(e)), "")
    if not ending:
        raise DataError(f"'{archive.name}' is no archive that is known. Use one of {', '.join(known)}.")
    if ending not in known:
        raise DataError(f"'{archive.name}' is a tar archive, which is not taken here. Pack it as zip.")
    stem = archive.name[: -len(ending)]
    try:
        about = archive.stat()
        stamp = _stamp(archive.resolve(), about.st_size, about.st_mtime_ns)
    except OSError as error:
        raise DataError(f"'{archive.name}' cannot be read ({error.strerror}). Give it again.") from None
    folder = into / f"{_plain(stem)}-{stamp}"
    if folder.is_dir():
        with contextlib.suppress(OSError):
            os.utime(folder)  # it is in use: see runs/uploads.py
        return folder
    try:
        into.mkdir(parents=True, exist_ok=True)
        part = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", suffix=".part", dir=into))
    except OSError as error:
        if cache_dir() in into.parents:
            make_cache_dir(into)  # its message names the folder and what moves it
        raise DataError(f"Nothing can be unpacked here ({error.strerror}). Make '{into.name}' writable.") from None
    try:
        classes = _write(archive, part, room, tar)
        scan(classes, 0.2, 0)
        classes.rename(folder)
    except _Refused as error:
        raise DataError(
            f"'{archive.name}' is not taken: {error}. Pack one folder of pictures per class as zip."
        ) from None
    except DataError as error:  # its folders are no dataset
        raise DataError(str(error).replace(str(part / CLASSES), archive.name)) from None
    except DAMAGE as error:
        raise DataError(f"'{archive.name}' is damaged or no archive ({_reason(error)}). Pack it again.") from None
    except OSError as error:
        if not folder.is_dir():  # else another process was quicker, and its folder is as good
            if error.errno is None:  # decompressors raise such errors for damaged input
                raise DataError(f"'{archive.name}' is damaged ({_reason(error)}). Pack it again.") from None
            raise DataError(f"'{archive.name}' cannot be unpacked here ({error.strerror}).") from None
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return folder


@lru_cache(maxsize=8)
def _stamp(path: Path, size: int, changed: int) -> str:
    """A hash of the archive's content."""
    with open(path, "rb") as file:
        sha = hashlib.sha256()
        while piece := file.read(PIECE):
            sha.update(piece)
    return sha.hexdigest()[:12]


def _write(archive: Path, part: Path, room: Room, tar: bool) -> Path:
    """Write the images into a folder below `part`, each into the folder of its class."""
    flat, classes = part / "flat", part / CLASSES
    flat.mkdir()
    found: list[tuple[str, ...]] = []  # the folders around each image
    files: list[Path] = []
    written, most = 0, min(room.size, max(RATIO_FROM, MOST_RATIO * archive.stat().st_size))
    for folders, name, size, packed in _images(archive, flat, most, room.entries, tar):
        if len(found) == room.images:
            raise _Refused(f"it holds more than {room.images:,} pictures")
        if size > LARGEST_IMAGE:
            raise _Refused(f"a picture in '{'/'.join(folders)}' has {size / 2**20:,.0f} MB")
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
    for file_, inner in zip(files, placed, strict=True):
        if inner is None:
            continue
        target = classes.joinpath(*inner)
        target.mkdir(parents=True, exist_ok=True)
        file_.rename(target / file_.name)
    return classes


def _classes(found: list[tuple[str, ...]]) -> Iterator[tuple[str, ...] | None]:
    """Of the folders around each image those that count: (class,), or (train or test, class); None: of no class."""
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
    """A folder's name; rare spaces become plain ones, and what cannot be read becomes a question mark."""
    name = "".join(" " if unicodedata.category(c).startswith("Z") else c for c in text)
    name = name.encode(errors="replace").decode().strip()
    if (
        name in ("", ".", "..")
        or len(name.encode()) > 200
        or any(unicodedata.category(c) == "Cc" or c in BIDI for c in name)
    ):
        raise _Refused(f"'{_shown(text)}' is no name for a class")
    return name


def _images(
    archive: Path, folder: Path, most: int, entries: int, tar: bool
) -> Iterator[tuple[tuple[str, ...], str, int, IO[bytes]]]:
    """(folders, plain name, bytes as the archive says, opened) of each image that lies in a folder."""
    with open(archive, "rb") as file:
        is_zip = zipfile.is_zipfile(file)
        file.seek(0)
        found = _zipped(file, entries) if is_zip or not tar else _tarred(file, folder, most)
        for count, (name, is_file, size, opened) in enumerate(found, 1):
            if count > entries:
                raise _Refused(f"it has more than {entries:,} entries")
            parts = _parts(name)
            if is_file is None:  # a folder
                continue
            if not is_file:
                raise _Refused(f"'{_shown(name)}' is a link or a device")
            stem, suffix = Path(parts[-1]).stem, Path(parts[-1]).suffix.lower()
            hidden = any(p.startswith(".") or p == "__MACOSX" for p in parts)
            if len(parts) > 1 and suffix in SUFFIXES and not hidden:
                yield tuple(map(_class_name, parts[:-1])), _plain(stem) + suffix, size, opened()


def _plain(text: str) -> str:
    """The letters of a name that every system can write; by it an image that cannot be read is found again."""
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


# name; whether it is a plain file, None for a folder; bytes; a function that opens it
Entry = tuple[str, "bool | None", int, Callable[[], IO[bytes]]]


def _zipped(file: IO[bytes], entries: int) -> Iterator[Entry]:
    end = zipfile._EndRecData(file)  # type: ignore[attr-defined]  # as `ZipFile` does, which then reads all of the list
    if end is None:
        raise zipfile.BadZipFile("File is not a zip file")
    if end[5] > DIRECTORY_ENTRY * entries:
        raise _Refused(f"it has more than {entries:,} entries")
    with zipfile.ZipFile(file) as archive:
        for entry in archive.infolist():
            kind = stat.S_IFMT(entry.external_attr >> 16) if entry.create_system == 3 else 0
            if entry.flag_bits & 1:
                raise _Refused("it is encrypted")
            if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                raise _Refused("it is compressed in a way that is not read here")
            is_file = None if entry.filename.endswith("/") else kind in (0, stat.S_IFREG)
            name = entry.filename
            if not entry.flag_bits & 0x800:  # macOS writes UTF-8 and does not say so
                with contextlib.suppress(UnicodeError):
                    name = name.encode("cp437").decode()
            yield name, is_file, entry.file_size, partial(archive.open, entry)


def _tarred(file: IO[bytes], folder: Path, most: int) -> Iterator[Entry]:
    """The entries of a tar file in their order; their content can be read only before the next is asked for."""
    total = 0
    with tarfile.open(fileobj=file, mode="r|*", tarinfo=_StrictInfo, encoding="utf-8") as archive:
        for entry in archive:
            total += max(0, entry.size)
            if total > 2 * most:  # of any kind: `_write` counts the images alone
                raise _Refused(f"it unpacks to more than {most / 2**20:,.0f} MB")
            if entry.issparse():
                raise _Refused("it holds files with holes")
            is_file = None if entry.isdir() else entry.isreg()
            yield entry.name, is_file, entry.size, partial(_content, archive, entry, folder)


class _StrictInfo(tarfile.TarInfo):
    """`tarfile` takes a broken header for the end of the archive; then some of its images would be missing."""

    @classmethod
    def fromtarfile(cls, archive: tarfile.TarFile) -> Self:
        try:
            entry = super().fromtarfile(archive)
        except tarfile.EOFHeaderError:  # type: ignore[attr-defined]
            raise  # the mark that an archive ends with
        except tarfile.EmptyHeaderError:  # type: ignore[attr-defined]
            raise tarfile.ReadError("it ends too early") from None
        except tarfile.HeaderError as error:
            raise tarfile.ReadError(str(error)) from None
        except RecursionError:  # one call for each header that speaks of the next entry
            raise tarfile.ReadError("its headers do not end") from None
        if entry.size < 0:
            raise tarfile.ReadError("a size is negative")
        return entry


def _content(archive: tarfile.TarFile, entry: tarfile.TarInfo, folder: Path) -> IO[bytes]:
    """A second look at the entry, by Python's own rules; `_parts` has checked its name already."""
    if hasattr(tarfile, "data_filter"):  # Python 3.10.12, 3.11.4 and later
        tarfile.data_filter(entry, str(folder))
    content = archive.extractfile(entry)
    if content is None:
        raise tarfile.ReadError("an entry has no content")
    return content


def _reason(error: BaseException) -> str:
    text = str(error).strip()
    return text.splitlines()[0][:120] if text else type(error).__name__
