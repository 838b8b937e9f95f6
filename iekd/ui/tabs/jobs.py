"""Where a run is trained, if the server was started with `--launcher hf-jobs`: on this machine, or as a job of the Hub
that whoever starts it pays for. Tokens are handled as in publish.py: they are used, and kept in memory only."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Optional

import gradio as gr

from iekd.errors import UserError
from iekd.estimate.cost import plan_of
from iekd.language import N_, _
from iekd.launchers.base import Launcher
from iekd.launchers.by_owner import ByOwner
from iekd.launchers.flavors import most_of
from iekd.launchers.hub_jobs import HUB_JOBS, HubJobsLauncher
from iekd.runs.owner import LOCAL
from iekd.runs.prepare import Prepared
from iekd.times import time_range
from iekd.ui.render.template import html_text
from iekd.ui.rights.access import Access, AccessError
from iekd.ui.tabs.publish import login_offered, own_token

ABOUT = N_(
    "Your run is trained on a machine of Hugging Face, which your account there pays for. Your pictures and the run "
    "are in a private bucket of yours."
)


@dataclass(frozen=True)
class WherePart:
    """login: whether visitors log in with the Hub, and their token is given to handlers. most: what a job costs at
    most; it has yet to be rendered, beside Start."""

    hub: HubJobsLauncher
    here: Launcher
    access: Access
    login: bool
    place: gr.Radio
    details: gr.Column
    flavor: gr.Dropdown
    timeout: gr.Textbox
    price: gr.HTML
    most: gr.HTML

    @property
    def inputs(self) -> set[Any]:
        return {self.place, self.flavor, self.timeout}

    def chosen(self, asker: gr.Request | None, given: dict[Any, Any], token: str) -> Launcher:
        """The launcher for what was chosen, with the token of whoever chose it; empty without a login.

        Raises:
            UserError: there is no token that they may use.
        """
        if given[self.place] != HUB_JOBS:
            return self.here
        options = {"flavor": str(given[self.flavor] or ""), "timeout": str(given[self.timeout] or "")}
        if not token and not self.access.in_space and not self.access.is_own_user(asker):
            raise AccessError(_("Only whoever sits at this machine may start jobs with its token."))
        if not token:
            own_token(self.access)  # there is one; in a Space it is not for visitors
        return self.hub.for_visitor(token or None, **options)

    def welcome(self, token: Optional[gr.OAuthToken]) -> None:
        """Runs that somebody started before the server was started again can be seen and stopped again."""
        if token is not None:
            with suppress(UserError):
                self.hub.welcome(token.token)

    def priced(self, prepared: Prepared, launcher: HubJobsLauncher) -> dict[Any, Any]:
        """What it costs, and the machines with their prices.

        Raises:
            UserError: there can be no such job.
        """
        plan = plan_of(prepared.config, prepared.info, prepared.teacher is not None)
        offer = launcher.offer(prepared.config, plan)
        machines = [(f"{one.name}, {one.title}: {one.price}", one.name) for one in offer.flavors]
        said = "".join(
            f"<p>{html_text('{said}', said=one)}</p>" for one in offer.sentences(time_range(offer.low, offer.high))
        )
        most = html_text('<p class="estimate">{most}</p>', most=most_of(offer.flavor, offer.limit))
        return {self.flavor: gr.Dropdown(machines, value=offer.flavor.name), self.price: said, self.most: most}


def where_part(launcher: Launcher, access: Access) -> WherePart | None:
    """Build it; None where there is nothing to choose."""
    hub = launcher.offered if isinstance(launcher, ByOwner) else None
    if not isinstance(hub, HubJobsLauncher) or not access.anybody_starts:
        return None
    login, usual = login_offered(access), hub.options()
    with gr.Column(elem_id="where"):
        place = gr.Radio(
            [(_("This machine"), LOCAL), ("Hugging Face Jobs", HUB_JOBS)], value=LOCAL, label=_("Where to train"),
            elem_id="f-where",
        )  # fmt: skip
        with gr.Column(visible=False, elem_id="job") as details:
            gr.HTML(f"<p>{html_text(ABOUT)}</p>")
            if login:
                gr.LoginButton(elem_id="hub-login-jobs")
            flavor = gr.Dropdown([usual.flavor], value=usual.flavor, label=_("Machine"), elem_id="f-flavor")
            timeout = gr.Textbox(
                usual.timeout, label=_("Time limit, such as 90m or 2h"), max_lines=1, elem_id="f-timeout"
            )
            price = gr.HTML(elem_id="job-price")
    most = gr.HTML(elem_id="job-most", render=False)
    return WherePart(hub, launcher, access, login, place, details, flavor, timeout, price, most)
