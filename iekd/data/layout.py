"""How images lie in a tree of folders: which folders are the classes, and what is for training and for testing.

Folders on disk and archives are decided by the same code, from names alone. Two layouts: `train/<class>/*` with
`test/<class>/*` (or other usual names of the two, see `split_of`), or plain `<class>/*`, which is split by a fraction
and a seed. Images in folders below a class belong to that class. A folder around all others is looked into. What could
be understood in two ways is refused with a question: a dataset of the wrong classes trains as well as any other.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import PurePosixPath

from iekd.data.decoding import READABLE
from iekd.data.folder_names import (
    NAMES_OF_NO_CLASS,
    PARTS_OF_IMAGES,
    SHOWN,
    TEST_NAMES,
    named,
    split_of,
    without_trifles,
)
from iekd.data.labels import Labels, natural_order, tables_of
from iekd.data.listings import TableError
from iekd.data.tree import Node
from iekd.errors import DataError

DEEPEST = 4  # folders around all others
OUTER, INNER = "outer", "inner"  # which folders are the classes where folders with images lie in folders
STRAYS = 4  # a folder with one in so many images beside its sub-folders, or fewer, is taken for one around classes

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
    found = _Folders(tree, shown, read, nested, packed).layout()
    _check_classes(found, shown)
    return replace(found, notes=(*found.notes, *left_out(tree)))


def test_folder(layout: Layout) -> str:
    """The usual name of the folder with the test images."""
    named = [split for part in PurePosixPath(layout.tested_on).parts if (split := split_of(part))]
    return named[0] if named else "test"


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
        notes.append(f"Files that are not used: {counts}{f', {more:,} others' if more else ''}.{hint}")
    return notes


class _Folders:
    """One tree while it is being understood."""

    def __init__(self, tree: Node, shown: str, read: ReadFile, nested: str, packed: bool) -> None:
        self.tree, self.shown, self.read, self.nested, self.packed = tree, shown, read, nested, packed
        self.notes: list[str] = []

    def layout(self) -> Layout:
        root = _innermost(self.tree)
        if not root.count():
            raise DataError(f"No images found in {self._at(root)}. {self._what_instead()}")
        unlabelled = [node for node in root.with_images() if split_of(node.name) and _is_flat(node)]
        rest = [node for node in root.with_images() if node not in unlabelled]
        if unlabelled and len(rest) == 1 and len(_innermost(rest[0]).with_images()) > 1 and not split_of(rest[0].name):
            for node in unlabelled:  # beside one folder with all the classes
                self._unlabelled(node)
            root = _innermost(rest[0])
        splits = [(split, node) for node in root.with_images() if (split := split_of(node.name))]
        others = [node for node in root.with_images() if not split_of(node.name)]
        flat = [node for _, node in splits if _is_flat(node)]
        both = len({split for split, _ in splits}) > 1  # else a folder 'train' may be a class of vehicles
        no_classes = splits and len(flat) == len(splits) and (not others or (both and len(others) < 2))
        if no_classes or (root.images and len(root.with_images()) < 2):
            return self._by_table(root)
        if _is_split_inside(root):
            return self._split_inside(root)
        # a folder 'train' beside others may be a class of vehicles, but not where a table says what its images are
        all_flat = bool(flat) and len(flat) == len(splits)
        if (len(root.with_images()) == 1 or all_flat) and (labels := self._labels_of(root)):
            return self._from_table(labels)
        by_split: dict[str, Node] = {}
        for split, node in splits:
            if split in by_split and node not in flat:
                self._skip(node, f"'{by_split[split].name}' is used")
            elif node not in flat:
                by_split[split] = node
        train = by_split.get("train")
        tests = [by_split[name] for name in TEST_NAMES if name in by_split]
        if train is None and tests:
            raise DataError(
                f"{self._at(root)} has a folder '{tests[0].name}' but no 'train'. Add 'train/<class>/' with images."
            )
        if train is not None and not tests and not flat and sum(bool(node.images) for node in others) > 1:
            self._skip(train, "it holds folders, and the others hold images")
            others, train = [node for node in others if node is not train], None
        if train is None:
            has_train = any(split == "train" for split, _ in splits)
            unlabelled = [] if has_train or len(others) < 2 else flat
            return self._one_part(root, [n for n in (*others, *flat) if n not in unlabelled], unlabelled)
        return self._two_parts(train, tests, flat, others)

    def _one_part(self, root: Node, children: list[Node], unlabelled: list[Node]) -> Layout:
        if all(node.name.lower() in PARTS_OF_IMAGES for node in children):
            raise DataError(f"{self._no_classes(root)} {self._hint(root)}")
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
        inside = _innermost(train, "train")
        learned = self._classes(inside, inside.with_images())
        self._strays(inside)
        names, test, tested_on = tuple(learned), None, ""
        for node in tests:
            if test is not None:
                self._skip(node, f"'{tested_on}' is tested on")
                continue
            innermost = _innermost(node, split_of(node.name), set(names))
            tested = self._classes(innermost, innermost.with_images(), set(names))
            self._strays(innermost)
            extra = [name for name in tested if name not in learned]
            if extra:
                raise DataError(self._extra_class(extra[0], node, inside, names))
            test, tested_on = tuple(tested.get(name, []) for name in names), node.path
            if absent := [name for name in names if name not in tested]:
                self.notes.append(f"No test images of the class{'es' * (len(absent) > 1)} {named(absent)}.")
        for node in flat:
            table = self._labels_of(node, names)
            if table is not None and test is None:
                test, tested_on = tuple(table.files.get(name, []) for name in names), node.path
                self.notes.append(f"The labels of '{node.path}' come from '{table.table}'.")
            else:
                self._unlabelled(node)
        for node in others:
            self._skip(node, "it is beside the folders for training and testing")
        is_test = test is None or "test" in map(split_of, PurePosixPath(tested_on).parts)
        return Layout(names, tuple(learned.values()), test, "" if is_test else tested_on, tuple(self.notes))

    def _classes(self, root: Node, children: list[Node], known: set[str] = frozenset()) -> dict[str, list[str]]:  # type: ignore[assignment]
        """Class -> paths of its images, of the folders in `root` that are classes, in the order of labels.

        known: names that are classes for certain.
        """
        empty = [name for name in sorted(root.folders) if not root.folders[name].count() and name not in known]
        if empty:
            self.notes.append(f"No images that can be read lie in {named(empty)}: not used as a class.")
        collapsed = {node: _single(node) for node in children}
        direct = [node for node in children if collapsed[node].images or not collapsed[node].with_images()]
        deep = [node for node in children if node not in direct]
        if deep and self.nested == INNER:
            return self._inner(direct, deep, collapsed)
        if deep and self.nested != OUTER and not direct and not {node.name for node in deep} <= known:
            raise DataError(self._question(root, deep, collapsed))
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

    def _question(self, root: Node, deep: list[Node], collapsed: dict[Node, Node]) -> str:
        """Which folders are the classes? What is not clear, and how to say it."""
        inner = [{n.name for n in collapsed[node].with_images()} for node in deep]
        first, example = deep[0], sorted(inner[0])[:2]
        alike = len(deep) > 1 and set.intersection(*inner) and len(set.union(*inner)) < 2 * len(inner[0])
        answer = (
            f"Say which are the classes by adding '?classes={OUTER}' or '?classes={INNER}' to the name of the dataset, "
            "or list the images and their classes in a labels.csv."
        )
        if alike:
            one = (
                f"Pack one of them, such as '{first.path}'"
                if self.packed
                else (f"Give one of them, such as '{self.shown}/{first.path}'")
            )
            return (
                f"{self._at(root)} seems to hold several datasets, {named([n.name for n in deep])}: each has the "
                f"folders {named(sorted(inner[0]))}. {one}. If they "
                f"are parts of one dataset: {answer[0].lower()}{answer[1:]}"
            )
        return (
            f"{self._at(root)} has folders in folders, such as '{first.name}/{example[0]}': are "
            f"{named([n.name for n in deep])} the classes, or the {len(set().union(*inner))} folders inside, such as "
            f"{named(example)}? {answer}"
        )

    def _by_table(self, root: Node) -> Layout:
        """No folder is a class: the labels are in a table, or nowhere that is known."""
        try:
            found = tables_of(self.tree, root, self.read)
        except TableError as error:
            raise DataError(f"{self._no_classes(root)} {error}") from None
        if found is None:
            raise DataError(f"{self._no_classes(root)} {self._hint(root)}")
        return self._from_table(found)

    def _from_table(self, found: Labels) -> Layout:
        self.notes.append(f"The labels come from '{found.table}' (column '{found.column}').")
        return from_labels(found, tuple(self.notes))

    def _labels_of(self, node: Node, names: tuple[str, ...] | None = None) -> Labels | None:
        """Labels of the images in a folder without class folders, if a table has them, with these classes."""
        try:
            return tables_of(self.tree, node, self.read, names)
        except TableError:
            return None

    def _no_classes(self, root: Node) -> str:
        flat = root.with_images() or [root]
        listed = ", ".join(f"'{node.path or self.shown}' ({node.count():,} images)" for node in flat[:SHOWN])
        return f"{self._at(root)} has no sub-folder per class: the images lie side by side in {listed}."

    def _hint(self, root: Node) -> str:
        files = [PurePosixPath(path).name for path in root.files()[:2000]]
        beginnings = Counter(m[1] for name in files if (m := re.match(r"([^\W\d_]{2,})[\W\d_]", name)))
        common = [word for word, count in beginnings.most_common() if count > 1]
        move = "Make a folder per class and move each image into that of its class, or list them in a labels.csv."
        tables = [f"{n.path}/{t}".lstrip("/") for n in self.tree.walk() for t in n.tables if t.lower().endswith(".csv")]
        if 1 < len(common) <= 1000 and sum(beginnings[w] for w in common) > 0.4 * len(files):
            example = next(name for name in files if name.startswith(common[0]))
            return f"The class seems to be in the names of the files, such as '{example}' ({named(common)}). {move}"
        if tables:
            return f"The labels may be in {named(tables)}, whose entries do not fit these files. {move}"
        return move

    def _what_instead(self) -> str:
        notes = " ".join(left_out(self.tree))
        return f"It must hold a sub-folder per class, with {READABLE} files. {notes}".strip()

    def _extra_class(self, name: str, test: Node, train: Node, names: tuple[str, ...]) -> str:
        close = [known for known in names if without_trifles(known) == without_trifles(name)]
        if close:
            return (
                f"Class '{name}' in {self._at(test)} is called '{close[0]}' in {self._at(train)}: the names differ in "
                "spaces, capitals or the way of writing an accent. Rename one of the folders."
            )
        return f"Class '{name}' is in {self._at(test)} but not in {self._at(train)}. Use the same class names in both."

    def _unlabelled(self, node: Node) -> None:
        self.notes.append(
            f"'{node.path}' ({node.count():,} images) has no class folders: its images are unlabelled and not used."
        )

    def _strays(self, node: Node) -> None:
        if node.images:
            self.notes.append(
                f"{len(node.images):,} images in {self._at(node)} lie in no class folder and are not used."
            )

    def _skip(self, node: Node, why: str) -> None:
        self.notes.append(f"'{node.path}' ({node.count():,} images) is not used: {why}.")

    def _at(self, node: Node) -> str:
        return f"'{self.shown}/{node.path}'" if node.path else f"'{self.shown}'"


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
        f"The {sum(map(len, parts[p])):,} images of '{p}' are not used." for p in parts if p not in ("train", test)
    ]
    return Layout(names, train, parts[test], "" if test == "test" else test, (*notes, *labels.notes, *unused))


def _check_classes(found: Layout, shown: str) -> None:
    if len(found.class_names) == 1:
        raise DataError(
            f"'{shown}' has only one class, '{found.class_names[0]}'. Training needs at least two sub-folders."
        )
    for name, images in zip(found.class_names, found.train, strict=True):
        if not images:
            raise DataError(f"Class '{name}' in '{shown}' has no training image. Add some, or remove it.")
        if found.test is None and len(images) < 2:
            raise DataError(f"Class '{name}' in '{shown}' has only one image. It needs at least two: one to test with.")


def _innermost(folder: Node, split: str | None = None, known: set[str] = frozenset()) -> Node:  # type: ignore[assignment]
    """Skip folders that hold nothing but one folder of folders, as in archives and in seg_train/seg_train.

    split: the split whose name such a folder may have. known: names of classes, which are not skipped.
    """
    for _ in range(DEEPEST):
        inner = folder.with_images()
        if folder.images or len(inner) != 1 or inner[0].name in known or split_of(inner[0].name) not in (None, split):
            break
        strays = STRAYS * len(inner[0].images) <= inner[0].count()  # the cover of an album, say
        if not inner[0].with_images() or (inner[0].images and (len(inner[0].with_images()) < 2 or not strays)):
            break
        folder = inner[0]
    return folder


def _single(node: Node) -> Node:
    """The folder that has a class's images: that of images/ in <class>/images/*."""
    while not node.images and len(node.with_images()) == 1:
        node = node.with_images()[0]
    return node


def _is_flat(node: Node) -> bool:
    """Whether a folder for training or testing has its images side by side, or all in one folder such as images/."""
    inner = _single(node)
    if inner.with_images():
        return False
    return inner is node or inner.name.lower() in NAMES_OF_NO_CLASS or split_of(inner.name) is not None


def _is_split_inside(root: Node) -> bool:
    """Whether each class has its own folders for training and testing."""
    inner = [inner for node in root.with_images() for inner in node.with_images()]
    return (
        len(root.with_images()) > 1
        and not any(node.images or split_of(node.name) for node in root.with_images())
        and any(split_of(node.name) == "train" for node in inner)
        and all(split_of(node.name) and _is_flat(node) for node in inner)
    )
