"""Networks of timm and torchvision by name: their stages, and that they can teach and learn."""

from __future__ import annotations

import copy
import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from iekd.config.run import make_config
from iekd.data import load
from iekd.data.base import Split
from iekd.distill.method import build_method
from iekd.distill.targets import Pair, TeacherOutput
from iekd.engine.accelerate import freeze
from iekd.engine.events import TrainedModel
from iekd.engine.experiment import Experiment
from iekd.engine.frozen_teacher import FrozenTeacher
from iekd.errors import UserError
from iekd.models import libraries
from iekd.models.artifact import ModelCard, load_model, save_model
from iekd.models.catalog import check_model, known_models, model_info, model_name
from iekd.models.factors import AutoEncoder
from iekd.models.features import Features
from iekd.models.measure import measure
from iekd.models.registry import build
from iekd.models.taps import Tapped, Taps, as_map, find_taps
from iekd.models.weight_files import read_weights
from iekd.models.weights import fit_weights
from iekd.runs.prepare import prepare

RESNET = ((64, 56), (128, 28), (256, 14), (512, 7))
TOKENS = ((192, 14),) * 4
# channels and side of each stage of an image of 224 x 224, by the papers' tables
STAGES = {
    "timm:resnet18": RESNET,
    "timm:resnext50_32x4d": ((256, 56), (512, 28), (1024, 14), (2048, 7)),
    "timm:vgg11_bn": ((256, 56), (512, 28), (512, 14), (512, 7)),
    "timm:densenet121": ((256, 56), (512, 28), (1024, 14), (1024, 7)),
    "timm:mobilenetv3_small_100": ((16, 56), (24, 28), (48, 14), (576, 7)),
    "timm:efficientnet_b0": ((24, 56), (40, 28), (112, 14), (320, 7)),
    "timm:regnety_004": ((48, 56), (104, 28), (208, 14), (440, 7)),
    "timm:convnext_atto": ((40, 56), (80, 28), (160, 14), (320, 7)),
    "timm:deit_tiny_patch16_224": TOKENS,
    "timm:swin_tiny_patch4_window7_224": ((96, 56), (192, 28), (384, 14), (768, 7)),
    "torchvision:resnet18": RESNET,
    "torchvision:resnext50_32x4d": ((256, 56), (512, 28), (1024, 14), (2048, 7)),
    "torchvision:vgg11_bn": ((256, 56), (512, 28), (512, 14), (512, 7)),
    "torchvision:densenet121": ((256, 56), (512, 28), (1024, 14), (1024, 7)),
    "torchvision:mobilenet_v3_small": ((16, 56), (24, 28), (48, 14), (576, 7)),
    "torchvision:efficientnet_b0": ((24, 56), (40, 28), (112, 14), (1280, 7)),
    "torchvision:regnet_y_400mf": ((48, 56), (104, 28), (208, 14), (440, 7)),
    "torchvision:convnext_tiny": ((96, 56), (192, 28), (384, 14), (768, 7)),
    "torchvision:vit_b_16": ((768, 14),) * 4,
    "torchvision:swin_t": ((96, 56), (192, 28), (384, 14), (768, 7)),
}
SMALL = ("timm:resnet10t", "timm:test_vit", "timm:mobilenetv3_small_050", "torchvision:shufflenet_v2_x0_5")


def images(batch: int = 2, channels: int = 3, side: int = 64) -> torch.Tensor:
    return torch.randn(batch, channels, side, side, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("name", STAGES)
def test_stages_are_those_of_the_paper(name: str) -> None:
    with torch.device("cpu" if "regnet_y" in name else "meta"), torch.no_grad():  # torchvision's needs numbers
        features = build(name, 7).eval()(torch.zeros(1, 3, 224, 224))
    assert isinstance(features, Features)
    assert features.logits.shape == (1, 7)
    assert tuple(tuple(s.shape) for s in features.stages) == tuple((1, c, side, side) for c, side in STAGES[name])


@pytest.mark.parametrize("name", SMALL)
def test_logits_are_those_of_the_library_and_of_its_head(name: str) -> None:
    torch.manual_seed(0)
    network = build(name, 5).eval()
    with torch.no_grad():
        features = network(images())
        torch.testing.assert_close(features.logits, network.network(images()))
        head = [m for m in network.modules() if isinstance(m, nn.Linear) and m.out_features == 5][-1]
        torch.testing.assert_close(head(features.pooled), features.logits)
    pixels = (40 * images()).clamp(-100, 100).add(128).round().to(torch.uint8)
    teacher = TrainedModel(network, (128 / 255,) * 3, (40 / 255,) * 3)
    frozen = FrozenTeacher(teacher, torch.device("cpu"), torch.float32, tuple(pixels.shape[1:]))(pixels).features
    with torch.no_grad():
        features = network((pixels.float() - 128) / 40)
    torch.testing.assert_close(frozen.logits, features.logits, atol=1e-4, rtol=1e-3)
    for one, other in zip(frozen.stages, features.stages, strict=True):
        torch.testing.assert_close(one, other, atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize("name", ["timm:efficientvit_m0", "timm:shvit_s1", "timm:volo_d1_224"])
def test_logits_have_what_lies_beside_the_last_layer(name: str) -> None:
    """A batch norm before it, which a trained network needs, or a second head."""
    torch.manual_seed(0)
    network = build(name, 5).eval()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm1d):
            nn.init.normal_(module.running_mean)
            nn.init.uniform_(module.running_var, 0.5, 2)
    with torch.no_grad():
        features = network(images(1, side=224))
        torch.testing.assert_close(features.logits, network.network(images(1, side=224)))
    assert features.pooled.shape == (1, network.network.get_classifier().in_features)


def test_parameters_are_counted_also_of_networks_that_need_numbers() -> None:
    name = "torchvision:regnet_y_400mf"
    assert libraries.parameters(name) == sum(p.numel() for p in build(name, 10).parameters())


@pytest.mark.parametrize("name", SMALL)
def test_a_copy_listens_to_itself(name: str) -> None:
    torch.manual_seed(0)
    network = build(name, 5).eval()
    twin = copy.deepcopy(network)
    with torch.no_grad():
        before = network(images())
        for parameter in twin.parameters():
            parameter.zero_()
        assert (twin(images()).stages[-1] == 0).all()
        after = network(images())
    torch.testing.assert_close(after.stages[-1], before.stages[-1])


@pytest.mark.parametrize("name", SMALL)
def test_grey_images_and_other_sizes(name: str) -> None:
    features = build(name, 3, channels=1).eval()(images(1, 1, 40 if "test_vit" not in name else 48))
    assert features.logits.shape == (1, 3)


@pytest.mark.parametrize(("teacher", "name"), [("timm:test_vit", "ie-ft"), ("torchvision:shufflenet_v2_x0_5", "at")])
def test_a_student_learns_one_batch_from_it(teacher: str, name: str) -> None:
    torch.manual_seed(0)
    taught_by, student = build(teacher, 4).eval(), build("resnet8", 4)
    batch, labels = images(8, side=32), torch.arange(8) % 4
    with torch.no_grad():
        features = taught_by(batch)
        width = features.stages[-1].shape[1]
        factor = AutoEncoder(width, width // 2).eval().encoder(features.stages[-1])
    pair = Pair(tuple(s.shape[1] for s in student(batch).stages), tuple(s.shape[1] for s in features.stages))
    config = make_config(teacher=teacher, student="resnet8", methods=name, dataset="cifar10")
    method = build_method(name, config, pair)
    optimizer = torch.optim.SGD([*student.parameters(), *method.parameters()], lr=0.05, momentum=0.9)
    losses = []
    for _ in range(20):
        output = method(student(batch), TeacherOutput(features, (factor,)), labels)
        optimizer.zero_grad()
        output.loss.backward()
        optimizer.step()
        losses.append(float(output.loss.detach()))
    assert losses[-1] < losses[0] - 0.1


@pytest.mark.parametrize(
    ("name", "weights", "features"), [("vit_b_16", "ViT_B_16_Weights", 768), ("swin_t", "Swin_T_Weights", 768)]
)
def test_multiply_adds_of_attention_are_those_that_torchvision_documents(name, weights, features) -> None:
    """Its products belong to no convolution or linear layer: torchvision counts half as much again as those have."""
    from torchvision import models

    documented = getattr(models, weights).IMAGENET1K_V1.meta["_ops"]  # for 1,000 classes, in 1e9
    ours = libraries.measured(f"torchvision:{name}").macs * (224 / 32) ** 2 + 990 * features
    assert ours / 1e9 == pytest.approx(documented, abs=0.0006)


def test_multiply_adds_of_fused_layers_are_counted() -> None:
    class Fused(nn.Module):
        def __init__(self, num_classes: int, channels: int) -> None:
            super().__init__()
            self.stem = nn.Conv2d(channels, 16, 8, 8)
            self.block = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True)
            self.head = nn.Linear(16, num_classes)

        def forward(self, images: torch.Tensor) -> Features:
            pooled = self.block(self.stem(images).flatten(2).transpose(1, 2)).mean(1)
            return Features(self.head(pooled), (), None, pooled)

    tokens = 16
    block = tokens * (4 * 16 * 16 + 2 * tokens * 16 + 2 * 16 * 32)
    assert measure("fused", Fused).macs == tokens * 3 * 64 * 16 + block + 160


def test_names_and_sizes() -> None:
    info = model_info("timm:resnet18")
    assert info.params(3, 1000) == 11_689_512  # timm's own table
    assert info.stage_strides == (4, 8, 16, 32)
    assert round(info.macs * (224 / 32) ** 2 / 1e9, 2) == 1.81  # torchvision's documentation: 1.81 GFLOPS
    assert model_name("timm:resnet18") == "resnet18 (timm)"
    assert "timm:resnet18" not in known_models()
    assert "timm:mobilenetv3_small_100" in libraries.search("mobilenetv3 small")
    assert libraries.search("mobilenet")[0].startswith("torchvision:")
    assert all(name.startswith(("timm:", "torchvision:")) for name in libraries.search(""))


@pytest.mark.parametrize(
    ("name", "closest"),
    [
        ("timm:resnt18", "timm:resnet18"),
        ("torchvision:swin_tt", "torchvision:swin_t"),
        ("tim:resnet18", "timm:resnet18"),
    ],
)
def test_unknown_names_have_the_closest_and_a_search(name: str, closest: str, refuses) -> None:
    refuses(lambda: check_model(name), f"'{name}'", *([f"'{closest}'", "--search"] if closest else []))


def test_a_network_that_cannot_take_the_images_says_so(refuses) -> None:
    refuses(lambda: libraries.check_side("timm:inception_v3", 32), "timm:inception_v3", "32 x 32", "resolution")
    libraries.check_side("timm:inception_v3", 96)


def test_a_reason_without_words_is_named_by_its_kind_and_nothing_is_built_with_numbers(monkeypatch, refuses) -> None:
    devices = []

    def build(classes: int, channels: int) -> nn.Module:
        devices.append(torch.get_default_device().type)
        raise AssertionError

    monkeypatch.setattr(libraries, "builder_of", lambda name: build)
    refuses(lambda: libraries.check_side("timm:none", 32), "AssertionError")
    assert devices == ["meta"]


class Conv(nn.Module):
    """Blocks with names of their own, one of which makes the map smaller twice."""

    def __init__(self, classes: int = 4, head: bool = True) -> None:
        super().__init__()
        self.start = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU())
        self.body = nn.ModuleList([nn.Conv2d(8, 8, 3, 1, 1), nn.Conv2d(8, 16, 3, 2, 1), nn.Conv2d(16, 16, 1)])
        self.pool = nn.AdaptiveAvgPool2d(7)
        self.score = nn.Linear(16, classes) if head else nn.Conv2d(16, classes, 1)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        x = self.start(images)
        for block in self.body:
            x = block(x)
        x = self.pool(x)
        return self.score(x.mean((2, 3))) if isinstance(self.score, nn.Linear) else self.score(x).mean((2, 3))


def test_taps_of_a_plain_network() -> None:
    assert find_taps(Conv(), images(1)) == Taps(("body.0", "body.2"), "score")
    assert find_taps(Conv(16, head=False), images(1)) == Taps(("body.0", "body.2"), "")
    features = Tapped(Conv(), Taps(("body.1",), "score"))(images())
    assert features.stages[0].shape == (2, 16, 16, 16)
    with pytest.raises(ValueError, match=r"no module 'body\.9'"):
        Tapped(Conv(), Taps(("body.9",), "score"))
    with pytest.raises(ValueError, match="gives maps"):
        find_taps(nn.Sequential(nn.Flatten(), nn.Linear(3 * 64 * 64, 2)), images(1))


def test_what_is_a_map() -> None:
    tokens = torch.arange(2 * 5 * 3).reshape(2, 5, 3)  # a class token before those of 2 x 2 pixels
    assert as_map(tokens)[0, :, 0, 1].tolist() == tokens[0, 2].tolist()
    assert as_map(torch.zeros(1, 7, 7, 96)).shape == (1, 96, 7, 7)
    assert as_map(torch.zeros(1, 7, 7, 7)).shape == (1, 7, 7, 7)
    with pytest.raises(ValueError, match="no map"):
        as_map(torch.zeros(1, 3))


def test_a_teacher_of_a_library_is_saved_and_opened(tmp_path) -> None:
    network = build("timm:mobilenetv3_small_050", 2).eval()
    card = ModelCard("timm:mobilenetv3_small_050", ("x",), ("a", "b"), 3, 64, (0.5,) * 3, (0.2,) * 3, None, 1)
    save_model(tmp_path / "model", network, card)
    opened, _ = load_model(tmp_path / "model")
    with torch.no_grad():
        torch.testing.assert_close(opened(images()).logits, network(images()).logits)


def test_weights_of_the_library_itself_fit(tmp_path) -> None:
    """Whoever trained the network with timm alone brings its state dict, whose names do not begin with ours."""
    torch.manual_seed(0)
    own = build("timm:mobilenetv3_small_050", 3).eval()
    torch.save(own.network.state_dict(), tmp_path / "theirs.pt")
    fitted = fit_weights(read_weights(tmp_path / "theirs.pt"), "timm:mobilenetv3_small_050", 3, 3)
    with torch.no_grad():
        torch.testing.assert_close(fitted.model(images()).logits, own(images()).logits)


# of each stage the batch norm, by the libraries' own code
ENDS = {
    "timm:resnet10t": [f"layer{n}.0.bn2" for n in (1, 2, 3, 4)],
    "timm:regnety_002": ["s1.b1.conv3.bn", "s2.b1.conv3.bn", "s3.b4.conv3.bn", "s4.b7.conv3.bn"],
    "torchvision:resnet18": [f"layer{n}.1.bn2" for n in (1, 2, 3, 4)],
    "torchvision:mobilenet_v2": ["features.3.conv.3", "features.6.conv.3", "features.13.conv.3", "features.18.1"],
}


@pytest.mark.parametrize("name", ENDS)
def test_stage_ends_before_the_activation(name: str) -> None:
    """Also the frozen network gives them, with its batch norms folded."""
    torch.manual_seed(0)
    network = build(name, 4).eval()
    norms = [name for norm in network.stage_norms for name, m in network.network.named_modules() if m is norm]
    assert norms == ENDS[name]
    for norm in network.stage_norms:
        nn.init.uniform_(norm.bias, -1, 1)
    with torch.no_grad():
        features = network(images())
        frozen = freeze(network)
        again = frozen(images())
    for stage, before in zip(features.stages, features.pre_activations, strict=True):
        assert torch.equal(stage, before) or (torch.equal(stage, before.relu()) and (before < 0).any())
    assert not any(isinstance(m, nn.BatchNorm2d) for m in frozen.modules())
    for one, other in zip((*features.stages, *features.pre_activations), (*again[1], *again[2]), strict=True):
        torch.testing.assert_close(one, other, atol=1e-4, rtol=1e-3)


def test_margins_are_those_of_the_batch_norms_by_hand() -> None:
    """m = mu - sigma phi(mu / sigma) / Phi(-mu / sigma), Heo et al. 2019; mu the bias, sigma the weight."""
    torch.manual_seed(0)
    data = load("fashion-mnist-sample", resolution=32).limited(64, 0)
    data = replace(data, test=Split(data.test.images[:40], data.test.labels[:40]))
    teacher = build("timm:resnet18", 10, 1).eval()
    for number in (1, 2, 3, 4):
        norm = getattr(teacher.network, f"layer{number}")[1].bn2
        nn.init.uniform_(norm.weight, 0.5, 1.5)
        nn.init.uniform_(norm.bias, -0.5, 0.5)
    config = make_config(
        teacher="timm:resnet18", student="resnet8", methods="od", epochs=1, resolution=32, batch_size=32, threads=1
    )
    events = list(Experiment(config, data, TrainedModel(teacher, (0.5,), (0.5,))).events())
    assert events[-1].learners[0].accuracy_last >= 0
    experiment = Experiment(config, data, TrainedModel(teacher, (0.5,), (0.5,)))
    for number, margin in zip((1, 2, 3, 4), experiment._pair().margins, strict=True):
        norm = getattr(teacher.network, f"layer{number}")[1].bn2
        for channel in (0, 7):
            mean, std = norm.bias[channel].item(), norm.weight[channel].item()
            z = mean / std
            density = math.exp(-z * z / 2) / math.sqrt(2 * math.pi)
            by_hand = mean - std * density / (0.5 * math.erfc(z / math.sqrt(2)))
            assert float(margin[channel]) == pytest.approx(by_hand, abs=1e-5)


@pytest.mark.parametrize("name", ["timm:test_vit", "timm:mobilenetv3_small_050", "torchvision:shufflenet_v2_x0_5"])
def test_od_is_refused_where_there_are_none(name: str, tmp_path: Path) -> None:
    assert not model_info(name).has_margins
    taught = make_config(teacher=name, student="resnet8", methods="od")  # names and ranges; nothing is built for it
    with pytest.raises(UserError, match=f"'od' cannot learn from {name}"):
        prepare(taught, tmp_path)
    with pytest.raises(UserError, match=f"'od' cannot be used with {name}"):
        prepare(make_config(teacher="resnet20", student=name, methods="od"), tmp_path)
    data = load("fashion-mnist-sample", resolution=32).limited(64, 0)
    with pytest.raises(UserError, match=f"'od' cannot learn from {name}"):
        next(Experiment(taught, data, TrainedModel(build(name, 10, 1), (0.5,), (0.5,))).events())


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("vit_b_16", ["torchvision:vit_b_16"]),
        ("vit_b16", ["torchvision:vit_b_16"]),
        ("ResNet50", ["torchvision:resnet50", "timm:resnet50"]),
        ("mobilenetv3_small_100", ["timm:mobilenetv3_small_100"]),
        ("mobilnetv3_small_050", ["timm:mobilenetv3_small_050"]),
        ("resnet18.a1_in1k", ["hf:timm/resnet18.a1_in1k"]),
        ("microsoft/resnet-50", ["hf:microsoft/resnet-50"]),
        ("microsoft/resnet-50@main", ["hf:microsoft/resnet-50@main"]),
        ("https://huggingface.co/microsoft/resnet-50/tree/main", ["hf:microsoft/resnet-50"]),
        ("resnet-20", ["resnet20"]),
    ],
)
def test_a_name_without_its_prefix_gets_the_whole_name(name: str, meant: list[str]) -> None:
    with pytest.raises(UserError) as caught:
        check_model(name)
    assert "Did you mean '" + "' or '".join(meant) + "'" in str(caught.value)


def test_what_may_be_a_folder_as_well_is_said_to_go_elsewhere(refuses):
    refuses(lambda: check_model("models/teacher"), "hf:models/teacher", "give it as teacher from or student from")


@pytest.mark.parametrize(
    "name", ["models/net.pth", "microsoft/resnet-50@", "https://huggingface.co/datasets/ann/pets", "a/b/c", "zebra"]
)
def test_what_is_no_network_gets_none(name: str) -> None:
    with pytest.raises(UserError) as caught:
        check_model(name)
    assert "Did you mean" not in str(caught.value)


def test_a_config_with_networks_of_libraries_is_checked_without_building_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(libraries, "measured", lambda *_args: pytest.fail("a network was measured"))
    make_config(teacher="timm:test_vit", student="torchvision:mobilenet_v3_small", methods="od,ie-ft")


def test_a_name_that_does_not_exist_is_a_short_sentence(refuses):
    refuses(lambda: check_model("timm:resnet18.a1_in1k"), "timm:resnet18", "hf:timm/resnet18.a1_in1k")
    refuses(lambda: check_model("efficientnet_b0"), "timm:", "iekd models --search")
    with pytest.raises(UserError) as caught:
        check_model("timm:zzz")
    assert len(str(caught.value)) < 1000
    assert "more" in str(caught.value)
