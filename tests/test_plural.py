"""Numbers agree with their words, in the helper and in sentences that users see."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import iekd
from iekd.plural import counted


@pytest.mark.parametrize(
    ("number", "words", "said"),
    [
        (1, ("image",), "1 image"), (0, ("image",), "0 images"), (1234, ("test image",), "1,234 test images"),
        (1, ("class",), "1 class"), (2, ("class",), "2 classes"), (2, ("epoch",), "2 epochs"),
        (1, ("run is", "runs are"), "1 run is"), (3, ("run is", "runs are"), "3 runs are"),
    ],
)  # fmt: skip
def test_a_number_and_its_word_agree(number, words, said):
    assert counted(number, *words) == said


def test_no_file_builds_plurals_of_its_own():
    own = re.compile(r"""['"](e?s|ies)['"] (if|\*) """)
    found = [path for path in Path(iekd.__file__).parent.rglob("*.py") if own.search(path.read_text())]
    assert [path.name for path in found] == [], "use iekd.plural"
