"""The registry of sources: from a dataset's name to whoever describes and loads it.

A name is that of a source with one dataset, such as "cifar10", or a scheme and what it means there, such as
"folder:PATH". Nothing else in the package looks at how a name begins.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from iekd.data.base import Dataset, DatasetInfo, Progress, Request, Source, check_order
from iekd.data.bundled import CifarSample, FashionSample
from iekd.data.decoding import CROP
from iekd.data.duplicates import repeated_note
from iekd.data.folder import CsvTable, Folder
from iekd.data.hub_sets import HubDatasets
from iekd.data.torchvision_sets import TORCHVISION_SETS, Torchvision
from iekd.errors import DataError, UnknownNameError, did_you_mean, unknown_name
from iekd.plugins import VARIABLE, load_plugins, remember

log = logging.getLogger(__name__)

AS_TEXT = "text"  # the order of class names as text: 1, 10, 2

_SOURCES: dict[str, Source] = {}


def register(source: Source) -> Source:
    """Add a source of datasets; it takes the place of one with the same name.

    Args:
        source: an object with the attributes and functions of `Source`. Its name is that of its one dataset, or the
            scheme before the colon.
    Returns:
        The same object.

    Example:
        register(MyShapes())  # then `iekd train --dataset my-shapes`
    """
    _SOURCES[source.name] = source
    remember(type(source).__module__)
    return source


for _source in (FashionSample(), CifarSample(), *TORCHVISION_SETS, Folder(), CsvTable(), Torchvision(), HubDatasets()):
    register(_source)


def sources() -> list[Source]:
    """Every source, in the order in which they are shown."""
    load_plugins()
    return list(_SOURCES.values())


def source_of(name: str) -> Source:
    """The source of a dataset, by the dataset's name.

    Raises:
        UserError: no source has that name; the message has the closest one.
    """
    found = _find(name)
    if found is None:
        advice = f"A source of your own has to be in a module that {VARIABLE} names."
        if ":" not in name:
            advice = f"If '{name}' is a folder of images, write '{Folder.name}{name}'. {advice}"
        if meant := list(filter(None, (source.meant(name) for source in sources()))):
            raise UnknownNameError(f"Unknown dataset '{name}'. {did_you_mean(meant)}", "dataset", name)
        raise unknown_name("dataset", name, [source.usage or source.name for source in sources()], advice)
    return found


def _find(name: str) -> Source | None:
    scheme, colon, _ = name.partition(":")
    keys = (name, scheme + colon)
    if not any(key in _SOURCES for key in keys):  # plugins may take seconds to import
        load_plugins()
    return next((_SOURCES[key].of(name) for key in keys if key in _SOURCES), None)


def available() -> list[DatasetInfo]:
    """The datasets that have names of their own, in the order in which they are shown."""
    return [source.describe(source.name, 0.2) for source in sources() if not source.usage]


def part_at_hand(names: Sequence[str]) -> str:
    """Of some datasets and the parts of them that have names, the first that needs no download, parts first; "" if
    there is none, or nobody knows these names."""
    parts = [info.name for info in available() if info.part_of in names]
    known = ((name, _find(name)) for name in (*parts, *names))
    return next((name for name, source in known if source is not None and source.at_hand(name)), "")


# Questions that a name alone answers: no file is read.


def check_name(name: str) -> str:
    """Return the name in the form in which runs store it. Whether there is such a dataset, `prepare` finds out.

    Raises:
        UserError: no source has that name, or the source has no dataset that could be called so.
    """
    return source_of(name).check(name)


def title_of(name: str) -> str:
    """The dataset's name on the page. A name that nobody knows (any more) is its own title."""
    source = _find(name)
    return name if source is None else source.title(name)


def for_guests(name: str) -> bool:
    """Whether a stranger to this machine may have it downloaded."""
    source = _find(name)
    return source is None or source.for_guests


def own_path(name: str) -> Path | None:
    """The folder of the user's own files that a name points to; None if it points to nobody's, or is no name at all."""
    source = _find(name)
    return None if source is None else source.own_path(name)


def short_name(name: str) -> str:
    """The name for a narrow table: of the user's own files only the last part of the path."""
    path = own_path(name)
    return name if path is None else f"{name.partition(':')[0]}:.../{path.name}"


def relative_name(name: str, file: str) -> str:
    """What a file of the dataset is called inside of it; as it is given if it does not lie there."""
    source = _find(name)
    path = None if source is None else source.root_of(name)
    return file if path is None else file.removeprefix(str(path / "x")[:-1])


# Questions that may need the disk.


def prepare(name: str) -> str:
    """The name by which a dataset is described and loaded: links are followed, an archive is unpacked.

    Raises:
        UserError: there is no such dataset.
    """
    return source_of(name).prepare(name)


def own_files(name: str) -> Sequence[Path]:
    """The user's own files without which another machine could not load the dataset; none if it has none.

    Raises:
        DataError: there is no such dataset.
    """
    source = _find(name)
    return () if source is None else source.own_files(name)


def describe(name: str, test_fraction: float = 0.2, class_order: Sequence[str] = ()) -> DatasetInfo:
    """What is known of a dataset without opening it; of a folder, the files are counted.

    Args:
        name: the name of a dataset, or a scheme and what it means there, such as `folder:PATH`.
        test_fraction, class_order: see `load`.
    Raises:
        UserError: there is no such dataset, its source counts nothing, or the order does not fit its classes.
    """
    source = source_of(name)
    info = source.describe(source.prepare(name), test_fraction)
    for count in ("train_images", "test_images", "classes", "channels", "resolution"):
        if getattr(info, count) < 1:
            raise DataError(
                f"The source of '{name}' cannot be used: its {count} are {getattr(info, count)}, before anything is "
                "loaded. Correct its 'describe'."
            )
    if not class_order or not info.class_names:
        return info
    order = _order(class_order, info.class_names)
    check_order(order, info.class_names, name)
    rows = [info.class_names.index(class_name) for class_name in order]
    return replace(
        info, class_names=order, class_sizes=tuple(info.class_sizes[k] for k in rows if info.class_sizes),
        test_sizes=tuple(info.test_sizes[k] for k in rows if info.test_sizes),
    )  # fmt: skip


def load(
    name: str, *, resolution: int | None = None, test_fraction: float = 0.2, seed: int = 0,
    image_memory: float | None = None, cache: bool = True, progress: Progress | None = None, fit: str = CROP,
    class_order: Sequence[str] = (),
) -> Dataset:  # fmt: skip
    """Load a dataset into memory, downloading it into the cache folder if necessary.

    Args:
        name: the name of a dataset, or a scheme and what it means there, such as `folder:PATH`.
        resolution: side of the square images; None for the dataset's own.
        test_fraction, seed: how a folder without `test/` is split.
        image_memory: GB that a folder's decoded images may take, else they stay in their files; None for half of the
            free memory.
        cache: if decoding a folder takes a while, store the decoded images in the cache folder for the next time;
            never done for what was uploaded to a page, which is removed with its runs.
        progress: called with (files of a folder that are decoded, all of them); what it raises ends the loading.
        fit: what becomes of a folder's images that are not square, see `decoding.to_array`.
        class_order: names of all classes in the order of their labels, or `AS_TEXT` alone; none: the source's own.
    Raises:
        DataError: it cannot be loaded; the message says what to do.
    """
    source = source_of(name)
    request = Request(source.prepare(name), resolution, test_fraction, seed, image_memory, cache, progress, fit)
    dataset = _checked(source.load(request), request)
    if class_order:
        dataset = dataset.ordered(_order(class_order, dataset.class_names))
    dataset = replace(dataset, notes=(*dataset.notes, *repeated_note(dataset.train, dataset.test)))
    for note in dataset.notes:
        log.warning("%s", note)
    return dataset


def _order(asked: Sequence[str], class_names: Sequence[str]) -> tuple[str, ...]:
    return tuple(sorted(class_names) if tuple(asked) == (AS_TEXT,) else asked)


def thumbnails(name: str, per_class: int = 1) -> list[tuple[np.ndarray, str]]:
    """A few test images, each (H,W,C) uint8 with its class name; none if they would have to be downloaded first."""
    source = source_of(name)
    return source.thumbnails(source.prepare(name), per_class)


def _checked(dataset: Dataset, request: Request) -> Dataset:
    """What a source has loaded, if it has the shape that training relies on. Sources may be anybody's."""
    side = request.resolution or dataset.resolution

    def refuse(what: str) -> DataError:
        return DataError(f"The source of '{request.name}' cannot be used: {what}. Correct its 'load'.")

    for split in (dataset.train, dataset.test):
        shape, labels = tuple(split.images.shape), split.labels
        if split.images.dtype != np.uint8 or len(shape) != 4 or shape[1:3] != (side, side) or shape[3] not in (1, 3):
            raise refuse(f"its images are {shape} {split.images.dtype} and should be (N, {side}, {side}, 1 or 3) uint8")
        if not shape[0]:
            raise refuse("a split has no images, and there should be some to train on and some to test on")
        if labels.dtype != np.int64 or labels.shape != shape[:1]:
            raise refuse(f"its labels are {labels.shape} {labels.dtype} and should be ({shape[0]},) int64")
        if labels.min() < 0 or labels.max() >= len(dataset.class_names):
            raise refuse(
                f"a label is {labels.min()} or {labels.max()}, and there are {len(dataset.class_names)} classes"
            )
    return dataset
