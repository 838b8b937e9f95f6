"""What the form says before Start: sizes, the teacher at hand, time and memory. Needs no torch."""

from __future__ import annotations

from html import escape
from pathlib import Path

from iekd.config.methods import method_name
from iekd.config.run import RunConfig, label
from iekd.config.unused import unused_settings
from iekd.data import title_of
from iekd.data.base import DatasetInfo
from iekd.estimate.cautions import learned_from
from iekd.models.artifact import ModelCard
from iekd.models.catalog import model_name, models
from iekd.models.source import AUTO
from iekd.paths import checkpoints_dir
from iekd.plural import counted
from iekd.results.dataset_words import class_lines
from iekd.runs.estimate import Estimate, estimate
from iekd.runs.prepare import Prepared
from iekd.runs.queue import device_name
from iekd.runs.store import Store
from iekd.runs.teachers import where_from
from iekd.ui.render.words import DEVICES, count, time_range


def forecast_html(
    prepared: Prepared, store: Store, measuring: bool = False, expected: Estimate | None = None
) -> str:  # fmt: skip
    """The details below the Start button. measuring: a better estimate is on its way. expected: time and memory, where
    the caller knows them."""
    config, info, folder = prepared.config, prepared.info, prepared.teacher
    student = models()[config.student].params(info.channels, info.classes)
    learners = len(config.methods) * len(config.seeds)
    taught = ", ".join(method_name(m) for m in config.methods)
    seeds = f" × {len(config.seeds)} seeds" if len(config.seeds) > 1 else ""
    rows = [("Images", escape(_images(config, info)))]
    if classes := class_lines(info):
        listed = "".join(f"<li>{escape(line)}</li>" for line in classes)
        rows.append(("Classes", f"<details><summary>{escape(_order(info))}</summary><ul>{listed}</ul></details>"))
    if info.notes:
        rows.append(("Note", "<br>".join(f"<b>{escape(note)}</b>" for note in info.notes)))
    if config.needs_teacher:
        teacher = models()[config.teacher].params(info.channels, info.classes)
        large = f"<b>{model_name(config.teacher)}</b>, {count(teacher)}"
        small = f"<b>{model_name(config.student)}</b>, {count(student)}"
        rows.append(("Networks", f"{large} → {small}: {_ratio(teacher, student)}"))
        rows.append(("Teacher", _teacher(config, folder)))
    else:
        rows.append(("Network", f"<b>{model_name(config.student)}</b>, {count(student)} parameters, no teacher"))
    rows.append(("Students", f"{learners}{' side by side' if learners > 1 else ''}: {taught}{seeds}"))
    if unused := unused_settings(config):
        rows.append(("No effect", _without_effect(unused)))
    found = expected or estimate(config, store, folder is not None, info)
    rows += [("Warning", f"<b>{escape(str(caution))}</b>") for caution in found.cautions(prepared)]
    rows.append(("Estimate", _estimate(found, config, measuring)))
    items = "".join(f"<dt>{term}</dt><dd>{text}</dd>" for term, text in rows)
    # it may scroll, which the keyboard must be able to do too
    region = 'class="details" tabindex="0" role="region" aria-label="Details of the run"'
    return f'<div {region}><dl class="forecast">{items}</dl></div>'


def _images(config: RunConfig, info: DatasetInfo) -> str:
    learned = learned_from(config, info)
    held_out = min(info.train_images, config.limit_train or info.train_images) - learned
    size = config.resolution or info.resolution
    grey = "grey" if info.channels == 1 else "colour"
    title = title_of(info.name)
    title = title if title == info.name else title[0].upper() + title[1:]  # a name is written as it is typed
    choosing = f"{held_out:,} to watch training by, " if held_out else ""
    counts = f"{learned:,} to learn from, {choosing}{info.test_images:,} to test on"
    tested_on = f" ({info.tested_on})" if info.tested_on else ""
    return f"{title}: {counts}{tested_on}, {counted(info.classes, 'class')}, {size} × {size} {grey}"


def _order(info: DatasetInfo) -> str:
    """The first classes, in the order of their labels."""
    few = ", ".join(info.class_names[:4])
    return f"{few}, …" if len(info.class_names) > 4 else few


def _without_effect(unused: dict[str, str]) -> str:
    fields: dict[str, list[str]] = {}
    for field, purpose in unused.items():
        fields.setdefault(purpose, []).append(f"<b>{label(field)}</b>")
    return "; ".join(f"{', '.join(names)} (only for {escape(purpose)})" for purpose, names in fields.items())


def _ratio(teacher: int, student: int) -> str:
    if teacher >= student:
        return f"<b>{teacher / student:.1f}× smaller</b>" if teacher > 1.05 * student else "the same size"
    return f"{student / teacher:.1f}× larger than its teacher"


def _teacher(config: RunConfig, found: Path | None) -> str:
    if found is None:
        epochs = counted(config.teacher_epochs, "epoch")
        return f"will be trained first ({epochs}), then kept for later runs"
    accuracy = ModelCard.read(found).accuracy if found.is_dir() else None
    good = "" if accuracy is None else f"; right on {accuracy:.1f} % of its test images"
    if config.teacher_from != AUTO:
        return f"comes from the {escape(where_from(config, found))}{good}"
    if found.parent == checkpoints_dir():
        return f"comes trained with this program{good}"
    return f"trained by an earlier run, used again{good}"


def _estimate(found: Estimate, config: RunConfig, measuring: bool) -> str:
    basis = found.basis + "; trying these networks now…" * measuring
    where = DEVICES[device_name(config.device)]
    warning = f"<br><b>{escape(found.warning)}</b>" if found.warning else ""
    return f"<b>{time_range(found.low, found.high)}</b> on {where}, {found.memory} of memory ({basis}){warning}"
