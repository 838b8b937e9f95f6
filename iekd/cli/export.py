"""`iekd export`: a trained model as a file for other programs, with a certificate."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer
from rich.markup import escape

from iekd.cli.common import RUNS, AsJson, RunsDir, err, find_model, out, print_json, table_of
from iekd.errors import UserError
from iekd.export import FORMATS
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
    format_name: Annotated[str, typer.Option("--format", help=f"One of: {', '.join(FORMATS)}.")] = "onnx",
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
    runs_dir: RunsDir = RUNS,
    as_json: AsJson = False,
) -> None:  # fmt: skip
    """Write a trained model as a file for other programs, checked, with a certificate and a script that uses it."""
    from iekd.runs.export import export_saved

    folder = find_model(model, runs_dir)
    if not (folder / CARD).is_file():
        raise UserError(f"'{model}' is not a model's folder. Give RUN/LEARNER, or a folder with '{CARD}' in it.")
    certificate = export_saved(
        folder, format_name, target, dataset=dataset or "", test_fraction=test_fraction, data_seed=data_seed,
        license=license_text, force=force,
        say=lambda text: err.print(escape(text), highlight=False, soft_wrap=True),
    )  # fmt: skip
    beside = {name: str(path) for name, path in companions(Path(absolute(str(target))), target.is_file()).items()}
    if as_json:
        print_json({"out": str(target), "beside": beside, "certificate": certificate.to_json()})
        return
    table = table_of("", f"certificate of {certificate.file}")
    for what, found in certificate.rows():
        table.add_row(what, escape(found))
    out.print(table)
    for said in certificate.warnings:
        out.print(f"[yellow]Warning:[/] {escape(said)}", highlight=False, soft_wrap=True)
    for said in certificate.not_checked:
        out.print(f"[yellow]Not checked:[/] {escape(said)}", highlight=False, soft_wrap=True)
    out.print(
        f"It is in '{escape(str(target))}'. Try it: python {escape(beside['use_it.py'])} picture.jpg", highlight=False
    )
