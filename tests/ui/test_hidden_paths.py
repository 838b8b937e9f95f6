"""Strangers read of a run what it did, and no paths of the machine's files."""

from __future__ import annotations

import base64
import json
import re
from html import unescape
from pathlib import Path
from types import SimpleNamespace

from ui_helpers import TOKEN, call

from iekd.config.run import RunConfig
from iekd.runs.store import Run, Store
from iekd.ui.rights.access import Access
from iekd.ui.rights.hidden_paths import without_paths
from iekd.ui.tabs.run import look


def everything_shown(run: Run, access: Access, without: str = "") -> str:
    """All text of the run's page, with the files that its links carry; without its images, which have no text.

    without: a part of the page to leave out.
    """
    stranger = SimpleNamespace(headers={}, cookies={}, client=SimpleNamespace(host="10.0.0.1"))
    looked = look(Store(run.path.parent), run.id, {}, access.of(stranger))
    parts = [part for name, part in looked.items() if isinstance(part, str) and name != without]
    shown = re.sub(r"data:image/[^\"]*", "", unescape("".join(parts)))
    carried = re.findall(r"data:[a-z/]+;base64,([A-Za-z0-9+/=]+)", shown)
    return shown + "".join(base64.b64decode(content).decode(errors="replace") for content in carried)


def test_the_page_says_names_and_no_paths(finished_run: str, runs_dir: Path, pictures: Path) -> None:
    run = Store(runs_dir).get(finished_run)
    own = everything_shown(run, Access())
    assert own.count(str(pictures)) > 4, "log, command, dataset, configuration"
    assert str(runs_dir) in own
    for access in (Access(public=True), Access(public=True, training=True), Access(token=TOKEN)):
        shown = everything_shown(run, access)
        assert str(pictures.parent) not in shown
        assert str(runs_dir) not in shown
        assert f"folder:{pictures.name}" in shown
        rest = [everything_shown(run, who, without="watched") for who in (access, Access())]  # not for strangers
        assert len(rest[0]) > 0.8 * len(rest[1])


def test_programs_are_told_no_paths_either(guarded: str, finished_run: str, pictures: Path) -> None:
    for name, values in (("run_status", [finished_run]), ("list_runs", [])):
        _, told = call(guarded, name, *values)
        assert str(pictures.parent) not in json.dumps(told)
        assert f"folder:{pictures.name}" in json.dumps(told)
        _, told = call(guarded, name, *values, **{"x-iekd-token": TOKEN})
        assert f"folder:{pictures}" in json.dumps(told)


def test_paths_in_any_spelling(tmp_path: Path, monkeypatch) -> None:
    """Of the teacher's file, through a link, with odd letters in JSON, and below the home directory."""
    home, data = tmp_path / "home", tmp_path / "Prüfung"
    data.mkdir()
    (tmp_path / "link").symlink_to(data)
    monkeypatch.setenv("HOME", str(home))
    config = RunConfig(
        dataset=f"folder:{tmp_path / 'link'}", teacher_from=str(data / "secret" / "net.pt"),
        student_from=str(data / "begin" / "small.pt"),
    )  # fmt: skip
    run = SimpleNamespace(config=config, path=tmp_path / "runs" / "x")
    of_data = f"{data}/train/1.png; {tmp_path / 'link'}; {data}/secret/net.pt; {data}/begin/small.pt"
    text = f"{of_data}; {home}/code.py; {tmp_path}/runs/x"
    for told in (without_paths(run, text), json.loads(without_paths(run, json.dumps(text)))):  # type: ignore[arg-type]
        assert told == "link/train/1.png; link; net.pt; small.pt; ~/code.py; runs/x"


def test_a_folder_in_the_place_where_one_stands_hides_nothing(tmp_path: Path) -> None:
    run = SimpleNamespace(config=SimpleNamespace(dataset="folder:.", named_paths=()), path=tmp_path / "x")
    assert without_paths(run, "1.5 points. /etc") == "1.5 points. /etc"  # type: ignore[arg-type]
