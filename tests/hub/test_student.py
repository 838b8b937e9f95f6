"""`iekd.Student`, and the whole way by command line against the stand-in."""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import iekd
from iekd.errors import DataError, UserError

CHECKOUT = Path(__file__).parents[2]


def test_three_lines(hub, pushed_with, finished, tiny):
    pushed_with()
    student = iekd.Student.from_pretrained("ann/pets")
    from iekd.inference.predict import Predictor

    own = Predictor(finished[0].model_folders["ie-ft-seed0"])
    for image in tiny.test.images[:5]:
        assert student.predict(image).top == own.predict(image).top
    assert student.card.method == "ie-ft"
    assert sum(p.numel() for p in student.model.parameters()) == student.card.params


def test_a_revision_and_a_folder(hub, pushed_with, finished):
    first = pushed_with()
    pushed_with(learner="baseline-seed0")
    assert iekd.Student.from_pretrained("ann/pets").card.method == "baseline"
    assert iekd.Student.from_pretrained("ann/pets", revision=first.commit).card.method == "ie-ft"
    assert iekd.Student.from_pretrained(finished[0].model_folders["teacher"]).card.role == "teacher"


def test_what_is_no_picture_is_said(finished, tmp_path):
    (tmp_path / "x.png").write_text("no picture")
    with pytest.raises(DataError, match=r"x\.png"):
        iekd.Student(finished[0].model_folders["teacher"]).predict(tmp_path / "x.png")


def test_push_to_hub_and_back(hub, finished, no_export):
    student = iekd.Student(finished[0].model_folders["baseline-seed1"])
    done = student.push_to_hub("ann/mine", private=True, license="mit")
    assert hub.repo("ann/mine").private
    again = iekd.Student.from_pretrained("ann/mine", revision=done.commit)
    image = np.zeros((16, 16, 3), np.uint8)
    assert again.predict(image).top == student.predict(image).top


def test_a_student_of_a_megabyte_is_one_commit_beyond_the_creation(hub, no_export):
    student = iekd.Student(CHECKOUT / "checkpoints" / "fashion-mnist-resnet20-teacher")
    done = student.push_to_hub("ann/large")
    repo = hub.repo("ann/large")
    assert len(repo.files["model.safetensors"]) > 1_000_000
    assert [commit for commit, *_ in repo.commits[1:]] == [done.commit]


@pytest.fixture
def command(hub, finished, tmp_path):
    """`command(*words)`: `iekd` in a process of its own that knows only the stand-in."""
    environment = {
        **os.environ, "PYTHONPATH": str(CHECKOUT), "HF_ENDPOINT": hub.address, "HF_HUB_DISABLE_XET": "1",
        "HF_HOME": str(tmp_path / "hf"), "IEKD_RUNS_DIR": str(finished[0].path.parent), "HF_TOKEN": hub.token,
        "COLUMNS": "200",
    }  # fmt: skip

    def run(*words, check=True, **more):
        done = subprocess.run(
            [sys.executable, "-m", "iekd", *map(str, words)], capture_output=True, text=True, check=False,
            cwd=tmp_path, env={k: v for k, v in {**environment, **more}.items() if v is not None},
        )  # fmt: skip
        assert not check or done.returncode == 0, done.stderr
        return done

    return run


def assert_its_readme_predicts(hub, model, place):
    """The lines for people without iekd, as they stand on the Hub: with onnxruntime, for photo.jpg."""
    from iekd.inference.predict import Predictor

    text = hub.repo("ann/pets").files["README.md"].decode()
    (code,) = (block for block in re.findall(r"^```python\n(.*?)^```$", text, re.M | re.S) if "onnxruntime" in block)
    image = np.random.default_rng(0).integers(0, 256, (40, 40, 3), dtype=np.uint8)
    Image.fromarray(image).save(place / "photo.jpg")
    code = code.replace('"photo.jpg"', repr(str(place / "photo.jpg")))
    with contextlib.redirect_stdout(io.StringIO()) as said:
        exec(compile(code, "README.md", "exec"), {})
    seen = np.asarray(Image.open(place / "photo.jpg").convert("RGB").resize((16, 16)))
    label, score = Predictor(model).predict(seen).top[0]
    assert said.getvalue().split()[0] == label
    assert float(said.getvalue().split()[1]) == pytest.approx(score, abs=1e-4)


def test_push_and_pull_by_command(hub, command, finished, tmp_path):
    run = finished[0].id
    done = json.loads(command("push", f"{run}/ie-ft-seed1", "ann/pets", "--license", "mit", "--json").stdout)
    assert (done["commit"], done["pushed"], done["what"]) == (hub.repo("ann/pets").head, True, "student")
    assert hub.asked("/commit/", "POST") == 1
    assert hub.repo("ann/pets").files["model.onnx"]
    assert b"onnxruntime" in hub.repo("ann/pets").files["README.md"]
    got = command("pull", f"ann/pets@{done['commit']}", "--out", "here")
    assert done["commit"] in got.stdout
    assert (tmp_path / "here" / "source.json").is_file()
    name = f"hf:ann/pets@{done['commit']}"
    judged = command("eval", "--checkpoint", name, "--dataset", finished[0].config.dataset, "--json")
    last = next(r for r in finished[0].report["learners"] if (r["method"], r["seed"]) == ("ie-ft", 1))
    assert json.loads(judged.stdout)["accuracy"] == last["accuracy_last"]
    assert_its_readme_predicts(hub, finished[0].model_folders["ie-ft-seed1"], tmp_path)


def test_a_model_of_the_hub_is_named_wherever_a_model_is(hub, command, finished, pushed_with, picture_folder):
    pushed_with()
    picture = next((picture_folder / "test" / "red").glob("*.png"))
    got = json.loads(command("predict", "hf:ann/pets", picture, "--json").stdout)["images"][0]
    here = json.loads(command("predict", f"{finished[0].id}/ie-ft-seed0", picture, "--json").stdout)["images"][0]
    assert got == here
    failed = command("predict", "hf:ann/none", picture, check=False)
    assert failed.returncode == 2
    assert "There is no 'ann/none'" in failed.stderr


def test_the_command_names_what_there_is_to_choose(hub, command, finished):
    failed = command("push", finished[0].id, "ann/pets", check=False)
    assert failed.returncode == 2
    assert "ie-ft-seed1" in failed.stderr
    assert not hub.requests


def test_nothing_is_sent_to_look_at_what_would_be(hub, command, finished, tmp_path):
    command("push", finished[0].id, "ann/run", "--what", "run", "--out", "look", HF_TOKEN="")
    assert (tmp_path / "look" / "report.md").is_file()
    assert not hub.requests


def test_a_library_that_is_switched_off(hub, command):
    failed = command("pull", "ann/pets", check=False, HF_HUB_OFFLINE="1")
    assert failed.returncode == 2
    assert "HF_HUB_OFFLINE=1" in failed.stderr
    assert "no copy" in failed.stderr
    assert not hub.requests


def test_no_token_by_command(hub, command, finished):
    failed = command("push", f"{finished[0].id}/teacher", "ann/pets", check=False, HF_TOKEN="")
    assert failed.returncode == 2
    assert "hf auth login" in failed.stderr
    assert "Traceback" not in failed.stderr
    assert not hub.requests


def test_no_request_tells_more_than_the_version(hub, command, finished):
    """Telemetry is off: the user agent does not list what else is installed, and nothing but the push is asked for."""
    command("push", f"{finished[0].id}/teacher", "ann/pets", HF_HUB_DISABLE_TELEMETRY=None)
    assert len(hub.agents) > 4
    assert not any(word in agent for agent in hub.agents for word in ("torch", "gradio", "agent/"))
    known = ("/api/repos/create", "/api/validate-yaml", "/api/models/ann/pets", "/ann/pets.git/", "/lfs/", "/verify")
    assert all(path.startswith(known) for _, path, _ in hub.requests)


def test_unknown_models_are_errors(hub):
    with pytest.raises(UserError, match="ann/none"):
        iekd.Student.from_pretrained("ann/none")
