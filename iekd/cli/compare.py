"""`iekd compare`: what several models predict for the same images, on which they differ, and which are right."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Optional

import typer
from rich.markup import escape

from iekd.cli.common import (
    RUNS,
    AsJson,
    RunsDir,
    err,
    find_model,
    launcher_for,
    out,
    print_json,
    say_seed,
    table_of,
)
from iekd.plural import counted
from iekd.results.agreement import AgreementSummary, Answered, summarise

if TYPE_CHECKING:
    from iekd.inference.compare import ImageResult
    from iekd.inference.images import FoundImage


def compare(
    images: Annotated[
        list[str],
        typer.Argument(metavar="FILE|FOLDER|ZIP...", show_default=False,
                       help="Images, folders of them, archives. Folders inside that are named as the classes give the "
                       "right answers."),
    ],
    run_id: Annotated[
        Optional[str],
        typer.Option("--run", show_default=False,
                     help="The run whose models predict, or ID/SEED; without it and --model: the shipped ones."),
    ] = None,
    models: Annotated[
        Optional[list[str]],
        typer.Option("--model", metavar="MODEL", show_default=False,
                     help="One more model; repeat it for several. RUN/LEARNER, RUN/LEARNER/onnx for its export, a "
                     "shipped checkpoint, a model's folder, an .onnx file, or hf:ORG/NAME."),
    ] = None,
    runs_dir: RunsDir = RUNS,
    as_json: AsJson = False,
) -> None:  # fmt: skip
    """What teacher and students predict for images, side by side: where they differ, and who is right."""
    from iekd.inference.compare import compare_found, open_alike

    say_seed(runs_dir, run_id or "")
    classifiers = open_alike(models_named(run_id, models or [], runs_dir))
    class_names = next(iter(classifiers.values())).card.class_names
    below: list[str] = []  # of each image that was found, its name inside of the folder or archive that was given
    others, notes = Counter[str](), list[str]()
    results = [
        _with_right_answer(result, below[i], class_names)
        for i, result in enumerate(compare_found(classifiers, _found(images, below, others, notes)))
    ]
    labels = ({name: said.label for name, said in r.predictions.items()} for r in results)
    answered = [Answered(said, r.right) for said, r in zip(labels, results, strict=True)]
    summary = summarise(answered, list(classifiers))
    for result in results:
        if result.error:
            err.print(f"[bold red]Error:[/] {escape(result.error)}", highlight=False, soft_wrap=True)
    if others:
        listed = ", ".join(f"{number:,} {ending}" for ending, number in sorted(others.items()))
        notes.append(f"Files that are no images were left out: {listed}.")
    if as_json:
        rows = [{"path": r.name, **r.to_json(), **({"right": r.right} if r.right else {})} for r in results]
        print_json({"images": rows, "summary": summary.to_json(), "notes": notes})
    else:
        for note in notes:
            err.print(f"[yellow]Note:[/] {escape(note)}", highlight=False, soft_wrap=True)
        if summary.images:
            _print(results, summary, class_names)
    if summary.broken:
        raise typer.Exit(1)


def models_named(run_id: str | None, others: Sequence[str], runs_dir: Path) -> dict[str, Path]:
    """Shown name -> folder or file: the models of the run, then the others as they were named. A model that is named
    twice is there once.

    Raises:
        UserError: there is no such run or model.
    """
    from iekd.runs.models import models_called

    found = {} if others and run_id is None else models_called(launcher_for(runs_dir).store, run_id or "")
    for name in others:
        path = find_model(name, runs_dir)
        if path not in found.values():
            found[name] = path
    return found


def _found(paths: Sequence[str], below: list[str], others: Counter[str], notes: list[str]) -> Iterator[FoundImage]:
    """Every image. Folders around what was given do not say what an image shows, so their names are not in `below`."""
    from iekd.inference.images import find_images, path_of

    for text in paths:
        given = str(path_of(text))
        for one in find_images([text], others, notes):
            below.append(one.name[len(given) :].lstrip("/"))
            yield one


def _with_right_answer(result: ImageResult, below: str, class_names: Sequence[str]) -> ImageResult:
    """Without its pixels, which nobody needs here."""
    from iekd.inference.compare import class_in

    return replace(result, seen=None, right=class_in(below, class_names))


def _print(results: Sequence[ImageResult], summary: AgreementSummary, class_names: Sequence[str]) -> None:
    from iekd.inference.compare import classes_named

    read = [r for r in results if not r.error]
    unlike = [r for r in read if r.unlike]
    columns = {"right answer": bool(summary.labelled), "unlike": bool(unlike)}
    table = table_of("image", *summary.right, *(name for name, wanted in columns.items() if wanted))
    for r in read:
        said = [_cell(p.label, p.top[0][1], r.right) for p in r.predictions.values()]
        more = {"right answer": escape(r.right), "unlike": "yes" if r.unlike else ""}
        table.add_row(escape(r.name), *said, *(more[name] for name, wanted in columns.items() if wanted))
    out.print(table)
    lines = [summary.words(), classes_named(class_names)]
    if unlike:
        lines.append(f"{counted(len(unlike), 'image is', 'images are')} marked as unlike. {unlike[0].unlike}")
    for line in lines:
        out.print(escape(line), highlight=False, soft_wrap=True)


def _cell(label: str, score: float, right: str) -> str:
    text = f"{escape(label)} {score:.0%}"
    return f"[red]{text}[/]" if right and label != right else text
