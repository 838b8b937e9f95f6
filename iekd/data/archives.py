"""Images in a zip or tar file -> a folder, as `folder:` reads it. Nothing that the archive says is trusted.

Only plain image files are taken, one after the other and under names of our own, into a folder beside the final one
that is renamed at the end: a refused archive leaves nothing. Whether the images can be read is found out by whoever
decodes them. How the entries are read is in archive_entries.py.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path

from iekd.data.archive_entries import DAMAGE, PIECE, Opened, Refused, entries_of, readable, reason
from iekd.data.layout import Layout, check_classes, test_folder, understand
from iekd.data.tree import LARGEST_TABLE, Node, is_hidden, kind_of, other_archive, other_ending
from iekd.errors import DataError
from iekd.paths import cache_dir, make_cache_dir

ZIP = ".zip"
TAR = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2")
ARCHIVES = (ZIP, *TAR)
MOST_ENTRIES = 300_000  # of any kind
LARGEST_IMAGE = 64 * 2**20  # bytes
MOST_RATIO, RATIO_FROM = 200, 256 * 2**20  # images hardly shrink; bytes from which the ratio is checked
LEAST_FREE = 2**29  # bytes of the disk that are left to the runs
CLASSES = "classes"
ABOUT = ".iekd.json"  # in the unpacked folder: which class is in which folder, and notes on what was not taken
LONGEST_NAME = 200  # bytes of a class's name that is used for its folder too
READER = 5  # raise it when the same archive would be unpacked differently
UNPACKED_NAME = re.compile(r"(?P<stem>[^.].*)-[0-9a-f]{12}")  # of a folder that `unpack` has made


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
    except Refused as error:
        raise DataError(
            f"'{archive.name}' is not taken: {error}. Pack one folder of images per class as zip."
        ) from None
    except DataError:  # its folders are not a dataset
        raise
    except DAMAGE as error:
        what = other_archive(archive) or f"is damaged or no archive ({reason(error)}). Pack it again."
        raise DataError(f"'{archive.name}' {what}") from None
    except OSError as error:
        if not folder.is_dir():  # else another process was quicker, and its folder is as good
            if error.errno is None:  # decompressors raise such errors for damaged input
                raise DataError(f"'{archive.name}' is damaged ({reason(error)}). Pack it again.") from None
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
        for entry in entries_of(archive, archive.parent, most, MOST_ENTRIES, True, notes):
            if entry.opened is None:
                continue
            name, content = readable("/".join((*entry.folders, entry.name))), Opened(entry.opened)
            kind = kind_of(entry.name, content.head)
            if kind != "image":
                if kind:
                    others[other_ending(name, kind)] += 1
                continue
            total += entry.size
            if total > most:
                raise Refused(f"it unpacks to more than {most / 2**20:,.0f} MB")
            yield name, partial(_image_bytes, name, entry.size, content)
    except Refused as error:
        raise DataError(f"'{archive.name}' is not taken: {error}. Pack the images alone as zip.") from None
    except DAMAGE as error:
        what = other_archive(archive) or f"is damaged or no archive ({reason(error)}). Pack it again."
        raise DataError(f"'{archive.name}' {what}") from None
    except OSError as error:
        raise DataError(f"'{archive.name}' cannot be read ({error.strerror or reason(error)}).") from None


def _image_bytes(name: str, size: int, content: Opened) -> bytes:
    if size > LARGEST_IMAGE:
        raise DataError(f"'{name}' has {size / 2**20:,.0f} MB, more than the {LARGEST_IMAGE // 2**20} that are read.")
    try:
        return content.rest()
    except (*DAMAGE, OSError) as error:
        raise DataError(f"'{name}' is damaged in its archive ({reason(error)}). Pack it again.") from None


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
    for entry in entries_of(archive, flat, most, room.entries, tar, notes):
        path, node = "/".join((*entry.folders, entry.name)), tree
        for folder in entry.folders:
            node = node.below(folder)
        if entry.opened is None:
            continue
        content = Opened(entry.opened)
        kind = "image" if path in files else node.add(entry.name, content.head)
        if kind == "table" and entry.size <= LARGEST_TABLE - sum(map(len, tables.values())):
            tables[path] = content.rest()
        if kind != "image":
            continue
        if count == room.images:
            raise Refused(f"it holds more than {room.images:,} images")
        if entry.size > LARGEST_IMAGE:
            raise Refused(f"an image in '{'/'.join(entry.folders)}' has {entry.size / 2**20:,.0f} MB")
        if shutil.disk_usage(part).free < LEAST_FREE + entry.size:
            raise Refused("the disk of this machine is nearly full")
        stem, suffix = Path(entry.name).stem, Path(entry.name).suffix.lower()
        files[path] = flat / f"{count:06d}-{_plain(stem)}{_plain_suffix(suffix)}"  # the last of several with one name
        count += 1
        written += entry.size
        if written > most:
            raise Refused(f"it unpacks to more than {most / 2**20:,.0f} MB")
        with open(files[path], "xb") as file:
            content.copy(file)
    for node in tree.walk():
        node.images.sort()
    layout = understand(tree, archive.name, lambda path: tables.get(path, b""), nested, packed=True)
    if len(layout.class_names) > room.classes:
        raise Refused(f"it has more than {room.classes:,} folders of classes")
    classes, folders = part / CLASSES, _folders(layout.class_names)
    tests = test_folder(layout)
    for split, of_split in (("train", layout.train), (tests, layout.test)):
        for name, paths in zip(folders, of_split or (), strict=False):
            target = classes / name if layout.test is None else classes / split / name
            target.mkdir(parents=True, exist_ok=True)
            for path in paths:
                files[path].rename(target / files[path].name)
    about = {
        "classes": dict(zip(folders, layout.class_names, strict=True)), "test": None if layout.test is None else tests,
        "tested_on": layout.tested_on, "notes": [*notes, *layout.notes],
    }  # fmt: skip
    (classes / ABOUT).write_text(json.dumps(about))
    return classes


def _folders(names: tuple[str, ...]) -> list[str]:
    """A folder for each class, called like it where a folder can be: a table may name a class 'dog/pug' or '../x'."""
    folders = []
    for k, name in enumerate(names):
        plain = not set(name) & {"/", "\0"} and not is_hidden(name) and len(name.encode()) <= LONGEST_NAME
        folder = name if plain else f"class {k}"
        while not plain and folder in names:
            folder += "'"
        folders.append(folder)
    return folders


def layout_of(unpacked: Path, tree: Node) -> Layout | None:
    """What an archive held that was unpacked here; None if none was, or by a version that noted less.

    tree: of that folder.
    Raises:
        DataError: images were taken away since.
    """
    about = _about(unpacked)
    if not (isinstance(about, dict) and UNPACKED_NAME.fullmatch(unpacked.name)):
        return None

    def of(node: Node | None) -> tuple[list[str], ...]:
        folders = [node.folders.get(folder) if node else None for folder in about["classes"]]
        return tuple([f"{f.path}/{name}" for name in f.files()] if f else [] for f in folders)

    names, notes, tested_on = tuple(about["classes"].values()), tuple(about["notes"]), about["tested_on"]
    train, test = of(tree), None
    if about["test"] is not None:
        train, test = of(tree.folders.get("train")), of(tree.folders.get(about["test"]))
    layout = Layout(names, train, test, tested_on, notes)
    check_classes(layout, str(unpacked), [])
    return layout


def notes_of(unpacked: Path) -> tuple[str, ...] | None:
    """What an earlier version, which noted no more, said of an archive that it unpacked here; None if it did not."""
    notes = _about(unpacked)
    return tuple(map(str, notes)) if isinstance(notes, list) else None


def _about(unpacked: Path) -> object:
    with contextlib.suppress(OSError, ValueError):
        return json.loads((unpacked / ABOUT).read_text())
    return None


def _plain_suffix(suffix: str) -> str:
    return suffix if suffix.isascii() and suffix[1:].isalnum() and len(suffix) <= 8 else ""


def _plain(text: str) -> str:
    """The letters of a name that every system can write; by it an image that cannot be read is found again."""
    return re.sub(r"[^A-Za-z0-9_.-]+", "-", text).strip(".-")[:60] or "picture"
