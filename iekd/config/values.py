"""Values of settings as text, and what to say of those that cannot be used. Knows no RunConfig: run.py calls this."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from pydantic import ValidationError

from iekd.errors import UserError, unknown_name
from iekd.models.source import AUTO, PER_CHANNEL

LISTS: dict[str, tuple[type, str]] = {  # fields that may come as text with commas: type of the items, what to give
    "methods": (str, "names with commas"),
    "seeds": (int, "whole numbers with commas, such as 0,1,2"),
    "milestones": (float, "numbers with commas, such as 0.5,0.75"),
    "more_teachers": (str, "names with commas"),
    "more_teachers_from": (str, "as many sources as further teachers, with commas"),
    "teacher_mean": (float, PER_CHANNEL),
    "teacher_std": (float, PER_CHANNEL),
    "class_order": (str, "the names of all classes with commas, 'text', or a file of names"),
}
WITH_SPACES = ("more_teachers_from", "class_order")  # of these: their items may have spaces, so only commas part them

# pydantic's kind of error -> what a value must be
RULES = {
    "int_parsing": "a whole number", "int_type": "a whole number", "int_from_float": "a whole number",
    "float_parsing": "a number", "float_type": "a number", "bool_parsing": "yes or no", "bool_type": "yes or no",
    "string_type": "a text", "tuple_type": "a list or tuple, also of a single value",
    "greater_than_equal": "{ge} or more", "greater_than": "more than {gt}",
    "less_than_equal": "{le} or less", "less_than": "less than {lt}",
}  # fmt: skip


SAID_BY_LABEL = {"lr": "learning rate", "kd_weight": "KD weight"}  # in errors, by their label on the page


class SettingError(UserError):
    """A value that a setting cannot have; `what` follows the setting's name, of which a page may have its own."""

    def __init__(self, field: str, what: str) -> None:
        named = SAID_BY_LABEL.get(field, field.replace("_", " "))
        self.what = what
        super().__init__(f"{named[0].upper()}{named[1:]} {what}", field)


def spread_teachers(given: dict[str, Any]) -> None:
    """teacher "a,b" is the teacher a and the further teacher b; so is teacher_from "x,y" then."""
    names = [name.strip() for name in str(given.get("teacher", "")).split(",") if name.strip()]
    if len(names) < 2:
        return
    given["teacher"], given["more_teachers"] = names[0], (*names[1:], *given.get("more_teachers", ()))
    sources = [source.strip() for source in str(given.get("teacher_from", "")).split(",") if source.strip()]
    if len(sources) == 1 and sources[0] == AUTO:
        return
    if sources:
        if len(sources) != len(names):
            raise UserError(
                f"Teachers: {len(names)}; sources in teacher from: {len(sources)}. Give one source for each, with "
                "commas, such as auto.",
                "teacher_from",
            )
        given["teacher_from"], given["more_teachers_from"] = sources[0], tuple(sources[1:])


def words_of(field: str, text: str) -> list[str]:
    """The items of a list that comes as text."""
    separated = text.replace(";", ",").replace(" ", ",") if field in LISTS and field not in WITH_SPACES else text
    return [word.strip() for word in separated.split(",") if word.strip()]


def listed(field: str, text: str) -> tuple[Any, ...]:
    """The value of a list that comes as text.

    Raises:
        SettingError: an item is of another kind.
    """
    kind, wanted = LISTS[field]
    try:
        return tuple(map(kind, words_of(field, text)))
    except ValueError:
        raise SettingError(field, f"'{text}' cannot be used: give {wanted}.") from None


def as_option(value: Any) -> str:
    """A value as the command line takes it."""
    if isinstance(value, tuple):
        return ",".join(map(str, value))
    if isinstance(value, float):
        return f"{value:g}" if float(f"{value:g}") == value else repr(value)
    return str(value)


def in_words(error: ValidationError, known: Iterable[str]) -> UserError:
    """What is wrong with a configuration, as one sentence. known: the names of all settings."""
    first = error.errors()[0]
    ctx = first.get("ctx", {})
    field = str(first["loc"][0]) if first["loc"] else ""
    if isinstance(cause := ctx.get("error"), Exception):
        return UserError(str(cause), getattr(cause, "field", "") or field)
    field = field or "value"
    if first["type"] == "extra_forbidden":
        return unknown_name("setting", field, known)
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


def distinct(kind: str, values: tuple[Any, ...]) -> tuple[Any, ...]:
    """The same values, if none is named twice.

    Raises:
        UserError: one is.
    """
    for i, value in enumerate(values):
        if value in values[:i]:
            raise UserError(f"The {kind} '{value}' is named twice. Name each {kind} once.")
    return values
