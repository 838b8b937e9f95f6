"""What a run is asked to do: frozen, documented field by field, checked once where it enters.

The same object is the page's form, the command line's options and `config.json` in the run folder. This module knows
names and ranges only; it imports neither torch nor Gradio.
"""

from __future__ import annotations

import shlex
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from iekd import data
from iekd.errors import UserError, unknown_name
from iekd.models.catalog import check_model
from iekd.models.source import AUTO, check_normalisation, check_source, is_file

METHODS = {
    "baseline": "Labels only",
    "kd": "Knowledge distillation: the teacher's softened answers (Hinton et al. 2015)",
    "ft": "Factor transfer: all channels imitate the teacher's factor (Kim et al. 2018)",
    "ie-ft": "Inheritance + exploration: half imitates the teacher's factor, half moves away (Huang et al. 2021)",
}
NO_TEACHER = "none"

Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Weight = Annotated[float, Field(ge=0, le=1e6, allow_inf_nan=False)]


class RunConfig(BaseModel):
    """Everything that decides a run's result, apart from the machine.

    Two runs with equal configurations on one machine give equal metrics on the CPU.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    dataset: str = Field("fashion-mnist-sample", description="name of a data set, or folder:PATH")
    teacher: str = Field("resnet20", description="model that teaches; 'none' for labels only")
    student: str = Field("resnet8", description="model to train, once per method and seed")
    methods: tuple[str, ...] = Field(("baseline", "ie-ft"), min_length=1, description="how students are taught")
    seeds: tuple[Annotated[int, Field(ge=0, lt=2**31)], ...] = Field(
        (0,), min_length=1, max_length=64, description="one student per method and seed; fixes its initial weights"
    )
    epochs: int = Field(10, ge=1, le=10_000, description="passes over the training images")
    batch_size: int = Field(128, ge=2, le=65_536, description="images per step")
    lr: float = Field(0.1, gt=0, le=100, description="peak learning rate of SGD")
    momentum: float = Field(0.9, ge=0, lt=1, description="Nesterov momentum of SGD")
    weight_decay: float = Field(5e-4, ge=0, le=1, description="weight decay of SGD")
    schedule: Literal["one-cycle", "cosine", "multi-step"] = Field(
        "one-cycle", description="learning rate over the run; multi-step divides by 10 at 1/2 and 3/4 (the paper's)"
    )
    inheritance_weight: Weight = Field(500.0, description="weight of the inheritance loss")
    exploration_weight: Weight = Field(50.0, description="weight of the exploration loss")
    factor_weight: Weight = Field(500.0, description="weight of the factor transfer loss (ft)")
    temperature: Positive = Field(4.0, description="softening of kd's targets")
    kd_weight: float = Field(0.9, ge=0, le=1, description="share of kd's soft targets; the labels get the rest")
    auto_encoder_epochs: int = Field(3, ge=1, le=10_000, description="passes that train the auto-encoder")
    teacher_epochs: int = Field(30, ge=1, le=10_000, description="passes that train a teacher where none is at hand")
    teacher_from: str = Field(
        AUTO, description="auto: the shipped one, one of an earlier run, or train it; train: train it anew; run:ID or "
        "run:ID/LEARNER: of that run; else the path of a file of weights or of a model's folder"
    )  # fmt: skip
    teacher_mean: tuple[float, ...] | None = Field(
        None, description="mean of the pixels (0..1) that a teacher's file was trained with; unset: the data set's own"
    )
    teacher_std: tuple[float, ...] | None = Field(None, description="standard deviation that belongs to teacher-mean")
    limit_train: int | None = Field(None, ge=2, description="use only this many training images, balanced over classes")
    test_fraction: float = Field(0.2, gt=0, lt=1, description="share held out when a folder has no test/ of its own")
    resolution: int | None = Field(
        None, ge=8, le=512, description="side of the square images; unset: the data set's own"
    )
    data_seed: int = Field(0, ge=0, lt=2**31, description="fixes splits, the order of images and their augmentation")
    device: Literal["auto", "cpu", "cuda", "mps"] = Field("auto", description="where to train")
    precision: Literal["auto", "fp32", "bf16"] = Field("auto", description="auto: bf16 where the hardware has it")
    name: str = Field("", max_length=80, description="a label of your own for the list of runs")

    @field_validator("dataset")
    @classmethod
    def _dataset_exists(cls, value: str) -> str:
        return data.check_name(value)

    @field_validator("teacher", "student")
    @classmethod
    def _model_exists(cls, value: str, info: Any) -> str:
        if info.field_name == "teacher" and value == NO_TEACHER:
            return value
        return check_model(value)

    @field_validator("methods")
    @classmethod
    def _methods_exist(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for method in value:
            if method not in METHODS:
                raise unknown_name("method", method, METHODS)
        return _distinct("method", value)

    @field_validator("seeds")
    @classmethod
    def _seeds_differ(cls, value: tuple[int, ...]) -> tuple[int, ...]:
        return _distinct("seed", value)

    @model_validator(mode="after")
    def _teacher_where_needed(self) -> RunConfig:
        taught = [m for m in self.methods if m != "baseline"]
        if taught and self.teacher == NO_TEACHER:
            raise UserError(f"Method '{taught[0]}' needs a teacher, but teacher is 'none'. Name one, such as resnet20.")
        return self

    @field_validator("teacher_from")
    @classmethod
    def _source_exists(cls, value: str) -> str:
        return check_source(value)

    @model_validator(mode="after")
    def _source_fits(self) -> RunConfig:
        if self.teacher_from != AUTO and not self.needs_teacher:
            raise UserError(f"Teacher from '{self.teacher_from}' is given, but teacher is 'none'. Name its model.")
        check_normalisation(self.teacher_mean, self.teacher_std, "teacher ")
        if self.teacher_mean and not is_file(self.teacher_from):
            raise UserError(
                "Teacher mean and std are for a teacher's file only; other teachers bring their own. "
                "Leave them out, or give the file as teacher from."
            )
        return self

    @property
    def needs_teacher(self) -> bool:
        return self.teacher != NO_TEACHER

    @property
    def needs_auto_encoder(self) -> bool:
        return any(method in ("ft", "ie-ft") for method in self.methods)

    @property
    def learner_names(self) -> list[tuple[str, int]]:
        """(method, seed) of every learner, in the order of training."""
        return [(method, seed) for seed in self.seeds for method in self.methods]

    def command_line(self) -> str:
        """The `iekd train` command that gives this run: what people change most, and whatever is not at its default."""
        words = ["iekd", "train"]
        always = ("dataset", "teacher", "student", "methods", "seeds", "epochs")
        for field, info in RunConfig.model_fields.items():
            value = getattr(self, field)
            if value == info.default and field not in always:
                continue
            words += ["--" + field.replace("_", "-"), shlex.quote(_as_option(value))]
        return " ".join(words)


def learner_name(method: str, seed: int) -> str:
    """The key of one learner in metrics, folders and reports."""
    return f"{method}-seed{seed}"


def make_config(**values: Any) -> RunConfig:
    """Check values and return the configuration; unset (None) values take their default.

    Raises:
        UserError: one sentence that names the field, the value, the rule and so the remedy.
    """
    given = {k: v for k, v in values.items() if v is not None}
    try:
        return RunConfig(**given)
    except ValidationError as error:
        raise UserError(_sentence(error)) from None


def _as_option(value: Any) -> str:
    if isinstance(value, tuple):
        return ",".join(map(str, value))
    if isinstance(value, float):
        return f"{value:g}" if float(f"{value:g}") == value else repr(value)
    return str(value)


def _sentence(error: ValidationError) -> str:
    first = error.errors()[0]
    own = first.get("ctx", {}).get("error")
    if isinstance(own, Exception):
        return str(own)
    field = str(first["loc"][0]) if first["loc"] else "value"
    option = {"lr": "learning rate", "kd_weight": "KD weight"}.get(field, field.replace("_", " "))
    if first["type"] == "extra_forbidden":
        return str(unknown_name("setting", field, RunConfig.model_fields))
    value = first["input"]
    shown = ", ".join(map(str, value)) if isinstance(value, (tuple, list)) else str(value)
    shown = shown if len(shown) <= 60 else shown[:57] + "..."
    # pydantic's own words: "Input should be ...", "Tuple should have at least 1 item after validation, not 0"
    rule = first["msg"].split(" after validation")[0].split(", unable")[0]
    rule = rule[rule.find("should") :] if "should" in rule else rule[0].lower() + rule[1:]
    return f"{option[0].upper()}{option[1:]} '{shown}' cannot be used: it {rule}."


def _distinct(kind: str, values: tuple[Any, ...]) -> tuple[Any, ...]:
    for i, value in enumerate(values):
        if value in values[:i]:
            raise UserError(f"The {kind} '{value}' is named twice. Name each {kind} once.")
    return values
