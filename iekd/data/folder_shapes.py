"""What folders look like: flat, one in another, parts of one dataset, for training or testing; masks of images."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence
from pathlib import PurePosixPath

from iekd.data.folder_names import NAMES_OF_NO_CLASS, PARTS_OF_IMAGES, split_in, split_of
from iekd.data.tree import Node
from iekd.plural import counted

DEEPEST = 4  # folders around all others
STRAYS = 4  # a folder with one in so many images beside its sub-folders, or fewer, is taken for one around classes
PARTS = {"part", "batch", "shard", "chunk", "fold", "images", "image", "imgs", "img", "photos", "pictures", "data"}
MASKS = ("mask", "segmentation", "seg", "groundtruth", "gt", "label")
MASK = re.compile(rf"(?P<of>.+?)[ _-]+({'|'.join(MASKS)})s?([ _-]?\d+)?", re.IGNORECASE)


def innermost(folder: Node, split: str | None = None, known: set[str] = frozenset()) -> Node:  # type: ignore[assignment]
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


def single(node: Node) -> Node:
    """The folder that has a class's images: that of images/ in <class>/images/*."""
    while not node.images and len(node.with_images()) == 1:
        node = node.with_images()[0]
    return node


def is_flat(node: Node) -> bool:
    """Whether a folder for training or testing has its images side by side, or all in one folder such as images/."""
    inner = single(node)
    if inner.with_images():
        return False
    no_class = inner.name.lower() in NAMES_OF_NO_CLASS or split_of(inner.name) is not None or inner.name == node.name
    return inner is node or no_class


def is_split_inside(root: Node) -> bool:
    """Whether each class has its own folders for training and testing."""
    inner = [inner for node in root.with_images() for inner in node.with_images()]
    return (
        len(root.with_images()) > 1
        and not any(node.images or split_of(node.name) for node in root.with_images())
        and any(split_of(node.name) == "train" for node in inner)
        and all(split_of(node.name) and is_flat(node) for node in inner)
    )


def splits_among(folders: Sequence[Node], by_pairs: bool = True) -> dict[Node, str]:
    """The split of each folder that is for training or testing, by its name alone or beside that of another.

    Of fruits_train and fruits_test each is known by the other (unless not by_pairs). test_tube alone may be a class.
    """
    found = {node: split for node in folders if (split := split_of(node.name))}
    if by_pairs and "train" not in found.values() and len(by_rest := _pairs(folders)) == 1:
        found.update(by_rest[0])
    return found


def split_in_names(folders: Sequence[Node]) -> bool:
    """Whether the names say both a class and what it is for, as trainA, trainB, testA and testB do."""
    return len(_pairs(folders)) > 1


def _pairs(folders: Sequence[Node]) -> list[dict[Node, str]]:
    """Folders whose names differ in the word for training or testing only, with that word."""
    by_rest: dict[str, dict[Node, str]] = defaultdict(dict)
    for node in folders:
        split, rest = split_in(node.name)
        if split is not None and split_of(node.name) is None:
            by_rest[rest][node] = split
    return [of_rest for of_rest in by_rest.values() if len(of_rest) > 1 and "train" in of_rest.values()]


def are_parts(folders: Sequence[Node]) -> bool:
    """Whether these are parts of one dataset by their names, such as images_001 and images_002, and no classes."""
    names = {re.sub(r"\d+", "", node.name.lower()) for node in folders}
    words = re.findall(r"[^\W\d_]+", names.pop())
    holds_folders = any(single(node).with_images() for node in folders)
    return len(folders) > 1 and not names and not holds_folders and bool(words) and words[-1] in PARTS


def are_alike(folders: Sequence[Node]) -> bool:
    """Whether several folders mostly hold folders of the same names, as copies or parts of one dataset do."""
    inner = [{node.name for node in single(folder).with_images()} for folder in folders]
    return len(inner) > 1 and bool(set.intersection(*inner)) and len(set.union(*inner)) < 2 * len(inner[0])


def without_masks(tree: Node) -> list[str]:
    """Take from a tree what is drawn over its images: folders such as masks beside images, and x_mask.png beside x.png.

    Returns:
        What was taken, as sentences.
    """
    folders, files = [], []
    for node in list(tree.walk()):
        there = {name: _letters(name) for name, inner in node.folders.items() if any(n.images for n in inner.walk())}
        if NAMES_OF_NO_CLASS & {*there.values()} and {*there.values()} <= PARTS_OF_IMAGES:
            folders += [node.folders.pop(name) for name, word in there.items() if word not in NAMES_OF_NO_CLASS]
        if not any(word in name.lower() for word in MASKS for name in node.images):
            continue
        stems = {PurePosixPath(name).stem: name for name in node.images}
        masks = {name for stem, name in stems.items() if (found := MASK.fullmatch(stem)) and found["of"] in stems}
        files += sorted(masks)
        node.images = [name for name in node.images if name not in masks]
    notes = []
    if count := sum(node.count() for node in folders):
        names = sorted({f"'{node.name}'" for node in folders})
        notes.append(
            f"Not used: {counted(count, 'image')} in folders called {', '.join(names)}, which belong to the others."
        )
    if files:
        notes.append(f"Not used: {counted(len(files), 'mask')} of other images, by the names, such as '{files[0]}'.")
    return notes


def _letters(name: str) -> str:
    """A name as it stands in PARTS_OF_IMAGES: "groundtruth" for Ground_Truth."""
    return re.sub(r"[^a-z]", "", name.lower())
