"""`iekd predict`: what one model predicts for any number of images, as text, CSV or JSON."""

from __future__ import annotations

import contextlib
import csv
import json
import os
import signal
import sys
import threading
from collections import Counter
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Optional

import typer
from rich.markup import escape

from iekd.cli.common import INTERRUPTED, RUNS, AsJson, RunsDir, err, find_model, out
from iekd.data.decoding import HEIC
from iekd.errors import UserError, as_text
from iekd.models.source import parse_numbers
from iekd.paths import absolute
from iekd.plural import counted

if TYPE_CHECKING:
    from iekd.inference.predict_files import FilePrediction

STDIN = "-"
PART = ".part"  # ending of a CSV file that is not complete
STREAMS = ("/dev/std", "/dev/fd/", "/proc/self/fd/")  # what is open already, be it a file or not
FLUSHED = 100  # rows


@dataclass
class Counts:
    """What has been predicted so far."""

    images: int = 0
    broken: int = 0
    unsure: int = 0
    unlike: int = 0
    other_files: Counter[str] = field(default_factory=Counter)
    notes: list[str] = field(default_factory=list)

    def add(self, prediction: FilePrediction) -> None:
        self.images += not prediction.error
        self.broken += bool(prediction.error)
        self.unsure += prediction.unsure
        self.unlike += bool(prediction.unlike)

    def sentence(self, threshold: float) -> str:
        """What is said at the end."""
        words = [f"{counted(self.images, 'image')} predicted"]
        if self.broken:
            words.append(f"{self.broken:,} not read")
        if self.unsure:
            words.append(f"{self.unsure:,} without a label (best score below {threshold:g})")
        if self.unlike:
            words.append(f"{self.unlike:,} unlike the training images")
        text = f"{', '.join(words)}."
        if self.other_files:
            listed = ", ".join(f"{count:,} {ending}" for ending, count in sorted(self.other_files.items()))
            text += f" Files that are no images: {listed}."
        return text + (" For HEIC, install pillow-heif." if HEIC & set(self.other_files) else "")


def predict(
    model_path: Annotated[
        str,
        typer.Argument(
            metavar="MODEL", show_default=False,
            help="RUN/LEARNER or RUN, a shipped checkpoint, a model's folder, an .onnx file, a file of weights, or "
            "hf:ORG/NAME.",
        ),
    ],
    paths: Annotated[
        list[str],
        typer.Argument(
            metavar="FILE|FOLDER|ZIP...", show_default=False,
            help="Images, folders of them, archives; - reads names from standard input, one a line.",
        ),
    ],
    csv_file: Annotated[
        Optional[Path], typer.Option("--csv", help="Write the predictions to this file.", show_default=False)
    ] = None,
    top: Annotated[int, typer.Option(help="Number of labels to list for each image.")] = 5,
    threshold: Annotated[
        float, typer.Option(help="Images whose best score is below it get no label. From 0 to 1.")
    ] = 0.0,
    batch: Annotated[
        Optional[int], typer.Option(help="Images predicted at a time; unset: what suits the device.")
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or mps.")] = "auto",
    match_background: Annotated[
        bool,
        typer.Option(help="Swap bright and dark in grey images with the opposite background of the training images."),
    ] = True,
    model: Annotated[
        Optional[str], typer.Option(help="For a file of weights: its network, such as resnet56.", show_default=False)
    ] = None,
    classes: Annotated[
        Optional[str],
        typer.Option(help="For a file without class names: its classes in output order, separated by commas, or a file "
                     "that lists them.", show_default=False),
    ] = None,
    resolution: Annotated[Optional[int], typer.Option(help="For such a file: image size in pixels.")] = None,
    mean: Annotated[
        Optional[str], typer.Option(help="For such a file: mean of the pixel values (0..1).", show_default=False)
    ] = None,
    std: Annotated[
        Optional[str], typer.Option(help="For such a file: their standard deviation.", show_default=False)
    ] = None,
    fit: Annotated[
        Optional[str], typer.Option(help="For such a file: crop, pad or squash images to a square.", show_default=False)
    ] = None,
    runs_dir: RunsDir = RUNS,
    as_json: AsJson = False,
) -> None:  # fmt: skip
    """Predict images with one model. Exit status 1 if some of them could not be read."""
    from iekd.inference.classifier import Described, open_classifier
    from iekd.inference.images import find_images
    from iekd.inference.predict_files import check_options, predict_found
    from iekd.models.class_names import read_class_names

    check_options(top, threshold, batch)
    names = None
    if classes is not None:
        named = Path(absolute(classes))
        names = (
            read_class_names(named) if named.is_file() else tuple(c.strip() for c in classes.split(",") if c.strip())
        )
    described = Described(
        model, names, resolution, None if mean is None else parse_numbers("Mean", mean),
        None if std is None else parse_numbers("Std", std), fit,
    )  # fmt: skip
    folder = find_model(model_path, runs_dir)
    classifier = open_classifier(folder, device, described)
    top, counts = min(top, len(classifier.card.class_names)), Counts()
    found = find_images(_given(paths), counts.other_files, counts.notes)
    with contextlib.closing(predict_found(classifier, found, top, threshold, batch, match_background)) as rows:
        try:
            with contextlib.ExitStack() as stack:
                outputs: list[Output] = []
                if csv_file is not None:
                    outputs.append(stack.enter_context(CsvFile(csv_file, top)))
                if as_json:
                    outputs.append(stack.enter_context(_json(folder, counts, csv_file)))
                elif csv_file is None:
                    outputs.append(_print)
                elif err.is_terminal:
                    outputs.append(stack.enter_context(_bar(paths)))
                ctrl_c = stack.enter_context(CtrlC())
                for row in rows:
                    with ctrl_c.held():
                        counts.add(row)
                        if row.error:
                            _say(f"[bold red]Error:[/] {escape(row.error)}")
                        for output in outputs:
                            output(row)
                if not counts.images + counts.broken:
                    raise UserError("No image was named. Give files, folders, zips, or names on standard input.")
        except KeyboardInterrupt:
            where = f" Until then: '{csv_file}{PART}'." if csv_file else ""
            _say(escape(f"Stopped before the end. {counts.sentence(threshold)}{where}"))
            raise typer.Exit(INTERRUPTED) from None
    for note in counts.notes:
        _say(f"[yellow]Note:[/] {escape(note)}")
    _say(escape(counts.sentence(threshold)))
    if counts.broken:
        raise typer.Exit(1)


def _say(text: str) -> None:
    err.print(text, highlight=False, soft_wrap=True)


def _given(paths: list[str]) -> Iterator[str]:
    """The paths, and for "-" the lines of standard input, as they come."""
    for path in paths:
        if path == STDIN:
            lines = (os.fsdecode(line).rstrip("\r\n") for line in sys.stdin.buffer)
            yield from filter(None, lines)
        else:
            yield path


class CtrlC:
    """Ctrl-C that waits while a row is written, so that a row is in every output or in none. A second one does not."""

    def __init__(self) -> None:
        self.writing = self.pressed = self.ours = False

    def __enter__(self) -> CtrlC:
        usual = signal.getsignal(signal.SIGINT) is signal.default_int_handler  # ignored where it runs in the background
        self.ours = usual and threading.current_thread() is threading.main_thread()
        if self.ours:
            signal.signal(signal.SIGINT, self._on_signal)
        return self

    def __exit__(self, *_: object) -> None:
        if self.ours:
            signal.signal(signal.SIGINT, signal.default_int_handler)

    def _on_signal(self, *_: object) -> None:
        if not self.writing or self.pressed:
            raise KeyboardInterrupt
        self.pressed = True

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        self.writing = True
        try:
            yield
        finally:
            self.writing = False
        if self.pressed:
            raise KeyboardInterrupt


Output = Callable[["FilePrediction"], None]


def _print(row: FilePrediction) -> None:
    if row.error:
        return
    labels = ", ".join(f"{label} {score:.0%}" for label, score in row.top)
    unlike = " [unlike the training images]" if row.unlike else ""
    text = f"{row.name}: {f'unsure ({labels})' if row.unsure else labels}{unlike}"
    out.print(as_text(text), highlight=False, markup=False, soft_wrap=True)


class CsvFile:
    """A CSV file that is there once it is complete. Until then, and if it is stopped, its rows are in FILE.part.

    What is no plain file, such as /dev/stdout, gets its rows as they come.
    """

    def __init__(self, path: Path, top: int) -> None:
        from iekd.results.prediction_table import PredictionTable

        direct = str(path).startswith(STREAMS) or (path.exists() and not path.is_file())
        self.path, self.part = path, path if direct else Path(f"{path}{PART}")
        self.table, self.rows = PredictionTable(top), 0

    def __enter__(self) -> CsvFile:
        with self._says_why():
            if self.path.is_dir():
                raise IsADirectoryError(None, "it is a folder")
            self.file = open(self.part, "w", newline="", encoding="utf-8", errors="backslashreplace")
            self.writer = csv.writer(self.file)
            self.writer.writerow(self.table.header)
        return self

    def __call__(self, row: FilePrediction) -> None:
        from iekd.results.prediction_table import PredictionRow

        said = [(row.label, row.top)] if row.top else []
        with self._says_why():
            self.writer.writerow(self.table.cells(PredictionRow(row.name, said, row.unlike, row.inverted, row.error)))
            self.rows += 1
            if self.rows % FLUSHED == 0:
                self.file.flush()

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        with self._says_why():
            self.file.close()
            if kind is None and self.part != self.path:
                os.replace(self.part, self.path)

    @contextlib.contextmanager
    def _says_why(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise UserError(
                f"'{self.path}' cannot be written ({error.strerror}). Choose another place with --csv."
            ) from None


@contextlib.contextmanager
def _json(model: Path, counts: Counts, csv_file: Path | None) -> Iterator[Output]:
    """One object in one line, written piece by piece: there may be any number of images."""
    between = ""

    def write(row: FilePrediction) -> None:
        nonlocal between
        sys.stdout.write(between + json.dumps(row.to_json()))
        between = ", "

    sys.stdout.write('{"images": [')
    rest: dict[str, Any] = {"model": str(model), "csv": csv_file and str(csv_file), "stopped": False}
    try:
        yield write
    except KeyboardInterrupt:
        rest |= {"stopped": True, "csv": csv_file and f"{csv_file}{PART}"}
        raise
    except UserError as error:
        rest["error"] = str(error)
        raise
    finally:
        rest |= {
            "predicted": counts.images, "unreadable": counts.broken, "unsure": counts.unsure, "unlike": counts.unlike,
            "other_files": dict(counts.other_files),
        }  # fmt: skip
        sys.stdout.write(f"], {json.dumps(rest)[1:]}\n")


@contextlib.contextmanager
def _bar(paths: list[str]) -> Generator[Output, None, None]:
    """A progress bar on standard error; images are counted first, where that takes no reading."""
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    from iekd.data.archives import TAR
    from iekd.inference.images import find_images

    named = STDIN not in paths and not any(path.lower().endswith(TAR) for path in paths)
    total = sum(1 for _ in find_images(paths)) if named else None
    columns = (
        TextColumn("predicting"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn(),
    )  # fmt: skip
    with Progress(*columns, console=err, transient=True) as bar:
        task = bar.add_task("", total=total)
        yield lambda _: bar.advance(task)
