"""Right or wrong, against counting by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from iekd.engine.scoring import accuracy, batch_accuracy, class_accuracy, is_right, percent, predicted
from iekd.errors import DivergedError, TrainingError, UserError

LOGITS = [[2.0, 1.0, 0.0], [0.0, 3.0, 1.0], [5.0, 1.0, 2.0], [0.0, 1.0, 2.0]]  # predicts 0, 1, 0, 2
LABELS = [0, 1, 1, 2]


@pytest.mark.parametrize("array", [np.array, torch.tensor], ids=["numpy", "torch"])
def test_three_of_four_are_right(array):
    labels = array(LABELS)
    right = is_right(predicted(array(LOGITS)), labels)
    assert right.tolist() == [True, True, False, True]
    assert accuracy(right) == 75.0
    assert class_accuracy(right, labels, 4) == [100.0, 50.0, 100.0, None]


def test_a_batch_of_several_students_has_one_accuracy_for_each():
    one, labels = torch.tensor(LOGITS), torch.tensor(LABELS)
    assert batch_accuracy(one, labels).item() == 75.0
    assert batch_accuracy(torch.stack([one, one.flip(1)]), labels).tolist() == [75.0, 25.0]


def test_every_count_gives_the_number_that_the_mean_in_double_precision_gives():
    """Accuracies of runs were computed as such a mean; reports of then and now are compared to the last digit."""
    for images in (60, 97, 1000):
        for correct in range(images + 1):
            right = torch.arange(images) < correct
            assert accuracy(right) == percent(correct, images) == right.double().mean().item() * 100


def test_a_training_that_diverged_would_do_so_again_and_others_may_not():
    assert DivergedError("x").would_repeat
    assert not TrainingError("x").would_repeat
    assert isinstance(DivergedError("x"), TrainingError)
    assert isinstance(TrainingError("x"), UserError)
