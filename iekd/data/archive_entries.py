"""What is in a zip or tar file, entry by entry. Nothing that the archive says is trusted.

Leaves out: what becomes of the entries, and how many and how large they may be (archives.py).
"""

from __future__ import annotations

import gzip
import lzma
import re
import shutil
import stat
import struct
import tarfile
import unicodedata
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import takewhile
from pathlib import Path
from typing import IO, TYPE_CHECKING

from iekd.data.tree import HEAD, is_hidden
from iekd.data.zip_names import names_of
from iekd.errors import BIDI

if TYPE_CHECKING:
    from typing_extensions import Self

DIRECTORY_ENTRY = 128  # bytes that an entry takes in a zip's list of them, which is read as a whole
DEEPEST = 32  # folders
PIECE = 2**20  # bytes that are copied at a time
DAMAGE = (  # what Python's readers raise for a broken archive
    zipfile.BadZipFile, tarfile.TarError, zlib.error, lzma.LZMAError, gzip.BadGzipFile, EOFError, NotImplementedError,
    ValueError, struct.error, IndexError, OverflowError,
)  # fmt: skip


class Refused(Exception):  # noqa: N818 - never leaves archives.py
    """Why an archive is not taken, as a part of a sentence."""


@dataclass(frozen=True)
class ArchiveEntry:
    """What is in an archive and not hidden.

    folders: around it. name: of a plain file; empty for a folder. size: bytes. opened: opens it; None for a folder.
    """

    folders: tuple[str, ...]
    name: str = ""
    size: int = 0
    opened: Callable[[], IO[bytes]] | None = None


def entries_of(
    archive: Path, folder: Path, most: int, entries: int, tar: bool, notes: list[str]
) -> Iterator[ArchiveEntry]:
    """Every folder and every file that may count, in their order.

    Args:
        folder: that a file of a tar must not lead out of. most: bytes that a tar may unpack to. entries: how many.
        tar: whether a file that is no zip is read as a tar. notes: what the user may not expect is added.
    Raises:
        Refused: it is hostile, or holds more. Any of DAMAGE, OSError: it cannot be read.
    """
    with open(archive, "rb") as file:
        is_zip = zipfile.is_zipfile(file)
        file.seek(0)
        found = _zipped(file, entries, notes) if is_zip or not tar else _tarred(file, folder, most)
        for count, (name, is_file, size, opened) in enumerate(found, 1):
            if count > entries:
                raise Refused(f"it has more than {entries:,} entries")
            parts = _parts(name)
            if is_file is False:
                raise Refused(f"'{_shown(name)}' is a link or a device")
            visible = list(takewhile(lambda part: not is_hidden(part), parts))
            if is_file is None or visible != parts:  # the folders around what is hidden are there
                yield ArchiveEntry(tuple(map(_folder_name, visible)))
            else:
                yield ArchiveEntry(tuple(map(_folder_name, parts[:-1])), readable(parts[-1]), size, opened)


class Opened:
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


def _folder_name(name: str) -> str:
    """A folder's name, if it can be one; whether a class may be called so is decided as for folders on disk."""
    if (
        name.strip() in ("", ".", "..")
        or len(name.encode(errors="replace")) > 200
        or any(unicodedata.category(c) == "Cs" for c in name)
    ):
        raise Refused(f"'{_shown(name)}' is no name for a folder")
    return name


def readable(name: str) -> str:
    """A name for messages and tables of labels; a file's is never written to the disk."""
    return "".join("?" if unicodedata.category(c) in ("Cc", "Cs") or c in BIDI else c for c in name)


def _parts(name: str) -> list[str]:
    """The folders and the file of an entry's name, whatever system has written it."""
    parts = [p for p in name.replace("\\", "/").split("/") if p not in ("", ".")]
    if name[:1] in ("/", "\\") or ".." in parts or re.match(r"[A-Za-z]:[\\/]", name):
        raise Refused(f"'{_shown(name)}' would lie outside of its folder")
    if len(parts) > DEEPEST:
        raise Refused(f"'{_shown(name)}' lies more than {DEEPEST} folders deep")
    return parts or ["."]


def _shown(name: str) -> str:
    return name[:80].encode("unicode_escape").decode()


# name; whether it is a plain file, None for a folder; bytes; a function that opens it
Raw = tuple[str, "bool | None", int, Callable[[], IO[bytes]]]


def _zipped(file: IO[bytes], entries: int, notes: list[str]) -> Iterator[Raw]:
    end = zipfile._EndRecData(file)  # type: ignore[attr-defined]  # as `ZipFile` does, which then reads all of the list
    if end is None:
        raise zipfile.BadZipFile("File is not a zip file")
    if end[5] > DIRECTORY_ENTRY * entries:
        raise Refused(f"it has more than {entries:,} entries")
    with zipfile.ZipFile(file) as archive:
        names, guessed = names_of(archive.infolist())
        notes += guessed
        for name, entry in zip(names, archive.infolist(), strict=True):
            kind = stat.S_IFMT(entry.external_attr >> 16) if entry.create_system == 3 else 0
            if entry.flag_bits & 1:
                raise Refused("it is encrypted")
            if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                raise Refused("it is compressed in a way that is not read here")
            is_file = None if name.endswith("/") else kind in (0, stat.S_IFREG)
            yield name, is_file, entry.file_size, partial(archive.open, entry)


def _tarred(file: IO[bytes], folder: Path, most: int) -> Iterator[Raw]:
    """The entries of a tar file in their order; their content can be read only before the next is asked for."""
    total = 0
    with tarfile.open(fileobj=file, mode="r|*", tarinfo=_StrictInfo, encoding="utf-8") as archive:
        for entry in archive:
            total += max(0, entry.size)
            if total > 2 * most:  # of any kind: `_write` counts the images alone
                raise Refused(f"it unpacks to more than {most / 2**20:,.0f} MB")
            if entry.issparse():
                raise Refused("it holds files with holes")
            try:
                entry.name.encode()
            except UnicodeEncodeError:  # names come one at a time: too little to guess an encoding from
                raise Refused(f"the name '{_shown(entry.name)}' is not in UTF-8") from None
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


def reason(error: BaseException) -> str:
    """The first line of an error, in at most 120 characters."""
    text = str(error).strip()
    return text.splitlines()[0][:120] if text else type(error).__name__
