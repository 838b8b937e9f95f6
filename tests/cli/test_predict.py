"""`iekd predict` as a person or a script meets it: models by every name, CSV, JSON, Ctrl-C, exit status."""

from __future__ import annotations

import csv
import json
import os
import pty
import shutil
import signal
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from iekd.cli.common import find_model
from iekd.cli.main import app
from iekd.cli.predict import CtrlC
from iekd.config.run import make_config
from iekd.data.decoding import suffixes
from iekd.errors import UserError
from iekd.models.artifact import ModelCard, save_model
from iekd.models.registry import build
from iekd.runs.choices import choice_called
from iekd.runs.status import FINISHED, Status
from iekd.runs.store import Store

CLASSES = ("=ant", "bee", "犬")


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    import torch

    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("model") / "student"
    network = build("resnet8", 3, 1)
    with torch.no_grad():
        for _ in range(5):
            network.train()(torch.rand(64, 1, 8, 8) * 2 - 1)
    card = ModelCard(
        model="resnet8", datasets=(), class_names=CLASSES, channels=1, resolution=8, mean=(0.5,), std=(0.3,),
        accuracy=None, params=1, energy_threshold=0.0,
    )  # fmt: skip
    save_model(folder, network.eval(), card)
    return folder


@pytest.fixture
def photos(tmp_path):
    """Nine images, one that is broken, two files of other endings."""
    folder = tmp_path / "photos"
    (folder / "sub").mkdir(parents=True)
    rng = np.random.default_rng(0)
    for i in range(8):
        Image.fromarray(rng.integers(0, 256, (8, 8), dtype=np.uint8)).save(folder / "sub" / f"{i}.png")
    Image.fromarray(np.full((8, 8), 90, np.uint8)).save(folder / "=犬, 1.png")
    (folder / "broken.png").write_bytes(b"x")
    (folder / "notes.txt").write_bytes(b"x")
    (folder / "raw.cr2").write_bytes(b"x")
    return folder


def run(*words, stdin=None, **environment):
    return CliRunner().invoke(app, ["predict", *map(str, words), "--device", "cpu"], input=stdin, env=environment)


def rows_of(path) -> list[dict[str, str]]:
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_csv_and_json_say_the_same(model, photos, tmp_path):
    images = json.loads(run(model, photos, "--json").stdout)["images"]
    threshold = np.median([image["predictions"][0]["score"] for image in images if "error" not in image])
    answer = run(model, photos, "--csv", tmp_path / "o.csv", "--json", "--threshold", threshold)
    assert answer.exit_code == 1, "one image is broken"
    assert answer.stdout.count("\n") == 1
    found = json.loads(answer.stdout)
    assert {k: v for k, v in found.items() if k not in ("images", "unlike", "unsure")} == {
        "model": str(model), "csv": str(tmp_path / "o.csv"), "stopped": False, "predicted": 9, "unreadable": 1,
        "other_files": {".cr2": 1, ".txt": 1},
    }  # fmt: skip
    rows = rows_of(tmp_path / "o.csv")
    assert list(rows[0]) == [
        "image", "unlike", "inverted", "error", "prediction", "label_1", "score_1", "label_2", "score_2", "label_3",
        "score_3",
    ]  # fmt: skip
    assert len(rows) == len(found["images"]) == 10
    for row, image in zip(rows, found["images"], strict=True):
        assert row["image"] == image["path"]
        assert row["error"] == image.get("error", "")
        if "error" in image:
            assert set(row.values()) == {row["image"], row["error"], ""}
            continue
        assert row["prediction"].removeprefix("'") == image["label"]
        for i, said in enumerate(image["predictions"], 1):
            assert row[f"label_{i}"].removeprefix("'") == said["label"]
            assert float(row[f"score_{i}"]) == pytest.approx(said["score"], abs=1e-6)
        assert row["unlike"] == ("yes" if image["unlike"] else "no")
    assert found["unsure"] == sum(not i["label"] for i in found["images"] if "error" not in i)
    assert found["unsure"] == 4, "of nine"
    assert not (tmp_path / "o.csv.part").exists()
    assert "broken.png" in answer.stderr


def test_no_cell_is_a_formula(model, photos, tmp_path):
    """Names of classes and of files may be anybody's."""
    os.chdir(photos)
    evil = ["+1.png", "@x.png", "\tx.png", "\rx.png"]
    for name in evil:
        shutil.copy("sub/0.png", name)
    run(model, "=犬, 1.png", *evil, *(f"sub/{i}.png" for i in range(8)), "--csv", tmp_path / "o.csv")
    with open(tmp_path / "o.csv", newline="", encoding="utf-8") as file:
        cells = [cell for row in csv.reader(file) for cell in row]
    assert not [cell for cell in cells if cell.startswith(("=", "+", "-", "@", "\t", "\r"))]
    assert {f"'{name}" for name in ("=犬, 1.png", *evil)} <= set(cells)
    assert "'=ant" in cells


def test_text_has_a_line_for_each_image(model, photos):
    answer = run(model, photos / "sub", "--top", 1, "--threshold", 0.99)
    assert answer.exit_code == 0
    lines = answer.stdout.splitlines()
    assert [line.partition(": ")[0] for line in lines] == [str(photos / "sub" / f"{i}.png") for i in range(8)]
    assert any("unsure (" in line for line in lines)
    assert not any("," in line.partition(": ")[2] for line in lines)
    assert "8 images predicted, " in answer.stderr
    assert "below 0.99" in answer.stderr


def test_files_that_are_no_images_are_counted_by_ending(model, photos):
    said = run(model, photos).stderr
    assert "9 images predicted, 1 not read" in said
    assert "Files that are no images: 1 .cr2, 1 .txt." in said


def test_photographs_of_iphones_come_with_advice(model, photos):
    (photos / "a.heic").write_bytes(b"x")
    if ".heic" in suffixes():
        pytest.skip("pillow-heif is installed")
    assert "1 .heic, 1 .txt. For HEIC, install pillow-heif." in run(model, photos).stderr


def test_names_come_from_standard_input(model, photos):
    names = f"{photos}/sub/3.png\r\n\n{photos}/=犬, 1.png\n{photos}/none.png".encode()
    answer = run(model, "-", "--json", stdin=names)
    assert answer.exit_code == 1
    images = json.loads(answer.stdout)["images"]
    assert [Path(image["path"]).name for image in images] == ["3.png", "=犬, 1.png", "none.png"]
    nothing = run(model, "-", stdin=b"")
    assert nothing.exit_code == 2
    assert "No image was named" in nothing.stderr
    assert json.loads(run(model, "-", "--json", stdin=b"").stdout)["images"] == []


def test_a_zip_is_read(model, photos, tmp_path):
    with zipfile.ZipFile(tmp_path / "p.zip", "w") as archive:
        archive.write(photos / "sub" / "1.png", "in/1.png")
    (inside,) = json.loads(run(model, tmp_path / "p.zip", "--json").stdout)["images"]
    (outside,) = json.loads(run(model, photos / "sub" / "1.png", "--json").stdout)["images"]
    assert inside["path"] == f"{tmp_path}/p.zip/in/1.png"
    assert inside["predictions"] == outside["predictions"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--threshold", "2"], "Threshold '2'"), (["--top", "0"], "Top '0'"), (["--batch", "0"], "Batch '0'"),
        (["--classes", "a,b"], "Leave --classes"), (["--mean", "x"], "Mean 'x'"),
        (["--csv", "none/there.csv"], "none/there.csv"), (["--csv", "."], "folder"),
    ],
)  # fmt: skip
def test_wrong_options_are_said_before_anything_is_predicted(model, photos, words, said):
    answer = run(model, photos, *words)
    assert answer.exit_code == 2
    assert said in answer.stderr
    assert answer.stdout == ""


def test_rows_go_straight_into_what_is_no_file(model, photos, tmp_path):
    """Such as /dev/stdout, which must not be replaced by a file."""
    os.mkfifo(tmp_path / "pipe")
    end = os.open(tmp_path / "pipe", os.O_RDWR)
    try:
        assert run(model, photos / "sub", "--csv", tmp_path / "pipe").exit_code == 0
        assert (tmp_path / "pipe").is_fifo()
        assert os.read(end, 10**5).count(b"\n") == 1 + 8
    finally:
        os.close(end)
    assert not list(tmp_path.glob("*.part"))


def test_an_earlier_file_stays_until_the_new_one_is_complete(model, photos, tmp_path, small_disk):
    place, fill = small_disk
    (place / "o.csv").write_text("mine")
    filler = fill(4096)
    answer = run(model, *([photos] * 60), "--csv", place / "o.csv")
    assert answer.exit_code == 2
    assert "o.csv' cannot be written (No space left on device)" in answer.stderr
    assert (place / "o.csv").read_text() == "mine"
    filler.unlink()
    assert run(model, photos, "--csv", place / "o.csv").exit_code == 1
    assert len(rows_of(place / "o.csv")) == 10


# `python -m iekd`, which takes Ctrl-C also where the suite runs in the background and its processes ignore it
HEARS_CTRL_C = """
import runpy, signal
signal.signal(signal.SIGINT, signal.default_int_handler)
runpy.run_module("iekd", run_name="__main__")
"""


@pytest.mark.parametrize("as_json", [False, True])
def test_ctrl_c_leaves_whole_rows_under_another_name(model, photos, tmp_path, as_json):
    """Names come slowly from standard input, so that it is stopped in the middle."""
    words = [sys.executable, "-c", HEARS_CTRL_C, "predict", str(model), "-", "--csv", "o.csv", "--batch", "1"]
    words += ["--json"] * as_json
    with subprocess.Popen(
        words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=tmp_path
    ) as process:
        for i in range(250):  # the first hundreds of rows reach the file as they come
            process.stdin.write(f"{photos}/sub/{i % 8}.png\n".encode())
        process.stdin.flush()
        part = tmp_path / "o.csv.part"
        while not (part.exists() and part.read_bytes().count(b"\n") > 100):
            assert process.poll() is None, process.stderr.read()
        process.send_signal(signal.SIGINT)
        out, said = process.communicate(timeout=60)
    assert process.returncode == 130
    assert not (tmp_path / "o.csv").exists()
    assert b"Traceback" not in said
    assert "'o.csv.part'" in said.decode().replace("\n", "")
    rows = rows_of(part)
    assert 100 <= len(rows) <= 250
    assert all(row["score_3"] for row in rows)
    if as_json:
        found = json.loads(out)
        assert found["stopped"] is True
        assert len(found["images"]) == found["predicted"] == len(rows)


@pytest.fixture
def hears_ctrl_c():
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored where the suite is in the background
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("hears_ctrl_c")
@pytest.mark.parametrize(("presses", "written"), [(1, "aAbB"), (2, "aAb")])
def test_ctrl_c_waits_for_the_row_that_is_being_written_and_a_second_one_does_not(presses, written):
    seen = []

    def write_rows():
        with CtrlC() as ctrl_c:
            for row in "abc":
                with ctrl_c.held():
                    seen.append(row)
                    for _ in range(presses if row == "b" else 0):
                        signal.raise_signal(signal.SIGINT)
                    seen.append(row.upper())

    with pytest.raises(KeyboardInterrupt):
        write_rows()
    assert "".join(seen) == written
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


@pytest.mark.parametrize("words", [["--csv", "o.csv"], ["--csv", "o.csv", "--json"], []])
def test_only_a_terminal_without_other_output_has_a_bar(model, photos, tmp_path, words):
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "iekd", "predict", str(model), str(photos / "sub"), *words]
    environment = {**os.environ, "TERM": "xterm"}
    subprocess.run(command, stdout=subprocess.PIPE, stderr=theirs, cwd=tmp_path, env=environment, check=True)
    os.close(theirs)
    shown = b""
    try:
        while piece := os.read(ours, 4096):
            shown += piece
    except OSError:  # the end, on Linux
        pass
    os.close(ours)
    assert (b"predicting" in shown) == (words == ["--csv", "o.csv"])
    if b"predicting" in shown:
        assert b"8/8" in shown
    piped = subprocess.run(command, capture_output=True, cwd=tmp_path, check=True)
    assert b"predicting" not in piped.stderr


# ---- which model ----------------------------------------------------------------------------------------------------


@pytest.fixture
def store(tmp_path, model):
    """A run with a teacher and one student, and one with two students."""
    store = Store(tmp_path / "runs")
    for methods in (("baseline",), ("baseline", "ie-ft")):
        made, handle = store.create(make_config(methods=methods, name="-".join(methods)))
        os.close(handle)
        made.write_status(Status(state=FINISHED))
        for name in ("teacher", *(f"{method}-seed0" for method in methods)):
            (made.path / "models").mkdir(exist_ok=True)
            (made.path / "models" / name).symlink_to(model)
    return store


def test_a_run_and_its_learners_are_models(store, refuses, photos):
    def model_called(store, name):
        return choice_called(store, name).path

    one, two = sorted(store.list(), key=lambda run: len(run.config.methods))
    assert model_called(store, one.id) == one.path / "models" / "baseline-seed0"
    assert model_called(store, f"{one.id}/teacher").name == "teacher"
    assert model_called(store, f"{two.id}/ie-ft-seed0") == two.path / "models" / "ie-ft-seed0"
    refuses(lambda: model_called(store, two.id), f"{two.id}/ie-ft-seed0", f"{two.id}/baseline-seed0", kind=UserError)
    refuses(lambda: model_called(store, f"{two.id}/kd"), "'kd'", "ie-ft-seed0", kind=UserError)
    for wrong in ("../x", f"{two.id}/..", f"{two.id}/../{one.id}", ""):
        with pytest.raises(UserError):
            model_called(store, wrong)
    answer = run(f"{two.id}/ie-ft-seed0", photos / "sub", "--runs-dir", store.root)
    assert answer.exit_code == 0, answer.stderr
    assert "ie-ft-seed0" in run(two.id, photos, "--runs-dir", store.root).stderr


def test_a_shipped_model_is_found_by_its_name(tmp_path, model, photos):
    (tmp_path / "shipped").mkdir()
    (tmp_path / "shipped" / "mine").symlink_to(model)
    answer = run("mine", photos / "sub", IEKD_CHECKPOINTS_DIR=str(tmp_path / "shipped"))
    assert answer.exit_code == 0, answer.stderr


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("nothing", "There is no run 'nothing'"), ("nothing", "iekd models"), ("./nothing", "There is no file"),
        ("x.onnx", "There is no file 'x.onnx'"), (".", "without a model"),
        ("n" * 300, "There is no run"),
    ],
)  # fmt: skip
def test_a_model_that_is_not_there_is_a_sentence(tmp_path, refuses, name, said):
    refuses(lambda: find_model(name, tmp_path), said)


def test_a_folder_that_export_has_made_is_its_onnx_file(tmp_path, model):
    (tmp_path / "shoes").mkdir()
    (tmp_path / "shoes" / "model.onnx").write_bytes(b"")
    assert find_model(str(tmp_path / "shoes"), tmp_path) == tmp_path / "shoes" / "model.onnx"
    shutil.copytree(model, tmp_path / "shoes", dirs_exist_ok=True)
    assert find_model(str(tmp_path / "shoes"), tmp_path) == tmp_path / "shoes", "of both, what it was made from"


def test_a_model_of_the_hub_is_pulled(tmp_path, monkeypatch, model, photos):
    asked = []
    monkeypatch.setattr("iekd.cli.common.pulled", lambda name: asked.append(name) or model)
    assert run("hf:org/name", photos / "sub", "--runs-dir", tmp_path).exit_code == 0
    assert asked == ["hf:org/name"]
