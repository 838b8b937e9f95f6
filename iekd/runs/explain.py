"""Explain saved models with what their run knows: its dataset as it was loaded for the run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from iekd.errors import UserError
from iekd.explain.about import GRAD_CAM, LRP, chosen
from iekd.explain.explain import SAMPLE, Explanation, explain
from iekd.explain.network import open_networks
from iekd.explain.sample import differing, from_files, held_out
from iekd.export.base import Say
from iekd.models.artifact import check_fits
from iekd.runs.export import dataset_of, run_of

COUNT = 32  # images that maps are made of, unless another number is asked for


def explain_saved(
    folders: Mapping[str, Path], *, what: Sequence[str] = (), images: Sequence[str] = (), count: int = COUNT,
    differ: bool = False, dataset: str = "", test_fraction: float = 0.2, data_seed: int = 0, device: str = "cpu",
    match_background: bool = True, say: Say = lambda _: None,
) -> Explanation:  # fmt: skip
    """Explain models of a run, shipped ones, or some that somebody has moved elsewhere, side by side.

    Args:
        folders: shown name -> folder of a model.
        what: names of diagnostics (`iekd.explain.about.DIAGNOSTICS`), or "maps"; none for all.
        images: files, folders and archives to make maps of; none: test images.
        count: maps are made of so many images at most.
        differ: of the test images, prefer those on which the students differ; see `explain.sample.differing`.
        dataset: where labelled test images come from; unset: what the last model was trained on, if it is on this
            machine; "none": no dataset.
        test_fraction, data_seed: how the test images of a folder are drawn; a run knows its own.
        device: "auto", "cpu", "cuda" or "mps".
        match_background: see `iekd.inference.images.as_trained`.
        say: told what is being done.
    Raises:
        UserError: a model, an image or a dataset that was asked for cannot be used, or nothing is there to look at.
    """
    from iekd.engine.accelerate import choose_device

    if count < 1:
        raise UserError(f"Count '{count}' cannot be used: give how many images maps are made of, 1 or more.")
    networks = open_networks(folders, choose_device(device))
    folder, card = list(folders.values())[-1], networks[-1].card
    pictures = from_files(images, card, count, match_background) if images else None
    loaded, without, sample = None, "", None
    if pictures is None or not set(chosen(what)) <= {GRAD_CAM, LRP}:  # maps of somebody's images need no dataset
        loaded, without = dataset_of(card, run_of(folder), dataset, test_fraction, data_seed, say)
    if loaded is not None:
        check_fits(card, loaded, folder)
        sample = held_out(loaded, card.class_names, max(SAMPLE, count))
    if pictures is None:
        if sample is None:
            raise UserError(f"There are no test images. {without} Or give images of your own, with --images.")
        pictures = differing(networks, sample, count) if differ else sample.first(count)
    return explain(networks, pictures, sample, what, without, say)
