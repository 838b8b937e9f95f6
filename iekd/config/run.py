"""What a run is asked to do: frozen, documented field by field, checked once where it enters.

The same object is the page's form, the command line's options and `config.json` in the run folder. This module knows
names and ranges only: it looks at no file, which is what runs/prepare.py does, and imports neither torch nor Gradio.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Optional, Union

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from iekd import data
from iekd.config.methods import check_method, parts
from iekd.errors import UserError, check_text, unknown_name
from iekd.models.catalog import check_model, models
from iekd.models.source import AUTO, FILE_ONLY, check_normalisation, check_source, is_path

NO_TEACHER = "none"
STAGES = ("teacher", "auto-encoder", "students", "evaluation")  # of a run, in order
MOST_THREADS = 1024
PER_CHANNEL = "one number per channel with commas, such as 0.491,0.482,0.447"
LISTS: dict[str, tuple[type, str]] = {  # fields that may come as text with commas: type of the items, what to give
    "methods": (str, "names with commas"),
    "seeds": (int, "whole numbers with commas, such as 0,1,2"),
    "milestones": (float, "numbers with commas, such as 0.5,0.75"),
    "teacher_mean": (float, PER_CHANNEL),
    "teacher_std": (float, PER_CHANNEL),
}

GROUPS = {  # of the lesser settings, by what they are about
    "Optimiser": ("batch_size", "lr", "momentum", "nesterov", "weight_decay", "schedule", "milestones"),
    "Inheritance and exploration": (
        "inheritance_share", "channel_split", "distance", "ie_stages", "auto_encoder", "inheritance_weight",
        "exploration_weight",
    ),
    "The other methods": (
        "temperature", "kd_weight", "attention_weight", "factor_weight", "overhaul_weight", "mutual_weight",
        "dkd_target_weight", "dkd_other_weight", "dist_weight", "weight_schedule", "peer",
    ),
    "Teacher": ("teacher_epochs", "auto_encoder_epochs", "teacher_from", "teacher_mean", "teacher_std"),
    "Pictures": (
        "limit_train", "resolution", "augmentation", "cutout", "validation_fraction", "test_fraction", "data_seed",
    ),
    "This run": (
        "device", "threads", "precision", "graph", "stack", "compile", "eager", "image_memory", "name",
    ),
}  # fmt: skip

Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Weight = Annotated[float, Field(ge=0, le=1e6, allow_inf_nan=False)]
Share = Annotated[float, Field(gt=0, lt=1)]


# pydantic's kind of error -> what a value must be
RULES = {
    "int_parsing": "a whole number", "int_type": "a whole number", "int_from_float": "a whole number",
    "float_parsing": "a number", "float_type": "a number", "bool_parsing": "yes or no", "bool_type": "yes or no",
    "greater_than_equal": "{ge} or more", "greater_than": "more than {gt}",
    "less_than_equal": "{le} or less", "less_than": "less than {lt}",
}  # fmt: skip


class SettingError(UserError):
    """A value that a setting cannot have; `what` follows the setting's name, of which a page may have its own."""

    def __init__(self, field: str, what: str) -> None:
        named = {"lr": "learning rate", "kd_weight": "KD weight"}.get(field, field.replace("_", " "))
        self.field, self.what = field, what
        super().__init__(f"{named[0].upper()}{named[1:]} {what}")


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
    momentum: float = Field(0.9, ge=0, lt=1, description="momentum of SGD")
    weight_decay: float = Field(5e-4, ge=0, le=1, description="weight decay of SGD")
    nesterov: bool = Field(True, description="momentum in Nesterov's form")
    schedule: Literal["one-cycle", "cosine", "multi-step"] = Field(
        "one-cycle", description="learning rate over the run; multi-step divides it by 10 at the milestones"
    )
    milestones: tuple[Share, ...] = Field(
        (0.5, 0.75), min_length=1, description="where multi-step divides, as shares of the run (the paper's: half, 3/4)"
    )
    inheritance_share: float = Field(
        0.5, ge=0, le=1, description="share of the channels that inherit; the rest explore"
    )
    channel_split: Literal["natural", "random"] = Field(
        "natural", description="which channels inherit: the first ones, or drawn at random for each seed"
    )
    distance: Literal["own", "l1", "l2", "cosine"] = Field(
        "own",
        description="between the halves and the teacher; own: l2 for ie-at, else l1 (ie-od inherits by its own loss)",
    )
    ie_stages: Literal["own", "last", "all"] = Field(
        "own", description="stages that inherit and explore; own: all for ie-at and ie-od, else the last"
    )
    auto_encoder: bool = Field(
        True,
        description="ft, ie-ft: imitate what an auto-encoder makes of the teacher's feature, or the feature itself",
    )
    inheritance_weight: Optional[Weight] = Field(
        None,
        description="weight of the inheritance loss; unset: ie-ft 500, ie-at 1000, ie-od 1, ie-dml 50, by distance",
    )
    exploration_weight: Optional[Weight] = Field(
        None,
        description="weight of the exploration loss; unset: ie-ft 50, ie-at 10, ie-od 5, ie-dml 5, by distance",
    )
    weight_schedule: Literal["constant", "warm-up", "decay"] = Field(
        "constant", description="all weights but the labels': rising over the first tenth, or falling to 0 at the end"
    )
    temperature: Positive = Field(4.0, description="softening of the answers in kd, dkd and dist")
    kd_weight: float = Field(0.9, ge=0, le=1, description="share of kd's soft targets; the labels get the rest")
    attention_weight: Weight = Field(1000.0, description="weight of the attention transfer loss (at)")
    factor_weight: Weight = Field(500.0, description="weight of the factor transfer loss (ft)")
    overhaul_weight: Weight = Field(1.0, description="weight of the feature overhaul loss (od)")
    mutual_weight: Weight = Field(1.0, description="weight of the peer's answers (dml and ie-dml)")
    dkd_target_weight: Weight = Field(1.0, description="weight of the right class against all others (dkd's alpha)")
    dkd_other_weight: Weight = Field(2.0, description="weight of the answers among the other classes (dkd's beta)")
    dist_weight: Weight = Field(2.0, description="weight of the relations between and within classes (dist)")
    peer: Optional[str] = Field(None, description="the second student of dml and ie-dml; unset: the same network")
    auto_encoder_epochs: int = Field(3, ge=1, le=10_000, description="passes that train the auto-encoder")
    teacher_epochs: int = Field(30, ge=1, le=10_000, description="passes that train a teacher where none is at hand")
    teacher_from: str = Field(
        AUTO, description="auto (shipped, of an earlier run, or trained first), train, run:ID, run:ID/LEARNER, or the "
        "path of a file of weights or of a model's folder"
    )  # fmt: skip
    teacher_mean: tuple[float, ...] | None = Field(
        None, description="mean of the pixels (0..1) that a teacher's file was trained with; unset: the data set's own"
    )
    teacher_std: tuple[float, ...] | None = Field(None, description="standard deviation of those pixels")
    limit_train: int | None = Field(None, ge=2, description="use only this many training images, balanced over classes")
    validation_fraction: float = Field(
        0.1, ge=0, lt=1, description="share of the training images held out to choose the best epoch; 0: none"
    )
    test_fraction: float = Field(0.2, gt=0, lt=1, description="share held out when a folder has no test/ of its own")
    resolution: int | None = Field(
        None, ge=8, le=512, description="side of the square images; unset: the data set's own"
    )
    augmentation: Literal["crop", "resized-crop", "none"] = Field(
        "crop", description="crop: of the padded image, and flip; resized-crop: any part of it, enlarged, and flip"
    )
    cutout: int = Field(0, ge=0, le=511, description="side in pixels of a square hole in each training image; 0: none")
    data_seed: int = Field(0, ge=0, lt=2**31, description="fixes splits, the order of images and their augmentation")
    device: Literal["auto", "cpu", "cuda", "mps"] = Field("auto", description="where to train")
    threads: Union[Annotated[int, Field(ge=1, le=MOST_THREADS)], Literal["auto"]] = Field(
        "auto", description="threads that compute on the CPU; auto: as many as other processes leave room for; a "
        "number: repeatable bit for bit"
    )  # fmt: skip
    precision: Literal["auto", "fp32", "bf16"] = Field("auto", description="auto: bf16 where the hardware has it")
    image_memory: Optional[Annotated[float, Field(ge=0, allow_inf_nan=False)]] = Field(
        None, description="GB of memory that decoded images may take; more are read while training; unset: half of "
        "what is free"
    )  # fmt: skip
    eager: bool = Field(False, description="the plain step, without any acceleration, to look for errors in")
    graph: bool = Field(True, description="on CUDA, record the step as a CUDA graph and replay it")
    stack: bool = Field(True, description="on CUDA, train the seeds of a method as one network")
    compile: bool = Field(False, description="torch.compile the students: slow to start, for long runs")
    name: str = Field("", max_length=80, description="a label of your own for the list of runs")

    @field_validator("dataset")
    @classmethod
    def _dataset_has_a_source(cls, value: str) -> str:
        return check_text(data.check_name(value))

    @field_validator("teacher", "student", "peer")
    @classmethod
    def _model_exists(cls, value: str | None, info: Any) -> str | None:
        if value is None or (info.field_name == "teacher" and value == NO_TEACHER):
            return value
        return check_model(value)

    @field_validator("methods")
    @classmethod
    def _methods_exist(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        return _distinct("method", tuple(map(check_method, value)))

    @field_validator("milestones")
    @classmethod
    def _milestones_rise(cls, value: tuple[float, ...]) -> tuple[float, ...]:
        if list(value) != sorted(set(value)):
            raise UserError(
                f"Milestones '{', '.join(map(str, value))}' cannot be used: each must be larger than the one before."
            )
        return value

    @field_validator("seeds")
    @classmethod
    def _seeds_differ(cls, value: tuple[int, ...]) -> tuple[int, ...]:
        return _distinct("seed", value)

    @model_validator(mode="after")
    def _teacher_where_needed(self) -> RunConfig:
        taught = [m for m in self.methods if parts(m).needs_teacher]
        if taught and self.teacher == NO_TEACHER:
            raise UserError(f"Method '{taught[0]}' needs a teacher, but teacher is 'none'. Name one, such as resnet20.")
        return self

    @model_validator(mode="after")
    def _margins_where_needed(self) -> RunConfig:
        overhaul = [m for m in self.methods if parts(m).base == "od"]
        if overhaul and self.teacher != NO_TEACHER and not models()[self.teacher].has_margins:
            raise UserError(
                f"Method '{overhaul[0]}' cannot learn from {self.teacher}: its margins come from a batch norm at each "
                "stage end, and this network has none there. Choose another teacher, or another method."
            )
        return self

    @model_validator(mode="after")
    def _cutout_fits(self) -> RunConfig:
        side = self.resolution or data.source_of(self.dataset).resolution
        if self.cutout >= side:
            raise UserError(
                f"Cutout {self.cutout} cannot be used: the images are {side} x {side} pixels, and a hole must be "
                f"smaller. Half of the side, {side // 2}, is usual."
            )
        return self

    @field_validator("threads", mode="wrap")
    @classmethod
    def _threads_are_a_number(cls, value: Any, check: Callable[[Any], Any]) -> Any:
        try:
            return check(value)
        except ValidationError:
            raise SettingError(
                "threads", f"'{value}' cannot be used: it should be 'auto', or a whole number from 1 to {MOST_THREADS}."
            ) from None

    @field_validator("teacher_from")
    @classmethod
    def _teacher_from_is_a_word_or_a_path(cls, value: str) -> str:
        return check_text(check_source(value))

    @model_validator(mode="after")
    def _source_fits(self) -> RunConfig:
        if self.teacher_from != AUTO and not self.needs_teacher:
            raise UserError(f"Teacher from '{self.teacher_from}' is given, but teacher is 'none'. Name its model.")
        check_normalisation(self.teacher_mean, self.teacher_std, "teacher ")
        if self.teacher_mean and not is_path(self.teacher_from):
            raise UserError(FILE_ONLY)
        return self

    @property
    def needs_teacher(self) -> bool:
        return self.teacher != NO_TEACHER

    @property
    def needs_auto_encoder(self) -> bool:
        return self.auto_encoder and any(parts(method).uses_factor for method in self.methods)

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
            option = field.replace("_", "-")
            if isinstance(value, bool):
                words.append(f"--{option}" if value else f"--no-{option}")
            else:
                words += [f"--{option}", shlex.quote(_as_option(value))]
        return " ".join(words)


def learner_name(method: str, seed: int) -> str:
    """The key of one learner in metrics, folders and reports."""
    return f"{method}-seed{seed}"


@dataclass(frozen=True)
class Preset:
    """Values that belong together; whatever else is given wins over them."""

    text: str
    values: dict[str, Any]


PRESETS = {
    "quick": Preset("a demonstration in minutes: ten epochs of one rising and falling cycle", {}),
    "paper": Preset(
        "Huang et al. 2021: 160 epochs, learning rate divided by 10 at 80 and 120, batch 128, no validation split",
        {
            "epochs": 160, "teacher_epochs": 160, "auto_encoder_epochs": 30, "batch_size": 128, "lr": 0.1,
            "momentum": 0.9, "nesterov": True, "weight_decay": 5e-4, "schedule": "multi-step",
            "milestones": (0.5, 0.75), "validation_fraction": 0.0,
        },
    ),
    "crd": Preset(
        "the CIFAR-100 benchmark of Tian et al. 2020: 240 epochs, learning rate 0.05, divided at 150, 180 and 210, "
        "batch 64, no validation split",
        {
            "epochs": 240, "teacher_epochs": 240, "auto_encoder_epochs": 30, "batch_size": 64, "lr": 0.05,
            "momentum": 0.9, "nesterov": False, "weight_decay": 5e-4, "schedule": "multi-step",
            "milestones": (0.625, 0.75, 0.875), "validation_fraction": 0.0,
        },
    ),
}  # fmt: skip


def make_config(preset: str | None = None, **values: Any) -> RunConfig:
    """Check values and return the configuration; unset (None) values take those of the preset, else their default.

    Lists may be given as text with commas, as in seeds="0,1,2".

    Raises:
        UserError: one sentence that names the field, the value, the rule and so the remedy.
    """
    if preset is not None and preset not in PRESETS:
        raise unknown_name("preset", preset, PRESETS)
    given = dict(PRESETS[preset].values) if preset else {}
    given.update(
        (k, _listed(k, v) if k in LISTS and isinstance(v, str) else v) for k, v in values.items() if v is not None
    )
    try:
        return RunConfig(**given)
    except ValidationError as error:
        raise _as_user_error(error) from None


def _listed(field: str, text: str) -> tuple[Any, ...]:
    kind, wanted = LISTS[field]
    try:
        return tuple(kind(word) for word in text.replace(";", ",").replace(" ", ",").split(",") if word)
    except ValueError:
        raise SettingError(field, f"'{text}' cannot be used: give {wanted}.") from None


def _as_option(value: Any) -> str:
    if isinstance(value, tuple):
        return ",".join(map(str, value))
    if isinstance(value, float):
        return f"{value:g}" if float(f"{value:g}") == value else repr(value)
    return str(value)


def _as_user_error(error: ValidationError) -> UserError:
    first = error.errors()[0]
    ctx = first.get("ctx", {})
    if isinstance(ctx.get("error"), Exception):
        return UserError(str(ctx["error"]))
    field = str(first["loc"][0]) if first["loc"] else "value"
    if first["type"] == "extra_forbidden":
        return unknown_name("setting", field, RunConfig.model_fields)
    value = first["input"]
    shown = ", ".join(map(str, value)) if isinstance(value, (tuple, list)) else str(value)
    shown = shown if len(shown) <= 60 else shown[:57] + "..."
    if first["type"] in RULES:
        bounds = {key: f"{v:g}" if isinstance(v, float) else v for key, v in ctx.items()}
        return SettingError(field, f"'{shown}' cannot be used: it should be {RULES[first['type']].format(**bounds)}.")
    # pydantic's own words: "Input should be ...", "Tuple should have at least 1 item after validation, not 0"
    rule = first["msg"].split(" after validation")[0].split(", unable")[0]
    rule = rule[rule.find("should") :] if "should" in rule else rule[0].lower() + rule[1:]
    return SettingError(field, f"'{shown}' cannot be used: it {rule}.")


def _distinct(kind: str, values: tuple[Any, ...]) -> tuple[Any, ...]:
    for i, value in enumerate(values):
        if value in values[:i]:
            raise UserError(f"The {kind} '{value}' is named twice. Name each {kind} once.")
    return values
