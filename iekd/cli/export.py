"""`iekd export`: a trained model as a file for other programs, with a certificate."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Optional

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
    say_no_effect,
    table_of,
)
from iekd.errors import RunError, UserError
from iekd.export import FORMATS, Certificate
from iekd.export.certificate import size
from iekd.export.formats import format_called
from iekd.export.web import WEB
from iekd.export.write import companions
from iekd.models.artifact import CARD
from iekd.paths import absolute


def export(
    model: Annotated[
        str,
        typer.Argument(metavar="MODEL", help="RUN/LEARNER, RUN if it has one student, a shipped model, or a folder."),
    ],
    target: Annotated[
        Path,
        typer.Option("--out", help="A folder to make; or a file with the format's ending, such as shoes.onnx.",
                     show_default=False),
    ],
    format_name: Annotated[str, typer.Option("--format", help=f"One of: {', '.join([*FORMATS, WEB])}.")] = "onnx",
    dataset: Annotated[
        Optional[str],
        typer.Option(help="Check it on these images; unset: those it was trained on, if they are on this machine; "
                     "none: do not check on images.", show_default=False),
    ] = None,
    test_fraction: Annotated[
        float, typer.Option(help="With --dataset: share held out when a folder has no test/ of its own.")
    ] = 0.2,
    data_seed: Annotated[int, typer.Option(help="With --dataset: fixes which images are held out.")] = 0,
    license_text: Annotated[
        str, typer.Option("--license", help="Licence of the file, written into it, such as MIT.", show_default=False)
    ] = "",
    force: Annotated[
        bool, typer.Option("--force", help="Write it even if it is much less accurate than the original.")
    ] = False,
    runtime: Annotated[
        Optional[Path],
        typer.Option(help="web: folder of npm's package onnxruntime-web, which is copied into the page; unset: the "
                     "page loads it from a public CDN.", show_default=False),
    ] = None,
    title: Annotated[str, typer.Option(help="web: heading of the page.", show_default=False)] = "",
    examples: Annotated[int, typer.Option(min=0, help="web: number of test images on the page.")] = 10,
    runs_dir: RunsDir = RUNS,
    as_json: AsJson = False,
) -> None:  # fmt: skip
    """Write a trained model as a file for other programs, checked, with a certificate and a script that uses it."""
    from iekd.runs.export import export_saved, export_saved_page

    def say(text: str) -> None:
        err.print(escape(text), highlight=False, soft_wrap=True)

    if format_name == WEB:
        certificates = export_saved_page(
            models_for_page(model, runs_dir), target, dataset=dataset or "", test_fraction=test_fraction,
            data_seed=data_seed, license=license_text, title=title, examples=examples, runtime=runtime, force=force,
            say=say,
        )  # fmt: skip
        if as_json:
            print_json({"out": str(target), "certificates": [found.to_json() for found in certificates]})
        else:
            print_certificates(certificates)
            shown = " Some test images are part of it; --examples 0 leaves them out."
            out.print(
                f"The page is in '{escape(str(target))}'. To look at it, run python -m http.server --directory "
                f"{escape(shlex.quote(str(target)))} and open http://localhost:8000."
                f"{shown if (target / 'examples').is_dir() else ''}", highlight=False, soft_wrap=True,
            )  # fmt: skip
        return
    format_called(format_name, also=(WEB,))
    for option, given in (("--runtime", runtime), ("--title", title)):
        if given:
            say_no_effect(option, f"--format {WEB}")
    certificate = export_saved(
        folder_called(model, runs_dir), format_name, target, dataset=dataset or "", test_fraction=test_fraction,
        data_seed=data_seed, license=license_text, force=force, say=say,
    )  # fmt: skip
    beside = {name: str(path) for name, path in companions(Path(absolute(str(target))), target.is_file()).items()}
    if as_json:
        print_json({"out": str(target), "beside": beside, "certificate": certificate.to_json()})
        return
    print_certificates([certificate])
    out.print(
        f"It is in '{escape(str(target))}'. Try it: python {escape(shlex.quote(beside['use_it.py']))} image.jpg",
        highlight=False, soft_wrap=True,
    )  # fmt: skip


def folder_called(name: str, runs_dir: Path) -> Path:
    """The folder of a saved model.

    Raises:
        UserError: there is none.
    """
    folder = find_model(name, runs_dir)
    if not (folder / CARD).is_file():
        raise UserError(f"'{name}' is not a model's folder. Give RUN/LEARNER, or a folder with '{CARD}' in it.")
    return folder


def print_certificates(certificates: Sequence[Certificate]) -> None:
    """What was checked: of one file everything, of several a line for each; then warnings."""
    if len(certificates) == 1:
        table = table_of("", escape(f"certificate of {certificates[0].file}"))
        for what, found in certificates[0].rows():
            table.add_row(what, escape(found))
    else:
        table = table_of("file", "size", "accuracy (%)", "difference", "ms per image")
        for certificate in certificates:
            accuracy = "" if certificate.accuracy is None else f"{certificate.accuracy:.2f}"
            table.add_row(
                escape(certificate.file), size(certificate.bytes), accuracy, f"{certificate.difference:.1e}",
                f"{certificate.latencies[-1].median:.2f}",
            )  # fmt: skip
    out.print(table)
    for kind, said in (("Warning", "warnings"), ("Not checked", "not_checked")):
        for sentence in dict.fromkeys(text for certificate in certificates for text in getattr(certificate, said)):
            out.print(f"[yellow]{kind}:[/] {escape(sentence)}", highlight=False, soft_wrap=True)


def models_for_page(name: str, runs_dir: Path) -> list[Path]:
    """The folders of the models that a page shows: of a run the teacher and students, else the one that is named.

    Raises:
        UserError: there are none.
    """
    from iekd.runs.models import models_of_page

    run_id, _, learner = name.partition("/")
    try:
        run = launcher_for(runs_dir).store.get(run_id)
    except RunError:
        return [folder_called(name, runs_dir)]
    return models_of_page(run, learner)
