"""What a setting is: its default, its help, and what page, command line and checks need to know of it, in one place."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, Literal, get_args, get_origin

from pydantic import Field
from pydantic.fields import FieldInfo

Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Weight = Annotated[float, Field(ge=0, le=1e6, allow_inf_nan=False)]
Share = Annotated[float, Field(gt=0, lt=1)]


@dataclass(frozen=True)
class About:
    """What is known of a setting beside its default, its range and its help.

    group: heading on the page and in `iekd train --help`; empty for the few that stand first.
    label: its name on the page; empty: the field's own name in words.
    only_for: what it is for, as in "the multi-step schedule"; said where it is set and has no effect. A method's
        setting needs none: the methods that use it are named (`config.unused`).
    used_when: tells of a RunConfig whether the setting has an effect; None: always, or whenever a method uses it.
    step_time: whether the time of a training step depends on it; where not, a measured speed stays valid.
    trains_teacher: whether it decides how a teacher is trained, so that two runs may share one only where it is the
        same: "always", or "if changed" from its default. A setting that is added later is "if changed", else no
        teacher that was trained before would be found.
    """

    group: str = ""
    label: str = ""
    only_for: str = ""
    used_when: Callable[[Any], bool] | None = None
    step_time: bool = True
    trains_teacher: Literal["no", "always", "if changed"] = "no"

    def __call__(self, schema: dict[str, Any]) -> None:
        """pydantic calls this for the JSON schema, which is also why an About can travel in a field."""
        schema.update({"title": self.label} if self.label else {}, group=self.group)


def setting(
    default: Any, help: str, *, group: str = "", label: str = "", only_for: str = "",
    used_when: Callable[[Any], bool] | None = None, step_time: bool = True,
    trains_teacher: Literal["no", "always", "if changed"] = "no", **limits: Any,
) -> Any:  # fmt: skip
    """A field of RunConfig.

    Args:
        default: its value where none is given.
        help: one line for the page and for `iekd train --help`; begins with a small letter.
        limits: pydantic's, such as ge=0 or max_length=80.
        the others: see `About`.
    """
    about = About(group, label, only_for, used_when, step_time, trains_teacher)
    return Field(default, description=help, json_schema_extra=about, **limits)


def about(info: FieldInfo) -> About:
    """The About of a field that `setting` made."""
    assert isinstance(info.json_schema_extra, About), f"declare it by `setting`, not by Field: {info}"
    return info.json_schema_extra


def choices_of(info: FieldInfo) -> list[str]:
    """The words that a setting may be; none if it takes any."""
    kinds = (info.annotation, *get_args(info.annotation))
    words = next((get_args(kind) for kind in kinds if get_origin(kind) is Literal), ())
    return list(words) if len(words) > 1 else []  # a single one, such as auto, stands beside numbers
