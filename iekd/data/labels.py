"""A table that says which class each image is of: labels.csv, train.csv, annotations.txt, a one-hot matrix.

The column of classes is known by its name, or is the only one that can be it. Nothing is guessed where two could be
meant.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import PurePosixPath

from iekd.data.folder_names import named, split_in, split_of
from iekd.data.listings import Finder, Listing, TableError, listing_of, listings
from iekd.data.tables import Table
from iekd.data.tree import Node
from iekd.plural import counted

CLASS_COLUMNS = (
    "label", "labels", "class", "classes", "class_name", "classname", "category", "target", "class_id", "classid", "y",
)  # fmt: skip
SPLIT_COLUMNS = ("split", "set", "subset", "partition", "fold", "phase")
YES, NO = ("1", "1.0", "true", "yes"), ("0", "0.0", "-1", "-1.0", "false", "no")
ONE_HOT = "one column per class"


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
    found, problems = listings(tree, node, read)
    usable, unclear = _each(found, classes)
    if usable and unclear and classes is None:  # a small test.csv may be clear by the classes of train.csv
        more, unclear = _each([one for one, _ in unclear], [name for labels in usable for name in labels.files])
        usable += more
    problems += [error for _, error in unclear]
    if not usable:
        if problems:
            raise problems[0]
        return None
    labels = usable[0] if len(usable) == 1 else _merged(usable)
    if classes is None:
        labels = replace(_of_classes(labels), notes=(*labels.notes, *(f"Not used: {error}" for error in problems)))
    return _with_unlisted(labels, node)


def _each(found: list[Listing], classes: Sequence[str] | None) -> tuple[list[Labels], list[tuple[Listing, TableError]]]:
    """(what each table says, the tables of which it is not clear, and why)."""
    usable, unclear = [], []
    for listing in found:
        try:
            usable.append(_labels(listing, classes=classes))
        except TableError as error:
            unclear.append((listing, error))
    return usable, unclear


def labels_of(table: str, content: bytes, node: Node, column: str = "") -> Labels | None:
    """What one table says of the images in `node`; None if it does not list them.

    Args:
        column: title of the column with the classes, if it has been said.
    Raises:
        TableError: it lists them, and it is not clear by which column, or it is too large.
    """
    listing = listing_of(table, content, Finder(node))
    if listing is None:
        return None
    return _with_unlisted(_of_classes(_labels(listing, column)), node)


def check_folders(tree: Node, node: Node, read: Callable[[str], bytes], class_of: Mapping[str, str]) -> list[str]:
    """Whether tables agree that folders are the classes. Returns what to say of those that are about something else.

    Args:
        class_of: path -> the folder that is taken for its class.
    Raises:
        TableError: a column of classes differs from the folders.
    """
    notes = []
    found, _ = listings(tree, node, read, (".csv", ".tsv"))
    for listing in found:
        rows = [i for i, path in enumerate(listing.paths) if path in class_of]
        if 2 * len({listing.paths[i] for i in rows}) < len(class_of):
            continue
        folders = [class_of[listing.paths[i]] for i in rows]  # type: ignore[index]
        columns = map(listing.table.values, listing.others)
        if any(_one_to_one(folders, [values[i] for i in rows]) for values in columns):
            continue
        named_so = any(listing.table.titles[i].strip().lower() in CLASS_COLUMNS for i in listing.others)
        try:
            labels = _labels(listing)
        except TableError:
            if named_so:
                raise
        else:
            if named_so or labels.column == ONE_HOT:
                raise TableError(
                    f"'{listing.name}' gives these images other classes, {named(list(labels.files))} (column "
                    f"'{labels.column}')."
                )
        notes.append(f"'{listing.name}' lists the images too, and is not used: the folders are the classes.")
    return notes


def _merged(tables: list[Labels]) -> Labels:
    """What several tables say of different images; their names may say which are to train and to test on."""
    first, name_of, files = tables[0], dict[str, str](), defaultdict[str, list[str]](list)
    splits: dict[str, str] = {}
    for labels in tables:
        split, _ = split_in(PurePosixPath(labels.table).stem)
        for name, paths in labels.files.items():
            for path in paths:
                if (other := name_of.setdefault(path, labels.table)) != labels.table:
                    raise TableError(
                        f"Both '{other}' and '{labels.table}' list them: say which to use, as csv:FILE of the table."
                    )
                if split is not None:
                    splits[path] = split
            files[name] += paths
        splits.update(labels.splits)
    notes = tuple(note for labels in tables for note in labels.notes)
    return Labels(", ".join(labels.table for labels in tables), first.column, dict(files), splits, notes)


def _of_classes(labels: Labels) -> Labels:
    if len(labels.files) < 2:
        raise TableError(f"'{labels.table}' lists them, and its column '{labels.column}' has only one class.")
    return labels


def _with_unlisted(labels: Labels, node: Node) -> Labels:
    start = f"{node.path}/" if node.path else ""
    unlisted = node.count() - sum(path.startswith(start) for paths in labels.files.values() for path in paths)
    if not unlisted:
        return labels
    note = f"Not used: {counted(unlisted, 'image')} without a class in '{labels.table}'."
    return replace(labels, notes=(*labels.notes, note))


def _labels(listing: Listing, column: str = "", classes: Sequence[str] | None = None) -> Labels:
    """The class of each image that a table lists.

    Raises:
        TableError: it is not clear which column has the classes, or it contradicts itself.
    """
    table, name = listing.table, listing.name
    of_split, split_values, notes = _split_column(table, listing.others)
    others = [i for i in listing.others if table.titles[i].strip().lower() not in SPLIT_COLUMNS or column]
    values, title = _classes(listing, [i for i in others if i != of_split], column, classes)
    values = _tidied(values)
    files: dict[str, list[str]] = defaultdict(list)
    splits: dict[str, str] = {}
    seen: dict[str, str] = {}
    for i, (path, value) in enumerate(zip(listing.paths, values, strict=True)):
        if path is None or not value:
            continue
        if path not in seen:
            seen[path] = value
            files[value].append(path)
            if of_split is not None:
                splits[path] = split_values[i]
        elif seen[path] != value:
            raise TableError(f"'{name}' lists '{path}' twice, as '{seen[path]}' and as '{value}'. Keep one of the two.")
    missing = [row[listing.column] for row, path in zip(table.rows, listing.paths, strict=True) if path is None]
    if missing:
        notes.append(
            f"Not used: {counted(len(missing), 'row')} of '{name}' whose file is not there, such as '{missing[0]}'."
        )
    if several := next((value for value in files if _is_several(value, files)), None):
        notes.append(
            f"'{name}' gives some images several classes, such as '{several}': each such combination is taken as a "
            "class of its own."
        )
    if table.note:
        notes.append(table.note)
    return Labels(name, title, {k: sorted(v) for k, v in files.items()}, splits, tuple(notes))


def _tidied(values: list[str]) -> list[str]:
    """Classes as they were before pandas: whole numbers without '.0', and nothing for 'nan'."""
    values = ["" if value.lower() == "nan" else value for value in values]
    if all(re.fullmatch(r"(-?\d+(\.0+)?)?", value, re.ASCII) for value in values):
        return [value.partition(".")[0] for value in values]
    return values


def _is_several(value: str, known: Mapping[str, object]) -> bool:
    """Whether a class is a list of others, as in 'rust scab' or 'Edema|Mass'."""
    return any(len(parts) > 1 and all(p.strip() in known for p in parts) for parts in map(value.split, "|,; "))


def _split_column(table: Table, columns: list[int]) -> tuple[int | None, list[str], list[str]]:
    """(the column that says which images are to train and to test on, what it says of each row, what to tell of it)."""
    for i in columns:
        values, title = table.values(i), table.titles[i].strip().lower()
        splits = any(values) and all(not value or split_of(value) for value in values)
        if splits and (title in SPLIT_COLUMNS or len(set(values)) > 1):
            return i, values, []
        said = re.fullmatch(r"is_?([a-z]+?)(_ima?ge?)?", title)  # is_valid, is_train
        split = split_of(said[1]) if said else None
        if split and all(value.lower() in (*YES, *NO) for value in values):
            other = "test" if split == "train" else "train"
            return i, [split if value.lower() in YES else other for value in values], []
    unused = [i for i in columns if table.titles[i].strip().lower() in SPLIT_COLUMNS]
    return (
        None,
        [],
        [
            f"The column '{table.called(i)}' is not used: its values are no names such as train and test."
            for i in unused
        ],
    )


def _classes(listing: Listing, columns: list[int], asked: str, classes: Sequence[str] | None) -> tuple[list[str], str]:
    """(the class of each row, title of the column it was found in)."""
    table, name = listing.table, listing.name
    by_title = {table.titles[i].strip().lower(): i for i in columns}
    if asked:
        if asked.strip().lower() not in by_title:
            there = ", ".join(table.titles[i] for i in columns)
            raise TableError(f"'{name}' has no column '{asked}'. Choose one of: {there}.")
        chosen = by_title[asked.strip().lower()]
        return table.values(chosen), table.titles[chosen]
    if classes is not None:
        known = set(classes)
        fitting = [i for i in columns if set(_tidied(table.values(i))) - {""} <= known]
        if len(fitting) != 1:
            raise TableError(f"'{name}' has no column with the classes of the training images.")
        return table.values(fitting[0]), table.called(fitting[0])
    candidates = [by_title[title] for title in CLASS_COLUMNS if title in by_title]
    if not candidates:
        if (one_hot := _one_hot(listing, columns)) is not None:
            return one_hot, ONE_HOT
        most = len(table.rows) - 1 if len(columns) == 1 else max(2, len(table.rows) // 2)
        candidates = [i for i in columns if 2 <= len(set(table.values(i))) <= most]
    if not candidates:
        titles = ", ".join(table.called(i) for i in columns)
        raise TableError(f"'{name}' lists them, but in no column of it do a few classes occur again ({titles}).")
    chosen = candidates[0]
    if not all(_one_to_one(table.values(chosen), table.values(i)) for i in candidates[1:]):
        raise TableError(
            f"'{name}' lists them, and several columns could be their class: "
            f"{', '.join(map(table.called, candidates))}. Say which, as csv:FILE?label=COLUMN."
        )
    return table.values(chosen), table.called(chosen)


def _one_hot(listing: Listing, columns: list[int]) -> list[str] | None:
    """The title of the column that has the only 1 of each row, of all columns that hold nothing but 0 and 1; None if
    these are not one per class. Others may stand beside them, such as the patient's number."""
    table = listing.table
    marks = [i for i in columns if table.titles[i] and all(row[i].strip().lower() in (*YES, *NO) for row in table.rows)]
    if len(marks) < 2:
        return None
    found = []
    for row in table.rows:
        ones = [i for i in marks if row[i].strip().lower() in YES]
        if len(ones) == 1:
            found.append(table.called(ones[0]))
        elif len(marks) < len(columns):  # whatever they are, they are not one column per class
            return None
        else:
            said = f"of {counted(len(ones), 'class')}" if ones else "of no class"
            raise TableError(
                f"'{listing.name}' has a column per class, and '{row[listing.column]}' is {said} there. "
                "Each image needs exactly one."
            )
    return found


def _one_to_one(a: list[str], b: list[str]) -> bool:
    """Whether two columns say the same in other words."""
    return len(set(a)) == len(set(b)) == len(set(zip(a, b, strict=True)))
