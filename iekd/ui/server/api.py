"""The page's public endpoints, for programs: runs and their estimates, compare and add_pictures."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable
from functools import wraps
from typing import Any, Optional

import gradio as gr
from gradio.events import api

from iekd.config.run import RunConfig, learner_name, make_config
from iekd.errors import UserError
from iekd.launchers.base import Launcher
from iekd.runs.store import Run
from iekd.ui.render.curves import read_curves
from iekd.ui.server.access import Access, AccessError, May
from iekd.ui.server.actions import foresee, start_run, upload_pictures
from iekd.ui.server.bodies import NOT_ALLOWED, WENT_WRONG, Parameter
from iekd.ui.server.gradio_patches import file_field
from iekd.ui.server.hidden_paths import teller
from iekd.ui.tabs.compare import compare_files, compare_files_csv

log = logging.getLogger(__name__)
RUN = Parameter("run_id", (str,), "a text, the id of a run")
FILE = "as the answer to an upload names it: {'path': ..., 'meta': {'_type': 'gradio.FileData'}}"
CONFIG = Parameter("config", (dict,), "an object of settings, such as {'epochs': 10}")
ENDPOINTS = {
    "start": (
        CONFIG,
        Parameter("key", (str,), "a text of your choice", optional=True),
        Parameter("details", (bool,), "true for an object with warnings in place of the id alone", optional=True),
    ),
    "estimate": (CONFIG,),
    "run_status": (RUN,),
    "list_runs": (),
    "stop_run": (RUN,),
    "resume_run": (RUN,),
    "compare": (
        Parameter("run_id", (str,), "a text, the id of a run or '' for the shipped models", optional=True),
        Parameter("images", (list,), f"a list of uploaded files, each {FILE}"),
    ),
    "compare_csv": (
        Parameter("run_id", (str,), "a text, the id of a run or '' for the shipped models", optional=True),
        Parameter("images", (list,), f"a list of uploaded files, each {FILE}"),
    ),
    "add_pictures": (Parameter("archive", (dict,), f"an uploaded zip, {FILE}"),),
}


def public_endpoints(launcher: Launcher, access: Access) -> None:
    """Register them on the page being built. Everything else on the page is private."""
    store = launcher.store

    def config_of(given: dict[str, Any], asker: gr.Request | None) -> RunConfig:
        if not isinstance(given, dict):
            raise UserError('The settings must be a JSON object, such as {"epochs": 10}.')
        access.check_paths(asker, given.get("dataset"), given.get("teacher_from"), store, given.get("class_order"))
        return make_config(**given)

    @_says_why
    def start(
        config: dict[str, Any], key: str = "", details: bool = False, request: Optional[gr.Request] = None
    ) -> Any:  # fmt: skip
        """Start a run with these settings (names as in `iekd train`); the same key starts one run. Returns its id; with
        details, the id as "run" and what `estimate` says."""
        checked = config_of(config, request)
        foreseen = foresee(store, access, request, checked) if details else {}
        run_id = start_run(launcher, access, request, checked, key or "")
        return {"run": run_id, **foreseen} if details else run_id

    @_says_why
    def estimate(config: dict[str, Any], request: Optional[gr.Request] = None) -> dict[str, Any]:
        """Warnings, time and memory of a run with these settings, which is not started."""
        return foresee(store, access, request, config_of(config, request))

    @_says_why
    def run_status(run_id: str, request: Optional[gr.Request] = None) -> dict[str, Any]:
        """State, stage, progress and newest accuracies of a run."""
        return status_of(store.get(run_id), access.of(request))

    @_says_why
    def list_runs(request: Optional[gr.Request] = None) -> list[dict[str, Any]]:
        """All runs, newest first."""
        found = []
        for run in store.list():
            with contextlib.suppress(UserError):  # a damaged folder is no run
                found.append(status_of(run, access.of(request)))
        return found

    @_says_why
    def stop_run(run_id: str, request: Optional[gr.Request] = None) -> dict[str, Any]:
        """Ask a run to stop; what its students have learned is kept, and it can be resumed."""
        access.check_change(request, store.get(run_id), "stop")
        launcher.request_stop(run_id)
        return status_of(store.get(run_id), access.of(request))

    @_says_why
    def resume_run(run_id: str, request: Optional[gr.Request] = None) -> dict[str, Any]:
        """Go on with a run that was stopped, failed or was lost, from its last checkpoint."""
        access.check_change(request, store.get(run_id), "resume")
        launcher.resume(run_id)
        return status_of(store.get(run_id), access.of(request))

    @_says_why
    def compare(run_id: str, images: list[str] | None) -> dict[str, Any]:
        """What each network of a run (ID, or ID/SEED; "" for the shipped demo) says of the images."""
        return compare_files(store, run_id or "", images or [])

    @_says_why
    def compare_csv(run_id: str, images: list[str] | None) -> str:
        """The same as CSV: a row for each image, and a group of columns for each network."""
        return compare_files_csv(store, run_id or "", images or [])

    @_says_why
    def add_pictures(archive: str, request: Optional[gr.Request] = None) -> str:
        """Unpack a zip file with a folder of pictures per class. Returns the dataset's name for `start`."""
        return upload_pictures(store, access, request, archive)[0]

    for endpoint in (start, estimate, run_status, list_runs, stop_run, resume_run):
        api(endpoint, api_name=endpoint.__name__)
    # a file component, because it alone lets through nothing but what the caller uploaded
    with gr.Row(visible=False):
        run_id, images, answer = gr.Textbox(), file_field(file_count="multiple"), gr.JSON()
        gr.Button().click(compare, [run_id, images], answer, api_name="compare")
        text = gr.Textbox()
        gr.Button().click(compare_csv, [run_id, images], text, api_name="compare_csv")
        archive, dataset = file_field(), gr.Textbox()
        gr.Button().click(add_pictures, archive, dataset, api_name="add_pictures")


def status_of(run: Run, may: May) -> dict[str, Any]:
    """One run as a JSON object."""
    status, config, curves, tell = run.status, run.config, read_curves(run), teller(run, may)
    accuracies = {
        name: value
        for method, seed in config.learner_names
        if (value := curves.last(name := learner_name(method, seed), "test", "accuracy")) is not None
    }
    return {
        "run": run.id, "name": config.name, "state": status.state, "stage": status.stage, "progress": status.progress,
        "eta_seconds": status.eta_seconds, "eta_range": status.eta_range,
        "images_per_second": status.images_per_second, "seconds": status.seconds,
        "device": status.device, "dataset": tell(config.dataset), "accuracies": accuracies,
        "error": status.error and tell(status.error),
        "diverged": status.diverged, "warnings": status.cautions,
    }  # fmt: skip


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
