"""What a report says: its sentences, its table, and report.md. Knows no run folder."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from iekd.config.methods import BASELINE
from iekd.data import relative_name
from iekd.engine.scoring import imbalanced
from iekd.estimate.cautions import few_test_images
from iekd.language import _, ngettext
from iekd.models.hub_configs import without_commit
from iekd.plural import counted
from iekd.results.predictions import ANSWERS
from iekd.results.significance import OverImages, Summary, conclusion, p_text, summarise

NAMED = 20  # files that report.md names of those that were skipped
OVER_IMAGES = (
    "The interval over seeds says what training once more may change, on these test images; the one over test images "
    "what other images like them may change, with these very networks. Neither is corrected for the number of methods, "
    f"as p is. {ANSWERS} has every answer."
)


def summary(report: dict[str, Any]) -> dict[str, Any]:
    """The part of a report that `iekd train --json` prints."""
    keys = ("run", "path", "state", "seconds", "teacher", "learners", "dataset", "device")
    short = {**{k: report[k] for k in keys}, "diverged": report.get("diverged", {})}
    short["teacher"] = report["teacher"] and {k: report["teacher"][k] for k in ("model", "accuracy", "params")}
    kept = ["method", "seed", "accuracy_last", "accuracy_best", "params"]
    if is_imbalanced(report):
        kept.append("balanced_accuracy")
        short["class_counts"] = report["class_counts"]
        short["teacher"] = short["teacher"] and {
            **short["teacher"], "balanced_accuracy": report["teacher"]["balanced_accuracy"]
        }  # fmt: skip
    short["learners"] = [{k: learner[k] for k in kept} for learner in report["learners"]]
    return short


def summaries(report: dict[str, Any]) -> list[Summary]:
    """Each method over its seeds, by the accuracy after the last epoch, in the order of training."""
    # which images were right is not in the report: what came of that is
    known = {s["method"]: (s["difference"] or {}).get("over_images") for s in report.get("summary", [])}
    images = {method: OverImages(**values) for method, values in known.items() if values}
    return summarise(accuracies(report), images=images)


def is_imbalanced(report: dict[str, Any]) -> bool:
    """Whether the classes have such different numbers of images that accuracy alone misleads. Reports of earlier
    versions do not tell."""
    return any(imbalanced(counts.values()) for counts in report.get("class_counts", {}).values())


def imbalance(report: dict[str, Any]) -> str:
    """What balanced accuracy is, and why it is shown; empty where it is not."""
    if not is_imbalanced(report):
        return ""
    counts, tested = report["class_counts"]["train"], report["class_counts"]["test"]
    there = {name: count for name, count in counts.items() if count}
    few, many = min(there, key=there.__getitem__), max(there, key=there.__getitem__)
    said = _(
        "The classes have different numbers of images: {fewest} of {rare} and {most} of {common} to learn from. So "
        "look at the balanced accuracy too, the mean of the classes' accuracies: always predicting one class gives "
        "{share} %.",
        fewest=f"{there[few]:,}", rare=few, most=f"{there[many]:,}", common=many,
        share=f"{100 / max(1, sum(map(bool, tested.values()))):.1f}",
    )  # fmt: skip
    if report["config"].get("class_weights") != "balanced" and imbalanced(there.values()):
        said += " " + _("With class weights 'balanced', rare classes count more in training.")
    return said


def accuracies(report: dict[str, Any]) -> dict[str, dict[int, float]]:
    """Method -> seed -> percent after the last epoch."""
    accuracies: dict[str, dict[int, float]] = {}
    for learner in report["learners"]:
        accuracies.setdefault(learner["method"], {})[learner["seed"]] = learner["accuracy_last"]
    return accuracies


def verdict(report: dict[str, Any]) -> str:
    """Honest sentences: which method beat the baseline, by how much, whether chance may do that, who diverged."""
    return " ".join(filter(None, (headline(report), *remarks(report), left_out(report), imbalance(report))))


def headline(report: dict[str, Any], name: Callable[[str], str] = str, images: str = "images") -> str:
    """The comparison with the baseline, as `conclusion` says it; empty where no student has learned anything."""
    found = summaries(report)
    return "" if all(guesses(report, s.mean) for s in found) else conclusion(found, name, images)


def remarks(report: dict[str, Any], name: Callable[[str], str] = str) -> list[str]:
    """What makes a comparison worth little: networks that only guess, and a teacher that knows less than the baseline;
    with the reasons, where some were found.

    name: how a method is called.
    """
    found, said, reasons = summaries(report), list[str](), report.get("reasons", [])
    accuracy = report["teacher"]["accuracy"] if report.get("teacher") else None
    said += [at_chance] if (at_chance := chance_level(report, name)) else []
    said += reasons
    few = few_test_images(report.get("test_images", 0))
    if few is not None and few.serious:
        said.append(str(few))
    plain = next((s.mean for s in found if s.method == BASELINE), None)
    if accuracy is not None and plain is not None and accuracy < plain:
        said.append(
            _("The teacher ({teacher} %) knows less than the plain student ({plain} %), so there was little to learn "
              "from it. Train it longer, or take a better one.", teacher=f"{accuracy:.2f}", plain=f"{plain:.2f}")
        )  # fmt: skip
    return said


def chance_level(report: dict[str, Any], name: Callable[[str], str] = str) -> str:
    """Which networks are not clearly better than always predicting the majority class, as a sentence or two; empty if
    none is. name: how a method is called."""
    teacher = report.get("teacher")
    guessing = [_("the teacher")] if teacher and guesses(report, teacher["accuracy"]) else []
    guessing += [name(s.method) for s in summaries(report) if guesses(report, s.mean)]
    if not guessing:
        return ""
    names = guessing[0]
    if len(guessing) > 1:
        names = _("{first} and {last}", first=", ".join(guessing[:-1]), last=guessing[-1])
    said = ngettext(
        "{networks} is not clearly better than always predicting the majority class, which is right for {share} % of "
        "the test images.",
        "{networks} are not clearly better than always predicting the majority class, which is right for {share} % of "
        "the test images.", len(guessing), networks=names[0].upper() + names[1:], share=f"{report['guess']:.1f}",
    )  # fmt: skip
    if report.get("reasons"):
        return said
    return said + " " + _("Train longer, lower the learning rate, or test on more images.")


def guesses(report: dict[str, Any], accuracy: float) -> bool:
    """Whether that many percent are within two standard errors of guessing, or below. Earlier versions did not know."""
    guess = report.get("guess")
    if guess is None:
        return False
    return bool(accuracy <= guess + 2 * math.sqrt(guess * (100 - guess) / max(1, report["test_images"])))


def left_out(report: dict[str, Any]) -> str:
    """Which students diverged, as a sentence; empty if none did. Means over the other seeds flatter their method."""
    gone = report.get("diverged", {})
    if not gone:
        return ""
    return ngettext(
        "{students} diverged and is left out of all numbers.", "{students} diverged and are left out of all numbers.",
        len(gone), students=", ".join(gone),
    )  # fmt: skip


def spread(mean: float, sd: float | None) -> str:
    """88.84, or 88.80 ± 0.20 where there are several seeds."""
    return f"{mean:.2f}" if sd is None else f"{mean:.2f} ± {sd:.2f}"


def to_markdown(report: dict[str, Any]) -> str:
    """A short page with the table of results. Reports of earlier versions know less."""
    lines = [f"# Run {report['run']}", "", f"    {report['command']}", ""]
    lines += [verdict(report), ""] if verdict(report) else []
    lines += [*(f"- {message}" for message in gone.values()), ""] if (gone := report.get("diverged")) else []
    extra = is_imbalanced(report)
    lines += [
        "| network | seed | parameters | accuracy (%) |" + " balanced accuracy (%) |" * extra,
        "|---|---|---|---|" + "---|" * extra,
    ]
    if teacher := report["teacher"]:
        balanced = f" {teacher['balanced_accuracy']:.2f} |" if extra else ""
        model = without_commit(teacher["model"])
        lines.append(f"| teacher {model} | | {teacher['params']:,} | {teacher['accuracy']:.2f} |{balanced}")
    lines += [
        f"| {r['method']} | {r['seed']} | {r['params']:,} | {r['accuracy_last']:.2f} |"
        + (f" {r['balanced_accuracy']:.2f} |" if extra else "")
        for r in report["learners"]
    ]
    found = summaries(report)
    if any(s.n > 1 or (s.difference and s.difference.over_images) for s in found):
        lines += [
            "",
            "| method | seeds | last epoch, mean ± standard deviation (%) | points against the baseline, "
            "95 % interval over seeds, Holm's p | 95 % interval over test images |",
            "|---|---|---|---|---|",
        ]
        lines += [
            f"| {s.method} | {s.n} | {spread(s.mean, s.sd)} | {against_baseline(s)} | {on_other_images(s)} |"
            for s in found
        ]
        if any(s.difference and s.difference.over_images for s in found):
            lines += ["", OVER_IMAGES]
    if teacher and teacher.get("from"):
        lines += ["", f"The teacher comes from: {teacher['from']}."]
    lines += ["", "## Per class (%)", "", *_per_class(report)]
    lines += [
        "",
        f"{report['dataset']}: {report['train_images']:,} training, {report.get('validation_images', 0):,} validation "
        f"and {counted(report['test_images'], 'test image')}. Accuracy is that of {_which_epoch(report)} on the test "
        "images.",
        "",
        *_skipped(report),
        *_data_notes(report),
        f"{report['seconds']:.0f} s on {report['device']}. "
        + ", ".join(f"{name} {version}" for name, version in report["versions"].items() if version),
        "",
    ]
    return "\n".join(lines)


def skipped_words(report: dict[str, Any]) -> str:
    """How many files could not be read; "" if none."""
    files = report.get("skipped_files", [])
    what = counted(len(files), "file that cannot be read was", "files that cannot be read were")
    return f"{what} left out" if files else ""


def _skipped(report: dict[str, Any]) -> list[str]:
    """Which files could not be read, the first of them by name."""
    files = list(report.get("skipped_files", []))
    if not files:
        return []
    named = [relative_name(report["dataset"], name).replace("\n", " ").replace("`", "'") for name in files[:NAMED]]
    more = [f"- and {len(files) - NAMED:,} more, which report.json names"] if len(files) > NAMED else []
    return [f"{skipped_words(report)}:", "", *(f"- `{name}`" for name in named), *more, ""]


def _data_notes(report: dict[str, Any]) -> list[str]:
    """What the user may not expect of the images: what was not used, which are tested on."""
    notes = [str(note).replace("\n", " ").replace("`", "'") for note in report.get("data_notes", [])]
    return ["About the images:", "", *(f"- {note}" for note in notes), ""] if notes else []


def against_baseline(found: Summary) -> str:
    """+2.59 [2.24, 2.94], p < 0.001; empty for the baseline."""
    difference = found.difference
    if difference is None:
        return ""
    if difference.low is None or difference.p_adjusted is None:
        return f"{difference.mean:+.2f}"
    return f"{difference.mean:+.2f} [{difference.low:+.2f}, {difference.high:+.2f}], p {p_text(difference.p_adjusted)}"


def on_other_images(found: Summary) -> str:
    """+0.41 to +4.87; empty where it is not known."""
    tested = found.difference.over_images if found.difference else None
    return "" if tested is None else f"{tested.low:+.2f} to {tested.high:+.2f}"


def class_columns(report: dict[str, Any]) -> dict[str, dict[str, float | None]]:
    """Accuracy by class of the teacher and of each method, several seeds as their mean; None where no test image is."""
    columns: dict[str, list[dict[str, float | None]]] = {}
    if report["teacher"]:
        columns["teacher"] = [report["teacher"]["class_accuracy"]]
    for learner in report["learners"]:
        columns.setdefault(learner["method"], []).append(learner["class_accuracy"])
    return {
        column: {name: _mean([by_class[name] for by_class in found]) for name in found[0]}
        for column, found in columns.items()
    }


def _cell(text: str) -> str:
    """Text inside a table."""
    return text.replace("\\", "\\\\").replace("|", "\\|").replace("\n", " ")


def _mean(values: list[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None


def _which_epoch(report: dict[str, Any]) -> str:
    """With early stopping it is the one that the validation split chose."""
    return "the epoch with the best validation accuracy" if stops_early(report) else "the last epoch"


def stops_early(report: dict[str, Any]) -> bool:
    """Whether the networks of a run keep the weights of their best epoch."""
    return bool(report.get("config", {}).get("patience"))


def _per_class(report: dict[str, Any]) -> list[str]:
    columns = class_columns(report)
    counts = report["class_counts"] if is_imbalanced(report) else {}
    heads = [*columns, *(f"{split} images" for split in counts)]
    lines = [f"| class | {' | '.join(heads)} |", "|---" * (len(heads) + 1) + "|"]
    for name in report["learners"][0]["class_accuracy"]:
        values = [by_class[name] for by_class in columns.values()]
        cells = ["" if v is None else f"{v:.1f}" for v in values] + [f"{own[name]:,}" for own in counts.values()]
        lines.append(f"| {_cell(name)} | {' | '.join(cells)} |")
    return lines
