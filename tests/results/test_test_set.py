"""What is said of two models on a test set, against numbers computed by hand and wrong labels put in on purpose."""

from __future__ import annotations

import doctest
import json

import numpy as np
import pytest

from iekd.errors import UserError
from iekd.results import calibration as calibration_module
from iekd.results import confusion, mistakes, test_set
from iekd.results.calibration import calibration
from iekd.results.confusion import cell_rows, confusion_matrix, most_confused, per_class
from iekd.results.mistakes import confident_mistakes, suspicious_labels
from iekd.results.predictions import original
from iekd.results.test_set import TestSetPredictions, analyse, default_pair

LABELS = np.array([0, 0, 0, 1, 1, 2])
PLAIN = np.array([0, 1, 1, 1, 0, 2])
IE = np.array([0, 0, 1, 1, 1, 0])


@pytest.mark.parametrize("module", [confusion, calibration_module, mistakes, test_set], ids=lambda m: m.__name__)
def test_the_examples_are_true(module):
    found = doctest.testmod(module, extraglobs={"np": np})
    assert found.attempted
    assert found.failed == 0, "pytest shows above what differs"


def test_a_matrix_has_the_right_class_in_rows_and_the_predicted_in_columns():
    matrix = confusion_matrix(LABELS, PLAIN, 4)  # the last class has no images
    assert matrix.tolist() == [[1, 2, 0, 0], [1, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 0]]
    assert matrix.sum() == len(LABELS)


def test_the_pairs_that_change_most_come_first_and_the_diagonal_is_none_of_them():
    plain, ie = (confusion_matrix(LABELS, p, 3) for p in (PLAIN, IE))
    pairs = most_confused(plain, ie, 10)
    assert [(p.label, p.predicted, p.first, p.second, p.change) for p in pairs] == [
        (0, 1, 2, 1, -1), (1, 0, 1, 0, -1), (2, 0, 0, 1, 1),
    ]  # fmt: skip
    assert most_confused(plain, ie, 1) == pairs[:1]
    assert most_confused(np.diag([3, 4]), np.diag([3, 4]), 5) == []


def test_classes_are_sorted_by_gain_and_those_without_images_are_last():
    plain, ie = (confusion_matrix(LABELS, p, 4) for p in (PLAIN, IE))
    rows = per_class(plain, ie)
    assert [row.label for row in rows] == [1, 0, 2, 3]
    assert (rows[0].first, rows[0].second, rows[0].gain) == (50.0, 100.0, 50.0)
    assert rows[1].gain == pytest.approx(100 / 3)
    assert rows[2].gain == -100.0
    assert (rows[3].images, rows[3].gain) == (0, None)


def test_the_images_of_a_cell_are_told_apart_by_model():
    only_plain, only_ie, both = cell_rows(LABELS, PLAIN, IE, 0, 1)
    assert (only_plain.tolist(), only_ie.tolist(), both.tolist()) == ([1], [], [2])
    assert [rows.tolist() for rows in cell_rows(LABELS, PLAIN, IE, 0, 0)] == [[], [1], [0]]


def test_ece_is_that_of_a_calculation_by_hand():
    """Bins of width 0.25. (0.25, 0.5]: 0.3 wrong and 0.5 right, means 0.4 and 0.5. (0.5, 0.75]: 0.75 right.
    (0.75, 1]: 1.0, 0.9, 0.8 with two right, means 0.9 and 2/3. ECE = (2 * 0.1 + 1 * 0.25 + 3 * (0.9 - 2/3)) / 6."""
    sure = np.array([0.3, 0.5, 0.75, 1.0, 0.9, 0.8])
    right = np.array([False, True, True, True, True, False])
    found = calibration(sure, right, 4)
    assert [b.images for b in found.bins] == [0, 2, 1, 3]
    assert found.ece == pytest.approx((2 * 0.1 + 0.25 + 3 * (0.9 - 2 / 3)) / 6)
    assert found.bins[0].confidence is None
    assert found.bins[1].accuracy == 0.5
    assert found.bins[3].confidence == pytest.approx(0.9)
    assert (found.accuracy, found.confidence) == (pytest.approx(4 / 6), pytest.approx(4.25 / 6))
    assert found.overconfident


def test_ece_is_nothing_for_a_model_that_is_always_as_right_as_sure_and_one_for_the_surely_wrong():
    assert calibration(np.ones(5), np.ones(5, bool)).ece == 0
    assert calibration(np.ones(5, np.float32), np.zeros(5, bool)).ece == 1
    with pytest.raises(ValueError, match="same images"):
        calibration(np.ones(2), np.ones(3, bool))


def test_wrong_labels_that_were_put_in_are_found_and_nothing_else():
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 5, 300)
    labels = truth.copy()
    planted = np.array([7, 100, 250])
    labels[planted] = (truth[planted] + 1) % 5
    predictions, sure = [], []
    for model in range(3):
        said = truth.copy()
        own = np.arange(model, 300, 17) + 20  # each model makes mistakes of its own kind
        own = own[(own < 300) & ~np.isin(own, planted)]
        said[own] = (truth[own] + model + 1) % 5
        predictions.append(said)
        sure.append(np.where(np.arange(300) == 100, 0.99, 0.9))
    found = suspicious_labels(labels, predictions, sure)
    assert [m.row for m in found] == [100, 7, 250], "the surest first"
    assert [(m.label, m.predicted) for m in found] == [(labels[m.row], truth[m.row]) for m in found]
    assert [m.row for m in suspicious_labels(labels, predictions)] == [7, 100, 250]
    with pytest.raises(ValueError, match="one network"):
        suspicious_labels(labels, predictions[:1])


def test_confident_mistakes_are_wrong_and_sorted():
    sure = np.array([0.99, 0.6, 0.9, 0.99, 0.7, 0.99])
    found = confident_mistakes(LABELS, PLAIN, sure, 2)
    assert [(m.row, m.confidence) for m in found] == [(2, 0.9), (4, 0.7)]


def predicted(**confidences):
    said = {"teacher": LABELS, "baseline": PLAIN, "ie-ft": IE}
    return TestSetPredictions(
        ("a", "b", "c"), LABELS, tuple("012345"), said, confidences, "" if confidences else "no images"
    )


def test_an_analysis_compares_the_plain_with_the_ie_student_unless_others_are_named():
    found = analyse(predicted())
    assert (found.first, found.second) == ("baseline", "ie-ft")
    assert found.difference.sum() == 0
    assert found.calibration == found.mistakes == {}
    assert [m.row for m in found.suspicious] == [], "the teacher is always right here"
    assert analyse(predicted(), "ie-ft").second == "baseline"
    assert analyse(predicted(), second="baseline").first == "ie-ft"
    without_teacher = TestSetPredictions(("a", "b", "c"), LABELS, tuple("012345"), {"baseline": PLAIN, "ie-ft": IE})
    assert [m.row for m in analyse(without_teacher).suspicious] == [2]
    said = json.loads(json.dumps(found.to_json()))
    assert said["confusion"]["baseline"][0] == [1, 2, 0]
    assert (said["without"], said["calibration"]) == ("no images", {})


@pytest.mark.parametrize(("first", "second", "said"), [("kd", "", "no model 'kd'"), ("ie-ft", "ie-ft", "named twice")])
def test_models_that_cannot_be_compared_are_named(first, second, said):
    with pytest.raises(UserError, match=said):
        analyse(predicted(), first, second)


def test_two_models_are_needed():
    with pytest.raises(UserError, match="only 'teacher'"):
        default_pair(["teacher"])


def test_confidences_give_calibration_and_mistakes():
    sure = dict.fromkeys(("teacher", "baseline", "ie-ft"), np.full(6, 0.5, np.float32))
    found = analyse(predicted(**sure), bins=3)
    assert found.calibration["teacher"].ece == 0.5
    assert len(found.calibration["teacher"].bins) == 3
    assert set(found.mistakes) == {"baseline", "ie-ft"}
    assert found.to_json()["mistakes"]["baseline"][0] == {
        "row": 1, "image": "1", "class": "a", "predicted": "b", "confidence": 0.5,
    }  # fmt: skip


@pytest.mark.parametrize(("stored", "name"), [("'=1.png", "=1.png"), ("'a.png", "'a.png"), ("b.png", "b.png")])
def test_a_file_name_is_read_back_as_it_was(stored, name):
    assert original(stored) == name
