"""Runs that differ in their seeds alone, taken as one: when that is allowed, and the report of all their seeds.

Leaves out: which runs extend another, and where their files are (runs/siblings.py).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from iekd.config.run import RunConfig, label
from iekd.language import _, ngettext
from iekd.plural import counted
from iekd.results.brief import settings_that_differ
from iekd.results.predictions import Right, right_of
from iekd.results.report import accuracies, against_baseline, on_other_images, spread, summaries
from iekd.results.significance import each_over_images, summarise

# settings that two runs may differ in: the seeds, a label, what the machine has, and how the teacher was found, because
# its weights themselves are compared
MAY_DIFFER = frozenset({"seeds", "name", "threads", "image_memory", "device"})
OF_TEACHER = frozenset({"teacher", "teacher_from", "teacher_mean", "teacher_std"})


@dataclass(frozen=True, eq=False)
class PooledRun:
    """A finished run, as far as pooling needs it.

    teacher: a fingerprint of the teacher's weights; "" for none. right: which test images each student got right; None
    if that is not known.
    """

    run: str
    config: RunConfig
    report: dict[str, Any]
    teacher: str
    right: Right | None


def circumstances(versions: Mapping[str, str], device: str) -> dict[str, str]:
    """What decides how numbers come out, beside the settings: the version of the program, the feature release of torch,
    the kind of device. Python, NumPy and the torch patch release change no more than rounding.

    Args:
        versions: as report.json has them.
        device: such as "cuda:0".
    """
    torch = ".".join(str(versions.get("torch", "")).split(".")[:2])
    return {
        "version of iekd": versions.get("iekd", ""), "version of torch": torch,
        "kind of device": device.partition(":")[0],
    }  # fmt: skip


def why_other_circumstances(first: Mapping[str, str], second: Mapping[str, str]) -> str:
    """The first of `circumstances` that is not the same, as the end of a sentence; "" if all are."""
    for what, value in first.items():
        if value != second[what]:
            return f"it has another {what} ({second[what] or 'unknown'} instead of {value or 'unknown'})"
    return ""


def why_not(first: PooledRun, second: PooledRun) -> str:
    """Why the seeds of two runs may not be taken together, as the end of a sentence; "" if they may."""
    differing = settings_that_differ([first.config, second.config])
    other = [name for name in differing if name not in MAY_DIFFER | OF_TEACHER]
    if other:
        return _("it has other settings ({settings})", settings=", ".join(_(label(name)) for name in other))
    if first.teacher != second.teacher:
        return _("its teacher has other weights")
    circumstance = why_other_circumstances(
        circumstances(first.report.get("versions", {}), first.report["device"]),
        circumstances(second.report.get("versions", {}), second.report["device"]),
    )
    if circumstance:
        return circumstance
    if first.report.get("dataset_mark", "") != second.report.get("dataset_mark", ""):
        return _("the files of the dataset had changed")
    if first.right is None or second.right is None:
        return _("the predictions of one of them are missing, so nobody can tell whether the test images are the same")
    if first.right.images != second.right.images:
        return _("it was tested on other images")
    return ""


def seeds_of(part: PooledRun) -> set[int]:
    """All seeds of a run, those of students that diverged too."""
    return set(part.config.seeds)


def choose(first: PooledRun, others: Iterable[PooledRun]) -> tuple[list[PooledRun], dict[str, str]]:
    """(runs to pool, the first one included; run -> why it is left out)."""
    chosen, refused, taken = [first], dict[str, str](), seeds_of(first)
    for part in others:
        common = sorted(taken & seeds_of(part))
        why = why_not(first, part)
        if not why and common:
            why = _("seed {seed} is in another of these runs too", seed=common[0])
        if why:
            refused[part.run] = why
            continue
        chosen.append(part)
        taken |= seeds_of(part)
    return chosen, refused


def pool(parts: Sequence[PooledRun]) -> dict[str, Any]:
    """One report with the students of all runs, in the form of report.json. What is not of seeds is the first run's.

    Args:
        parts: which `choose` lets be pooled.
    """
    first = parts[0].report
    report: dict[str, Any] = {
        **first,
        "learners": [learner for part in parts for learner in part.report["learners"]],
        "diverged": {k: v for part in parts for k, v in part.report.get("diverged", {}).items()},
        "seconds": sum(part.report["seconds"] or 0.0 for part in parts),
        "reasons": list(dict.fromkeys(said for part in parts for said in part.report.get("reasons", []))),
    }
    right: dict[str, dict[int, Any]] = {}
    for part in parts:
        known = right_of(part.report, part.right) if part.right is not None else None
        if known is None:  # an interval over images of some seeds would look like one of all
            right = {}
            break
        for method, by_seed in known.items():
            right.setdefault(method, {}).update(by_seed)
    found = summarise(accuracies(report), images=each_over_images(right))
    return {**report, "summary": [summary.to_json() for summary in found]}


def added_seeds(before: Sequence[int], added: Sequence[int]) -> str:
    """What has to be known of numbers that include seeds which were added once a result was there."""
    if not added:
        return ""
    earlier = _("the result of {seeds}", seeds=named_seeds(before)) if before else _("the first result")
    said = ngettext("{seeds} was added after a look at {result}.", "{seeds} were added after a look at {result}.",
                    len(added), seeds=named_seeds(added), result=earlier)  # fmt: skip
    return said[0].upper() + said[1:] + " " + _(
        "Whoever adds seeds until a result looks good gets p-values that are too small and intervals that are too "
        "narrow. To publish a number, choose how many seeds before the first run."
    )  # fmt: skip


def named_seeds(seeds: Sequence[int]) -> str:
    """Seeds in words: seeds 0, 1 and 2."""
    texts = [str(seed) for seed in sorted(seeds)]
    if len(texts) == 1:
        return _("seed {seed}", seed=texts[0])
    return _("seeds {seeds} and {last}", seeds=", ".join(texts[:-1]), last=texts[-1])


def to_markdown(report: dict[str, Any], runs: Sequence[str], note: str) -> str:
    """The table of a pooled report, with the runs that it comes from."""
    rows = [
        f"| {s.method} | {s.n} | {spread(s.mean, s.sd)} | {against_baseline(s)} | {on_other_images(s)} |"
        for s in summaries(report)
    ]
    return "\n".join(
        [
            f"## Together with {counted(len(runs) - 1, 'run')} of other seeds", "", note, "",
            "| method | seeds | last epoch, mean ± standard deviation (%) | points against the baseline, 95 % interval "
            "over seeds, Holm's p | 95 % interval over test images |",
            "|---|---|---|---|---|", *rows, "", f"Runs: {', '.join(runs)}.", "",
        ]
    )  # fmt: skip
