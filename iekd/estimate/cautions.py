"""What to say before a run starts of a dataset that is too small for its settings. Needs no torch."""

from __future__ import annotations

from dataclasses import dataclass

from iekd.config.run import RunConfig
from iekd.data.base import DatasetInfo, held_out_of
from iekd.engine.scoring import interval
from iekd.plural import counted

FEW_STEPS = 10  # an epoch
SMALLEST_BATCH = 8  # batch norm needs a few images for its statistics
# points between which and its middle a test accuracy of 50 % may lie: more of them are worth a word, or mean nothing
UNCERTAIN, WORTHLESS = 10.0, 25.0
HIGH_FOR_ADAMW = 0.02  # learning rate
HIGH_FOR_TRAINED = {"sgd": 0.02, "adamw": 0.002}  # learning rates above which weights that are not random suffer
USUAL_FOR_TRAINED = {"sgd": 0.005, "adamw": 0.0005}
SHOWN = {"sgd": "SGD", "adamw": "AdamW"}


@dataclass(frozen=True)
class Caution:
    """A sentence or two; serious: the result will mean nothing."""

    text: str
    serious: bool = False

    def __str__(self) -> str:
        return self.text


def learned_from(config: RunConfig, info: DatasetInfo) -> int:
    """Training images without those that are held out for validation."""
    given = min(info.train_images, config.limit_train or info.train_images)
    sizes = info.class_sizes if given == info.train_images else ()  # of a limit, about as much from each class
    each = sizes or [given // max(1, info.classes)] * info.classes
    return given - sum(held_out_of(n, config.validation_fraction) for n in each)


def cautions(
    config: RunConfig, learned: int, tested: int, images: str = "images", fitting: int | None = None,
    fine_tunes: bool = False,
) -> list[Caution]:  # fmt: skip
    """What makes a run with so many images to learn from and to test on worth little; zero: not known yet.

    fitting: the largest batch size that fits into memory, where the run's own does not; 0: none does. fine_tunes:
    whether its teacher begins with somebody's weights, which may depend on what is in a file.
    """
    found = [
        few_steps(config, learned, images, fitting), few_test_images(tested, images),
        high_rate(config) or high_for_students(config), high_for_teacher(config, fine_tunes), alike_seeds(config),
    ]  # fmt: skip
    return [caution for caution in found if caution is not None]


def largest_batch(learned: int) -> int:
    """The largest power of two that makes ten steps an epoch, or the smallest sensible one where none does."""
    size = SMALLEST_BATCH
    while learned // (2 * size) >= FEW_STEPS:
        size *= 2
    return size


def enough_steps(config: RunConfig, learned: int) -> int | None:
    """The batch size that would give ten steps an epoch, or the smallest sensible one; None where the run's own need
    not change."""
    size, batch = largest_batch(learned), min(config.batch_size, learned)
    return None if not learned or learned // batch >= FEW_STEPS or size >= batch else size


def few_steps(config: RunConfig, learned: int, images: str = "images", fitting: int | None = None) -> Caution | None:
    """An epoch leaves out the last, smaller batch; a batch larger than the training split takes all of it.

    fitting: see `cautions`. The size that is named makes enough steps and fits into memory as well.
    """
    size = enough_steps(config, learned)
    if size is None:
        return None
    batch = min(config.batch_size, learned)
    size = size if fitting is None else min(size, fitting)
    steps, rest = divmod(learned, batch)
    if not config.drop_last:
        steps, rest = steps + (rest > 1), rest if rest == 1 else 0
    advice = f"Batch size {size} makes {learned // size}." if size else "A smaller one does not fit into memory either."
    if size and learned // size <= steps:
        advice = f"No sensible batch size makes more of so few: add {images}."
    left_out = f" and leaves out {rest:,} of them each time" if rest else ""
    return Caution(
        f"Batch size {config.batch_size} makes {counted(steps, 'step')} an epoch of {learned:,} training "
        f"{images}{left_out}, so little will be learned. {advice}"
    )


def few_test_images(tested: int, images: str = "images") -> Caution | None:
    """By the 95 % interval of a test accuracy of 50 %."""
    if not tested:
        return None
    low, high = interval(tested / 2, tested)
    if high - low < 2 * UNCERTAIN:
        return None
    serious = high - low > 2 * WORTHLESS
    means = "the test accuracy means nothing" if serious else "the test accuracy is a rough one"
    return Caution(
        f"With {tested:,} test {images if tested > 1 else images[:-1]} {means}: 50 % may be anything from {low:.0f} to "
        f"{high:.0f} % on others like them (95 % interval). Add {images}, or set aside more for testing.",
        serious,
    )


def alike_seeds(config: RunConfig) -> Caution | None:
    """Students that begin with somebody's weights differ by their seeds in what is new of them only, often nothing."""
    if not config.student_from or len(config.seeds) < 2:
        return None
    return Caution(
        f"All {len(config.seeds)} seeds begin with the same weights and see the same batches. They differ only in what "
        "is new and random, such as a new last layer, so how far they lie apart says little about how sure the result "
        "is. Train one seed, or runs with other values of data-seed."
    )


def high_rate(config: RunConfig) -> Caution | None:
    """AdamW with a learning rate that is one of SGD, such as the default."""
    if config.optimizer != "adamw" or config.lr < HIGH_FOR_ADAMW:
        return None
    return Caution(
        f"Learning rate {config.lr:g} is far above what AdamW is used with, 0.0001 to 0.001: the students will hardly "
        "learn. Set a smaller one."
    )


def high_for_students(config: RunConfig) -> Caution | None:
    """A learning rate for random weights, such as the default of SGD, where students begin with trained ones."""
    return _high_for_trained(config, config.lr, "the students begin", "lr") if config.student_from else None


def high_for_teacher(config: RunConfig, fine_tunes: bool) -> Caution | None:
    """The same for a teacher that is fine-tuned."""
    rate = config.teacher_lr or config.lr
    return _high_for_trained(config, rate, "the teacher begins", "teacher-lr") if fine_tunes else None


def _high_for_trained(config: RunConfig, rate: float, who: str, option: str) -> Caution | None:
    if rate <= HIGH_FOR_TRAINED[config.optimizer]:
        return None
    return Caution(
        f"{SHOWN[config.optimizer]} with learning rate {rate:g} is for random weights: it spoils much of the trained "
        f"ones that {who} with. Set {option} to about {USUAL_FOR_TRAINED[config.optimizer]:g}."
    )
