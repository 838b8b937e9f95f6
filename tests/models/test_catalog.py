from __future__ import annotations

import itertools

import pytest

from iekd.config.run import make_config
from iekd.errors import UserError
from iekd.models.aliases import ALIASES, former
from iekd.models.catalog import check_model, known_models, model_info, model_name, models
from iekd.models.write_catalog import measure_own

GROWING = [
    ["resnet8", "resnet14", "resnet20", "resnet32", "resnet44", "resnet56", "resnet110"],
    ["resnet8x4", "resnet32x4"],
    ["resnet20-a", "resnet32-a", "resnet44-a", "resnet56-a", "resnet110-a"],
    ["wrn-16-1", "wrn-40-1"],
    ["wrn-16-1", "wrn-16-2"],
    ["wrn-16-2", "wrn-28-2", "wrn-40-2"],
    ["wrn-28-2", "wrn-28-4", "wrn-28-10"],
    ["vgg8-crd", "vgg11-crd", "vgg13-crd", "vgg16-crd", "vgg19-crd"],
    ["shufflenet-v1-crd", "shufflenet-v2-crd"],
    ["resnet18-cifar", "resnet34-cifar", "resnet50-cifar"],
]


def test_the_catalog_says_what_the_networks_measure():
    assert measure_own() == list(models().values())


def test_multiplications_of_resnet20():
    """40.8 million for a 32 x 32 image: counted by hand, layer by layer, projections included."""
    macs = 9 * 3 * 16 * 32**2
    for a, c, side in ((16, 16, 32), (16, 32, 16), (32, 64, 8)):
        macs += 9 * a * c * side**2 + 5 * 9 * c * c * side**2 + (a * c * side**2 if a != c else 0)
    assert models()["resnet20"].macs == macs + 64 * 10


@pytest.mark.parametrize("names", GROWING)
def test_sizes_grow_with_depth_and_width(names):
    for less, more in itertools.pairwise(models()[name] for name in names):
        assert less.macs < more.macs
        assert less.params_base < more.params_base
        assert less.activations < more.activations or names[0] == "shufflenet-v1-crd"


def test_networks_are_listed_by_family_small_to_large():
    wide = ["wrn-16-1", "wrn-40-1", "wrn-16-2", "wrn-28-2", "wrn-40-2", "wrn-28-4", "wrn-28-10"]
    assert wide == sorted(wide, key=lambda name: models()[name].params_base)
    crd = [*GROWING[7], "mobilenet-v2-crd", *GROWING[8]]
    assert known_models() == [*GROWING[0], *GROWING[1], *GROWING[2], *wide, *crd, *GROWING[9]]


def test_the_last_stage_is_the_feature():
    info = models()["mobilenet-v2-crd"]
    assert (info.stage_channels, info.stage_strides) == ((12, 16, 48, 1280), (2, 4, 8, 16))
    assert (info.feature_channels, info.feature_stride) == (1280, 16)


def test_unknown_names_are_refused(refuses):
    refuses(lambda: check_model("resnet1110"), "resnet1110", "resnet110")


@pytest.mark.parametrize("name", ["resnet101", "resnet152", "ResNet101", "wide_resnet50_2", "resnext50_32x4d"])
def test_an_imagenet_network_that_is_not_here_gets_those_of_its_design(name):
    """resnet110 is a CIFAR network: it has nothing to do with resnet101 but its name."""
    with pytest.raises(UserError) as error:
        check_model(name)
    assert "'resnet110'" not in str(error.value)
    assert f"'torchvision:{name.lower()}'" in str(error.value)
    shapes = {model_info(m).stage_strides for m in ("resnet18", "resnet34", "resnet50")}
    assert shapes == {(4, 8, 16, 32)} != {model_info("resnet110").stage_strides}


def test_a_long_name_is_refused_at_once(refuses):
    """Strangers may send one to a public page; looking at it must not keep the server busy."""
    refuses(lambda: check_model("resnet50" + "_a" * 5000 + "!"), "Unknown model")


def test_old_names_are_aliases_that_lists_do_not_have():
    """They work where a name is given, and mean the same network; only names that tell what it is are listed."""
    assert not set(ALIASES) & set(known_models())
    for old, name in ALIASES.items():
        assert check_model(old) == check_model(name) == name
        assert model_name(old) == model_name(name)
        assert former(name) == old
    assert make_config(teacher="vgg13", student="mobilenet-v2").student == "mobilenet-v2-crd"
    assert model_info("vgg8") == model_info("vgg8-crd")
    assert model_name("resnet18") == "resnet18 (torchvision)"
    assert model_name("vgg8") == "VGG-8 (CRD)"
