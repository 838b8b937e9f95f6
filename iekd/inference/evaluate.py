"""The accuracy of a classifier on a dataset: anyone's file of weights, a model's folder of ours, or an ONNX file."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from iekd import data
from iekd.config.methods import BASELINE
from iekd.config.run import NO_TEACHER, RunConfig, make_config
from iekd.data.base import Dataset, Split
from iekd.data.decoding import CROP
from iekd.data.registry import source_of
from iekd.engine.scoring import accuracy, balanced_accuracy, class_accuracy, is_right, predicted
from iekd.errors import UserError, unknown_name
from iekd.inference.classifier import Described, OnnxClassifier
from iekd.inference.onnx_file import SUFFIX, open_onnx
from iekd.inference.teacher_check import BETTER, advice_on_order, fitting_order, order_of_outputs
from iekd.models.artifact import ModelCard, check_fits, load_model
from iekd.models.class_names import class_order_of, gives_order, in_order_of, matched
from iekd.models.source import Numbers, check_normalisation, check_path, per_channel

SPLITS = ("test", "train", "all")


@dataclass(frozen=True)
class Evaluation:
    """What was found.

    accuracy: percent of `images`, of which `correct` are right; class_accuracy: the same of each class, None for one
    without images. balanced_accuracy: the mean of those; class_counts: images of each class.
    model, params: the network that the weights fit, and its size; 0 where an ONNX file of another tool hides it.
    mean, std: per channel, of pixel values scaled to 0..1; normalisation: where they are from ("given", "model card",
    "file", "network" for what its library trains with, "data set").
    seconds: what predicting took, without loading. skipped_files: pictures that could not be read.
    notes: what was taken from the checkpoint, and what was ignored.
    """

    accuracy: float
    images: int
    correct: int
    class_accuracy: dict[str, float | None]
    balanced_accuracy: float
    class_counts: dict[str, int]
    checkpoint: str
    model: str
    params: int
    dataset: str
    split: str
    mean: Numbers
    std: Numbers
    normalisation: str
    device: str
    seconds: float
    skipped_files: list[str]
    notes: list[str]


def evaluate_checkpoint(
    checkpoint: str | Path, dataset: str, *, model: str | None = None, split: str = "test",
    mean: Sequence[float] | None = None, std: Sequence[float] | None = None, resolution: int | None = None,
    test_fraction: float = 0.2, data_seed: int = 0, device: str = "auto", image_memory: float | None = None,
    fit: str | None = None, class_order: str | None = None,
) -> Evaluation:  # fmt: skip
    """Predict every image of a split, in float32, and count.

    Args:
        checkpoint: a file of weights, the folder of a model that was saved here, or an ONNX file.
        dataset: as in a run; resolution (unset: the folder's own, or the dataset's), test_fraction, data_seed and
            image_memory too.
        model: the network's name; a folder knows its own.
        split: "test", "train", or "all" images of both. Of a folder, test/ alone may be there.
        mean, std: what the network was trained with; unset: the folder's own, or those of the dataset's training
            images.
        fit, class_order: as in a run.
    Raises:
        UserError: something is missing, unreadable, or does not belong together.
    """
    import torch

    from iekd.engine.accelerate import channels_last, choose_device
    from iekd.engine.batches import images_on_device
    from iekd.engine.learner import predict
    from iekd.models.normalise import Normalise
    from iekd.models.pretrained import for_channels, normalisation
    from iekd.models.weight_files import read_weights
    from iekd.models.weights import fit_weights

    if split not in SPLITS:
        raise unknown_name("split", split, SPLITS)
    check_normalisation(mean, std)
    settings = make_config(  # checks them
        dataset=dataset, student=model, resolution=resolution, test_fraction=test_fraction, data_seed=data_seed,
        device=device, image_memory=image_memory, methods=(BASELINE,), teacher=NO_TEACHER, fit=fit,
        class_order=class_order,
    )  # fmt: skip
    order = class_order_of(settings.class_order)
    settings = settings.model_copy(update={"class_order": order, "dataset": data.prepare(settings.dataset)})
    path = Path(check_path(str(checkpoint)))
    if path.suffix.lower() == SUFFIX:
        return _evaluate_onnx(path, settings, split, model, mean, std)
    used_device = choose_device(settings.device)
    # what is wrong with the weights is said before the images are read
    if path.is_dir():
        network, card = load_model(path)
        if model not in (None, card.model):
            raise UserError(f"The model in '{path}' is a {card.model}, not a {model}. Leave --model out.")
        loaded, asked = _data(settings, split, card)
        check_fits(card, loaded, path)
        notes = in_order_of(network, card.class_names, f"'{path.name}'", loaded.class_names)
        name, source, used_mean, used_std = card.model, "model card", card.mean, card.std
        named_in, listed = f"'{path.name}'", matched(card.class_names, loaded.class_names)
    else:
        file = read_weights(path)
        described = file.card or file.config
        if model is None and described is None:
            raise UserError(f"The file '{path}' does not say which network it is of. Give --model, such as resnet56.")
        if file.config and settings.resolution is None:
            settings = settings.model_copy(update={"resolution": file.config.resolution})
        loaded, asked = _data(settings, split, file.card)
        if file.card:
            check_fits(file.card, loaded, path)
        wanted = model or (described.model if described else "")
        fitted = fit_weights(file, wanted, len(loaded.class_names), loaded.channels)
        network, name = fitted.model, fitted.name
        sure = gives_order(order) and file.card is None  # what we have saved knows its classes
        moved = in_order_of(network, file.class_names, file.named_in, loaded.class_names, sure)
        notes = [*fitted.notes, *moved]
        named_in = f"'{path.name}'" if file.card else ""
        listed = None if sure else matched(file.class_names or (), loaded.class_names)
        source, (used_mean, used_std) = "data set", loaded.statistics
        if usual := normalisation(name):
            source, used_mean, used_std = "network", *(for_channels(values, loaded.channels) for values in usual)
        if fitted.mean and fitted.std:
            source, used_mean, used_std = ("model card" if file.card else "file"), fitted.mean, fitted.std
    if mean is not None and std is not None:
        source = "given"
        used_mean = per_channel(mean, loaded.channels, "Mean")
        used_std = per_channel(std, loaded.channels, "Std")
    normalise, network = Normalise(used_mean, used_std).to(used_device), channels_last(network, used_device)
    with images_on_device([asked], used_device, image_memory) as [(images, labels)]:
        began = time.perf_counter()
        logits = predict(network, normalise, images, used_device)
    if not bool(torch.isfinite(logits).all()):
        raise UserError(f"'{path}' answers with values that are no numbers. Check mean and std, or get the file again.")
    return _counted(
        predicted(logits), labels, began, loaded, checkpoint=str(path), model=name,
        params=sum(p.numel() for p in network.parameters()), dataset=settings.dataset, split=split, mean=used_mean,
        std=used_std, normalisation=source, device=str(used_device), notes=notes,
        listed=listed, named_in=named_in,
    )  # fmt: skip


def _evaluate_onnx(
    path: Path, settings: RunConfig, split: str, model: str | None, mean: Sequence[float] | None,
    std: Sequence[float] | None,
) -> Evaluation:  # fmt: skip
    """`evaluate_checkpoint` of an ONNX file, as onnxruntime runs it."""
    import numpy as np
    import torch

    from iekd.engine.batches import images_on_device
    from iekd.engine.stream import split_into_batches

    file = open_onnx(path, settings.device)
    described = Described(
        model, None if file.card or len(settings.class_order) < 2 else settings.class_order, settings.resolution,
        None if mean is None else tuple(mean), None if std is None else tuple(std),
    )  # fmt: skip
    if not file.card and not described.class_names and not file.class_names:  # then they are the dataset's
        sides = {"resolution": file.height or settings.resolution}
        described = replace(described, class_names=_data(settings.model_copy(update=sides), split)[0].class_names)
    classifier = OnnxClassifier(file, described)
    loaded, asked = _data(settings, split, classifier.card)
    check_fits(classifier.card, loaded, path)
    columns = [classifier.card.class_names.index(name) for name in loaded.class_names]
    began, answers = time.perf_counter(), []
    with (
        images_on_device([asked], torch.device("cpu"), settings.image_memory) as [(images, labels)],
        contextlib.closing(split_into_batches(images, classifier.batch_size)) as batches,
    ):
        for batch in batches:  # (B,C,H,W) uint8
            answers.append(classifier.probabilities(batch.permute(0, 2, 3, 1).numpy()))
    probabilities = np.concatenate(answers)[:, columns]
    if not np.isfinite(probabilities).all():
        raise UserError(f"'{path}' answers with values that are no numbers. Export it again.")
    card = classifier.card
    return _counted(
        torch.from_numpy(predicted(probabilities)), labels, began, loaded, checkpoint=str(path), model=card.model,
        params=card.params, dataset=settings.dataset, split=split, mean=card.mean, std=card.std,
        normalisation="model card" if file.card else "file" if mean is None else "given",
        device=classifier.device, notes=[], listed=classifier.card.class_names,
        named_in=f"'{path.name}'" if file.card else "",
    )  # fmt: skip


def _counted(
    predictions: Any, labels: Any, began: float, loaded: Dataset, notes: list[str], listed: Sequence[str] | None,
    named_in: str, **about: Any,
) -> Evaluation:  # fmt: skip
    """What (N,) predictions of (N,) labels come to; about: what else is known. began: when predicting did.

    listed: see `order_of_outputs`. named_in: see `TeacherCheck`.
    """
    right = is_right(predictions, labels).cpu()
    seconds = time.perf_counter() - began
    names, labels = loaded.class_names, labels.cpu()
    of_class = class_accuracy(right, labels, len(names))
    order, in_order = fitting_order(predictions.cpu().numpy(), labels.numpy(), names)
    if in_order >= accuracy(right) + BETTER:
        advice = advice_on_order(order_of_outputs(order, names, listed), named_in)
        better = f"With its outputs in another order of the classes {in_order:.1f} % would be right."
        notes = [*notes, f"{better} {advice}."]
    return Evaluation(
        accuracy=accuracy(right), images=len(right), correct=int(right.sum()),
        class_accuracy=dict(zip(names, of_class, strict=True)), balanced_accuracy=balanced_accuracy(of_class),
        class_counts=dict(zip(names, labels.bincount(minlength=len(names)).tolist(), strict=True)),
        seconds=seconds, skipped_files=list(loaded.skipped), notes=notes, **about,
    )  # fmt: skip


def _data(settings: RunConfig, split: str, card: ModelCard | None = None) -> tuple[Dataset, Split]:
    """The dataset and its images to predict. It may have test images alone, which is not enough for a run."""
    name = settings.dataset
    if split == "test" and (test_only := source_of(name).test_only(name)):
        name, split = test_only, "all"
    loaded = data.load(
        name, resolution=settings.resolution or (card.resolution if card else None),
        test_fraction=settings.test_fraction, seed=settings.data_seed, image_memory=settings.image_memory,
        fit=card.fit if card and settings.fit == CROP else settings.fit, class_order=settings.class_order,
    )  # fmt: skip
    train, test = loaded.train, loaded.test
    if split == "all":
        return loaded, train.joined(test)
    return loaded, test if split == "test" else train
