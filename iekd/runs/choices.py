"""Every model that can be compared with others, by a text that names it: of runs, exported from runs, and shipped."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

from iekd.config.methods import BASELINE
from iekd.errors import UserError
from iekd.inference.onnx_file import EXPORTED
from iekd.models.artifact import CARD, ModelCard
from iekd.models.shipped import shipped_folder, shipped_models
from iekd.paths import checkpoints_dir
from iekd.runs.models import model_of, models_called
from iekd.runs.store import EXPORTS, Run, Store


@dataclass(frozen=True)
class Choice:
    """One model.

    ref: RUN/LEARNER, RUN/LEARNER/EXPORT for what was exported from it as ONNX (the folder's name without LEARNER-), or
        the name of a shipped model.
    path: what `open_classifier` takes. run: None for a shipped one. learner: the name of its folder.
    """

    ref: str
    path: Path
    card: ModelCard
    learner: str
    run: Run | None = None
    export: str = ""


def choices_of(run: Run) -> list[Choice]:
    """The models of a run: the teacher first, then the students, each followed by its exports.

    Raises:
        UserError: the run's folder is damaged.
    """
    found = []
    for learner, folder in run.model_folders.items():
        with contextlib.suppress(UserError):  # a damaged one; asking for it by name says why
            found.append(Choice(f"{run.id}/{learner}", folder, _card(folder), learner, run))
            for exported in sorted((run.path / EXPORTS).glob(f"{learner}-*/{EXPORTED}")):
                export = exported.parent.name.removeprefix(f"{learner}-")
                found.append(replace(found[-1], ref=f"{run.id}/{learner}/{export}", path=exported, export=export))
    return found


def shipped_choices() -> list[Choice]:
    """The models that come with the program."""
    cards = shipped_models()
    order = sorted(cards, key=lambda name: (cards[name].role != "teacher", cards[name].method != BASELINE, name))
    return [Choice(name, checkpoints_dir() / name, cards[name], name) for name in order]


def choice_called(store: Store, ref: str) -> Choice:
    """The model that a text names; nothing else on the disk can be named.

    Raises:
        UserError: there is none.
    """
    if folder := shipped_folder(ref):
        return Choice(ref, folder, ModelCard.read(folder), ref)
    run_id, _, rest = ref.partition("/")
    learner, _, export = rest.partition("/")
    run = store.get(run_id.strip())
    folder = model_of(run, learner.strip())
    choice = Choice(f"{run.id}/{folder.name}", folder, ModelCard.read(folder), folder.name, run)
    if not export:
        return choice
    exports = {one.export: one for one in choices_of(run) if one.learner == folder.name and one.export}
    if export not in exports:
        there = ", ".join(exports) or "none; make one in the run's page or with 'iekd export'"
        raise UserError(f"'{folder.name}' of the run '{run.id}' has no export '{export}' as ONNX. It has: {there}.")
    return exports[export]


def refs_of(store: Store, source: str) -> dict[str, str]:
    """What `models_called` gives, as the names that `choice_called` takes: shown name -> ref.

    Raises:
        UserError: see `models_called`.
    """
    run_id = source.partition("/")[0]
    return {
        name: f"{run_id}/{path.name}" if run_id else path.name for name, path in models_called(store, source).items()
    }


def choices_named(store: Store, source: str, refs: Sequence[str] = ()) -> dict[str, Choice]:
    """The models to compare, by the names that answers call them: those of `refs`, called as there; or if there are
    none, or if they are just the source's own, the source's, called teacher, baseline, ie-ft, ...

    Raises:
        UserError: there is no such source or model.
    """
    own: dict[str, str] = {}
    try:
        own = refs_of(store, source)
    except UserError:
        if not refs:  # models of others can be compared though the source is gone
            raise
    wanted = own if not refs or set(refs) == set(own.values()) else dict(zip(refs, refs, strict=True))
    return {name: choice_called(store, ref) for name, ref in wanted.items()}


def _card(folder: Path) -> ModelCard:
    return _read_card(folder, (folder / CARD).stat().st_mtime_ns)


@lru_cache(maxsize=4096)
def _read_card(folder: Path, _: int) -> ModelCard:
    return ModelCard.read(folder)
