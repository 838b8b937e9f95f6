"""Starts the server of the page: folder, port, settings of Gradio, what stands before it, signals."""

from __future__ import annotations

import gc
import logging
import os
import signal
import socket
import sys
import threading
import time
from pathlib import Path

from starlette.middleware import Middleware

from iekd.errors import UserError
from iekd.language import use
from iekd.launchers.base import Launcher
from iekd.launchers.factory import make_launcher
from iekd.runs import trash
from iekd.runs.store import not_writable
from iekd.ui.api.bodies import Bodies
from iekd.ui.api.mcp_server import ADDRESS as MCP_ADDRESS
from iekd.ui.api.mcp_server import McpServer
from iekd.ui.api.methods import ENDPOINTS
from iekd.ui.app import build_app, style, theme
from iekd.ui.render.colours import method_colours
from iekd.ui.rights.access import MOST_OWN_UPLOAD, Access
from iekd.ui.server.cards import card_route
from iekd.ui.server.downloads import compared_route, download_routes, explained_route
from iekd.ui.server.front import check_root_path, in_front, path_of, trusted_proxies
from iekd.ui.server.guard import Guard, health
from iekd.ui.server.page_scripts import first_scripts, script_routes
from iekd.ui.server.sign_in import sign_in_routes
from iekd.ui.shared.gradio_patches import PageHtml, patch_page, patch_process

log = logging.getLogger(__name__)
PORTS_TRIED = 50
LONG_TOKEN = 16  # characters; a shorter token of the administrator gets a warning
VISITS_KEPT = 1000  # open pages whose choices the server knows; those without a sign of life go first


def launch(
    host: str = "127.0.0.1", port: int = 7860, where: Launcher | Path | str = "runs", public: bool = False,
    root_path: str = "", mcp: bool = False, language: str = "",
) -> None:  # fmt: skip
    """Serve the page until interrupted.

    Args:
        where: a launcher, which starts and stops them; or the folder, for runs on this machine.
        public: others can open it; see ui/rights/access.py.
        root_path: what a proxy puts before the page's addresses: a path, or the whole public address.
        mcp: serve the endpoints as MCP tools too.
        language: of the page, such as "de"; English without a catalogue for it.
    Raises:
        UserError: the runs folder cannot be used, no port is free, a setting of the environment cannot be read, or the
            package `mcp` is missing.
    """
    _log_to_stderr()
    use(language)
    access, root_path = Access.from_environment(public), check_root_path(root_path)
    if 0 < len(access.token) < LONG_TOKEN:
        log.warning("action=start IEKD_ADMIN_TOKEN has %d characters and can be guessed; take %d or more",
                    len(access.token), LONG_TOKEN)  # fmt: skip
    os.environ["FORWARDED_ALLOW_IPS"] = trusted_proxies()  # uvicorn reads it; by itself it believes this machine
    launcher = make_launcher(where) if isinstance(where, (str, Path)) else where
    runs_dir = check_writable(launcher.store.root)
    free_port(host, port)  # what is wrong with them is said before the page is built
    patch_process()
    demo = build_app(launcher, access)
    demo.queue(max_size=64)
    while True:
        free = free_port(host, port)
        tools = McpServer(launcher, access) if mcp else None
        lifespan = in_front(access, path_of(root_path))
        try:
            demo.launch(
                server_name=host, server_port=free, share=False, inbrowser=False, quiet=True, prevent_thread_lock=True,
                theme=theme(), head=f"<style>{style()}{method_colours()}</style>",
                footer_links=["api"], run_history=False,
                allowed_paths=[], blocked_paths=[str(runs_dir)], root_path=root_path,
                state_session_capacity=VISITS_KEPT,
                enable_monitoring=False, strict_cors=True, show_error=False, ssr_mode=False,
                max_file_size=MOST_OWN_UPLOAD,
                mcp_server=False,  # not Gradio's own; see mcp_server.py
                app_kwargs={
                    "lifespan": tools.lifespan(lifespan) if tools else lifespan,
                    "middleware": [
                        Middleware(Guard, access=access), Middleware(Bodies, endpoints=ENDPOINTS),
                        Middleware(PageHtml, base=f"{path_of(root_path)}/", head=first_scripts(path_of(root_path))),
                    ],
                    "routes": [
                        health(launcher.store), *script_routes(), card_route(launcher.store),
                        *download_routes(launcher.store, access), explained_route(launcher.store), compared_route(),
                        *sign_in_routes(access, root_path), *(tools.routes() if tools else []),
                    ],
                },
            )  # fmt: skip
            break
        except OSError:
            if free_port(host, free) == free:
                raise
            # another program has taken the port since we looked
    patch_page(demo)
    # what has been imported and built stays; looking through half a million such objects again and again took a quarter
    # of the time until here, so whoever calls this may have turned collections off
    gc.freeze()
    gc.enable()
    busy = f" (port {port} is in use)" if port and free != port else ""
    address = "127.0.0.1" if host == "0.0.0.0" else host
    sys.stdout.write(f"IE-KD Studio is ready: http://{address}:{free}{path_of(root_path)}{busy}\n")
    if tools:
        sys.stdout.write(f"MCP server: http://{address}:{free}{path_of(root_path)}{MCP_ADDRESS}\n")
    sys.stdout.flush()
    threading.Thread(target=_keep_order, args=(launcher,), daemon=True).start()
    signal.signal(signal.SIGTERM, _drain)
    demo.block_thread()


def _drain(*_: object) -> None:
    """As Ctrl-C: Gradio then takes no more requests, finishes those it has, and frees the port. Runs go on."""
    raise KeyboardInterrupt


def _log_to_stderr() -> None:
    """One line for each change that somebody asks for, and for each trouble: time, level, and key=value."""
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(asctime)s level=%(levelname)s %(message)s"))
    logger = logging.getLogger("iekd")
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    logger.propagate = False


def _keep_order(launcher: Launcher) -> None:
    """Empty the trash and end workers that do not stop. Everything else that may go wrong, each reader of a run folder
    sees for itself."""
    older_than = 0.0  # at first everything that an earlier server left
    while True:
        try:
            trash.empty(launcher.store, older_than)
            older_than = trash.KEPT
            time.sleep(5)
            launcher.end_stuck()
        except Exception:  # a folder that changes under our eyes; the next look is soon
            log.exception("action=look-after-runs")
            time.sleep(5)


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
        raise not_writable(root, error) from None
    return root


def free_port(host: str, port: int) -> int:
    """`port`, or the next free one; 0 for any that is free.

    Raises:
        UserError: it is no port, none of the next fifty is free, or the address is not this machine's.
    """
    if not 0 <= port < 65536:
        raise UserError(f"{port} is not a port. Give --port a number up to 65535, such as 7860; 0 for any free one.")
    for candidate in range(port, min(port + PORTS_TRIED, 65536)):
        with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((host, candidate))
                return int(probe.getsockname()[1])
            except socket.gaierror:
                raise UserError(f"'{host}' is not an address of this machine. Use 127.0.0.1 or 0.0.0.0.") from None
            except OSError as error:
                if error.errno == 99:  # cannot assign requested address
                    raise UserError(f"'{host}' is not an address of this machine. Use 127.0.0.1 or 0.0.0.0.") from None
    raise UserError(f"No port from {port} to {port + PORTS_TRIED - 1} is free. Name another with --port.")
