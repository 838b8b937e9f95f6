"""README.md of a pushed student: metadata that the Hub can read, and nothing that the run did not find."""

from __future__ import annotations

import io
import json

import numpy as np
import pytest
from PIL import Image

from iekd.hub.card import student_readme
from iekd.hub.contents import gathered
from iekd.hub.curves import curves_png
from iekd.models.artifact import ModelCard
from iekd.results.report import verdict


@pytest.fixture
def readme(finished, no_export):
    """`readme(learner, **options)`: the text of README.md as it would be pushed."""
    run = finished[0]

    def make(learner="ie-ft-seed0", **options):
        with gathered("student", "ann/pets", run=run, model=run.model_folders[learner], **options) as contents:
            return contents.files["README.md"].decode()

    return make


def test_the_metadata_is_what_the_hub_reads(readme, finished):
    from huggingface_hub import ModelCard as HubCard

    data = HubCard(readme(license="mit")).data
    card = ModelCard.read(finished[0].model_folders["ie-ft-seed0"])
    assert (data.license, data.library_name, data.pipeline_tag) == ("mit", "iekd", "image-classification")
    assert {"image-classification", "knowledge-distillation", "iekd", "resnet8", "ie-ft"} <= set(data.tags)
    (result,) = data.eval_results
    assert (result.metric_type, result.metric_value) == ("accuracy", round(card.accuracy, 2))
    assert (result.task_type, result.dataset_split) == ("image-classification", "test")
    low, high = result.metric_args["confidence_interval_95"]
    assert low < card.accuracy <= high
    assert data.datasets is None, "the publisher's own pictures are no dataset of the Hub"


def test_without_a_licence_none_is_claimed(readme):
    text = readme()
    assert "license:" not in text
    assert "No licence was stated." in text


def test_the_results_are_those_of_the_run(readme, finished):
    text, report = readme(), finished[0].report
    assert verdict(report) in text
    for learner in report["learners"]:
        assert f"| {learner['method']} | 2 |" in text
    assert f"{report['teacher']['accuracy']:.2f}" in text
    assert f"the {report['test_images']:,} test images" in text


def made_up(difference):
    """A report of ten seeds whose IE student is so many points above the baseline."""
    learners = [
        {"method": method, "seed": seed, "accuracy_last": 80 + seed % 3 + add + (seed % 2) / 5, "params": 1000}
        for method, add in (("baseline", 0), ("ie-ft", difference)) for seed in range(10)
    ]  # fmt: skip
    return {
        "teacher": None, "learners": learners, "test_images": 10_000, "train_images": 100, "versions": {},
        "device": "cpu", "guess": 10.0, "config": {},
    }  # fmt: skip


CARD = ModelCard(
    "resnet8",
    ("cifar10",),
    ("a_b", "c*"),
    3,
    32,
    (0.5,) * 3,
    (0.2,) * 3,
    80.0,
    1000,
    method="ie-ft",
    command="iekd train",
)


@pytest.mark.parametrize(("difference", "said"), [(-2, "below"), (2, "above")])
def test_a_loss_is_told_as_plainly_as_a_gain(difference, said):
    report = made_up(difference)
    text = student_readme("ann/x", CARD, report, "", set(), [])
    assert verdict(report) in text
    assert said in verdict(report)
    assert f"| {difference:+.2f} " in text


def test_names_of_classes_are_text_and_no_markdown():
    assert "a\\_b, c\\*" in student_readme("ann/x", CARD, None, "", set(), [])


def test_datasets_of_the_hub_are_linked():
    from huggingface_hub import ModelCard as HubCard

    assert HubCard(student_readme("ann/x", CARD, None, "", set(), [])).data.datasets == ["uoft-cs/cifar10"]


def test_only_what_lies_beside_it_is_spoken_of():
    without = student_readme("ann/x", CARD, None, "", set(), [])
    assert "onnxruntime" not in without
    assert "iekd predict hf:ann/x " in without
    assert "curves.png" not in without
    both = student_readme("ann/x", CARD, None, "", {"model.onnx", "curves.png"}, ["It stopped early."])
    assert "onnxruntime" in both
    assert "![" in both
    assert "- It stopped early." in both


def test_the_picture_shows_a_line_for_every_method(finished):
    image = np.asarray(Image.open(io.BytesIO(curves_png(finished[0]))).convert("RGB")).reshape(-1, 3)
    from iekd.config.methods import METHODS

    for method in ("baseline", "ie-ft"):
        colour = METHODS[method].colour[0].lstrip("#")
        wanted = [int(colour[i : i + 2], 16) for i in (0, 2, 4)]
        assert (image == wanted).all(1).sum() > 1000, f"no line in the colour of {method}"


def test_a_run_without_curves_has_no_picture(launcher, tiny_config):
    from iekd.runs.store import released

    run, handle = launcher.store.create(tiny_config())
    with released(handle):
        assert curves_png(run) is None


def test_a_model_by_itself_has_a_card(finished, no_export):
    model = finished[0].model_folders["teacher"]
    with gathered("student", "ann/pets", model=model) as contents:
        text = contents.files["README.md"].decode()
        assert json.loads(contents.files["iekd.json"])["run"] == ""
    assert "It is the teacher of a run." in text
    assert "## Results" in text
