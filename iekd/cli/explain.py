"""`iekd explain`: where networks look, how alike they are, and what the halves of an IE student are worth."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer
from rich.markup import escape

from iekd.cli.common import RUNS, AsJson, RunsDir, err, launcher_for, out, print_json
from iekd.cli.export import folder_called
from iekd.data.tree import kind_of
from iekd.errors import RunError, UserError
from iekd.explain.about import DIAGNOSTICS, MAPS, chosen


def explain(
    target: Annotated[
        Path, typer.Option("--out", help="Folder for the images, explain.json and explain.md.", show_default=False)
    ],
    models: Annotated[
        Optional[list[str]],
        typer.Argument(metavar="RUN|MODEL...", show_default=False,
                       help="RUN or RUN/SEED for all networks of a run, RUN/LEARNER, a shipped model, or a folder; "
                       "none: the shipped models."),
    ] = None,
    images: Annotated[
        Optional[list[str]],
        typer.Option("--images", "--pictures", metavar="FILE|FOLDER|ZIP", show_default=False,
                     help="Images to make maps of; repeat it for several. Unset: test images."),
    ] = None,
    what: Annotated[
        str,
        typer.Option(help=f"With commas: {', '.join((MAPS, *DIAGNOSTICS))}; unset: everything.", show_default=False),
    ] = "",
    differ: Annotated[
        bool, typer.Option("--differ", help="Of the test images, prefer those on which the students differ.")
    ] = False,
    count: Annotated[int, typer.Option(help="Largest number of images to make maps of.")] = 32,
    opacity: Annotated[float, typer.Option(help="Opacity of the maps over the images, from 0 to 1.")] = 0.8,
    save_maps: Annotated[
        bool, typer.Option("--save-maps", help="Also write the images and the maps as numbers, into maps.npz.")
    ] = False,
    dataset: Annotated[
        Optional[str],
        typer.Option(help="Where labelled test images come from; unset: what the last model was trained on, if it is "
                     "on this machine; none: no dataset.", show_default=False),
    ] = None,
    test_fraction: Annotated[
        float, typer.Option(help="With --dataset: share held out when a folder has no test/ of its own.")
    ] = 0.2,
    data_seed: Annotated[int, typer.Option(help="With --dataset: fixes which images are held out.")] = 0,
    match_background: Annotated[
        bool,
        typer.Option(help="Swap bright and dark in grey images with the opposite background of the training images."),
    ] = True,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or mps.")] = "cpu",
    runs_dir: RunsDir = RUNS,
    as_json: AsJson = False,
) -> None:  # fmt: skip
    """Explain networks side by side: relevance maps, similarity, active neurons, flatness, worth of each half."""
    diagnostics = chosen(what.split(","))  # what is wrong is said before torch is loaded
    from iekd.explain.report import as_markdown, check_opacity, write
    from iekd.runs.explain import explain_saved

    check_opacity(opacity)

    def say(text: str) -> None:
        err.print(escape(text), highlight=False, soft_wrap=True)

    found = explain_saved(
        folders_called(models or [], runs_dir), what=diagnostics, images=images or (), count=count,
        differ=differ, dataset=dataset or "", test_fraction=test_fraction, data_seed=data_seed, device=device,
        match_background=match_background, say=say,
    )  # fmt: skip
    files = write(found, target, opacity, save_maps)
    for sentence in found.pictures.unreadable:
        say(f"Error: {sentence}")
    if found.pictures.more and found.maps:
        more = f"{found.pictures.more:,} more were given, see --count"
        say(f"Maps are of the first {len(found.pictures):,} images; {more}.")
    if as_json:
        print_json({"out": str(target), "files": list(map(str, files)), **found.to_json()})
    else:
        out.print(escape(as_markdown(found)), highlight=False, soft_wrap=True)
        out.print(f"Written to '{escape(str(target))}': {len(files):,} files.", highlight=False, soft_wrap=True)
    if found.pictures.unreadable:
        raise typer.Exit(1)


def folders_called(names: list[str], runs_dir: Path) -> dict[str, Path]:
    """Shown name -> folder of each network that the names stand for; without names, of the shipped ones.

    Raises:
        UserError: there is none of a name.
    """
    from iekd.runs.models import models_called, run_models

    store, found = launcher_for(runs_dir).store, {}
    if not names:
        return models_called(store, "")
    for name in names:
        if kind_of(name, lambda: b"") == "image":
            raise UserError(f"'{name}' is an image, not a model. Write --images before each, or give their folder.")
        run_id, _, learner = name.partition("/")
        try:
            run = store.get(run_id)
        except RunError:
            folder = folder_called(name, runs_dir)
            named = {folder.name: folder}
        else:
            saved = run.model_folders
            named = {learner: saved[learner]} if learner in saved else run_models(run, learner)
        for shown, folder in named.items():
            found[shown if shown not in found else f"{name} {shown}"] = folder
    return found
