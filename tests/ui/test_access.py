"""A page that others can open: who may do what, by its rules and over real HTTP."""

from __future__ import annotations

import json
import os
import re
import threading
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
from ui_helpers import CLIENT, QUICK, TOKEN, call, serving, wait_until

from iekd import __version__
from iekd.config.run import RunConfig, make_config
from iekd.errors import UserError
from iekd.launchers.local import LocalLauncher
from iekd.runs.status import QUEUED, RUNNING, STOPPED
from iekd.runs.store import Run, Store
from iekd.ui.rights.access import Access, AccessError, Limits, _visitor
from iekd.ui.tabs.run import look
from iekd.ui.tabs.runs import table_html
from iekd.ui.tabs.train import who_may_start


def asker(address: str = "10.0.0.1", **headers: str) -> Any:
    return SimpleNamespace(headers=headers, cookies={}, client=SimpleNamespace(host=address))


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path)


def made(store: Store, visitor: str = "") -> Run:
    run, handle = store.create(RunConfig(), visitor=visitor)
    assert handle is not None
    os.close(handle)
    return run


# Rules


def test_on_ones_own_machine_everybody_may_do_everything(store: Store) -> None:
    access = Access()
    assert access.check_start(None, RunConfig(epochs=10_000), store) == ""
    access.check_change(None, made(store), "delete")
    assert access.everybody_starts


@pytest.mark.parametrize("public", [False, True])
def test_the_token_opens_everything_and_nothing_else_does(store: Store, public: bool) -> None:
    access, run = Access(token=TOKEN, public=public), made(store)
    for who in (None, asker(), asker(**{"x-iekd-token": ""}), asker(**{"x-iekd-token": TOKEN + " "})):
        with pytest.raises(AccessError, match="token"):
            access.check_start(who, RunConfig(), store)
        with pytest.raises(AccessError, match="token"):
            access.check_change(who, run, "delete")
    access.check_start(asker(**{"x-iekd-token": TOKEN}), RunConfig(epochs=10_000), store)
    access.check_change(asker(**{"x-iekd-token": TOKEN}), run, "delete")


def test_an_empty_token_is_no_token(store: Store) -> None:
    assert not Access(token="").is_admin(asker(**{"x-iekd-token": ""}))


def test_a_public_page_starts_nothing_unless_told_to(store: Store) -> None:
    with pytest.raises(AccessError, match="switched off"):
        Access(public=True).check_start(asker(), RunConfig(), store)
    assert Access(public=True, training=True).check_start(asker(), RunConfig(limit_train=1000), store)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"epochs": 11}, "11 epochs"),
        ({"teacher_epochs": 500, "teacher_from": "train"}, "500 teacher epochs"),
        ({"auto_encoder_epochs": 11}, "11 auto-encoder epochs"),
        ({"dataset": "cifar10", "teacher": "resnet56"}, "50,000 training images"),
        ({"limit_train": 10_001, "dataset": "cifar10", "teacher": "resnet56"}, "10,001 training images"),
        ({"seeds": (0, 1, 2)}, "6 students"),
        ({"dataset": "folder:HERE"}, "Folders of this machine"),
        ({"teacher_from": "HERE/m.pth"}, "Files of this machine"),
        ({"student_from": "HERE/m.pth"}, "Files of this machine"),
        ({"student": "resnet50", "resolution": 512, "batch_size": 2}, "minutes"),
        ({"batch_size": 10_000, "resolution": 512}, "megabytes"),
    ],
)
def test_a_visitor_starts_small_runs_only(store: Store, tmp_path: Path, values: dict[str, Any], said: str) -> None:
    (tmp_path / "m.pth").write_text("")
    there = {key: v.replace("HERE", str(tmp_path)) if isinstance(v, str) else v for key, v in values.items()}
    config = RunConfig.model_construct(**{**RunConfig(teacher_epochs=5).model_dump(), **there})
    long = Limits(minutes=10**9) if said == "megabytes" else Limits()
    with pytest.raises(AccessError) as error:
        Access(public=True, training=True, limits=long).check_start(asker(), config, store)
    assert said in str(error.value)


def test_a_visitor_has_so_many_runs_a_day_and_others_have_theirs(store: Store, monkeypatch: Any) -> None:
    access, small = Access(public=True, training=True, limits=Limits(runs=2)), RunConfig()
    for _ in range(2):
        remember = access.check_start(asker(), small, store)
        assert "10.0.0.1" not in remember
        made(store, remember)
    with pytest.raises(AccessError, match="2 runs today"):
        access.check_start(asker(), small, store)
    access.check_start(asker("10.0.0.2"), small, store)
    with pytest.raises(AccessError, match="2 runs today"):  # whoever is not behind a proxy cannot say who they are
        access.check_start(asker(**{"x-forwarded-for": "1.2.3.4"}), small, store)
    monkeypatch.setenv("SPACE_ID", "someone/space")
    access.check_start(asker(**{"x-forwarded-for": "9.9.9.9, 1.2.3.4"}), small, store)


def test_many_clicks_at_once_start_no_more_than_that(store: Store, monkeypatch: Any) -> None:
    from iekd.ui.shared import actions

    access, got = Access(public=True, training=True, limits=Limits(runs=3)), []
    monkeypatch.setattr(LocalLauncher, "start", lambda self, run, handle: None)

    def click() -> None:
        try:
            got.append(actions.start_run(LocalLauncher(store), access, asker(), RunConfig(), ""))
        except AccessError:
            got.append("")

    threads = [threading.Thread(target=click) for _ in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(store.list()) == len(list(filter(None, got))) == 3


def test_anothers_key_gives_nobody_their_run(store: Store, monkeypatch: Any) -> None:
    from iekd.ui.shared import actions

    access = Access(public=True, training=True, token=TOKEN)
    monkeypatch.setattr(LocalLauncher, "start", lambda self, run, handle: None)
    mine = actions.start_run(LocalLauncher(store), access, asker(**{"x-iekd-token": TOKEN}), RunConfig(), "nightly")
    assert actions.start_run(LocalLauncher(store), access, asker(), RunConfig(), "nightly") == mine
    with pytest.raises(AccessError):
        access.check_change(asker(), store.get(mine), "stop")


def test_a_full_queue_takes_no_more(store: Store) -> None:
    access, held = Access(public=True, training=True, limits=Limits(queue=1)), store.create(RunConfig())[1]
    with pytest.raises(AccessError, match="1 run is waiting"):
        access.check_start(asker(), RunConfig(), store)
    assert held is not None
    os.close(held)


def test_a_visitor_stops_their_own_run_and_no_other(store: Store) -> None:
    access = Access(public=True, training=True)
    mine = made(store, access.check_start(asker(), RunConfig(), store))
    access.check_change(asker(), mine, "stop")
    for who, run, what in (
        (asker("10.0.0.2"), mine, "stop"), (asker(), made(store), "stop"), (asker(), mine, "delete"),
        (asker(), mine, "resume"), (asker(), mine, "move"),
    ):  # fmt: skip
        with pytest.raises(AccessError, match=f"may not {what}"):
            access.check_change(who, run, what)


def shown_buttons(access: Access, who: Any, run: Run, store: Store) -> tuple[set[str], set[str]]:
    """What the Runs tab and the run's own view offer."""
    table = table_html(store, access.of(who))
    parts = look(store, run.id, {}, access.of(who))
    kept = {name: parts[name] for name in ("stop", "resume", "compare", "again")}
    return set(re.findall(r'data-act="(\w+)"', table)) - {"open"}, {name for name, b in kept.items() if b.visible}


@pytest.mark.parametrize("state", [STOPPED, RUNNING, QUEUED])
def test_nobody_sees_a_button_that_would_refuse_them(store: Store, monkeypatch: Any, state: str) -> None:
    monkeypatch.setattr(Run, "alive", lambda self: True)
    made(store)
    run = made(store, _visitor(asker(), store))
    status = run.status
    status.state = state
    run.write_status(status)
    rights = {STOPPED: {"resume", "delete"}, RUNNING: {"stop"}, QUEUED: {"stop", "first"}}[state]
    rows = {"stop": {"stop"}, "resume": {"resume"}}
    again = {"again"} if state == STOPPED else set()
    all_of_it = set().union(*(rows.get(r, set()) for r in rights)) | again
    others = {"stop"}  # of the other run, which waits
    token, train = Access(token=TOKEN), Access(public=True, training=True)
    admin = asker(**{"x-iekd-token": TOKEN})
    for access, who in ((Access(), None), (token, admin)):
        table, view = shown_buttons(access, who, run, store)
        assert table == rights | others
        assert view == all_of_it
    assert shown_buttons(token, asker(), run, store) == (set(), set())
    assert shown_buttons(Access(public=True), asker(), run, store) == (set(), set())
    assert shown_buttons(train, asker("10.0.0.2"), run, store) == (set(), again)
    own = {"stop"} & rights
    assert shown_buttons(train, asker(), run, store) == (own, own | again)


def test_the_environment_sets_the_rules(monkeypatch: Any) -> None:
    for name in ("IEKD_ADMIN_TOKEN", "IEKD_PUBLIC_TRAINING", "IEKD_PUBLIC_LIMITS", "SPACE_ID"):
        monkeypatch.delenv(name, raising=False)
    assert Access.from_environment() == Access()
    assert Access.from_environment(public=True).public
    monkeypatch.setenv("SPACE_ID", "someone/space")
    monkeypatch.setenv("IEKD_ADMIN_TOKEN", f" {TOKEN}\n")
    monkeypatch.setenv("IEKD_PUBLIC_TRAINING", "1")
    monkeypatch.setenv("IEKD_PUBLIC_LIMITS", "epochs=3, runs=1")
    assert Access.from_environment() == Access(TOKEN, True, True, Limits(epochs=3, runs=1))
    for wrong in ("epoch=3", "epochs", "epochs=many", "epochs=-1"):
        monkeypatch.setenv("IEKD_PUBLIC_LIMITS", wrong)
        with pytest.raises(UserError, match="IEKD_PUBLIC_LIMITS"):
            Access.from_environment()


# Over HTTP


def press(url: str, run_id: str, what: str, **headers: str) -> str:
    """A row's button of the Runs tab, as the page's script would press it: what the server answers."""
    config = CLIENT.get(f"{url}/config").json()
    table = next(c["id"] for c in config["components"] if c["props"].get("elem_id") == "runs-table")
    event = next(d for d in config["dependencies"] if [table, "click"] in d["targets"])
    data = [None] * len(event["inputs"])
    body = {
        "data": data, "fn_index": event["id"], "session_hash": f"press{os.urandom(4).hex()}", "trigger_id": table,
        "event_data": {"run": run_id, "act": what},
    }  # fmt: skip
    sent = CLIENT.post(f"{url}/gradio_api/queue/join", json=body, headers=headers)
    assert sent.status_code == 200, sent.text
    address = f"{url}/gradio_api/queue/data?session_hash={body['session_hash']}"
    found = []
    with CLIENT.stream("GET", address, timeout=60) as answer:
        for line in answer.iter_lines():
            found.append(line)
            if "process_completed" in line:
                break
    return "\n".join(found)


def test_without_the_token_no_endpoint_changes_anything(guarded: str, runs_dir: Path, finished_run: str) -> None:
    before = {run.id: run.status for run in Store(runs_dir).list()}
    for name, values in (("start", [QUICK, ""]), ("stop_run", [finished_run]), ("resume_run", [finished_run])):
        kind, data = call(guarded, name, *values)
        assert kind == "error"
        assert "token" in json.dumps(data)
    for what in ("stop", "delete", "resume", "first"):
        assert "token" in press(guarded, finished_run, what), what
    assert {run.id: run.status for run in Store(runs_dir).list()} == before
    assert (runs_dir / finished_run / "report.json").is_file()


def test_a_page_that_the_server_has_forgotten_still_compares(server: str, finished_run: str) -> None:
    """Its visit may have made room for others; what it chose from was said to it, not to this one."""
    config = CLIENT.get(f"{server}/config").json()
    source = next(c["id"] for c in config["components"] if c["props"].get("elem_id") == "source")
    event = next(d for d in config["dependencies"] if [source, "input"] in d["targets"])
    for chosen, shown in ((finished_run, "data-example"), ("no-such-run", ""), ({"a": 1}, "")):
        body = {"data": [chosen], "fn_index": event["id"], "session_hash": os.urandom(4).hex(), "trigger_id": source}
        answer = CLIENT.post(f"{server}/gradio_api/run/predict", json=body)
        assert answer.status_code == 200, answer.text
        assert shown in json.dumps(answer.json()["data"])


def test_looking_and_comparing_stay_open(guarded: str, finished_run: str, pictures: Path) -> None:
    from gradio_client import Client, handle_file

    assert call(guarded, "run_status", finished_run)[0] == "complete"
    assert call(guarded, "list_runs")[0] == "complete"
    client = Client(guarded, verbose=False)
    answer = client.predict(finished_run, [handle_file(str(pictures / "test/disc/0.png"))], api_name="/compare")
    assert set(answer["images"][0]["predictions"]) == {"teacher", "baseline", "ie-ft"}


def test_with_the_token_a_program_starts_stops_and_resumes(guarded: str, runs_dir: Path, pictures: Path) -> None:
    config = {**QUICK, "dataset": f"folder:{pictures}", "epochs": 5000, "methods": ["baseline"], "teacher": "none"}
    proof = {"x-iekd-token": TOKEN}
    kind, (run_id,) = call(guarded, "start", config, "", **proof)
    assert kind == "complete"
    run = Store(runs_dir).get(run_id)
    try:
        wait_until(lambda: run.status.state == "running" and run.metrics()[0])
        assert call(guarded, "stop_run", run_id)[0] == "error"
        assert call(guarded, "stop_run", run_id, **proof)[0] == "complete"
        wait_until(lambda: run.status.state == "stopped" and not run.alive())
        assert call(guarded, "resume_run", run_id)[0] == "error"
        assert call(guarded, "resume_run", run_id, **proof)[0] == "complete"
        wait_until(lambda: run.status.state == "running")
        assert run.status.attempt == 2
    finally:
        LocalLauncher(Store(run.path.parent)).stop_and_wait(run.id)
    assert "undefined" not in press(guarded, run_id, "delete", **proof)
    wait_until(lambda: not run.path.exists())


def test_signing_in_gives_a_cookie_that_opens_the_page(guarded: str, finished_run: str) -> None:
    with httpx.Client(base_url=guarded) as browser:
        assert "administrator" in browser.get("/sign-in").text
        wrong = browser.post("/sign-in", data={"token": "guess"})
        assert wrong.status_code == 403
        assert "not the token" in wrong.text
        assert not browser.cookies
        right = browser.post("/sign-in", data={"token": TOKEN})
        assert right.status_code == 303
        assert TOKEN not in str(right.headers)
        assert "httponly" in right.headers["set-cookie"].lower()
        assert "samesite=lax" in right.headers["set-cookie"].lower()
        cookie = {"cookie": "; ".join(f"{k}={v}" for k, v in browser.cookies.items())}
        kind, data = call(guarded, "stop_run", "nothing", **cookie)
        assert kind == "error"
        assert "no run 'nothing'" in json.dumps(data), "past the token"
        out = browser.get("/sign-out")
        assert out.status_code == 303
        assert not browser.cookies
    kind, data = call(guarded, "stop_run", finished_run, **cookie)
    assert kind == "error"
    assert "token" in json.dumps(data), "a copy of the cookie ended with its session"


def test_the_page_says_whether_one_is_signed_in() -> None:
    admin = asker(**{"x-iekd-token": TOKEN})
    for access in (Access(token=TOKEN), Access(token=TOKEN, public=True, training=True)):
        assert "Sign in" in who_may_start(access, asker())
        assert "Sign out" in who_may_start(access, admin)
    assert "Sign" not in who_may_start(Access(public=True), asker())


def test_visitors_are_asked_for_pictures_without_alarm(store: Store) -> None:
    """Choosing their own pictures names no folder of the machine yet."""
    Access(public=True, training=True).check_paths(asker(), {"dataset": "folder:"}, store)
    with pytest.raises(AccessError, match="Folders of this machine"):
        Access(public=True, training=True).check_paths(asker(), {"dataset": "folder:/"}, store)


@pytest.mark.parametrize("order", ["/etc/passwd", "names.txt,", ["/etc/passwd"], ("names.txt",)])
def test_a_stranger_names_no_file_as_the_order_of_classes(store: Store, order: object) -> None:
    for access in (Access(public=True, training=True), Access(token=TOKEN)):
        with pytest.raises(AccessError, match="Files of this machine"):
            access.check_paths(asker(), {"class_order": order}, store)
    Access().check_paths(asker(), {"class_order": order}, store)


REFUSED = {  # values of settings -> what a stranger is told
    "Folders of this machine": [{"unlabelled": "/home"}],
    "have to download": [
        {"dataset": "torchvision:Food101"}, {"dataset": "hf:ann/pets"}, {"teacher_from": "pretrained"},
        {"student_from": "pretrained"},
    ],
    "Files of this machine": [
        {"teacher_from": "names.pth"}, {"student_from": "/etc/passwd"}, {"more_teachers_from": "auto,/etc/passwd"},
        {"more_teachers_from": ["run:a", "names.pth"]}, {"teacher_from": "run:a,names.pth"},
    ],
    "Networks of the Hub": [
        {"student": "hf:ann/net"}, {"teacher_from": "hf:ann/net"}, {"more_teachers": "resnet8,hf:ann/net"},
        {"more_teachers": "resnet8 hf:ann/net"}, {"more_teachers": "resnet8;hf:ann/net"},
    ],
}  # fmt: skip


@pytest.mark.parametrize(("told", "given"), [(told, one) for told, several in REFUSED.items() for one in several])
def test_a_stranger_names_nothing_of_this_machine_and_starts_no_large_download(
    store: Store, told: str, given: dict[str, object]
) -> None:
    for access in (Access(public=True, training=True), Access(token=TOKEN)):
        with pytest.raises(AccessError, match=told):
            access.check_paths(asker(), {"dataset": "cifar10", **given}, store)
    Access().check_paths(asker(), given, store)


@pytest.mark.parametrize(
    "sources", [{}, {"teacher_from": None, "unlabelled": ""}, {"more_teachers_from": ["run:a", "train"]}]
)
def test_a_stranger_may_name_runs(store: Store, sources: dict[str, object]) -> None:
    Access(public=True, training=True).check_paths(asker(), {"dataset": "cifar10", **sources}, store)


@pytest.mark.parametrize("order", [None, "", "text", "a,b", (), ("text",), ["a", "b"]])
def test_a_stranger_may_name_classes(store: Store, order: object) -> None:
    Access(public=True, training=True).check_paths(asker(), {"class_order": order}, store)


def test_a_strangers_run_names_no_file_as_the_order_of_classes(store: Store) -> None:
    config = make_config(class_order="/etc/passwd")
    with pytest.raises(AccessError, match="Files of this machine"):
        Access(public=True, training=True).check_start(asker(), config, store)


def test_a_run_that_is_asked_to_stop_says_so_in_the_list(store: Store) -> None:
    run, handle = store.create(RunConfig())
    assert handle is not None
    run.write_status(replace(run.status, state=RUNNING))
    shown = table_html(store, lambda *_: True)
    assert "Training" in shown
    assert 'data-act="stop"' in shown
    (run.path / "control.json").write_text('{"request": "stop"}')
    shown = table_html(store, lambda *_: True)
    assert "Stopping" in shown
    assert 'data-act="stop"' not in shown
    os.close(handle)


def fire(url: str, target: str, event: str, values: dict[str, Any], **headers: str) -> str:
    """What the server says to the events of a field of the form, sent by a program; values: by elem_id."""
    config = CLIENT.get(f"{url}/config").json()
    props = {c["id"]: c["props"] for c in config["components"]}
    source = next(number for number, own in props.items() if own.get("elem_id") == target)
    said = []
    for dependency in config["dependencies"]:
        if [source, event] in dependency["targets"] and dependency["backend_fn"]:
            own = [props[number] for number in dependency["inputs"]]
            data = [values.get(str(p.get("elem_id")), p.get("value")) for p in own]
            body = {"data": data, "fn_index": dependency["id"], "session_hash": "stranger"}
            said.append(CLIENT.post(f"{url}/gradio_api/run/predict", json=body, headers=headers, timeout=60).text)
    assert len(said) > 1
    return "\n".join(said)


def test_strangers_see_no_folder_of_the_host(guarded: str, pictures: Path) -> None:
    """Neither its pictures, nor how many there are, nor whether it is there."""
    there, gone = str(pictures), str(pictures / "nothing")
    for values in ({"f-dataset": "folder:", "f-folder": there}, {"f-dataset": "folder:", "f-folder": gone}):
        said = fire(guarded, "f-dataset", "change", values)
        assert "data:image" not in said
        assert "stripes" not in said
        assert "no folder" not in said.lower()
        assert "token" in said
    proof = {"x-iekd-token": TOKEN}
    assert "data:image" in fire(guarded, "f-dataset", "change", {"f-dataset": "folder:", "f-folder": there}, **proof)
    answers = []
    for path in ("/etc/passwd", "/etc/nothing-of-the-kind"):
        for config in ({"dataset": f"folder:{path}"}, {"teacher_from": path}):
            answers.append(json.dumps(call(guarded, "start", config, "")[1]).replace(path, ""))
    assert answers[:2] == answers[2:], "the same whether it is there or not"


def test_healthz_says_version_and_queue(guarded: str, server: str) -> None:
    for url in (guarded, server):
        answer = CLIENT.get(f"{url}/healthz")
        assert answer.status_code == 200
        assert answer.json()["version"] == __version__
        assert {"queued", "running"} <= answer.json().keys()


def test_a_public_page_offers_no_training(runs_dir: Path, finished_run: str, pictures: Path) -> None:
    with serving(runs_dir, "--public") as url:
        kind, data = call(url, "start", {**QUICK, "dataset": "fashion-mnist-sample"}, "")
        assert kind == "error"
        assert "switched off" in json.dumps(data)
        assert "switched off" in CLIENT.get(f"{url}/config").text
        answer = CLIENT.get(f"{url}/sign-in")
        assert (answer.status_code, answer.headers["location"]) == (303, "./"), "there is no token to give"
        assert call(url, "run_status", finished_run)[0] == "complete"


def test_a_comparison_has_so_many_pictures(runs_dir: Path, finished_run: str, pictures: Path) -> None:
    from iekd.ui.tabs.compare import compare_files

    one = str(pictures / "test" / "disc" / "0.png")
    assert len(compare_files(Store(runs_dir), finished_run, [one] * 5, most=5)["images"]) == 5
    with pytest.raises(UserError, match="6 images are more than the 5"):
        compare_files(Store(runs_dir), finished_run, [one] * 6, most=5)
