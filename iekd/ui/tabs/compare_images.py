"""Comparing images for the Compare tab, the Demo tab and the endpoints: which models, which images, which memory.

A comparison is computed once and stays in memory while it is among the last few, so that turning to another page,
choosing a filter or downloading does not ask the models again. Where it is gone, it is computed again.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import secrets
import string
import threading
from collections import Counter, OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from iekd.errors import UserError
from iekd.inference.compare_uploads import ComparedUploads, Example, compare_uploads
from iekd.language import N_, _, ngettext
from iekd.models.artifact import CARD
from iekd.plural import counted
from iekd.results.agreement import ALL, missing
from iekd.runs.choices import Choice, choices_named, choices_of, shipped_choices
from iekd.runs.notes import name_of
from iekd.runs.store import Run, Store
from iekd.ui.render.comparison import ModelColumn, View, column_of, comparison_csv, comparison_json, viewed
from iekd.ui.render.comparison_png import comparison_png
from iekd.ui.render.words import dataset_title, run_title, when
from iekd.ui.shared.space import with_gpu

MOST_IMAGES, MOST_OF_VISITORS = 500, 100  # images of one comparison: of one's own machine, of a visitor
MOST_MODELS = 12
MOST_KEPT, MOST_LINKS = 8, 200  # comparisons in memory, and links of each
MOST_RUNS = 100  # whose models are offered
SHIPPED = N_("shipped")
NO_MODEL = N_("No model is chosen. Choose one or more under Models.")
COMPARED = "/compared"  # the address of downloads
GONE = N_("This comparison is not in memory any more. Open it again on the page.")
FILES: dict[str, tuple[str, str]] = {
    "comparison.csv": ("text/csv", N_("All as CSV")), "comparison.json": ("application/json", N_("All as JSON")),
    "comparison.png": ("image/png", N_("This page as PNG")),
}  # fmt: skip
ask_models = with_gpu(compare_uploads)  # here, because ZeroGPU wants to know of it before the page opens


@dataclass(frozen=True)
class Wanted:
    """What is compared. models: by the names that answers call them; most: images."""

    models: Mapping[str, Path]
    uploads: tuple[Path, ...]
    examples: tuple[Example, ...] = ()
    most: int = MOST_IMAGES

    @property
    def key(self) -> str:
        """The same for the same models, which may be trained further, and images."""
        models = [(name, str(path), _stamp(path)) for name, path in self.models.items()]
        examples = [(one.name, _content(one), one.right) for one in self.examples]
        uploads = [(str(path), _stamp(path)) for path in self.uploads]  # one may be gone, and come back
        told = json.dumps([models, uploads, examples, self.most])
        return hashlib.sha256(told.encode(errors="replace")).hexdigest()


@dataclass
class _Entry:
    compared: ComparedUploads
    links: OrderedDict[str, tuple[Mapping[str, ModelColumn], View]] = field(default_factory=OrderedDict)


class Comparisons:
    """The comparisons of this process that were asked for last."""

    def __init__(self) -> None:
        self._entries: OrderedDict[str, _Entry] = OrderedDict()
        self._lock = threading.Lock()
        self._secret = secrets.token_bytes(32)

    def get(self, wanted: Wanted) -> ComparedUploads:
        """Raises UserError if none of the models can be used."""
        key = wanted.key
        with self._lock:
            if key in self._entries:
                self._entries.move_to_end(key)
                return self._entries[key].compared
        compared: ComparedUploads = ask_models(wanted.models, wanted.uploads, wanted.examples, wanted.most)
        with self._lock:
            self._entries[key] = _Entry(compared)
            while len(self._entries) > MOST_KEPT:
                self._entries.popitem(last=False)
        return compared

    def link(self, wanted: Wanted, columns: Mapping[str, ModelColumn], view: View) -> str:
        """A word that nobody can guess, by which what is on view can be downloaded as long as it is in memory."""
        key = wanted.key
        said = f"{key} {json.dumps(asdict(view))}".encode()
        word = hmac.new(self._secret, said, "sha256").hexdigest()
        with self._lock:
            if (entry := self._entries.get(key)) is not None:
                entry.links[word] = (columns, view)
                if len(entry.links) > MOST_LINKS:
                    entry.links.popitem(last=False)
        return word

    def file(self, word: str, name: str) -> bytes:
        """The content of a download. name: one of FILES.

        Raises:
            UserError: it is not in memory any more, or there is no such file.
        """
        with self._lock:
            found = next((e for e in self._entries.values() if word in e.links), None)
            columns, view = found.links[word] if found else ({}, View())
        if found is None or name not in FILES:
            raise UserError(_(GONE))
        if name.endswith(".png"):
            shown = viewed(found.compared, view)
            return comparison_png(shown, columns, view.page)
        everything = viewed(found.compared, View(right=view.right))
        if name.endswith(".json"):
            return json.dumps(comparison_json(everything), indent=1, ensure_ascii=False).encode()
        results = [image.result for image in everything.images]
        text = comparison_csv(list(found.compared.models), results, [one.right for one in everything.answers])
        return text.encode(errors="backslashreplace")


comparisons = Comparisons()


def wanted_models(
    store: Store, source: str, refs: Sequence[str] | None, files: Sequence[str] = ()
) -> tuple[dict[str, Path], dict[str, Choice]]:
    """(models by name, which of them are no uploaded files).

    Args:
        source, refs: see `choices_named`; refs of None: those of the source. files: uploaded models.
    Raises:
        UserError: there is no such model, or none or too many are chosen.
    """
    choices = {} if refs == [] else choices_named(store, source, list(dict.fromkeys(refs or ())))
    models = {name: choice.path for name, choice in choices.items()}
    for path in map(Path, files):
        models[next(n for n in _names(path.name) if n not in models)] = path
    if not models:
        raise UserError(_(NO_MODEL))
    if len(models) > MOST_MODELS:
        raise UserError(ngettext(
            "{number} model is more than the {most} that are compared at a time. Choose fewer.",
            "{number} models are more than the {most} that are compared at a time. Choose fewer.",
            len(models), most=MOST_MODELS,
        ))  # fmt: skip
    return models, choices


def _names(name: str) -> Iterator[str]:
    yield name
    yield from (f"{name} ({i})" for i in range(2, MOST_MODELS * 10))


def columns_of(compared: ComparedUploads, choices: Mapping[str, Choice]) -> tuple[dict[str, ModelColumn], list[str]]:
    """(how each model is called on the page, which runs are meant by the letters in it).

    There are letters only where models of several places are compared.
    """
    runs = {choice.run.id: choice.run for choice in choices.values() if choice.run}
    shipped = any(choice.run is None for choice in choices.values())
    several = len(runs) + shipped > 1 or bool(set(compared.models) - set(choices))
    letters = dict(zip(runs, string.ascii_uppercase, strict=False)) if several else {}
    columns = {}
    for name in (*compared.models, *compared.problems):
        choice = choices.get(name)
        if choice is None:
            known = compared.models.get(name)
            columns[name] = column_of(known.card, name, name) if known else ModelColumn(name)
            continue
        place = ""
        if several:
            place = _("run {letter}", letter=letters[choice.run.id]) if choice.run else _(SHIPPED)
        details = (_("as {format}", format=choice.export.upper()) if choice.export else "", place)
        columns[name] = column_of(choice.card, name, ", ".join(filter(None, details)), _has_seeds(choice.run))
    legend = [
        _("Run {letter}: {title} · {when} · {run}", letter=letter, title=run_title(runs[run_id].config, runs[run_id]),
          when=when(runs[run_id].status.created), run=run_id)
        for run_id, letter in letters.items()
    ]  # fmt: skip
    return columns, legend


def model_options(store: Store) -> list[tuple[str, str]]:
    """(label, ref) of every model to choose from; no two labels are the same."""
    runs = store.list()[:MOST_RUNS]
    choices = [*shipped_choices()]
    for run in runs:
        try:
            choices += choices_of(run)
        except UserError:  # a damaged folder has no models
            continue
    options = []
    for choice in choices:
        title = column_of(choice.card, choice.ref, "", _has_seeds(choice.run)).title
        accuracy = f" {choice.card.accuracy:.1f} %" if choice.card.accuracy is not None else ""
        exported = " " + _("as {format}", format=choice.export.upper()) if choice.export else ""
        options.append((f"{title}{exported}{accuracy} · {_place(choice.run)}", choice.ref))
    counts = Counter(label for label, _ in options)
    return [(label if counts[label] == 1 else f"{label} · {ref.partition('/')[0]}", ref) for label, ref in options]


def _place(run: Run | None) -> str:
    """Where a model is from, in few words."""
    if run is None:
        return _(SHIPPED)
    return f"{name_of(run, run.config) or dataset_title(run.config.dataset)} · {when(run.status.created)}"


def _has_seeds(run: Run | None) -> bool:
    return run is not None and len(run.config.seeds) > 1


def compared_for_programs(
    store: Store, source: str, paths: Sequence[str], refs: Sequence[str] = (), files: Sequence[str] = (),
    right: Sequence[str] = (), show: str = "", most: int = MOST_IMAGES,
) -> tuple[ComparedUploads, View]:  # fmt: skip
    """A comparison for the endpoints, and what is wanted of it.

    Args:
        right: the class of each image, in the order in which they come back; "" where it is not known.
        show: one of FILTERS; "" for all images.
    Raises:
        UserError: no image or too many, there is no such model, a right answer is none of the classes, or the filter
            is unknown or lacks something.
    """
    if not paths:
        raise UserError("No image was given. Send at least one.")
    models, _choices = wanted_models(store, source, refs or None, files)
    compared = comparisons.get(Wanted(models, tuple(map(Path, paths)), (), most))
    if compared.left_out:
        raise UserError(ngettext(
            "{number} image is more than the {most} of one comparison. Send fewer at a time.",
            "{number} images are more than the {most} of one comparison. Send fewer at a time.",
            max(len(paths), most + 1), most=most,
        ))  # fmt: skip
    if len(right) > len(compared.images):
        raise UserError(f"{len(right)} right answers were given for {counted(len(compared.images), 'image')}.")
    for label in right:
        if label and label not in compared.class_names:
            raise UserError(f"'{label}' is none of the classes of these models. Send their names, or '' for unknown.")
    told = {image.key: label for image, label in zip(compared.images, right, strict=False) if label}
    view = View(show or ALL, right=told)
    found = viewed(compared, view)
    if lacks := missing(view.show, found.answers, found.kinds):
        raise UserError(f"'{view.show}' cannot be shown: it {lacks}.")
    return compared, view


def _stamp(path: Path) -> int:
    file = path / CARD if path.is_dir() else path
    return file.stat().st_mtime_ns if file.is_file() else 0


def _content(example: Example) -> str:
    if isinstance(example.image, Path):
        return str(example.image)
    return hashlib.sha256(example.image.tobytes()).hexdigest()
