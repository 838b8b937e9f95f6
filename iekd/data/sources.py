"""The named sources: the sample shipped with the package, and torchvision's downloaders.

torchvision verifies what it downloads; data that are already on this machine are found without asking the network.
"""

from __future__ import annotations

import contextlib
import gzip
import logging
import os
import shutil
import tempfile
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from iekd.data.base import Dataset, DatasetInfo, Request, Split, register
from iekd.data.decoding import to_array
from iekd.errors import DataError
from iekd.paths import cache_dir

log = logging.getLogger(__name__)

FASHION_CLASSES = (
    "T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot",
)  # fmt: skip
SAMPLE = "fashion-mnist-sample"
BUNDLED = Path(__file__).parent / "bundled" / f"{SAMPLE}.npz"
DEBIAN_FASHION = Path("/usr/share/datasets/fashion-mnist")


@register(
    DatasetInfo(
        SAMPLE, "Fashion-MNIST, 10,000-image sample", 10_000, 10_000, 10, 1, 28, "shipped, no download", "fashion-mnist"
    )
)
def fashion_mnist_sample(request: Request) -> Dataset:
    """1,000 training images a class and the full test set of Fashion-MNIST (Xiao et al. 2017, MIT licence)."""
    return _resized(_bundled(), request.resolution)


@register(DatasetInfo("fashion-mnist", "Fashion-MNIST, all 60,000 images", 60_000, 10_000, 10, 1, 28, "31 MB download"))
def fashion_mnist(request: Request) -> Dataset:
    train, test = _torchvision("fashion-mnist")
    return _from_torchvision(request, train, test, FASHION_CLASSES)


@register(DatasetInfo("cifar10", "CIFAR-10", 50_000, 10_000, 10, 3, 32, "170 MB download"))
def cifar10(request: Request) -> Dataset:
    train, test = _torchvision("cifar10")
    return _from_torchvision(request, train, test, tuple(train.classes))


@register(DatasetInfo("cifar100", "CIFAR-100", 50_000, 10_000, 100, 3, 32, "170 MB download"))
def cifar100(request: Request) -> Dataset:
    train, test = _torchvision("cifar100")
    return _from_torchvision(request, train, test, tuple(train.classes))


# name -> (torchvision class, what it expects below a root folder, what to put there by hand)
_TORCHVISION = {
    "fashion-mnist": ("FashionMNIST", "FashionMNIST/raw", "the four '*-ubyte.gz' files"),
    "cifar10": ("CIFAR10", "cifar-10-batches-py", "the unpacked 'cifar-10-python.tar.gz'"),
    "cifar100": ("CIFAR100", "cifar-100-python", "the unpacked 'cifar-100-python.tar.gz'"),
}


def at_hand(name: str) -> bool:
    """True if `load(name)` needs no download."""
    if name == SAMPLE:
        return True
    folder = _TORCHVISION[name][1]
    found = any((root / folder).is_dir() for root in _roots())
    return found or (name == "fashion-mnist" and DEBIAN_FASHION.is_dir())


def _roots() -> list[Path]:
    """Folders to look in, in torchvision's layout; downloads go to the last."""
    own = os.environ.get("IEKD_DATA_DIR")
    return [*([Path(own)] if own else []), Path("data"), cache_dir() / "data"]


@lru_cache(maxsize=1)
def _bundled() -> Dataset:
    with np.load(BUNDLED) as stored:
        train = Split(stored["train_images"], stored["train_labels"].astype(np.int64))
        test = Split(stored["test_images"], stored["test_labels"].astype(np.int64))
    return Dataset(SAMPLE, FASHION_CLASSES, train, test)


def _torchvision(name: str) -> tuple[Any, Any]:
    """(train, test) of torchvision's data set, from disk if any folder has it, else downloaded and verified."""
    import torchvision.datasets

    class_name, folder, by_hand = _TORCHVISION[name]
    build: Callable[..., Any] = getattr(torchvision.datasets, class_name)
    *_, cache = roots = _roots()
    for root in roots:
        if root == cache and name == "fashion-mnist" and DEBIAN_FASHION.is_dir() and not (cache / folder).is_dir():
            with contextlib.suppress(OSError):  # an unwritable cache is reported below
                _unpack_debian(cache / folder)
        try:
            return build(str(root), train=True), build(str(root), train=False)
        except Exception as error:  # torchvision's readers raise many kinds on missing and on damaged files
            log.info("%s is not in '%s' (%s).", name, root, _reason(error))
    log.info("Downloading %s into %s", name, cache)
    try:
        cache.mkdir(parents=True, exist_ok=True)
        return build(str(cache), train=True, download=True), build(str(cache), train=False, download=True)
    except Exception as error:
        raise DataError(
            f"Data set '{name}' is not on this machine and could not be downloaded ({_reason(error)}). "
            f"Connect to the internet and try again, put {by_hand} into '{cache / folder}', "
            f"or choose '{SAMPLE}', which needs no download."
        ) from None


def _unpack_debian(folder: Path) -> None:
    """Unpack Debian's copy where torchvision looks for it; its archives are packed anew, so their checksums differ."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    part = Path(tempfile.mkdtemp(prefix=".unpacking-", dir=folder.parent))  # of its own: two first runs may do this
    try:
        for packed in DEBIAN_FASHION.glob("*-ubyte.gz"):
            with gzip.open(packed) as source, open(part / packed.stem, "wb") as target:
                shutil.copyfileobj(source, target)
        part.chmod(0o755)
        part.rename(folder)  # fails if the other was quicker, and its copy is as good
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _from_torchvision(request: Request, train: Any, test: Any, class_names: tuple[str, ...]) -> Dataset:
    splits = []
    for part in (train, test):
        images = np.asarray(part.data)  # MNIST-like: tensor (N,H,W); CIFAR: array (N,H,W,3)
        splits.append(Split(images if images.ndim == 4 else images[..., None], np.asarray(part.targets, np.int64)))
    return _resized(Dataset(request.name, class_names, splits[0], splits[1]), request.resolution)


def _resized(dataset: Dataset, resolution: int | None) -> Dataset:
    if resolution in (None, dataset.resolution):
        return dataset

    def resize(split: Split) -> Split:
        shape = (len(split), resolution, resolution, dataset.channels)
        images = np.empty(shape, np.uint8)
        for i, image in enumerate(split.images):
            images[i] = to_array(image.squeeze(), resolution, dataset.channels)
        return Split(images, split.labels)

    return Dataset(dataset.name, dataset.class_names, resize(dataset.train), resize(dataset.test))


def _reason(error: BaseException) -> str:
    text = str(getattr(error, "reason", None) or error).strip()
    return text.splitlines()[0][:120] if text else type(error).__name__
