"""Each patch of Gradio still finds what it replaces; where it does not, the page works and the log says so once."""

from __future__ import annotations

import asyncio
import logging
import re
import subprocess
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gradio as gr
import pytest
from gradio import processing_utils
from gradio.routes import App
from PIL import Image
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.testclient import TestClient
from ui_helpers import CLIENT, ROOT

from iekd.data.decoding import MAX_PIXELS
from iekd.ui.shared import gradio_patches
from iekd.ui.shared.gradio_patches import FEW_FRAMES, LANGUAGE, PageHtml

PAGE = "<html><head><title>é</title></head><body>x</body></html>"


async def whole(_: Request) -> Response:
    return HTMLResponse(PAGE)


async def in_pieces(_: Request) -> Response:
    return StreamingResponse(iter([PAGE[:10], PAGE[10:]]), media_type="text/html")


@pytest.mark.parametrize("answer", [whole, in_pieces])
def test_the_page_begins_with_the_script_and_says_its_new_length(answer: object) -> None:
    app = Starlette(
        routes=[Route("/", answer), Route("/other", answer)],  # type: ignore[arg-type]
        middleware=[Middleware(PageHtml)],
    )
    client = TestClient(app)
    page = client.get("/")
    assert page.content == PAGE.encode().replace(b"<head>", b"<head>" + FEW_FRAMES)
    assert int(page.headers["content-length"]) == len(page.content)
    assert client.get("/other").text == PAGE


@pytest.fixture(autouse=True)
def unpatched(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Modules are as they were after each test."""
    for name in ("ssrf_protected_download", "async_ssrf_protected_download"):
        monkeypatch.setattr(processing_utils, name, getattr(processing_utils, name))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", Image.MAX_IMAGE_PIXELS)
    gradio_patches._say_missing.cache_clear()
    with warnings.catch_warnings():
        yield


@pytest.fixture
def page() -> gr.Blocks:
    """A page with one event, as far as `launch` takes it without opening a port."""
    with gr.Blocks() as demo:
        text = gr.Textbox()
        text.change(lambda value: value, text, text)
    demo.queue()
    App.create_app(demo)
    return demo


def test_every_patch_finds_what_it_replaces(page: gr.Blocks, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING), gr.Blocks():
        gradio_patches.patch_process()
        gradio_patches.patch_page(page)
        gradio_patches.file_field()
        gradio_patches.open_dropdown(choices=["a"])
    assert caplog.messages == []


def test_images_are_limited_before_they_are_decoded(tmp_path: Path) -> None:
    gradio_patches.limit_image_size()
    assert Image.MAX_IMAGE_PIXELS == MAX_PIXELS
    side = int((2.1 * MAX_PIXELS) ** 0.5)
    Image.new("1", (side, side)).save(tmp_path / "huge.png")
    with pytest.raises(Image.DecompressionBombError):
        Image.open(tmp_path / "huge.png")


def test_the_queue_polls_less_often(page: gr.Blocks) -> None:
    assert page._queue.sleep_when_free < 0.01
    gradio_patches.poll_less_often(page)
    assert page._queue.sleep_when_free == 0.05


def test_a_programs_session_holds_no_copy_of_the_page(page: gr.Blocks) -> None:
    assert page.state_holder["first"].config_values
    gradio_patches.keep_no_copy_per_call(page)
    assert not page.state_holder["second"].config_values


def test_a_file_field_leaves_no_empty_file_behind(tmp_path: Path) -> None:
    (tmp_path / "temporary").mkdir()
    (tmp_path / "a.zip").write_bytes(b"x")
    file = SimpleNamespace(path=str(tmp_path / "a.zip"))
    with gr.Blocks():
        own, patched = gr.File(), gradio_patches.file_field()
    component: Any
    for component, left in ((patched, 0), (own, 1)):
        component.GRADIO_CACHE = str(tmp_path / "temporary")
        assert str(component._process_single_file(file)) == str(tmp_path / "a.zip")
        assert len(list((tmp_path / "temporary").rglob("*"))) == left


def test_a_dropdown_passes_on_choices_that_the_server_has_forgotten() -> None:
    with gr.Blocks():
        own, patched = gr.Dropdown(["a"]), gradio_patches.open_dropdown(choices=["a"])
    with pytest.raises(gr.Error):
        own.preprocess("b")
    assert patched.preprocess("b") == "b"
    assert patched.preprocess(None) == ""


def test_the_upload_folder_is_gradios(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path))
    assert gradio_patches.upload_folder() == tmp_path


def test_what_a_version_of_gradio_no_longer_has_is_logged_once_and_breaks_nothing(
    page: gr.Blocks, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.delattr(processing_utils, "ssrf_protected_download")
    monkeypatch.delattr(gr.File, "_process_single_file")
    monkeypatch.delattr(page._queue, "sleep_when_free")
    monkeypatch.delattr(page, "state_holder")
    with caplog.at_level(logging.WARNING), gr.Blocks():
        gradio_patches.patch_process()
        gradio_patches.patch_page(page)
        gradio_patches.file_field()
        gradio_patches.file_field()
    said = [message.split("attribute=")[1].split()[0] for message in caplog.messages]
    assert said == [
        "gradio.processing_utils.ssrf_protected_download", "Blocks._queue.sleep_when_free",
        "Blocks.state_holder.blocks", "File._process_single_file",
    ]  # fmt: skip
    assert gr.__version__ in caplog.messages[0]
    with pytest.raises(gr.Error, match="no addresses"):  # its other half still holds
        asyncio.run(processing_utils.async_ssrf_protected_download("http://203.0.113.5/x.png", "/tmp"))


def test_a_page_without_the_place_for_the_script_is_served_as_it_is(caplog: pytest.LogCaptureFixture) -> None:
    app = Starlette(
        routes=[Route("/", lambda _: HTMLResponse("<html><body>x</body></html>"))],
        middleware=[Middleware(PageHtml)],
    )
    with caplog.at_level(logging.WARNING):
        assert TestClient(app).get("/").text == "<html><body>x</body></html>"
    assert "attribute=page.<head>" in caplog.messages[0]


def test_gradios_own_page_has_the_place_for_the_script(server: str) -> None:
    page = CLIENT.get(server).content
    assert FEW_FRAMES in page
    assert LANGUAGE in page


def test_nothing_else_of_the_page_reaches_into_gradio() -> None:
    """Private names of a Gradio object, its modules of helpers, and methods that are replaced."""
    ui = Path(gradio_patches.__file__).parents[1]
    inside = re.compile(
        r"gradio\.(?!events|themes)\w+ import|from gradio import|import gradio\.|MAX_IMAGE_PIXELS"
        r"|gr\.(routes|utils|processing_utils|blocks)\b|\.(preprocess|postprocess|state_holder) ?="
        r"|(?:demo|page|event|component|source|request)\._\w+"
    )
    for file in set(ui.rglob("*.py")) - {Path(gradio_patches.__file__)}:
        assert not inside.search(file.read_text()), (file, inside.search(file.read_text()))


def test_no_component_is_parsed_when_gradio_is_imported() -> None:
    code = (
        "import ast, inspect\n"
        "parse, getfile, parsed = ast.parse, inspect.getfile, []\n"
        "ast.parse = lambda source, *a, **b: parsed.append(source) or parse(source, *a, **b)\n"
        "import iekd.ui.server.launch, gradio\n"
        "print(sum('(Component' in str(source) for source in parsed))\n"
        "iekd.ui.shared.gradio_patches.patch_process()\n"
        "assert inspect.getfile is getfile and inspect.getfile(gradio.Button).endswith('button.py')\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout == "0\n"
