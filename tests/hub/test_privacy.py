"""What leaves the machine says nothing of its folders, its user or the names of image files."""

from __future__ import annotations

import getpass
import json
import shutil

import pytest

from iekd.hub.contents import gathered
from iekd.hub.privacy import Scrubber


@pytest.fixture
def at_anns(tmp_path, monkeypatch, picture_folder, tiny_config, complete):
    """A finished run of a user whose folders have telling names, with a space in them, and a broken picture."""
    from iekd.runs.store import Store

    home = tmp_path / "home" / "ann-secret"
    pictures = home / "my clinic" / "pets"
    shutil.copytree(picture_folder, pictures)
    (pictures / "test" / "red" / "John Doe 1970.png").write_bytes(b"no picture")
    image = next((pictures / "test" / "red").glob("0*.png"))
    image.rename(image.with_name("Jane Roe.png"))
    monkeypatch.setenv("HOME", str(home))
    config = tiny_config(dataset=f"folder:{pictures}", methods=("baseline",), teacher="none")
    run, _ = complete(Store(home / "the runs"), config)
    log = run.path / "log.txt"
    log.write_text(
        log.read_text()
        + f'  File "{home}/venv/lib/x.py", line 3\n12:00 INFO {pictures}/test/red\n/srv/ann-secret/x.so\n'
    )
    failed = home / "the runs" / run.id / "events.jsonl"
    failed.write_text(failed.read_text() + '{"event":"failed","error":"\'red/Jane Roe.png\' is broken."}\n')
    return run, home


SECRETS = ("ann-secret", "my clinic", "John Doe", "Jane Roe", "the runs")


@pytest.mark.parametrize("what", ["student", "run", "demo"])
def test_nothing_of_the_machine_is_pushed(at_anns, what, tmp_path):
    run, _ = at_anns
    model = run.model_folders["baseline-seed0"]
    with gathered(what, "ann/pets", run=run, model=None if what == "run" else model) as contents:
        contents.write(tmp_path / "out")
    texts = 0
    for path in (tmp_path / "out").rglob("*"):
        if path.is_file():
            data = path.read_bytes()
            for secret in (*SECRETS, str(tmp_path), f"/{getpass.getuser()}/"):
                assert secret.encode() not in data, f"{secret} is in {path.name}"
            texts += path.suffix in (".json", ".md", ".txt", ".jsonl", ".csv")
    assert texts >= 2
    if what == "demo":
        assert not any(path.suffix in (".png", ".jpg", ".webp") for path in (tmp_path / "out").rglob("*"))
        return
    card = json.loads(next((tmp_path / "out").rglob("model.json")).read_text())
    assert card["datasets"] == ["folder:pets"]
    assert "--dataset folder:pets" in card["command"].replace("'", "")


def test_the_folder_itself_is_not_changed(at_anns):
    run, home = at_anns
    before = {p: p.read_bytes() for p in run.path.rglob("*") if p.is_file()}
    with gathered("run", "ann/pets", run=run):
        pass
    assert before == {p: p.read_bytes() for p in run.path.rglob("*") if p.is_file()}
    assert str(home) in json.dumps(run.config.model_dump(mode="json"))


PUSHED = {
    "README.md", "answers.csv", "config.json", "events.jsonl", "iekd.json", "log.txt", "metrics.jsonl", "models",
    "report.json", "report.md", "status.json",
}  # fmt: skip


def test_files_of_this_machine_stay_here(at_anns):
    run, _ = at_anns
    for name in ("visitor", "launcher.json", "control.json", ".reserve", "notes.json"):
        (run.path / name).write_text("{}")
    copies = ("watched/images.json", "test-set/teacher.npz", "explained/ie-ft.json", "exports/teacher-onnx/model.onnx")
    for name in copies:  # of images, or what can be made again
        (run.path / name).parent.mkdir(parents=True, exist_ok=True)
        (run.path / name).write_text("{}")
    (run.path / "checkpoints" / "students-1").mkdir(parents=True)
    (run.path / "checkpoints" / "students-1" / "state.safetensors").write_bytes(b"large")
    with gathered("run", "ann/pets", run=run) as contents:
        firsts = {name.split("/")[0] for name in contents.files}
        own = {"visitor", "launcher.json", "control.json", ".reserve", "notes.json", "run.lock", "checkpoints"}
        assert not firsts & own
        assert firsts <= PUSHED, "something new in a run's folder: may others see it?"
        assert any("--checkpoints" in note for note in contents.notes)
        status = json.loads(contents.files["status.json"])
        assert "pid" not in status
    with gathered("run", "ann/pets", run=run, checkpoints=True) as contents:
        assert "checkpoints/students-1/state.safetensors" in contents.files


@pytest.mark.parametrize(
    ("text", "clean"),
    [
        ("folder:/data/x/pets", "folder:pets"),
        ("--teacher-from /mnt/a/b.th --epochs 3", "--teacher-from b.th --epochs 3"),
        ('File "/usr/lib/python3/x.py", line 3', 'File "x.py", line 3'),
        ("~/pictures/pets", "pets"),
        ("The folder '/data/my clinic/pets' is gone.", "The folder 'pets' is gone."),
        ("and/or ./configure '/'", "and/or configure '/'"),
        ("/home/bob", "~"),
        ("see https://arxiv.org/abs/2107.00181.", "see https://arxiv.org/abs/2107.00181."),
        ("5/10 epochs, 3 GB/s, T-shirt/top", "5/10 epochs, 3 GB/s, T-shirt/top"),
        ("a / b", "a / b"),
        ("'Jane Roe.png' is broken. Give another.", "'image file' is broken. Give another."),
        ("copies ('red/Jane.PNG', 'x.jpeg' and 3 more): it", "copies ('image file', 'image file' and 3 more): it"),
        (
            "12:00 Skipped, cannot be read: red/Jane Roe.jpg\n12:01 Go",
            "12:00 Skipped, cannot be read: image file\n12:01 Go",
        ),
        ("classes 'png files' and 'red'", "classes 'png files' and 'red'"),
    ],
)
def test_paths_in_texts(text, clean):
    assert Scrubber().text(text) == clean


def test_a_model_without_its_run_says_no_more(at_anns, tmp_path, no_export):
    """As `Student.push_to_hub` sends it: nothing is known of the folders."""
    run, _ = at_anns
    with gathered("student", "ann/pets", model=run.model_folders["baseline-seed0"]) as contents:
        contents.write(tmp_path / "out")
    for path in (tmp_path / "out").iterdir():
        for secret in SECRETS:
            assert secret.encode() not in path.read_bytes(), f"{secret} is in {path.name}"


def test_names_of_classes_stay_as_they_are():
    value = {"class_names": ["/home/bob", "cat"], "command": "/home/bob/x"}
    assert Scrubber().value(value) == {"class_names": ["/home/bob", "cat"], "command": "x"}
    assert Scrubber().value({"class_order": ["/home/bob/names.txt"]}) == {"class_order": ["names.txt"]}


def test_telemetry_is_off_unless_asked_for(fresh_python, monkeypatch):
    for name in ("HF_HUB_DISABLE_TELEMETRY", "GRADIO_ANALYTICS_ENABLED", "DO_NOT_TRACK", "DISABLE_TELEMETRY"):
        monkeypatch.delenv(name, raising=False)
    code = "import os, {0}\nfrom huggingface_hub import constants\nprint(constants.HF_HUB_DISABLE_TELEMETRY, os.environ.get('GRADIO_ANALYTICS_ENABLED'))"  # noqa: E501
    assert fresh_python(code.format("iekd.hub.push")).split()[0] == "True"
    assert fresh_python(code.format("iekd.ui.server.launch")).split() == ["True", "False"]
    monkeypatch.setenv("HF_HUB_DISABLE_TELEMETRY", "0")
    assert fresh_python(code.format("iekd.hub.push")).split()[0] == "False"
