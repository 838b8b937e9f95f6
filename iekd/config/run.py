"""What a run is asked to do: frozen, documented field by field, checked once where it enters.

The same object is the page's form, the command line's options and `config.json` in the run folder. This module knows
names and ranges only: it looks at no file of a user, which is what runs/prepare.py does. It imports neither torch nor
Gradio; but to know whether timm, torchvision or a plugin has a network, a configuration that names one of theirs
imports them, and torch with them.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable
from typing import Annotated, Any, Literal, Optional, Union

from pydantic import ConfigDict, Field, ValidationError, ValidationInfo, field_validator, model_validator

from iekd import data
from iekd.config.images import IMAGES, ImageSettings
from iekd.config.methods import (
    IE,
    KD_ON_TOP,
    METHODS,
    OTHERS,
    MethodSettings,
    check_method,
    compared_networks,
    known_specs,
    logits_only_methods,
    method_spec,
)
from iekd.config.presets import PRESETS
from iekd.config.settings import about, setting
from iekd.config.teacher import TEACHER, TeacherSettings
from iekd.config.training import OPTIMISER, TrainingSettings
from iekd.config.values import LISTS, SettingError, as_option, distinct, in_words, listed, spread_teachers
from iekd.errors import UserError, about_setting, check_text, unknown_name
from iekd.models.catalog import check_model, models, own_models
from iekd.models.source import (
    AUTO,
    FILE_ONLY,
    PRETRAINED,
    TRAIN,
    check_normalisation,
    check_source,
    check_start,
    is_path,
)
from iekd.paths import absolute

NO_TEACHER = "none"
THIS_RUN = "This run"  # heading of settings
STAGES = ("teacher", "auto-encoder", "students", "evaluation")  # of a run, in order
MOST_THREADS = 1024

ALTERNATIVES = {  # what settings of several types may be, where pydantic's words would be about one of the types
    "device": "'auto', 'cpu', 'mps', 'cuda' for any GPU that is free, or 'cuda:1' for the second",
    "threads": f"'auto', or a whole number from 1 to {MOST_THREADS}",
}


class RunConfig(ImageSettings, TeacherSettings, MethodSettings, TrainingSettings):
    """Everything that decides a run's result, apart from the machine.

    Two runs with equal configurations on one machine give equal metrics on the CPU. The fields come in the order
    networks and training (training.py), those that only some methods use (methods.py), teacher (teacher.py), images
    (images.py), and these.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    device: Union[Literal["auto", "cpu", "cuda", "mps"], Annotated[str, Field(pattern=r"^cuda:\d{1,2}$")]] = setting(
        "auto", "where to train; cuda: any GPU that is free, cuda:1: the second", group=THIS_RUN
    )
    threads: Union[Annotated[int, Field(ge=1, le=MOST_THREADS)], Literal["auto"]] = setting(
        "auto", "threads that compute on the CPU; auto: as many as other processes leave room for; a number: "
        "repeatable bit for bit", group=THIS_RUN,
    )  # fmt: skip
    precision: Literal["auto", "fp32", "bf16"] = setting("auto", "auto: bf16 where the hardware has it", group=THIS_RUN)
    graph: bool = setting(
        True, "on CUDA, record the step as a CUDA graph and replay it", group=THIS_RUN, label="CUDA graph"
    )
    stack: bool = setting(
        True, "on CUDA, train the seeds of a method as one network", group=THIS_RUN, label="Seeds as one network"
    )
    compile: bool = setting(
        False, "torch.compile the students: slow to start, for long runs", group=THIS_RUN, label="torch.compile"
    )
    sync_bn: bool = setting(
        True, "where several processes train (--nproc): batch norm over the images of all of them, as in one process; "
        "without: each over its own, which is faster and gives other results", group=THIS_RUN,
        label="Batch norm over all processes", trains_teacher="if changed",
    )  # fmt: skip
    eager: bool = setting(False, "disable all accelerations, for debugging", group=THIS_RUN, label="Plain step")
    image_memory: Optional[Annotated[float, Field(ge=0, allow_inf_nan=False)]] = setting(
        None, "GB of memory that decoded images may take; more are read while training; unset: half of what is free",
        group=THIS_RUN, label="Memory for images (GB)",
    )  # fmt: skip
    name: str = setting(
        "", "a label of your own for the list of runs", max_length=80, group=THIS_RUN, label="Name of the run",
        step_time=False,
    )  # fmt: skip

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

    @field_validator("more_teachers")
    @classmethod
    def _more_models_exist(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(map(check_model, value))

    @field_validator("more_teachers_from")
    @classmethod
    def _more_sources(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(check_text(check_source(source)) for source in value)

    @model_validator(mode="after")
    def _several_teachers_make_sense(self) -> RunConfig:
        if not self.more_teachers:
            return self
        if self.teacher == NO_TEACHER:
            raise UserError("Further teachers are named, but teacher is 'none'. Name the first one there.", "teacher")
        for method in self.methods:
            spec = method_spec(method)
            if spec.needs_teacher and not spec.logits_only and not spec.with_kd:
                more = "" if spec.without_kd else f", or {method}{KD_ON_TOP}"
                able = [name for name in logits_only_methods() if METHODS[name].needs_teacher]
                raise UserError(
                    f"Method '{method}' cannot learn from several teachers: it compares features, of which only the "
                    f"first teacher's would be used. Name one teacher, or choose of {', '.join(able)}{more}.",
                    "methods",
                )
        if self.more_teachers_from and len(self.more_teachers_from) != len(self.more_teachers):
            raise UserError(
                f"Further teachers: {len(self.more_teachers)}; sources for them: {len(self.more_teachers_from)}. Give "
                "one source for each, such as auto.",
                "more_teachers_from",
            )
        return self

    @field_validator("methods")
    @classmethod
    def _methods_exist(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        return distinct("method", tuple(map(check_method, value)))

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
        return distinct("seed", value)

    @model_validator(mode="after")
    def _teacher_where_needed(self) -> RunConfig:
        taught = [m for m in self.methods if method_spec(m).needs_teacher]
        if taught and self.teacher == NO_TEACHER:
            message = f"Method '{taught[0]}' needs a teacher, but teacher is 'none'. Name one, such as resnet20."
            raise UserError(message, "teacher")
        return self

    @model_validator(mode="after")
    def _maps_where_needed(self) -> RunConfig:
        if {self.teacher, self.student, self.peer} - {NO_TEACHER, None} <= own_models().keys():
            # others have to be built first: `prepare`
            check_maps(self)
        return self

    @model_validator(mode="after")
    def _cutout_fits(self) -> RunConfig:
        if self.resolution is not None:  # else weights may decide it: `prepare`
            check_cutout(self, self.resolution)
        return self

    @model_validator(mode="after")
    def _early_stopping_has_images(self) -> RunConfig:
        if self.patience and not self.validation_fraction:
            raise SettingError(
                "patience", f"'{self.patience}' cannot be used: stopping early needs a validation split, and none is "
                "held out. Give a validation fraction, such as 0.1, or a patience of 0."
            )  # fmt: skip
        return self

    @field_validator(*ALTERNATIVES, mode="wrap")
    @classmethod
    def _one_of_the_alternatives(cls, value: Any, check: Callable[[Any], Any], field: ValidationInfo) -> Any:
        try:
            return check(value)
        except ValidationError:
            name = str(field.field_name)
            raise SettingError(name, f"'{value}' cannot be used: it should be {ALTERNATIVES[name]}.") from None

    @field_validator("unlabelled")
    @classmethod
    def _unlabelled_is_a_path(cls, value: str) -> str:
        return check_text(absolute(value)) if value.strip() else ""

    @field_validator("teacher_from")
    @classmethod
    def _teacher_from_is_a_word_or_a_path(cls, value: str) -> str:
        return check_text(check_source(value))

    @field_validator("student_from")
    @classmethod
    def _student_from_is_a_word_or_a_path(cls, value: str | None) -> str | None:
        return None if value is None else check_text(check_start(value))

    @model_validator(mode="after")
    def _source_fits(self) -> RunConfig:
        if self.teacher_from != AUTO and not self.needs_teacher:
            message = f"Teacher from '{self.teacher_from}' is given, but teacher is 'none'. Name its model."
            raise UserError(message, "teacher")
        if self.needs_teacher and not self.teacher_epochs and self.teacher_from in (TRAIN, PRETRAINED):
            remedy = {
                TRAIN: "or 'auto' as teacher from",
                PRETRAINED: "or name weights that know the dataset's classes, such as hf:ORG/NAME or a file",
            }
            raise SettingError(
                "teacher_epochs", f"'0' cannot be used: with teacher from '{self.teacher_from}' the run trains its "
                f"teacher. Give 1 or more, {remedy[self.teacher_from]}."
            )  # fmt: skip
        with about_setting("teacher_std" if self.teacher_std is None else "teacher_mean"):
            check_normalisation(self.teacher_mean, self.teacher_std, "teacher ")
        if self.teacher_mean and not is_path(self.teacher_from):
            raise UserError(FILE_ONLY, "teacher_from")
        return self

    @property
    def needs_teacher(self) -> bool:
        return self.teacher != NO_TEACHER

    @property
    def sources_of_more(self) -> tuple[str, ...]:
        """Where each further teacher comes from."""
        return self.more_teachers_from or (AUTO,) * len(self.more_teachers)

    @property
    def named_paths(self) -> tuple[str, ...]:
        """The files and folders that it names, beside its dataset."""
        sources = (self.teacher_from, *self.more_teachers_from, self.student_from)
        paths = tuple(str(source) for source in sources if is_path(source))
        return (*paths, self.unlabelled) if self.unlabelled else paths

    @property
    def may_train_teacher(self) -> bool:
        """Whether the run trains its teacher, or does so where none is found or its weights are of other classes."""
        return self.needs_teacher

    @property
    def may_fine_tune_teacher(self) -> bool:
        """Whether the teacher begins with weights that may be of other classes: those of a file are seen only when it
        is read."""
        return self.needs_teacher and self.teacher_from not in (AUTO, TRAIN)

    @property
    def needs_auto_encoder(self) -> bool:
        return self.auto_encoder and any(spec.needs_factor for spec in known_specs(self.methods))

    @property
    def learner_names(self) -> list[tuple[str, int]]:
        """(method, seed) of every learner, in the order of training."""
        return [(method, seed) for seed in self.seeds for method in self.methods]

    def chosen(self) -> dict[str, Any]:
        """What people change most, and whatever is not at its default: enough to make this configuration again."""
        always = ("dataset", "teacher", "student", "methods", "seeds", "epochs")
        values = ((field, info.default, getattr(self, field)) for field, info in RunConfig.model_fields.items())
        return {field: value for field, default, value in values if value != default or field in always}

    def command_line(self) -> str:
        """The `iekd train` command that gives this run."""
        words = ["iekd", "train"]
        for field, value in self.chosen().items():
            option = field.replace("_", "-")
            if isinstance(value, bool):
                words.append(f"--{option}" if value else f"--no-{option}")
            else:
                words += [f"--{option}", shlex.quote(as_option(value))]
        return " ".join(words)


ABOUT = {name: about(info) for name, info in RunConfig.model_fields.items()}
GROUPS = {  # of the lesser settings, by what they are about
    group: tuple(name for name, known in ABOUT.items() if known.group == group)
    for group in (OPTIMISER, IE, OTHERS, TEACHER, IMAGES, THIS_RUN)
}


def check_cutout(config: RunConfig, side: int) -> None:
    """Check that cutout's hole is smaller than images of that side.

    Raises:
        UserError: it is not.
    """
    if config.cutout >= side:
        raise UserError(
            f"Cutout {config.cutout} cannot be used: the images are {side} x {side} pixels, and a hole must be "
            f"smaller. Half of the side, {side // 2}, is usual.",
            "cutout",
        )


def check_maps(config: RunConfig) -> None:
    """Check that the networks give the maps that the methods compare, and what od needs beside them.

    Raises:
        UserError: they do not, or a network on the Hub has not been looked up.
    """
    for method in config.methods:
        for role in compared_networks(method):
            name = getattr(config, role)
            if name not in (None, NO_TEACHER) and not models()[name].stage_channels:
                raise UserError(
                    f"Method '{method}' looks at features, and {name} gives no feature maps. Choose another network, "
                    f"or use only methods that look at logits alone: {', '.join(logits_only_methods())}.",
                    role,
                )
    overhaul = [m for m in config.methods if method_spec(m).needs_margins]
    if overhaul and config.teacher != NO_TEACHER and not models()[config.teacher].has_margins:
        raise UserError(
            f"Method '{overhaul[0]}' cannot learn from {config.teacher}: its margins come from a batch norm at each "
            "stage end, and this network has none there. Choose another teacher, or another method.",
            "teacher",
        )
    for role in ("teacher", "student") if overhaul else ():
        name = getattr(config, role)
        if name != NO_TEACHER and not models()[name].has_pre_activations:
            raise UserError(
                f"Method '{overhaul[0]}' cannot be used with {name}: it compares stage ends before the activation, "
                "and this network does not give them. Choose another model, or another method.",
                role,
            )


def label(field: str) -> str:
    """A setting's name on the page."""
    return ABOUT[field].label or field.replace("_", " ").capitalize()


def learner_name(method: str, seed: int) -> str:
    """The key of one learner in metrics, folders and reports."""
    return f"{method}-seed{seed}"


def make_config(preset: str | None = None, **values: Any) -> RunConfig:
    """Check values and return the configuration; unset (None) values take those of the preset, else their default.

    Args:
        preset: the name of one, such as "quick"; None: no preset.
        values: of fields of RunConfig; lists also as text with commas, as in seeds="0,1,2".
    Returns:
        The configuration, which does not change any more.
    Raises:
        UserError: one sentence that names the field, the value, the rule and so the remedy.
    """
    if preset is not None and (not isinstance(preset, str) or preset not in PRESETS):
        raise unknown_name("preset", str(preset), PRESETS)
    given = dict(PRESETS[preset].values) if preset else {}
    given.update(
        (k, listed(k, v) if k in LISTS and isinstance(v, str) else v) for k, v in values.items() if v is not None
    )
    spread_teachers(given)
    for name, value in given.items():
        known = RunConfig.model_fields.get(name)
        if isinstance(value, bool) and known is not None and known.annotation is not bool:  # Python takes True for 1
            raise SettingError(name, f"'{value}' cannot be used: it is no setting to switch on or off.")
    try:
        return RunConfig(**given)
    except ValidationError as error:
        raise in_words(error, RunConfig.model_fields) from None
