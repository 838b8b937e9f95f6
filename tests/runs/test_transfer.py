"""Runs as zip files: there and back, and nothing that was not exported."""

from __future__ import annotations

import json
import os
import stat
import zipfile

import pytest

from iekd.errors import RunError
from iekd.runs import transfer
from iekd.runs.status import FINISHED, STOPPED
from iekd.runs.store import Store
from iekd.runs.transfer import export_run, import_run
from iekd.runs.worker import execute

ID = "20260101-000000-abcd"


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "runs")


@pytest.fixture
def elsewhere(tmp_path):
    made = Store(tmp_path / "elsewhere")
    made.root.mkdir()
    return made


@pytest.fixture
def stopped(store, tiny_config, checkpoints_everywhere):
    """A run that was stopped in the middle of its students."""
    run, handle = store.create(tiny_config(methods=("baseline",), teacher="none", epochs=6))
    execute(run, lambda: len(run.metrics()[0]) >= 4)
    os.close(handle)
    assert run.status.state == STOPPED
    return run


def contents(run):
    left_out = (*transfer.LEFT_OUT, "events.jsonl")
    return {
        str(p.relative_to(run.path)): p.read_bytes()
        for p in run.path.rglob("*")
        if p.is_file() and not {*p.relative_to(run.path).parts} & {*left_out}
    }


def test_a_run_goes_elsewhere_and_is_resumed_there(stopped, elsewhere, tmp_path):
    export_run(stopped, tmp_path / "run.zip")
    run = import_run(elsewhere, tmp_path / "run.zip")
    assert run.id == stopped.id
    assert contents(run) == contents(stopped)
    assert run.status.state == STOPPED
    ends = []
    for each in (stopped, run):
        handle = each.reopen()
        execute(each, lambda: False)
        os.close(handle)
        assert each.status.state == FINISHED
        ends.append((each.model_folders["baseline-seed0"] / "model.safetensors").read_bytes())
    assert ends[0] == ends[1]
    assert not list(elsewhere.root.glob(".*.part"))


def test_without_checkpoints_it_is_smaller(stopped, tmp_path):
    export_run(stopped, tmp_path / "all.zip")
    export_run(stopped, tmp_path / "less.zip", checkpoints=False)
    names = zipfile.ZipFile(tmp_path / "less.zip").namelist()
    assert not [name for name in names if "/checkpoints/" in name]
    assert not [name for name in names if name.endswith(("run.lock", ".reserve"))]
    assert any(name.endswith("model.safetensors") for name in names)
    assert (tmp_path / "less.zip").stat().st_size < (tmp_path / "all.zip").stat().st_size


def test_an_impossible_export_is_reported(store, tiny_config, stopped, tmp_path, refuses):
    run, handle = store.create(tiny_config())
    refuses(lambda: export_run(run, tmp_path / "x.zip"), "still queued", kind=RunError)
    os.close(handle)
    (tmp_path / "there.zip").write_text("mine")
    refuses(lambda: export_run(stopped, tmp_path / "there.zip"), "there already", "--out", kind=RunError)
    assert (tmp_path / "there.zip").read_text() == "mine"
    refuses(lambda: export_run(stopped, tmp_path / "no" / "x.zip"), "--out", kind=RunError)
    assert sorted(p.name for p in tmp_path.glob("*.zip")) == ["there.zip"]


def test_a_run_that_is_there_stays(stopped, store, tmp_path, refuses):
    export_run(stopped, tmp_path / "run.zip")
    before = contents(stopped)
    refuses(lambda: import_run(store, tmp_path / "run.zip"), "already", kind=RunError)
    assert contents(stopped) == before


def packed(path, *entries, config=True):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as made:
        if config:
            made.writestr(f"{ID}/config.json", "{}")
        for entry, content in entries:
            made.writestr(entry, content)
    return path


def link(name):
    entry = zipfile.ZipInfo(name)
    entry.external_attr = (stat.S_IFLNK | 0o777) << 16
    return entry


def device(name):
    entry = zipfile.ZipInfo(name)
    entry.external_attr = (stat.S_IFCHR | 0o666) << 16
    return entry


@pytest.mark.parametrize(
    ("entries", "why"),
    [
        ([(f"{ID}/../evil.txt", "x")], "outside"),
        ([("../evil.txt", "x")], "outside"),
        ([("/tmp/evil.txt", "x")], "outside"),
        ([(f"{ID}\\..\\evil.txt", "x")], "outside"),
        ([("C:/evil.txt", "x")], "outside"),
        ([(link(f"{ID}/models"), "/etc")], "not a plain file"),
        ([(device(f"{ID}/null"), "")], "not a plain file"),
        ([("another/config.json", "{}")], "one run"),
        ([(f"{ID}/run.lock", "")], "does not belong to a run"),
        ([(f"{ID}/control.json", "{}")], "does not belong to a run"),
        ([(f"{ID}/.hidden", "")], "does not belong to a run"),
        ([("loose.txt", "")], "does not belong to a run"),
        ([(f"{ID}/bomb", bytes(50_000_000))], "unpacks to 50,000,000 bytes"),
        ([(f"{ID}/{n}", "") for n in range(2001)], "2,002 entries"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_was_not_exported_is_refused_and_leaves_nothing(elsewhere, tmp_path, refuses, entries, why):
    path = packed(tmp_path / "bad.zip", *entries)
    before = sorted(tmp_path.rglob("*"))
    refuses(lambda: import_run(elsewhere, path), why, kind=RunError)
    assert sorted(tmp_path.rglob("*")) == before


def test_other_files_are_refused(elsewhere, tmp_path, refuses, stopped):
    refuses(lambda: import_run(elsewhere, tmp_path / "nothing.zip"), "cannot be read", kind=RunError)
    (tmp_path / "text.zip").write_text("no zip")
    refuses(lambda: import_run(elsewhere, tmp_path / "text.zip"), "cannot be read", kind=RunError)
    refuses(lambda: import_run(elsewhere, packed(tmp_path / "e.zip", config=False)), "one run", kind=RunError)
    only = packed(tmp_path / "o.zip", (f"{ID}/metrics.jsonl", ""), config=False)
    refuses(lambda: import_run(elsewhere, only), "config.json", kind=RunError)
    broken = packed(tmp_path / "b.zip", (f"{ID}/config.json", "[1]"), config=False)
    refuses(lambda: import_run(elsewhere, broken), "damaged or not an exported run", kind=RunError)
    export_run(stopped, tmp_path / "run.zip")
    data = bytearray((tmp_path / "run.zip").read_bytes())
    data[len(data) // 2] ^= 1
    (tmp_path / "flipped.zip").write_bytes(data)
    refuses(lambda: import_run(elsewhere, tmp_path / "flipped.zip"), "damaged", kind=RunError)
    assert list(elsewhere.root.iterdir()) == []


def with_other(run, name, content, folder):
    """A run as a zip in which one file has another content."""
    export_run(run, folder / "run.zip")
    with zipfile.ZipFile(folder / "run.zip") as good, zipfile.ZipFile(folder / "bad.zip", "w") as bad:
        for entry in good.infolist():
            if not entry.filename.endswith("/" + name):
                bad.writestr(entry, good.read(entry))
        bad.writestr(f"{run.id}/{name}", content)
    return folder / "bad.zip"


@pytest.mark.parametrize("name", [".keys", "teachers", "20260101-000000-abcd.part", "x"])
def test_a_folder_whose_name_is_not_a_runs_id_is_refused(elsewhere, tmp_path, refuses, name):
    path = packed(tmp_path / "x.zip", (f"{name}/config.json", json.dumps({})), config=False)
    refuses(lambda: import_run(elsewhere, path), "one run", kind=RunError)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("status.json", "[1]"),
        ("status.json", '{"state": "finished", "created": "x"}'),
        ("status.json", '{"state": "<b>", "created": 1}'),
        ("config.json", '{"name": ["<img src=x onerror=alert(1)>"]}'),
        ("config.json", '{"seeds": 5}'),
        ("metrics.jsonl", "no JSON\n"),
        ("metrics.jsonl", '{"stage": 3}\n'),
        ("report.json", '{"learners": 3}'),
    ],
)
def test_contents_that_pages_could_not_read_are_refused(stopped, elsewhere, tmp_path, refuses, name, content):
    """One such folder would hold up the list of all runs, or bring a script into it."""
    bad = with_other(stopped, name, content, tmp_path)
    refuses(lambda: import_run(elsewhere, bad), "damaged or not an exported run", kind=RunError)
    assert list(elsewhere.root.iterdir()) == []


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"dataset": "their-source:x"}, ["no dataset 'their-source:x' here", "IEKD_PLUGINS"]),
        ({"student": "their-net"}, ["no model 'their-net' here", "IEKD_PLUGINS"]),
        ({"student": "<img src=x onerror=alert(1)>"}, ["no model '<img", "IEKD_PLUGINS"]),
        ({"methods": ["baseline", "their-method"]}, ["no method 'their-method' here", "version of iekd"]),
    ],
)
def test_a_run_of_somebodys_plugin_says_which_name_is_missing(stopped, elsewhere, tmp_path, refuses, change, words):
    config = {**stopped.config.model_dump(mode="json"), **change}
    bad = with_other(stopped, "config.json", json.dumps(config), tmp_path)
    said = refuses(lambda: import_run(elsewhere, bad), *words, kind=RunError)
    assert "damaged" not in said
    assert list(elsewhere.root.iterdir()) == []


def test_with_the_plugin_that_run_is_imported(stopped, elsewhere, tmp_path, monkeypatch, fresh_python):
    (tmp_path / "their_source.py").write_text(
        "from iekd.data.bundled import FashionSample\nfrom iekd.data.registry import register\n"
        "class Theirs(FashionSample):\n    name = 'their-sample'\nregister(Theirs())\n"
    )
    monkeypatch.setenv("IEKD_PLUGINS", str(tmp_path / "their_source.py"))
    config = {**stopped.config.model_dump(mode="json"), "dataset": "their-sample"}
    path = with_other(stopped, "config.json", json.dumps(config), tmp_path)
    code = "from iekd.cli.main import app; app(['runs', 'import', {!r}, '--runs-dir', {!r}])"
    fresh_python(code.format(str(path), str(elsewhere.root)))
    assert elsewhere.get(stopped.id).config.dataset == "their-sample"


@pytest.mark.parametrize(
    "tested",
    [{"low": "<img src=x>", "high": 1, "n": 9}, {"low": 0, "high": "<b>", "n": 9}, {"low": 1}, [3], "x", {"low": []}],
)
def test_a_report_with_odd_intervals_is_refused(finished, elsewhere, tmp_path, refuses, tested):
    run = finished[0]
    report = run.report
    for summary in report["summary"]:
        if summary["difference"]:
            summary["difference"]["over_images"] = tested
    bad = with_other(run, "report.json", json.dumps(report), tmp_path)
    refuses(lambda: import_run(elsewhere, bad), "damaged or not an exported run", kind=RunError)


def test_any_flipped_bit_is_a_sentence(stopped, elsewhere, tmp_path):
    export_run(stopped, tmp_path / "run.zip", checkpoints=False)
    whole, refused = (tmp_path / "run.zip").read_bytes(), 0
    for offset in range(0, len(whole), len(whole) // 60):
        data = bytearray(whole)
        data[offset] ^= 16
        (tmp_path / "flipped.zip").write_bytes(data)
        try:
            elsewhere.delete(import_run(elsewhere, tmp_path / "flipped.zip").id)
        except RunError:  # anything else escapes and fails the test
            refused += 1
    assert refused > 50, "only a time or a comment may be anything"
