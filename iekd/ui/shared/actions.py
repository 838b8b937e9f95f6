"""What the form and the endpoints ask for: start a run, say before what it would take, add uploaded images."""

from __future__ import annotations

from pathlib import Path

import gradio as gr

from iekd import data
from iekd.config.run import RunConfig
from iekd.data.refusals import INNER, OUTER
from iekd.errors import UserError
from iekd.language import _, ngettext
from iekd.launchers.base import Launcher
from iekd.launchers.hub_jobs import HUB_JOBS
from iekd.runs.estimate import estimate
from iekd.runs.owner import record
from iekd.runs.prepare import prepare
from iekd.runs.siblings import growing, key_of, more_seeds, note_extension
from iekd.runs.store import Run, Store
from iekd.runs.uploads import add_pictures, changing
from iekd.ui.rights.access import Access, AccessError
from iekd.ui.shared.answers import Forecast


def start_run(launcher: Launcher, access: Access, asker: gr.Request | None, config: RunConfig, key: str) -> str:
    """Check and submit; returns the run's id.

    Raises:
        UserError: it cannot be trained, or whoever asks may not.
    """
    with changing:  # between counting a visitor's runs, or looking for its pictures, and starting one more
        visitor = access.check_start(asker, config, launcher.store)
        prepared = prepare(config, launcher.store.root, launcher.here).config
        access.check_size(asker, prepared, launcher.store)  # again: pretrained networks may want larger images
        if launcher.here:
            return launcher.submit(prepared, key or None, visitor)
    return launcher.submit(prepared, key or None, visitor)  # it may send pictures for minutes; others start meanwhile


def resume_run(launcher: Launcher, access: Access, asker: gr.Request | None, run: Run) -> None:
    """Continue a run.

    Raises:
        UserError: it cannot be continued, or whoever asks may not; a job that this machine's user pays for is theirs.
    """
    access.check_change(asker, run, "resume")
    if run.owner == HUB_JOBS and record(run.path).get("visitors"):
        raise AccessError(
            _(
                "The account of the visitor who started this job would pay for it again. They can start a new run with "
                "the same settings."
            )
        )
    if run.owner == HUB_JOBS and not access.is_own_user(asker):
        raise AccessError(_("Only whoever sits at this machine may start jobs with its token."))
    launcher.resume(run.id)


def add_seeds(launcher: Launcher, access: Access, asker: gr.Request | None, run_id: str, count: int) -> str:
    """Start a run that adds seeds to a finished one; returns its id, or that of a run which is adding some already.

    Raises:
        UserError: seeds cannot be added, or whoever asks may not start runs.
    """
    store = launcher.store
    run = store.get(run_id)
    access.check_change(asker, run, "start")
    if other := growing(store, run):
        return other.id
    config = more_seeds(store, run, count)
    started = start_run(launcher, access, asker, config, key_of(run, config))
    note_extension(store.get(started), run)
    return started


def foresee(store: Store, access: Access, asker: gr.Request | None, config: RunConfig) -> Forecast:
    """What a run would take and what to be warned of; nothing is started.

    Raises:
        UserError: it cannot be trained, or whoever asks may not have it looked at.
    """
    access.check_paths(asker, config.model_dump(), store)
    prepared = prepare(config, store.root)
    access.check_size(asker, prepared.config, store)
    found = estimate(prepared.config, store, prepared.teacher is not None, prepared.info)
    return {
        "warnings": found.warnings(prepared), "notes": [*prepared.info.notes, *prepared.sentences()],
        "seconds": round(found.seconds),
        "seconds_range": [round(found.low), round(found.high)], "basis": found.basis,
        "memory_bytes": round(found.plan.memory), "trains_teacher": config.needs_teacher and prepared.teacher is None,
        "classes": list(prepared.info.class_names),
    }  # fmt: skip


def upload_pictures(
    store: Store, access: Access, asker: gr.Request | None, file: str, classes: str = ""
) -> tuple[str, str]:
    """Unpack an uploaded archive; returns the dataset's name, and what was found in it.

    classes: which folders are the classes, "outer" or "inner", where that has been asked; else empty.

    Raises:
        UnclearClassesError: it has to be said which folders are the classes.
        UserError: it is not taken, or whoever asks may not upload.
    """
    if classes not in ("", OUTER, INNER):
        raise UserError(f"'{classes}' cannot be used for classes: give '{OUTER}' or '{INNER}'.")
    if not file:
        raise UserError(_("No archive was given. Upload a zip first."))
    archive = Path(file)
    name = add_pictures(store, archive, *access.room_for(asker), classes)
    info = data.describe(name)
    found = ngettext(
        "{file}: {images} images of {number} class.", "{file}: {images} images of {number} classes.", info.classes,
        file=archive.name, images=f"{info.train_images + info.test_images:,}",
    )  # fmt: skip
    return name, " ".join([found, *info.notes])
