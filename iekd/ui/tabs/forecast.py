"""What the form says before Start: sizes, the teacher at hand, time and memory. Needs no torch."""

from __future__ import annotations

from html import escape
from pathlib import Path

from markupsafe import Markup

from iekd.config.methods import method_name
from iekd.config.run import RunConfig, label
from iekd.config.unused import unused_settings
from iekd.data.base import DatasetInfo
from iekd.estimate.cautions import learned_from
from iekd.language import _, ngettext
from iekd.models.artifact import ModelCard
from iekd.models.catalog import model_name, models
from iekd.models.source import AUTO
from iekd.paths import checkpoints_dir
from iekd.results.dataset_words import class_lines
from iekd.runs.estimate import Estimate, estimate
from iekd.runs.prepare import Prepared
from iekd.runs.slots import device_name
from iekd.runs.starts import FirstWeights
from iekd.runs.store import Store
from iekd.runs.teachers import Found, where_from
from iekd.times import time_range
from iekd.ui.render.template import html_plural, html_text
from iekd.ui.render.words import count, dataset_title, device_title


def forecast_html(
    prepared: Prepared, store: Store, measuring: bool = False, expected: Estimate | None = None
) -> str:  # fmt: skip
    """The details below the Start button. measuring: a better estimate is on its way. expected: time and memory, where
    the caller knows them."""
    config, info, found_teacher = prepared.config, prepared.info, prepared.teacher
    student = models()[config.student].params(info.channels, info.classes)
    rows = [(_("Images"), escape(_images(config, info)))]
    if classes := class_lines(info):
        listed = "".join(f"<li>{escape(line)}</li>" for line in classes)
        rows.append((_("Classes"), f"<details><summary>{escape(_order(info))}</summary><ul>{listed}</ul></details>"))
    if notes := (*info.notes, *prepared.notes):
        rows.append((_("Note"), "<br>".join(f"<b>{escape(note)}</b>" for note in notes)))
    if config.needs_teacher:
        teacher = models()[config.teacher].params(info.channels, info.classes)
        large = f"<b>{model_name(config.teacher)}</b>, {count(teacher)}"
        small = f"<b>{model_name(config.student)}</b>, {count(student)}"
        rows.append((_("Networks"), f"{large} → {small}: {_ratio(teacher, student)}"))
        rows.append((_("Teacher"), _teacher(config, found_teacher, prepared.start)))
    else:
        name = model_name(config.student)
        words = html_text("<b>{network}</b>, {count} parameters, no teacher", network=name, count=count(student))
        rows.append((_("Network"), words))
    rows.append((_("Students"), escape(_students(config))))
    if prepared.student is not None:
        rows.append((_("Students start from"), escape(prepared.student.title)))
    if unused := unused_settings(config):
        rows.append((_("No effect"), _without_effect(unused)))
    found = expected or estimate(config, store, found_teacher is not None, info)
    rows += [(_("Warning"), f"<b>{escape(str(caution))}</b>") for caution in found.cautions(prepared)]
    rows.append((_("Estimate"), _estimate(found, config, measuring)))
    items = "".join(f"<dt>{escape(term)}</dt><dd>{text}</dd>" for term, text in rows)
    # it may scroll, which the keyboard must be able to do too
    region = f'class="details" tabindex="0" role="region" aria-label="{html_text("Details of the run")}"'
    return f'<div {region}><dl class="forecast">{items}</dl></div>'


def _images(config: RunConfig, info: DatasetInfo) -> str:
    learned = learned_from(config, info)
    held_out = min(info.train_images, config.limit_train or info.train_images) - learned
    size = config.resolution or info.resolution
    title = dataset_title(info.name)
    title = title if title == info.name else title[0].upper() + title[1:]  # a name is written as it is typed
    counts = [_("{images} to learn from", images=f"{learned:,}")]
    if held_out:
        counts.append(_("{images} to watch training by", images=f"{held_out:,}"))
    tested = _("{images} to test on", images=f"{info.test_images:,}")
    counts.append(f"{tested} ({info.tested_on})" if info.tested_on else tested)
    counts.append(ngettext("{number} class", "{number} classes", info.classes))
    grey = info.channels == 1
    counts.append(_("{side} × {side} grey", side=size) if grey else _("{side} × {side} colour", side=size))
    return f"{title}: {', '.join(counts)}"


def _students(config: RunConfig) -> str:
    learners = len(config.methods) * len(config.seeds)
    taught = ", ".join(method_name(m) for m in config.methods)
    if len(config.seeds) > 1:
        taught = ngettext("{methods} × {number} seed", "{methods} × {number} seeds", len(config.seeds), methods=taught)
    if learners == 1:
        return f"1: {taught}"
    return _("{count} side by side: {methods}", count=learners, methods=taught)


def _order(info: DatasetInfo) -> str:
    """The first classes, in the order of their labels."""
    few = ", ".join(info.class_names[:4])
    return f"{few}, …" if len(info.class_names) > 4 else few


def _without_effect(unused: dict[str, str]) -> str:
    fields: dict[str, list[str]] = {}
    for field, purpose in unused.items():
        fields.setdefault(purpose, []).append(f"<b>{escape(_(label(field)))}</b>")
    return "; ".join(
        html_text("{settings} (only for {purpose})", settings=Markup(", ".join(names)), purpose=purpose)
        for purpose, names in fields.items()
    )


def _ratio(teacher: int, student: int) -> str:
    if teacher >= student:
        times = f"{teacher / student:.1f}"
        smaller = teacher > 1.05 * student
        return html_text("<b>{times}× smaller</b>", times=times) if smaller else html_text("the same size")
    return html_text("{times}× larger than its teacher", times=f"{student / teacher:.1f}")


def _teacher(config: RunConfig, found: Found | None, start: FirstWeights | None) -> str:
    if found is None and start is not None:
        return html_plural(
            "the {start} will be fine-tuned on these classes first ({number} epoch), then kept for later runs",
            "the {start} will be fine-tuned on these classes first ({number} epochs), then kept for later runs",
            config.teacher_epochs, start=start.title,
        )  # fmt: skip
    if found is None:
        return html_plural(
            "will be trained first ({number} epoch), then kept for later runs",
            "will be trained first ({number} epochs), then kept for later runs", config.teacher_epochs,
        )  # fmt: skip
    if start is not None:
        origin = html_text("the {start}, fine-tuned by an earlier run, used again", start=start.title)
    elif config.teacher_from != AUTO:
        origin = html_text("comes from the {origin}", origin=where_from(config, found))
    elif isinstance(found, Path) and found.parent == checkpoints_dir():
        origin = html_text("comes trained with this program")
    else:
        origin = html_text("trained by an earlier run, used again")
    accuracy = ModelCard.read(found).accuracy if isinstance(found, Path) and found.is_dir() else None
    if accuracy is None:
        return origin
    return html_text("{origin}; right on {accuracy} % of its test images", origin=origin, accuracy=f"{accuracy:.1f}")


def _estimate(found: Estimate, config: RunConfig, measuring: bool) -> str:
    basis = _("{basis}; trying these networks now…", basis=found.basis) if measuring else found.basis
    words = html_text(
        "<b>{time}</b> on {device}, {memory} of memory ({basis})", time=time_range(found.low, found.high),
        device=device_title(device_name(config.device)), memory=found.memory, basis=basis,
    )  # fmt: skip
    return words + (Markup("<br><b>{}</b>").format(found.warning) if found.warning else "")
