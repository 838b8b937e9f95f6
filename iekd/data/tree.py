"""The files below a folder, or in an archive, as one tree of names: what layout.py decides by. Reads no image.

Which files are images is decided here, for folders and archives alike: by their ending, and those without one by their
first bytes. Hidden folders and files, and what systems put beside images (Thumbs.db), are ignored.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Optional

from iekd.data.decoding import head_is_image, no_image, suffixes
from iekd.data.folder_names import named
from iekd.errors import DataError
from iekd.plural import counted

DEEPEST = 32  # folders
MOST_FILES = 5_000_000
TABLES = (".csv", ".tsv", ".txt")
ARCHIVE_ENDINGS = (".zip", ".tar", ".gz", ".tgz", ".bz2", ".tbz2", ".xz", ".7z", ".rar")
PACKERS = (  # how archives begin that are not read
    (b"Rar!", "RAR"), (b"7z\xbc\xaf", "7-Zip"), (b"\xfd7zXZ", "xz"), (b"\x28\xb5\x2f\xfd", "Zstandard"),
)  # fmt: skip
IGNORED = (  # what systems and storage boxes put beside the user's files
    "thumbs.db", "ehthumbs.db", "desktop.ini", "__macosx", "icon\r", "$recycle.bin", "system volume information",
    "lost+found", "@eadir", "#recycle", "__pycache__",
)  # fmt: skip
MARKS = (":zone.identifier", ":encryptable")  # what Windows notes of a file, once it was copied to Linux
LONGEST_ENDING = 16  # letters, as in .tfrecords
HEAD = 32  # bytes
LARGEST_TABLE = 64 * 2**20

Reader = Callable[[], bytes]  # a file's first bytes


@dataclass(eq=False)
class Node:
    """A folder: its sub-folders, and the names of the files that lie in it.

    Attributes:
        path: relative to the root, with slashes; "" for the root.
        images: names of the image files, sorted once the tree is complete.
        tables: names of text files that may list labels.
        archives: names of archives.
        others: how many other files there are, by ending.
    """

    path: str = ""
    folders: dict[str, Node] = field(default_factory=dict)
    images: list[str] = field(default_factory=list)
    tables: list[str] = field(default_factory=list)
    archives: list[str] = field(default_factory=list)
    others: Counter[str] = field(default_factory=Counter)
    _count: Optional[int] = None

    @property
    def name(self) -> str:
        return self.path.rpartition("/")[2]

    def below(self, name: str) -> Node:
        """The sub-folder of that name; it is added if it is not there."""
        if name not in self.folders:
            self.folders[name] = Node(f"{self.path}/{name}" if self.path else name)
        return self.folders[name]

    def add(self, name: str, head: Reader) -> str:
        """Add a file; returns its kind (see `kind_of`). `head` is asked only if the name does not tell."""
        kind = kind_of(name, head)
        if kind == "image":
            self.images.append(name)
        elif kind == "table":
            self.tables.append(name)
        elif kind == "archive":
            self.archives.append(name)
        elif kind:
            self.others[kind] += 1
        return kind

    def walk(self) -> Iterator[Node]:
        """This folder and all below it, in the order of their names."""
        yield self
        for name in sorted(self.folders):
            yield from self.folders[name].walk()

    def count(self) -> int:
        """How many images lie in this folder and below it."""
        if self._count is None:
            self._count = len(self.images) + sum(inner.count() for inner in self.folders.values())
        return self._count

    def with_images(self) -> list[Node]:
        """The sub-folders that have images in them, however deep, by name."""
        return [self.folders[name] for name in sorted(self.folders) if self.folders[name].count()]

    def files(self) -> list[str]:
        """The paths of all images in this folder and below it, relative to it, in order."""
        start = len(self.path) + 1 if self.path else 0
        return [f"{node.path}/{name}"[start:] if node.path else name for node in self.walk() for name in node.images]


def is_hidden(name: str) -> bool:
    """Whether a file or folder is none of the user's images, by its name alone."""
    return name.startswith((".", "~$")) or name.lower() in IGNORED or name.lower().endswith(MARKS)


def kind_of(name: str, head: Reader) -> str:
    """ "image", "table", "archive", or the ending of any other file; "" for what is ignored."""
    if is_hidden(name):
        return ""
    ending = PurePosixPath(name).suffix.lower()
    if ending in suffixes():
        return "image"
    if ending in TABLES:
        return "table"
    if ending in ARCHIVE_ENDINGS:
        return "archive"
    if not ending.isascii() or not 1 < len(ending) <= 8 or ending[1:].isdigit():  # "photo", "IMG.0012": no ending
        if head_is_image(head()):
            return "image"
        return ending if ending[1:].isalpha() and len(ending) <= LONGEST_ENDING else "without an ending"
    return ending


def other_ending(name: str, kind: str) -> str:
    """What a file that is no image is counted as, in any place where tables and archives are not read: its ending."""
    return PurePosixPath(name).suffix.lower() if kind in ("table", "archive") else kind


def read_tree(root: Path) -> tuple[Node, tuple[tuple[str, int], ...]]:
    """(the tree of a folder, each of its folders with the time when it was last changed).

    Links to folders are followed, but not in a circle.

    Raises:
        DataError: a folder cannot be read, or there are more files than any dataset has.
    """
    node, changed, files = Node(), [], 0

    def visit(node: Node, folder: str, around: tuple[tuple[int, int], ...]) -> None:
        nonlocal files
        try:
            about = os.stat(folder)
            entries = list(os.scandir(folder))
        except OSError as error:
            raise DataError(f"The folder '{folder}' cannot be read: {error.strerror}.") from None
        changed.append((folder, about.st_mtime_ns))
        files += len(entries)
        if files > MOST_FILES:
            raise DataError(
                f"'{root}' holds more than {MOST_FILES:,} files. Give the folder of the dataset, not one around it."
            )
        key = (about.st_dev, about.st_ino)
        for entry in entries:
            if is_hidden(entry.name):
                continue
            if entry.is_dir():
                if len(around) < DEEPEST and key not in around:
                    visit(node.below(entry.name), entry.path, (*around, key))
            elif entry.is_file() or entry.is_symlink():
                node.add(entry.name, lambda path=entry.path: first_bytes(path))  # type: ignore[misc]
            else:  # opening a pipe would wait for somebody who writes to it
                node.others["pipe, socket or device"] += 1
        node.images.sort()

    visit(node, str(root), ())
    return node, tuple(changed)


def first_bytes(path: str) -> bytes:
    """The first bytes of a file; none if it cannot be read."""
    try:
        with open(path, "rb") as file:
            return file.read(HEAD)
    except OSError:
        return b""


def other_archive(path: Path) -> str:
    """What a file that is called an archive is instead of one that can be read, and what to do, to follow its name;
    empty if that is not known."""
    head = first_bytes(str(path))
    packer = next((packer for mark, packer in PACKERS if head.startswith(mark)), "")
    return f"is an archive of {packer}. Unpack it, and pack it again as zip." if packer else no_image(head)


def left_out(tree: Node) -> list[str]:
    """Which files are not used because of their kind, as sentences: by ending, and archives by name."""
    endings, archives = Counter[str](), []
    for node in tree.walk():
        endings.update(node.others)
        archives += [f"{node.path}/{name}".lstrip("/") for name in node.archives]
    notes = []
    if archives:
        notes.append(f"Archives inside are not looked into: {named(archives)}. Unpack them first.")
    if endings:
        counts = ", ".join(f"{count:,} {ending}" for ending, count in endings.most_common(8))
        more = sum(endings.values()) - sum(count for _, count in endings.most_common(8))
        hint = " For HEIC, install pillow-heif." if {".heic", ".heif"} & set(endings) else ""
        counts += f", {counted(more, 'other')}" if more else ""
        notes.append(f"Files that are not used: {counts}.{hint}")
    return notes
