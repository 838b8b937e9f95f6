"""The Train tab: a form that is ready to start, and the view of the run that was started."""

from __future__ import annotations

import contextlib
import secrets
from dataclasses import dataclass
from html import escape
from typing import Any, Literal

import gradio as gr

from iekd import data
from iekd.config.run import GROUPS, RunConfig
from iekd.data.archives import ZIP
from iekd.data.refusals import UnclearClassesError
from iekd.errors import UserError
from iekd.launchers.base import Launcher
from iekd.paths import typed
from iekd.runs.prepare import prepare
from iekd.runs.probes import Probes
from iekd.runs.store import Store
from iekd.ui.render.about import HOW_IT_WORKS
from iekd.ui.render.examples import thumbnails_html
from iekd.ui.server.access import SIGN_IN, SIGN_OUT, Access, May
from iekd.ui.server.actions import start_run, upload_pictures
from iekd.ui.server.gradio_patches import file_field
from iekd.ui.tabs import form
from iekd.ui.tabs.forecast import forecast_html
from iekd.ui.tabs.run import PRIVATE, RunView, Updates, look, run_view

EAGER: dict[str, Any] = {**PRIVATE, "trigger_mode": "always_last"}

WELCOME = (
    "<h2>Ready to go: press Start</h2><p>A teacher and its small students are set up. "
    "Watch them learn side by side, then compare them on your own pictures.</p>"
)
CAREFUL = "<h2>Not enough test pictures</h2><p>It can start, but the result will mean nothing: see the warning.</p>"
NOT_YET = "<h2>Not ready yet</h2><p>Something has to be chosen or changed first.</p>"
LOOK_AROUND = (
    "<h2>Look around</h2><p>See in <b>Runs</b> what students have learned from their teachers, "
    "and <b>Compare</b> them on your own pictures.</p>"
)
VISIBLE_TO_ALL = '<p class="note">Others will see your pictures on this public page.</p>'

NO_UPLOAD = "Upload a zip of your pictures: one folder per class."

TO_TOP = "() => window.scrollTo({top: 0})"
# while Start is out of view, what is wrong stands at the foot of the window (style.css). Gradio makes a new button when
# the form comes back from a run, which has to be watched in place of the one before.
WATCH_START = """() => {
  let watched = null;
  const seen = new IntersectionObserver((looks) =>
    document.documentElement.toggleAttribute('data-start-away', !looks[looks.length - 1].isIntersecting)
  );
  const watch = () => {
    const start = document.querySelector('#start');
    if (start === watched) return;
    seen.disconnect();
    watched = start;
    if (start) seen.observe(start);
  };
  new MutationObserver(watch).observe(document.body, {childList: true, subtree: true});
  watch();
}"""
# Typing changes a field at every key, and a path is looked at on the disk: a moment after the last key a hidden button
# is clicked, which asks with the values of that moment.
PAUSE = 300  # milliseconds
AFTER_A_PAUSE = """() => {
  window.pauses ??= {};
  clearTimeout(window.pauses['BUTTON']);
  window.pauses['BUTTON'] = setTimeout(() => document.querySelector('#BUTTON')?.click(), PAUSE);
}""".replace("PAUSE", str(PAUSE))
TYPED = (gr.Textbox, gr.Number)
UNFOLD = """() => {
  const open = document.documentElement.toggleAttribute('data-advanced');
  document.querySelector('#unfold').setAttribute('aria-expanded', open);
}"""


@dataclass
class TrainTab:
    """What other tabs and the page's loading need of this one."""

    store: Store
    view: RunView
    form_box: gr.Column
    error: gr.HTML
    key: gr.Textbox
    dataset: gr.Dropdown

    @property
    def outputs(self) -> list[Any]:
        """What `show` may change."""
        return [self.form_box, self.view.box, self.error, *self.view.outputs]

    def show(self, run_id: str, may: May, problem: str = "") -> Updates:
        """Show a run that exists, or, without one, the form and what is wrong."""
        return {
            self.form_box: gr.Column(visible=not run_id),
            self.view.box: gr.Column(visible=bool(run_id)),
            self.error: sentence(problem),
            **self.view.updates(look(self.store, run_id, {}, may)),
        }


def train_tab(demo: gr.Blocks, launcher: Launcher, shown: gr.Textbox, access: Access) -> TrainTab:
    """Build the tab. `shown` holds the id of the run on view, or nothing while the form is."""
    store = launcher.store
    fields: dict[str, Any] = {}
    with gr.Column(elem_id="form") as form_box:
        with gr.Row(elem_id="ready", equal_height=False):
            with gr.Column(scale=5, min_width=300):
                welcome = gr.HTML(WELCOME if access.anybody_starts else LOOK_AROUND, elem_id="welcome")
                start = gr.Button(
                    "▶  Start", variant="primary", size="lg", elem_id="start", visible=access.anybody_starts
                )
                if not access.everybody_starts or access.token:
                    who = gr.HTML(who_may_start(access, None), elem_id="access")

                    def signed_in(request: gr.Request) -> str:
                        return who_may_start(access, request)

                    demo.load(signed_in, None, who, **PRIVATE)
                error = gr.HTML(elem_id="error")
            with gr.Column(scale=6, min_width=300):
                forecast = gr.HTML(elem_id="forecast")
        gr.HTML(f'<h3 class="section">{"Or change it first" if access.anybody_starts else "What can be set"}</h3>')
        with gr.Row(equal_height=False):
            with gr.Column(scale=1, min_width=300, elem_classes="panel"):
                fields["dataset"] = gr.Dropdown(
                    form.dataset_choices(),
                    value=form.default("dataset"),
                    label="Pictures to learn",
                    filterable=False,
                    elem_id="f-dataset",
                )
                fields["folder"] = gr.Textbox(
                    label="Path of the folder on this machine", visible=False, max_lines=1, elem_id="f-folder",
                    info=form.folder_help(),
                )  # fmt: skip
                with gr.Column(visible=False, elem_id="own-pictures") as upload:
                    archive = file_field(
                        label="A zip to upload: one folder of pictures per class", file_types=[ZIP],
                        height=150, elem_id="f-archive",
                    )  # fmt: skip
                    nothing_uploaded = VISIBLE_TO_ALL if access.public else ""
                    uploaded = gr.HTML(nothing_uploaded, elem_id="uploaded")
                    which = gr.Radio(visible=False, label="Which folders are the classes?", elem_id="which-classes")
                thumbnails = gr.HTML(elem_id="thumbnails")
            with gr.Column(scale=1, min_width=300, elem_classes="panel"):
                with gr.Row():
                    fields["teacher"] = gr.Dropdown(
                        form.model_choices(True), value=form.default("teacher"), label="Teacher (parameters)",
                        min_width=200,
                        filterable=False, elem_id="f-teacher",
                    )  # fmt: skip
                    fields["student"] = gr.Dropdown(
                        form.model_choices(False), value=form.default("student"), label="Student (parameters)",
                        min_width=200,
                        filterable=False, elem_id="f-student",
                    )  # fmt: skip
                with gr.Row():
                    fields["epochs"] = gr.Number(
                        form.default("epochs"),
                        label="Epochs",
                        info="Passes over the pictures",
                        min_width=120,
                        elem_id="f-epochs",
                    )
                    fields["seeds"] = gr.Textbox(
                        "0",
                        label="Seeds",
                        info="Several, as in 0, 1, 2, tell skill from luck",
                        max_lines=1,
                        min_width=120,
                        elem_id="f-seeds",
                    )
                preset = gr.Dropdown(
                    form.preset_choices(), value="quick", label="Preset", filterable=False, elem_id="f-preset",
                    info="Fills in epochs, learning rate and what else a protocol fixes",
                )  # fmt: skip
        fields["methods"] = gr.CheckboxGroup(
            form.method_choices(), value=list(form.default("methods")), label="How the students are taught",
            info="One student for each. They get the same pictures and begin with the same weights.",
            elem_id="f-methods",
        )  # fmt: skip
        fields["with_kd"] = gr.CheckboxGroup(
            form.combined_choices(), value=[], label="The same with knowledge distillation on top",
            elem_id="f-with_kd",
        )  # fmt: skip
        # all fields are there from the start, only not seen: an accordion builds them when it opens, and what is typed
        # into them meanwhile is lost
        unfold = gr.Button("Advanced", elem_id="unfold")
        unfold.click(None, None, None, js=UNFOLD, api_visibility="private")
        with gr.Column(elem_id="advanced", elem_classes="panel"):
            for heading, names in GROUPS.items():
                gr.HTML(f'<h4 class="section">{heading}</h4>')
                with gr.Row():
                    for name in names:
                        fields[name] = form.advanced_field(name)
        if access.visitors_start:  # what stands there can be started
            for name in ("epochs", "teacher_epochs", "auto_encoder_epochs"):
                fields[name].value = min(fields[name].value, access.limits.epochs)
            preset.value = form.preset_of({name: field.value for name, field in fields.items()})
        command = gr.Textbox(
            label="The same as a command",
            info="After make run, iekd is .venv/bin/iekd",
            interactive=False,
            lines=1,
            max_lines=6,
            buttons=["copy"],
            elem_id="command",
        )
        with gr.Accordion("How it works", open=False, elem_id="how"):
            gr.HTML(HOW_IT_WORKS)
    demo.load(None, None, None, js=WATCH_START, api_visibility="private")
    view = run_view(launcher, shown, access)
    key = gr.Textbox(visible=False)  # the same for every click until a run has started: two clicks start one
    timer, probes = gr.Timer(2.0, active=False), Probes(store)  # it ticks while a better estimate is on its way
    tab = TrainTab(store, view, form_box, error, key, fields["dataset"])
    inputs = set(fields.values())  # as a set: a handler then gets one dictionary, by component

    def values_of(given: dict[Any, Any]) -> form.Values:
        return {name: given[component] for name, component in fields.items()}

    def allowed(request: gr.Request | None, values: form.Values) -> RunConfig:
        """The form's configuration, if whoever asks may have it looked at."""
        own, folder = values["dataset"] == form.OWN_FOLDER, typed(values["folder"] or "")
        if own and not folder and not access.trusts(request):
            raise form.MissingError(NO_UPLOAD)
        dataset = form.own_dataset(folder) if own else values["dataset"]
        access.check_paths(request, dataset, values["teacher_from"], store, values["class_order"])
        return form.to_config(values)

    def ready(all_right: bool, careful: bool) -> str:
        if not access.anybody_starts:
            return LOOK_AROUND
        return NOT_YET if not all_right else CAREFUL if careful else WELCOME

    def describe(request: gr.Request, given: dict[Any, Any]) -> Updates:
        problem, command_line, measuring, careful = "", "", False, False
        try:
            prepared = prepare(allowed(request, values_of(given)), store.root)
            access.check_size(request, prepared.config, store)
            measuring = access.trusts(request) and probes.ask(prepared.config)
            foreseen, command_line = forecast_html(prepared, store, measuring), prepared.config.command_line()
            careful = any(caution.serious for caution in prepared.cautions())
        except form.MissingError as missing:
            foreseen = f'<p class="note">{escape(str(missing))}</p>'
        except UserError as wrong:
            problem, foreseen = str(wrong), '<p class="note">No forecast while a setting is wrong.</p>'
            measuring = False
        return {
            error: sentence(problem), welcome: ready(bool(command_line), careful), forecast: foreseen,
            command: command_line, timer: gr.Timer(active=measuring),
        }  # fmt: skip

    def pictures(request: gr.Request, dataset: str, folder: str | None) -> Updates:
        own, path = dataset == form.OWN_FOLDER, typed(folder or "")
        name = form.own_dataset(path) if own else dataset
        visible: bool | Literal["hidden"] = own and access.trusts(request)
        if own and not visible:
            visible = "hidden"  # for an upload to fill it in
        strip = ""
        with contextlib.suppress(UserError):  # the forecast says why
            access.check_paths(request, name, None, store)
            strip = thumbnails_html(name) if path or not own else ""
        return {
            fields["folder"]: gr.Textbox(visible=visible),
            upload: gr.Column(visible=own and access.may_start(request)),
            thumbnails: strip,
        }

    def take(request: gr.Request, file: str, classes: str = "") -> Updates:
        # the folder of an earlier upload goes too: nobody is to train on it while reading that theirs was refused
        nothing: Updates = {fields["folder"]: "", archive: None, which: gr.Radio(value=None, visible=False)}
        try:
            name, found = upload_pictures(store, access, request, file, classes or "")
        except UnclearClassesError as asked:
            choices = [(text, answer) for answer, text in asked.answers.items()]
            question = gr.Radio(choices, value=None, visible=True)
            return {**nothing, uploaded: sentence(asked.question), archive: gr.skip(), which: question}
        except UserError as problem:
            return {**nothing, uploaded: sentence(problem)}
        note = f'<p class="note">{escape(found)}</p>'
        return {**nothing, fields["folder"]: str(data.own_path(name)), uploaded: note}

    def begin(request: gr.Request, given: dict[Any, Any]) -> Updates:
        may = access.of(request)
        try:
            config = allowed(request, values_of(given))
            run_id = start_run(launcher, access, request, config, given[key])
        except UserError as problem:
            return tab.show("", may, str(problem))
        return {shown: run_id, key: secrets.token_hex(8), **tab.show(run_id, may)}

    def again(run_id: str, request: gr.Request) -> Updates:
        may = access.of(request)
        try:
            values = form.to_values(store.get(run_id).config)
        except UserError as problem:
            return {shown: "", **tab.show("", may, str(problem))}
        filled = {component: values[name] for name, component in fields.items()}
        return {
            **filled, preset: form.preset_of(values), uploaded: nothing_uploaded, shown: "", **tab.show("", may),
        }  # fmt: skip

    def leave(request: gr.Request) -> Updates:
        return {shown: "", **tab.show("", access.of(request))}

    def fill_in(name: str) -> Updates:
        values = form.preset_values(name) if name else dict.fromkeys(form.PRESET_FIELDS, gr.skip())
        return {fields[field]: value for field, value in values.items()}

    def described_again(request: gr.Request, given: dict[Any, Any]) -> Updates:
        found = describe(request, given)
        del found[error]  # what is wrong may be an unknown run, and stays
        return found

    def described_after(request: gr.Request, given: dict[Any, Any]) -> Updates:
        found = describe(request, given)
        if not found[error]:
            del found[error]  # why a run's settings cannot be filled in has just been said, and stays
        return found

    described = [welcome, forecast, command, timer]
    picture_fields = [fields["dataset"], fields["folder"]]
    look_again, look_at_pictures = (gr.Button(visible="hidden", elem_id=name) for name in ("look-again", "look-at"))
    typed_in = [field for field in fields.values() if isinstance(field, TYPED)]
    others = [field for field in fields.values() if not isinstance(field, TYPED)]
    gr.on([field.change for field in others], describe, inputs, [error, *described], **EAGER)
    gr.on([field.change for field in typed_in], None, js=AFTER_A_PAUSE.replace("BUTTON", "look-again"), **PRIVATE)
    look_again.click(describe, inputs, [error, *described], **EAGER)
    timer.tick(described_again, inputs, described, **EAGER)
    # on coming back a teacher may be at hand that was not before
    gr.on([demo.load, view.back.click], described_again, inputs, described, **EAGER)
    gr.on(
        [demo.load, fields["dataset"].change, look_at_pictures.click],
        pictures,
        picture_fields,
        [fields["folder"], upload, thumbnails],
        **EAGER,
    )
    fields["folder"].change(None, js=AFTER_A_PAUSE.replace("BUTTON", "look-at"), **PRIVATE)
    taken = [fields["folder"], uploaded, archive, which]
    archive.upload(take, archive, taken, **PRIVATE)
    which.input(take, [archive, which], taken, **PRIVATE)
    # what was said of an upload is over once somebody chooses other pictures
    chosen = [*(field.input for field in picture_fields), archive.clear]
    gr.on(chosen, lambda: (nothing_uploaded, gr.Radio(value=None, visible=False)), None, [uploaded, which], **PRIVATE)
    fixed = [fields[field] for field in form.PRESET_FIELDS]
    preset.input(fill_in, preset, fixed, **PRIVATE)
    # a value of one's own makes it another protocol
    gr.on([field.input for field in fixed], lambda: "", None, preset, **PRIVATE)
    start.click(begin, {key, *inputs}, [shown, key, *tab.outputs], **PRIVATE)
    view.back.click(leave, None, [shown, *tab.outputs], **PRIVATE)
    asked_again = view.again.click(again, shown, [*fields.values(), preset, uploaded, shown, *tab.outputs], **PRIVATE)
    asked_again.then(described_after, inputs, [error, *described], **PRIVATE).then(None, None, None, js=TO_TOP)
    return tab


def who_may_start(access: Access, request: gr.Request | None) -> str:
    """What stands below Start where not everybody may press it, or where somebody may do more."""
    if access.is_admin(request):
        return f'<p class="note">You are signed in and may do everything. <a href=".{SIGN_OUT}">Sign out</a></p>'
    if access.everybody_starts:
        return f'<p class="note"><a href=".{SIGN_IN}">Sign in</a> to start what is too large for visitors.</p>'
    if access.token:
        return (
            f'<p class="note">Starting a run here needs the administrator’s token. <a href=".{SIGN_IN}">Sign in</a></p>'
        )
    return (
        '<p class="note">Training is switched off on this public page. Install the program and train on your own '
        "machine; below you see what can be set.</p>"
    )


def known_run(store: Store, run_id: str) -> tuple[str, str]:
    """The id, if there is such a run, else "" and what to say of it."""
    if run_id:
        try:
            store.get(run_id)
        except UserError:
            return "", f"There is no run '{run_id}' here, or no more. Runs lists those there are."
    return run_id, ""


def sentence(problem: object) -> str:
    """Something wrong, said at the form."""
    text = str(problem)
    return f'<p class="problem" role="alert">{escape(text)}</p>' if text else ""
