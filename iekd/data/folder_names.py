"""What the names of folders say: which are for training and testing, which say nothing of a class."""

from __future__ import annotations

import re
import unicodedata

TEST_NAMES = ("test", "val", "valid", "validation", "eval", "evaluation", "dev", "holdout")  # the first is used
UNLABELLED = "unlabelled"
SPLITS = {
    "train": "train", "training": "train", "testing": "test", **{name: name for name in TEST_NAMES},
    UNLABELLED: UNLABELLED, "unlabeled": UNLABELLED,
}  # fmt: skip
BESIDE = {"seg", "set", "data", "dataset", "images"}  # words that may stand beside such a name
NAMES_OF_NO_CLASS = {  # a folder of this name says nothing of the class of its images
    "images", "image", "imgs", "img", "jpegimages", "pictures", "photos", "data", "all", "unlabelled", "unlabeled",
    "unknown",
}  # fmt: skip
PARTS_OF_IMAGES = {  # folders of images, and of what belongs to them
    *NAMES_OF_NO_CLASS, "masks", "mask", "labels", "label", "annotations", "annotation", "segmentation",
    "segmentations", "groundtruth", "gt", "trimaps",
}  # fmt: skip
SHOWN = 5  # names in a message


def split_of(name: str) -> str | None:
    """The split that a folder's name announces: "train" for Training or train set, "test" for seg_test, ...

    None for any other name, such as that of a class.
    """
    split, rest = split_in(name)
    return split if set(re.findall(r"[^\W\d_]+", rest)) <= BESIDE else None


def split_in(name: str) -> tuple[str | None, str]:
    """(the split in a name of more words, the other words): ("train", "fruits") for fruits_train, ("test", "a") for
    testA; (None, "") if there is none, or several."""
    words = re.findall(r"\d+|[A-Z]+(?![a-z])|[A-Z]?[^\W\d_A-Z]+", name)
    said = [word for word in words if word.lower() in SPLITS]
    if len(said) != 1:
        return None, ""
    return SPLITS[said[0].lower()], " ".join(word.lower() for word in words if word is not said[0])


def without_trifles(name: str, capitals: bool = False) -> str:
    """A name without what is hard to see: spaces at its ends, characters without width, ways of writing an accent, and
    capitals unless wanted."""
    seen = "".join(c for c in unicodedata.normalize("NFKC", name) if unicodedata.category(c) != "Cf")
    plain = " ".join(seen.split())
    return plain if capitals else plain.casefold()


def named(names: list[str] | tuple[str, ...]) -> str:
    """Some names in quotes, and how many more there are."""
    text = ", ".join(f"'{name}'" for name in names[:SHOWN])
    return text + (f" and {len(names) - SHOWN:,} more" if len(names) > SHOWN else "")
