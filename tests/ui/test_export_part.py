"""Export on a run's page: who may, what comes, and that nothing else can be fetched with it. Real HTTP."""

from __future__ import annotations

import io
import shutil
import zipfile
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gradio as gr
import onnxruntime
import pytest
from ui_helpers import CLIENT, TOKEN

from iekd.export import FORMATS
from iekd.models.artifact import ModelCard
from iekd.runs.exported import export_in_run
from iekd.runs.store import Store
from iekd.ui.app import build_app
from iekd.ui.render.certificate import certificate_html
from iekd.ui.render.words import model_titles
from iekd.ui.rights.access import Access, _visitor
from iekd.ui.tabs.export import look_at_exports
from iekd.ui.tabs.run import look

LEARNER = "ie-ft-seed0"


def asker(**headers: str) -> gr.Request:
    return gr.Request(headers=headers, cookies={}, client=SimpleNamespace(host="127.0.0.1"))


@pytest.fixture(scope="module")
def pressed(finished_run: str, runs_dir: Path) -> Any:
    """`pressed(access, *values)` -> what the button's handler answers."""

    def press(access: Access, learner: str = LEARNER, format_name: str = "onnx", **headers: str) -> str:
        page = build_app(runs_dir, access)
        (event,) = [event for event in page.fns.values() if event.name == "export"]
        return str(event.fn(finished_run, learner, format_name, asker(**headers)))

    return press


@pytest.fixture(scope="module")
def exported(pressed: Any) -> str:
    """The answer to somebody who may, which is also in the folder of the run from then on."""
    return str(pressed(Access()))


def test_the_certificate_and_the_download_come(exported: str, server: str, finished_run: str, runs_dir: Path) -> None:
    run = Store(runs_dir).get(finished_run)
    accuracy = ModelCard.read(run.model_folders[LEARNER]).accuracy
    assert f"{accuracy:.2f} % of {run.report['test_images']} test images" in exported
    assert "Latency, teacher in torch" in exported
    assert str(runs_dir) not in exported
    address = f"/download/{finished_run}/{LEARNER}/onnx"
    assert f'href=".{address}"' in exported
    assert "IE-FT, ONNX" in exported
    answer = CLIENT.get(server + address)
    assert answer.status_code == 200
    assert f"{finished_run}-{LEARNER}-onnx.zip" in answer.headers["content-disposition"]
    with zipfile.ZipFile(io.BytesIO(answer.content)) as archive:
        folder = f"{finished_run}-{LEARNER}-onnx"
        assert sorted(archive.namelist()) == [
            f"{folder}/{name}" for name in ("certificate.json", "certificate.md", "model.onnx", "use_it.py")
        ]
        session = onnxruntime.InferenceSession(archive.read(f"{folder}/model.onnx"))
    assert session.get_inputs()[0].name == "pixels"


@pytest.mark.parametrize(
    ("where", "status"),
    [
        ("RUN/ie-ft-seed0/torch", 404),  # not exported yet
        ("RUN/ie-ft-seed0/nothing", 404),
        ("RUN/nobody/onnx", 404),
        ("RUN/ie-ft-seed0/..", 404),
        ("RUN/ie-ft-seed0/%2e%2e%2f..", 404),
        ("nothing/ie-ft-seed0/onnx", 404),
    ],
)
def test_nothing_else_is_served(server: str, exported: str, finished_run: str, where: str, status: int) -> None:
    answer = CLIENT.get(f"{server}/download/{where.replace('RUN', finished_run)}")
    assert answer.status_code == status
    assert "certificate" not in answer.text


def test_only_who_may_download_gets_it(guarded: str, exported: str, finished_run: str) -> None:
    address = f"{guarded}/download/{finished_run}/{LEARNER}/onnx"
    assert CLIENT.get(address).status_code == 403
    assert CLIENT.get(address, headers={"x-iekd-token": TOKEN}).status_code == 200


def test_a_stranger_cannot_make_the_server_export(pressed: Any, finished_run: str, runs_dir: Path) -> None:
    for access in (Access(token=TOKEN), Access(public=True), Access(public=True, training=True)):
        assert "You may not download this run" in pressed(access, format_name="torch")
    assert not (runs_dir / finished_run / "exports" / f"{LEARNER}-torch").exists()


def test_a_visitor_exports_what_they_have_trained(
    pressed: Any, exported: str, finished_run: str, runs_dir: Path
) -> None:
    marked = runs_dir / finished_run / "visitor"
    marked.write_text(_visitor(asker(), Store(runs_dir)))
    try:
        assert "Latency" in pressed(Access(public=True, training=True))
    finally:
        marked.unlink()


def test_what_cannot_be_done_is_said(pressed: Any) -> None:
    assert "nobody" in pressed(Access(), "nobody")
    assert "&#x27;onyx&#x27;" in pressed(Access(), LEARNER, "onyx")


def test_the_part_is_there_for_who_may_and_lists_networks_and_formats(finished_run: str, runs_dir: Path) -> None:
    run, access = Store(runs_dir).get(finished_run), Access(token=TOKEN)
    mine = look_at_exports(run, False, access.of(asker(**{"x-iekd-token": TOKEN})))
    assert mine["box"].visible
    assert [name for _, name in mine["network"].choices] == ["teacher", "baseline-seed0", LEARNER]
    assert mine["network"].value == LEARNER
    assert not look_at_exports(run, False, access.of(asker()))["box"].visible
    assert not look_at_exports(run, True, Access().of(asker()))["box"].visible, "while it trains"
    page = build_app(runs_dir, Access())
    (how,) = [block for block in page.blocks.values() if getattr(block, "elem_id", "") == "export-format"]
    assert [name for _, name in how.choices] == [*FORMATS, "web"]


def test_publish_and_export_call_the_models_the_same_and_choose_the_same(finished_run: str, runs_dir: Path) -> None:
    looked = look(Store(runs_dir), finished_run, {}, Access().of(asker(host="127.0.0.1:7860")))
    models = looked["export"]["network"]
    assert models.choices == [("Teacher", "teacher"), ("Plain student", "baseline-seed0"), ("IE-FT", LEARNER)]
    assert (looked["chosen"].choices, looked["chosen"].value) == (models.choices, models.value)


def test_a_model_is_called_with_its_seed_where_there_are_several(finished_run: str, runs_dir: Path) -> None:
    run = Store(runs_dir).get(finished_run)
    several = SimpleNamespace(config=run.config.model_copy(update={"seeds": (0, 1)}), model_folders=run.model_folders)
    assert list(model_titles(several).values()) == ["Teacher", "Plain student, seed 0", "IE-FT, seed 0"]  # type: ignore[arg-type]


def test_a_page_that_was_exported_is_downloaded_with_all_its_files(
    exported: str, pressed: Any, server: str, finished_run: str, runs_dir: Path
) -> None:
    address = f"{server}/download/{finished_run}/{LEARNER}/web"
    assert CLIENT.get(address).status_code == 404
    exports = runs_dir / finished_run / "exports"
    folder, record = exports / "seed0-web", exports / f"{LEARNER}-onnx" / "certificate.json"
    (folder / "models").mkdir(parents=True)
    (folder / "index.html").write_text("<!doctype html>")
    shutil.copyfile(record, folder / "models" / "0-ie-ft.certificate.json")
    try:
        found = pressed(Access(), format_name="web")
        answer = CLIENT.get(address)
    finally:
        shutil.rmtree(folder)
    assert f'href="./download/{finished_run}/{LEARNER}/web"' in found
    assert "IE-FT" in found
    assert "none of your own images" in found
    with zipfile.ZipFile(io.BytesIO(answer.content)) as archive:
        names = ("index.html", "models/0-ie-ft.certificate.json")
        assert archive.namelist() == [f"{finished_run}-seed0-web/{name}" for name in names]


def test_a_name_in_a_certificate_is_text(exported: str, finished_run: str, runs_dir: Path) -> None:
    certificate = export_in_run(Store(runs_dir).get(finished_run), LEARNER, "onnx")
    html = certificate_html(replace(certificate, license="<script>", warnings=("<b>",), not_checked=("<i>",)))
    assert "<script>" not in html
    assert "<b>" not in html
    assert "<i>" not in html
