"""answers.csv is written for others, who may open it with anything, and read again."""

from __future__ import annotations

import csv
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from iekd.data.base import Dataset, Split
from iekd.results.predictions import read_right, write_answers


@pytest.fixture
def written(tmp_path):
    """Classes whose names a spreadsheet would compute, and two networks, one of which is right about one image."""
    names = ("=1+1", "-2", "@x", "plain")
    split = Split(np.zeros((4, 8, 8, 3), np.uint8), np.arange(4))
    dataset = Dataset("made up", names, split, split)
    teacher = SimpleNamespace(name="teacher", predictions=torch.arange(4))
    student = SimpleNamespace(name="kd-seed0", predictions=torch.tensor([3, 0, 1, 3]))
    path = tmp_path / "answers.csv"
    write_answers(path, SimpleNamespace(teacher=teacher, learners=[student]), dataset)
    return path


def test_no_name_becomes_a_formula(written):
    with open(written, newline="") as file:
        rows = list(csv.reader(file))
    assert rows[1] == ["0", "'=1+1", "'=1+1", "plain"]
    assert not any(cell.startswith(("=", "+", "-", "@")) for row in rows for cell in row)


def test_what_is_right_is_read_from_it(written):
    found = read_right(written)
    assert found.images == [("0", "'=1+1"), ("1", "'-2"), ("2", "'@x"), ("3", "plain")]
    assert found.right["teacher"].tolist() == [True] * 4
    assert found.right["kd-seed0"].tolist() == [False, False, False, True]


@pytest.mark.parametrize("text", [None, "", "image,class,kd-seed0\n1\n", b"\xff\xfe\x00"])
def test_an_unreadable_file_gives_none(tmp_path, text):
    path = tmp_path / "answers.csv"
    if text is not None:
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
    assert read_right(path) is None
