"""The page's endpoints for programs: every action of the page, as a method whose docstring and types describe it.

`ui/shared/endpoints.py` reads them and `ui/shared/answers.py` has the types. The MCP server (mcp_server.py) offers the
same methods.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable
from functools import wraps
from typing import Any, Optional, cast

import gradio as gr
from gradio.events import api

from iekd import data
from iekd.config.methods import METHODS
from iekd.config.run import RunConfig, learner_name, make_config
from iekd.data.refusals import UnclearClassesError
from iekd.errors import RunError, UserError
from iekd.export.web import WEB
from iekd.launchers.base import Launcher
from iekd.models.catalog import models
from iekd.runs.compare import compare_runs, to_json
from iekd.runs.exported import export_folder, export_in_run, files_of
from iekd.runs.notes import name_of, write_notes
from iekd.runs.siblings import pooled_markdown
from iekd.runs.store import Run
from iekd.ui.api.bodies import NOT_ALLOWED, WENT_WRONG
from iekd.ui.api.compare import compare, compare_csv
from iekd.ui.api.explain import explain
from iekd.ui.render.curves import read_curves
from iekd.ui.render.downloads import ADDRESS, downloads_of
from iekd.ui.render.runs import CHANGE
from iekd.ui.rights.access import Access, AccessError, May
from iekd.ui.rights.hidden_paths import Tell, teller
from iekd.ui.shared.actions import add_seeds, foresee, resume_run, start_run, upload_pictures
from iekd.ui.shared.answers import (
    Archive,
    Classes,
    DatasetRow,
    Deleted,
    Details,
    Exported,
    Forecast,
    FormatName,
    Key,
    Learner,
    Lines,
    MethodRow,
    ModelName,
    ModelRow,
    Models,
    Name,
    Note,
    RunFile,
    RunId,
    RunIds,
    RunsComparison,
    RunStatus,
    Seeds,
    SettingRow,
    Settings,
    Starred,
    Start,
    State,
    TestSetFound,
    setting_rows,
    takes_files,
)
from iekd.ui.shared.endpoints import ANSWER, Endpoint, endpoints_of
from iekd.ui.shared.gradio_patches import describe_endpoint, describe_field, file_field
from iekd.ui.tabs.test_set import test_set_found

log = logging.getLogger(__name__)
Asked = Optional[gr.Request]  # who asks; Gradio finds it by its type


class Actions:
    """What programs may ask for. Permissions are the page's own; each method is an endpoint of its name."""

    def __init__(self, launcher: Launcher, access: Access) -> None:
        self._launcher, self._store, self._access = launcher, launcher.store, access

    def start(self, config: Settings, key: Key = "", details: Details = False, request: Asked = None) -> Start:
        """Start a run with these settings; what is left out has its default. It trains in the background.

        Raises:
            UserError: a setting is unknown or its value cannot be used; the dataset or the teacher is not there.
            AccessError: you may not start runs, or not such large ones (403).
        """
        checked = self._config_of(config, request)
        found = foresee(self._store, self._access, request, checked) if details else None
        run_id = start_run(self._launcher, self._access, request, checked, key or "")
        return run_id if found is None else {"run": run_id, **found}

    def add_seeds(self, run_id: RunId, seeds: Seeds = 2, request: Asked = None) -> RunStatus:
        """Train more seeds of a finished run, with its settings and its teacher. If a run is adding some already, that
        one is answered and nothing is started.

        Raises:
            UserError: there is no such run, it has not finished, or what is trained now could not be pooled with it.
            AccessError: you may not start runs, or not such large ones (403).
        """
        count = 2 if seeds is None else seeds
        return self.run_status(add_seeds(self._launcher, self._access, request, run_id, count), request)

    def estimate(self, config: Settings, request: Asked = None) -> Forecast:
        """Warnings, time and memory of a run with these settings, which is not started.

        Raises:
            UserError: a setting is unknown or its value cannot be used; the dataset or the teacher is not there.
            AccessError: you may not start such a run (403).
        """
        return foresee(self._store, self._access, request, self._config_of(config, request))

    def run_status(self, run_id: RunId, request: Asked = None) -> RunStatus:
        """State, stage, progress and newest accuracies of a run.

        Raises:
            RunError: there is no such run.
        """
        return status_of(self._store.get(run_id), self._access.of(request))

    def list_runs(self, request: Asked = None) -> list[RunStatus]:
        """All runs, newest first.

        Returns:
            One object for each run; damaged folders are left out.
        """
        found = []
        for run in self._store.list():
            with contextlib.suppress(UserError):  # a damaged folder is no run
                found.append(status_of(run, self._access.of(request)))
        return found

    def stop_run(self, run_id: RunId, request: Asked = None) -> RunStatus:
        """Ask a run to stop after its current step. Its students are saved, and it can be resumed.

        Raises:
            RunError: there is no such run, or it is over.
            AccessError: you may not stop it (403).
        """
        self._access.check_change(request, self._store.get(run_id), "stop")
        self._launcher.request_stop(run_id)
        return self.run_status(run_id, request)

    def resume_run(self, run_id: RunId, request: Asked = None) -> RunStatus:
        """Continue a run that was stopped, failed or was lost, from its last checkpoint.

        Raises:
            RunError: there is no such run, it is still going, or it is finished.
            AccessError: you may not resume it (403).
        """
        resume_run(self._launcher, self._access, request, self._store.get(run_id))
        return self.run_status(run_id, request)

    def move_run_to_front(self, run_id: RunId, request: Asked = None) -> RunStatus:
        """Move a queued run to the front of the queue.

        Raises:
            RunError: there is no such run, or it does not wait.
            AccessError: you may not move it (403).
        """
        self._access.check_change(request, self._store.get(run_id), "move")
        self._launcher.move_to_front(run_id)
        return self.run_status(run_id, request)

    def delete_run(self, run_id: RunId, request: Asked = None) -> Deleted:
        """Delete a run that is over, with its models, curves and log. This cannot be undone.

        Raises:
            RunError: there is no such run, or it is still going: stop it first.
            AccessError: you may not delete it (403).
        """
        self._access.check_change(request, self._store.get(run_id), "delete")
        self._store.delete(run_id)
        return {"run": run_id, "deleted": True}

    def edit_run(
        self, run_id: RunId, name: Name = None, note: Note = None, starred: Starred = None, request: Asked = None
    ) -> RunStatus:  # fmt: skip
        """Give a run another name, a note or a star, in any state. What is left out stays as it is.

        Raises:
            RunError: there is no such run, or a text is too long.
            AccessError: you may not change it (403).
        """
        run = self._store.get(run_id)
        self._access.check_change(request, run, CHANGE)
        write_notes(run, name, starred, note)
        return self.run_status(run_id, request)

    def compare_runs(self, run_ids: RunIds, request: Asked = None) -> RunsComparison:
        """Two to eight runs side by side: accuracies, gains with 95 % intervals, and the settings that differ.

        Raises:
            RunError: there are fewer or more, or one is not there or cannot be read.
        """
        compared = compare_runs(self._store, run_ids)
        tells = [teller(entry.run, self._access.of(request)) for entry in compared.entries]
        found = to_json(compared)
        for setting in found["settings"]:
            setting["values"] = [_told(value, tell) for value, tell in zip(setting["values"], tells, strict=True)]
        return cast(RunsComparison, found)

    def run_report(self, run_id: RunId, request: Asked = None) -> str:
        """The report of a finished run, as Markdown: accuracies with intervals, comparisons, settings.

        Returns:
            The text, in Markdown.

        Raises:
            RunError: there is no such run, or it has no report yet.
        """
        run = self._store.get(run_id)
        try:
            text = (run.path / "report.md").read_text("utf-8", "replace")
        except OSError:
            raise RunError(
                f"The run '{run_id}' is {run.status.state} and has no report. It is written when a run has finished."
            ) from None
        more = pooled_markdown(self._store, run)
        return teller(run, self._access.of(request))(f"{text}\n{more}" if more else text)

    def run_log(self, run_id: RunId, lines: Lines = 40, request: Asked = None) -> str:
        """The end of a run's log.

        Returns:
            Lines of text.

        Raises:
            RunError: there is no such run.
        """
        run = self._store.get(run_id)
        return teller(run, self._access.of(request))(run.log_tail(max(1, min(lines or 40, MOST_LINES))))

    def run_files(self, run_id: RunId, request: Asked = None) -> list[RunFile]:
        """What can be downloaded of a run: each saved model as a zip, and the predictions for all test images. Send the
        same token to the address.

        Returns:
            One object for each file.

        Raises:
            RunError: there is no such run.
            AccessError: you may not download from it (403).
        """
        run = self._store.get(run_id)
        self._access.check_change(request, run, "download")
        return [
            {"name": name, "address": f"{ADDRESS[1:]}/{run.id}/{name}", "bytes": size}
            for name, size in downloads_of(run).items()
        ]

    def export_model(self, run_id: RunId, model: Learner, format: FormatName, request: Asked = None) -> Exported:
        """Turn a model of a run into a file for other programs, check it and measure it, which may take minutes. What
        has been exported before is answered at once.

        Raises:
            UserError: there is no such run, model or format, or this model cannot be written in it.
            AccessError: you may not download from this run (403).
        """
        run = self._store.get(run_id)
        self._access.check_change(request, run, "download")
        made = export_in_run(run, model, format)
        files = files_of(export_folder(run, model, format))
        return {
            "run": run.id, "model": model, "format": format, "address": f"{ADDRESS[1:]}/{run.id}/{model}/{format}",
            "bytes": sum(path.stat().st_size for path in files) if format == WEB else made.bytes,
            "accuracy": made.accuracy, "difference": made.difference,
            "warnings": list(made.warnings), "not_checked": list(made.not_checked),
        }  # fmt: skip

    compare, compare_csv = compare, compare_csv

    def test_set(
        self, run_id: Models, first: ModelName = "", second: ModelName = "", request: Asked = None
    ) -> TestSetFound:
        """Two models of a run on its whole test set: confusion matrices, classes, calibration, mistakes, suspicious
        labels. Probabilities are computed the first time, which may take minutes.

        Raises:
            UserError: there is no such run or model; the run has no predictions, and its test images are not there.
        """
        return test_set_found(self._store, run_id or "", first or "", second or "", self._access.of(request))

    explain = explain

    def add_pictures(self, archive: Archive, classes: Classes = "", request: Asked = None) -> str:
        """Unpack a zip with a folder of images for each class.

        Returns:
            The dataset's name, for `dataset` of start.

        Raises:
            UserError: it is no zip of images in folders, or too large; `classes` has to say which folders are the
                classes.
            AccessError: you may not upload images to train on (403).
        """
        try:
            return upload_pictures(self._store, self._access, request, archive, classes or "")[0]
        except UnclearClassesError as error:
            answers = " or ".join(f"'{key}' ({text})" for key, text in error.answers.items())
            raise UserError(f"{error.question} To say which are the classes, send classes: {answers}.") from None

    def list_datasets(self) -> list[DatasetRow]:
        """The datasets that have names of their own. `folder:PATH` names images of the server, if you may use those.

        Returns:
            One object for each dataset.
        """
        return [cast(DatasetRow, {key: getattr(info, key) for key in DatasetRow.__annotations__})
                for info in data.available()]  # fmt: skip

    def list_models(self) -> list[ModelRow]:
        """The networks that can teach or learn, with their sizes.

        Returns:
            One object for each network.
        """
        return [{"name": m.name, "params": m.params(3, 10), "macs": m.macs} for m in models().values()]

    def list_methods(self) -> list[MethodRow]:
        """The ways to teach a student.

        Returns:
            One object for each method.
        """
        return [
            {"name": name, "summary": spec.summary, "paper": spec.paper.citation if spec.paper else "",
             "needs_teacher": spec.needs_teacher, "settings": sorted(spec.uses)}
            for name, spec in METHODS.items()
        ]  # fmt: skip

    def list_settings(self) -> list[SettingRow]:
        """Every setting of a run with its type, range, default and description.

        Returns:
            One object for each setting.
        """
        return setting_rows()

    def _config_of(self, given: Any, asker: Asked) -> RunConfig:
        if not isinstance(given, dict):
            raise UserError('The settings must be a JSON object, such as {"epochs": 10}.')
        self._access.check_paths(asker, given, self._store)
        return make_config(**given)


MOST_LINES = 1000  # of a log that are sent at once
ENDPOINTS: dict[str, Endpoint] = endpoints_of(Actions)
TAKE_FILES = [name for name, known in ENDPOINTS.items() if any(takes_files(p.schema) for p in known.parameters)]


def public_endpoints(launcher: Launcher, access: Access) -> None:
    """Register them on the page being built. Everything else on the page is private."""
    actions = Actions(launcher, access)
    for name, endpoint in ENDPOINTS.items():
        if name not in TAKE_FILES:
            function, shared = _says_why(getattr(actions, name)), "export" if name == "export_model" else None
            event = api(function, api_name=name, api_description=endpoint.description, concurrency_id=shared)
            describe_endpoint(event, endpoint)
    # a file component, because it alone lets through nothing but what the caller uploaded
    with gr.Row(visible=False):
        for name in TAKE_FILES:
            endpoint, inputs = ENDPOINTS[name], []
            for parameter in endpoint.parameters:
                listed = parameter.schema["type"] == "array"
                field: gr.Component
                if takes_files(parameter.schema):
                    field = file_field(file_count="multiple" if listed else "single")
                else:
                    field = gr.JSON(parameter.default) if listed else gr.Textbox(parameter.default)
                inputs.append(describe_field(field, parameter.name, parameter.schema))
            shown = gr.Textbox() if endpoint.answer["type"] == "string" else gr.JSON()  # which reads a text as JSON
            answer = describe_field(shown, ANSWER, endpoint.answer)
            gr.Button().click(
                _says_why(getattr(actions, name)), inputs, answer, api_name=name, api_description=endpoint.description
            )


def status_of(run: Run, may: May) -> RunStatus:
    """One run as a JSON object."""
    status, config, curves, tell = run.status, run.config, read_curves(run), teller(run, may)
    accuracies = {
        name: value
        for method, seed in config.learner_names
        if (value := curves.last(name := learner_name(method, seed), "test", "accuracy")) is not None
    }
    return {
        "run": run.id, "name": name_of(run, config), "state": cast(State, status.state), "stage": status.stage,
        "progress": status.progress,
        "eta_seconds": status.eta_seconds, "eta_range": status.eta_range and list(status.eta_range),
        "images_per_second": status.images_per_second, "seconds": status.seconds,
        "device": status.device, "dataset": tell(config.dataset), "accuracies": accuracies,
        "error": status.error and tell(status.error),
        "diverged": status.diverged, "warnings": [*status.cautions, *filter(None, [status.copy_error])],
    }  # fmt: skip


def _told(value: Any, tell: Tell) -> Any:
    """The value of a setting as JSON, fit for whoever asks."""
    if isinstance(value, (tuple, list)):
        return [_told(item, tell) for item in value]
    return tell(value) if isinstance(value, str) else value


def _says_why(endpoint: Callable[..., Any]) -> Callable[..., Any]:
    """An error reaches the caller as one sentence. A UserError is no news here; any other goes to the log."""

    @wraps(endpoint)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        try:
            return endpoint(*args, **kwargs)
        except AccessError as error:
            raise gr.Error(str(error), title=NOT_ALLOWED, print_exception=False) from None
        except UserError as error:
            raise gr.Error(str(error), print_exception=False) from None
        except Exception:
            log.exception("action=%s", endpoint.__name__)
            raise gr.Error(WENT_WRONG, print_exception=False) from None

    return wrapped
