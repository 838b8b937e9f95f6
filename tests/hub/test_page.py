"""Publishing from a run's page: whose token it is, and who may."""

from __future__ import annotations

from types import SimpleNamespace

import gradio as gr
import pytest

from iekd.errors import UserError
from iekd.runs.store import Store
from iekd.ui.app import build_app
from iekd.ui.rights.access import PUBLISH, Access, AccessError
from iekd.ui.tabs import publish
from iekd.ui.tabs.run import look

TOKEN = "an administrator's token"
OAUTH = ("OAUTH_CLIENT_ID", "OAUTH_CLIENT_SECRET", "OAUTH_SCOPES", "OPENID_PROVIDER_URL")
HERE = {"host": "127.0.0.1:7860"}


def asker(address="127.0.0.1", **headers):
    headers = {name.replace("_", "-"): text for name, text in (headers or HERE).items()}
    return SimpleNamespace(headers=headers, cookies={}, client=SimpleNamespace(host=address), username=None)


@pytest.mark.parametrize(
    ("access", "who", "may"),
    [
        (Access(), asker(), True),
        (Access(), asker("::1", host="localhost:7860"), True),
        (Access(), asker("192.168.0.7", host="192.168.0.2:7860"), False),
        (Access(), asker(host="studio.example.com"), False),
        (Access(), asker(host="127.0.0.1:7860", x_forwarded_for="8.8.8.8"), False),
        (Access(), None, False),
        (Access(public=True), asker(), False),
        (Access(public=True, training=True), asker(), False),
        (Access(token=TOKEN), asker(), False),
        (Access(token=TOKEN), asker("8.8.8.8", host="studio.example.com", x_iekd_token=TOKEN), True),
        (Access(token=TOKEN, public=True), asker("8.8.8.8", x_iekd_token=TOKEN), True),
        (Access(public=True, in_space=True), asker(), False),
    ],
)
def test_the_token_of_the_machine_is_for_its_user_only(finished, access, who, may):
    run = finished[0]
    assert access.may(who, run, PUBLISH) is may
    shown = look(Store(run.path.parent), run.id, {}, access.of(who))["publish"]
    assert shown.visible is may
    if not may:
        with pytest.raises(AccessError):
            access.check_change(who, run, PUBLISH)


def test_in_a_space_nobody_gets_the_owners_token(hub, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_of_the_owner")
    with pytest.raises(AccessError, match="Log in"):
        publish.own_token(Access(public=True, in_space=True, token=TOKEN))
    assert publish.own_token(Access()) == "hf_of_the_owner"


def buttons(page):
    return [block for block in page.blocks.values() if isinstance(block, gr.LoginButton)]


def test_the_login_of_gradio_is_shown_in_a_space_only(tmp_path, monkeypatch):
    for name in OAUTH:
        monkeypatch.setenv(name, "x")
    monkeypatch.setattr(publish, "find_spec", lambda name: object())
    monkeypatch.setattr("gradio.routes.attach_oauth", lambda app: None)  # needs gradio[oauth]
    assert not buttons(build_app(tmp_path, Access())), "there it would make everybody the machine's user"
    assert not buttons(build_app(tmp_path, Access(public=True)))
    assert len(buttons(build_app(tmp_path, Access(public=True, in_space=True)))) == 1
    monkeypatch.delenv("OAUTH_CLIENT_ID")
    assert not buttons(build_app(tmp_path, Access(public=True, in_space=True))), "the Space has no login"
    monkeypatch.setenv("OAUTH_CLIENT_ID", "x")
    monkeypatch.setattr(publish, "find_spec", lambda name: None)
    assert not buttons(build_app(tmp_path, Access(public=True, in_space=True))), "the page would not open"


def handler(page, name):
    return next(event.fn for event in page.fns.values() if event.name == name)


def test_the_button_pushes_with_the_machines_token(hub, finished, no_export):
    run = finished[0]
    send = handler(build_app(run.path.parent, Access()), "publish")
    said = send(run.id, "student", "ie-ft-seed0", "ann/pets", True, "mit", asker())
    assert f"{hub.address}/ann/pets" in said
    assert hub.repo("ann/pets").private
    assert {token for _, path, token in hub.requests if path.startswith("/api/")} == {hub.token}, hub.requests


def test_a_demo_shows_all_models_whichever_is_chosen(finished, monkeypatch):
    run, asked = finished[0], []

    def gathered(what, repo, *, model, **_):
        asked.append((what, model))
        raise UserError("That is enough.")

    monkeypatch.setattr(publish, "gathered", gathered)
    for what in ("demo", "student"):
        with pytest.raises(UserError):
            publish.published(run, what, "ie-ft-seed0", "ann/pets", True, "", "hf_writer")
    assert asked == [("demo", None), ("student", run.model_folders["ie-ft-seed0"])]


@pytest.mark.parametrize(
    ("who", "model", "repo", "words"),
    [
        (asker("192.168.0.7", host="192.168.0.2:7860"), "ie-ft-seed0", "ann/pets", "Only whoever sits at this machine"),
        (asker(), "ie-ft-seed0", "", "ORG/NAME"),
        (asker(), "ie-ft-seed7", "ann/pets", "ie-ft-seed1"),
        (asker(), "../../etc", "ann/pets", "ie-ft-seed1"),
        (asker(), "ie-ft-seed0", "bob/pets", "may not do this"),
        (asker(), "ie-ft-seed0", "ann/<b>", "&lt;b&gt;"),
    ],
)
def test_what_is_refused_is_said(hub, finished, no_export, who, model, repo, words):
    send = handler(build_app(finished[0].path.parent, Access()), "publish")
    said = send(finished[0].id, "student", model, repo, True, "", who)
    assert words in said
    assert "problem" in said
    assert not hub.repos


def test_a_visitor_of_a_space_publishes_with_their_own_token(hub, finished, no_export, monkeypatch):
    for name in OAUTH:
        monkeypatch.setenv(name, "x")
    monkeypatch.setattr(publish, "find_spec", lambda name: object())
    monkeypatch.setattr("gradio.routes.attach_oauth", lambda app: None)  # needs gradio[oauth]
    monkeypatch.setenv("HF_TOKEN", "hf_of_the_owner")
    run = finished[0]
    access = Access(public=True, in_space=True, token=TOKEN)
    send = handler(build_app(run.path.parent, access), "publish_logged_in")
    admin, stranger = asker("1.2.3.4", x_iekd_token=TOKEN), asker("1.2.3.4", host="x.hf.space")
    token = gr.OAuthToken("hf_writer", "openid contribute-repos", 10**10)
    values = (run.id, "student", "ie-ft-seed0", "ann/pets", True, "")
    assert "Log in" in send(*values, admin, None)
    assert "You may not publish this run" in send(*values, stranger, token), "it is somebody else's run"
    assert not hub.requests
    assert "Published" in send(*values, admin, token)
    assert {token for _, path, token in hub.requests if path.startswith("/api/")} == {"hf_writer"}
