"""What models predict for images, as HTML, CSV and JSON: a summary, filters, and a page of compact rows. No Gradio."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from iekd.config.methods import BASELINE, METHODS, explores
from iekd.inference.compare import ImageResult, classes_named
from iekd.inference.compare_uploads import PIXELS, REPEATS, ComparedImage, ComparedUploads
from iekd.language import _, ngettext
from iekd.models.artifact import TEACHER, ModelCard
from iekd.models.catalog import model_name
from iekd.results.agreement import (
    ALL,
    FILTERS,
    AgreementSummary,
    Answered,
    Kinds,
    chosen,
    missing,
    summarise,
)
from iekd.results.card import student_name
from iekd.results.prediction_table import PredictionRow, PredictionTable, to_csv
from iekd.ui.render.examples import file_url
from iekd.ui.render.template import render
from iekd.ui.render.words import count, file_size, method_style, teacher_title

PAGE = 20  # images of one page
LISTED = 100  # classes, up to which right answers are chosen from a list; else they are typed
MOST_ANSWERS, LONGEST = 5000, 200  # of what a page may send: right answers, and characters of each


@dataclass(frozen=True)
class ModelColumn:
    """A model as it is shown. title: Teacher, IE-FT; detail: which run, where models of several are compared."""

    title: str
    detail: str = ""
    style: str = ""


@dataclass(frozen=True)
class View:
    """What somebody wants to see. show: one of FILTERS; page: from 0; right: by an image's key, the class that they say
    is right ("" for none)."""

    show: str = ALL
    page: int = 0
    right: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def read(cls, values: Any) -> View:
        """From what the page sent, which may be anything."""
        if not isinstance(values, dict):
            return cls()
        show, page, right = values.get("show"), values.get("page"), values.get("right")
        told = list(right.items())[:MOST_ANSWERS] if isinstance(right, dict) else []
        return cls(
            show if isinstance(show, str) and show in FILTERS else ALL, max(0, page) if type(page) is int else 0,
            {str(key)[:LONGEST]: label[:LONGEST] for key, label in told if isinstance(label, str)},
        )  # fmt: skip


@dataclass(frozen=True)
class ViewedComparison:
    """A comparison with the right answers that are known, and the images that a view shows."""

    of: ComparedUploads
    images: tuple[ComparedImage, ...]
    answers: tuple[Answered, ...]
    kinds: Kinds
    show: str
    rows: tuple[int, ...]

    @property
    def summary(self) -> AgreementSummary:
        return summarise(self.answers, list(self.of.models))


def viewed(of: ComparedUploads, view: View) -> ViewedComparison:
    """A filter that cannot be used shows all images."""
    known = set(of.class_names)
    answers = []
    for image in of.images:
        told = view.right.get(image.key, image.result.right)
        labels = {name: prediction.label for name, prediction in image.result.predictions.items()}
        answers.append(Answered(labels, told if told in known else ""))
    kinds = kinds_of({name: model.card for name, model in of.models.items()})
    show = ALL if missing(view.show, answers, kinds) else view.show
    return ViewedComparison(of, of.images, tuple(answers), kinds, show, tuple(chosen(show, answers, kinds)))


def kinds_of(cards: Mapping[str, ModelCard]) -> Kinds:
    """Which models are what, by their cards. Those of other programs, whose card names no dataset, are of no kind."""
    ours = {name: card for name, card in cards.items() if card.datasets}
    students = {name: card.method for name, card in ours.items() if card.role != TEACHER}
    return Kinds(
        tuple(name for name, card in ours.items() if card.role == TEACHER),
        tuple(name for name, method in students.items() if method == BASELINE),
        tuple(name for name, method in students.items() if explores(method)), tuple(students),
    )  # fmt: skip


def column_of(card: ModelCard, name: str, detail: str = "", several_seeds: bool = False) -> ModelColumn:
    """The column of a model. name: of a model of another program."""
    if not card.datasets:
        return ModelColumn(name, detail)
    if card.role == TEACHER:
        return ModelColumn(teacher_title(), detail, TEACHER)
    title = student_name(card.method)
    if several_seeds:
        title = _("{method}, seed {seed}", method=title, seed=card.seed)
    return ModelColumn(title, detail, method_style(card.method))


def comparison_html(
    compared: ComparedUploads, columns: Mapping[str, ModelColumn], view: View = View(), legend: Sequence[str] = (),
    links: Sequence[tuple[str, str]] = (), most: int = 0, compact: bool = True,
) -> str:  # fmt: skip
    """Summary, filters, a page of rows, and the sizes of the models.

    Args:
        columns: by name of the model. legend: sentences on what is meant in them.
        links: (address, words) of the downloads.
        most: how many images are compared at a time, for the note that some were left out.
        compact: rows that open when they are asked to, with filters above; else rows that are open.
    """
    found = viewed(compared, view)
    pages = max(1, -(-len(found.rows) // PAGE))
    page = min(view.page, pages - 1)
    rows = found.rows[page * PAGE : (page + 1) * PAGE]
    filters = []
    for name, words in FILTERS.items():
        lacks = missing(name, found.answers, found.kinds)
        number = 0 if lacks else len(chosen(name, found.answers, found.kinds))
        filters.append({"name": name, "words": _(words), "lacks": lacks, "count": number})
    sent = {**asdict(view), "show": found.show, "page": page}
    return render(
        "comparison", compact=compact, summary=found.summary, filters=filters, show=found.show, view=sent, page=page,
        pages=pages, first=page * PAGE + 1, last=page * PAGE + len(rows), shown=len(found.rows),
        rows=[_row(compared.images[i], found.answers[i], columns) for i in rows], columns=columns,
        legend=legend, problems=[_told(why, columns) for why in compared.problems.values()],
        notes=_notes(compared, most), class_names=compared.class_names, listed=len(compared.class_names) <= LISTED,
        links=links, pixels=PIXELS, repeats=REPEATS, known=classes_named(compared.class_names),
        sizes=_sizes(compared, columns),
    )  # fmt: skip


def _told(why: str, columns: Mapping[str, ModelColumn]) -> str:
    """A sentence about models in which they are called as on the page."""
    for name, column in columns.items():
        called = f"{column.title} ({column.detail})" if column.detail else column.title
        why = why.replace(f"'{name}'", f"'{called}'")
    return why


def _notes(compared: ComparedUploads, most: int) -> list[str]:
    notes = list(compared.notes)
    if compared.left_out:
        notes.insert(0, ngettext(
            "Only the first {number} image is compared; the others were left out.",
            "Only the first {number} images are compared; the others were left out.", most,
        ))  # fmt: skip
    if compared.others:
        listed = ", ".join(f"{number:,} {ending}" for ending, number in sorted(compared.others.items()))
        notes.append(_("Files that are no images were left out: {files}.", files=listed))
    return notes


def _row(image: ComparedImage, answer: Answered, columns: Mapping[str, ModelColumn]) -> dict[str, Any]:
    result = image.result
    said = [
        {
            "name": name, "column": columns[name], "label": prediction.label, "score": prediction.top[0][1],
            "mark": "" if not answer.right else "yes" if answer.is_right(name) else "no",
            "shares": result.shares[name],
        }
        for name, prediction in result.predictions.items()
    ]  # fmt: skip
    return {
        "key": image.key, "name": result.name, "label": image.label, "error": result.error or "",
        "right": answer.right, "said": said,
        "agree": answer.agree, "classes": result.classes, "unlike": result.unlike, "inverted": result.inverted,
        "side": image.side, "seen": file_url(image.seen), "original": file_url(result.original or b""),
    }  # fmt: skip


def _sizes(compared: ComparedUploads, columns: Mapping[str, ModelColumn]) -> list[dict[str, Any]]:
    return [
        {
            "column": columns[name], "network": model_name(model.card.model) if model.card.datasets else "",
            "params": count(model.card.params) if model.card.params else "–", "file": file_size(model.size),
            "time": f"{model.milliseconds:.1f} ms" if model.milliseconds else "–",
            "accuracy": f"{model.card.accuracy:.2f} %" if model.card.accuracy is not None else "–",
        }
        for name, model in compared.models.items()
    ]  # fmt: skip


def comparison_csv(models: Sequence[str], results: Sequence[ImageResult], right: Sequence[str] = ()) -> str:
    """The predictions of all models as CSV: a row for each image, a group of columns for each model.

    right: the right class of each image, "" where it is not known; empty for no such column.
    """
    top = max((len(p.top) for result in results for p in result.predictions.values()), default=1)
    labelled = any(right)
    rows = [
        PredictionRow(
            result.name, [(p.label, p.top) for p in result.predictions.values()], result.is_unlike, result.inverted,
            result.error or "", right[i] if labelled else None,
        )
        for i, result in enumerate(results)
    ]  # fmt: skip
    return to_csv(PredictionTable(top, list(models), labelled), rows)


def comparison_json(found: ViewedComparison) -> dict[str, Any]:
    """The images that are shown, and what is said of all, as the endpoint `compare` answers it."""
    images = []
    for i in found.rows:
        right = {"right": found.answers[i].right} if found.answers[i].right else {}
        images.append({"name": found.images[i].result.name, **found.images[i].result.to_json(), **right})
    return {
        "images": images,
        "summary": found.summary.to_json(),
        "not_compared": dict(found.of.problems),
        "notes": _notes(found.of, len(found.images)),
    }  # fmt: skip


def colour_of(style: str) -> str:
    """The colour of a column, drawn on white."""
    base = style.split(" ", maxsplit=1)[0]
    return METHODS[base].colour[0] if base in METHODS else "#334155"
