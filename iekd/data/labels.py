"""A table that says which class each image is of: labels.csv, train.csv, annotations.txt, a one-hot matrix.

Which column holds the files is found by looking them up; paths may lack their folder or their ending. The column of
classes is known by its name, or is the only one that can be it. Nothing is guessed where two could be meant.
"""

from __future__ import annotations

import csv
import io
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath

from iekd.data.tree import LARGEST_TABLE, Node

CLASS_COLUMNS = (
    "label", "labels", "class", "classes", "class_name", "classname", "category", "target", "class_id", "classid", "y",
)  # fmt: skip
SPLIT_COLUMNS = ("split", "set", "subset", "partition", "fold", "phase")
LEAST_FOUND = 0.5  # share of rows whose file is there: a table of other files is no table of these
LOOKED_AT = 500  # rows by which the columns are told apart
DEEP = 3  # folders below the root in which tables are looked for


class TableError(Exception):
    """Why a table cannot be used, in a sentence."""


@dataclass(frozen=True)
class Labels:
    """What a table says.

    Args:
        table: its path. column: the title of the column with the classes.
        files: class -> paths of its images, relative to the root of the tree.
        splits: path -> what the table's column for training and testing says of it.
        notes: what was not used, in sentences.
    """

    table: str
    column: str
    files: dict[str, list[str]]
    splits: dict[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def natural_order(names: Sequence[str]) -> list[str]:
    """The names in the order of labels: by value where all are whole numbers (1, 2, 10), else as text."""
    numbers = all(re.fullmatch(r"-?\d+", name, re.ASCII) for name in names)
    return sorted(names, key=(lambda name: (int(name), name)) if numbers else None)  # type: ignore[arg-type]


def tables_of(
    tree: Node, node: Node, read: Callable[[str], bytes], classes: Sequence[str] | None = None
) -> Labels | None:
    """The labels of the images in a folder of a tree, from the tables in the tree; None if there are none.

    Args:
        node: the folder.
        classes: names that labels must be among; None if they may be any.
    Raises:
        TableError: there is a table of these images that cannot be used, or there are two that differ.
    """
    found, problem = [], None
    for holder in tree.walk():
        if holder.path.count("/") >= DEEP:
            continue
        for name in sorted(holder.tables):
            if "submission" in name.lower():  # an empty form for predictions
                continue
            path = f"{holder.path}/{name}".lstrip("/")
            try:
                labels = labels_of(path, read(path), tree, node, classes=classes)
            except TableError as error:
                problem = problem or error
                continue
            if labels is not None:
                found.append(labels)
    if not found:
        if problem:
            raise problem
        return None
    first = found[0]
    for other in found[1:]:
        mine = {path for paths in first.files.values() for path in paths}
        if any(path in mine for paths in other.files.values() for path in paths):
            raise TableError(
                f"Both '{first.table}' and '{other.table}' list them: say which to use, as csv:PATH of the table."
            )
        merged = {name: first.files.get(name, []) + other.files.get(name, []) for name in (*first.files, *other.files)}
        splits = {**first.splits, **other.splits}
        first = Labels(f"{first.table}, {other.table}", first.column, merged, splits, (*first.notes, *other.notes))
    return first


def labels_of(
    table: str, content: bytes, tree: Node, node: Node, column: str = "", classes: Sequence[str] | None = None
) -> Labels | None:
    """What one table says of the images in `node`; None if it does not list them.

    Args:
        column: title of the column with the classes, if it has been said.
    Raises:
        TableError: it lists them, and it is not clear by which column, or it is too large.
    """
    if len(content) > LARGEST_TABLE:
        raise TableError(f"'{table}' is larger than the {LARGEST_TABLE // 2**20} MB that are read of a table.")
    title, rows = _rows(content)
    if len(rows) < 2 or len(rows[0]) < 2:
        return None
    files = _Files(tree, node, table)
    columns = range(len(rows[0]))
    found = {i: sum(files.find(row[i]) is not None for row in rows[:LOOKED_AT]) for i in columns}
    of_files = max(found, key=found.__getitem__)
    if found[of_files] < max(2, LEAST_FOUND * len(rows[:LOOKED_AT])):
        return None
    paths = [files.find(row[of_files]) for row in rows]
    rest = [i for i in columns if i != of_files]
    of_split = next((i for i in rest if title[i].strip().lower() in SPLIT_COLUMNS), None)
    values, name = _classes(table, title, rows, [i for i in rest if i != of_split], column, classes)
    by_class: dict[str, list[str]] = defaultdict(list)
    splits: dict[str, str] = {}
    seen: dict[str, str] = {}
    for row, path, value in zip(rows, paths, values, strict=True):
        if path is None or not value:
            continue
        if path in seen:
            if seen[path] != value:
                raise TableError(
                    f"'{table}' lists '{path}' twice, as '{seen[path]}' and as '{value}'. Keep one of the two."
                )
            continue
        seen[path] = value
        by_class[value].append(path)
        if of_split is not None:
            splits[path] = row[of_split].strip()
    if classes is None and len(by_class) < 2:
        raise TableError(f"'{table}' lists them, and its column '{name}' has only one class.")
    missing = [row[of_files] for row, path in zip(rows, paths, strict=True) if path is None]
    notes = []
    if missing:
        notes.append(f"{len(missing):,} rows of '{table}' name files that are not there, such as '{missing[0]}'.")
    unlisted = node.count() - len(seen)
    if unlisted > 0:
        notes.append(f"{unlisted:,} images that '{table}' does not list are unlabelled and not used.")
    return Labels(table, name, {k: sorted(v) for k, v in by_class.items()}, splits, tuple(notes))


def _rows(content: bytes) -> tuple[list[str], list[list[str]]]:
    """(titles of the columns, rows of equal length); titles are empty if the first line is a row like the others."""
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError:
        import chardet

        text = content.decode(chardet.detect(content)["encoding"] or "latin-1", errors="replace")
    lines = [line for line in text.splitlines()[:50] if line.strip()]
    if not lines:
        return [], []

    def regular(mark: str) -> tuple[bool, int]:
        """Whether every line has the mark, and in how many lines it stands equally often."""
        (count, often), *_ = Counter(line.count(mark) for line in lines).most_common(1)
        return all(mark in line for line in lines), often if count else 0

    delimiter = max((",", ";", "\t", "|", " "), key=regular)
    if not any(delimiter in line for line in lines):
        return [], []
    rows = [row for row in csv.reader(io.StringIO(text), delimiter=delimiter, skipinitialspace=True) if any(row)]
    width = max(map(len, rows), default=0)
    rows = [row + [""] * (width - len(row)) for row in rows]
    # titles name columns, and occur nowhere else in them
    has_titles = len(rows) > 1 and all(rows[0][i] not in {row[i] for row in rows[1:LOOKED_AT]} for i in range(width))
    has_titles = has_titles and not any(_is_number(cell) or "/" in cell for cell in rows[0])
    return (rows[0], rows[1:]) if has_titles else ([""] * width, rows)


def _classes(
    table: str, title: list[str], rows: list[list[str]], columns: list[int], asked: str, classes: Sequence[str] | None
) -> tuple[list[str], str]:
    """(the class of each row, title of the column it was found in)."""
    titles = {title[i].strip().lower(): i for i in columns}
    if asked:
        if asked.strip().lower() not in titles:
            there = ", ".join(title[i] for i in columns)
            raise TableError(f"'{table}' has no column '{asked}'. Choose one of: {there}.")
        chosen = titles[asked.strip().lower()]
        return [row[chosen].strip() for row in rows], title[chosen]
    if classes is not None:
        known = set(classes)
        fitting = [i for i in columns if all(row[i].strip() in known for row in rows)]
        if len(fitting) != 1:
            raise TableError(f"'{table}' has no column with the classes of the training images.")
        return [row[fitting[0]].strip() for row in rows], title[fitting[0]] or str(fitting[0] + 1)
    candidates = [titles[name] for name in CLASS_COLUMNS if name in titles]
    if not candidates:
        if (one_hot := _one_hot(title, rows, columns)) is not None:
            return one_hot, "one column per class"
        candidates = [i for i in columns if 2 <= len({row[i] for row in rows}) <= max(2, len(rows) // 2)]
    if not candidates:
        raise TableError(
            f"'{table}' lists them, but no column of it can be their class ({', '.join(title[i] for i in columns)})."
        )
    if len(candidates) > 1 and title[candidates[0]].strip().lower() not in CLASS_COLUMNS:
        raise TableError(
            f"'{table}' lists them, and several columns could be their class: "
            f"{', '.join(title[i] or str(i + 1) for i in candidates)}. Say which, as csv:PATH?label=COLUMN."
        )
    chosen = candidates[0]
    return [row[chosen].strip() for row in rows], title[chosen] or f"number {chosen + 1}"


def _one_hot(title: list[str], rows: list[list[str]], columns: list[int]) -> list[str] | None:
    """The title of the column that has the only 1 of each row, if all columns are such."""
    if len(columns) < 2 or not all(title[i] for i in columns):
        return None
    found = []
    for row in rows:
        ones = [i for i in columns if row[i] in ("1", "1.0")]
        if len(ones) != 1 or any(row[i] not in ("0", "0.0", "1", "1.0") for i in columns):
            return None
        found.append(title[ones[0]].strip())
    return found


class _Files:
    """Finds an image of a folder by what a table calls it: with or without its folder, its ending, or both."""

    def __init__(self, tree: Node, node: Node, table: str) -> None:
        start = f"{node.path}/" if node.path else ""
        self.paths = {start + path for path in node.files()}
        self.beside = f"{PurePosixPath(table).parent}/" if "/" in table else ""
        self.by_end: dict[str, list[str]] = defaultdict(list)
        for path in self.paths:
            whole = PurePosixPath(path)
            self.by_end[whole.name].append(path)
            if whole.stem != whole.name:
                self.by_end[whole.stem].append(path)
        self.preferred = "test" if re.search(r"test|val", PurePosixPath(table).name.lower()) else "train"

    def find(self, given: str) -> str | None:
        """The path that is meant; None if there is no such file, or several could be meant."""
        name = given.strip().replace("\\", "/").removeprefix("./")
        if not name:
            return None
        for whole in (self.beside + name, name):
            if whole in self.paths:
                return whole
        found = self.by_end.get(name.rpartition("/")[2], [])
        if "/" in name and len(found) > 1:
            found = [
                path for path in found if f"/{path}".endswith((f"/{name}", f"/{name}{PurePosixPath(path).suffix}"))
            ]
        if len(found) > 1:
            found = [path for path in found if self.preferred in path.rpartition("/")[0].lower()]
        return found[0] if len(found) == 1 else None


def _is_number(text: str) -> bool:
    return bool(re.fullmatch(r"\s*-?\d+(\.\d+)?\s*", text))
