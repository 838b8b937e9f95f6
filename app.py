"""Opens the page: `python app.py [--host H] [--port P] [--runs-dir DIR] [--public] ...`; `--help` lists all options."""

from __future__ import annotations

import argparse
import gc
import os
import sys

from iekd.errors import UserError
from iekd.language import VARIABLE
from iekd.ui.shared import space


def main() -> int:
    """Parse the arguments and serve until interrupted; 2 for arguments that cannot be used."""
    parser = argparse.ArgumentParser(description="IE-KD Studio: train and compare small image classifiers in a page.")
    parser.add_argument("--host", default=space.default_host(), help="address to listen on; 0.0.0.0 for every network")
    parser.add_argument("--port", type=int, default=7860, help="the next free one if it is busy; 0: any free one")
    parser.add_argument("--runs-dir", default=space.default_runs_dir(), help="folder that holds the runs")
    parser.add_argument("--public", action="store_true", help="others may open it; see docs/sharing.md")
    parser.add_argument(
        "--root-path", default=os.environ.get("GRADIO_ROOT_PATH", ""),
        help="path that a reverse proxy puts before the page's addresses, such as /studio; see docs/sharing.md",
    )  # fmt: skip
    parser.add_argument(
        "--mcp", action="store_true", default=os.environ.get("GRADIO_MCP_SERVER", "").lower() == "true",
        help="serve the endpoints as MCP tools too; see docs/api.md",
    )  # fmt: skip
    parser.add_argument(
        "--language", default=os.environ.get(VARIABLE, ""),
        help="language of the page, such as de, if there is a translation; see docs/translating.md",
    )  # fmt: skip
    arguments = parser.parse_args()
    space.prepare()
    gc.disable()  # until the page is there; see launch()
    from iekd.ui.server.launch import launch

    try:
        launch(
            arguments.host, arguments.port, arguments.runs_dir, arguments.public, arguments.root_path, arguments.mcp,
            arguments.language,
        )  # fmt: skip
    except UserError as error:
        sys.stderr.write(f"Error: {error}\n")
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
