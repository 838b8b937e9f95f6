"""`iekd explain` as a person or a script meets it: names of models, images, output, errors, exit status."""

from __future__ import annotations

import json
import os
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

from iekd.cli.main import app
from iekd.models.artifact import save_model
from iekd.runs.store import Store


@pytest.fixture(scope="module")
def run(tmp_path_factory, tiny_config, networks, lived_in):
    """A run whose networks were not trained, but saved where a run has them."""
    store = Store(tmp_path_factory.mktemp("runs"))
    made, handle = store.create(tiny_config(methods=("baseline", "ie-ft"), seeds=(0,)))
    os.close(handle)
    names = {"teacher": "teacher", "baseline": "baseline-seed0", "ie-ft": "ie-ft-seed0"}
    (made.path / "models").mkdir(exist_ok=True)
    for seed, network in enumerate(networks):
        card = replace(network.card, model="resnet8")
        save_model(made.path / "models" / names[network.name], lived_in("resnet8", seed=seed), card)
    return made


@pytest.fixture
def explain(run):
    """`explain(*words)` -> (exit status, standard output, standard error) of `iekd explain`."""

    def call(*words):
        result = CliRunner().invoke(app, ["explain", *map(str, words), "--runs-dir", str(run.path.parent)])
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return result.exit_code, result.stdout, result.stderr

    return call


def test_a_run_is_explained_on_its_own_test_images(run, explain, tmp_path):
    status, out, err = explain(run.id, "--out", tmp_path / "out", "--count", 2, "--json")
    assert status == 0, err
    said = json.loads(out.splitlines()[-1])
    assert [n["name"] for n in said["networks"]] == ["teacher", "baseline", "ie-ft"]
    assert [n["halves"] for n in said["networks"]] == [{}, {}, {"inheritance": 24, "exploration": 40}]
    assert len(said["images"]) == 2
    assert all(image["label"] in ("blue", "green", "red") for image in said["images"])
    assert said["sample_size"] == 60
    assert said["problems"] == []
    assert sorted(Path(file).name for file in said["files"]) == [
        "explain.json", "explain.md", "image-001.png", "image-002.png",
    ]  # fmt: skip
    assert all(Path(file).is_file() for file in said["files"])
    written = json.loads((tmp_path / "out" / "explain.json").read_text())
    assert written["halves"] == said["halves"]


def test_images_of_ones_own_and_one_that_cannot_be_read(run, explain, tmp_path, picture_folder):
    with zipfile.ZipFile(tmp_path / "some.zip", "w") as archive:
        for file in sorted((picture_folder / "test" / "red").iterdir())[:3]:
            archive.write(file, file.name)
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"this is no image")
    status, out, err = explain(
        f"{run.id}/ie-ft-seed0", "--out", tmp_path / "out", "--what", "grad-cam,flatness", "--dataset", "none",
        "--pictures", broken, "--images", tmp_path / "some.zip", "--count", 2, "--device", "cpu",
    )  # fmt: skip
    assert status == 1
    assert "broken.png" in err
    assert "1 more" in err
    assert "ie-ft-seed0 exploration" in out
    assert "flatness: It needs images with labels. No dataset was asked for." in out
    assert len(list((tmp_path / "out" / "maps").iterdir())) == 2


def test_networks_may_be_named_one_by_one(run, explain, tmp_path):
    folder = run.path / "models" / "teacher"
    status, out, err = explain(
        folder, f"{run.id}/baseline-seed0", f"{run.id}/0", "--out", tmp_path, "--what", "neurons", "--dataset",
        run.config.dataset, "--json",
    )  # fmt: skip
    assert status == 0, err
    names = [n["name"] for n in json.loads(out.splitlines()[-1])["networks"]]
    assert names == ["teacher", "baseline-seed0", f"{run.id}/0 teacher", "baseline", "ie-ft"]


def test_maps_of_ones_own_images_load_no_dataset(run, explain, tmp_path, picture_folder, monkeypatch):
    monkeypatch.setattr("iekd.data.load", lambda *_, **__: pytest.fail("the dataset was loaded"))
    status, _, err = explain(
        f"{run.id}/baseline-seed0", "--out", tmp_path, "--what", "grad-cam", "--count", 1, "--images",
        picture_folder / "test",
    )  # fmt: skip
    assert status == 0, err
    assert "image-001.png" in [file.name for file in (tmp_path / "maps").iterdir()]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["nothing", "--out", "x"], "nothing"),
        (["{run}/kd", "--out", "x"], "'kd'"),
        (["{run}", "--out", "x", "--what", "cakes"], "cakes"),
        (["{run}", "--out", "x", "--opacity", "7"], "7"),
        (["{run}", "--out", "x", "--count", "0"], "'0'"),
        (["{run}", "photo.jpg", "--out", "x"], "--images"),
        (["{run}", "--out", "x", "--dataset", "none"], "--images"),
        ([], "--out"),
    ],
)
def test_what_cannot_be_done_is_said_in_one_sentence(run, explain, words, said):
    status, out, err = explain(*(word.replace("{run}", run.id) for word in words))
    assert status == 2
    assert said in err
    assert "Traceback" not in err
    assert out == ""
