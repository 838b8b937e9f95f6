"""Export a model with what its run knows: the dataset as it was loaded for the run, and the other models beside it."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path

from iekd import data
from iekd.config.run import RunConfig, make_config
from iekd.data.base import Dataset
from iekd.errors import UserError
from iekd.export import Certificate, export_model
from iekd.export.base import Say
from iekd.export.sharing import command_without_folders, name_without_folders
from iekd.export.web import EXAMPLES, WEB, check_page_target, export_page
from iekd.export.write import check_target
from iekd.models.artifact import TEACHER, ModelCard
from iekd.models.shipped import cards
from iekd.runs.models import run_models
from iekd.runs.store import Run

NONE = "none"  # asked for instead of a dataset: check nothing on images


def export_saved(
    folder: Path, format: str, out: Path, *, dataset: str = "", test_fraction: float = 0.2, data_seed: int = 0,
    license: str = "", force: bool = False, say: Say = lambda _: None,
) -> Certificate:  # fmt: skip
    """Export a model of a run, a shipped one, or one that somebody has moved elsewhere.

    Args:
        folder: of the model.
        dataset: to check it on; unset: the one that it was trained on, if it is on this machine; "none": no dataset.
        test_fraction, data_seed: how the test images of a folder are drawn; a run knows its own.
        format, out, license, force, say: see `iekd.export.export_model`.
    Raises:
        UserError: see there; or a dataset that was asked for cannot be loaded.
    """
    check_target(format, out)  # before the dataset is loaded
    card, run = ModelCard.read(folder), run_of(folder)
    loaded, without = dataset_of(card, run, dataset, test_fraction, data_seed, say)
    return export_model(
        folder, format, out, dataset=loaded, without=without, license=license, beside=_beside(folder, card, run),
        command=_command(folder, run, format, dataset, license, force), force=force, say=say,
    )  # fmt: skip


def export_saved_page(
    folders: Sequence[Path], out: Path, *, dataset: str = "", test_fraction: float = 0.2, data_seed: int = 0,
    license: str = "", title: str = "", examples: int = EXAMPLES, runtime: Path | None = None, force: bool = False,
    say: Say = lambda _: None,
) -> list[Certificate]:  # fmt: skip
    """Export saved models as one page that answers in the browser.

    Args:
        folders, out, license, title, examples, runtime, force, say: see `iekd.export.web.export_page`.
        dataset, test_fraction, data_seed: see `export_saved`.
    Raises:
        UserError: see there.
    """
    check_page_target(out)
    card, run = ModelCard.read(folders[-1]), run_of(folders[-1])
    loaded, without = dataset_of(card, run, dataset, test_fraction, data_seed, say)
    return export_page(
        folders, out, dataset=loaded, without=without, license=license, title=title, examples=examples,
        runtime=runtime, command=_command(folders[-1], run, WEB, dataset, license, force), force=force, say=say,
    )  # fmt: skip


def run_of(folder: Path) -> Run | None:
    """The run that a model's folder is part of; None where it lies elsewhere."""
    place = folder.resolve().parent
    run = Run(place.parent)
    return run if place.name == "models" and (run.path / "config.json").is_file() else None


def dataset_of(
    card: ModelCard, run: Run | None, asked: str, test_fraction: float, data_seed: int, say: Say
) -> tuple[Dataset | None, str]:
    """(the dataset whose test images a model is measured on, "") or (None, why there is none).

    Args:
        run: the model's, or None. asked: a dataset's name, "none", or "" for the one that it was trained on.
        test_fraction, data_seed: how the test images of a folder are drawn; a run knows its own.
    Raises:
        UserError: a dataset that was asked for cannot be loaded.
    """
    if asked == NONE:
        return None, "No dataset was asked for."
    if not asked:
        return _own_dataset(card, run, say)
    make_config(dataset=asked, test_fraction=test_fraction, data_seed=data_seed)  # checks them
    return _load(asked, card, test_fraction, data_seed), ""


def _own_dataset(card: ModelCard, run: Run | None, say: Say) -> tuple[Dataset | None, str]:
    """(what the model was trained on, "") or (None, why it cannot be had)."""
    if run is not None:
        config = run.config
        name, fraction, seed = config.dataset, config.test_fraction, config.data_seed
    else:
        # how a folder was divided is not in the card: other test images may be among those that it has learned from
        config, name, fraction, seed = None, card.datasets[0] if card.datasets else "", 0.2, 0
        name = data.part_at_hand(card.datasets) or name
        if not name or data.own_path(name) is not None:
            images = name_without_folders(name) or "images that its card does not name"
            return None, f"It was trained on {images}. Name them with --dataset."
    try:
        if not data.source_of(name).at_hand(name):
            return None, f"{name} is not on this machine. '--dataset {name}' downloads it."
        say(f"Loading {data.short_name(name)} ...")
        loaded = _load(name, card, fraction, seed, config)
    except UserError as error:
        return None, f"The images that it was trained on cannot be had any more. {error}"
    known = (run.report or {}).get("dataset_mark") if run else None
    if known and known != loaded.fingerprint:
        return None, f"{name_without_folders(name)} has changed since the run. --dataset checks on it as it is now."
    return loaded, ""


def _load(name: str, card: ModelCard, fraction: float, seed: int, config: RunConfig | None = None) -> Dataset:
    return data.load(
        name, resolution=card.resolution, test_fraction=fraction, seed=seed, fit=card.fit,
        image_memory=config.image_memory if config else None, class_order=config.class_order if config else (),
    )  # fmt: skip


def _beside(folder: Path, card: ModelCard, run: Run | None) -> dict[str, Path]:
    """The other models of its run and seed, or those that lie beside it, by name; a teacher is called "teacher"."""
    own = folder.resolve()
    if run is not None:
        seeds = (str(card.seed), "") if card.role != TEACHER else ("",)
        for seed in seeds:
            try:
                return {name: path for name, path in run_models(run, seed).items() if path.resolve() != own}
            except UserError:  # none of that seed
                continue
    others = {}
    for name, other in cards(own.parent):
        if name != own.name and other.class_names == card.class_names and other.channels == card.channels:
            others[TEACHER if other.role == TEACHER else name] = own.parent / name
    return others


def _command(folder: Path, run: Run | None, format: str, dataset: str, license: str, force: bool) -> str:
    """What asks for the same again, without the places of this machine's files."""
    model = f"{run.id}/{folder.resolve().name}" if run else folder.resolve().name
    words = ["iekd", "export", model, "--format", format]
    words += ["--dataset", dataset] if dataset else []
    words += ["--license", license] if license else []
    return command_without_folders(shlex.join([*words, *(["--force"] if force else [])]))
