"""Before a run starts, the command line and the page list the classes with their counts, and the notes on the files."""

from __future__ import annotations

from io import BytesIO

import pytest
from PIL import Image

from iekd import data
from iekd.cli.messages import say_estimate
from iekd.config.run import make_config
from iekd.results.dataset_words import class_lines
from iekd.runs.prepare import prepare
from iekd.runs.store import Store


@pytest.fixture
def folder(tmp_path):
    """3 images of 'ant' and 5 of 'bee' to train on, 2 of each to test on; one of these is a copy."""
    content = b""
    for k, (path, count) in enumerate({"train/ant": 3, "train/bee": 5, "test/ant": 2, "test/bee": 2}.items()):
        (tmp_path / "own" / path).mkdir(parents=True)
        for i in range(count):
            file = BytesIO()
            Image.new("RGB", (8, 8), (40 * i, 50 * k, 9)).save(file, "PNG")
            content = content or file.getvalue()
            (tmp_path / "own" / path / f"{i}.png").write_bytes(file.getvalue())
    (tmp_path / "own" / "test/ant/1.png").write_bytes(content)
    return tmp_path / "own"


def test_classes_and_notes_are_said_before_the_start(folder, tmp_path, capsys):
    config = make_config(dataset=f"folder:{folder}", teacher="none", methods="baseline", student="resnet8")
    say_estimate(prepare(config, tmp_path / "runs"), Store(tmp_path / "runs"))
    said = capsys.readouterr().err
    assert "class 0 ant: 3 to train, 2 to test\n" in said
    assert "class 1 bee: 5 to train, 2 to test\n" in said
    assert "Note: 1 of 4 test images is an exact copy of a training image ('1.png')" in said
    assert said.index("class 0") < said.index("Estimate:")


def test_the_page_lists_them_too(folder, tmp_path):
    from iekd.ui.tabs.forecast import forecast_html

    config = make_config(dataset=f"folder:{folder}", teacher="none", methods="baseline", student="resnet8")
    card = forecast_html(prepare(config, tmp_path / "runs"), Store(tmp_path / "runs"))
    assert "<li>1 bee: 5 to train, 2 to test</li>" in card
    assert "1 of 4 test images is an exact copy" in card


def test_many_classes_are_cut_short_and_uncounted_ones_left_out():
    info = data.DatasetInfo(
        "x:y", "y", 40, 40, 40, 3, 32, class_names=tuple(f"c{i}" for i in range(40)), class_sizes=(1,) * 40,
        test_sizes=(1,) * 40,
    )  # fmt: skip
    lines = class_lines(info)
    assert (len(lines), lines[-1]) == (30, "and 11 more classes")
    assert class_lines(data.describe("cifar100")) == []
