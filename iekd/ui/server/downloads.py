"""What can be taken home from a run: its report, all answers, and each network as a zip of weights, card and a note."""

from __future__ import annotations

import os
import tempfile
import zipfile
from functools import partial
from pathlib import Path
from typing import IO

from starlette.requests import Request
from starlette.responses import FileResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route

from iekd.errors import UserError
from iekd.models.artifact import CARD, WEIGHTS, ModelCard
from iekd.models.catalog import model_name
from iekd.results.predictions import ANSWERS
from iekd.runs.explained import explainer_of
from iekd.runs.exported import certificates_in, export_folder, files_of
from iekd.runs.store import Run, Store
from iekd.ui.render.downloads import ADDRESS, EXPLAINED
from iekd.ui.rights.access import Access, AccessError
from iekd.ui.tabs.compare_images import COMPARED, FILES, comparisons

PIECE = 2**18  # bytes sent at a time
USE = """{title}

{card} says how it was made and what it expects: {resolution} x {resolution} pixels, {channels} channel(s), values 0..1
from which `mean` is taken and which are divided by `std`; and the names of its classes in the order of its answers.
{weights} holds the weights by name, for safetensors.torch.load_file.

With iekd installed, in the folder that this file is in:

    iekd predict . IMAGES --csv predictions.csv           # what is on other images
    iekd eval --checkpoint . --dataset folder:PATH        # how good it is on other images
    iekd train --teacher {model} --teacher-from . ...     # as the teacher of a smaller one

    from pathlib import Path
    from iekd.models.artifact import load_model
    network, card = load_model(Path("."))                 # a torch module: network(pixels).logits
"""


def download_routes(store: Store, access: Access) -> list[Route]:
    """`/download/RUN/NETWORK`: the zip, `/download/RUN/NETWORK/FORMAT`: the zip of an export that was made,
    `/download/RUN/answers.csv`: that file, for whoever may have it.

    403 or 404 with a sentence otherwise.
    """

    def answer(request: Request) -> Response:
        try:
            run, name = store.get(request.path_params["run"]), request.path_params["network"]
            access.check_change(request, run, "download")
            if name == ANSWERS and (run.path / name).is_file():
                return FileResponse(run.path / name, media_type="text/csv", filename=f"{run.id}-{name}")
            if name not in run.model_folders:
                names = ", ".join(run.model_folders) or "none"
                return PlainTextResponse(f"This run has no network '{name}'. It has: {names}.\n", 404)
            if format_name := request.path_params.get("format"):
                folder = export_folder(run, name, format_name)
                if not certificates_in(folder):
                    return PlainTextResponse(f"'{name}' has not been exported as {format_name} on the page.\n", 404)
                file, name = _zip(folder, f"{run.id}-{folder.name}"), folder.name
            else:
                file = _zipped(run, name)
        except AccessError as error:
            return PlainTextResponse(f"{error}\n", 403)
        except UserError as error:
            return PlainTextResponse(f"{error}\n", 404)
        return _sent(file, f"{run.id}-{name}")

    return [Route(ADDRESS + "/{run}/{network}", answer), Route(ADDRESS + "/{run}/{network}/{format}", answer)]


def explained_route(store: Store) -> Route:
    """`/explained/WORD`: the zip of an explanation, for whoever was given the word on the page."""

    def answer(request: Request) -> Response:
        folder = explainer_of(store).linked(request.path_params["word"])
        if folder is None or not folder.is_dir():
            return PlainTextResponse("This explanation is not there any more. Open it again on the page.\n", 404)
        return _sent(_zip(folder, "explanation"), "explanation")

    return Route(EXPLAINED + "/{word}", answer)


def compared_route() -> Route:
    """`/compared/WORD/comparison.csv` (or .json, .png): for whoever was given the word on the page."""

    def answer(request: Request) -> Response:
        name = request.path_params["name"]
        try:
            content = comparisons.file(request.path_params["word"], name)
        except UserError as error:
            return PlainTextResponse(f"{error}\n", 404)
        headers = {"content-disposition": f"attachment; filename={name}"}
        return Response(content, media_type=FILES[name][0], headers=headers)

    return Route(COMPARED + "/{word}/{name}", answer)


def _sent(file: IO[bytes], name: str) -> Response:
    """The answer that downloads a zip."""
    size = file.seek(0, os.SEEK_END)
    file.seek(0)
    headers = {"content-length": str(size), "content-disposition": f'attachment; filename="{name}.zip"'}
    return StreamingResponse(iter(partial(file.read, PIECE), b""), media_type="application/zip", headers=headers)


def _zip(folder: Path, name: str) -> IO[bytes]:
    """Everything in a folder, below `name`, as a file without a name; see `_zipped`."""
    file = tempfile.TemporaryFile()  # noqa: SIM115 - whoever reads it is not this function
    with zipfile.ZipFile(file, "w") as archive:
        for path in files_of(folder):
            archive.write(path, f"{name}/{path.relative_to(folder).as_posix()}")
    return file


def _zipped(run: Run, name: str) -> IO[bytes]:
    """A file without a name: it goes with its last reader, however that ends."""
    folder = run.model_folders[name]
    card = ModelCard.read(folder)
    what = "teacher" if card.role == "teacher" else f"student ({card.method}, seed {card.seed})"
    found = f", {card.accuracy:.2f} % right on the test images" if card.accuracy is not None else ""
    title = f"{model_name(card.model)}, {what} of run {run.id}: {card.params:,} parameters{found}."
    file = tempfile.TemporaryFile()  # noqa: SIM115 - whoever reads it is not this function
    with zipfile.ZipFile(file, "w") as archive:  # weights do not shrink
        for part in (WEIGHTS, CARD):
            archive.write(folder / part, f"{name}/{part}")
        values = {"model": card.model, "resolution": card.resolution, "channels": card.channels}
        note = USE.format(title=title, card=CARD, weights=WEIGHTS, **values)
        archive.writestr(f"{name}/README.txt", note)
    return file
