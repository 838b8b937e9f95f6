"""Where the predictions for a whole test set come from: answers.csv, the saved models, what was stored before."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from iekd import data
from iekd.cli.main import app
from iekd.errors import UserError
from iekd.inference.classifier import open_classifier
from iekd.results.test_set import analyse
from iekd.runs import test_set
from iekd.runs.models import demo_models
from iekd.runs.store import TEST_SET, Store
from iekd.runs.test_set import NOT_YET, predicted_set, read_images
from iekd.runs.transfer import files_of


@pytest.fixture
def store(finished, tmp_path):
    """A folder of runs with a copy of the finished run, to be changed."""
    run, _ = finished
    shutil.copytree(run.path, tmp_path / run.id)
    return Store(tmp_path)


@pytest.fixture
def run(store):
    return store.list()[0]


def test_predictions_are_those_of_the_report(store, run):
    found = predicted_set(store, run.id, compute=False)
    assert list(found.predictions) == ["teacher", "baseline", "ie-ft"]
    assert (found.confidences, found.without) == ({}, NOT_YET)
    for learner in run.report["learners"]:
        of_seed = predicted_set(store, f"{run.id}/{learner['seed']}", compute=False)
        accuracy = 100 * (of_seed.predictions[learner["method"]] == of_seed.labels).mean()
        assert accuracy == pytest.approx(learner["accuracy_last"])
    with pytest.raises(UserError, match="no students of seed '7'"):
        predicted_set(store, f"{run.id}/7")


def test_probabilities_are_computed_once_and_again_after_the_weights_changed(store, run, monkeypatch):
    found = predicted_set(store, run.id)
    assert set(found.confidences) == {"teacher", "baseline", "ie-ft"}
    for sure in found.confidences.values():
        assert ((sure > 1 / 3) & (sure <= 1)).all(), "the largest of three probabilities"
    assert analyse(found).calibration.keys() == found.confidences.keys()
    assert not [path for path in files_of(run, True) if TEST_SET in str(path)], "it stays on this machine"

    asked = []
    predict = test_set._predict
    monkeypatch.setattr(test_set, "_predict", lambda folder, data: asked.append(folder.name) or predict(folder, data))
    again = predicted_set(store, run.id, compute=False)
    np.testing.assert_array_equal(again.confidences["ie-ft"], found.confidences["ie-ft"])
    assert asked == []
    shutil.copy(run.path / "models/ie-ft-seed1/model.safetensors", run.path / "models/ie-ft-seed0/model.safetensors")
    predicted_set(store, run.id)
    assert asked == ["ie-ft-seed0"]
    (run.path / TEST_SET / "teacher.npz").write_bytes(b"not a file of arrays")
    predicted_set(store, run.id)
    assert asked == ["ie-ft-seed0", "teacher"]


def test_a_run_without_answers_is_predicted_with_its_models(store, run):
    stored = predicted_set(store, run.id, compute=False)
    (run.path / "answers.csv").unlink()
    assert predicted_set(store, run.id, compute=False) is None
    found = predicted_set(store, run.id)
    assert found.class_names == stored.class_names
    assert found.images == stored.images
    for name, predictions in stored.predictions.items():
        np.testing.assert_array_equal(found.predictions[name], predictions)
    rows = [0, 5]
    for one, other in zip(
        read_images(store, run.id, found, rows), read_images(store, run.id, stored, rows), strict=True
    ):
        np.testing.assert_array_equal(one, other)


def test_wrong_labels_of_a_run_are_found(store, run):
    path = run.path / "answers.csv"
    with open(path, newline="") as file:
        header, *rows = csv.reader(file)
    for i, row in enumerate(rows):
        row[2:] = [row[1]] * len(row[2:])  # all models are right
        if i in (3, 40):
            row[2:] = ["green" if row[1] != "green" else "blue"] * len(row[2:])
    with open(path, "w", newline="") as file:
        csv.writer(file).writerows([header, *rows])
    found = analyse(predicted_set(store, run.id, compute=False))
    assert [m.row for m in found.suspicious] == [3, 40]


def test_images_are_those_of_their_rows_and_gone_ones_are_none(store, run, tiny, picture_folder, tmp_path):
    found = predicted_set(store, run.id, compute=False)
    images = read_images(store, run.id, found, range(len(found.labels)))
    assert {im.tobytes() for im in images} == {im.tobytes() for im in tiny.test.images}
    for row, image in enumerate(images):
        (match,) = [i for i, known in enumerate(tiny.test.images) if (known == image).all()]
        assert tiny.class_names[tiny.test.labels[match]] == found.class_names[found.labels[row]]
    config = json.loads((run.path / "config.json").read_text())
    outside = tmp_path / "other"
    outside.mkdir()
    config["dataset"] = f"folder:{outside}"
    (run.path / "config.json").write_text(json.dumps(config))
    assert read_images(store, run.id, found, [0, 1]) == [None, None]
    later = predicted_set(store, run.id)
    assert later.labels.tolist() == found.labels.tolist(), "the numbers are still there"
    assert later.confidences == {}
    assert later.without


def test_a_name_that_leads_out_of_the_dataset_is_not_opened(store, run, picture_folder):
    found = predicted_set(store, run.id, compute=False)
    first = str(picture_folder / found.images[0])
    object.__setattr__(found, "images", (f"../{picture_folder.name}-not/../{found.images[0]}", first, "../../x.png"))
    inside = read_images(store, run.id, found, [1])
    assert inside[0] is not None, "an absolute name within the folder"
    assert read_images(store, run.id, found, [0, 2]) == [None, None]


def test_the_command_prints_and_gives_json(store, run):
    args = ["test-set", run.id, "--runs-dir", str(store.root)]
    said = json.loads(CliRunner().invoke(app, [*args, "--bins", "5", "--models", "teacher,ie-ft", "--json"]).stdout)
    assert (said["first"], said["second"], said["images"]) == ("teacher", "ie-ft", 60)
    assert len(said["calibration"]["ie-ft"]["bins"]) == 5
    assert np.array(said["difference"]).sum() == 0
    printed = CliRunner().invoke(app, args)
    assert printed.exit_code == 0
    assert "Calibration (ECE over 15 bins" in printed.stdout
    for wrong, why in ((["--models", "teacher"], "Name two models"), (["--bins", "0"], "from 1 to")):
        refused = CliRunner().invoke(app, [*args, *wrong])
        assert refused.exit_code == 2
        assert why in refused.output


def test_the_shipped_predictions_are_those_of_the_shipped_networks(store, monkeypatch, tmp_path):
    monkeypatch.setenv("IEKD_CHECKPOINTS_DIR", str(Path(__file__).parents[2] / "checkpoints"))
    monkeypatch.setenv("IEKD_CACHE_DIR", str(tmp_path))
    found = predicted_set(store, "", compute=False)
    dataset = data.load("fashion-mnist-sample")
    for name, folder in demo_models().items():
        classifier = open_classifier(folder)
        right = found.predictions[name] == found.labels
        assert 100 * right.mean() == pytest.approx(classifier.card.accuracy)
        asked = classifier.probabilities(dataset.test.images[:40])
        assert found.predictions[name][:40].tolist() == asked.argmax(1).tolist()
        np.testing.assert_allclose(found.confidences[name][:40], asked.max(1), atol=1e-3)
    (image,) = read_images(store, "", found, [9])
    np.testing.assert_array_equal(image, dataset.test.images[9])
