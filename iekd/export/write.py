"""Export a model: write it, check what was written, and give it its name, with its certificate, or not at all."""

from __future__ import annotations

import os
import platform
import shutil
import time
from collections.abc import Mapping
from importlib import metadata
from json import dumps
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from iekd import __version__
from iekd.data.base import Split
from iekd.engine.scoring import accuracy, balanced_accuracy, class_accuracy, is_right, predicted
from iekd.errors import UserError
from iekd.export.base import Answer, ExportJob, Format, Say
from iekd.export.certificate import (
    BROKEN,
    DIFFERS,
    REFUSED,
    Certificate,
    accuracy_warning,
    difference_warning,
)
from iekd.export.check import Latency, latencies, probabilities, some_images
from iekd.export.formats import FORMATS, format_called
from iekd.export.script import SCRIPT
from iekd.export.sharing import name_without_folders, shareable, without_folders
from iekd.models.artifact import TEACHER, WEIGHTS, ModelCard, check_fits, load_model
from iekd.paths import absolute
from iekd.plural import counted

if TYPE_CHECKING:
    from iekd.data.base import Dataset

RECORD, PAGE = "certificate.json", "certificate.md"


def export_model(
    folder: Path | str, format: str, out: Path | str, *, dataset: Dataset | None = None, without: str = "",
    license: str = "", beside: Mapping[str, Path] | None = None, command: str = "", force: bool = False,
    say: Say = lambda _: None,
) -> Certificate:  # fmt: skip
    """Write a saved model as a file for other programs, with a certificate and a script that shows how to use it.

    Args:
        folder: of the saved model.
        format: a name of `FORMATS`.
        out: a folder to be made; or a file to be made with the ending of the format, such as shoes.onnx, beside which
            the certificate and the script are then written. None of them may exist.
        dataset: whose test images the file is checked on, and on whose training images int8 calibrates.
        without: why there is no dataset, as a sentence, for the certificate.
        license: of the file; written into it as it is.
        beside: other models for the same classes by name; the latency of the one named "teacher" is measured too.
        command: what was asked for, for the certificate.
        force: write a file that has lost more than 5 points of accuracy, or otherwise differs too much.
        say: called with sentences on the progress.
    Returns:
        The certificate, which is also on disk.
    Raises:
        UserError: no such model or format, `out` exists or cannot be written, the network or the dataset does not fit,
            or the file is too far from the original.
    """
    chosen, out, as_file = check_target(format, out)
    folder = Path(folder)
    model, card = load_model(folder)
    if dataset is not None:
        check_fits(card, dataset, folder)
        dataset = dataset.ordered(card.class_names)
    card = shareable(card)
    job = ExportJob(folder, model, card, dataset, license, dict(beside or {}), say)
    part = out.with_name(f".{out.name}.{os.getpid()}.part")
    try:
        try:
            out.parent.mkdir(parents=True, exist_ok=True)
            part.mkdir()
        except OSError as error:
            raise not_writable(out, error) from None
        target = part / (out.name if as_file else chosen.file)
        say(f"Writing {card.model} as {chosen.title} ...")
        try:
            chosen.write(job, target)
            certificate = _checked(job, chosen, target, without, command, force)
            names = {name: path.name for name, path in companions(out, as_file).items()}
            (part / names[RECORD]).write_text(dumps(certificate.to_json(), indent=2) + "\n", "utf-8")
            (part / names[PAGE]).write_text(certificate.to_markdown(), "utf-8")
            (part / names[SCRIPT]).write_text(chosen.script(card, target.name, names[SCRIPT]), "utf-8")
            sync(part)
            _publish(part, target, out, as_file)
        except OSError as error:
            raise not_writable(out, error) from None
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return certificate


def check_target(format: str, out: Path | str) -> tuple[Format, Path, bool]:
    """(the format, the path in full, whether it is that of a file, known by its ending, or of a folder).

    Raises:
        UserError: no such format, `out` exists, or its ending is that of another format's file.
    """
    chosen, out = format_called(format), Path(absolute(str(out)))
    ending, own = out.suffix.lower(), Path(chosen.file).suffix
    as_file = ending == own and not chosen.whole_folder
    if not as_file and ending in {Path(other.file).suffix for other in FORMATS.values()}:
        ways = "" if chosen.whole_folder else f", or take '{own}' for a file"
        raise UserError(
            f"'{out.name}' ends in '{out.suffix}', but the format {chosen.name} would make a folder of that name. "
            f"Leave the ending out{ways}."
        )
    check_free(out, as_file)
    return chosen, out, as_file


def companions(out: Path, as_file: bool) -> dict[str, Path]:
    """Where certificate and script lie, by their usual names: in the exported folder, or beside the exported file."""
    names = (RECORD, PAGE, SCRIPT)
    return {name: out.with_name(f"{out.stem}.{name}") if as_file else out / name for name in names}


def check_free(out: Path, as_file: bool = False) -> None:
    """Raises UserError if what is to be written is there already."""
    for path in (out, *(companions(out, True).values() if as_file else ())):
        if path.exists():
            raise UserError(f"'{path}' is there already. Choose another name with --out, or remove it first.")


def not_writable(out: Path, error: OSError) -> UserError:
    """What to raise where a file cannot be written."""
    return UserError(f"'{out}' cannot be written ({error.strerror or error}). Choose another path with --out.")


def _checked(job: ExportJob, chosen: Format, target: Path, without: str, command: str, force: bool) -> Certificate:
    """The certificate of a file that has just been written.

    Raises:
        UserError: it is too far from the original.
    """
    card, test = job.card, None if job.dataset is None else job.dataset.test
    answer, original = chosen.open(target), _original(job.model, card)
    images = some_images(test, card.resolution, card.channels)
    job.say(f"Comparing with the original on {len(images):,} {'test images' if test else 'random pixels'} ...")
    expected = probabilities(original, images)
    if not np.isfinite(expected).all():
        raise UserError(f"The model in '{job.folder}' answers with values that are no numbers. Train it again.")
    difference = float(np.abs(probabilities(answer, images) - expected).max())
    own = of_original = balanced = None
    if test is not None:
        job.say(f"Measuring the accuracy on {counted(len(test), 'test image')} ...")
        own, balanced = _accuracy(answer, test, card, job.say)
        if chosen.approximate:
            of_original, _ = _accuracy(original, test, card, job.say)
    _refuse(difference, own, of_original, chosen, force)
    warnings = [difference_warning(difference, chosen.approximate)]
    if own is not None and of_original is not None:
        warnings.append(accuracy_warning(own, of_original))
    missing = []
    if test is None:
        missing.append(f"The accuracy: {without_folders(without) or 'no dataset was given.'}")
    if card.role != TEACHER and TEACHER not in job.beside:
        missing.append("The teacher's latency: no teacher lies beside this model.")
    job.say("Measuring the latency ...")
    return Certificate(
        format=chosen.name, file=target.name, bytes=target.stat().st_size,
        original_bytes=(job.folder / WEIGHTS).stat().st_size,
        model=card.model, params=card.params, role=card.role, method=card.method, seed=card.seed,
        trained_by=card.command, resolution=card.resolution, channels=card.channels, fit=card.fit,
        class_names=card.class_names, datasets=card.datasets, license=job.license,
        checked_on=name_without_folders(job.dataset.name) if job.dataset else "", test_images=len(test) if test else 0,
        accuracy=own, balanced_accuracy=balanced, original_accuracy=of_original, recorded_accuracy=card.accuracy,
        difference=difference, compared_images=len(images), compared_on="test images" if test else "random pixels",
        energy_threshold=card.energy_threshold, latencies=tuple(_latencies(job, chosen, target)), machine=_machine(),
        versions=_versions(chosen), command=command, created=time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime()),
        warnings=tuple(filter(None, warnings)), not_checked=tuple(missing),
    )  # fmt: skip


def _refuse(difference: float, own: float | None, of_original: float | None, chosen: Format, force: bool) -> None:
    """Raises UserError for a file that nobody should use, unless it is asked for all the same."""
    if force:
        return
    if not chosen.approximate and not difference <= BROKEN:  # also where it is not a number
        raise UserError(
            f"The exported file computes something else than the original: a probability differs by {difference:.2g}, "
            f"and rounding explains {DIFFERS:g} at most. Choose another format, or write it all the same with --force."
        )
    if own is not None and of_original is not None and of_original - own > REFUSED:
        raise UserError(
            f"With 8 bits this network is {own:.2f} % right instead of {of_original:.2f} %, and more than {REFUSED:g} "
            "points of accuracy are too much to lose. Choose the format onnx, or write it all the same with --force."
        )


def _accuracy(answer: Answer, test: Split, card: ModelCard, say: Say) -> tuple[float, float]:
    """(percent right, mean of the classes' percents)."""
    right = is_right(predicted(probabilities(answer, test.images, say)), test.labels)
    return accuracy(right), balanced_accuracy(class_accuracy(right, test.labels, len(card.class_names)))


def _original(model: object, card: ModelCard) -> Answer:
    from iekd.export.program import PixelsToProbabilities, torch_answer

    return torch_answer(PixelsToProbabilities(model, card).eval())  # type: ignore[arg-type]


def _latencies(job: ExportJob, chosen: Format, target: Path) -> list[Latency]:
    name = job.card.role if job.card.role == TEACHER else "student"
    runtime = "onnxruntime" if "onnxruntime" in chosen.packages() else "torch"
    timed: dict[tuple[str, str], Answer] = {}
    teacher = job.beside.get(TEACHER)
    if teacher is not None and name != TEACHER:
        network, card = load_model(teacher)
        if (card.resolution, card.channels) == (job.card.resolution, job.card.channels):
            timed[TEACHER, "torch"] = _original(network, card)
    timed[name, "torch"] = _original(job.model, job.card)
    timed[target.name, runtime] = chosen.open(target, threads=1)
    return latencies(timed, job.card.resolution, job.card.channels)


def _machine() -> dict[str, object]:
    from iekd.data.control_groups import cores
    from iekd.engine.threads import processor

    return {"processor": processor(), "cores": cores(), "platform": platform.platform()}


def _versions(chosen: Format) -> dict[str, str]:
    names = dict.fromkeys(("torch", *chosen.packages(), "numpy", "pillow"))
    return {
        "iekd": __version__, "python": platform.python_version(), **{name: metadata.version(name) for name in names}
    }  # fmt: skip


def sync(part: Path) -> None:
    """Make sure that everything outlives a loss of power, and can be read by others."""
    for path in part.rglob("*"):
        if path.is_file():
            path.chmod(0o644)
            with open(path, "rb") as written:
                os.fsync(written.fileno())


def _publish(part: Path, target: Path, out: Path, as_file: bool) -> None:
    """Give it its name. The file itself comes last: who sees it sees its certificate too."""
    check_free(out, as_file)
    if not as_file:
        part.chmod(0o755)
        part.rename(out)
        return
    for path in sorted(part.iterdir(), key=lambda path: path == target):
        path.rename(out.with_name(path.name))
