"""What may be the reason of a poor result, found in the images and the predictions: facts, no guesses.

A reason is a sentence that ends with what to do. Where none is found, nothing is said.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping

import numpy as np

from iekd.config.run import RunConfig
from iekd.data.base import Dataset, Split
from iekd.data.decoding import CROP
from iekd.data.header_notes import LONG
from iekd.plural import counted

CONFUSED = 0.25  # share of two classes' images that are taken for the other of the two
CLEARLY, ALIKE = 3.0, 0.4  # of the squared difference of two mean images: over chance, and left when one is mirrored
EACH = 100  # training images of a class that are looked at
FEW_STEPS = 200  # of training
REDUCED = 3  # times as many pixels on the shorter side in the file as the network sees
SAMPLE = 20  # files whose size is looked up


def find_reasons(config: RunConfig, dataset: Dataset, answers: Mapping[str, np.ndarray], guessing: bool) -> list[str]:
    """Sentences, the most telling first.

    Args:
        dataset: as it was trained on.
        answers: network -> (N,) predicted classes of the test images.
        guessing: whether the result is poor as a whole. Else only mirrored classes are looked for.
    """
    found = [mirrored_classes(config, dataset, answers)]
    if guessing:
        sizes = _file_sizes(dataset)
        found += [cut_off(sizes, dataset.fit), too_few_steps(config, dataset), too_small(sizes, dataset.resolution)]
    return [reason for reason in found if reason]


def mirrored_classes(config: RunConfig, dataset: Dataset, answers: Mapping[str, np.ndarray]) -> str:
    """Two classes that the networks confuse, and whose images are each other's mirror images."""
    if not config.flip or config.augmentation == "none":
        return ""
    labels, classes = dataset.test.labels, len(dataset.class_names)
    for predictions in answers.values():
        counts = np.zeros((classes, classes), np.int64)
        np.add.at(counts, (labels, predictions), 1)
        size = counts.sum(1)
        swapped = counts + counts.T
        np.fill_diagonal(swapped, 0)
        for place in np.argsort(swapped, axis=None)[::-1][:classes]:
            a, b = divmod(int(place), classes)
            if a >= b or swapped[a, b] <= CONFUSED * (size[a] + size[b]):
                continue
            if mirror_each_other(dataset.train, a, b):
                one, other = dataset.class_names[a], dataset.class_names[b]
                share = swapped[a, b] / (size[a] + size[b])
                return (
                    f"{share:.0%} of the test images of '{one}' and '{other}' are taken for the other of the two, and "
                    "their images are each other's mirror images. Training mirrors images at random, so they cannot "
                    "be told apart: switch that off (flip; --no-flip)."
                )
    return ""


def mirror_each_other(train: Split, a: int, b: int) -> bool:
    """Whether the mean images of two classes differ, and hardly do once one of them is mirrored.

    Where images of the classes vary so much that their means say nothing, the answer is no.
    """
    chosen = [np.flatnonzero(train.labels == k)[:EACH] for k in (a, b)]
    if not all(map(len, chosen)):
        return False
    one, other = (np.asarray(train.images[rows], np.float32) for rows in chosen)  # (n,H,W,C)
    apart = ((one.mean(0) - other.mean(0)) ** 2).mean()
    mirrored = ((one[:, :, ::-1].mean(0) - other.mean(0)) ** 2).mean()
    by_chance = (one.var(0) / len(one) + other.var(0) / len(other)).mean()  # how far means of equal images are apart
    return bool(apart > CLEARLY * by_chance and mirrored < ALIKE * apart)


def too_few_steps(config: RunConfig, dataset: Dataset) -> str:
    """The number of steps, where it is small."""
    per_epoch = max(1, len(dataset.train) // min(config.batch_size, len(dataset.train)))
    steps = config.epochs * per_epoch
    if steps >= FEW_STEPS:
        return ""
    return (
        f"Training took only {counted(steps, 'step')} ({counted(config.epochs, 'epoch')} of {per_epoch}). "
        "Train for more epochs, or with a smaller batch size."
    )


def too_small(sizes: list[tuple[int, int]], side: int) -> str:
    """The side at which the networks see the images, where the files have many more pixels."""
    shorter = statistics.median(map(min, sizes)) if sizes else 0
    if shorter < REDUCED * side:
        return ""
    return (
        f"The networks see the images at {side} x {side} pixels, but the files have {shorter:.0f} on "
        f"their shorter side, so details are lost. Set resolution {2 * side} or more."
    )


def cut_off(sizes: list[tuple[int, int]], fit: str) -> str:
    """How much longer than wide the images are, where their ends are cut off."""
    longer = statistics.median(max(size) / max(1, min(size)) for size in sizes) if sizes else 1.0
    if fit != CROP or longer < LONG:
        return ""
    return (
        f"The images are {longer:.1f} times as long as wide, and only a square from their centre was used. Use all of "
        "them: set fit to pad or squash (--fit)."
    )


def _file_sizes(dataset: Dataset) -> list[tuple[int, int]]:
    """(width, height) of some files; none if the images did not come from files."""
    from PIL import Image

    files, sizes = dataset.train.image_files, []
    if files is None or not len(files):
        return []
    for i in np.linspace(0, len(files) - 1, min(SAMPLE, len(files))).astype(int):
        try:
            with Image.open(files[int(i)]) as image:
                sizes.append(image.size)
        except (OSError, ValueError):
            continue
    return sizes
