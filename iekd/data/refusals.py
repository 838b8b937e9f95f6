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
from iekd.errors import DataError, as_text
from iekd.plural import counted

LABEL_FILES = {".json", ".jsonl", ".xlsx", ".xls", ".ods", ".xml", ".parquet", ".mat", ".pkl"}
OUTER, INNER = "outer", "inner"  # which folders are the classes where folders with images lie in folders


class UnclearClassesError(DataError):
    """It is not clear which folders are the classes, and whoever asks can say so.

    Attributes:
        question: what is not clear, without how to answer it, which differs between the page and the command line.
        answers: OUTER and INNER, or OUTER alone -> what it would mean.
    """

    def __init__(self, question: str, answers: dict[str, str], how: str) -> None:
        super().__init__(f"{question} {how}")
        self.question, self.answers = as_text(question), {key: as_text(text) for key, text in answers.items()}


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

    def question(self, root: Node, deep: list[Node], collapsed: dict[Node, Node]) -> UnclearClassesError:
        """Which folders are the classes? What is not clear, and how to say it."""
        inner = [{n.name for n in collapsed[node].with_images()} for node in deep]
        outside, inside = named([n.name for n in deep]), sorted(set().union(*inner))
        first, example = deep[0], sorted(inner[0])[:2]
        how = (
            f"Say which are the classes by adding '?classes={OUTER}' or '?classes={INNER}' to the name of the dataset, "
            "or list the images and their classes in a labels.csv."
        )
        answers = {OUTER: f"the outer folders: {outside}", INNER: f"the folders inside: {named(inside)}"}
        if are_alike(deep):
            one = (
                f"Pack one of them, such as '{first.path}'"
                if self.packed
                else (f"Give one of them, such as '{self.shown}/{first.path}'")
            )
            question = (
                f"{self.at(root)} seems to hold several datasets, {outside}: each has the folders "
                f"{named(sorted(inner[0]))}. {one}."
            )
            return UnclearClassesError(
                question, answers, f"If they are parts of one dataset: {how[0].lower()}{how[1:]}"
            )
        question = (
            f"{self.at(root)} has folders in folders, such as '{first.name}/{example[0]}': are {outside} the classes, "
            f"or the {counted(len(inside), 'folder')} inside, such as {named(example)}?"
        )
        return UnclearClassesError(question, answers, how)

    def insist(self, question: str, folders: list[Node]) -> UnclearClassesError:
        """The folders do not look like classes, and may be the classes all the same."""
        return UnclearClassesError(
            question, {OUTER: f"these folders: {named([node.name for node in folders])}"},
            f"If these folders are the classes: rename them, or add '?classes={OUTER}' to the dataset's name.",
        )  # fmt: skip

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
        if elsewhere := self.labels_elsewhere():
            return f"{elsewhere} {move}"
        if tables:
            return f"The labels may be in {named(tables)}, whose entries do not fit these files. {move}"
        return move

    def labels_elsewhere(self) -> str:
        """Files that may have the labels, of kinds that are not read, as a sentence; empty if there are none."""
        there = {ending for node in self.tree.walk() for ending in node.others} & LABEL_FILES
        if not there:
            return ""
        return (
            f"Labels in {' or '.join(sorted(there))} files are not read: save them as a .csv with a column of file "
            "names and one of classes."
        )

    def what_instead(self) -> str:
        notes = " ".join(left_out(self.tree))
        return f"It must hold a sub-folder per class, with {READABLE} files. {notes}".strip()

    def extra_class(self, name: str, test: Node, train: Node, names: tuple[str, ...]) -> str:
        close = [known for known in names if without_trifles(known) == without_trifles(name)]
        if close:
            return (
                f"Class '{name}' in {self.at(test)} is called '{close[0]}' in {self.at(train)}: the names differ in "
                "spaces, capitals, characters that cannot be seen or the way of writing an accent. Rename one of the "
                "folders."
            )
        return f"Class '{name}' is in {self.at(test)} but not in {self.at(train)}. Use the same class names in both."

    def split_in_names(self, root: Node) -> UnclearClassesError:
        names = [node.name for node in root.with_images()]
        return self.insist(
            f"The names of the folders in {self.at(root)} seem to say both a class and whether it is to train or to "
            f"test on: {named(names)}. Make folders 'train' and 'test' with one folder per class in each.",
            root.with_images(),
        )
