"""Settings that a run does not use. Users are told before it starts: else two equal runs may pass for a comparison."""

from __future__ import annotations

from typing import Any

from iekd.config.methods import KD, KD_ON_TOP, METHODS, MethodSettings, method_spec, users
from iekd.config.presets import PRESETS
from iekd.config.run import ABOUT, RunConfig


def unused_settings(config: RunConfig) -> dict[str, str]:
    """Settings that were changed and have no effect, each with what it is for, as in "the multi-step schedule".

    What the run's preset fills in is left out: nobody asked for it by name. Its name is not stored, so a preset counts
    as used if most of the values that it changes are there.
    """
    used = frozenset[str]().union(*(method_spec(method).uses for method in config.methods))
    filled_in, found = _filled_in(config), {}
    for field, known in ABOUT.items():
        has_effect = field in used or field not in MethodSettings.model_fields
        if known.used_when is not None:
            has_effect = has_effect and known.used_when(config)
        if not has_effect and getattr(config, field) not in (_usual(field), filled_in.get(field, _usual(field))):
            found[field] = known.only_for or _methods_in_words(field)
    return found


def _methods_in_words(field: str) -> str:
    """The methods that use a setting: "IE methods", "plain at", "kd and forms with +kd"."""
    names = users(field)
    if names == [name for name, spec in METHODS.items() if spec.terms]:
        return "methods other than the baseline"
    if names == [name for name, spec in METHODS.items() if spec.explores]:
        return "IE methods"
    if len(names) == 1 and f"ie-{names[0]}" in METHODS:
        return f"plain {names[0]}"
    if field in KD.settings:
        names.append(f"forms with {KD_ON_TOP}")
    return " and ".join([", ".join(names[:-1])] * (len(names) > 1) + names[-1:])


def _usual(field: str) -> Any:
    return RunConfig.model_fields[field].default


def _filled_in(config: RunConfig) -> dict[str, Any]:
    """The values of the preset that the run seems to have; {} if it has none."""
    for preset in PRESETS.values():
        changed = {field: value for field, value in preset.values.items() if value != _usual(field)}
        if 2 * sum(getattr(config, field) == value for field, value in changed.items()) > len(changed):
            return changed
    return {}
