"""What is sent to a job of the Hub, what happens inside of it, and what is fetched."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
import time

import pytest

from iekd import data
from iekd.errors import UserError
from iekd.launchers import hub_follow, hub_jobs, in_job, sending
from iekd.launchers.flavors import seconds_in
from iekd.launchers.in_job import Mirror
from iekd.runs.files import read_json, write_json
from iekd.runs.owner import set_owner
from iekd.runs.status import STOPPED
from iekd.runs.store import Run, Store


def test_the_job_copies_the_state_last_and_forgets_what_is_gone(tmp_path, monkeypatch):
    source, target = tmp_path / "a", tmp_path / "b"
    for name in ("status.json", "log.txt", "checkpoints/1/manifest.json", "checkpoints/1/state.bin", "control.json"):
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).write_text(name)
    order, copy = [], shutil.copyfile
    monkeypatch.setattr(shutil, "copyfile", lambda a, b: (order.append(b.relative_to(target).as_posix()), copy(a, b)))
    mirror = Mirror(source, target)
    mirror.copy(heavy=True)
    assert order == ["checkpoints/1/state.bin", "checkpoints/1/manifest.json", "log.txt", "status.json"]
    mirror.copy(heavy=True)
    assert len(order) == 4, "what is the same is not copied again"
    shutil.rmtree(source / "checkpoints")
    mirror.copy(heavy=True)
    assert not (target / "checkpoints/1/state.bin").exists()


def test_the_job_refuses_files_for_other_places(tmp_path, refuses):
    for name in ("root/../x", "elsewhere/x"):
        with tarfile.open(tmp_path / "a.tar", "w") as packed:
            packed.addfile(tarfile.TarInfo(name))
        refuses(lambda: in_job.unpack(tmp_path / "a.tar", tmp_path / "runs"), name)


def test_a_job_stops_its_worker_before_its_time_is_over(tmp_path, tiny_config, monkeypatch):
    run, handle = Store(tmp_path / "runs").create(tiny_config(dataset="fashion-mnist-sample"))
    os.close(handle)
    set_owner(run.path, "hf-jobs")
    mount = tmp_path / "mount"
    shutil.copytree(run.path, mount / "run")
    write_json(mount / "job.json", {"run": run.id, "seconds": 1000})
    program = (  # in the place of the worker: it ends when it is asked to, and any signal kills it
        "import json, pathlib, time; run = pathlib.Path({!r})\n"
        "while not (run / 'control.json').exists(): time.sleep(0.02)\n"
        "state = json.loads((run / 'status.json').read_text()); state['state'] = 'stopped'\n"
        "(run / 'new').write_text(json.dumps(state)); (run / 'new').replace(run / 'status.json')"
    )
    popen = subprocess.Popen

    def start(words, **options):
        ready.append(words)
        return popen([sys.executable, "-c", program.format(words[-1])], **options)

    ready: list = []
    monkeypatch.setattr(in_job.subprocess, "Popen", start)
    monkeypatch.setattr(in_job.signal, "signal", lambda *_: None)
    job = in_job.Job(mount, tmp_path / "work", began=time.time() - 899, every=0.05)
    assert job.execute() == 0
    assert ready[0][1:3] == ["-m", "iekd.runs.worker"]
    found = read_json(mount / "run" / "status.json")
    assert (found["state"], "time of 16.7 min was nearly over" in found["error"]) == (STOPPED, True)


def test_what_is_installed_in_a_job_is_what_this_program_needs():
    lines = sending.requirements_text().splitlines()
    assert any(line.startswith("torch!=") or line.startswith("torch>=") for line in lines)
    assert not any("extra" in line or "ruff" in line for line in lines)
    assert "uv pip install" in hub_jobs.command("")
    assert "iekd.zip" not in hub_jobs.command("iekd==1.0")


def sent_of(config, store, root):
    return {path.relative_to(root).as_posix() for path, _ in sending.inputs_of(config, store).files}


def test_of_a_folder_only_what_the_run_reads_is_sent(tmp_path, tiny_config, picture_folder):
    pictures = tmp_path / "pets"
    shutil.copytree(picture_folder, pictures)
    images = {path.relative_to(pictures).as_posix() for path in pictures.rglob("*.png")}
    (pictures / "notes.txt").write_text("my diary, page 1\nmy diary, page 2\n")
    (pictures / "contacts.csv").write_text("name,phone\nann,1\nbob,2\n")
    listed = "".join(f"{name},{name.split('/')[-2]}\n" for name in sorted(images))
    (pictures / "labels.csv").write_text(f"file,label\n{listed}")
    (pictures / "extra.jpg").write_bytes(b"outside of the class folders")
    config, store = tiny_config(dataset=f"folder:{pictures}"), Store(tmp_path / "runs")
    assert sent_of(config, store, pictures) == {*images, "labels.csv"}
    more = tmp_path / "more"
    shutil.copytree(next(path for path in pictures.rglob("*.png")).parent, more)
    (more / "notes.txt").write_text("private")
    config = config.model_copy(update={"dataset": "fashion-mnist-sample", "unlabelled": str(more)})
    sent = sent_of(config, store, more)
    assert sent
    assert {name.rpartition(".")[2] for name in sent} == {"png"}


def test_of_a_table_only_what_it_lists_is_sent(tmp_path, tiny_config, picture_folder):
    """Its folder may be the user's own, with everything that they have."""
    home = tmp_path / "ann"
    shutil.copytree(picture_folder, home / "pets")
    shutil.copytree(picture_folder, home / "holiday", ignore=lambda _, names: [n for n in names if n.endswith("1.png")])
    (home / "notes.txt").write_text("my diary, page 1\nmy diary, page 2\n")
    (home / "other.csv").write_text("name,phone\nann,1\nbob,2\n")
    images = sorted(path.relative_to(home).as_posix() for path in (home / "pets").rglob("*.png"))
    lines = [f"{name},{name.split('/')[-2] if i % 4 == 0 else ''}\n" for i, name in enumerate(images)]
    (home / "labels.csv").write_text("file,label\n" + "".join(lines))
    config = tiny_config(dataset=f"csv:{home / 'labels.csv'}")
    inputs = sending.inputs_of(config, Store(tmp_path / "runs"))
    assert {path.relative_to(home).as_posix() for path, _ in inputs.files} == {*images, "labels.csv"}
    here = data.describe(config.dataset)
    sending.pack(inputs, tmp_path / "inputs.tar")
    home.rename(tmp_path / "elsewhere")
    in_job.unpack(tmp_path / "inputs.tar", tmp_path / "runs")
    there = data.describe(config.dataset)
    assert (there.class_sizes, there.fingerprint) == (here.class_sizes, here.fingerprint), (
        "the job has the same dataset"
    )


def test_what_describes_weights_is_sent_with_them(tmp_path, tiny_config):
    """Their network, how their images are normalised, and the order of their classes."""
    described = ("model.safetensors", "config.json", "preprocessor_config.json", "classes.txt")
    for name in (*described, "secret.txt"):
        (tmp_path / name).write_text("{}")
    config = tiny_config(teacher_from=str(tmp_path / "model.safetensors"))
    assert sorted(path.name for path in sending._weights(config)) == sorted(described)


def test_nothing_is_fetched_to_another_place(tmp_path):
    run = Run(tmp_path / "r")
    names = ("../x", "a/../../x", "/x", "config.json", "launcher.json", ".hidden", "checkpoints/1/a")
    assert [hub_follow._target(run, "run", name, False, False) for name in names] == [None] * len(names)
    assert hub_follow._target(run, "run", "log.txt", False, False) == run.path / "log.txt"
    with pytest.raises(UserError):
        seconds_in("-1h")
