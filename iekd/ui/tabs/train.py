"""The Train tab: a form in three steps, a summary that stays in view beside it, and the view of the run it started."""

from __future__ import annotations

import secrets
from contextlib import suppress
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any, Optional
from urllib.parse import urlsplit, urlunsplit

import gradio as gr

from iekd.config.run import NO_TEACHER, RunConfig
from iekd.config.snippets import api_snippet, python_snippet
from iekd.errors import UserError
from iekd.language import N_, _
from iekd.launchers.base import Launcher
from iekd.launchers.hub_jobs import HUB_JOBS, HubJobsLauncher
from iekd.models import libraries
from iekd.paths import typed
from iekd.runs.estimate import estimate
from iekd.runs.latencies import Latencies
from iekd.runs.owner import LOCAL
from iekd.runs.prepare import ROLES, prepare
from iekd.runs.probes import Probes
from iekd.runs.queue import ahead_of_new
from iekd.runs.store import Store
from iekd.ui.render import train as html
from iekd.ui.render.template import html_text
from iekd.ui.rights.access import HEADER, SIGN_IN, SIGN_OUT, Access, May
from iekd.ui.shared.actions import start_run
from iekd.ui.tabs import choices, form
from iekd.ui.tabs.forecast import forecast_html
from iekd.ui.tabs.jobs import where_part
from iekd.ui.tabs.pause import TYPED, click_after_a_pause
from iekd.ui.tabs.run import PRIVATE, RunView, Updates, look, run_view
from iekd.ui.tabs.train_images import EAGER, images_step
from iekd.ui.tabs.train_steps import as_code, connect_choices, expert_settings, methods_step, networks_step

# what stands above Start
WELCOME = (
    N_("Ready to go: press Start"),
    N_("Watch a teacher’s small students learn side by side, then compare them on your own images."),
)
CAREFUL = N_("Not enough test images"), N_("It can start, but the result will mean nothing: see the warning.")
NOT_YET = N_("Not ready yet"), N_("Something has to be chosen or changed first.")
LOOK_AROUND = (
    N_("Look around"),
    N_(
        "See in <b>Runs</b> what students have learned from their teachers, and <b>Compare</b> them on your own images."
    ),
)
NO_UPLOAD = N_("Fill the cards with images and press “Use these images”, or upload a zip with one folder per class.")
PRICE_FIRST = N_("The price has changed, or was not shown yet. Look at it, and press Start again.")
TO_TOP = "() => window.scrollTo({top: 0})"
SCRIPT = (Path(html.__file__).parent / "train.js").read_text()


@dataclass
class TrainTab:
    """What other tabs and the page's loading need of this one."""

    store: Store
    view: RunView
    form_box: gr.Column
    error: gr.HTML
    key: gr.Textbox
    dataset: gr.Radio

    @property
    def outputs(self) -> list[Any]:
        """What `show` may change."""
        return [self.form_box, self.view.box, self.error, *self.view.outputs]

    def show(self, run_id: str, may: May, problem: str = "", field: str = "") -> Updates:
        """Show a run that exists, or, without one, the form and what is wrong. field: the setting to change."""
        return {
            self.form_box: gr.Column(visible=not run_id),
            self.view.box: gr.Column(visible=bool(run_id)),
            self.error: html.problem_html(problem, field),
            **self.view.updates(look(self.store, run_id, {}, may)),
        }


def train_tab(demo: gr.Blocks, launcher: Launcher, shown: gr.Textbox, access: Access) -> TrainTab:
    """Build the tab. `shown` holds the id of the run on view, or nothing while the form is."""
    store = launcher.store
    fields: dict[str, Any] = {}
    with gr.Column(elem_id="form") as form_box, gr.Row(elem_id="form-columns", equal_height=False):
        with gr.Column(elem_id="steps", scale=7, min_width=300):
            if not access.anybody_starts:  # first of all, so that nobody sets up a run that cannot be started
                gr.HTML(who_may_start(access, None), elem_id="no-training")
            uploaded, nothing_uploaded = images_step(demo, store, access, fields)
            advice = gr.HTML(elem_id="advice")
            take = gr.Button(_("Use these settings"), visible=False, size="sm", elem_id="take-advice")
            networks = networks_step(fields)
            methods, rigour = methods_step(fields)
            expert_settings(fields)
            code = as_code()
        with gr.Column(elem_id="summary", scale=4, min_width=300):
            welcome = gr.HTML(_above_start(WELCOME if access.anybody_starts else LOOK_AROUND), elem_id="welcome")
            fields["name"] = gr.Textbox(
                label=_("Name of the run"), placeholder=_("optional"), max_lines=1, elem_id="f-name",
                visible=access.anybody_starts,
            )  # fmt: skip
            pair = gr.HTML(elem_id="pair-in-short")
            where = where_part(launcher, access)
            with gr.Column(elem_id="start-bar" if access.anybody_starts else None):
                time = gr.HTML(elem_id="estimate")
                if where:
                    where.most.render()  # type: ignore[no-untyped-call]
                error = gr.HTML(elem_id="error")
                start = gr.Button(
                    _("▶  Start"), variant="primary", size="lg", elem_id="start", visible=access.anybody_starts
                )
            if access.anybody_starts and (not access.everybody_starts or access.token):
                who = gr.HTML(who_may_start(access, None), elem_id="access")

                def signed_in(request: gr.Request) -> str:
                    return who_may_start(access, request)

                demo.load(signed_in, None, who, **PRIVATE)
            forecast = gr.HTML(elem_id="forecast")
    if access.visitors_start:  # what stands there can be started
        for name in ("epochs", "teacher_epochs", "auto_encoder_epochs"):
            fields[name].value = min(fields[name].value, access.limits.epochs)
        rigour.value = choices.rigour_chosen({name: field.value for name, field in fields.items()})
    connect_choices(fields, methods, rigour)
    demo.load(None, None, None, js=SCRIPT, api_visibility="private")
    changes = gr.HTML(visible="hidden", elem_id="changes")
    view = run_view(launcher, shown, access)
    key = gr.Textbox(visible=False)  # the same for every click until a run has started: two clicks start one
    latencies = Latencies(store)
    timer, probes = gr.Timer(2.0, active=False), Probes(store)  # it ticks while a better estimate is on its way
    tab = TrainTab(store, view, form_box, error, key, fields["dataset"])
    # as a set: a handler then gets one dictionary, by component
    inputs = {*fields.values(), *(where.inputs if where else ())}

    def values_of(given: dict[Any, Any]) -> form.Values:
        return {name: given[component] for name, component in fields.items()}

    def allowed(request: gr.Request | None, values: form.Values) -> RunConfig:
        """The form's configuration, if whoever asks may have it looked at."""
        own, folder = values["dataset"] == form.OWN_IMAGES, typed(values["folder"] or "")
        if own and not folder and not access.trusts(request):
            raise form.MissingError(_(NO_UPLOAD))
        dataset = form.own_dataset(folder) if own else values["dataset"]
        access.check_paths(request, {**values, "dataset": dataset}, store)
        return form.to_config(values)

    def ready(all_right: bool, careful: bool) -> str:
        if not access.anybody_starts:
            return _above_start(LOOK_AROUND)
        return _above_start(NOT_YET if not all_right else CAREFUL if careful else WELCOME)

    def describe(request: gr.Request, given: dict[Any, Any]) -> Updates:
        values = values_of(given)
        found: Updates = {
            error: "", pair: "", time: "", **dict.fromkeys(code.values(), ""), timer: gr.Timer(active=False),
            networks: "", changes: html.changed_html(form.changed(values)), welcome: ready(False, False),
            advice: "", take: gr.Button(visible=False),
        }  # fmt: skip
        if not libraries.are_loaded() and any(form.asks_libraries(str(values[role] or "")) for role in ROLES):
            libraries.load_in_background()  # it takes seconds, in which the page is to say so
            return {**found, networks: html.loading_html(), timer: gr.Timer(active=True)}
        found[networks] = html.networks_html(values["teacher"], values["student"])
        try:
            prepared = prepare(allowed(request, values), store.root)
            config, info = prepared.config, prepared.info
            # of what strangers may not use, such as pretrained weights
            if access.trusts(request) and (proposal := form.proposal(config, info)):
                found |= {advice: html.advice_html(proposal.why), take: gr.Button(visible=True)}
            access.check_size(request, config, store)
            measuring = access.trusts(request) and probes.ask(config)
            named = list(dict.fromkeys(name for name in (config.teacher, config.student) if name != NO_TEACHER))
            timing = access.trusts(request) and not measuring and latencies.ask(named, config, info)
            taken = {name: latencies.known(name, config, info) for name in named}
            if not timing and not measuring:  # what could not be measured is not said
                taken = {name: seconds for name, seconds in taken.items() if seconds is not None}
            expected = estimate(config, store, prepared.teacher is not None, info)
            header = HEADER if access.token else ""
            found |= {
                forecast: forecast_html(prepared, store, measuring, expected), pair: html.pair_html(config),
                time: ""  # of this machine; that of a job is said with its price
                if where and given[where.place] == HUB_JOBS
                else html.estimate_html(expected, ahead_of_new(config, store) if launcher.name == LOCAL else []),
                code["command"]: config.command_line(), code["python"]: python_snippet(config),
                code["api"]: api_snippet(config, address_of_page(request), header),
                networks: html.networks_html(
                    config.teacher, config.student, info.channels, info.classes,
                    config.resolution or info.resolution, taken,
                ),
                welcome: ready(True, any(caution.serious for caution in prepared.cautions())),
                timer: gr.Timer(active=measuring or timing),
            }  # fmt: skip
        except form.MissingError as missing:
            found[forecast] = f'<p class="note">{escape(str(missing))}</p>'
        except UserError as wrong:
            found[error] = html.problem_html(wrong, form.wrong_field(wrong, values))
            words = html_text("No forecast while a setting is wrong.")
            found[forecast] = f'<p class="note">{words}</p>'
        return found

    def take_advice(request: gr.Request, given: dict[Any, Any]) -> Updates:
        values = values_of(given)
        with suppress(UserError):  # it was shown for settings that were right
            prepared = prepare(allowed(request, values), store.root)
            if proposal := form.proposal(prepared.config, prepared.info):
                values |= form.proposed_values(proposal)
        filled = {component: values[name] for name, component in fields.items()}
        return {**filled, rigour: choices.rigour_chosen(values)}

    def begin(request: gr.Request, given: dict[Any, Any], token: str = "") -> Updates:
        may, values = access.of(request), values_of(given)
        try:
            config = allowed(request, values)
            place = where.chosen(request, given, token) if where else launcher
            if where and isinstance(place, HubJobsLauncher):
                offer = where.priced(prepare(config, store.root, here=False), place)
                if offer[where.most] != given[where.most]:
                    return {**offer, **tab.show("", may, _(PRICE_FIRST))}
            run_id = start_run(place, access, request, config, given[key])
        except UserError as problem:
            return tab.show("", may, str(problem), form.wrong_field(problem, values))
        return {shown: run_id, key: secrets.token_hex(8), **tab.show(run_id, may)}

    def priced(request: gr.Request, given: dict[Any, Any], token: str = "") -> Updates:
        assert where is not None
        values, paid = values_of(given), given[where.place] == HUB_JOBS
        shown_now: Updates = {where.details: gr.Column(visible=paid), where.price: "", where.most: ""}
        try:
            if isinstance(place := where.chosen(request, given, token), HubJobsLauncher):
                prepared = prepare(allowed(request, values), store.root, here=False)
                shown_now |= where.priced(prepared, place)
        except UserError as problem:
            shown_now[where.price] = html.problem_html(problem)
        return shown_now

    def begin_logged_in(request: gr.Request, given: dict[Any, Any], token: Optional[gr.OAuthToken]) -> Updates:
        return begin(request, given, token.token if token else "")

    def priced_logged_in(request: gr.Request, given: dict[Any, Any], token: Optional[gr.OAuthToken]) -> Updates:
        return priced(request, given, token.token if token else "")

    def again(run_id: str, request: gr.Request) -> Updates:
        may = access.of(request)
        try:
            values = form.to_values(store.get(run_id).config)
        except UserError as problem:
            return {shown: "", **tab.show("", may, str(problem))}
        filled = {component: values[name] for name, component in fields.items()}
        return {
            **filled, methods: choices.methods_chosen(values), rigour: choices.rigour_chosen(values),
            uploaded: nothing_uploaded, shown: "", **tab.show("", may),
        }  # fmt: skip

    def leave(request: gr.Request) -> Updates:
        return {shown: "", **tab.show("", access.of(request))}

    def described_again(request: gr.Request, given: dict[Any, Any]) -> Updates:
        found = describe(request, given)
        del found[error]  # what is wrong may be an unknown run, and stays
        return found

    def described_after(request: gr.Request, given: dict[Any, Any]) -> Updates:
        found = describe(request, given)
        if not found[error]:
            del found[error]  # why a run's settings cannot be filled in has just been said, and stays
        return found

    described = [advice, take, welcome, forecast, pair, time, networks, changes, *code.values(), timer]
    look_again = gr.Button(visible="hidden", elem_id="look-again")
    typed_in = [field for field in fields.values() if isinstance(field, TYPED)]
    others = [field for field in fields.values() if not isinstance(field, TYPED)]
    chosen = gr.on([field.change for field in others], describe, inputs, [error, *described], **EAGER)
    gr.on([field.change for field in typed_in], None, js=click_after_a_pause("look-again"), **PRIVATE)
    looked = look_again.click(describe, inputs, [error, *described], **EAGER)
    timer.tick(described_after, inputs, [error, *described], **EAGER)  # a library's network may turn out to be wrong
    # on coming back a teacher may be at hand that was not before
    gr.on([demo.load, view.back.click], described_again, inputs, described, **EAGER)
    taken = take.click(take_advice, inputs, [*fields.values(), rigour], **PRIVATE)
    taken.then(described_after, inputs, [error, *described], **PRIVATE)
    login = where is not None and where.login
    paid = [where.flavor, where.price, where.most] if where else []
    start.click(
        begin_logged_in if login else begin, {key, *inputs, *paid}, [shown, key, *tab.outputs, *paid], **PRIVATE
    )
    if where is not None:
        asks = priced_logged_in if login else priced, inputs, [where.details, where.flavor, where.price, where.most]
        moves = [where.place.change, where.flavor.input, where.timeout.submit, where.timeout.blur]
        moved = gr.on(moves, *asks, **PRIVATE)
        for event in (chosen, looked):  # the time that it takes, and what is sent, follow the settings
            event.then(*asks, **PRIVATE)
        moved.then(described_after, inputs, [error, *described], **PRIVATE)
        if login:
            demo.load(where.welcome, None, None, **PRIVATE)
    view.back.click(leave, None, [shown, *tab.outputs], **PRIVATE)
    filled_in = [*fields.values(), methods, rigour, uploaded, shown, *tab.outputs]
    asked_again = view.again.click(again, shown, filled_in, **PRIVATE)
    asked_again.then(described_after, inputs, [error, *described], **PRIVATE).then(None, None, None, js=TO_TOP)
    return tab


def _above_start(texts: tuple[str, str]) -> str:
    """A heading and a sentence as HTML."""
    heading, sentence = map(html_text, texts)
    return f"<h2>{heading}</h2><p>{sentence}</p>"


def address_of_page(request: gr.Request) -> str:
    """The address at which whoever asks has opened the page; of this machine if the browser does not say."""
    opened = urlsplit(str(request.headers.get("referer", "")))
    if opened.scheme in ("http", "https") and opened.netloc:
        return urlunsplit((opened.scheme, opened.netloc, opened.path, "", ""))
    return "http://127.0.0.1:7860"


def who_may_start(access: Access, request: gr.Request | None) -> str:
    """What stands below Start where not everybody may press it, or above the form where nobody may."""
    if access.is_admin(request):
        words = html_text("You are signed in and may do everything. <a>Sign out</a>")
    elif access.everybody_starts:
        words = html_text("<a>Sign in</a> to start what is too large for visitors.")
    elif access.token:
        words = html_text("Starting a run here needs the administrator’s token. <a>Sign in</a>")
    else:
        words = html_text(
            "Training is switched off on this public page. You can look at everything that can be set. To train, "
            "install the program on your own machine."
        )
    link = SIGN_OUT if access.is_admin(request) else SIGN_IN
    kind = "note" if access.is_admin(request) or access.everybody_starts or access.token else "notice"
    return f'<p class="{kind}">{words}</p>'.replace("<a>", f'<a href=".{link}">')


def known_run(store: Store, run_id: str) -> tuple[str, str]:
    """The id, if there is such a run, else "" and what to say of it."""
    if run_id:
        try:
            store.get(run_id)
        except UserError:
            return "", _("There is no run '{run}' here, or no more. Runs lists those there are.", run=run_id)
    return run_id, ""
