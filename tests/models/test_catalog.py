from __future__ import annotations

import itertools

import pytest

from iekd.models.catalog import check_model, known_models, measure, models
from iekd.models.registry import build


def test_the_catalog_says_what_the_networks_measure():
    assert measure() == list(models().values())


@pytest.mark.parametrize(("channels", "classes"), [(1, 10), (3, 100), (4, 2)])
def test_parameters_follow_from_the_catalog(channels, classes):
    for name in ("resnet8", "resnet20"):
        assert models()[name].params(channels, classes) == sum(
            p.numel() for p in build(name, classes, channels).parameters()
        )


def test_multiplications_of_resnet20():
    """40.8 million for a 32 x 32 image: counted by hand, layer by layer, projections included."""
    macs = 9 * 3 * 16 * 32**2
    for a, c, side in ((16, 16, 32), (16, 32, 16), (32, 64, 8)):
        macs += 9 * a * c * side**2 + 5 * 9 * c * c * side**2 + (a * c * side**2 if a != c else 0)
    assert models()["resnet20"].macs == macs + 64 * 10


def test_sizes_grow_with_depth():
    sizes = [models()[n] for n in known_models()]
    for less, more in itertools.pairwise(sizes):
        assert less.macs < more.macs
        assert less.params_base < more.params_base
        assert less.activations < more.activations


def test_unknown_names_are_refused(refuses):
    refuses(lambda: check_model("resnet1110"), "resnet1110", "resnet110")
