"""A teacher's network from where `find_teacher` found it: classes in the dataset's order, tried on a few images."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from iekd.config.run import RunConfig
from iekd.data.base import Dataset
from iekd.errors import UserError
from iekd.inference.teacher_check import check_teacher_on, order_of_outputs
from iekd.models.artifact import check_fits, load_model
from iekd.models.class_names import advice_on_names, class_names_on_hub, gives_order, in_order_of, matched
from iekd.models.pretrained import for_channels, normalisation
from iekd.models.registry import build
from iekd.models.source import AUTO, RUN, per_channel
from iekd.plural import counted
from iekd.runs.starts import FirstWeights, load_start
from iekd.runs.teachers import Found, title_of_found


@dataclass(frozen=True)
class LoadedTeacher:
    """A torch module in evaluation mode, its pixel statistics, its architecture, and what to tell the user.

    listed: the dataset's classes in the order of the weights' outputs, where a list that came with them was followed.
    named_in: what holds that list, where it counts whatever class order is given.
    """

    model: Any
    mean: tuple[float, ...]
    std: tuple[float, ...]
    name: str
    notes: tuple[str, ...] = ()
    listed: tuple[str, ...] = ()
    named_in: str = ""


def load_teacher(
    found: Found, config: RunConfig, dataset: Dataset, fine_tuned: bool = False, further: bool = False
) -> LoadedTeacher:
    """Load a teacher; one from outside predicts a few hundred held-out images first.

    fine_tuned: an earlier run has made it of what the configuration names. further: it is not the run's first teacher.

    Raises:
        UserError: it cannot be loaded, is of other classes, or does not know these images.
    """
    assumed = False
    if isinstance(found, FirstWeights):
        loaded = _of_hub(found, config, dataset)
    elif found.is_dir():
        loaded = _of_ours(found, config, dataset)
    else:
        loaded, assumed = _of_file(found, config, dataset)
    trained_here = config.teacher_from == AUTO or config.teacher_from.startswith(RUN) or fine_tuned
    if trained_here:  # how is known
        return loaded
    check = check_teacher_on(
        loaded.model, loaded.mean, loaded.std, dataset.test, dataset.class_names, try_normalisations=assumed,
        others={"the dataset's": dataset.statistics},
    )  # fmt: skip
    order = order_of_outputs(check.order, dataset.class_names, loaded.listed)
    brought = isinstance(found, FirstWeights)
    check = replace(check, order=order, named_in=loaded.named_in, brings_pixels=brought, further=further)
    if check.problem:
        problem = f"The teacher in '{title_of_found(found)}' does not fit {dataset.name}: {check.problem}."
        if isinstance(found, FirstWeights):
            problem += f" To fine-tune it, set teacher to {found.network} and teacher from to 'pretrained'."
        raise UserError(problem)
    note = f"It is right on {check.accuracy:.1f} % of {counted(check.images, 'held-out image')}."
    return replace(loaded, notes=(*loaded.notes, note))


def _of_ours(found: Path, config: RunConfig, dataset: Dataset) -> LoadedTeacher:
    model, card = load_model(found)
    check_fits(card, dataset, found)
    notes = in_order_of(model, card.class_names, f"'{found.name}'", dataset.class_names)
    listed = matched(card.class_names, dataset.class_names) or ()
    return LoadedTeacher(model, card.mean, card.std, config.teacher, tuple(notes), listed, f"'{found.name}'")


def _of_hub(found: FirstWeights, config: RunConfig, dataset: Dataset) -> LoadedTeacher:
    start = load_start(found, "teacher", config, dataset)
    if start.new:  # the names of some datasets are known only once they are loaded
        raise UserError(
            f"The {found.title} are of other classes than {dataset.name}, so they cannot teach without fine-tuning. "
            f"Give more teacher epochs than 0, or choose weights of the dataset's classes. {advice_on_names()}"
        )
    network = build(start.name, len(dataset.class_names), dataset.channels)
    start.put_into(network)
    assert start.mean is not None  # the Hub's always have some
    assert start.std is not None
    listed = None if gives_order(config.class_order) else class_names_on_hub(found.network, dataset.class_names)
    followed = matched(listed or (), dataset.class_names) or ()
    return LoadedTeacher(network.eval(), start.mean, start.std, start.name, start.notes, followed)


def _of_file(found: Path, config: RunConfig, dataset: Dataset) -> tuple[LoadedTeacher, bool]:
    """(the teacher in somebody's file, whether its pixel statistics are only assumed)."""
    from iekd.models.weight_files import read_weights
    from iekd.models.weights import fit_weights

    file = read_weights(found)
    if file.card:
        check_fits(file.card, dataset, found)
    fitted = fit_weights(file, config.teacher, len(dataset.class_names), dataset.channels)
    sure = gives_order(config.class_order) and file.card is None  # what we have saved knows its classes
    moved = in_order_of(fitted.model, file.class_names, file.named_in, dataset.class_names, sure)
    assumed = not (fitted.mean and fitted.std)
    mean, std = (fitted.mean, fitted.std) if fitted.mean and fitted.std else _usual(fitted.name, dataset)
    if config.teacher_mean and config.teacher_std:
        assumed = False
        mean = per_channel(config.teacher_mean, dataset.channels, "Teacher mean")
        std = per_channel(config.teacher_std, dataset.channels, "Teacher std")
    followed = () if sure else matched(file.class_names or (), dataset.class_names) or ()
    loaded = LoadedTeacher(fitted.model, mean, std, fitted.name, (*fitted.notes, *moved), followed)
    return replace(loaded, named_in=f"'{found.name}'" if file.card else ""), assumed


def _usual(name: str, dataset: Dataset) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """What a network's images are normalised with where nobody says: as its library does, or by the dataset itself."""
    if (found := normalisation(name)) is None:
        return dataset.statistics
    mean, std = (for_channels(values, dataset.channels) for values in found)
    return mean, std
