"""The part of a run's page that publishes it on the Hugging Face Hub.

In a Space with login each visitor publishes with their own account. Elsewhere it is the token of the machine's user,
and only they may. Gradio's login is an imitation outside of Spaces, where everybody would be the machine's user, so its
button is not shown there.
"""

from __future__ import annotations

import os
from html import escape
from importlib.util import find_spec
from typing import Any, Optional

import gradio as gr
from markupsafe import Markup

from iekd.errors import UserError
from iekd.hub.contents import What, gathered
from iekd.hub.push import machine_token, push
from iekd.hub_names import check_repo
from iekd.language import N_, _, english, ngettext
from iekd.runs.models import model_of
from iekd.runs.store import Run, Store
from iekd.ui.render.template import html_text, problem_html
from iekd.ui.render.words import first_chosen, model_titles
from iekd.ui.rights.access import PUBLISH, Access, AccessError
from iekd.ui.tabs.waiting import click_and_wait

WAIT = N_(
    "Publishing: models are exported and checked, which takes seconds to minutes. Then all files are sent to the "
    "Hugging Face Hub in one commit, and the address appears here."
)
KINDS = {"student": N_("One model"), "demo": N_("Demo in the browser"), "run": N_("The whole run, without images")}
SAID = N_(
    "Folders, user names and names of image files are taken out of what is published; names of classes, settings "
    "and results are in it."
)


def login_offered(access: Access) -> bool:
    """Whether visitors can log in with the Hub: in a Space whose README has `hf_oauth: true`."""
    names = ("OAUTH_CLIENT_ID", "OAUTH_CLIENT_SECRET", "OAUTH_SCOPES", "OPENID_PROVIDER_URL")
    ready = find_spec("authlib") is not None and find_spec("itsdangerous") is not None  # of gradio[oauth]
    return access.in_space and ready and all(os.environ.get(name) for name in names)


def publish_part(store: Store, shown: gr.Textbox, access: Access) -> tuple[gr.Accordion, gr.Dropdown, gr.HTML]:
    """Build it with its event; returns what changes with the run: the whole, the choice of models, what came of it."""
    login = login_offered(access)
    with gr.Accordion(_("Publish on the Hugging Face Hub"), open=False, visible=False, elem_id="publish") as part:
        gr.HTML(f"<p>{html_text(SAID)}</p>")
        if login:
            gr.LoginButton(elem_id="hub-login")
        with gr.Row():
            what = gr.Radio(
                [(_(text), kind) for kind, text in KINDS.items()],
                value="student",
                label=_("What"),
                min_width=300,
                elem_id="publish-what",
            )
            model = gr.Dropdown([], label=_("Model"), min_width=300, elem_id="publish-model")
        with gr.Row():
            repo = gr.Textbox(
                label=_("Repository"), placeholder=_("your-name/resnet20-pets"), max_lines=1, min_width=300,
                elem_id="publish-repo",
            )  # fmt: skip
            license = gr.Textbox(
                label=_("Licence"), placeholder=_("such as mit; empty: none is stated"), max_lines=1, min_width=300
            )
        private = gr.Checkbox(True, label=_("Private: only you, or your organisation, can see it"))
        button = gr.Button(_("Publish"), variant="primary", elem_id="publish-now")
        done = gr.HTML(elem_id="published")

    def send(
        asker: gr.Request,
        token: str,
        run_id: str,
        what: What,
        model: str | None,
        repo: str,
        private: bool,
        license: str,
    ) -> str:
        try:
            run = store.get(run_id)
            access.check_change(asker, run, PUBLISH)
            name = check_repo(repo.strip())
            return published(run, what, model or "", name, private, license.strip(), token or own_token(access))
        except UserError as error:
            return problem_html(error)

    def publish(
        run_id: str, what: What, model: str | None, repo: str, private: bool, license: str, request: gr.Request
    ) -> str:
        return send(request, "", run_id, what, model, repo, private, license)

    def publish_logged_in(
        run_id: str, what: What, model: str | None, repo: str, private: bool, license: str, request: gr.Request,
        token: Optional[gr.OAuthToken],
    ) -> str:  # fmt: skip
        return send(request, token.token if token else "", run_id, what, model, repo, private, license)

    what.change(
        lambda chosen: gr.Dropdown(visible=chosen == "student"), what, model,
        api_visibility="private", queue=False, show_progress="hidden",
    )  # fmt: skip
    inputs = [shown, what, model, repo, private, license]
    click_and_wait(button, _(WAIT), publish_logged_in if login else publish, inputs, done, concurrency_limit=2)
    return part, model, done


def own_token(access: Access) -> str:
    """The token of the machine's user; in a Space it is the owner's, and never used for visitors.

    Raises:
        UserError: there is none, or this is a Space.
    """
    if access.in_space:
        raise AccessError(
            _("Log in with Hugging Face first: in a Space everybody publishes with an account of their own.")
        )
    return machine_token()


def published(run: Run, what: What, model: str, repo: str, private: bool, license: str, token: str) -> str:
    """Push, and say where it is, as HTML.

    Raises:
        UserError: it did not work; says what is on the Hub now.
    """
    folder = model_of(run, model) if what == "student" else None  # a demo shows the teacher and all students
    with english(), gathered(what, repo, run=run, model=folder, license=license) as contents:
        pushed = push(contents, repo, token, private=private)
        notes = "".join(f"<p>{escape(note)}</p>" for note in contents.notes)
    state = (
        ngettext("{number} file in one commit", "{number} files in one commit", len(pushed.files))
        if pushed.changed
        else _("nothing has changed since the last time")
    )
    link = Markup('<a href="{url}" target="_blank">{url}</a>').format(url=pushed.url)
    return f"<p>{html_text('Published: {link} ({state}).', link=link, state=state)}</p>{notes}"


def reset(run: Run) -> dict[str, Any]:
    """For another run: its models to choose from, and nothing said yet; by the names of RunView's components."""
    choices = [(title, name) for name, title in model_titles(run).items()]
    return {"chosen": gr.Dropdown(choices, value=first_chosen(run)), "published": ""}
