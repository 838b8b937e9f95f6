from __future__ import annotations

import pytest

from iekd.errors import DataError, RunError, UserError, unknown_name

NAMES = ["resnet8", "resnet20", "resnet110", "vgg19", "mobilenet-v2", "baseline"]


@pytest.mark.parametrize(
    ("value", "meant"),
    [
        ("resnet-20", "resnet20"), ("ResNet8", "resnet8"), ("resent110", "resnet110"), ("vgg19_bn", "vgg19"),
        ("MobileNet_V2", "mobilenet-v2"), ("basline", "baseline"),
    ],
)  # fmt: skip
def test_a_misspelt_name_gets_the_closest(value, meant):
    assert str(unknown_name("model", value, NAMES)) == f"Unknown model '{value}'. Did you mean '{meant}'?"


@pytest.mark.parametrize(
    ("value", "there"),
    [
        ("resnet101", "are: resnet8, resnet20, resnet110"), ("resnet21", "are: resnet8, resnet20, resnet110"),
        ("resnet", "are: resnet8, resnet20, resnet110"), ("mobilenet_v3_small", "is: mobilenet-v2"),
        ("vgg91", "is: vgg19"),
    ],
)  # fmt: skip
def test_another_number_is_no_misspelling(value, there):
    """A network of that size is another network: what there is of the kind is listed, and none is put forward."""
    assert str(unknown_name("model", value, NAMES)) == f"Unknown model '{value}'. Of this kind there {there}."


@pytest.mark.parametrize(
    ("value", "says"),
    [
        ("lib:DTDD", "Did you mean 'lib:DTD'?"), ("lib:flowers", "Did you mean 'lib:Flowers102'?"),
        ("lib:vit", "Of this kind there are: lib:vit_b, lib:vit_l."), ("lib:VIT_B", "Did you mean 'lib:vit_b'?"),
        ("lib:voc", "Choose one of:"), ("libb:DTD", "Did you mean 'lib:DTD'?"),
    ],
)  # fmt: skip
def test_capitals_and_the_prefix_of_a_library_make_no_name_more_like_another(value, says):
    known = ["lib:DTD", "lib:Flowers102", "lib:max_vit", "lib:vit_b", "lib:vit_l"]
    assert says in str(unknown_name("dataset", value, known))


@pytest.mark.parametrize("value", ["densenet121", "efficientnet_b0", "", "20"])
def test_what_is_like_nothing_gets_the_whole_list(value):
    assert str(unknown_name("model", value, NAMES)).endswith(f"Choose one of: {', '.join(NAMES)}.")


def test_a_name_far_from_all_gets_the_whole_list():
    text = str(unknown_name("model", "zebra", ["resnet8", "resnet20"]))
    assert text == "Unknown model 'zebra'. Choose one of: resnet8, resnet20."


def test_known_names_may_come_from_a_generator():
    assert "one, two" in str(unknown_name("thing", "zzz", (n for n in ("one", "two"))))


@pytest.mark.parametrize("kind", [DataError, RunError])
def test_every_kind_is_a_user_error_and_a_value_error(kind):
    assert issubclass(kind, UserError)
    assert issubclass(kind, ValueError)
