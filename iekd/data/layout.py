"""How images lie in a tree of folders: which folders are the classes, and what is for training and for testing.

Folders on disk and archives are decided by the same code, from names alone. Two layouts: `train/<class>/*` with
`test/<class>/*` (or other usual names of the two, see `split_of`), or plain `<class>/*`, which is split by a fraction
and a seed. Images in folders below a class belong to that class. A folder around all others is looked into. What could
be understood in two ways is refused with a question: a dataset of the wrong classes trains as well as any other.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import PurePosixPath

from iekd.data.folder_names import (
    PARTS_OF_IMAGES,
    TEST_NAMES,
    named,
    split_in,
    split_of,
    without_trifles,
)
from iekd.data.folder_shapes import (
    are_alike,
    are_parts,
    innermost,
    is_flat,
    is_split_inside,
    single,
    split_in_names,
    splits_among,
    without_masks,
)
from iekd.data.labels import Labels, check_folders, natural_order, tables_of
from iekd.data.listings import TableError
from iekd.data.refusals import INNER, OUTER, Refusals, UnclearClassesError
from iekd.data.tree import Node, left_out
from iekd.errors import BIDI, DataError
from iekd.plural import counted

ReadFile = Callable[[str], bytes]  # the content of a file, by its path below the root


@dataclass(frozen=True)
class Layout:
    """What a tree of folders holds.

    Args:
        class_names: in the order of their labels.
        train: for each class the paths of its images, relative to the root.
        test: the same, or None if they have to be drawn from `train`.
        tested_on: the folder that takes the place of test/, such as "val"; empty if there is a test/.
        notes: what the user may not expect, in sentences.
    """

    class_names: tuple[str, ...]
    train: tuple[list[str], ...]
    test: tuple[list[str], ...] | None = None
    tested_on: str = ""
    notes: tuple[str, ...] = ()


def understand(tree: Node, shown: str, read: ReadFile, nested: str = "", packed: bool = False) -> Layout:
    """Decide what the folders of a tree mean.

    Args:
        tree: of all files.
        shown: what to call its root in messages.
        read: gives the content of a table of labels.
        nested: OUTER or INNER, the answer to the question which folders are the classes.
        packed: whether the tree is that of an archive, for messages.
    Raises:
        DataError: there are no images, only one class, classes to test that are not learned; or it is not clear which
            folders are the classes.
    """
    taken = without_masks(tree)
    found = _Folders(tree, shown, read, nested, packed).layout()
    _check_names(found, shown)
    unused = [*taken, *_alike(found, shown), *left_out(tree)]
    check_classes(found, shown, [*unused, *filter(None, [Refusals(tree, shown, packed).labels_elsewhere()])])
    return replace(found, notes=(*found.notes, *unused))


def test_folder(layout: Layout) -> str:
    """The usual name of the folder with the test images."""
    splits = [split for part in PurePosixPath(layout.tested_on).parts if (split := split_in(part)[0])]
    return splits[0] if splits else "test"


class _Folders:
    """One tree while it is being understood."""

    def __init__(self, tree: Node, shown: str, read: ReadFile, nested: str, packed: bool) -> None:
        self.tree, self.read, self.nested = tree, read, nested
        self.say = Refusals(tree, shown, packed)
        self.notes: list[str] = []

    def layout(self) -> Layout:
        root = innermost(self.tree)
        if not root.count():
            raise DataError(f"No images found in {self.say.at(root)}. {self.say.what_instead()}")
        unlabelled = [node for node in root.with_images() if split_of(node.name) and is_flat(node)]
        rest = [node for node in root.with_images() if node not in unlabelled]
        if unlabelled and len(rest) == 1 and len(innermost(rest[0]).with_images()) > 1 and not split_of(rest[0].name):
            for node in unlabelled:  # beside one folder with all the classes
                self._unlabelled(node)
            root = innermost(rest[0])
        folders = root.with_images()
        splits = splits_among(folders, self.nested != OUTER)
        others = [node for node in folders if node not in splits]
        flat = [node for node in splits if is_flat(node)]
        both = len(set(splits.values())) > 1  # else a folder 'train' may be a class of vehicles
        no_classes = splits and len(flat) == len(splits) and (not others or (both and len(others) < 2))
        if no_classes or (root.images and len(folders) < 2):
            return self._by_table(root)
        if self.nested != OUTER and are_parts(others or folders) and not splits:
            return self._by_table(root, folders)
        if self.nested != OUTER and split_in_names(folders):
            raise self.say.split_in_names(root)
        if is_split_inside(root):
            return self._split_inside(root)
        # a folder 'train' beside others may be a class of vehicles, but not where a table says what its images are
        all_flat = bool(flat) and len(flat) == len(splits)
        if (len(folders) == 1 or all_flat) and (labels := self._labels_of(root, may_fail=len(folders) > 1)):
            return self._from_table(labels)
        by_split: dict[str, Node] = {}
        for node, split in splits.items():
            if split in by_split and node not in flat:
                self._skip(node, f"'{by_split[split].name}' is used")
            elif node not in flat:
                by_split[split] = node
        train = by_split.get("train")
        tests = [by_split[name] for name in TEST_NAMES if name in by_split]
        if train is None and tests:
            raise DataError(
                f"{self.say.at(root)} has a folder '{tests[0].name}' but no 'train'. Add 'train/<class>/' with images."
            )
        if train is not None and not tests and not flat and sum(bool(node.images) for node in others) > 1:
            self._skip(train, "it holds folders, and the others hold images")
            others, train = [node for node in others if node is not train], None
        if train is None:
            has_train = "train" in splits.values()
            unlabelled = [] if has_train or len(others) < 2 else flat
            found = self._one_part(root, [n for n in (*others, *flat) if n not in unlabelled], unlabelled)
        else:
            found = self._two_parts(train, tests, flat, others)
        return self._compared_with_tables(root, found)

    def _lists_of_test_images(self, found: Layout) -> list[str]:
        """Of lists such as meta/test.txt beside the classes, which are not followed."""
        if found.test is not None:
            return []
        lists = [
            f"{node.path}/{table}".lstrip("/") for node in self.tree.walk() for table in node.tables
            if split_in(PurePosixPath(table).stem)[0] in TEST_NAMES or "split" in table.lower()
        ]  # fmt: skip
        if not lists:
            return []
        return [
            f"Test images are drawn by chance. {named(lists)} may list those that others test on, and is not followed: "
            "use folders train/ and test/, or a table with a column of train and test."
        ]

    def _compared_with_tables(self, root: Node, found: Layout) -> Layout:
        """What the folders say, if no table says otherwise; the user can insist on the folders."""
        found = replace(found, notes=(*found.notes, *self._lists_of_test_images(found)))
        if self.nested or not any(node.tables for node in self.tree.walk()):
            return found
        parts = [found.train, *([found.test] if found.test is not None else [])]
        class_of = {
            path: name for part in parts for name, paths in zip(found.class_names, part, strict=True) for path in paths
        }
        try:
            notes = check_folders(self.tree, root, self.read, class_of)
        except TableError as error:
            raise UnclearClassesError(
                f"{self.say.at(root)} has the folders {named(found.class_names)}, which may be the classes. {error}",
                {OUTER: f"the folders: {named(found.class_names)}"},
                f"To use the table, give csv:FILE of it; to use the folders, add '?classes={OUTER}' to the dataset's "
                "name.",
            ) from None
        return replace(found, notes=(*found.notes, *notes))

    def _one_part(self, root: Node, children: list[Node], unlabelled: list[Node]) -> Layout:
        if all(node.name.lower() in PARTS_OF_IMAGES for node in children):
            raise DataError(f"{self.say.no_classes(root)} {self.say.hint(root)}")
        classes = self._classes(root, children)
        for node in unlabelled:
            self._unlabelled(node)
        self._strays(root)
        return Layout(tuple(classes), tuple(classes.values()), notes=tuple(self.notes))

    def _split_inside(self, root: Node) -> Layout:
        """Folders for training and testing within each class: cat/train/*, cat/test/*."""
        classes = {name: root.folders[name] for name in natural_order([node.name for node in root.with_images()])}
        there = {split_of(inner.name) for node in classes.values() for inner in node.with_images()}
        tested_on = next((name for name in TEST_NAMES if name in there), None)

        def of(wanted: str | None) -> tuple[list[str], ...]:
            return tuple(
                [f"{i.path}/{file}" for i in node.with_images() if split_of(i.name) == wanted for file in i.files()]
                for node in classes.values()
            )

        for other in sorted(filter(None, there - {"train", tested_on})):
            self.notes.append(f"The folders '{other}' of the classes are not used.")
        self._strays(root)
        test = None if tested_on is None else of(tested_on)
        return Layout(
            tuple(classes), of("train"), test, "" if tested_on in (None, "test") else str(tested_on), tuple(self.notes)
        )

    def _two_parts(self, train: Node, tests: list[Node], flat: list[Node], others: list[Node]) -> Layout:
        inside = innermost(train, "train")
        learned = self._classes(inside, inside.with_images())
        self._strays(inside)
        names, test, tested_on = tuple(learned), None, ""
        for node in tests:
            if test is not None:
                self._skip(node, f"'{tested_on}' is tested on")
                continue
            folder = innermost(node, split_of(node.name), set(names))
            tested = self._classes(folder, folder.with_images(), set(names))
            self._strays(folder)
            extra = [name for name in tested if name not in learned]
            if extra:
                raise DataError(self.say.extra_class(extra[0], node, inside, names))
            test, tested_on = tuple(tested.get(name, []) for name in names), node.path
            if absent := [name for name in names if name not in tested]:
                self.notes.append(
                    f"No test images of the {'class' if len(absent) == 1 else 'classes'} {named(absent)}."
                )
        for node in flat:
            table = self._labels_of(node, names)
            if table is not None and test is None:
                test, tested_on = tuple(table.files.get(name, []) for name in names), node.path
                self.notes.append(f"The labels of '{node.path}' come from '{table.table}'.")
            else:
                self._unlabelled(node)
        for node in others:
            self._skip(node, "it is beside the folders for training and testing")
        is_test = test is None or "test" in {split_in(part)[0] for part in PurePosixPath(tested_on).parts}
        return Layout(names, tuple(learned.values()), test, "" if is_test else tested_on, tuple(self.notes))

    def _classes(self, root: Node, children: list[Node], known: set[str] = frozenset()) -> dict[str, list[str]]:  # type: ignore[assignment]
        """Class -> paths of its images, of the folders in `root` that are classes, in the order of labels.

        known: names that are classes for certain.
        """
        empty = [name for name in sorted(root.folders) if not root.folders[name].count() and name not in known]
        if empty:
            self.notes.append(f"No images that can be read lie in {named(empty)}: not used as a class.")
        collapsed = {node: single(node) for node in children}
        direct = [node for node in children if collapsed[node].images or not collapsed[node].with_images()]
        deep = [node for node in children if node not in direct]
        if deep and self.nested == INNER:
            return self._inner(direct, deep, collapsed)
        unclear = deep and (not direct or are_alike(deep)) and not {node.name for node in deep} <= known
        if unclear and self.nested != OUTER:
            raise self.say.question(root, deep, collapsed)
        names = {node.name for node in direct} | known
        for node in list(deep) if self.nested != OUTER else ():
            inner = [inner.name for inner in collapsed[node].with_images()]
            if node.name not in known and set(inner) <= names:
                self._skip(node, f"it holds the folders {named(inner)} again")
                deep.remove(node)
            elif not known:
                self.notes.append(
                    f"'{node.path}' is taken as one class, with the images of its folders {named(inner)}."
                )
        ordered = natural_order([node.name for node in (*direct, *deep)])
        by_name = {node.name: node for node in (*direct, *deep)}
        return {name: [f"{by_name[name].path}/{file}" for file in by_name[name].files()] for name in ordered}

    def _inner(self, direct: list[Node], deep: list[Node], collapsed: dict[Node, Node]) -> dict[str, list[str]]:
        found: dict[str, list[str]] = {}
        for node in [*direct, *(inner for outer in deep for inner in collapsed[outer].with_images())]:
            found.setdefault(node.name, []).extend(f"{node.path}/{file}" for file in node.files())
        return {name: found[name] for name in natural_order(list(found))}

    def _by_table(self, root: Node, perhaps: list[Node] | None = None) -> Layout:
        """No folder is a class: the labels are in a table, or nowhere that is known.

        perhaps: folders that may be the classes all the same.
        """
        why = ""
        try:
            if (found := tables_of(self.tree, root, self.read)) is not None:
                return self._from_table(found)
        except TableError as error:
            why = str(error)
        said = f"{self.say.no_classes(root)} {why or self.say.hint(root)}"
        raise self.say.insist(said, perhaps) if perhaps else DataError(said)

    def _from_table(self, found: Labels) -> Layout:
        self.notes.append(f"The labels come from '{found.table}' (column '{found.column}').")
        return from_labels(found, tuple(self.notes))

    def _labels_of(self, node: Node, names: tuple[str, ...] | None = None, may_fail: bool = True) -> Labels | None:
        """Labels of the images in a folder without class folders, if a table has them, with these classes."""
        try:
            return tables_of(self.tree, node, self.read, names)
        except TableError as error:
            if not may_fail:
                raise DataError(f"{self.say.no_classes(node)} {error}") from None
            return None

    def _unlabelled(self, node: Node) -> None:
        self.notes.append(
            f"'{node.path}' ({counted(node.count(), 'image')}) has no class folders: its images are unlabelled and "
            "not used."
        )

    def _strays(self, node: Node) -> None:
        if node.images:
            count = counted(len(node.images), "image")
            self.notes.append(f"Not used: {count} in {self.say.at(node)}, outside of the class folders.")

    def _skip(self, node: Node, why: str) -> None:
        self.notes.append(f"'{node.path}' ({counted(node.count(), 'image')}) is not used: {why}.")


def from_labels(labels: Labels, notes: tuple[str, ...] = ()) -> Layout:
    """The layout that a table describes; its folders or its column say what is for training and for testing."""

    def split(path: str) -> str | None:
        given = labels.splits.get(path)
        return split_of(given if given is not None else path.partition("/")[0] if "/" in path else "")

    names = tuple(natural_order(list(labels.files)))
    parts: dict[str, tuple[list[str], ...]] = {}
    for k, name in enumerate(names):
        for path in labels.files[name]:
            part = split(path) or "train"
            parts.setdefault(part, tuple([] for _ in names))[k].append(path)
    test = next((part for part in TEST_NAMES if part in parts), None)
    train = parts.get("train") or parts[test]  # type: ignore[index]  # something is there
    if test is None or "train" not in parts:
        return Layout(names, train, None, "", (*notes, *labels.notes))
    unused = [
        f"Not used: {counted(sum(map(len, parts[p])), 'image')} of '{p}'." for p in parts if p not in ("train", test)
    ]
    return Layout(names, train, parts[test], "" if test == "test" else test, (*notes, *labels.notes, *unused))


def _check_names(found: Layout, shown: str) -> None:
    """Raises DataError for a class whose name would be shown as another one, or breaks the line that it is shown in."""
    for name in found.class_names:
        if hidden := next((c for c in name if unicodedata.category(c) in ("Cc", "Zl", "Zp") or c in BIDI), None):
            plain = "".join(c if c.isprintable() else ascii(c)[1:-1] for c in name)
            raise DataError(
                f"The name of class '{plain}' in '{shown}' has the character U+{ord(hidden):04X}, which cannot be seen "
                "or makes it look like another name. Rename the class."
            )


def check_classes(found: Layout, shown: str, unused: list[str]) -> None:
    """Raises DataError if these classes cannot be trained. unused: what else to say if there is only one."""
    if len(found.class_names) == 1:
        only = f"'{shown}' has only one class, '{found.class_names[0]}'. Training needs at least two sub-folders."
        raise DataError(" ".join((only, *found.notes, *unused)))
    for name, images in zip(found.class_names, found.train, strict=True):
        if not images:
            raise DataError(f"Class '{name}' in '{shown}' has no training image. Add some, or remove it.")
        if found.test is None and len(images) < 2:
            raise DataError(f"Class '{name}' in '{shown}' has only one image. It needs at least two: one to test with.")


def _alike(found: Layout, shown: str) -> list[str]:
    """What to say of classes whose names differ in capitals only.

    Raises:
        DataError: names of two classes look the same.
    """
    by_look, by_letters = dict[str, str](), dict[str, str]()
    notes = []
    for name in found.class_names:
        look = without_trifles(name, capitals=True)
        if other := by_look.get(look):
            raise DataError(
                f"Two classes in '{shown}' look the same, '{other}' and '{name}': the names differ in spaces, in "
                "characters that cannot be seen or in the way of writing an accent. Rename one, or move its images "
                "into the other."
            )
        by_look[look] = name
        if other := by_letters.get(without_trifles(name)):
            notes.append(f"The classes '{other}' and '{name}' differ in capitals only. If they are one, rename it.")
        by_letters.setdefault(without_trifles(name), name)
    return notes
