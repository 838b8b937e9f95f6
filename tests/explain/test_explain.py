"""Everything at once: what is asked for is computed, what does not apply says why, and all of it is written."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from iekd import data
from iekd.data.file_images import FileImages
from iekd.engine.threads import Threads
from iekd.explain.about import DIAGNOSTICS, NotApplicableError, chosen
from iekd.explain.draw import layer, overlay, sheet
from iekd.explain.explain import ABOUT, each_in_turn, explain
from iekd.explain.lrp import lrp
from iekd.explain.network import Network, open_networks, parts_of
from iekd.explain.report import as_markdown, write
from iekd.explain.sample import Sample, differing, from_files, held_out
from iekd.models.artifact import save_model
from iekd.models.features import Features

DOCS = Path(__file__).parents[2] / "docs" / "explain.md"


@pytest.fixture(scope="module")
def sample(tiny):
    return held_out(tiny, tiny.class_names, 20)


@pytest.fixture(scope="module", autouse=True)
def two_threads():
    """On a busy machine it would be one at times, and sums would be rounded otherwise."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("iekd.explain.explain.Threads", lambda: Threads(2))
        yield


@pytest.fixture(scope="module")
def found(networks, sample):
    return explain(networks, sample.first(3), sample)


class Sigmoid(nn.Module):
    def forward(self, x):
        return x.sigmoid()


def test_all_of_it_is_computed(found):
    labels = ["teacher", "baseline", "ie-ft", "ie-ft inheritance", "ie-ft exploration"]
    assert [(m.method, m.label) for m in found.maps] == [(k, name) for k in ("grad-cam", "lrp") for name in labels]
    assert all(m.faithfulness is not None for m in found.maps)
    assert [m.conservation is not None for m in found.maps] == [False] * 5 + [True] * 5
    assert [s.stage for s in found.similarity] == [-1, -2, -3]
    assert {n.name for n in found.neurons} == set(labels)
    assert [f.network for f in found.flatness] == labels[:3]
    assert [h.network for h in found.halves] == ["ie-ft", "baseline"]  # the teacher is no student to compare with
    assert found.problems == []
    assert [n.halves for n in found.networks] == [{}, {}, {"inheritance": 24, "exploration": 40}]


def test_the_result_is_json_and_twice_the_same(found, networks, sample):
    again = explain(networks, sample.first(3), sample)
    text = json.dumps(found.to_json(), allow_nan=False)
    assert text == json.dumps(again.to_json())
    read = json.loads(text)
    assert read["maps"][5]["explained"] == list(found.maps[5].explained)
    assert set(read["about"]) == {*DIAGNOSTICS, "faithfulness"}
    labels = [found.class_names[k] for k in sample.labels[:3]]
    assert [image["label"] for image in read["images"]] == labels
    assert all(np.array_equal(a.maps, b.maps) for a, b in zip(found.maps, again.maps, strict=True))


def test_networks_on_several_cores_give_the_same(networks, sample):
    """Function modes, gradients and numbers of threads are of one thread each."""

    def task(network):
        if network.name == "baseline":
            raise NotApplicableError("Not this one.")
        return lrp(parts_of([network]), sample.images[:3])

    begun: list[str] = []
    tasks = {"maps": (networks, task), "students": (networks[1:], task)}
    alone, together = (each_in_turn(networks, tasks, cores, begun.append) for cores in (1, 3))
    assert sorted(begun) == ["maps", "maps", "students", "students"]
    assert set(alone) == {*(("maps", n.name) for n in networks), *(("students", n.name) for n in networks[1:])}
    of_teacher, of_plain, of_ie = (("maps", network.name) for network in networks)
    assert [len(alone[key]) for key in (of_teacher, of_ie)] == [1, 3]
    assert str(alone[of_plain]) == str(together[of_plain]) == "Not this one."
    for one, other in zip(alone[of_teacher] + alone[of_ie], together[of_teacher] + together[of_ie], strict=True):
        assert one.label == other.label
        assert other.maps == pytest.approx(one.maps, abs=1e-6)


def test_only_what_was_asked_for(networks, sample):
    some = explain(networks, sample.first(2), sample, ("neurons", "halves"))
    assert (some.maps, some.similarity, some.flatness) == ([], [], [])
    assert len(some.neurons) == 11
    assert len(some.halves) == 2


def test_names_of_diagnostics(refuses):
    assert chosen(["maps", " CKA "]) == ("grad-cam", "lrp", "cka")
    assert chosen([""]) == DIAGNOSTICS
    refuses(lambda: chosen(["neuron"]), "neuron", "neurons")


def test_what_does_not_apply_says_why_and_the_rest_is_there(networks, make, sample):
    names = networks[0].card.class_names
    odd = make(nn.Sequential(nn.Conv2d(3, 4, 3), Sigmoid()), nn.Linear(4, 3), "odd", side=16, channels=3, classes=names)
    found = explain([networks[1], odd], sample.first(2), sample)
    reasons = {(p.diagnostic, p.network): p.reason for p in found.problems}
    assert set(reasons) == {("lrp", "odd"), ("halves", "")}
    assert "'sigmoid'" in reasons["lrp", "odd"]
    assert [(m.method, m.network) for m in found.maps] == [
        ("grad-cam", "baseline"),
        ("grad-cam", "odd"),
        ("lrp", "baseline"),
    ]
    assert [f.network for f in found.flatness] == ["baseline", "odd"]
    assert "- lrp of odd: LRP has no rule for 'sigmoid'" in as_markdown(found)


class Tokens(nn.Module):
    """Pixels as tokens that attend to each other; the last stage only shows them, the logits do without it."""

    def __init__(self):
        super().__init__()
        self.patches, self.norm, self.head = nn.Conv2d(3, 4, 4, 4), nn.LayerNorm(4), nn.Linear(4, 3)
        self.attention = nn.MultiheadAttention(4, 1, batch_first=True)

    def forward(self, images):
        patches = self.patches(images)
        tokens = self.norm(patches.flatten(2).transpose(1, 2))
        tokens = self.attention(tokens, tokens, tokens)[0]
        pooled = tokens.mean(1)
        return Features(self.head(pooled), (tokens.transpose(1, 2).reshape(patches.shape),), None, pooled)


def test_a_network_of_tokens_has_no_maps_and_everything_else(networks, make, sample):
    names = networks[0].card.class_names
    torch.manual_seed(0)  # with few weights, by chance all of its features are above 0, as after a ReLU
    tokens = make(Tokens(), name="tokens", side=16, channels=3, classes=names)
    found = explain([networks[1], tokens], sample.first(2), sample)
    reasons = {(p.diagnostic, p.network): p.reason for p in found.problems}
    assert "'layer_norm'" in reasons["lrp", "tokens"]
    assert "last stage" in reasons["grad-cam", "tokens"]
    assert "ReLU" in reasons["neurons", "tokens"]
    assert {maps.network for maps in found.maps} == {"baseline"}
    assert [one.network for one in found.flatness] == ["baseline", "tokens"]
    assert found.similarity[0].names == ("baseline", "tokens")


def test_an_ie_student_without_a_linear_head_has_whole_maps_only(make, sample, tiny):
    head = nn.Sequential(nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 3))
    body = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU())
    deep = make(body, head, "deep", side=16, channels=3, classes=tiny.class_names, method="ie-ft")
    found = explain([deep], sample.first(2), sample, ("maps", "halves"))
    assert [(m.method, m.half) for m in found.maps] == [("grad-cam", ""), ("lrp", "")]
    assert "linear layer" in found.problems[0].reason


def test_without_labelled_images_the_pictures_must_do(networks, sample):
    pictures = Sample(sample.images[:6], sample.names[:6])
    found = explain(networks, pictures, None, without="Nobody has any.")
    assert found.similarity[0].images == 6
    reasons = {p.diagnostic: p.reason for p in found.problems}
    assert reasons == dict.fromkeys(("flatness", "halves"), "It needs images with labels. Nobody has any.")
    alone = explain(networks, Sample(sample.images[:1], sample.names[:1]), None, ("cka", "grad-cam"))
    assert "4 images" in alone.problems[0].reason
    assert len(alone.maps) == 5


def test_the_sample_is_the_same_every_time_and_knows_the_networks_order_of_classes(tiny):
    order = ("red", "blue", "green")
    first, again = held_out(tiny, order, 10), held_out(tiny, order, 30)
    assert np.array_equal(first.images, again.first(10).images)
    assert first.names == again.names[:10]
    for image, label, name in zip(first.images, first.labels, first.names, strict=True):
        row = int(name.split()[-1])
        assert np.array_equal(image, tiny.test.images[row])
        assert order[label] == tiny.class_names[tiny.test.labels[row]]
    assert len(held_out(tiny, order, 1000)) == 60


def test_images_of_files(networks, picture_folder, tmp_path, refuses):
    card = networks[0].card
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"this is no image")
    read = from_files([str(broken), str(picture_folder / "test" / "red")], card, 5)
    assert read.images.shape == (5, 16, 16, 3)
    assert read.labels is None
    assert read.more == 15
    assert len(read.unreadable) == 1
    assert "broken.png" in read.unreadable[0]
    refuses(lambda: from_files([str(broken)], card, 5), "broken.png")


def test_a_folder_of_everything_is_written(found, tmp_path):
    (tmp_path / "maps").mkdir()
    (tmp_path / "maps" / "image-099.png").write_bytes(b"of an earlier explanation")
    (tmp_path / "notes.txt").write_text("mine")
    files = write(found, tmp_path)
    assert sorted(p.relative_to(tmp_path).as_posix() for p in files) == [
        "explain.json", "explain.md", "maps/image-001.png", "maps/image-002.png", "maps/image-003.png",
    ]  # fmt: skip
    assert {p for p in tmp_path.rglob("*") if p.is_file()} == {*files, tmp_path / "notes.txt"}
    read = json.loads((tmp_path / "explain.json").read_text())
    assert read["files"] == [f"maps/image-00{i}.png" for i in (1, 2, 3)]
    text = (tmp_path / "explain.md").read_text()
    for about in ABOUT.values():
        assert f"{about.shows} {about.reading} ({about.reference}.)" in text
    assert "(maps/image-001.png)" in text
    with Image.open(tmp_path / "maps" / "image-001.png") as drawn:
        assert drawn.width > 6 * 150  # the image, three networks and two halves
        assert drawn.height > 2 * 150


def test_a_place_that_cannot_be_written_and_an_opacity_out_of_range(found, tmp_path, refuses):
    (tmp_path / "file").write_text("")
    refuses(lambda: write(found, tmp_path / "file"), "file", "--out")
    refuses(lambda: write(found, tmp_path / "out", 1.5), "1.5", "0", "1")


def test_colours_of_a_map():
    image = np.full((1, 4, 1), 100, np.uint8)
    map_ = np.array([[2.0, -2.0, 0.0, 1.0]])
    red, blue, nothing, pale = overlay(image, map_, 2.0, 1.0)[0].astype(int)
    assert red.tolist() == [214, 39, 40]
    assert blue.tolist() == [31, 119, 180]
    assert nothing.tolist() == [100] * 3
    assert red[0] > pale[0] > 100 > pale[1] > red[1]
    assert (overlay(image, map_, 2.0, 0.0) == 100).all()


def test_a_half_is_drawn_with_the_strength_that_it_has_in_the_whole(found):
    whole = replace(found.maps[2], maps=np.ones_like(found.maps[2].maps))
    half = replace(whole, half="inheritance", maps=whole.maps / 4)
    drawn = np.asarray(sheet(np.zeros((16, 16, 3), np.uint8), "black", [whole, half], 0, 1.0)).astype(int)
    reds = sorted({int(v) for v in np.unique(drawn[:, :, 0]) if (drawn[:, :, 0] == v).sum() > 1000} - {0, 255})
    assert reds == [pytest.approx(214 / 4, abs=1), 214]


def test_networks_that_do_not_belong_together_are_refused(networks, lived_in, tmp_path, refuses):
    card = networks[1].card
    folders = {}
    for name, changes in {"a": {}, "b": {"class_names": ("x", "y", "z")}, "c": {"resolution": 32}}.items():
        save_model(tmp_path / name, lived_in("resnet8"), replace(card, **changes))
        folders[name] = tmp_path / name
    refuses(lambda: open_networks({k: folders[k] for k in "ab"}), "'b'", "'a'", "same classes")
    refuses(lambda: open_networks({k: folders[k] for k in "ac"}), "'c'", "32 x 32", "16 x 16")
    (opened,) = open_networks({"a": folders["a"]})
    assert isinstance(opened, Network)
    assert not any(p.requires_grad for p in opened.model.parameters())


def test_images_that_stay_in_their_files_can_be_sampled(picture_folder):
    loaded = data.load(f"folder:{picture_folder}", resolution=16, image_memory=0)
    sample = held_out(loaded, loaded.class_names, 4)
    assert isinstance(sample.images, np.ndarray)
    for image, name in zip(sample.images, sample.names, strict=True):
        with Image.open(name) as original:
            assert np.array_equal(image, np.asarray(original))
    assert isinstance(loaded.test.images, FileImages)


@pytest.mark.skipif(not DOCS.is_file(), reason="needs the checkout")
def test_the_documentation_has_the_same_words():
    text = " ".join(DOCS.read_text().split())
    for about in ABOUT.values():
        for words in (about.title, about.shows, about.reading, about.reference):
            assert words in text, words


def test_a_layer_over_the_grey_image_is_the_picture(noise):
    image, map_ = noise(1)[0], np.random.default_rng(1).normal(size=(16, 16))
    above = layer(map_, 1.5)
    grey, cover = image.mean(2, keepdims=True), 0.6 * above[:, :, 3:] / 255
    assert np.abs(grey * (1 - cover) + above[:, :, :3] * cover - overlay(image, map_, 1.5, 0.6)).max() <= 1


def test_images_on_which_the_students_differ_come_first(networks, sample):
    said = [network.forward(network.pixels(sample.images)).logits.argmax(1).numpy() for network in networks[::2]]
    assert (said[0] != said[1]).any()
    differ = (said[0] == sample.labels) != (said[1] == sample.labels)
    assert 0 < differ.sum() < len(sample)
    found = differing(networks[::2], sample, len(sample))  # without a second student the teacher is compared
    kinds = [bool(differ[sample.names.index(name)]) for name in found.names]
    assert kinds == sorted(kinds, reverse=True)
    assert sum(kinds) == differ.sum()
    assert sorted(found.names) == sorted(sample.names)
    place = sample.names.index(found.names[0])
    assert np.array_equal(found.images[0], sample.images[place])
    assert found.labels[0] == sample.labels[place]


def test_maps_are_saved_as_numbers_only_if_asked(found, tmp_path):
    assert not any(path.suffix == ".npz" for path in write(found, tmp_path / "without"))
    assert tmp_path / "with" / "maps.npz" in write(found, tmp_path / "with", save_maps=True)
    with np.load(tmp_path / "with" / "maps.npz") as saved:
        assert np.array_equal(saved["images"], found.pictures.images)
        assert all(np.array_equal(saved[f"map{i}"], maps.maps) for i, maps in enumerate(found.maps))
