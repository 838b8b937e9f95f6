"""The accuracy of a checkpoint, against a loop that knows nothing of the engine."""

from __future__ import annotations

import copy
import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from safetensors.torch import save_file
from typer.testing import CliRunner

from iekd import data
from iekd.cli.main import app
from iekd.inference.evaluate import evaluate_checkpoint
from iekd.models.artifact import ModelCard, save_model
from iekd.models.class_names import reordered
from iekd.models.registry import build

MEAN, STD = (0.4, 0.35, 0.3), (0.25, 0.2, 0.15)


def pixels(split, mean, std):
    """images (N,C,H,W) float32, normalised with NumPy in double precision."""
    scaled = (split.images / 255.0 - np.array(mean)) / np.array(std)
    return torch.from_numpy(scaled).permute(0, 3, 1, 2).float()


def reference(model, split, mean, std) -> tuple[float, list[float]]:
    """(percent right, percent right of each class), one image at a time."""
    model.eval()
    right = np.zeros(len(split), bool)
    with torch.no_grad():
        for i, image in enumerate(pixels(split, mean, std)):
            right[i] = int(model(image[None]).logits.argmax()) == split.labels[i]
    return 100 * right.mean(), [100 * right[split.labels == k].mean() for k in range(3)]


@pytest.fixture(scope="module")
def learned(tiny):
    """A network that knows the tiny classes, though not perfectly, from pictures normalised with MEAN and STD."""
    torch.manual_seed(0)
    model = build("resnet8", 3, 3)
    images, labels = pixels(tiny.train, MEAN, STD), torch.from_numpy(tiny.train.labels)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.005, momentum=0.9)
    for step in range(6):
        batch = slice(32 * (step % 3), 32 * (step % 3) + 32)
        optimizer.zero_grad()
        F.cross_entropy(model.train()(images[batch]).logits, labels[batch]).backward()
        optimizer.step()
    return model.eval()


@pytest.fixture(scope="module")
def checkpoint(learned, tmp_path_factory):
    path = tmp_path_factory.mktemp("checkpoint") / "model_best.pth.tar"
    state = {f"module.{k}": v for k, v in learned.state_dict().items()}
    torch.save({"epoch": 4, "state_dict": state, "best_acc1": np.float64(93)}, path)
    return path


@pytest.fixture(scope="module")
def saved(learned, tiny, tmp_path_factory):
    """The same network as a folder of ours."""
    folder = tmp_path_factory.mktemp("saved") / "model"
    card = ModelCard(
        model="resnet8", datasets=("tiny",), class_names=tiny.class_names, channels=3, resolution=16, mean=MEAN,
        std=STD, accuracy=None, params=1,
    )  # fmt: skip
    save_model(folder, learned, card)
    return folder


@pytest.fixture
def options(picture_folder) -> dict:
    return {"dataset": f"folder:{picture_folder}", "resolution": 16, "device": "cpu"}


def test_the_accuracy_is_that_of_an_independent_loop(checkpoint, options, learned, tiny):
    accuracy, of_class = reference(learned, tiny.test, MEAN, STD)
    assert 60 < accuracy < 100, "the reference must be neither chance nor perfect to tell anything"
    found = evaluate_checkpoint(checkpoint, model="resnet8", mean=MEAN, std=STD, **options)
    assert found.accuracy == pytest.approx(accuracy, abs=1e-9)
    assert (found.images, found.correct) == (60, round(0.6 * accuracy))
    assert found.class_accuracy == pytest.approx(dict(zip(tiny.class_names, of_class, strict=True)))
    assert (found.model, found.params) == ("resnet8", 77_587)
    assert (found.mean, found.std, found.normalisation) == (MEAN, STD, "given")
    assert found.dataset == options["dataset"]
    assert found.seconds > 0


def test_the_training_split_can_be_asked_for(checkpoint, options, learned, tiny):
    found = evaluate_checkpoint(checkpoint, model="resnet8", split="train", mean=MEAN, std=STD, **options)
    assert found.images == 96
    assert found.accuracy == pytest.approx(reference(learned, tiny.train, MEAN, STD)[0], abs=1e-9)


def test_mean_and_std_are_used(checkpoint, options, learned, tiny):
    """A normalisation that is plainly wrong gives the accuracy that the reference has with it too."""
    wrong = (0.5, 0.6, 0.4), (0.25, 0.3, 0.2)
    expected = reference(learned, tiny.test, *wrong)[0]
    assert expected != reference(learned, tiny.test, MEAN, STD)[0]
    found = evaluate_checkpoint(checkpoint, model="resnet8", mean=wrong[0], std=wrong[1], **options)
    assert found.accuracy == pytest.approx(expected, abs=1e-9)


def test_one_number_is_for_all_channels(checkpoint, options, learned, tiny):
    found = evaluate_checkpoint(checkpoint, model="resnet8", mean=[0.5], std=[0.25], **options)
    assert (found.mean, found.std) == ((0.5,) * 3, (0.25,) * 3)
    assert found.accuracy == pytest.approx(reference(learned, tiny.test, (0.5,) * 3, (0.25,) * 3)[0], abs=1e-9)


def test_without_mean_and_std_the_data_sets_own_are_used(checkpoint, options, learned, tiny):
    found = evaluate_checkpoint(checkpoint, model="resnet8", **options)
    assert found.normalisation == "data set"
    assert (found.mean, found.std) == tiny.statistics
    assert found.accuracy == pytest.approx(reference(learned, tiny.test, *tiny.statistics)[0], abs=1e-9)


def test_a_folder_of_ours_says_all_by_itself(saved, options, learned, tiny):
    found = evaluate_checkpoint(saved, options["dataset"], device="cpu")
    assert (found.model, found.mean, found.std, found.normalisation) == ("resnet8", MEAN, STD, "model card")
    assert found.accuracy == pytest.approx(reference(learned, tiny.test, MEAN, STD)[0], abs=1e-9)
    again = evaluate_checkpoint(saved, options["dataset"], model="resnet8", mean=[0.5], std=[0.5], device="cpu")
    assert (again.mean, again.normalisation) == ((0.5, 0.5, 0.5), "given")


def test_the_weights_file_of_a_folder_is_a_file_like_any_other(saved, options, learned, tiny):
    found = evaluate_checkpoint(saved / "model.safetensors", model="resnet8", mean=MEAN, std=STD, **options)
    assert found.accuracy == pytest.approx(reference(learned, tiny.test, MEAN, STD)[0], abs=1e-9)


def test_a_folder_for_other_classes_is_refused(saved, options, tmp_path, refuses):
    folder = tmp_path / "model"
    shutil.copytree(saved, folder)
    card = json.loads((folder / "model.json").read_text())
    (folder / "model.json").write_text(json.dumps({**card, "class_names": ["cat", "dog", "eel"]}))
    refuses(lambda: evaluate_checkpoint(folder, **options), folder, "3 in all")
    refuses(lambda: evaluate_checkpoint(saved, model="resnet20", **options), "is a resnet8, not a resnet20", "--model")


def test_a_held_out_part_is_the_one_of_a_run(checkpoint, picture_folder, learned):
    options = {"resolution": 16, "test_fraction": 0.25}
    dataset = f"folder:{picture_folder / 'train'}"
    accuracies = set()
    for seed in range(4):
        expected = data.load(dataset, seed=seed, **options).test
        found = evaluate_checkpoint(
            checkpoint, dataset, model="resnet8", mean=MEAN, std=STD, data_seed=seed, device="cpu", **options
        )
        assert found.images == len(expected) == 24
        assert found.accuracy == pytest.approx(reference(learned, expected, MEAN, STD)[0], abs=1e-9)
        accuracies.add(found.accuracy)
    assert len(accuracies) > 1, "else the seed could be ignored"


def test_all_images_of_a_folder_can_be_asked_for(checkpoint, picture_folder, learned, tiny):
    """Also where there is nothing but test/: evaluating needs no training images."""
    expected = pytest.approx(reference(learned, tiny.test, MEAN, STD)[0], abs=1e-9)
    options = {"model": "resnet8", "mean": MEAN, "std": STD, "resolution": 16, "device": "cpu"}
    found = evaluate_checkpoint(checkpoint, f"folder:{picture_folder / 'test'}", split="all", **options)
    assert (found.images, found.accuracy) == (60, expected)
    both = evaluate_checkpoint(checkpoint, f"folder:{picture_folder}", split="all", **options)
    assert both.images == 156


@pytest.mark.parametrize("split", ["test", "train", "all"])
def test_pictures_that_stay_in_their_files_are_answered_alike(checkpoint, picture_folder, split):
    def found(memory):
        options = {"model": "resnet8", "split": split, "resolution": 16, "device": "cpu", "image_memory": memory}
        return replace(evaluate_checkpoint(checkpoint, f"folder:{picture_folder}", **options), seconds=0)

    assert found(0) == found(None)


def test_a_folder_with_test_alone_is_enough(checkpoint, picture_folder, tmp_path, learned, tiny):
    shutil.copytree(picture_folder / "test", tmp_path / "test")
    found = evaluate_checkpoint(
        checkpoint, f"folder:{tmp_path}", model="resnet8", mean=MEAN, std=STD, resolution=16, device="cpu"
    )
    assert (found.images, found.split, found.dataset) == (60, "test", f"folder:{tmp_path}")
    assert found.accuracy == pytest.approx(reference(learned, tiny.test, MEAN, STD)[0], abs=1e-9)


def test_pictures_that_cannot_be_read_are_counted(checkpoint, picture_folder, tmp_path):
    root = tmp_path / "pictures"
    shutil.copytree(picture_folder, root)
    broken = sorted((root / "test" / "red").iterdir())[0]
    broken.write_bytes(b"no picture")
    found = evaluate_checkpoint(checkpoint, f"folder:{root}", model="resnet8", resolution=16, device="cpu")
    assert (found.images, found.skipped_files) == (59, [str(broken)])


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"model": None}, ["--model", "resnet56"]),
        ({"model": "resnet-8"}, ["Did you mean 'resnet8'"]),
        ({"model": "resnet14"}, ["resnet14", "resnet8"]),
        ({"checkpoint": "nowhere.pth"}, ["nowhere.pth"]),
        ({"dataset": "folder:/nowhere"}, ["/nowhere"]),
        ({"split": "validation"}, ["validation", "test, train, all"]),
        ({"mean": [0.5]}, ["Std is missing"]),
        ({"std": [0.5]}, ["Mean is missing"]),
        ({"mean": [125.3, 123.0, 113.9], "std": [63.0, 62.1, 66.7]}, ["125.3,123,113.9", "divide by 255"]),
        ({"mean": [0.5], "std": [0.0]}, ["Std '0'", "above 0"]),
        ({"mean": [float("nan")], "std": [0.5]}, ["Mean 'nan'"]),
        ({"mean": [-0.1], "std": [0.5]}, ["Mean '-0.1'"]),
        ({"mean": [0.5, 0.5], "std": [0.5, 0.5]}, ["2 numbers"]),
        ({"mean": [0.5], "std": [0.5] * 3}, ["as many"]),
        ({"mean": [], "std": []}, ["0 numbers"]),
        ({"resolution": 4}, ["Resolution '4'"]),
        ({"test_fraction": 1.5}, ["1.5"]),
        ({"device": "gpu"}, ["gpu", "cuda"]),
    ],
    ids=str,
)
def test_what_is_wrong_is_said_in_one_sentence(checkpoint, options, change, words, refuses):
    values = {"checkpoint": checkpoint, "model": "resnet8", **options, **change}
    refuses(lambda: evaluate_checkpoint(**values), *words)


def test_a_grey_data_set_is_refused_for_colour_weights(checkpoint, tmp_path, refuses):
    for part in ("train", "test"):
        for name in "abc":
            (tmp_path / part / name).mkdir(parents=True)
            Image.new("L", (8, 8)).save(tmp_path / part / name / "1.png")
    refuses(lambda: evaluate_checkpoint(checkpoint, f"folder:{tmp_path}", model="resnet8"), "colour", "grey")


def test_weights_that_are_wrong_are_named_before_the_pictures_are_read(tmp_path, options, monkeypatch, refuses):
    monkeypatch.setattr(data, "load", lambda *_, **__: pytest.fail("read the pictures first"))
    (tmp_path / "m.pth").write_text("hello")
    refuses(lambda: evaluate_checkpoint(tmp_path / "m.pth", model="resnet8", **options), "m.pth")


def iekd_eval(*words):
    return CliRunner().invoke(app, ["eval", *map(str, words)])


def test_the_command_prints_accuracy_and_images(checkpoint, options, learned, tiny):
    words = ["--checkpoint", checkpoint, "--model", "resnet8", "--dataset", options["dataset"], "--split", "test",
             "--mean", "0.4,0.35,0.3", "--std", "0.25, 0.2, 0.15", "--resolution", 16, "--device", "cpu"]  # fmt: skip
    expected = reference(learned, tiny.test, MEAN, STD)[0]
    result = iekd_eval(*words, "--json")
    assert result.exit_code == 0, result.stderr
    printed = json.loads(result.stdout.strip().splitlines()[-1])
    assert printed["accuracy"] == pytest.approx(expected)
    assert (printed["images"], printed["correct"]) == (60, round(0.6 * expected))
    assert (printed["mean"], printed["std"]) == ([0.4, 0.35, 0.3], [0.25, 0.2, 0.15])
    assert set(printed) >= {"model", "params", "class_accuracy", "seconds", "normalisation", "dataset", "split"}
    result = iekd_eval(*words)
    assert result.exit_code == 0, result.stderr
    assert f"accuracy: {expected:.2f} %" in result.stdout.splitlines()
    assert "images: 60" in result.stdout.splitlines()
    assert "as given" in result.stdout
    assert "were drawn" not in result.stdout
    words[words.index(options["dataset"])] += "/train"
    assert "data seed 0 and test fraction 0.2: a network that was trained" in iekd_eval(*words).stdout


def test_the_command_needs_no_model_for_a_folder_of_ours(saved, options):
    result = iekd_eval("--checkpoint", saved, "--dataset", options["dataset"], "--json")
    assert result.exit_code == 0, result.stderr
    assert json.loads(result.stdout)["images"] == 60


def test_the_command_says_whose_normalisation_it_took(checkpoint, options):
    words = ["--checkpoint", checkpoint, "--model", "resnet8", "--dataset", options["dataset"], "--resolution", 16]
    result = iekd_eval(*words)
    assert "of the dataset" in result.stdout
    assert "--mean" in result.stdout


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--model", "resnet14"], "resnet8"),
        (["--mean", "a,b,c", "--std", "1,1,1"], "Mean 'a,b,c'"),
        (["--mean", "125,123,114", "--std", "63,62,66"], "divide by 255"),
        (["--split", "tset"], "Did you mean 'test'"),
    ],
)
def test_bad_options_are_exit_status_two(checkpoint, options, words, said):
    result = iekd_eval("--checkpoint", checkpoint, "--model", "resnet8", "--dataset", options["dataset"], *words)
    assert result.exit_code == 2
    assert said in result.stderr
    assert result.stdout == ""


def test_a_checkpoint_with_code_is_exit_status_two_and_nothing_runs(tmp_path, options, learned):
    class Payload:
        def __reduce__(self):
            return eval, (f"open({str(tmp_path / 'harm')!r}, 'w').close()",)

    torch.save({"state_dict": learned.state_dict(), "x": Payload()}, tmp_path / "m.pth")
    result = iekd_eval("--checkpoint", tmp_path / "m.pth", "--model", "resnet8", "--dataset", options["dataset"])
    assert result.exit_code == 2
    assert "refused" in result.stderr
    assert "Traceback" not in result.stderr
    assert not (tmp_path / "harm").exists()


def test_every_kind_of_file_gives_one_accuracy(learned, tmp_path, options):
    state = learned.state_dict()
    save_file(state, tmp_path / "a.safetensors")
    torch.save(state, tmp_path / "b.pt")
    torch.save({"model": state}, tmp_path / "c.th", _use_new_zipfile_serialization=False)
    found = {
        evaluate_checkpoint(tmp_path / name, model="resnet8", mean=MEAN, std=STD, **options).accuracy
        for name in ("a.safetensors", "b.pt", "c.th")
    }
    assert len(found) == 1


def test_outputs_in_another_order_are_noticed(learned, tmp_path, options, tiny):
    order = (*tiny.class_names[1:], tiny.class_names[0])
    network = reordered(copy.deepcopy(learned), tiny.class_names, order)
    torch.save(network.state_dict(), tmp_path / "m.pth")
    good = evaluate_checkpoint(tmp_path / "m.pth", model="resnet8", mean=MEAN, std=STD, class_order=order, **options)
    assert good.notes == []
    bad = evaluate_checkpoint(tmp_path / "m.pth", model="resnet8", mean=MEAN, std=STD, **options)
    assert bad.accuracy < good.accuracy - 15
    assert any(f"{good.accuracy:.1f} %" in note and ",".join(order) in note for note in bad.notes)


def test_a_list_of_other_classes_is_not_ignored(learned, tmp_path, options, refuses):
    torch.save({"model": learned.state_dict(), "classes": ["ant", "bee", "cow"]}, tmp_path / "m.pth")
    refuses(lambda: evaluate_checkpoint(tmp_path / "m.pth", model="resnet8", **options), "ant", "class order")


def test_the_class_order_that_is_advised_is_that_of_the_weights(learned, tiny, tmp_path, options, saved):
    """A list that came with them has moved the outputs; one that is wrong is ignored where the order is given."""
    order = (*tiny.class_names[1:], tiny.class_names[0])
    network = reordered(copy.deepcopy(learned), tiny.class_names, order)
    torch.save({"model": network.state_dict(), "classes": list(reversed(tiny.class_names))}, tmp_path / "m.pth")
    given = {"model": "resnet8", "mean": MEAN, "std": STD, **options}
    said = evaluate_checkpoint(tmp_path / "m.pth", **given).notes
    assert any(f"give the class order {','.join(order)} (--class-order" in note for note in said), said
    right = evaluate_checkpoint(tmp_path / "m.pth", class_order=order, **given)
    assert right.accuracy == pytest.approx(reference(learned, tiny.test, MEAN, STD)[0])
    assert any("and was ignored" in note for note in right.notes)

    card = json.loads((saved / "model.json").read_text())
    wrong = shutil.copytree(saved, tmp_path / "wrong")
    (wrong / "model.json").write_text(json.dumps({**card, "class_names": [*card["class_names"][1:], "blue"]}))
    for path in (wrong, shutil.make_archive(str(tmp_path / "zipped"), "zip", wrong)):
        for names in (None, order):
            said = evaluate_checkpoint(path, **options | {"resolution": None}, class_order=names).notes
            right = f"If its outputs are {', '.join(card['class_names'])}, correct class_names"
            assert any("names its classes" in note and right in note for note in said), said
