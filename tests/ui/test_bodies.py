"""What programs send to the public endpoints: what does not fit gets a sentence and a status that says whose fault."""

from __future__ import annotations

import inspect
import json
import logging
from pathlib import Path
from typing import Any

import gradio as gr
import pytest
from gradio.routes import App
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.testclient import TestClient
from ui_helpers import CLIENT, QUICK, TOKEN, call

from iekd.launchers.local import LocalLauncher
from iekd.runs.store import Store
from iekd.ui.api.bodies import WENT_WRONG, Bodies
from iekd.ui.api.methods import ENDPOINTS, _says_why
from iekd.ui.app import build_app

WRONG_BODIES = [
    b"", b"null", b"{}", b"[]", b"5", b"not json", b"\xff\xfe", b'{"data": null}', b'{"data": {}}', b'{"data": "x"}',
    b'{"data": [NaN]}', b'{"data": ["\\ud800"]}', b"[" * 100_000,
]  # fmt: skip
FILE = {"path": "/etc/passwd", "meta": {"_type": "gradio.FileData"}}
# of each endpoint: values that do not fit, with a word of what is said
WRONG_VALUES = [
    ("start", [], "needs 'config'"), ("start", [None], "needs 'config'"), ("start", ["x"], "an object of settings"),
    ("start", [[]], "an object of settings"), ("start", [{}, 5], "'key'"), ("start", [{}, "", 1], "'details'"),
    ("start", [{}, "", True, 1], "3 at most"),
    ("start", [{"a": 1}], "Unknown setting 'a'"), ("start", [{"epochs": {}}], "Epochs"),
    ("start", [{"epochs": True}], "Epochs 'True'"), ("start", [{"preset": 5}], "Unknown preset '5'"),
    ("start", [{"preset": ["quick"]}], "Unknown preset"), ("estimate", [], "needs 'config'"),
    ("estimate", [{"epochs": 0}], "Epochs '0'"), ("estimate", [{}, ""], "2 values, but it takes 1 at most"),
    ("run_status", [], "needs 'run_id'"), ("run_status", [5], "the id of a run"), ("run_status", [True], "the id"),
    ("run_status", [{}], "the id of a run"), ("run_status", ["a", "b"], "1 at most"), ("list_runs", [1], "no values"),
    ("stop_run", [None], "needs 'run_id'"), ("resume_run", [["x"]], "the id of a run"),
    ("run_status", ["x" * 5000], "There is no run"), ("run_status", ["a\0b"], "There is no run"),
    ("compare", [], "needs 'images'"), ("compare", ["", None], "needs 'images'"), ("compare", [5, []], "'run_id'"),
    ("compare", ["", ["a.png"]], "uploaded files"), ("compare", ["", "a.png"], "uploaded files"),
    ("compare", ["", [{}]], "uploaded to this page first"), ("compare", ["", [{"path": 5}]], "uploaded to this page"),
    ("compare", ["", [{"path": "/etc/passwd"}]], "uploaded to this page"), ("compare", ["", []], "No image"),
    ("compare_csv", [], "needs 'images'"), ("compare_csv", ["", "a.png"], "uploaded files"),
    ("add_pictures", [], "needs 'archive'"), ("add_pictures", ["a.zip"], "an uploaded zip"),
    ("add_pictures", [{"a": 1}], "uploaded to this page"), ("nothing", [], "Unknown endpoint 'nothing'"),
]  # fmt: skip


def sentence(error: Any) -> str:
    """The error, which has to be one sentence or two for a person."""
    assert isinstance(error, str), error
    assert error[0].isupper() or error[0] == "'", error
    assert error.endswith((".", "?"))
    assert "\n" not in error
    assert "Traceback" not in error
    return error


@pytest.mark.parametrize("route", ["call", "run", "api", "call/v2"])
@pytest.mark.parametrize("body", WRONG_BODIES, ids=lambda body: str(body[:20]))
def test_a_body_that_is_none_gets_a_sentence(server: str, route: str, body: bytes) -> None:
    for name in ENDPOINTS:
        answer = CLIENT.post(
            f"{server}/gradio_api/{route}/{name}", content=body, headers={"content-type": "application/json"}
        )
        if (route, body) == ("call/v2", b"{}") and all(p.optional for p in ENDPOINTS[name].parameters):
            assert answer.status_code == 200, f"{name} needs nothing"
            continue
        assert answer.status_code == 400, answer.text
        sentence(answer.json()["error"])


@pytest.mark.parametrize(("name", "values", "said"), WRONG_VALUES, ids=str)
def test_values_that_do_not_fit_get_a_sentence(server: str, name: str, values: list[Any], said: str) -> None:
    status = 404 if name == "nothing" else 400
    direct = CLIENT.post(f"{server}/gradio_api/run/{name}", json={"data": values}, timeout=60)
    assert direct.status_code == status, direct.text
    assert said in sentence(direct.json()["error"])
    queued = CLIENT.post(f"{server}/gradio_api/call/{name}", json={"data": values}, timeout=60)
    if queued.status_code == 200:  # they fit by their kind; what is wrong with them is found out later
        kind, error = call(server, name, *values)
        assert kind == "error"
        assert said in sentence(error["error"])
    else:
        assert queued.status_code == status
        assert said in sentence(queued.json()["error"])


def test_values_by_name_are_checked_too(server: str) -> None:
    address = f"{server}/gradio_api/call/v2"
    for name, body, said in (
        ("run_status", {}, "needs 'run_id'"), ("run_status", {"run": "x"}, "takes no 'run'"),
        ("start", {"config": 5}, "an object of settings"), ("list_runs", {"x": 1}, "It takes: nothing"),
        ("nothing", {}, "Unknown endpoint"),
    ):  # fmt: skip
        answer = CLIENT.post(f"{address}/{name}", json=body)
        assert answer.status_code in (400, 404)
        assert said in sentence(answer.json()["error"])
    assert CLIENT.post(f"{address}/list_runs", json={}).status_code == 200


def test_what_may_be_left_out_may_be_left_out(server: str, finished_run: str) -> None:
    kind, (status,) = call(server, "run_status", finished_run)
    assert (kind, status["run"]) == ("complete", finished_run)
    kind, error = call(server, "start", {"epochs": 0})
    assert "Epochs" in error["error"], "the key was not missed"


def test_an_estimate_warns_before_anything_is_started(server: str, runs_dir: Path, pictures: Path) -> None:
    config = {**QUICK, "dataset": f"folder:{pictures}", "teacher": "none", "methods": ["baseline"]}
    before = len(Store(runs_dir).list())
    kind, (small,) = call(server, "estimate", {**config, "batch_size": 64})
    assert kind == "complete"
    assert any("Batch size 64 makes 1 step" in warning for warning in small["warnings"])
    assert small["seconds_range"][0] <= small["seconds"] <= small["seconds_range"][1]
    assert small["classes"] == ["cross", "disc", "stripes"]
    assert small["trains_teacher"] is False
    many = {"dataset": "fashion-mnist-sample", "batch_size": 60_000, "resolution": 512}
    _, (large,) = call(server, "estimate", {**config, **many})
    assert large["memory_bytes"] > 1e12
    assert any("of memory" in warning for warning in large["warnings"])
    assert len(Store(runs_dir).list()) == before


def test_start_answers_with_the_warnings_where_they_are_asked_for(server: str, runs_dir: Path, pictures: Path) -> None:
    config = {**QUICK, "dataset": f"folder:{pictures}", "teacher": "none", "methods": ["baseline"], "batch_size": 64}
    kind, (answer,) = call(server, "start", config, "with details", True)
    assert kind == "complete"
    assert any("Batch size 64 makes 1 step" in warning for warning in answer["warnings"])
    assert call(server, "start", config, "with details")[1] == [answer["run"]], "without it the id alone, as ever"
    assert Store(runs_dir).get(answer["run"]).config.batch_size == 64
    LocalLauncher(Store(runs_dir)).stop_and_wait(answer["run"])


@pytest.mark.parametrize("path", ["call/start/nothing", "call/nothing/nothing", "queue/data?session_hash=nothing"])
def test_the_answer_to_no_call_gets_a_sentence(server: str, path: str) -> None:
    answer = CLIENT.get(f"{server}/gradio_api/{path}", timeout=60)
    assert answer.status_code == 404
    assert "no such call" in sentence(answer.json()["error"])


def test_a_body_that_does_not_say_that_it_is_json_is_refused(server: str) -> None:
    """Other sites can send such bodies from a visitor's browser without being asked first."""
    for kind in ("text/plain", "application/x-www-form-urlencoded", ""):
        answer = CLIENT.post(
            f"{server}/gradio_api/call/list_runs", content=b'{"data": []}', headers={"content-type": kind}
        )
        assert answer.status_code == 415
        assert "Content-Type: application/json" in sentence(answer.json()["error"])


def test_what_is_not_allowed_is_403(guarded: str, finished_run: str) -> None:
    answer = CLIENT.post(f"{guarded}/gradio_api/run/stop_run", json={"data": [finished_run]})
    assert answer.status_code == 403
    assert "token" in sentence(answer.json()["error"])
    proof = {"x-iekd-token": TOKEN}
    answer = CLIENT.post(f"{guarded}/gradio_api/run/stop_run", json={"data": ["x"]}, headers=proof)
    assert answer.status_code == 400


@pytest.mark.parametrize("path", ["queue/join", "run/predict", "api/predict"])
def test_what_clients_send_by_number_is_an_object_too(server: str, path: str) -> None:
    for body in ("null", "[]", "{}", '{"data": []}', '{"data": 1, "fn_index": 1}', '{"data": [], "fn_index": "x"}'):
        answer = CLIENT.post(f"{server}/gradio_api/{path}", content=body, headers={"content-type": "application/json"})
        assert answer.status_code == 400
        sentence(answer.json()["error"])


def test_the_table_of_endpoints_is_what_the_page_has(tmp_path: Path) -> None:
    demo = build_app(tmp_path)
    demo.queue()
    App.create_app(demo)
    public = {fn.api_name: fn for fn in demo.fns.values() if fn.api_visibility == "public"}
    assert set(public) == set(ENDPOINTS)
    for name, fn in public.items():
        names = [name for name in inspect.signature(inspect.unwrap(fn.fn)).parameters if name != "request"]
        assert names == [parameter.name for parameter in ENDPOINTS[str(name)].parameters], name


def test_a_mistake_of_ours_is_said_and_logged(caplog: pytest.LogCaptureFixture) -> None:
    def broken() -> None:
        raise ZeroDivisionError

    with caplog.at_level(logging.ERROR), pytest.raises(gr.Error) as error:
        _says_why(broken)()
    assert str(error.value.message) == WENT_WRONG
    assert "ZeroDivisionError" in caplog.text

    async def answer(request: Request) -> Response:
        return JSONResponse(json.loads(await request.body())["data"][0], 500)

    app = Bodies(Starlette(routes=[Route("/gradio_api/run/start", answer, methods=["POST"])]), ENDPOINTS)
    client = TestClient(app)
    for content, status in (
        ({"error": WENT_WRONG}, 500), ({"error": None}, 500), ({"error": "Bad."}, 400),
        ({"error": "No.", "title": "Not allowed"}, 403),
    ):  # fmt: skip
        got = client.post("/gradio_api/run/start", json={"data": [content]})
        assert (got.status_code, got.json()) == (status, content)
