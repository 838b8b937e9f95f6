"""The folder that `make space` builds opens as a Space; what a Space's disk and ZeroGPU change."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from browser import ARGUMENTS, find_browser
from huggingface_hub import SpaceHardware
from ui_helpers import CLIENT, PATIENCE, ROOT, call, serving, wait_until

from iekd.errors import UserError
from iekd.launchers.local import LocalLauncher
from iekd.runs import filesystem
from iekd.runs.slots import device_name
from iekd.runs.store import Store
from iekd.ui.shared import space

COLOURS = ("red", "yellow", "green", "blue", "indigo", "purple", "pink", "gray")  # that the Hub knows
NOBODY = 65534


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("space") / "built"
    done = subprocess.run(
        [sys.executable, str(ROOT / ".ci" / "space.py"), "--out", str(out), "--models", "someone/student"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert f"hf upload ORG/NAME {out}" in done.stdout
    return out


@pytest.fixture
def in_a_space(monkeypatch):
    for name in ("IEKD_RUNS_DIR", "SPACES_ZERO_GPU"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("SPACE_ID", "someone/space")


def front_matter(readme: Path) -> dict[str, Any]:
    import yaml

    return yaml.safe_load(readme.read_text().split("---\n")[1])


def test_the_front_matter_is_what_the_hub_accepts():
    found = front_matter(ROOT / "README.md")
    assert found["sdk"] == "gradio"
    pinned = re.search(r"^gradio==(.*)$", (ROOT / "constraints.txt").read_text(), re.M)[1]
    assert found["sdk_version"] == pinned, "the version that is tested"
    assert (ROOT / found["app_file"]).is_file()
    assert {found["colorFrom"], found["colorTo"]} <= set(COLOURS)
    assert found["python_version"] == "3.12", "one that ZeroGPU has, as text: 3.10 would be read as 3.1"
    assert found["hf_oauth"] is True
    assert found["hf_oauth_scopes"] == ["contribute-repos"]
    assert len(found["short_description"]) <= 60, "the Hub refuses longer ones"
    assert len(found["emoji"]) == 1
    assert found["suggested_hardware"] in [hardware.value for hardware in SpaceHardware]
    assert found["license"] == "mit"
    assert "knowledge-distillation" in found["tags"]


def test_the_folder_has_requirements_of_its_own_and_no_tests(folder):
    lines = (folder / "requirements.txt").read_text().splitlines()
    torch = next(line for line in lines if line.startswith("torch=="))
    assert (2, 8) <= tuple(map(int, torch.removeprefix("torch==").split(".")[:2])) <= (2, 11), "what ZeroGPU takes"
    assert not any(line.startswith("gradio") for line in lines), "the Space's own is used"
    named = {re.split(r"[^\w-]", line)[0] for line in lines}
    root = {re.split(r"[^\w-]", line)[0] for line in (ROOT / "requirements.txt").read_text().splitlines()}
    assert named - {""} == root - {"", "gradio"} | {"spaces"}
    assert not (folder / "tests").exists()
    assert front_matter(folder / "README.md")["models"] == ["someone/student"]


def test_binary_files_are_stored_with_lfs(folder):
    patterns = [line.split()[0] for line in (folder / ".gitattributes").read_text().splitlines()]
    for path in folder.rglob("*"):
        if path.is_file() and b"\0" in path.read_bytes()[:8000]:
            assert any(path.match(pattern) for pattern in patterns), f"the Hub refuses {path.name}"


def test_a_folder_of_somebody_else_is_not_replaced(tmp_path):
    (tmp_path / "thesis.txt").write_text("years of work")
    done = subprocess.run(
        [sys.executable, str(ROOT / ".ci" / "space.py"), "--out", str(tmp_path)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert "Name another with --out" in done.stderr
    assert (tmp_path / "thesis.txt").exists()


@pytest.mark.browser
@pytest.mark.parametrize("user", [None, NOBODY], ids=["this user", "an unprivileged user"])
def test_the_folder_opens_as_a_space_and_compares_a_picture(folder, tmp_path_factory, user):
    """With nothing of this checkout in its environment, and without a bucket."""
    from playwright.sync_api import sync_playwright

    home = tmp_path_factory.mktemp("home")
    if user is not None:
        if os.geteuid() != 0:
            pytest.skip("this user is unprivileged already")
        try:
            subprocess.run([sys.executable, "-c", "import torch"], user=user, check=True, capture_output=True, cwd="/")
        except (PermissionError, subprocess.CalledProcessError):
            pytest.skip("other users cannot read the folder of this Python")
        for path in (folder, *folder.rglob("*")):
            os.chown(path, user, user)
        os.chown(home, user, user)
        for parent in (*folder.parents, *home.parents):
            if parent.stat().st_uid == 0 and not parent.stat().st_mode & 1:
                parent.chmod(parent.stat().st_mode | 0o011)
    environment = {
        "PATH": os.environ["PATH"], "HOME": str(home), "SPACE_ID": "someone/space", "SYSTEM": "spaces",
        "SPACE_HOST": "someone-space.hf.space", "PYTHONUNBUFFERED": "1", "IEKD_PROBE": "0",
    }  # fmt: skip
    process = subprocess.Popen(
        [sys.executable, "app.py", "--port", "0", "--host", "127.0.0.1"], cwd=folder, env=environment, user=user,
        stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        assert process.stdout is not None
        found = (re.search(r"http://\S+", line) for line in process.stdout)  # Gradio writes a line about Spaces first
        url = next(match[0] for match in found if match)
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=find_browser(), args=ARGUMENTS)
            page = browser.new_page()
            page.set_default_timeout(1000 * PATIENCE)
            page.goto(f"{url}?tab=compare")
            assert "no storage bucket is attached" in page.locator(".notice").inner_text()
            page.locator("#examples [data-example]").first.click()
            page.wait_for_selector("#comparison .answer")
            said = page.locator("#comparison").inner_text()
            assert "%" in said
            browser.close()
        assert (folder / "runs").is_dir(), "without a bucket runs are in the Space's own folder"
        assert CLIENT.get(f"{url}/healthz").status_code == 200
    finally:
        process.terminate()
        process.wait(PATIENCE)
        process.stdout.close()


def test_a_space_listens_on_all_addresses(in_a_space, monkeypatch):
    assert space.default_host() == "0.0.0.0"
    monkeypatch.delenv("SPACE_ID")
    assert space.default_host() == "127.0.0.1"


def test_runs_are_in_the_bucket_if_one_is_attached(in_a_space, monkeypatch, tmp_path):
    monkeypatch.setattr(space, "BUCKET", tmp_path)
    assert space.default_runs_dir() == Path("runs"), "a folder of that name on the Space's disk is no bucket"
    assert any("lost when this Space restarts" in text for text in space.notices())
    monkeypatch.setattr(os.path, "ismount", lambda path: Path(path) == tmp_path)
    assert space.default_runs_dir() == tmp_path / "runs"
    assert space.notices() == []
    assert list(tmp_path.iterdir()) == [], "what was tried is removed"


def test_a_bucket_without_locks_is_not_trusted(in_a_space, monkeypatch, tmp_path):
    monkeypatch.setattr(space, "BUCKET", tmp_path)
    monkeypatch.setattr(os.path, "ismount", lambda path: Path(path) == tmp_path)

    def no_locks(*_: Any) -> None:
        raise OSError(37, "No locks available")

    monkeypatch.setattr(filesystem, "fcntl", SimpleNamespace(flock=no_locks, LOCK_EX=2, LOCK_NB=4))
    assert space.default_runs_dir() == Path("runs")
    assert "file locks (No locks available)" in space.notices()[0]
    monkeypatch.setattr(filesystem, "fcntl", SimpleNamespace(flock=lambda *_: None, LOCK_EX=2, LOCK_NB=4))
    assert "two programs got the same lock" in space.notices()[0]


def test_a_bucket_that_cannot_rename_is_not_trusted(in_a_space, monkeypatch, tmp_path):
    def refuse(*_: Any) -> None:
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(os, "replace", refuse)
    assert filesystem.what_it_lacks(tmp_path) == "writing (Operation not supported)"


def test_a_named_folder_of_runs_is_used_as_it_is(in_a_space, monkeypatch):
    monkeypatch.setenv("IEKD_RUNS_DIR", "/elsewhere")
    assert space.default_runs_dir() == Path("/elsewhere")
    assert space.notices() == []
    monkeypatch.setenv("IEKD_RUNS_DIR", "/data/runs")  # as in a Docker Space
    assert space.default_runs_dir() == Path("/data/runs")
    assert "no storage bucket is attached at /data" in space.notices()[0]


FAKE = """
asked, refuse = [], False
def GPU(duration):
    def decorate(function):
        def lent(*args):
            asked.append(duration)
            if refuse:
                raise RuntimeError("You have used up your GPU share of today")
            return function(*args)
        return lent
    return decorate
"""


@pytest.fixture
def lending(in_a_space, monkeypatch, tmp_path) -> Any:
    """ZeroGPU, with a stand-in for its package."""
    (tmp_path / "spaces.py").write_text(FAKE)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "spaces", raising=False)
    monkeypatch.setenv("SPACES_ZERO_GPU", "true")
    space.prepare()
    yield sys.modules["spaces"]
    sys.modules.pop("spaces", None)


def test_comparing_borrows_a_gpu_and_does_without_if_none_is_lent(lending):
    def where(word: str, device: str = "cpu") -> str:
        if not word:
            raise UserError("No word was given.")
        return f"{word} on {device}"

    asked = space.with_gpu(where)
    assert asked("a shoe") == "a shoe on cuda"
    assert lending.asked == [space.GPU_SECONDS]
    with pytest.raises(UserError):
        asked("")
    lending.refuse = True
    assert asked("a bag") == "a bag on cpu"


def test_the_page_on_zero_gpu_compares_although_nothing_is_lent(tmp_path):
    """Its own package is imported first, and a GPU that is not there is no reason for no answer."""
    asked = tmp_path / "a GPU was asked for"
    noting = FAKE.replace("asked.append(duration)", f"open({str(asked)!r}, 'w').close()")
    (tmp_path / "spaces.py").write_text(f"import sys\nassert 'torch' not in sys.modules\n{noting}")
    path = os.pathsep.join([str(tmp_path), str(ROOT)])
    with serving(tmp_path, SPACE_ID="someone/space", SPACES_ZERO_GPU="true", PYTHONPATH=path) as url:
        picture = ROOT / "docs" / "app.png"
        (stored,) = CLIENT.post(f"{url}/gradio_api/upload", files={"files": picture.read_bytes()}).json()
        kind, answer = call(url, "compare", "", [{"path": stored, "meta": {"_type": "gradio.FileData"}}])
        assert kind == "complete"
        assert answer[0]["images"][0]["predictions"]
        assert asked.exists()
        assert "runs train on the CPU" in CLIENT.get(url).text


def test_elsewhere_no_gpu_is_borrowed(in_a_space):
    def function() -> None: ...

    assert space.with_gpu(function) is function
    assert "spaces" not in sys.modules


def test_runs_train_on_the_cpu_there_and_the_page_says_so(lending, tmp_path, monkeypatch):
    assert device_name("auto") == "cpu"
    assert any("runs train on the CPU" in text for text in space.notices())
    started: list[dict[str, str]] = []
    monkeypatch.setattr(subprocess, "Popen", lambda *_, env, **__: started.append(env))
    run = SimpleNamespace(path=tmp_path)
    LocalLauncher(Store(tmp_path)).start(run, 0)
    monkeypatch.delenv("SPACES_ZERO_GPU")
    LocalLauncher(Store(tmp_path)).start(run, 0)
    assert started[0]["CUDA_VISIBLE_DEVICES"] == ""
    assert started[1].get("CUDA_VISIBLE_DEVICES") == os.environ.get("CUDA_VISIBLE_DEVICES")


def test_the_page_of_a_space_without_a_bucket_warns(tmp_path):
    with serving(tmp_path, SPACE_ID="someone/space", IEKD_RUNS_DIR="") as url:
        assert "no storage bucket is attached" in wait_until(lambda: CLIENT.get(url).text)
