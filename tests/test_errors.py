from __future__ import annotations

import pytest

from iekd.errors import DataError, RunError, UserError, unknown_name


@pytest.mark.parametrize(
    ("value", "hint"), [("resnet21", "Did you mean 'resnet20'?"), ("ResNet8", "Did you mean 'resnet8'?")]
)
def test_a_misspelt_name_gets_the_closest(value, hint):
    text = str(unknown_name("model", value, ["resnet8", "resnet20"]))
    assert text == f"Unknown model '{value}'. {hint}"


def test_a_name_far_from_all_gets_the_whole_list():
    text = str(unknown_name("model", "zebra", ["resnet8", "resnet20"]))
    assert text == "Unknown model 'zebra'. Choose one of: resnet8, resnet20."


def test_known_names_may_come_from_a_generator():
    assert "one, two" in str(unknown_name("thing", "zzz", (n for n in ("one", "two"))))


@pytest.mark.parametrize("kind", [DataError, RunError])
def test_every_kind_is_a_user_error_and_a_value_error(kind):
    assert issubclass(kind, UserError)
    assert issubclass(kind, ValueError)
