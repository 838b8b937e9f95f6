"""The list of runs: search, order, pages, what a stranger sees, what the buttons do; and runs side by side."""

from __future__ import annotations

import os
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from test_access import asker
from ui_helpers import TOKEN

from iekd.config.run import make_config
from iekd.errors import UserError
from iekd.launchers.local import LocalLauncher
from iekd.runs.compare import compare_runs
from iekd.runs.index import Index
from iekd.runs.notes import Notes, read_notes, write_notes
from iekd.runs.store import Run, Store
from iekd.ui.api.methods import Actions
from iekd.ui.render import sparkline
from iekd.ui.render.compare_runs import comparison_html
from iekd.ui.render.runs import Query, list_html, select, title, tools_html
from iekd.ui.render.sparkline import Sparklines
from iekd.ui.rights.access import Access
from iekd.ui.tabs.runs import act, runs_tab, table_html


def everybody(run: Run, what: str) -> bool:
    return True


def stranger(run: Run, what: str) -> bool:
    return False


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path)


def found(store: Store, may: Any = everybody, **query: Any) -> list[str]:
    return [title(entry) for entry in select(Index(store).entries(), Query.read(query), may)]


def test_runs_are_found_by_all_words_of_a_search_and_by_filters(store: Store, written_run: Any) -> None:
    one = written_run(store, name="Shirts", student="resnet8")
    written_run(store, name="Coats", student="resnet20", plain=10.0, taught=10.0)
    write_notes(one, note="with Cutout", starred=True)
    assert found(store, search="SHIRTS") == ["Shirts"]
    assert found(store, search="resnet-20 coat") == ["Coats"]
    assert found(store, search="shirts coats") == []
    assert found(store, search="cutout") == ["Shirts"]
    assert found(store, search=one.id) == ["Shirts"]
    assert found(store, state="starred") == ["Shirts"]
    assert found(store, state="weak") == ["Coats"]
    assert found(store, state="running") == []
    assert found(store, dataset="CIFAR-10") == []
    assert found(store, stranger, search="cutout") == found(store, stranger, state="starred") == []


def test_the_order_and_what_has_no_numbers_yet_comes_last(store: Store, written_run: Any) -> None:
    written_run(store, name="b", plain=86.0, taught=87.0)
    written_run(store, name="A", plain=80.0, taught=85.0)
    written_run(store, name="c", methods=("baseline",), plain=92.0)
    _, handle = store.create(make_config(name="d"))
    assert handle is not None
    os.close(handle)
    assert found(store) == ["d", "c", "A", "b"]
    assert found(store, sort="name") == ["A", "b", "c", "d"]
    assert found(store, sort="gain") == ["A", "b", "d", "c"]
    assert found(store, sort="accuracy") == ["c", "b", "A", "d"]


@pytest.mark.parametrize("sent", [None, [], {"page": -3, "sort": {}, "search": ["a"]}, {"page": "2", "sort": "x"}])
def test_a_query_that_makes_no_sense_shows_the_list(store: Store, written_run: Any, sent: Any) -> None:
    written_run(store, name="['a']")
    html = list_html(Index(store), Sparklines(), Query.read(sent), everybody)
    assert html.count("<tr data-act") == 1


def test_long_lists_have_pages(store: Store, written_run: Any, monkeypatch: Any) -> None:
    monkeypatch.setattr("iekd.ui.render.runs.PAGE", 3)
    for i in range(4):
        written_run(store, name=f"coats{i}", epochs=1, methods=("baseline",))
    index, sparks = Index(store), Sparklines()
    first, second, beyond = (list_html(index, sparks, Query(page=page), everybody) for page in (0, 1, 7))
    assert first.count("<tr data-act") == 3
    assert second.count("<tr data-act") == 1
    assert beyond == second
    assert "4 to 4 of 4" in second
    assert "data-page" not in list_html(index, sparks, Query(search="coats2"), everybody)


def test_the_numbers_of_a_run(store: Store, written_run: Any) -> None:
    written_run(store)
    row = table_html(store, everybody)
    for text in ("94.0", "86.0", "<b>88.0</b>", "IE-FT", "+2.0", "+1.0 to +3.0", "one seed", "1,000 test images"):
        assert text in row, text
    assert "too weak" not in row
    written_run(store, name="weak", plain=10.0, taught=10.1)
    assert "too weak to judge" in table_html(store, everybody, Query(search="weak"))


def test_a_stranger_sees_the_table_without_notes_stars_and_buttons(store: Store, written_run: Any) -> None:
    run, other = written_run(store, name="first"), written_run(store)
    write_notes(run, name="<b>second</b>", note="for my eyes", starred=True)
    store_, access = store, Access(public=True)
    shown = table_html(store_, access.of(asker()))
    assert "&lt;b&gt;second&lt;/b&gt;" in shown
    assert "for my eyes" not in shown
    assert not re.search(r'data-do="(star|edit|undo)"|★|data-bar="delete"', shown)
    own = table_html(store_, Access().of(None))
    assert "for my eyes" in own
    assert "★" in own
    launcher = LocalLauncher(store)
    for what in ("star", "edit", "delete"):
        refused(launcher, access, SimpleNamespace(run=f"{other.id},{run.id}" if what == "delete" else run.id, act=what))
    assert read_notes(run).starred
    assert len(store.list()) == 2


def refused(launcher: LocalLauncher, access: Access, event: Any) -> None:
    """The button changes nothing, and the page says why."""
    with pytest.MonkeyPatch.context() as patch:
        said: list[str] = []
        patch.setattr("iekd.ui.tabs.runs.gr.Warning", said.append)
        act(launcher, access, asker(), event)
        assert "You may not" in said[0] or "cannot" in said[0], said


def test_what_a_token_may_undo_a_stranger_may_not(store: Store, written_run: Any) -> None:
    run, launcher, access = written_run(store), LocalLauncher(store), Access(token=TOKEN)
    admin = asker(**{"x-iekd-token": TOKEN})
    act(launcher, access, admin, SimpleNamespace(run=run.id, act="delete"))
    assert store.list() == []
    (batch,) = re.findall(r'data-batch="([^"]+)"', table_html(store, access.of(admin)))
    assert "data-batch" not in table_html(store, access.of(asker()))
    refused(launcher, access, SimpleNamespace(run="", act="undo", batch=batch))
    refused(launcher, access, SimpleNamespace(run="", act="undo", batch="../x"))
    assert store.list() == []
    act(launcher, access, admin, SimpleNamespace(run="", act="undo", batch=batch))
    assert [run.id for run in store.list()] == [run.id]


def test_buttons_rename_and_star(store: Store, written_run: Any) -> None:
    run, launcher = written_run(store), LocalLauncher(store)
    act(launcher, Access(), asker(), SimpleNamespace(run=run.id, act="edit", name="new", note="why"))
    act(launcher, Access(), asker(), SimpleNamespace(run=run.id, act="star", on=True))
    assert read_notes(run) == Notes("new", True, "why")
    act(launcher, Access(), asker(), SimpleNamespace(run=run.id, act="star", on=False))
    assert read_notes(run) == Notes("new", False, "why")


def test_the_fields_name_the_datasets_there_are_and_what_is_chosen(store: Store, written_run: Any) -> None:
    written_run(store)
    tools = tools_html(Index(store), Query(search='"><b>', sort="gain", state="finished"), everybody)
    assert "Fashion-MNIST" in tools
    assert "CIFAR" not in tools
    assert '<option value="gain" selected>' in tools
    assert '<option value="finished" selected>' in tools
    assert "<b>" not in tools
    assert "Too weak" not in tools
    assert "Starred" not in tools_html(Index(store), Query(), stranger)


def test_a_sparkline_reads_only_what_is_new(store: Store, written_run: Any, monkeypatch: Any) -> None:
    run, sparks = written_run(store, epochs=4), Sparklines()
    read: list[int] = []
    reader = sparkline._read
    monkeypatch.setattr(
        sparkline, "_read", lambda path, offset, lines: read.append(offset) or reader(path, offset, lines)
    )
    drawn = sparks.draw(run, 1)
    assert drawn.count("<polyline") == 2
    assert "Plain student 56.0 to 86.0 %; IE-FT 58.0 to 88.0 %" in drawn
    assert sparks.draw(run, 1) == drawn
    assert read == [0]
    size = (run.path / "metrics.jsonl").stat().st_size
    writer = run.metrics_writer()
    row = {"stage": "students", "learner": "ie-ft-seed0", "kind": "test", "epoch": 5, "values": {"accuracy": 91.0}}
    writer.append(row)
    writer.close()
    assert "IE-FT 58.0 to 91.0 %" in sparks.draw(run, 1)
    assert read == [0, size]
    (run.path / "metrics.jsonl").write_bytes(b"")  # another attempt begins again
    assert sparks.draw(run, 2) == ""


def test_runs_side_by_side(store: Store, written_run: Any) -> None:
    one = written_run(store, name="one", dataset=f"folder:{store.root}/secret/shapes")
    two, three = written_run(store, lr=0.05), written_run(store, plain=10.0, taught=10.0)
    html = comparison_html(compare_runs(store, [one.id, two.id, three.id]), everybody)
    assert html.count("<polyline") == 6
    assert re.findall(r'data-compared="([^"]+)"', html) == [one.id, two.id, three.id]
    assert f"({two.id})" in html, "runs of the same title are told apart"
    assert "Learning rate" in html
    assert "0.05" in html
    assert "Epochs" not in html
    assert html.count("too weak to judge") == 1
    assert f"{store.root}/secret" in html
    assert f"{store.root}/secret" not in comparison_html(compare_runs(store, [one.id, two.id]), stranger)


def test_runs_that_train_are_compared_by_what_there_is(store: Store, written_run: Any) -> None:
    one = written_run(store)
    two, handle = store.create(make_config(methods=("baseline", "kd", "ie-ft")))
    html = comparison_html(compare_runs(store, [one.id, two.id]), everybody)
    assert handle is not None
    os.close(handle)
    assert html.count("<polyline") == 2
    assert "Waiting" in html


def test_programs_compare_and_edit_runs(store: Store, written_run: Any) -> None:
    one, two = written_run(store, name="one", dataset=f"folder:{store.root}/secret/shapes"), written_run(store)
    launcher = LocalLauncher(store)
    own, public = Actions(launcher, Access()), Actions(launcher, Access(public=True))
    assert own.edit_run(two.id, name="two", request=asker())["name"] == "two"
    assert own.edit_run(two.id, starred=True, request=asker())["name"] == "two"
    assert read_notes(two) == Notes("two", True)
    with pytest.raises(UserError, match="may not change"):
        public.edit_run(two.id, name="theirs", request=asker())
    compared = own.compare_runs([one.id, two.id], asker())
    assert [run["name"] for run in compared["runs"]] == ["one", "two"]
    assert compared["settings"] == [
        {"name": "dataset", "values": [f"folder:{store.root}/secret/shapes", "fashion-mnist-sample"]}
    ]
    assert str(store.root) not in str(public.compare_runs([one.id, two.id], asker())["settings"])
    with pytest.raises(UserError, match="2 to 8"):
        own.compare_runs([one.id], asker())


def test_an_address_of_runs_that_are_gone_says_so(store: Store, written_run: Any) -> None:
    import gradio as gr

    run = written_run(store)
    with gr.Blocks():
        tab = runs_tab(LocalLauncher(store), Access())
    assert "no run &#x27;gone&#x27;" in tab.compare(f"{run.id},gone", asker())
    assert "Name 2 to 8" in tab.compare(run.id, asker())
    assert tab.compare("", asker()) == ""
