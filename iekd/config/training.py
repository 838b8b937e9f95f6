"""What is trained on what, and how: the first part of RunConfig."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, Field

from iekd.config.settings import Share, setting

OPTIMISER = "Optimiser"  # heading of settings
SGD = "the optimiser sgd"


def _uses_sgd(config: TrainingSettings) -> bool:
    return config.optimizer == "sgd"


class TrainingSettings(BaseModel):
    """The networks, the dataset, the methods, and how they are trained."""

    dataset: str = setting(
        "fashion-mnist-sample", "name of a dataset, folder:PATH, csv:FILE, torchvision:CLASS or hf:ORG/NAME",
        trains_teacher="always",
    )  # fmt: skip
    teacher: str = setting("resnet20", "model that teaches; 'none' for labels only", trains_teacher="always")
    student: str = setting("resnet8", "model to train, once per method and seed")
    methods: tuple[str, ...] = setting(("baseline", "ie-ft"), "how students are taught", min_length=1)
    seeds: tuple[Annotated[int, Field(ge=0, lt=2**31)], ...] = setting(
        (0,), "one student per method and seed; fixes its initial weights", min_length=1, max_length=64,
        step_time=False,
    )  # fmt: skip
    epochs: int = setting(10, "passes over the training images", ge=1, le=10_000, step_time=False)
    batch_size: int = setting(128, "images per step", ge=2, le=65_536, group=OPTIMISER, trains_teacher="always")
    optimizer: Literal["sgd", "adamw"] = setting(
        "sgd", "sgd: with momentum, for networks with batch norm; adamw: for transformers, ConvNeXt and pretrained "
        "networks; give it a learning rate of its own", group=OPTIMISER, label="Optimiser",
        trains_teacher="if changed",
    )  # fmt: skip
    lr: float = setting(
        0.1, "peak learning rate; usual with sgd: 0.01 to 0.1; with adamw: 0.0001 to 0.001", gt=0, le=100,
        group=OPTIMISER, label="Learning rate", step_time=False, trains_teacher="always",
    )  # fmt: skip
    momentum: float = setting(
        0.9, "momentum of sgd", ge=0, lt=1, group=OPTIMISER, only_for=SGD, used_when=_uses_sgd, step_time=False,
        trains_teacher="always",
    )  # fmt: skip
    nesterov: bool = setting(
        True, "momentum in Nesterov's form", group=OPTIMISER, only_for=SGD, used_when=_uses_sgd, step_time=False,
        trains_teacher="always",
    )  # fmt: skip
    weight_decay: float = setting(
        5e-4, "weight decay; usual with adamw: 0.01 to 0.05, which biases and norms are then spared", ge=0, le=1,
        group=OPTIMISER, step_time=False, trains_teacher="always",
    )  # fmt: skip
    schedule: Literal["one-cycle", "cosine", "multi-step"] = setting(
        "one-cycle", "learning rate over the run; multi-step divides it by 10 at the milestones", group=OPTIMISER,
        step_time=False, trains_teacher="always",
    )  # fmt: skip
    milestones: tuple[Share, ...] = setting(
        (0.5, 0.75), "where multi-step divides, as shares of the run (the paper's: half, 3/4)", min_length=1,
        group=OPTIMISER, only_for="the multi-step schedule", used_when=lambda config: config.schedule == "multi-step",
        step_time=False, trains_teacher="always",
    )  # fmt: skip
    warm_up: float = setting(
        0.0, "share of the run in which the learning rate rises from near 0, such as 0.05; 0: none", ge=0, lt=1,
        group=OPTIMISER, only_for="the schedules cosine and multi-step; one-cycle has one of its own",
        used_when=lambda config: config.schedule != "one-cycle", step_time=False, trains_teacher="if changed",
    )  # fmt: skip
    label_smoothing: float = setting(
        0.0, "share of each label that is spread over all classes, such as 0.1; 0: none", ge=0, lt=1, group=OPTIMISER,
        step_time=False, trains_teacher="if changed",
    )  # fmt: skip
    clip_norm: float = setting(
        0.0, "largest gradient norm, such as 1; longer gradients are scaled down; 0: no limit", ge=0, le=1e6,
        group=OPTIMISER, label="Clip gradients", trains_teacher="if changed",
    )  # fmt: skip
    ema: float = setting(
        0.0, "decay of a moving average of the weights, such as 0.999, which is tested and saved in their place; "
        "0: none", ge=0, lt=1, group=OPTIMISER, label="Average of the weights", trains_teacher="if changed",
    )  # fmt: skip
    patience: int = setting(
        0, "epochs without a better validation accuracy after which a network stops learning; what is tested and saved "
        "is its best epoch; 0: never, and the last epoch counts", ge=0, le=10_000, group=OPTIMISER,
        label="Early stopping", step_time=False, trains_teacher="if changed",
    )  # fmt: skip
    drop_last: bool = setting(
        True, "skip the last, smaller batch of each epoch", group=OPTIMISER,
        label="Leave out the smaller batch", step_time=False, trains_teacher="if changed",
    )  # fmt: skip
