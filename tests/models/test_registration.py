"""Networks that are registered from outside of the package: measured, checked, and trained like ours."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from iekd.config.methods import METHODS, logits_only_methods
from iekd.config.run import make_config
from iekd.engine.events import Result
from iekd.engine.experiment import Experiment
from iekd.errors import UserError
from iekd.models import catalog
from iekd.models.artifact import ModelCard, load_model, save_model
from iekd.models.catalog import known_models, model_info, models
from iekd.models.features import Features
from iekd.models.registry import BUILDERS, build, builders, register
from iekd.runs.prepare import prepare
from iekd.runs.store import Store
from iekd.ui.rights.access import Access


class Net(nn.Module):
    """A plain module: its second map is twice as wide as high, its first larger than the image."""

    def __init__(self, num_classes: int, channels: int, width: int = 6) -> None:
        super().__init__()
        self.up = nn.ConvTranspose2d(channels, width, 2, 2)
        self.conv = nn.Conv2d(width, 2 * width, 3, (8, 4), 1)
        self.fc = nn.Linear(2 * width, num_classes)

    def forward(self, images):
        first = F.relu(self.up(images))
        last = F.relu(self.conv(first))
        pooled = last.mean((2, 3))
        return Features(self.fc(pooled), (first, last), None, pooled)


pytestmark = pytest.mark.usefixtures("forgotten")


@pytest.fixture
def odd_net():
    @register
    def odd_net(num_classes, channels):
        return Net(num_classes, channels)

    return "odd-net"


def test_a_registered_network_is_measured(odd_net):
    info, count = model_info(odd_net), sum(p.numel() for p in Net(7, 1).parameters())
    assert info.params(1, 7) == count
    assert info.params(3, 10) == sum(p.numel() for p in build(odd_net, 10).parameters())
    assert info.macs == 3 * 6 * 4 * 32**2 + 9 * 6 * 12 * 8 * 16 + 12 * 10, "both convolutions and the classifier, at 32"
    assert info.stage_channels == (6, 12)
    assert info.stage_strides == (1, 3), "the larger map counts as one of the image's size; 4 and 2 make about 3"
    assert not info.has_margins
    assert not info.has_pre_activations


def test_it_is_listed_after_ours(odd_net):
    assert known_models()[-1] == list(builders())[-1] == odd_net
    assert known_models()[:-1] == list(catalog.own_models())
    assert odd_net in models()
    assert len(models()) == len(known_models())


def test_listing_names_measures_nothing():
    @register
    def never_built(num_classes, channels):
        raise AssertionError("built")

    assert "never-built" in known_models()
    make_config(student="never-built", teacher="none", methods=("baseline",))


def test_measuring_happens_once_and_draws_no_numbers():
    built = []

    @register
    def stubborn(num_classes, channels):
        """It cannot be built without numbers."""
        built.append(torch.zeros(1).item())
        return Net(num_classes, channels)

    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    assert model_info("stubborn").stage_channels == (6, 12)
    once = len(built)
    assert model_info("stubborn") is model_info("stubborn")
    assert len(built) == once
    assert torch.equal(torch.rand(3), expected)


def test_a_network_for_large_images_is_measured_on_them():
    class Large(Net):
        def forward(self, images):
            if images.shape[-1] < 100:
                raise ValueError("too small")
            return super().forward(images)

    @register
    def large(num_classes, channels):
        return Large(num_classes, channels)

    @register
    def usual(num_classes, channels):
        return Net(num_classes, channels)

    info, same = model_info("large"), model_info("usual")
    assert info.stage_strides == same.stage_strides
    assert info.macs == pytest.approx(same.macs, rel=0.01), "for 32 x 32, whatever was tried"


class Broken(nn.Module):
    def __init__(self, output) -> None:
        super().__init__()
        self.output, self.weight = output, nn.Parameter(torch.zeros(1))

    def forward(self, images):
        return self.output(images)


def maps(count=1, side=4):
    return tuple(torch.zeros(1, 3, side, side) for _ in range(count))


@pytest.mark.parametrize(
    ("output", "words"),
    [
        (lambda x: torch.zeros(1, 10), ["gives a Tensor instead of Features"]),
        (lambda x: Features(torch.zeros(1, 9), maps(), None, torch.zeros(1, 3)), ["(1, 9)", "(1, 10)"]),
        (lambda x: Features(torch.zeros(1, 10), (torch.zeros(1, 5, 8),), None, torch.zeros(1, 8)), ["(1, 5, 8)"]),
        (lambda x: Features(torch.zeros(1, 10), maps(2), maps(1), torch.zeros(1, 3)), ["pre_activations"]),
        (lambda x: 1 / 0, ["ZeroDivisionError", "256"]),
    ],
)
def test_a_function_that_returns_no_network_is_refused(refuses, output, words):
    @register
    def broken(num_classes, channels):
        return Broken(output)

    refuses(lambda: model_info("broken"), "'broken'", "docs/adding-a-model.md", *words)


def test_a_name_can_be_registered_once(refuses):
    def resnet20(num_classes, channels):
        return Net(num_classes, channels)

    refuses(lambda: register(resnet20), "'resnet20'", "iekd.models.resnet_cifar", "another name")
    assert BUILDERS["resnet20"] is not resnet20


def test_a_cell_may_be_run_again(odd_net):
    first = model_info(odd_net)

    @register
    def odd_net(num_classes, channels):
        return Net(num_classes, channels, width=8)

    assert model_info("odd-net").stage_channels == (8, 16) != first.stage_channels


def test_it_is_saved_and_loaded(odd_net, tmp_path):
    card = ModelCard(
        odd_net, ("tiny",), tuple("abc"), channels=3, resolution=16, mean=(0.5,) * 3, std=(0.2,) * 3, accuracy=None,
        params=0,
    )  # fmt: skip
    network, images = build(odd_net, 3).eval(), torch.rand(2, 3, 16, 16)
    save_model(tmp_path / "model", network, card)
    again, _ = load_model(tmp_path / "model")
    assert torch.equal(again(images).logits, network(images).logits)


def outcome(config, dataset) -> Result:
    *_, result = Experiment(config, dataset).events()
    return result


@pytest.mark.parametrize("pair", [("odd-net", "odd-net"), ("resnet8", "odd-net"), ("odd-net", "resnet8")])
def test_every_method_that_needs_no_pre_activations_trains_it(odd_net, tiny, tiny_config, pair):
    """As student, as teacher and as both; their maps differ in number, size and shape."""
    names = tuple(name for name in METHODS if "od" not in name)
    teacher, student = pair
    result = outcome(tiny_config(teacher=teacher, student=student, methods=names), tiny)
    assert [learner.method for learner in result.learners] == list(names)
    assert not result.diverged


@pytest.mark.parametrize("method", ["od", "ie-od", "od+kd"])
def test_od_refuses_it_in_words(odd_net, refuses, method, tmp_path):
    for pair in ((odd_net, "resnet8"), ("resnet8", odd_net)):
        config = make_config(student=pair[0], teacher=pair[1], methods=(method,), dataset="fashion-mnist-sample")
        refuses(lambda config=config: prepare(config, tmp_path), method, odd_net, "another method")


@pytest.fixture
def flat_net():
    """It has no maps: one linear layer of all pixels."""

    class Flat(nn.Module):
        def __init__(self, num_classes: int, channels: int) -> None:
            super().__init__()
            self.fc = nn.Linear(channels, num_classes)

        def forward(self, images):
            pooled = images.mean((2, 3))
            return Features(self.fc(pooled), (), None, pooled)

    @register
    def flat_net(num_classes, channels):
        return Flat(num_classes, channels)

    return "flat-net"


@pytest.mark.parametrize("pair", [("flat-net", "flat-net"), ("resnet8", "flat-net"), ("flat-net", "resnet8")])
def test_one_without_maps_learns_and_teaches_by_logits(flat_net, tiny, tiny_config, pair):
    teacher, student = pair
    result = outcome(tiny_config(teacher=teacher, student=student, methods=tuple(logits_only_methods())), tiny)
    assert [learner.method for learner in result.learners] == ["baseline", "kd", "dml", "dkd", "dist"]
    assert not result.diverged


@pytest.mark.parametrize("method", [name for name in METHODS if name not in logits_only_methods()])
def test_methods_that_compare_maps_refuse_one_without(flat_net, refuses, tmp_path, tiny, tiny_config, method):
    """Where a run is prepared, which is before Start, and in Experiment; the methods that remain are named."""
    taught = METHODS[method].needs_teacher
    for student, teacher in ((flat_net, "resnet8"), *((("resnet8", flat_net),) if taught else ())):
        values = {"student": student, "teacher": teacher, "methods": (method,)}
        for start in (
            lambda v=values: prepare(make_config(dataset="fashion-mnist-sample", **v), tmp_path),
            lambda v=values: outcome(tiny_config(**v), tiny),
        ):
            refuses(start, f"'{method}'", flat_net, "kd, dml, dkd, dist")
        with pytest.raises(UserError, match=flat_net):  # not after hours of training the teacher
            Experiment(tiny_config(**values), tiny)


def test_what_is_not_compared_needs_no_maps(flat_net, refuses, tmp_path):
    """The teacher of a method that has none, and the peer's network where no peer learns."""
    for methods in (("baseline", "ie-dml"), ("ie-dml+kd",)):  # kd looks at the teacher's logits
        config = make_config(teacher=flat_net, student="resnet8", methods=methods, peer="resnet8")
        assert prepare(config, tmp_path).config.methods == methods
    config = make_config(teacher="none", student="resnet8", methods="ie-dml", peer=flat_net)
    refuses(lambda: prepare(config, tmp_path), "ie-dml", flat_net)


def test_a_visitor_gets_the_same_refusal(flat_net, refuses, tmp_path):
    """What a run may take is checked before it is prepared."""
    access = Access(public=True, training=True)
    config = make_config(student=flat_net, teacher="resnet8", methods="ft", dataset="fashion-mnist-sample")
    refuses(lambda: access.check_size(None, config, Store(tmp_path)), "'ft'", flat_net)


def test_od_takes_one_that_has_what_it_needs(tiny, tiny_config):
    class Whole(nn.Module):
        def __init__(self, num_classes, channels):
            super().__init__()
            self.conv, self.bn = nn.Conv2d(channels, 8, 3, 2, 1, bias=False), nn.BatchNorm2d(8)
            self.fc = nn.Linear(8, num_classes)

        @property
        def stage_norms(self):
            return [self.bn]

        def forward(self, images):
            before = self.bn(self.conv(images))
            last = F.relu(before)
            pooled = last.mean((2, 3))
            return Features(self.fc(pooled), (last,), (before,), pooled)

    @register
    def whole(num_classes, channels):
        return Whole(num_classes, channels)

    assert model_info("whole").has_margins
    result = outcome(tiny_config(teacher="whole", student="whole", methods=("od", "ie-od")), tiny)
    assert [learner.method for learner in result.learners] == ["od", "ie-od"]


@pytest.mark.parametrize("reads_twice", [False, True])
def test_a_teacher_that_decides_by_its_values_teaches(tiny, tiny_config, caplog, reads_twice):
    """torch.fx cannot follow it; its batch norm is folded all the same, but where the convolution is read twice."""

    class Moody(Net):
        def __init__(self, num_classes, channels):
            super().__init__(num_classes, channels)
            self.first, self.norm = nn.Conv2d(channels, channels, 3, padding=1), nn.BatchNorm2d(channels)

        def forward(self, images):
            made = self.first(images)
            features = super().forward(self.norm(made) + made.relu() * reads_twice)
            return features if features.logits.sum() > 0 else features._replace(logits=features.logits + 0)

    @register
    def moody(num_classes, channels):
        return Moody(num_classes, channels)

    result = outcome(tiny_config(teacher="moody", methods=("kd", "ie-ft")), tiny)
    assert len(result.learners) == 2
    assert ("not folded" in caplog.text) == reads_twice


def test_the_seed_fixes_its_weights_too(tiny, tiny_config):
    drawn = []

    @register
    def dreamer(num_classes, channels):
        network = Net(num_classes, channels)
        drawn.append(network.fc.weight.detach().sum().item())
        return network

    config = tiny_config(student="dreamer", teacher="none", methods=("baseline",))
    first, second = outcome(config, tiny), outcome(config, tiny)
    assert torch.equal(first.learners[0].predictions, second.learners[0].predictions)
    assert drawn[-1] in drawn[:-1]
