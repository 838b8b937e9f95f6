"""torchvision's classification sets, by the name of their class: `torchvision:SVHN`; three have short names too.

torchvision verifies what it downloads. Data that are already on this machine are found without asking the network. Sets
that torchvision reads into memory stay there; those of image files are read as folders are, and stay in their files if
they do not fit into memory. What is known of each set is in torchvision_facts.py.
"""

from __future__ import annotations

import contextlib
import gzip
import logging
import os
import re
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from iekd.data.base import Dataset, DatasetInfo, Request, Source, Split
from iekd.data.bundled import SAMPLE, FashionSample
from iekd.data.found import Found, draw_test, drawn_of, files_by_label, load_found, thumbnails_of
from iekd.data.torchvision_facts import FACTS, OTHERS, SCHEME, Facts, Part
from iekd.errors import DataError, closest, unknown_name
from iekd.paths import cache_dir, make_cache_dir

log = logging.getLogger(__name__)

DEBIAN_FASHION = Path("/usr/share/datasets/fashion-mnist")
FILES = ("_samples", "samples", "imgs")  # lists of (path, label)
PHOTOS = 96  # pixels from which on a set is of photographs, which may call for other networks and settings


@dataclass(frozen=True)
class TorchvisionSet(Source):
    """One of torchvision's datasets."""

    facts: Facts

    @property
    def name(self) -> str:  # type: ignore[override]
        return self.facts.called

    @property
    def resolution(self) -> int:  # type: ignore[override]
        return self.facts.resolution

    @property
    def uses_test_fraction(self) -> bool:  # type: ignore[override]
        return not self.facts.test

    @property
    def for_guests(self) -> bool:  # type: ignore[override]
        return bool(self.facts.name)  # others may take many gigabytes

    @property
    def may_stream(self) -> bool:  # type: ignore[override]
        return self.facts.in_files

    def check(self, name: str) -> str:
        return self.name

    def describe(self, name: str, test_fraction: float) -> DatasetInfo:
        facts = self.facts
        train, tested = facts.train_images, facts.test_images
        if not facts.test:
            tested = facts.classes * drawn_of(train // facts.classes, test_fraction)
            train -= tested
        download = f"{facts.download} download" if facts.download else "to be downloaded by hand"
        note = download if facts.name else f"{download}; {facts.paper}; {facts.terms}"
        return DatasetInfo(
            self.name, facts.title, train, tested, facts.classes, facts.channels, facts.resolution, note,
            class_names=facts.class_names, test_is_drawn=not facts.test,
            tested_on="" if facts.test else "drawn by chance",
            side=facts.resolution if facts.resolution >= PHOTOS else 0,
        )  # fmt: skip

    def at_hand(self, name: str) -> bool:
        return any((root / self.facts.folder).exists() for root in _roots())

    def load(self, request: Request) -> Dataset:
        train, test = self._read_or_download()
        names = self.facts.class_names or _class_names(train[0])
        if not self.facts.in_files:
            return self._of_arrays(request, names, train, test)
        request = replace(request, resolution=request.resolution or self.resolution)
        return load_found(self._found(names, train, test), request, self._root(), fingerprint="")

    def thumbnails(self, name: str, per_class: int) -> list[tuple[np.ndarray, str]]:
        if not self.at_hand(name):
            return []
        if not self.may_stream:
            return super().thumbnails(name, per_class)
        train, test = self._read_or_download()
        return thumbnails_of(self._found(self.facts.class_names or _class_names(train[0]), train, test), per_class)

    def root_of(self, name: str) -> Path | None:
        return self._root() if self.may_stream else None

    def _root(self) -> Path:
        """The folder that torchvision is given, of those that have the set the first."""
        roots = _roots()
        return next((root for root in roots if (root / self.facts.folder).exists()), roots[-1])

    def _of_arrays(
        self, request: Request, names: tuple[str, ...], train: Sequence[Any], test: Sequence[Any]
    ) -> Dataset:
        whole = _joined([_pixels(stored, self.facts) for stored in train])
        if test:
            splits = whole, _joined([_pixels(stored, self.facts) for stored in test])
        else:
            rows = draw_test(whole.labels, range(len(names)), request.test_fraction, request.seed)
            splits = whole.take(rows[0]), whole.take(rows[1])
        return Dataset(self.name, names, *splits).resized(request.resolution)

    def _found(self, names: tuple[str, ...], train: Sequence[Any], test: Sequence[Any]) -> Found:
        """The files of a set, with the labels that torchvision gives them."""
        root = str(self._root())
        listed = []
        for parts in filter(None, (train, test)):
            pairs = [pair for stored in parts for pair in _files(stored)]
            paths, labels = [path for path, _ in pairs], [label for _, label in pairs]
            labels = [label - self.facts.first_label for label in labels]
            listed.append(files_by_label(root, paths, labels, len(names)))
        return Found(names, listed[0], listed[1] if test else None)

    def _read_or_download(self) -> tuple[list[Any], list[Any]]:
        """torchvision's (training, test) objects from the first root that has them, else downloaded and verified."""
        import torchvision.datasets

        facts = self.facts
        build: Callable[..., Any] | None = getattr(torchvision.datasets, facts.class_name, None)
        if build is None:
            raise DataError(f"This version of torchvision has no {facts.class_name}. Install a newer one.")
        *_, cache = roots = _roots()
        problem = ""
        for root in roots:
            if root == cache:
                self.fill_cache(cache / facts.folder)
            if not (root / facts.folder).exists():
                continue  # some classes make folders where they look
            try:
                return self._parts(build, root, facts.train), self._parts(build, root, facts.test)
            except Exception as error:  # torchvision's readers raise many kinds on missing and on damaged files
                log.info("%s is not in '%s' (%s).", self.name, root, _reason(error))
                problem = f" What is in '{root / facts.folder}' cannot be read ({_reason(error)})."
        if not facts.download:
            raise DataError(
                f"Dataset '{self.name}' has to be downloaded by hand.{problem} Put "
                f"{facts.by_hand} into '{cache / facts.folder}', or choose '{SAMPLE}', which needs no download."
            )
        log.info("Downloading %s (%s) into %s", self.name, facts.download, cache)
        make_cache_dir(cache / facts.within)
        try:
            return (
                self._parts(build, cache, facts.train, download=True),
                self._parts(build, cache, facts.test, download=True),
            )
        except Exception as error:
            raise DataError(
                f"Dataset '{self.name}' is not on this machine and could not be downloaded ({_reason(error)}). "
                f"Connect to the internet and try again, put {facts.by_hand} into '{cache / facts.folder}', "
                f"or choose '{SAMPLE}', which needs no download."
            ) from None

    def _parts(
        self, build: Callable[..., Any], root: Path, parts: Sequence[Part], download: bool = False
    ) -> list[Any]:  # fmt: skip
        built = []
        for part in parts:
            place = str(root / self.facts.within) if self.facts.within else str(root)
            if download:
                with contextlib.suppress(Exception):  # it may be there: some refuse to download what is
                    built.append(build(place, **self._quietly(part)))
                    continue
            built.append(build(place, **self._quietly(part), **({"download": True} if download else {})))
        return built

    def _quietly(self, part: Part) -> Part:
        """The arguments of a part; one class downloads unless it is told not to."""
        return {**part, "download": False} if self.facts.class_name == "SEMEION" else part

    def fill_cache(self, folder: Path) -> None:
        """Copy what else this machine has of the dataset to where torchvision looks for it."""


class FashionMNIST(TorchvisionSet):
    """Also found where Debian's package `dataset-fashion-mnist` puts it."""

    def at_hand(self, name: str) -> bool:
        return super().at_hand(name) or DEBIAN_FASHION.is_dir()

    def thumbnails(self, name: str, per_class: int) -> list[tuple[np.ndarray, str]]:
        """The test images are the sample's, which can be read without torchvision."""
        return FashionSample().thumbnails(SAMPLE, per_class) if self.at_hand(name) else []

    def fill_cache(self, folder: Path) -> None:
        if DEBIAN_FASHION.is_dir() and not folder.is_dir():
            with contextlib.suppress(OSError):  # a cache that cannot be written is reported by the download
                _unpack_debian(folder)


SETS = {
    facts.class_name: (FashionMNIST if facts.class_name == "FashionMNIST" else TorchvisionSet)(facts)
    for facts in FACTS
}  # fmt: skip
TORCHVISION_SETS: tuple[Source, ...] = tuple(SETS[facts.class_name] for facts in FACTS if facts.name)


def _unusable(asked: str) -> str:
    """The name of the set among OTHERS that is asked for; "" if it may be one of SETS."""
    near = closest(asked, [*SETS, *OTHERS], cutoff=0.8)
    if near:
        return near[0] if near[0] in OTHERS else ""
    begun = [name for name in (*SETS, *OTHERS) if asked and name.lower().startswith(asked.lower())]
    return begun[0] if begun and begun[0] in OTHERS else ""


class Torchvision(Source):
    """All of them, by the names of their classes."""

    name = SCHEME
    usage = f"{SCHEME}CLASS"
    note = f"{len(FACTS)} sets that torchvision knows, such as {SCHEME}Flowers102"

    def of(self, name: str) -> Source:
        return SETS.get(name.removeprefix(SCHEME), self)

    def meant(self, name: str) -> str:
        plain = {re.sub(r"[\W_]", "", key.lower()): source.name for key, source in SETS.items()}
        return plain.get(re.sub(r"[\W_]", "", name.lower()), "")

    def check(self, name: str) -> str:
        asked = name.removeprefix(SCHEME)
        known = {key.lower(): key for key in SETS}
        if asked.lower() in known:
            return SETS[known[asked.lower()]].name
        if other := _unusable(asked):
            usable = f"Those that can be used are {', '.join(SETS)}."
            raise DataError(f"The set {other} of torchvision cannot be used: it {OTHERS[other]}. {usable}")
        advice = "" if asked else f"Those of torchvision are: {', '.join(SETS)}."
        raise unknown_name("dataset", name, [SCHEME + key for key in SETS], advice)

    def prepare(self, name: str) -> str:
        return self.check(name)

    def describe(self, name: str, test_fraction: float) -> DatasetInfo:
        return SETS[self.check(name).removeprefix(SCHEME)].describe(name, test_fraction)

    def load(self, request: Request) -> Dataset:
        return SETS[self.check(request.name).removeprefix(SCHEME)].load(request)

    def thumbnails(self, name: str, per_class: int) -> list[tuple[np.ndarray, str]]:
        return SETS[self.check(name).removeprefix(SCHEME)].thumbnails(name, per_class)


def _pixels(stored: Any, facts: Facts) -> Split:
    """A set that torchvision has in memory: tensors (N,H,W) as of MNIST, arrays (N,H,W,3) as of CIFAR, or (N,3,H,W)."""
    if not hasattr(stored, "data"):  # FER 2013 keeps pairs of pixels and label
        if any(label is None for _, label in stored._samples):
            raise DataError(
                f"The test images of '{facts.called}' have no labels in 'test.csv'. Put {facts.by_hand} there instead."
            )
        images = np.stack([np.asarray(image) for image, _ in stored._samples])
        labels = np.array([label for _, label in stored._samples], np.int64)
    else:
        images = np.asarray(stored.data)
        labels = np.asarray(stored.targets if hasattr(stored, "targets") else stored.labels, np.int64)
    if labels.ndim == 2:  # QMNIST's say who wrote it as well
        labels = np.ascontiguousarray(labels[:, 0])
    if images.ndim == 3:
        images = (images.transpose(0, 2, 1) if facts.on_its_side else images)[..., None]
    elif images.shape[1] == 3 and images.shape[3] != 3:
        images = images.transpose(0, 2, 3, 1)
    return Split(np.ascontiguousarray(images), labels)


def _joined(splits: Sequence[Split]) -> Split:
    whole = splits[0]
    for split in splits[1:]:
        whole = whole.joined(split)
    return whole


def _files(stored: Any) -> list[tuple[str, int]]:
    """(path, label) of each image of a set whose images stay in their files."""
    for attribute in FILES:
        if (pairs := getattr(stored, attribute, None)) is not None:
            return [(str(path), int(label)) for path, label in pairs]
    if (categories := getattr(stored, "all_categories", None)) is not None:  # iNaturalist
        return [(os.path.join(stored.root, categories[k], file), k) for k, file in stored.index]
    if (categories := getattr(stored, "categories", None)) is not None:  # Caltech 101 and 256
        inner = next(f for f in ("101_ObjectCategories", "256_ObjectCategories") if Path(stored.root, f).is_dir())
        name = "image_{1:04d}.jpg" if inner.startswith("101") else "{0:03d}_{1:04d}.jpg"
        return [
            (os.path.join(stored.root, inner, categories[k], name.format(k + 1, i)), int(k))
            for k, i in zip(stored.y, stored.index, strict=True)
        ]
    paths = getattr(stored, "_image_files", None) or getattr(stored, "_images", None)
    if paths is None:
        raise DataError(f"This version of torchvision stores {type(stored).__name__} in a way that is not known here.")
    return [(str(path), int(label)) for path, label in zip(paths, stored._labels, strict=True)]


def _class_names(stored: Any) -> tuple[str, ...]:
    """The names of the classes of one of torchvision's objects, each once."""
    found = (getattr(stored, key, None) for key in ("classes", "categories", "all_categories"))
    listed = next(names for names in found if names is not None)
    words = [tuple(map(str, name)) if isinstance(name, (tuple, list)) else (str(name),) for name in listed]
    names = [some[0] for some in words]  # of ImageNet's synonyms the first
    for longer in ([", ".join(some) for some in words], [f"{some[0]} ({k})" for k, some in enumerate(words)]):
        count = Counter(names)
        names = [name if count[name] == 1 else longer[k] for k, name in enumerate(names)]
    return tuple(names)


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
