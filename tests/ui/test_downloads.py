"""Networks to take home: who gets them, what is in them, and that nothing else of the folder is served. Real HTTP."""

from __future__ import annotations

import csv
import io
import re
import tempfile
import zipfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from ui_helpers import CLIENT, TOKEN, serving

from iekd.models.artifact import load_model
from iekd.runs.store import Store
from iekd.ui.render.downloads import downloads_html
from iekd.ui.rights.access import _visitor


def test_a_network_comes_as_a_zip_that_works(server: str, finished_run: str, runs_dir: Path, tmp_path: Path) -> None:
    run = Store(runs_dir).get(finished_run)
    for name, folder in run.model_folders.items():
        answer = CLIENT.get(f"{server}/download/{finished_run}/{name}")
        assert answer.status_code == 200
        assert answer.headers["content-type"] == "application/zip"
        assert f"{finished_run}-{name}.zip" in answer.headers["content-disposition"]
        with zipfile.ZipFile(io.BytesIO(answer.content)) as archive:
            assert sorted(archive.namelist()) == [
                f"{name}/{f}" for f in ("README.txt", "model.json", "model.safetensors")
            ]
            archive.extractall(tmp_path)
        network, card = load_model(tmp_path / name)
        own, _ = load_model(folder)
        pixels = torch.randn(2, card.channels, card.resolution, card.resolution)
        assert torch.equal(network(pixels).logits, own(pixels).logits)
        note = (tmp_path / name / "README.txt").read_text()
        assert f"{card.params:,} parameters" in note
        assert f"{card.accuracy:.2f} %" in note


def test_all_answers_come_as_a_table(server: str, finished_run: str, runs_dir: Path) -> None:
    run = Store(runs_dir).get(finished_run)
    answer = CLIENT.get(f"{server}/download/{finished_run}/answers.csv")
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/csv")
    header, *rows = csv.reader(io.StringIO(answer.text))
    assert header == ["image", "class", "teacher", "baseline-seed0", "ie-ft-seed0"]
    assert len(rows) == run.report["test_images"]
    assert f'href="./download/{finished_run}/answers.csv"' in downloads_html(run, True)


def test_the_note_in_it_is_true(server: str, finished_run: str, tmp_path: Path, monkeypatch: Any) -> None:
    """Its Python lines run as they stand, in the folder where it lies."""
    answer = CLIENT.get(f"{server}/download/{finished_run}/ie-ft-seed0")
    zipfile.ZipFile(io.BytesIO(answer.content)).extractall(tmp_path)
    note = (tmp_path / "ie-ft-seed0" / "README.txt").read_text()
    lines = [line.strip() for line in note.splitlines() if re.match(r"    (from|network)", line)]
    assert len(lines) == 3
    monkeypatch.chdir(tmp_path / "ie-ft-seed0")
    found: dict[str, object] = {}
    exec("\n".join(lines), found)
    assert callable(found["network"])


@pytest.mark.parametrize(
    "where",
    [
        "nothing/teacher",
        "RUN/nothing",
        "RUN/..",
        "RUN/%2e%2e",
        "..%2f..%2fetc/passwd",
        "RUN/teacher%2f..%2f..",
        ".hidden/teacher",
    ],
)
def test_nothing_else_is_served(server: str, finished_run: str, where: str) -> None:
    answer = CLIENT.get(f"{server}/download/{where.replace('RUN', finished_run)}")
    assert answer.status_code == 404
    assert "Traceback" not in answer.text
    assert "config.json" not in answer.text


def test_strangers_get_no_networks_of_a_guarded_page(guarded: str, finished_run: str) -> None:
    for what in ("teacher", "answers.csv"):
        address = f"{guarded}/download/{finished_run}/{what}"
        refused = CLIENT.get(address)
        assert refused.status_code == 403
        assert "token" in refused.text
        assert CLIENT.get(address, headers={"x-iekd-token": TOKEN}).status_code == 200


def test_visitors_of_a_public_page_get_their_own(runs_dir: Path, finished_run: str) -> None:
    with serving(runs_dir, "--public", IEKD_PUBLIC_TRAINING="1") as url:
        address = f"{url}/download/{finished_run}/teacher"
        assert CLIENT.get(address).status_code == 403
        asker = SimpleNamespace(headers={}, cookies={}, client=SimpleNamespace(host="127.0.0.1"))
        mark = runs_dir / finished_run / "visitor"
        mark.write_text(_visitor(asker, Store(runs_dir)))
        try:
            assert CLIENT.get(address).status_code == 200
        finally:
            mark.unlink()


def test_links_name_each_network_and_only_where_it_may_be_had(finished_run: str, runs_dir: Path) -> None:
    run = Store(runs_dir).get(finished_run)
    html = downloads_html(run, True)
    for name in ("teacher", "baseline-seed0", "ie-ft-seed0"):
        assert f'href="./download/{finished_run}/{name}"' in html
    assert "IE-FT <small>" in html
    assert "kB" in html
    assert "/download/" not in downloads_html(run, False)
    card = run.model_folders["ie-ft-seed0"] / "model.json"
    whole = card.read_text()
    try:
        for broken in ("{", whole.replace('"ie-ft"', '"<img src=x>"')):
            card.write_text(broken)
            shown = downloads_html(run, True)
            assert "Plain student" in shown
            assert "<img" not in shown.lower()
    finally:
        card.write_text(whole)
    assert "report.md" in downloads_html(run, False)


def test_nothing_is_left_behind(server: str, finished_run: str) -> None:
    """Whether it is read to the end or not."""

    def files() -> set[Path]:
        return set(Path(tempfile.gettempdir()).glob("*"))

    before, address = files(), f"{server}/download/{finished_run}/teacher"
    assert CLIENT.get(address).status_code == 200
    with CLIENT.stream("GET", address) as answer:
        next(answer.iter_raw(10))
    assert {path for path in files() - before if path.suffix == ".zip" or path.name.startswith("tmp")} == set()
