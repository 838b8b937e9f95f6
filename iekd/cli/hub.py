"""`iekd push` and `iekd pull`: to the Hugging Face Hub, and from it."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Literal, Optional

import typer
from rich.markup import escape

from iekd.cli.common import RUNS, AsJson, RunsDir, err, launcher_for, out, print_json, say_no_effect
from iekd.errors import UserError
from iekd.plural import counted


def push(
    name: Annotated[str, typer.Argument(metavar="RUN[/LEARNER]", help="A run, or one model of it: ID/ie-ft-seed0.")],
    repo: Annotated[str, typer.Argument(metavar="ORG/NAME", help="The repository; created if it does not exist.")],
    what: Annotated[
        Literal["student", "demo", "run"],
        typer.Option(help="student: a model repository; demo: a static Space that runs in the browser; "
                     "run: the whole run folder as a dataset repository, without images."),
    ] = "student",
    private: Annotated[bool, typer.Option("--private", help="Make the repository private.")] = False,
    license: Annotated[
        str, typer.Option(help="Licence for the README, as the Hub writes it: mit, apache-2.0, cc-by-4.0, ...",
                          show_default=False),
    ] = "",
    checkpoints: Annotated[
        bool, typer.Option("--checkpoints", help="With --what run: also push the checkpoints, so that another machine "
                           "can resume it.")
    ] = False,
    examples: Annotated[
        Optional[int],
        typer.Option(min=0, help="With --what demo: test images on the page; unset: 10, and none of your own files.",
                     show_default=False),
    ] = None,
    target: Annotated[
        Optional[Path],
        typer.Option("--out", help="Write what would be pushed to this folder, and push nothing.", show_default=False),
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Push it even if the repository holds something else.")
    ] = False,
    runs_dir: RunsDir = RUNS,
    as_json: AsJson = False,
) -> None:  # fmt: skip
    """Publish a student, its demo or a run on the Hugging Face Hub, in one commit.

    The token is HF_TOKEN, or what 'hf auth login' stored. Folders, user names and names of image files are taken out of
    what is pushed; names of classes are not.
    """
    from iekd.hub.contents import gathered
    from iekd.hub.push import machine_token
    from iekd.hub.push import push as send
    from iekd.hub_names import check_repo
    from iekd.runs.models import model_of

    check_repo(repo)
    token = "" if target is not None else machine_token()
    if checkpoints and what != "run":
        say_no_effect("--checkpoints", "--what run")
    if examples is not None and what != "demo":
        say_no_effect("--examples", "--what demo")
    store = launcher_for(runs_dir).store
    run, learner = store.get(name.partition("/")[0]), name.partition("/")[2]
    if what == "run" and learner:
        raise UserError(f"--what run pushes the whole run. Write {run.id} without '/{learner}'.")
    model = None if what == "run" or (what == "demo" and not learner) else model_of(run, learner)
    with gathered(
        what, repo, run=run, model=model, license=license, checkpoints=checkpoints, examples=examples
    ) as contents:
        for note in contents.notes:
            err.print(f"[yellow]Note:[/] {escape(note)}", highlight=False, soft_wrap=True)
        if target is not None:
            contents.write(target)
            done = f"{counted(len(contents.files), 'file is', 'files are')} in '{target}'. Nothing was pushed."
            value = {"folder": str(target), "files": sorted(contents.files), "bytes": contents.bytes, "pushed": False}
        else:
            pushed = send(contents, repo, token, private=private, force=force)
            state = "in one commit" if pushed.changed else "as before; there is no new commit"
            size = f"{pushed.bytes / 1e6:.1f} MB"
            done = f"{counted(len(pushed.files), 'file')} ({size}) {state}: {pushed.url} (commit {pushed.commit})"
            value = {**asdict(pushed), "what": what, "pushed": True}
    if as_json:
        print_json({**value, "notes": contents.notes})
    else:
        out.print(done, highlight=False, markup=False, soft_wrap=True)


def pull(
    name: Annotated[
        str,
        typer.Argument(
            metavar="ORG/NAME[@REVISION]", help="A model that was pushed with iekd; @ a branch, tag or commit."
        ),
    ],
    target: Annotated[
        Optional[Path],
        typer.Option("--out", help="Folder to put the model into; unset: the cache.", show_default=False),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Fetch a model from the Hugging Face Hub: safetensors only, pinned to one commit."""
    from iekd.hub.pull import pull as fetch

    found = fetch(name, target)
    if found.note:
        err.print(f"[yellow]Note:[/] {escape(found.note)}", highlight=False, soft_wrap=True)
    if as_json:
        print_json({**asdict(found), "folder": str(found.folder)})
        return
    how = "" if found.fetched else "; it was here already"
    out.print(
        f"The model is in '{found.folder}' (commit {found.commit}{how}).", highlight=False, markup=False, soft_wrap=True
    )
