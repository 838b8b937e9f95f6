"""Which images a run uses, and what they look like in training: a part of RunConfig."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel

from iekd import data
from iekd.config.methods import known_specs
from iekd.config.settings import setting
from iekd.data.decoding import CROP, Fit

IMAGES = "Images"  # heading of settings


class ImageSettings(BaseModel):
    """The images, their splits and their augmentation."""

    limit_train: int | None = setting(
        None, "use only this many training images, balanced over classes", ge=2, group=IMAGES,
        label="Limit training images", step_time=False, trains_teacher="always",
    )  # fmt: skip
    resolution: int | None = setting(
        None, "side of the square images; unset: the dataset's own", ge=8, le=512, group=IMAGES,
        trains_teacher="always",
    )  # fmt: skip
    augmentation: Literal["crop", "resized-crop", "none"] = setting(
        "crop", "crop: of the padded image, and flip; resized-crop: any part of it, enlarged, and flip",
        group=IMAGES, trains_teacher="if changed",
    )  # fmt: skip
    flip: bool = setting(
        True, "mirror each training image with probability 1/2; turn it off where classes are each other's mirror "
        "images, such as arrows to the left and right", group=IMAGES,
        only_for="the augmentations crop and resized-crop", used_when=lambda config: config.augmentation != "none",
        step_time=False, trains_teacher="if changed",
    )  # fmt: skip
    cutout: int = setting(
        0, "side in pixels of a square hole in each training image; 0: none", ge=0, le=511, group=IMAGES,
        trains_teacher="if changed",
    )  # fmt: skip
    auto_augment: Literal["none", "randaugment", "trivialaugment"] = setting(
        "none", "distort shape and colour of training images; randaugment: two moderate changes of each image; "
        "trivialaugment: one of any strength", group=IMAGES,
        label="Automatic augmentation", trains_teacher="if changed",
    )  # fmt: skip
    colour_jitter: float = setting(
        0.0, "largest change of brightness, contrast and saturation, such as 0.4 for 40 %; 0: none", ge=0, le=1,
        group=IMAGES, trains_teacher="if changed",
    )  # fmt: skip
    random_erasing: float = setting(
        0.0, "share of the training images in which a rectangle is erased, such as 0.25; 0: none", ge=0, le=1,
        group=IMAGES, trains_teacher="if changed",
    )  # fmt: skip
    mixup: float = setting(
        0.0, "mix each training image with another, and their labels; alpha of the shares' Beta distribution, such as "
        "0.2; 0: none", ge=0, le=100, group=IMAGES, trains_teacher="if changed",
    )  # fmt: skip
    cutmix: float = setting(
        0.0, "paste a part of another training image into each, and mix their labels; alpha, such as 1; 0: none; with "
        "mixup, each batch gets one of the two", ge=0, le=100, group=IMAGES, label="CutMix",
        trains_teacher="if changed",
    )  # fmt: skip
    class_weights: Literal["none", "balanced"] = setting(
        "none", "balanced: rare classes count more in the cross-entropy, n / (K n_c) times for n_c of n images in K "
        "classes", group=IMAGES, step_time=False, trains_teacher="if changed",
    )  # fmt: skip
    fit: Fit = setting(
        CROP, "images that are not square: crop cuts out the centre, pad adds black bars, squash distorts them",
        group=IMAGES, label="Images that are not square", only_for="folders of images",
        used_when=lambda config: data.source_of(config.dataset).may_stream, step_time=False,
        trains_teacher="if changed",
    )  # fmt: skip
    class_order: tuple[str, ...] = setting(
        (), "names of all classes in the order of their labels, with commas, or a file of them; text: 1, 10, 2; unset: "
        "by value where all names are numbers, else as text", group=IMAGES, label="Order of the classes",
        step_time=False, trains_teacher="if changed",
    )  # fmt: skip
    validation_fraction: float = setting(
        0.1, "share of the training images held out for validation; 0: none", ge=0, lt=1, group=IMAGES,
        step_time=False, trains_teacher="always",
    )  # fmt: skip
    test_fraction: float = setting(
        0.2, "share held out when a folder has no test/ of its own", gt=0, lt=1, group=IMAGES,
        only_for="folders of images", used_when=lambda config: data.source_of(config.dataset).uses_test_fraction,
        step_time=False,
        trains_teacher="always",
    )  # fmt: skip
    unlabelled: str = setting(
        "", "folder of further images without classes: methods that teach by predictions or features learn from them "
        "too",
        group=IMAGES, label="Unlabelled images", only_for="methods that need no label",
        used_when=lambda config: any(spec.learns_unlabelled for spec in known_specs(config.methods)),
    )  # fmt: skip
    data_seed: int = setting(
        0, "fixes splits, the order of images and their augmentation", ge=0, lt=2**31, group=IMAGES,
        step_time=False, trains_teacher="always",
    )  # fmt: skip
