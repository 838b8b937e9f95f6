"""What is said of a tree of folders that cannot be used as it is: what is there, and what to do."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from pathlib import PurePosixPath

from iekd.data.decoding import READABLE
from iekd.data.folder_names import SHOWN, named, without_trifles
from iekd.data.folder_shapes import are_alike
from iekd.data.tree import Node, left_out
from iekd.plural import counted

OUTER, INNER = "outer", "inner"  # which folders are the classes where folders with images lie in folders


@dataclass(frozen=True)
class Refusals:
    """Args:
    tree: of all files. shown: what to call its root. packed: whether it is that of an archive.
    """

    tree: Node
    shown: str
    packed: bool

    def at(self, node: Node) -> str:
        return f"'{self.shown}/{node.path}'" if node.path else f"'{self.shown}'"

    def question(self, root: Node, deep: list[Node], collapsed: dict[Node, Node]) -> str:
        """Which folders are the classes? What is not clear, and how to say it."""
        inner = [{n.name for n in collapsed[node].with_images()} for node in deep]
        first, example = deep[0], sorted(inner[0])[:2]
        answer = (
            f"Say which are the classes by adding '?classes={OUTER}' or '?classes={INNER}' to the name of the dataset, "
            "or list the images and their classes in a labels.csv."
        )
        if are_alike(deep):
            one = (
                f"Pack one of them, such as '{first.path}'"
                if self.packed
                else (f"Give one of them, such as '{self.shown}/{first.path}'")
            )
            return (
                f"{self.at(root)} seems to hold several datasets, {named([n.name for n in deep])}: each has the "
                f"folders {named(sorted(inner[0]))}. {one}. If they "
                f"are parts of one dataset: {answer[0].lower()}{answer[1:]}"
            )
        return (
            f"{self.at(root)} has folders in folders, such as '{first.name}/{example[0]}': are "
            f"{named([n.name for n in deep])} the classes, or the {len(set().union(*inner))} folders inside, such as "
            f"{named(example)}? {answer}"
        )

    def no_classes(self, root: Node) -> str:
        flat = root.with_images() or [root]
        listed = ", ".join(f"'{node.path or self.shown}' ({counted(node.count(), 'image')})" for node in flat[:SHOWN])
        return f"{self.at(root)} has no sub-folder per class: the images lie side by side in {listed}."

    def hint(self, root: Node) -> str:
        files = [PurePosixPath(path).name for path in root.files()[:2000]]
        beginnings = Counter(m[1] for name in files if (m := re.match(r"([^\W\d_]{2,})[\W\d_]", name)))
        common = [word for word, count in beginnings.most_common() if count > 1]
        move = "Make a folder per class and move each image into that of its class, or list them in a labels.csv."
        tables = [f"{n.path}/{t}".lstrip("/") for n in self.tree.walk() for t in n.tables if t.lower().endswith(".csv")]
        texts = {PurePosixPath(t).stem for n in self.tree.walk() for t in n.tables if t.lower().endswith(".txt")}
        if 2 * sum(PurePosixPath(name).stem in texts for name in files) > len(files):
            return (
                "The text files with the names of the images seem to be boxes for detection, which is another task: "
                f"here each image needs one class. {move}"
            )
        if 1 < len(common) <= 1000 and sum(beginnings[w] for w in common) > 0.4 * len(files):
            example = next(name for name in files if name.startswith(common[0]))
            return f"The class seems to be in the names of the files, such as '{example}' ({named(common)}). {move}"
        if tables:
            return f"The labels may be in {named(tables)}, whose entries do not fit these files. {move}"
        return move

    def what_instead(self) -> str:
        notes = " ".join(left_out(self.tree))
        return f"It must hold a sub-folder per class, with {READABLE} files. {notes}".strip()

    def extra_class(self, name: str, test: Node, train: Node, names: tuple[str, ...]) -> str:
        close = [known for known in names if without_trifles(known) == without_trifles(name)]
        if close:
            return (
                f"Class '{name}' in {self.at(test)} is called '{close[0]}' in {self.at(train)}: the names differ in "
                "spaces, capitals or the way of writing an accent. Rename one of the folders."
            )
        return f"Class '{name}' is in {self.at(test)} but not in {self.at(train)}. Use the same class names in both."

    def split_in_names(self, root: Node) -> str:
        names = [node.name for node in root.with_images()]
        return (
            f"The names of the folders in {self.at(root)} seem to say both a class and whether it is to train or to "
            f"test on: {named(names)}. Make folders 'train' and 'test' with one folder per class in each. If these are "
            f"the classes: rename them, or add '?classes={OUTER}' to the dataset's name."
        )
