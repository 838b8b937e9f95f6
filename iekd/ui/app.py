"""The page as a whole: header, tabs, what happens when it opens, and the server's settings."""

from __future__ import annotations

import logging
import os
import secrets
import signal
import socket
import sys
import threading
import time
import warnings
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gradio as gr
from gradio import processing_utils
from PIL import Image
from starlette.middleware import Middleware

from iekd.data.decoding import MAX_PIXELS
from iekd.errors import RunError, UserError
from iekd.launchers.base import Launcher
from iekd.launchers.factory import make_launcher
from iekd.ui.render.about import HEADER
from iekd.ui.render.colours import method_colours
from iekd.ui.server.access import MOST_OWN_UPLOAD, Access
from iekd.ui.server.api import public_endpoints
from iekd.ui.server.downloads import download_route
from iekd.ui.server.gradio_patches import FewFrames
from iekd.ui.server.guard import Guard, health
from iekd.ui.tabs.compare import ASK_AFRESH, compare_tab, open_tab
from iekd.ui.tabs.run import PRIVATE, SPEAKING
from iekd.ui.tabs.runs import act, runs_tab, table_html
from iekd.ui.tabs.train import show, train_tab

log = logging.getLogger(__name__)
CSS = Path(__file__).parent / "render" / "style.css"
PORTS_TRIED = 50
UPLOADS_KEPT = 6 * 3600  # seconds
VISITS_KEPT = 1000  # open pages whose choices the server knows; those without a sign of life go first
# keeps the address in step with what is on view, so that a reload, a bookmark and the browser's Back show it again
KEEP_ADDRESS = """(value) => {
  const address = new URL(window.location);
  if (value) address.searchParams.set('NAME', value); else address.searchParams.delete('NAME');
  const seen = document.documentElement.dataset;
  // before the page has opened, tabs say that they are chosen too
  if (!('opened' in seen) || address.href === window.location.href) return;
  // to open a run changes the tab too, which is one step for Back
  const now = performance.now(), same = now - (seen.moved || -300) < 300;
  if (same) history.replaceState(null, '', address); else history.pushState(null, '', address);
  seen.moved = now;
}"""
OPENED = """() => {
  document.documentElement.dataset.opened = '';
  window.addEventListener('popstate', () => window.location.reload());
}"""
TRAIN, RUNS, COMPARE = "train", "runs", "compare"


def build_app(where: Launcher | Path | str, access: Access | None = None) -> gr.Blocks:
    """The page over the runs of one folder. Nothing is kept in the server that the folder does not hold.

    Args:
        where: a launcher, which starts and stops them; or the folder, for runs on this machine.
        access: who may do what; unset: everybody everything.
    """
    launcher = make_launcher(where) if isinstance(where, (str, Path)) else where
    store, access = launcher.store, access or Access()
    demo = gr.Blocks(title="IE-KD Studio", analytics_enabled=False, delete_cache=(3600, UPLOADS_KEPT))
    with demo:
        gr.HTML(HEADER)
        shown = gr.Textbox(visible="hidden", elem_id="shown-run")
        with gr.Tabs(elem_id="tabs") as tabs:
            with gr.Tab("Train", id=TRAIN) as train_page:
                train = train_tab(demo, launcher, shown, access)
            with gr.Tab("Runs", id=RUNS) as runs_page:
                runs = runs_tab(launcher, access)
            with gr.Tab("Compare", id=COMPARE) as compare_page:
                compare = compare_tab(store)
        public_endpoints(launcher, access)

        def opened(request: gr.Request) -> list[Any]:
            run_id = str(request.query_params.get("run", ""))
            updates = show(store, run_id, access.of(request))
            known = run_id if run_id and not updates[2] else ""
            tab, may = str(request.query_params.get("tab", "")), access.of(request)
            table = table_html(store, may) if tab == RUNS else gr.skip()
            compared = open_tab(store, known) if tab == COMPARE else [gr.skip()] * len(compare.opened)
            front = gr.Tabs(selected=tab) if tab in (RUNS, COMPARE) else gr.skip()
            return [front, table, gr.Timer(active=tab == RUNS), *compared, known, secrets.token_hex(8), *updates]

        def on_row(now_shown: str, event: gr.EventData, request: gr.Request) -> list[Any]:
            run_id, table = act(launcher, access, request, event)
            if run_id:
                return [
                    run_id,
                    gr.Tabs(selected=TRAIN),
                    gr.Timer(active=False),
                    *show(store, run_id, access.of(request)),
                    table,
                ]
            if now_shown and not (store.root / now_shown).is_dir():  # the run on view was deleted: back to the form
                return ["", gr.skip(), gr.skip(), *show(store, "", access.of(request)), table]
            return [gr.skip()] * (3 + len(train.shows)) + [table]

        first = [tabs, runs.table, runs.timer, *compare.opened, shown, train.key, *train.shows]
        demo.load(opened, None, first, **PRIVATE).then(None, None, None, js=OPENED, api_visibility="private")
        shown.change(None, shown, None, js=KEEP_ADDRESS.replace("NAME", "run"), api_visibility="private")
        for page, name in ((train_page, ""), (runs_page, RUNS), (compare_page, COMPARE)):
            named = f"() => ({KEEP_ADDRESS.replace('NAME', 'tab')})('{name}')"
            page.select(None, None, None, js=named, api_visibility="private")

        def open_runs(request: gr.Request) -> list[Any]:
            return [runs.refresh(request), gr.Timer(active=True)]

        runs_page.select(open_runs, None, [runs.table, runs.timer], **PRIVATE)
        for page in (train_page, compare_page):
            page.select(lambda: gr.Timer(active=False), None, runs.timer, **PRIVATE)
        runs.table.click(on_row, shown, [shown, tabs, runs.timer, *train.shows, runs.table], **SPEAKING)
        compare_page.select(
            lambda *now: open_tab(store, *now), [compare.source, compare.chosen], compare.opened, **PRIVATE
        ).then(None, None, None, js=ASK_AFRESH, api_visibility="private")
        train.view.compare.click(
            lambda run_id: [gr.Tabs(selected=COMPARE), *open_tab(store, run_id)],
            shown,
            [tabs, *compare.opened],
            **PRIVATE,
        ).then(None, None, None, js=ASK_AFRESH, api_visibility="private")
    return demo


def launch(
    host: str = "127.0.0.1", port: int = 7860, where: Launcher | Path | str = "runs", public: bool = False
) -> None:  # fmt: skip
    """Serve the page until interrupted.

    Args:
        where: a launcher, which starts and stops them; or the folder, for runs on this machine.
        public: others can open it; see access.py.
    Raises:
        UserError: the runs folder cannot be used, no port is free, or a setting of the environment cannot be read.
    """
    _log_to_stderr()
    access = Access.from_environment(public)
    launcher = make_launcher(where) if isinstance(where, (str, Path)) else where
    root = check_writable(launcher.store.root)
    free = free_port(host, port)
    Image.MAX_IMAGE_PIXELS = MAX_PIXELS  # a small file can unpack to a huge picture
    warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # what is too large is said in the page
    _fetch_nothing()
    demo = build_app(launcher, access)
    demo.queue(max_size=64)
    demo._queue.sleep_when_free = 0.05  # Gradio looks for work every millisecond, 6 % of a core that training can use
    demo.launch(
        server_name=host, server_port=free, share=False, inbrowser=False, quiet=True, prevent_thread_lock=True,
        theme=theme(), head=f"<style>{CSS.read_text()}{method_colours()}</style>", footer_links=[], run_history=False,
        allowed_paths=[], blocked_paths=[str(root)],
        state_session_capacity=VISITS_KEPT,
        enable_monitoring=False, strict_cors=True, show_error=False, ssr_mode=False, max_file_size=MOST_OWN_UPLOAD,
        app_kwargs={
            "middleware": [Middleware(Guard, access=access), Middleware(FewFrames)],
            "routes": [health(launcher.store), download_route(launcher.store, access), *access.routes()],
        },
    )  # fmt: skip
    _copy_no_page(demo)
    busy = f" (port {port} is in use)" if free != port else ""
    address = "127.0.0.1" if host == "0.0.0.0" else host
    sys.stdout.write(f"IE-KD Studio is ready: http://{address}:{free}{busy}\n")
    sys.stdout.flush()
    threading.Thread(target=_keep_order, args=(launcher,), daemon=True).start()
    signal.signal(signal.SIGTERM, _drain)
    demo.block_thread()


def _drain(*_: object) -> None:
    """As Ctrl-C: Gradio then takes no more requests, finishes those it has, and frees the port. Runs go on."""
    raise KeyboardInterrupt


def _copy_no_page(demo: gr.Blocks) -> None:
    """Gradio copies the whole page at every call of a program, for links to a page's state. This page has none.

    That takes 16 ms of the server's loop and leaves 0.27 MB. A visit made from no blocks holds only what it touches.
    """
    demo.state_holder.blocks = SimpleNamespace(blocks={}, default_config=demo.default_config)  # type: ignore[assignment]


def _fetch_nothing() -> None:
    """Gradio fetches pictures that are named by an address, for strangers too, and keeps them; nothing here asks."""

    def refuse(url: str, cache_dir: str) -> str:
        raise gr.Error("Only uploaded pictures are compared, no addresses.", print_exception=False)

    async def refuse_later(url: str, cache_dir: str) -> str:
        return refuse(url, cache_dir)

    processing_utils.ssrf_protected_download = refuse
    processing_utils.async_ssrf_protected_download = refuse_later


def _log_to_stderr() -> None:
    """One line for each change that somebody asks for, and for each trouble: time, level, and key=value."""
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(asctime)s level=%(levelname)s %(message)s"))
    logger = logging.getLogger("iekd")
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    logger.propagate = False


def _keep_order(launcher: Launcher) -> None:
    """End workers that do not stop. Everything else that may go wrong, each reader of a run folder sees for itself."""
    while True:
        time.sleep(5)
        try:
            launcher.end_stuck()
        except Exception:  # a folder that changes under our eyes; the next look is soon
            log.exception("action=look-after-runs")


def theme() -> gr.themes.Base:
    """System fonts only: nothing is fetched from anywhere."""
    return gr.themes.Default(
        primary_hue="teal", secondary_hue="teal", neutral_hue="slate", radius_size="md",
        font=["system-ui", "-apple-system", "Segoe UI", "Roboto", "Noto Sans", "sans-serif"],
        font_mono=["ui-monospace", "SF Mono", "Menlo", "Consolas", "monospace"],
    ).set(  # white on teal that can be read
        button_primary_background_fill="*primary_700", button_primary_background_fill_hover="*primary_800",
        button_primary_background_fill_dark="*primary_700", button_primary_background_fill_hover_dark="*primary_600",
        checkbox_border_color_dark="*neutral_400", checkbox_background_color_dark="*neutral_900",
        checkbox_background_color_selected="*primary_700", checkbox_background_color_selected_dark="*primary_700",
    )  # fmt: skip


def check_writable(runs_dir: Path | str) -> Path:
    """The folder, made if need be.

    Raises:
        RunError: runs cannot be kept there.
    """
    root = Path(runs_dir).expanduser().resolve()
    probe = root / f".write-{os.getpid()}"
    try:
        root.mkdir(parents=True, exist_ok=True)
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise RunError(
            f"The runs folder '{root}' cannot be written ({error.strerror}). Choose another with --runs-dir."
        ) from None
    return root


def free_port(host: str, port: int) -> int:
    """`port`, or the next free one.

    Raises:
        UserError: it is no port, none of the next fifty is free, or the address is not this machine's.
    """
    if not 0 < port < 65536:
        raise UserError(f"{port} is not a port. Give --port a number from 1 to 65535, such as 7860.")
    for candidate in range(port, min(port + PORTS_TRIED, 65536)):
        with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((host, candidate))
                return candidate
            except socket.gaierror:
                raise UserError(f"'{host}' is not an address of this machine. Use 127.0.0.1 or 0.0.0.0.") from None
            except OSError as error:
                if error.errno == 99:  # cannot assign requested address
                    raise UserError(f"'{host}' is not an address of this machine. Use 127.0.0.1 or 0.0.0.0.") from None
    raise UserError(f"No port from {port} to {port + PORTS_TRIED - 1} is free. Name another with --port.")
