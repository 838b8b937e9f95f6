"""What is checked of an exported file: its accuracy, how far it is from the original, and how long an answer takes."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from iekd.data.base import Images, Split
from iekd.export.base import Answer, Say

COMPARED = 1000  # images on which the file is compared with the original
PIXELS = 64 * 224 * 224  # of all images of a batch
WARM_UP, ROUNDS, SECONDS = 10, 100, 10.0  # of a latency: answers before it, answers timed, and when to stop earlier
EVERY = 5.0  # seconds between two sentences on progress


@dataclass(frozen=True)
class Latency:
    """Milliseconds that one image takes on one CPU thread, of `answers`. model: whose; runtime: what computes."""

    model: str
    runtime: str
    median: float
    lower_quartile: float
    upper_quartile: float
    answers: int


def spread_over(count: int, wanted: int) -> np.ndarray:
    """Up to so many of `count` rows, evenly spread: images are often stored class by class."""
    return np.unique(np.linspace(0, count - 1, min(count, wanted)).round().astype(np.int64))


def batches(images: Images) -> Iterator[np.ndarray]:
    """Images (N,H,W,C) uint8, also those that are still in their files, as pixels (B,C,H,W)."""
    size = max(1, min(256, PIXELS // int(np.prod(images.shape[1:3]))))
    for i in range(0, len(images), size):
        yield np.ascontiguousarray(images[i : i + size].transpose(0, 3, 1, 2))


def probabilities(answer: Answer, images: Images, say: Say | None = None) -> np.ndarray:
    """(N,K) float32: the answers for all images. say: called now and then with how many are done."""
    found: list[np.ndarray] = []
    done, said = 0, time.monotonic()
    for pixels in batches(images):
        found.append(answer(pixels))
        done += len(pixels)
        if say is not None and time.monotonic() - said > EVERY:
            say(f"{done:,} of {len(images):,} images checked ...")
            said = time.monotonic()
    return np.concatenate(found)


def some_images(split: Split | None, resolution: int, channels: int) -> Images:
    """Images to compare on: of the test split, or without one random pixels, from black to full contrast."""
    if split is not None:
        return split.take(spread_over(len(split), COMPARED)).images
    rng = np.random.default_rng(0)
    contrast = np.linspace(0, 255, 64).reshape(-1, 1, 1, 1)
    return (rng.random((64, resolution, resolution, channels)) * contrast).astype(np.uint8)


def latencies(answers: Mapping[tuple[str, str], Answer], resolution: int, channels: int) -> list[Latency]:
    """Time one image for each of several networks, in turn, so that a busy moment hits all alike.

    Args:
        answers: by (model, runtime); each already set to one thread, or torch's, which is set here.
    """
    pixels = np.random.default_rng(0).integers(0, 256, (1, channels, resolution, resolution)).astype(np.uint8)
    took: dict[tuple[str, str], list[float]] = {whose: [] for whose in answers}
    with one_thread():
        for answer in answers.values():
            for _ in range(WARM_UP):
                answer(pixels)
        began = time.monotonic()
        for i in range(ROUNDS):
            if i >= WARM_UP and time.monotonic() - began > SECONDS:
                break
            for whose, answer in answers.items():
                took[whose].append(_milliseconds(answer, pixels))
    found = []
    for (model, runtime), times in took.items():
        lower, median, upper = (float(q) for q in np.quantile(times, (0.25, 0.5, 0.75)))
        found.append(Latency(model, runtime, median, lower, upper, len(times)))
    return found


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """torch computes on one thread."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _milliseconds(answer: Callable[[np.ndarray], np.ndarray], pixels: np.ndarray) -> float:
    start = time.perf_counter()
    answer(pixels)
    return (time.perf_counter() - start) * 1000
