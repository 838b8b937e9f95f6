"""What the library `datasets` reads from the Hub, as images and the names of their classes, one at a time.

Errors of the Hub and of the library become one sentence here. It is the only file that imports that library, which is
an extra; whatever it finds, code of a dataset is not run.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from itertools import chain, islice
from typing import Any, NamedTuple

from iekd.data.labels import CLASS_COLUMNS
from iekd.errors import DataError, first_line

EXTRA = "Datasets of the Hub need the library 'datasets', which is not installed: pip install 'iekd[hub-data]'."
TEST_SPLITS = ("test", "validation", "valid", "val", "dev", "eval")
LOOKED_AT = 100  # rows that tell whether a split has classes at all: some keep those of their test images secret
PLAIN = ("int", "uint", "string", "large_string", "bool")  # beginnings of the types that classes may have


class HubUnreachableError(DataError):
    """The Hub gives no answer."""


class Row(NamedTuple):
    """An encoded image and the name of its class; None where the dataset has none."""

    content: bytes | None
    class_name: str | None


@dataclass(frozen=True)
class Rows:
    """A dataset's images.

    Args:
        train, test: each is read once; test is None if there are no test images.
        test_name: the split that the test images come from; empty if there is none.
        class_names: in the order of their labels; empty if they are known only once all images were read.
        notes: what to tell the user.
    """

    train: Iterable[Row]
    test: Iterable[Row] | None
    test_name: str
    class_names: tuple[str, ...]
    notes: tuple[str, ...]


def check_installed() -> None:
    """Raises DataError without the library."""
    if find_spec("datasets") is None:
        raise DataError(EXTRA)


def commit_of(repo: str, revision: str) -> str:
    """The commit that a revision is now; of an empty one, the newest.

    Raises:
        HubUnreachableError: the Hub gives no answer.
        DataError: there is no such dataset or revision, or it is not for everybody.
    """
    from huggingface_hub import HfApi

    try:
        return str(HfApi().dataset_info(repo, revision=revision or None).sha)
    except Exception as error:
        raise _in_words(error, repo, revision) from None


def images_of(repo: str, revision: str, options: dict[str, str]) -> Rows:
    """The images of a dataset at a commit.

    Args:
        options: config, train, test (splits), image, label (columns); what is missing is found or asked for.
    Raises:
        DataError: it cannot be read, or it is not clear what of it is meant; the message lists what there is.
    """
    check_installed()
    import datasets

    try:
        found = datasets.load_dataset(repo, options.get("config"), revision=revision, streaming=True)
    except Exception as error:
        raise _in_words(error, repo, revision) from None
    splits: dict[str, Any] = dict(found)
    train_name = _train_of(repo, splits, options.get("train"))
    train = splits[train_name]
    features = train.features or train._resolve_features().features
    image = _image_column(repo, features, options.get("image"))
    label, names = _label_column(repo, features, options.get("label"))

    def rows(split: Any) -> Iterator[Row]:
        try:
            for row in split.select_columns([image, label]).cast_column(image, datasets.Image(decode=False)):
                yield Row(_content(row[image]), _name(row[label], names))
        except DataError:
            raise
        except Exception as error:
            raise _in_words(error, repo, revision) from None

    notes = [f"Images come from the column '{image}', classes from '{label}'."]
    others = _tests_of(repo, splits, train_name, options.get("test"))
    test, test_name = None, ""
    for name in others:
        first, rest = _peeked(rows(splits[name]))
        if any(row.class_name is not None for row in first):
            test, test_name = rest, name
            break
        notes.append(f"Not used: the split '{name}', whose first images have no class.")
    if test_name and test_name != "test":
        notes.append(f"The images of the split '{test_name}' are tested on.")
    if unused := [name for name in splits if name not in (train_name, test_name)]:
        notes.append(f"Not used: the splits {', '.join(unused)}.")
    return Rows(rows(train), test, test_name, names, tuple(notes))


class Announced(NamedTuple):
    """What a dataset says of itself: numbers of images, the split to test on ("" for none) and the classes."""

    train: int
    test: int
    test_name: str
    class_names: tuple[str, ...]


def announced(repo: str, revision: str, options: dict[str, str]) -> Announced | None:
    """What a dataset's README says of it, without fetching an image; None if it does not say all of that.

    Raises:
        DataError: as `images_of`.
    """
    check_installed()
    import datasets

    try:
        info = datasets.load_dataset_builder(repo, options.get("config"), revision=revision).info
    except Exception as error:
        raise _in_words(error, repo, revision) from None
    if not info.features or not info.splits or not all(split.num_examples for split in info.splits.values()):
        return None
    counts = {name: int(split.num_examples) for name, split in info.splits.items()}
    train = _train_of(repo, counts, options.get("train"))
    _image_column(repo, info.features, options.get("image"))
    _, names = _label_column(repo, info.features, options.get("label"))
    test = next(iter(_tests_of(repo, counts, train, options.get("test"))), "")
    return Announced(counts[train], counts.get(test, 0), test, names) if names else None


def _tests_of(repo: str, splits: dict[str, Any], train: str, asked: str | None) -> list[str]:
    """The splits that may be tested on, the likeliest first."""
    if asked is None:
        return [name for name in TEST_SPLITS if name in splits and name != train]
    if asked not in splits or asked == train:
        raise _choose(repo, f"no split '{asked}' to test on", "test", [name for name in splits if name != train])
    return [asked]


def _peeked(rows: Iterator[Row]) -> tuple[list[Row], Iterable[Row]]:
    first = list(islice(rows, LOOKED_AT))
    return first, chain(first, rows)


def _train_of(repo: str, splits: dict[str, Any], asked: str | None) -> str:
    name = asked or ("train" if "train" in splits or len(splits) != 1 else next(iter(splits)))
    if name not in splits:
        raise _choose(repo, f"no split '{name}' to train on", "train", list(splits))
    return name


def _image_column(repo: str, features: dict[str, Any], asked: str | None) -> str:
    found = [name for name, feature in features.items() if type(feature).__name__ == "Image"]
    if asked in found or (asked is None and len(found) == 1):
        return asked or found[0]
    if not found:
        raise DataError(f"'{repo}' has no column of images; its columns are {', '.join(features)}. Choose another.")
    raise _choose(repo, f"no image column '{asked}'" if asked else "several columns of images", "image", found)


def _label_column(repo: str, features: dict[str, Any], asked: str | None) -> tuple[str, tuple[str, ...]]:
    """(the column with the classes, their names in the order of the labels, where the dataset lists them)."""
    listed = {name: tuple(f.names) for name, f in features.items() if type(f).__name__ == "ClassLabel"}
    plain = [name for name, f in features.items() if str(getattr(f, "dtype", "")).startswith(PLAIN)]
    plain = [name for name in plain if type(features[name]).__name__ == "Value"]
    if asked in listed or (asked is None and len(listed) == 1):
        chosen = asked or next(iter(listed))
        return chosen, listed[chosen]
    if asked in plain:
        return str(asked), ()
    usual = [name for name in plain if name.lower() in CLASS_COLUMNS]
    if asked is None and not listed and len(usual) == 1:
        return usual[0], ()
    if not listed and not plain:
        raise DataError(f"'{repo}' has no column of classes; its columns are {', '.join(features)}. Choose another.")
    what = f"no column '{asked}' of classes" if asked else "no single column that is known to hold the classes"
    raise _choose(repo, what, "label", list(listed) or plain)


def _choose(repo: str, what: str, option: str, candidates: list[str]) -> DataError:
    if not candidates:
        return DataError(f"'{repo}' has {what}, and nothing else to choose.")
    listed = ", ".join(candidates[:20])
    return DataError(f"'{repo}' has {what}. Say which of {listed}, as hf:{repo}?{option}={candidates[0]}.")


def _content(value: Any) -> bytes | None:
    """The bytes of an image that was not decoded; it is read where the dataset only says where it lies."""
    if value is None:
        return None
    if value.get("bytes"):
        return bytes(value["bytes"])
    if not value.get("path"):
        return None
    from datasets.utils.file_utils import xopen

    with xopen(value["path"], "rb") as file:
        return bytes(file.read())


def _name(value: Any, names: tuple[str, ...]) -> str | None:
    if value is None or value == "":
        return None
    if not names:
        return str(value)
    return names[value] if 0 <= value < len(names) else None  # -1 stands for none


def _in_words(error: Exception, repo: str, revision: str) -> DataError:
    """What went wrong with a dataset of the Hub, as a DataError."""
    kinds = {kind.__name__ for kind in type(error).__mro__}
    text = str(error)
    if "GatedRepoError" in kinds or ("DatasetNotFoundError" in kinds and "gated" in text):
        return DataError(
            f"'{repo}' is only for those who have accepted its terms. Accept them on its page and log in with "
            "`hf auth login`."
        )
    if kinds & {"RevisionNotFoundError"}:
        return DataError(f"'{repo}' has no revision '{revision}'. Give a branch, a tag or a commit of it.")
    if kinds & {"RepositoryNotFoundError", "DatasetNotFoundError"}:
        return DataError(
            f"There is no dataset '{repo}' on the Hub, or it is private. Check the name; for a private one, "
            "log in with `hf auth login`."
        )
    if "scripts are no longer supported" in text or "trust_remote_code" in text:
        return DataError(
            f"'{repo}' is made by code that would run here, which is never done. Choose a copy that is stored as "
            "images or Parquet; its branch 'refs/convert/parquet' may be one."
        )
    if "Config name is missing" in text or "BuilderConfig" in text:
        configs = text[text.find("[") + 1 : text.find("]")].replace("'", "").split(", ")
        return _choose(repo, "several configurations", "config", [name for name in configs if name])
    if kinds & {"OfflineModeIsEnabled", "ConnectionError", "ConnectError", "TransportError", "TimeoutException"}:
        return HubUnreachableError(
            f"The Hugging Face Hub cannot be reached ({first_line(error)}). Connect to the internet and try again."
        )
    return DataError(f"'{repo}' cannot be read from the Hub ({first_line(error)}). Try again, or choose another.")
