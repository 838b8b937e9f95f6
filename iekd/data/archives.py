"""Images in a zip or tar file -> a folder, as `folder:` reads it. Nothing that the archive says is trusted.

Only plain image files are taken, one after the other and under names of our own, into a folder beside the final one
that is renamed at the end: a refused archive leaves nothing. Whether the images can be read is found out by whoever
decodes them.
"""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import json
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
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import IO, TYPE_CHECKING

from iekd.data.layout import test_folder, understand
from iekd.data.tree import HEAD, LARGEST_TABLE, Node, is_hidden, kind_of, other_archive, other_ending
from iekd.data.zip_names import names_of
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
ABOUT = ".iekd.json"  # in the unpacked folder: notes on what was not taken
READER = 4  # raise it when the same archive would be unpacked differently
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


def unpack(archive: Path, into: Path, room: Room = Room(), *, tar: bool = False, nested: str = "") -> Path:
    """The folder below `into` with an archive's images; it is made once, and found again while the file is the same.

    Which folders are the classes is decided as for a folder on disk, see layout.py.

    Args:
        archive: the file.
        into: where the folder goes.
        room: limits.
        tar: whether tar files are read too. What strangers send is read only if it is a zip: much less can be said
            in one.
        nested: which folders are the classes where they lie in folders, see `layout.understand`.
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
        stamp = _stamp(archive.resolve(), about.st_size, about.st_mtime_ns, nested)
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
        _write(archive, part, room, tar, nested).rename(folder)
    except _Refused as error:
        raise DataError(
            f"'{archive.name}' is not taken: {error}. Pack one folder of images per class as zip."
        ) from None
    except DataError:  # its folders are not a dataset
        raise
    except DAMAGE as error:
        what = other_archive(archive) or f"is damaged or no archive ({_reason(error)}). Pack it again."
        raise DataError(f"'{archive.name}' {what}") from None
    except OSError as error:
        if not folder.is_dir():  # else another process was quicker, and its folder is as good
            if error.errno is None:  # decompressors raise such errors for damaged input
                raise DataError(f"'{archive.name}' is damaged ({_reason(error)}). Pack it again.") from None
            raise DataError(f"'{archive.name}' cannot be unpacked here ({error.strerror}).") from None
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return folder


def images_inside(archive: Path, others: Counter[str], notes: list[str]) -> Iterator[tuple[str, Callable[[], bytes]]]:
    """The images of an archive, one after the other; nothing is written to the disk.

    Args:
        others: counts the files that are no images, by their ending.
        notes: a sentence is added if it had to be guessed how the names are encoded.
    Yields:
        (its name in the archive, with folders; a function that reads it, to be called before the next is asked for,
        which raises DataError if it cannot be read).
    Raises:
        DataError: a damaged or a hostile archive.
    """
    try:
        most, total = max(RATIO_FROM, MOST_RATIO * archive.stat().st_size), 0
        for entry in _entries(archive, archive.parent, most, MOST_ENTRIES, True, notes):
            if entry.opened is None:
                continue
            name, content = "/".join((*entry.folders, entry.name)), _Opened(entry.opened)
            kind = kind_of(entry.name, content.head)
            if kind != "image":
                if kind:
                    others[other_ending(name, kind)] += 1
                continue
            total += entry.size
            if total > most:
                raise _Refused(f"it unpacks to more than {most / 2**20:,.0f} MB")
            yield name, partial(_image_bytes, name, entry.size, content)
    except _Refused as error:
        raise DataError(f"'{archive.name}' is not taken: {error}. Pack the images alone as zip.") from None
    except DAMAGE as error:
        what = other_archive(archive) or f"is damaged or no archive ({_reason(error)}). Pack it again."
        raise DataError(f"'{archive.name}' {what}") from None
    except OSError as error:
        raise DataError(f"'{archive.name}' cannot be read ({error.strerror or _reason(error)}).") from None


def _image_bytes(name: str, size: int, content: _Opened) -> bytes:
    if size > LARGEST_IMAGE:
        raise DataError(f"'{name}' has {size / 2**20:,.0f} MB, more than the {LARGEST_IMAGE // 2**20} that are read.")
    try:
        return content.rest()
    except (*DAMAGE, OSError) as error:
        raise DataError(f"'{name}' is damaged in its archive ({_reason(error)}). Pack it again.") from None


@lru_cache(maxsize=8)
def _stamp(path: Path, size: int, changed: int, nested: str) -> str:
    """A hash of the archive's content, and of how it is understood."""
    with open(path, "rb") as file:
        sha = hashlib.sha256(f"{READER}{nested}".encode())
        while piece := file.read(PIECE):
            sha.update(piece)
    return sha.hexdigest()[:12]


def _write(archive: Path, part: Path, room: Room, tar: bool, nested: str) -> Path:
    """Write the images into a folder below `part`, each into the folder of its class."""
    flat, tree, notes = part / "flat", Node(), list[str]()
    flat.mkdir()
    files: dict[str, Path] = {}  # what an image is called in the archive -> where it is
    tables: dict[str, bytes] = {}
    count, written, most = 0, 0, min(room.size, max(RATIO_FROM, MOST_RATIO * archive.stat().st_size))
    for entry in _entries(archive, flat, most, room.entries, tar, notes):
        path, node = "/".join((*entry.folders, entry.name)), tree
        for folder in entry.folders:
            node = node.below(folder)
        if entry.opened is None:
            continue
        content = _Opened(entry.opened)
        kind = "image" if path in files else node.add(entry.name, content.head)
        if kind == "table" and entry.size <= LARGEST_TABLE - sum(map(len, tables.values())):
            tables[path] = content.rest()
        if kind != "image":
            continue
        if count == room.images:
            raise _Refused(f"it holds more than {room.images:,} pictures")
        if entry.size > LARGEST_IMAGE:
            raise _Refused(f"a picture in '{'/'.join(entry.folders)}' has {entry.size / 2**20:,.0f} MB")
        if shutil.disk_usage(part).free < LEAST_FREE + entry.size:
            raise _Refused("the disk of this machine is nearly full")
        stem, suffix = Path(entry.name).stem, Path(entry.name).suffix.lower()
        files[path] = flat / f"{count:06d}-{_plain(stem)}{_plain_suffix(suffix)}"  # the last of several with one name
        count += 1
        written += entry.size
        if written > most:
            raise _Refused(f"it unpacks to more than {most / 2**20:,.0f} MB")
        with open(files[path], "xb") as file:
            content.copy(file)
    for node in tree.walk():
        node.images.sort()
    layout = understand(tree, archive.name, lambda path: tables.get(path, b""), nested, packed=True)
    if len(layout.class_names) > room.classes:
        raise _Refused(f"it has more than {room.classes:,} folders of classes")
    classes = part / CLASSES
    notes += layout.notes
    for split, of_split in (("train", layout.train), (test_folder(layout), layout.test)):
        for name, paths in zip(layout.class_names, of_split or (), strict=False):
            target = classes / name if layout.test is None else classes / split / name
            target.mkdir(parents=True, exist_ok=True)
            for path in paths:
                files[path].rename(target / files[path].name)
    (classes / ABOUT).write_text(json.dumps(notes, ensure_ascii=False))
    return classes


class _Opened:
    """The content of an entry, of which the first bytes may be looked at before it is copied."""

    def __init__(self, opened: Callable[[], IO[bytes]]) -> None:
        self.opened, self.begun = opened, b""
        self.file: IO[bytes] | None = None

    def head(self) -> bytes:
        self.file = self.opened()
        self.begun = self.file.read(HEAD)
        return self.begun

    def rest(self) -> bytes:
        with self.file or self.opened() as file:
            return self.begun + file.read()

    def copy(self, into: IO[bytes]) -> None:
        with self.file or self.opened() as file:
            into.write(self.begun)
            shutil.copyfileobj(file, into, PIECE)  # both kinds give no more bytes than their entry says


def _class_name(name: str) -> str:
    """A folder's name, if a class may be called so."""
    if (
        name.strip() in ("", ".", "..")
        or len(name.encode(errors="replace")) > 200
        or any(unicodedata.category(c) in ("Cc", "Cs") or c in BIDI for c in name)
    ):
        raise _Refused(f"'{_shown(name)}' is no name for a class")
    return name


@dataclass(frozen=True)
class _Entry:
    """What is in an archive and not hidden.

    folders: around it. name: of a plain file; empty for a folder. size: bytes. opened: opens it; None for a folder.
    """

    folders: tuple[str, ...]
    name: str = ""
    size: int = 0
    opened: Callable[[], IO[bytes]] | None = None


def _entries(archive: Path, folder: Path, most: int, entries: int, tar: bool, notes: list[str]) -> Iterator[_Entry]:
    """Every folder and every file that may count; notes: to add to what the user may not expect."""
    with open(archive, "rb") as file:
        is_zip = zipfile.is_zipfile(file)
        file.seek(0)
        found = _zipped(file, entries, notes) if is_zip or not tar else _tarred(file, folder, most)
        for count, (name, is_file, size, opened) in enumerate(found, 1):
            if count > entries:
                raise _Refused(f"it has more than {entries:,} entries")
            parts = _parts(name)
            if is_file is False:
                raise _Refused(f"'{_shown(name)}' is a link or a device")
            if any(map(is_hidden, parts)):
                continue
            if is_file is None:
                yield _Entry(tuple(map(_class_name, parts)))
            else:
                yield _Entry(tuple(map(_class_name, parts[:-1])), _readable(parts[-1]), size, opened)


def _readable(name: str) -> str:
    """A file's name for messages and tables of labels; it is never written to the disk."""
    return "".join("?" if unicodedata.category(c) in ("Cc", "Cs") or c in BIDI else c for c in name)


def _plain_suffix(suffix: str) -> str:
    return suffix if suffix.isascii() and suffix[1:].isalnum() and len(suffix) <= 8 else ""


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


def _zipped(file: IO[bytes], entries: int, notes: list[str]) -> Iterator[Entry]:
    end = zipfile._EndRecData(file)  # type: ignore[attr-defined]  # as `ZipFile` does, which then reads all of the list
    if end is None:
        raise zipfile.BadZipFile("File is not a zip file")
    if end[5] > DIRECTORY_ENTRY * entries:
        raise _Refused(f"it has more than {entries:,} entries")
    with zipfile.ZipFile(file) as archive:
        names, guessed = names_of(archive.infolist())
        notes += guessed
        for name, entry in zip(names, archive.infolist(), strict=True):
            kind = stat.S_IFMT(entry.external_attr >> 16) if entry.create_system == 3 else 0
            if entry.flag_bits & 1:
                raise _Refused("it is encrypted")
            if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                raise _Refused("it is compressed in a way that is not read here")
            is_file = None if name.endswith("/") else kind in (0, stat.S_IFREG)
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
            try:
                entry.name.encode()
            except UnicodeEncodeError:  # names come one at a time: too little to guess an encoding from
                raise _Refused(f"the name '{_shown(entry.name)}' is not in UTF-8") from None
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
