"""`iekd eval`: the accuracy of a checkpoint on a dataset."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated, Optional

import typer

from iekd.cli.common import RUNS, AsJson, RunsDir, find_model, out, print_json
from iekd.engine.scoring import imbalanced
from iekd.errors import UserError
from iekd.models.source import Numbers, parse_numbers
from iekd.plural import counted

NOTES = {
    "given": "mean and std as given",
    "model card": "mean and std of the model itself",
    "file": "mean and std from a layer in the file",
    "data set": "mean and std of the dataset; give --mean and --std if the model was trained with others",
}


def evaluate(
    checkpoint: Annotated[
        str,
        typer.Option(help="A file of weights (.pt, .safetensors, .onnx), a model's folder, a shipped checkpoint, "
                     "RUN/LEARNER or RUN, or hf:ORG/NAME."),
    ],
    dataset: Annotated[str, typer.Option(help="Name of a dataset, or folder:PATH.")],
    model: Annotated[
        Optional[str], typer.Option(help="Network of the weights, such as resnet56; not needed for a folder.")
    ] = None,
    split: Annotated[
        str, typer.Option(help="Which images: test, train, or all (both). A folder may contain only test/.")
    ] = "test",
    mean: Annotated[
        Optional[str],
        typer.Option(help="Mean of the pixels (0..1) that it was trained with, as in 0.491,0.482,0.447; "
                     "unset: the folder's, or the dataset's own.", show_default=False),
    ] = None,
    std: Annotated[
        Optional[str], typer.Option(help="Standard deviation that belongs to --mean.", show_default=False)
    ] = None,
    resolution: Annotated[Optional[int], typer.Option(help="Side of the images; unset: the dataset's own.")] = None,
    test_fraction: Annotated[float, typer.Option(help="Share held out when a folder has no test/ of its own.")] = 0.2,
    data_seed: Annotated[int, typer.Option(help="Fixes which images are held out.")] = 0,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or mps.")] = "auto",
    image_memory: Annotated[
        Optional[float], typer.Option(help="GB of memory that decoded images may take; unset: half of what is free.")
    ] = None,
    fit: Annotated[
        Optional[str], typer.Option(help="crop, pad or squash images that are not square; unset: as it was trained.")
    ] = None,
    class_order: Annotated[
        Optional[str],
        typer.Option(help="Names of all classes in the order of the outputs, with commas, or a file of them; or text."),
    ] = None,
    runs_dir: RunsDir = RUNS,
    as_json: AsJson = False,
) -> None:  # fmt: skip
    """Accuracy of a checkpoint, yours or anyone's, on a dataset."""
    from iekd.inference.evaluate import evaluate_checkpoint

    found = evaluate_checkpoint(
        find_model(checkpoint, runs_dir), dataset, model=model, split=split, mean=_numbers("Mean", mean),
        std=_numbers("Std", std), resolution=resolution, test_fraction=test_fraction, data_seed=data_seed,
        device=device, image_memory=image_memory, fit=fit, class_order=class_order,
    )  # fmt: skip
    if as_json:
        print_json(asdict(found))
        return
    uneven = imbalanced(found.class_counts.values())
    lines = {
        "accuracy": f"{found.accuracy:.2f} %",
        **(
            {"balanced accuracy": f"{found.balanced_accuracy:.2f} % (mean of the classes' accuracies)"}
            if uneven
            else {}
        ),
        "images": found.images,
        "correct": found.correct,
        "skipped files": len(found.skipped_files),
        "model": found.model + (f", {found.params:,} parameters" if found.params else ""),
        "mean": _listed(found.mean),
        "std": f"{_listed(found.std)} ({NOTES[found.normalisation]})",
    }
    for name, value in lines.items():
        out.print(f"{name}: {value}", highlight=False, markup=False, soft_wrap=True)
    for name, count in found.class_counts.items() if uneven else ():
        of_class = found.class_accuracy[name]
        right = "none in this split" if of_class is None else f"{of_class:.2f} % of {counted(count, 'image')}"
        out.print(f"class {name}: {right}", highlight=False, markup=False, soft_wrap=True)
    for note in found.notes:
        out.print(f"note: {note}", highlight=False, markup=False, soft_wrap=True)
    if split == "test" and _drawn(found.dataset):
        out.print(
            f"The test images were drawn with data seed {data_seed} and test fraction {test_fraction:g}: a network "
            "that was trained with other values has seen some of them in training.", highlight=False, soft_wrap=True,
        )  # fmt: skip


def _drawn(dataset: str) -> bool:
    """Whether the test images are drawn at random."""
    from iekd.data import describe

    try:
        return describe(dataset).test_is_drawn
    except UserError:  # it has only test images
        return False


def _numbers(field: str, text: str | None) -> Numbers | None:
    return None if text is None else parse_numbers(field, text)


def _listed(values: Numbers) -> str:
    return ", ".join(f"{v:.4g}" for v in values)
