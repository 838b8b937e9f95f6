"""README.md of a repository on the Hub: what is in it, how good it is, how to use it. Only what the run found."""

from __future__ import annotations

from typing import Any

from iekd import __version__
from iekd.config.methods import BASELINE, METHODS, split_name
from iekd.data import own_path, short_name
from iekd.engine.scoring import interval
from iekd.estimate.cautions import few_test_images
from iekd.inference.onnx_file import EXPORTED as ONNX
from iekd.models.artifact import ModelCard
from iekd.models.hub_configs import without_commit
from iekd.plural import counted
from iekd.results.report import against_baseline, on_other_images, spread, summaries, verdict

HUB_DATASETS = {  # our names -> the Hub's
    "cifar10": "uoft-cs/cifar10", "cifar100": "uoft-cs/cifar100",
    "fashion-mnist": "zalando-datasets/fashion_mnist", "fashion-mnist-sample": "zalando-datasets/fashion_mnist",
}  # fmt: skip
TAGS = ["image-classification", "knowledge-distillation", "iekd"]
NAMED = 20  # classes that are listed
CURVES = "curves.png"


def student_readme(
    repo: str, card: ModelCard, report: dict[str, Any] | None, license: str, files: set[str], cautions: list[str]
) -> str:
    """The model card of a student, or of a teacher.

    Args:
        repo: ORG/NAME, for the commands in it.
        report: of its run, scrubbed; None for a model by itself.
        files: what else lies in the repository.
        cautions: what makes the run's result worth little, as sentences.
    """
    from huggingface_hub import EvalResult, ModelCardData

    known = HUB_DATASETS.get(card.datasets[0]) if card.datasets else None
    dataset, result = _dataset(card), None
    if card.accuracy is not None:
        ends = _interval(card, report)
        result = EvalResult(
            task_type="image-classification", dataset_type=known or _slug(dataset), dataset_name=dataset,
            dataset_split="test", metric_type="accuracy", metric_name="Accuracy (%)",
            metric_value=round(card.accuracy, 2),
            metric_args={"confidence_interval_95": [round(end, 2) for end in ends]} if ends else None,
        )  # fmt: skip
    data = ModelCardData(
        license=license or None, library_name="iekd", pipeline_tag="image-classification",
        tags=[*TAGS, card.model, *([card.method] if card.role == "student" else [])],
        datasets=[known] if known else None, metrics=["accuracy"] if result else None,
        model_name=repo.partition("/")[2], eval_results=[result] if result else None,
    )  # fmt: skip
    parts = [
        f"# {repo.partition('/')[2]}", _what_it_is(card, report), *_results(card, report, files),
        *_use(repo, card, files), *_made(card, report), *_limits(card, report, cautions), *_licence(license),
    ]  # fmt: skip
    return f"---\n{data.to_yaml()}\n---\n\n" + "\n\n".join(filter(None, parts)) + "\n"


def run_readme(repo: str, run_id: str, report_text: str, license: str) -> str:
    """The card of a dataset repository that holds a run folder.

    report_text: the run's report.md, scrubbed; empty where it has not finished.
    """
    from huggingface_hub import DatasetCardData

    data = DatasetCardData(license=license or None, tags=TAGS[1:], pretty_name=f"IE-KD run {run_id}", viewer=False)
    use = f"""This is the folder of a run of IE-KD Studio {__version__}: settings, metrics, predictions, results, log
and trained models. It holds no images. Paths of the machine it ran on are cut down to their last part, and image files
have numbers instead of names.

    hf download {repo} --repo-type dataset --local-dir runs/{run_id}
    iekd runs show {run_id} --runs-dir runs
    iekd serve --runs-dir runs"""
    body = report_text.strip() or f"# Run {run_id}\n\nIt has not finished, so there is no report."
    return f"---\n{data.to_yaml()}\n---\n\n{use}\n\n{body}\n"


def _what_it_is(card: ModelCard, report: dict[str, Any] | None) -> str:
    kind = "grey" if card.channels == 1 else "colour"
    size = f"{card.resolution} x {card.resolution} {kind} pixels"
    said = f"A {card.model} with {card.params:,} parameters that classifies images of {size} into "
    said += counted(len(card.class_names), "class")
    names = ", ".join(_plain(name) for name in card.class_names[:NAMED])
    more = f" and {len(card.class_names) - NAMED:,} more" if len(card.class_names) > NAMED else ""
    teacher = (report or {}).get("teacher")
    if card.role == "teacher":
        how = "It is the teacher of a run."
    elif card.method == BASELINE:
        how = "It was trained on the labels alone: it is the baseline that distilled students are compared with."
    else:
        base, with_kd = split_name(card.method)
        spec = METHODS.get(base)
        paper = f" ([{spec.paper.citation}](https://arxiv.org/abs/{spec.paper.arxiv}))" if spec and spec.paper else ""
        by = (
            f" from the teacher {without_commit(teacher['model'])} ({teacher['params']:,} parameters)"
            if teacher
            else ""
        )
        more_kd = ", with knowledge distillation on top" if with_kd else ""
        how = f"It was distilled{by} by the method {card.method}{paper}{more_kd}."
    return f"{said}: {names}{more}. {how}"


def _results(card: ModelCard, report: dict[str, Any] | None, files: set[str]) -> list[str]:
    lines = ["## Results"]
    if card.accuracy is None:
        return [*lines, "Its accuracy was not measured."]
    ends = _interval(card, report)
    other = f" On other images like these, {ends[0]:.2f} to {ends[1]:.2f} % (95 % interval)." if ends else ""
    count = f"the {counted(report['test_images'], 'test image')}" if report else "the test images"
    lines.append(f"Accuracy on {count} of {_dataset(card)}: **{card.accuracy:.2f} %**.{other}")
    if report:
        lines += [_table(report), verdict(report)]
    if CURVES in files:
        lines.append(f"![Accuracy on the test images by epoch]({CURVES})")
    return lines


def _table(report: dict[str, Any]) -> str:
    """All methods of the run, so that nobody sees the pushed student alone."""
    rows = [
        "| network | seeds | parameters | accuracy (%) | points against the baseline, 95 % interval over seeds "
        "| the same over test images |",
        "|---|---|---|---|---|---|",
    ]
    if teacher := report["teacher"]:
        rows.append(
            f"| teacher {without_commit(teacher['model'])} | | {teacher['params']:,} | {teacher['accuracy']:.2f} | | |"
        )
    params = {learner["method"]: learner["params"] for learner in report["learners"]}
    rows += [
        f"| {s.method} | {s.n} | {params[s.method]:,} | {spread(s.mean, s.sd)} | {against_baseline(s)} "
        f"| {on_other_images(s)} |"
        for s in summaries(report)
    ]
    return "\n".join(rows)


def _use(repo: str, card: ModelCard, files: set[str]) -> list[str]:
    lines = [
        "## How to use it", "In Python with iekd, which also gives the torch module (`student.model`):",
        f'```python\nimport iekd\nstudent = iekd.Student.from_pretrained("{repo}")\n'
        'print(student.predict("photo.jpg").top)\n```',
        "On the command line, for any number of images:",
        f"```\niekd predict hf:{repo} FOLDER --csv predictions.csv\n```",
    ]  # fmt: skip
    if ONNX in files:
        mode, shape = ("L", "None, None") if card.channels == 1 else ("RGB", "None")
        axes = "" if card.channels == 1 else ".transpose(0, 3, 1, 2)"
        side = card.resolution
        lines += [
            "With onnxruntime, without iekd and torch (here the image is squeezed into a square; "
            f"training used the fit '{card.fit}'):",
            f"""```python
import json
import numpy as np, onnxruntime
from huggingface_hub import hf_hub_download
from PIL import Image

session = onnxruntime.InferenceSession(hf_hub_download("{repo}", "{ONNX}"))
labels = json.loads(session.get_modelmeta().custom_metadata_map["labels"])
image = Image.open("photo.jpg").convert("{mode}").resize(({side}, {side}))
pixels = np.asarray(image, np.uint8)[{shape}]{axes}  # (1, channels, height, width)
probabilities = session.run(None, {{"pixels": pixels}})[0][0]
print(labels[probabilities.argmax()], probabilities.max())
```""",
        ]
    return lines


def _made(card: ModelCard, report: dict[str, Any] | None) -> list[str]:
    lines = ["## How it was made", f"```\n{card.command}\n```" if card.command else ""]
    if report:
        counts = f"{report['train_images']:,} training, {report.get('validation_images', 0):,} validation and "
        lines.append(f"Dataset: {_dataset(card)}, {counts}{counted(report['test_images'], 'test image')}.")
        if (report["teacher"] or {}).get("from"):
            lines.append(f"The teacher comes from: {report['teacher']['from']}.")
        versions = {k: v for k, v in report["versions"].items() if v and k not in ("commit", "platform")}
        lines.append(f"Trained on {report['device']} with " + ", ".join(f"{k} {v}" for k, v in versions.items()) + ".")
    return lines if any(lines[1:]) else []


def _limits(card: ModelCard, report: dict[str, Any] | None, cautions: list[str]) -> list[str]:
    said = [
        "It names one of its classes for every image, whatever the image shows.",
        f"It was tested on images of {_dataset(card)} only. Test it on your own before you rely on it.",
        f"It sees {card.resolution} x {card.resolution} pixels; details that are lost at that size do not count.",
    ]
    if card.energy_threshold is not None:
        said.append("iekd marks images whose energy is below that of 95 % of the test images as unlike them.")
    few = few_test_images((report or {}).get("test_images", 0)) if report else None
    said += [str(few)] if few is not None else []
    said += [caution for caution in cautions if caution not in said]
    return ["## Limits", "\n".join(f"- {line}" for line in said)]


def _licence(license: str) -> list[str]:
    said = f"The weights are published under `{license}`." if license else "No licence was stated."
    return ["## Licence", f"{said} The images that they were trained on have a licence of their own."]


def _interval(card: ModelCard, report: dict[str, Any] | None) -> tuple[float, float] | None:
    images = (report or {}).get("test_images")
    return interval(card.accuracy * images / 100, images) if images and card.accuracy is not None else None


def _dataset(card: ModelCard) -> str:
    """Its name for others: of the publisher's own files only the last part."""
    name = card.datasets[0] if card.datasets else ""
    own = own_path(name)
    return own.name if own is not None else short_name(name) or "an unnamed dataset"


def _plain(name: str) -> str:
    """A class's name inside a sentence of Markdown."""
    return "".join(f"\\{c}" if c in "\\`*_[]<>|#" else c for c in name.replace("\n", " "))


def _slug(name: str) -> str:
    return "".join(c.lower() if c.isalnum() else "-" for c in name).strip("-") or "own-images"
