"""Settings that a run does not use. To be said before it starts: else two equal runs may pass for a comparison."""

from __future__ import annotations

from iekd.config.methods import ANSWERS, parts
from iekd.config.run import PRESETS, RunConfig
from iekd.data import source_of
from iekd.models.source import AUTO, TRAIN


def unused_settings(config: RunConfig) -> dict[str, str]:
    """Settings that were changed and have no effect, each with what it is for, as in "the multi-step schedule".

    What a preset fills in is left out: nobody asked for it by name.
    """
    taught = [parts(method) for method in config.methods]
    bases = {part.base for part in taught if not part.explores}
    found: dict[str, str] = {}

    def only(purpose: str, there: bool, *fields: str) -> None:
        if not there:
            found.update((field, purpose) for field in fields if _was_changed(config, field))

    only("the multi-step schedule", config.schedule == "multi-step", "milestones")
    only(
        "IE methods", any(part.explores for part in taught), "inheritance_share", "channel_split", "distance",
        "ie_stages", "inheritance_weight", "exploration_weight",
    )  # fmt: skip
    only("ft and ie-ft", any(part.uses_factor for part in taught), "auto_encoder")
    only("methods with an auto-encoder", config.needs_auto_encoder, "auto_encoder_epochs")
    only("kd, dkd, dist and forms with +kd", any(p.kd or p.base in ANSWERS for p in taught), "temperature")
    only("kd and forms with +kd", any(part.kd or part.base == "kd" for part in taught), "kd_weight")
    for base, field in (("at", "attention_weight"), ("ft", "factor_weight"), ("od", "overhaul_weight")):
        only(f"plain {base}", base in bases, field)
    only("dkd", "dkd" in bases, "dkd_target_weight", "dkd_other_weight")
    only("dist", "dist" in bases, "dist_weight")
    only("dml and ie-dml", any(part.needs_peer for part in taught), "mutual_weight", "peer")
    only("methods other than the baseline", set(config.methods) != {"baseline"}, "weight_schedule")
    trained = config.needs_teacher and config.teacher_from in (AUTO, TRAIN)
    only("teachers that the run trains", trained, "teacher_epochs")
    only("folders of pictures", source_of(config.dataset).uses_test_fraction, "test_fraction")
    return found


def _was_changed(config: RunConfig, field: str) -> bool:
    value, usual = getattr(config, field), RunConfig.model_fields[field].default
    return value not in (usual, *(preset.values.get(field, usual) for preset in PRESETS.values()))
