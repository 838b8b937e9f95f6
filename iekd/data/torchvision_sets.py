"""Datasets that torchvision downloads: Fashion-MNIST, CIFAR-10 and CIFAR-100.

torchvision verifies what it downloads. Data that are already on this machine are found without asking the network.
"""

from __future__ import annotations

import contextlib
import gzip
import logging
import os
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from iekd.data.base import Dataset, DatasetInfo, Request, Source, Split
from iekd.data.bundled import FASHION_CLASSES, SAMPLE, Sample
from iekd.errors import DataError
from iekd.paths import cache_dir, make_cache_dir

log = logging.getLogger(__name__)

# as the downloads name them, so that an order of classes can be checked before anything is downloaded
CIFAR10_CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
CIFAR100 = (
    "apple aquarium_fish baby bear beaver bed bee beetle bicycle bottle bowl boy bridge bus butterfly camel can "
    "castle caterpillar cattle chair chimpanzee clock cloud cockroach couch crab crocodile cup dinosaur dolphin "
    "elephant flatfish forest fox girl hamster house kangaroo keyboard lamp lawn_mower leopard lion lizard lobster "
    "man maple_tree motorcycle mountain mouse mushroom oak_tree orange orchid otter palm_tree pear pickup_truck "
    "pine_tree plain plate poppy porcupine possum rabbit raccoon ray road rocket rose sea seal shark shrew skunk "
    "skyscraper snail snake spider squirrel streetcar sunflower sweet_pepper table tank telephone television tiger "
    "tractor train trout tulip turtle wardrobe whale willow_tree wolf woman worm"
)
CIFAR100_CLASSES = tuple(CIFAR100.split())
DEBIAN_FASHION = Path("/usr/share/datasets/fashion-mnist")


@dataclass(frozen=True)
class TorchvisionSet(Source):
    """One of torchvision's datasets.

    Args:
        info: what `describe` says.
        class_name: its class in torchvision.datasets.
        folder: what torchvision expects below a root folder.
        by_hand: what to put there without a network, for the error message.
    """

    info: DatasetInfo
    class_name: str
    folder: str
    by_hand: str

    @property
    def name(self) -> str:  # type: ignore[override]
        return self.info.name

    @property
    def resolution(self) -> int:  # type: ignore[override]
        return self.info.resolution

    def describe(self, name: str, test_fraction: float) -> DatasetInfo:
        return self.info

    def at_hand(self, name: str) -> bool:
        return any((root / self.folder).is_dir() for root in _roots())

    def load(self, request: Request) -> Dataset:
        train, test = self._read_or_download()
        splits = []
        for stored in (train, test):
            images = np.asarray(stored.data)  # MNIST-like: tensor (N,H,W); CIFAR: array (N,H,W,3)
            images = images if images.ndim == 4 else images[..., None]
            splits.append(Split(images, np.asarray(stored.targets, np.int64)))
        return Dataset(self.name, self.class_names(train), splits[0], splits[1]).resized(request.resolution)

    def class_names(self, stored: Any) -> tuple[str, ...]:
        """From torchvision's dataset object."""
        return tuple(stored.classes)

    def _read_or_download(self) -> tuple[Any, Any]:
        """torchvision's (training, test) dataset from the first root that has it, else downloaded and verified."""
        import torchvision.datasets

        build: Callable[..., Any] = getattr(torchvision.datasets, self.class_name)
        *_, cache = roots = _roots()
        for root in roots:
            if root == cache:
                self.fill_cache(cache / self.folder)
            try:
                return build(str(root), train=True), build(str(root), train=False)
            except Exception as error:  # torchvision's readers raise many kinds on missing and on damaged files
                log.info("%s is not in '%s' (%s).", self.name, root, _reason(error))
        log.info("Downloading %s into %s", self.name, cache)
        make_cache_dir(cache)
        try:
            return build(str(cache), train=True, download=True), build(str(cache), train=False, download=True)
        except Exception as error:
            raise DataError(
                f"Dataset '{self.name}' is not on this machine and could not be downloaded ({_reason(error)}). "
                f"Connect to the internet and try again, put {self.by_hand} into '{cache / self.folder}', "
                f"or choose '{SAMPLE}', which needs no download."
            ) from None

    def fill_cache(self, folder: Path) -> None:
        """Copy what else this machine has of the dataset to where torchvision looks for it."""


class FashionMNIST(TorchvisionSet):
    """Also found where Debian's package `dataset-fashion-mnist` puts it."""

    def at_hand(self, name: str) -> bool:
        return super().at_hand(name) or DEBIAN_FASHION.is_dir()

    def thumbnails(self, name: str, per_class: int) -> list[tuple[np.ndarray, str]]:
        """The test images are the sample's, which can be read without torchvision."""
        return Sample().thumbnails(SAMPLE, per_class) if self.at_hand(name) else []

    def class_names(self, stored: Any) -> tuple[str, ...]:
        return FASHION_CLASSES

    def fill_cache(self, folder: Path) -> None:
        if DEBIAN_FASHION.is_dir() and not folder.is_dir():
            with contextlib.suppress(OSError):  # a cache that cannot be written is reported by the download
                _unpack_debian(folder)


TORCHVISION_SETS: tuple[Source, ...] = (
    FashionMNIST(
        DatasetInfo("fashion-mnist", "Fashion-MNIST, all 60,000 images", 60_000, 10_000, 10, 1, 28, "31 MB download",
                    class_names=FASHION_CLASSES),
        "FashionMNIST", "FashionMNIST/raw", "the four '*-ubyte.gz' files",
    ),
    TorchvisionSet(
        DatasetInfo("cifar10", "CIFAR-10", 50_000, 10_000, 10, 3, 32, "170 MB download", class_names=CIFAR10_CLASSES),
        "CIFAR10", "cifar-10-batches-py", "the unpacked 'cifar-10-python.tar.gz'",
    ),
    TorchvisionSet(
        DatasetInfo("cifar100", "CIFAR-100", 50_000, 10_000, 100, 3, 32, "170 MB download",
                    class_names=CIFAR100_CLASSES),
        "CIFAR100", "cifar-100-python", "the unpacked 'cifar-100-python.tar.gz'",
    ),
)  # fmt: skip


def _roots() -> list[Path]:
    """Folders to look in, in torchvision's layout; downloads go into the last."""
    own = os.environ.get("IEKD_DATA_DIR")
    return [*([Path(own)] if own else []), Path("data"), cache_dir() / "data"]


def _unpack_debian(folder: Path) -> None:
    """Unpack Debian's copy into `folder`. torchvision would refuse its archives, whose checksums differ."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    part = Path(tempfile.mkdtemp(prefix=".unpacking-", dir=folder.parent))  # of its own: two first runs may do this
    try:
        for packed in DEBIAN_FASHION.glob("*-ubyte.gz"):
            with gzip.open(packed) as source, open(part / packed.stem, "wb") as target:
                shutil.copyfileobj(source, target)
        part.chmod(0o755)
        part.rename(folder)  # fails if another process was quicker, and its copy is as good
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _reason(error: BaseException) -> str:
    text = str(getattr(error, "reason", None) or error).strip()
    return text.splitlines()[0][:120] if text else type(error).__name__
