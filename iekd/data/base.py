"""The one shape in which every source delivers its images."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Optional, Protocol, Union

import numpy as np

from iekd.data.decoding import CROP, to_array
from iekd.data.file_images import FileImages, Files, image_sums
from iekd.errors import DataError
from iekd.plural import counted

Images = Union[np.ndarray, FileImages]
Progress = Callable[[int, int], None]  # (files read, all files)
CHUNK = 1024  # images whose sums are taken together: int64 copies of all images would take eight times their memory


@dataclass(frozen=True)
class Split:
    """Images (N,H,W,C) uint8 with C = 1 or 3, in memory or still in their files, and labels (N,) int64.

    files: the files that images in memory were read from; None if they were not read from files of their own.
    """

    images: Images
    labels: np.ndarray
    files: Files | None = None

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, rows: np.ndarray) -> Split:
        """The images of those rows, with their labels."""
        images = self.images.take(rows) if isinstance(self.images, FileImages) else self.images[rows]
        return Split(images, self.labels[rows], None if self.files is None else self.files.take(rows))

    def joined(self, other: Split) -> Split:
        """These images followed by those of another split; both are in memory, or both in their files."""
        labels = np.concatenate([self.labels, other.labels])
        if isinstance(self.images, FileImages) and isinstance(other.images, FileImages):
            return Split(self.images.joined(other.images), labels)
        files = None if self.files is None or other.files is None else self.files.joined(other.files)
        return Split(np.concatenate([self.images, other.images]), labels, files)

    @property
    def image_files(self) -> Files | None:
        """The file of each image; None if the images did not come from files of their own."""
        return self.images.files if isinstance(self.images, FileImages) else self.files

    def sums_of_each(self) -> Iterator[np.ndarray]:
        """`image_sums` of some images at a time, the same whether they are in memory or in their files."""
        if isinstance(self.images, FileImages):
            yield self.images.sums
            return
        for i in range(0, len(self), CHUNK):
            yield image_sums(self.images[i : i + CHUNK])

    def sums(self) -> list[int]:
        """`image_sums` over all images."""
        return [int(s) for s in sum(some.sum(0) for some in self.sums_of_each())]


@dataclass(frozen=True)
class Dataset:
    """A training and a test split with their class names, and a validation split once one was held out.

    `mean` and `std` are per channel, in units of 0..1 pixel values, computed from the training split alone.
    `skipped` names files that could not be read, `notes` say what else is not used. `fingerprint` is the DatasetInfo's.
    `fit` and `white` say how files became images, see `decoding.to_array`; other images are to be treated alike.
    """

    name: str
    class_names: tuple[str, ...]
    train: Split
    test: Split
    skipped: tuple[str, ...] = field(default=())
    validation: Split | None = None
    fingerprint: str = ""
    notes: tuple[str, ...] = ()
    fit: str = CROP
    white: float | None = None

    @property
    def channels(self) -> int:
        return int(self.train.images.shape[3])

    @property
    def resolution(self) -> int:
        return int(self.train.images.shape[1])

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C,H,W) of an image."""
        return self.channels, self.resolution, self.resolution

    @property
    def statistics(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Per-channel mean and standard deviation of the training split, pixel values scaled to 0..1.

        Computed from whole numbers, so that they are the same whether the images are in memory or in their files.
        """
        sums, count = self.train.sums(), len(self.train) * self.resolution**2
        mean, std = [], []
        for values, squares in zip(sums[: self.channels], sums[self.channels : -1], strict=True):
            mean.append(values / (255 * count))
            std.append(max(((count * squares - values**2) / (255 * count) ** 2) ** 0.5, 1e-6))
        return tuple(mean), tuple(std)

    @property
    def background(self) -> float:
        """Mean brightness, 0..1, of the outermost pixels of the training images: near 0 for white on black."""
        return self.train.sums()[-1] / (255 * len(self.train) * 4 * self.resolution * self.channels)

    def ordered(self, class_names: Sequence[str]) -> Dataset:
        """The same dataset with its classes in that order, so that label k is class_names[k].

        Raises:
            DataError: these are not the names of its classes.
        """
        names = tuple(class_names)
        if names == self.class_names:
            return self
        check_order(names, self.class_names, self.name)
        new_of = np.array([names.index(name) for name in self.class_names], np.int64)

        def relabelled(split: Split) -> Split:
            return replace(split, labels=new_of[split.labels])

        validation = None if self.validation is None else relabelled(self.validation)
        return replace(
            self, class_names=names, train=relabelled(self.train), test=relabelled(self.test), validation=validation
        )

    def limited(self, count: int | None, seed: int = 0) -> Dataset:
        """The same dataset with at most `count` training images, drawn at random, equally from each class.

        Raises:
            DataError: `count` is smaller than the number of classes.
        """
        if count is None or count >= len(self.train):
            return self
        if count < len(self.class_names):
            raise DataError(
                f"{counted(count, 'training image is', 'training images are')} too few for the "
                f"{len(self.class_names)} classes of {self.name}. Ask for at least {len(self.class_names)}."
            )
        rng = np.random.default_rng(seed)
        order = rng.permutation(len(self.train))
        # rank of each image among its class in the random order; the smallest ranks make a balanced subset
        labels = self.train.labels[order]
        rank = np.empty(len(order), np.int64)
        for k in range(len(self.class_names)):
            of_class = np.flatnonzero(labels == k)
            rank[of_class] = np.arange(len(of_class))
        chosen = np.sort(order[np.argsort(rank, kind="stable")[:count]])
        return replace(self, train=self.train.take(chosen))

    def resized(self, resolution: int | None) -> Dataset:
        """The same dataset with images of `resolution` x `resolution` pixels; None leaves them as they are."""
        if resolution in (None, self.resolution):
            return self

        def resize(split: Split) -> Split:
            images = np.empty((len(split), resolution, resolution, self.channels), np.uint8)
            for i, image in enumerate(split.images):
                images[i] = to_array(image.squeeze(), resolution, self.channels)
            return replace(split, images=images)

        return replace(self, train=resize(self.train), test=resize(self.test))

    def held_out(self, fraction: float, seed: int = 0) -> Dataset:
        """The same dataset with that share of each class's training images as the validation split.

        A class with too few images contributes none; if no class does, there is no validation split.
        """
        rng = np.random.default_rng([seed, 1])  # independent of the draws of `limited`
        chosen: list[np.ndarray] = []
        for k in range(len(self.class_names)):
            of_class = np.flatnonzero(self.train.labels == k)
            chosen.append(rng.permutation(of_class)[: held_out_of(len(of_class), fraction)])
        held_out = np.sort(np.concatenate(chosen))
        if not len(held_out):
            return self
        rest = np.setdiff1d(np.arange(len(self.train)), held_out)
        return replace(self, train=self.train.take(rest), validation=self.train.take(held_out))


def check_order(asked: Sequence[str], class_names: Sequence[str], dataset: str) -> None:
    """Raises DataError unless `asked` are the names of the classes, each once, in any order."""
    unknown = [name for name in asked if name not in class_names]
    missing = [name for name in class_names if name not in asked]
    if unknown or missing or len(asked) != len(class_names):
        what = (
            f"'{unknown[0]}' is not among them"
            if unknown
            else f"'{missing[0]}' is missing"
            if missing
            else ("one is named twice")
        )
        raise DataError(
            f"The class order does not fit the {len(class_names)} classes of {dataset}: {what}. Name each class once.",
            "class_order",
        )


def held_out_of(size: int, fraction: float) -> int:
    """How many of a class of that size `Dataset.held_out` takes; something is left to learn from."""
    return max(0, min(round(size * fraction), size - 1))


@dataclass(frozen=True)
class DatasetInfo:
    """What is known of a dataset without loading it. No count is zero: estimates and a public page's limits rely on it.

    Args:
        name: what the user types, such as "cifar10" or "folder:/home/me/birds".
        title: its name on the page.
        train_images, test_images, classes: how many there are.
        channels: 1 for grey images, 3 for colour.
        resolution: side of the square images if no other is asked for.
        note: what to know before choosing it, such as "31 MB download".
        part_of: a larger dataset with the same classes, whose teachers fit this one too.
        class_sizes: training images of each class; empty if all classes have the same number.
        class_names: in the order of their labels; empty where they are known only after loading.
        test_sizes: test images of each class; empty where they are known only after loading.
        notes: what the user may not expect of the files, in sentences.
        tested_on: which images are the test images, if that needs saying.
        test_is_drawn: whether they are drawn at random, by the run's test fraction and data seed.
        side: pixels of the pictures' shorter side, in the median; 0 where that is not known, or has been decided.
        fingerprint: changes whenever a file of the dataset does; empty for datasets that never change.
    """

    name: str
    title: str
    train_images: int
    test_images: int
    classes: int
    channels: int
    resolution: int
    note: str = ""
    part_of: str = ""
    class_sizes: tuple[int, ...] = ()
    tested_on: str = ""
    fingerprint: str = ""
    class_names: tuple[str, ...] = ()
    test_sizes: tuple[int, ...] = ()
    notes: tuple[str, ...] = ()
    test_is_drawn: bool = False
    side: int = 0


@dataclass(frozen=True)
class Request:
    """Which dataset to load, and how.

    Args:
        name: as in DatasetInfo.
        resolution: side of the square images; None for the dataset's own.
        test_fraction, seed: how test images are drawn from a dataset that brings none.
        image_memory: GB that decoded images may take; None for half of the free memory.
        cache: whether decoded images may be stored for the next run.
        progress: called now and then with (files read, all files); what it raises ends the loading.
        fit: how images that are not square are made so, see `decoding.to_array`.
    """

    name: str
    resolution: Optional[int] = None
    test_fraction: float = 0.2
    seed: int = 0
    image_memory: Optional[float] = None
    cache: bool = True
    progress: Optional[Progress] = None
    fit: str = CROP


class Source(Protocol):
    """Where datasets come from. To add one, subclass this, write `describe` and `load`, and `register` an instance.

    See docs/adding-a-data-source.md. Every method but `describe` and `load` has a default that suits one dataset which
    never changes and needs no download.

    Attributes:
        name: what the user types for its only dataset, such as "cifar10"; or a scheme that ends in a colon, such as
            "folder:", for a source of many datasets. What follows the colon says which one.
        usage: of a scheme, what its names look like, such as "folder:PATH".
        note: of a scheme, one line for the list of datasets.
        resolution: side of the square images if no other is asked for; the same as DatasetInfo.resolution, but known
            before the dataset is.
        uses_test_fraction: whether it may have to draw test images, by the run's test_fraction and data_seed.
        may_stream: whether images that do not fit into image_memory stay in their files.
        for_guests: whether a stranger to this machine may have it downloaded.
    """

    name: str
    usage: str = ""
    note: str = ""
    resolution: int = 32
    uses_test_fraction: bool = False
    may_stream: bool = False
    for_guests: bool = True

    def of(self, name: str) -> Source:
        """The source of one dataset of a scheme; the scheme itself, unless its datasets have sources of their own."""
        return self

    @abstractmethod
    def describe(self, name: str, test_fraction: float) -> DatasetInfo:
        """What is known without opening the dataset. Quick: the page asks after every change of its form.

        Raises:
            DataError: there is no such dataset.
        """

    @abstractmethod
    def load(self, request: Request) -> Dataset:
        """The dataset at the resolution that was asked for.

        Raises:
            DataError: it cannot be loaded; the message says what to do.
        """

    def check(self, name: str) -> str:
        """Return the name in the form in which it is stored. Reads no file: it is asked at every key that is pressed.

        Raises:
            DataError: no dataset can have that name.
        """
        return name

    def meant(self, name: str) -> str:
        """Of a scheme: the dataset that somebody may have meant who left the scheme out; "" for none. Reads no file."""
        return ""

    def prepare(self, name: str) -> str:
        """Return the name by which the dataset is described and loaded. May read files, download or unpack.

        Raises:
            DataError: there is no such dataset.
        """
        return self.check(name)

    def at_hand(self, name: str) -> bool:
        """Whether `load` needs no download."""
        return True

    def thumbnails(self, name: str, per_class: int) -> list[tuple[np.ndarray, str]]:
        """A few test images, each (H,W,C) uint8 with its class; none if they would have to be downloaded first."""
        if not self.at_hand(name):
            return []
        found = self.load(Request(name))
        labels = found.test.labels
        return [
            (found.test.images[i], class_name)
            for k, class_name in enumerate(found.class_names)
            for i in np.flatnonzero(labels == k)[:per_class]
        ]

    def title(self, name: str) -> str:
        """The dataset's name on the page. Reads no file: the dataset may be gone by now."""
        return name if self.name.endswith(":") else self.describe(name, 0.2).title

    def own_path(self, name: str) -> Path | None:
        """The folder of the user's own files that the name points to; None if it points to nobody's files.

        Strangers on a page may not use names that have one, and do not see where it is. Reads no file.
        """
        return None

    def own_files(self, name: str) -> Sequence[Path]:
        """The user's own files without which another machine could not load the same; where there is an own_path.

        Raises:
            DataError: there is no such dataset.
        """
        return ()

    def root_of(self, name: str) -> Path | None:
        """The folder of the dataset's files, below which they are named in reports. Reads no image."""
        return self.own_path(name)

    def test_files(self, name: str) -> Sequence[str] | None:
        """The paths of the test images; None if they are not files, or if they are drawn at random."""
        return None

    def test_only(self, name: str) -> str | None:
        """If a dataset has test images and nothing to train on: a name that loads them, for evaluation. Else None."""
        return None
