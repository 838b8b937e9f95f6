"""Settings that a run does not use. Users are told before it starts: else two equal runs may pass for a comparison."""

from __future__ import annotations

from iekd.config.methods import KD, KD_ON_TOP, METHODS, MethodSettings, method_spec, users
from iekd.config.presets import PRESETS
from iekd.config.run import ABOUT, RunConfig


def unused_settings(config: RunConfig) -> dict[str, str]:
    """Settings that were changed and have no effect, each with what it is for, as in "the multi-step schedule".

    What a preset fills in is left out: nobody asked for it by name.
    """
    used = frozenset[str]().union(*(method_spec(method).uses for method in config.methods))
    found = {}
    for field, known in ABOUT.items():
        has_effect = field in used or field not in MethodSettings.model_fields
        if known.used_when is not None:
            has_effect = has_effect and known.used_when(config)
        if not has_effect and _was_changed(config, field):
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


def _was_changed(config: RunConfig, field: str) -> bool:
    value, usual = getattr(config, field), RunConfig.model_fields[field].default
    return value not in (usual, *(preset.values.get(field, usual) for preset in PRESETS.values()))
