"""Which images a table lists, and in which of its columns: found by looking its cells up among the files.

Paths may lack their folder or their ending, or be those of another machine. Nothing is guessed where two are possible.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import PurePosixPath

from iekd.data.decoding import suffixes
from iekd.data.tables import LOOKED_AT, Table, read_table
from iekd.data.tree import LARGEST_TABLE, Node

FILE_COLUMNS = (
    "file", "files", "filename", "file_name", "image", "images", "img", "image_id", "imageid", "image_name", "id",
    "id_code", "path", "paths", "filepath", "file_path", "image_path", "name", "photo", "picture",
)  # fmt: skip
LEAST_FOUND = 0.5  # share of rows whose file is there: a table of other files is no table of these
DEEP = 3  # folders below the root in which tables are looked for


class TableError(Exception):
    """Why a table cannot be used, in a sentence."""


@dataclass(frozen=True)
class Listing:
    """A table that lists images.

    Args:
        name: its path. column: the one that names files.
        paths: of each row, relative to the root of the tree; None if there is no such file.
    """

    name: str
    table: Table
    column: int
    paths: list[str | None]

    @property
    def others(self) -> list[int]:
        """Its other columns."""
        return [i for i in self.table.columns if i != self.column]


def listings(
    tree: Node, node: Node, read: Callable[[str], bytes], endings: tuple[str, ...] = ()
) -> tuple[list[Listing], list[TableError]]:
    """(the tables in a tree that list images of `node`, what is wrong with others that seem to).

    Args:
        endings: of the tables to look at; none: all.
    """
    found, problems = [], []
    files: Finder | None = None
    for holder in tree.walk():
        if holder.path.count("/") >= DEEP or not holder.tables:
            continue
        files = files or Finder(node)
        for name in sorted(holder.tables):
            if "submission" in name.lower():  # an empty form for predictions
                continue
            if PurePosixPath(name).stem.lower() in files.by_name:  # the boxes of one image, for detection
                continue
            path = f"{holder.path}/{name}".lstrip("/")
            if endings and not name.lower().endswith(endings):
                continue
            try:
                listing = listing_of(path, read(path), files)
            except TableError as error:
                problems.append(error)
            else:
                found += [] if listing is None else [listing]
    return found, problems


def listing_of(name: str, content: bytes, files: Finder) -> Listing | None:
    """Which column of a table lists images; None if there is none.

    Raises:
        TableError: two columns do, and name different ones; or it is too large.
    """
    if len(content) > LARGEST_TABLE:
        raise TableError(f"'{name}' is larger than the {LARGEST_TABLE // 2**20} MB that are read of a table.")
    table = read_table(name, content)
    if table is None:
        return None
    looked_at = table.rows[:LOOKED_AT]
    found = {i: [files.find(row[i], name) for row in looked_at] for i in table.columns}
    fitting = [
        i for i in table.columns
        if sum(path is not None for path in found[i]) >= max(2, LEAST_FOUND * len(looked_at))
    ]  # fmt: skip
    if not fitting:
        return None

    def by_look(i: int) -> tuple[bool, bool]:
        """Whether its cells look like files, and its title says so. Numbers may be anything."""
        with_ending = sum(PurePosixPath(row[i].strip()).suffix.lower() in suffixes() for row in looked_at)
        return 2 * with_ending > len(looked_at), table.titles[i].strip().lower() in FILE_COLUMNS

    def different(i: int) -> int:
        return len({path for path in found[i] if path is not None})

    first, *others = sorted(fitting, key=lambda i: (*by_look(i), different(i)), reverse=True)
    for other in others:
        if (
            by_look(other) == by_look(first)
            and 2 * different(other) > different(first)
            and found[other] != found[first]
        ):
            raise TableError(
                f"Both '{table.called(first)}' and '{table.called(other)}' of '{name}' could name the files, and "
                "mean different ones. Remove the one that does not."
            )
    return Listing(name, table, first, [files.find(row[first], name) for row in table.rows])


class Finder:
    """Finds an image of a folder by what a table calls it: with or without its folder, its ending, or both."""

    def __init__(self, node: Node) -> None:
        start = f"{node.path}/" if node.path else ""
        self.paths = {start + path for path in node.files()}
        self.by_name: dict[str, list[str]] = defaultdict(list)  # with and without ending, in small letters
        for path in sorted(self.paths):
            whole = PurePosixPath(path)
            for name in {whole.name.lower(), whole.stem.lower()}:
                self.by_name[name].append(path)

    def find(self, given: str, table: str) -> str | None:
        """The path that is meant; None if there is no such file, or several could be meant.

        table: the path of the table, beside which its files may lie.
        """
        name = given.strip().replace("\\", "/").removeprefix("./")
        if not name:
            return None
        beside = f"{PurePosixPath(table).parent}/" if "/" in table else ""
        for whole in (beside + name, name):
            if whole in self.paths:
                return whole
        last = PurePosixPath(name.rpartition("/")[2])
        found = self.by_name.get(last.name.lower(), [])
        if not found and last.suffix.lower() in suffixes():  # saved in another format since
            found = self.by_name.get(last.stem.lower(), [])
        found = [path for path in found if last.name in (PurePosixPath(path).name, PurePosixPath(path).stem)] or found
        if "/" in name and len(found) > 1:
            ends = [(f"/{name}", f"/{name}{PurePosixPath(path).suffix}") for path in found]
            found = [path for path, end in zip(found, ends, strict=True) if f"/{path}".endswith(end)]
        if len(found) > 1:
            preferred = "test" if re.search(r"test|val", PurePosixPath(table).name.lower()) else "train"
            found = [path for path in found if preferred in path.rpartition("/")[0].lower()]
        return found[0] if len(found) == 1 else None
