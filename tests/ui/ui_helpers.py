"""What the tests of the page share: drawn pictures, the smallest run, and the page as a process of its own.

Not in conftest.py, because there are several files of that name and an import finds only one of them.
"""

from __future__ import annotations

import io
import json
import os
import re
import subprocess
import sys
import time
import zipfile
from http.cookiejar import CookieJar, DefaultCookiePolicy
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from PIL import Image

ROOT = Path(__file__).parents[2]
PATIENCE = 300.0  # seconds; only what is broken needs them
# one for all, because each call of httpx.get makes a client, which reads a list of certificates first. It keeps
# nothing: no connection, because servers end and others take their port, and no cookie
CLIENT = httpx.Client(
    timeout=PATIENCE, limits=httpx.Limits(max_keepalive_connections=0),
    cookies=CookieJar(DefaultCookiePolicy(allowed_domains=())),
)  # fmt: skip
TOKEN = "correct horse battery staple"  # of the page `guarded`
# small enough for seconds, and every stage still takes place
QUICK: dict[str, Any] = {
    "teacher": "resnet8", "student": "resnet8", "epochs": 2, "batch_size": 16, "teacher_epochs": 2,
    "auto_encoder_epochs": 1, "resolution": 16, "device": "cpu",
}  # fmt: skip


def animals() -> bytes:
    """A zip of images whose classes may be the outer folders, cats and fish, or the four inner ones."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for shade, folder in enumerate(("fish/ray", "fish/shark", "cats/lion", "cats/puma")):
            for i in range(3):
                image = io.BytesIO()
                Image.new("L", (8, 8), 40 * shade + i).save(image, "PNG")
                archive.writestr(f"{folder}/{i}.png", image.getvalue())
    return packed.getvalue()


def draw_pictures(root: Path, train: int = 24, test: int = 9) -> Path:
    """train/ and test/ with three classes that differ plainly: a disc, a cross, stripes."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:16, :16]
    shapes = {
        "cross": (abs(x - 8) < 2) | (abs(y - 8) < 2),
        "disc": (x - 7.5) ** 2 + (y - 7.5) ** 2 < 30,
        "stripes": (y // 2) % 2 == 0,
    }
    for split, count in (("train", train), ("test", test)):
        for name, mask in shapes.items():
            folder = root / split / name
            folder.mkdir(parents=True)
            for i in range(count):
                pixels = rng.integers(0, 60, (16, 16))
                pixels[mask] += 150
                Image.fromarray(pixels.astype(np.uint8)).save(folder / f"{i}.png")
    return root


class serving:  # noqa: N801
    """`python app.py` as a process, on a port that it finds by itself; ends with the block.

    probe: it may measure for its estimates. variables: of its environment.
    """

    def __init__(self, runs_dir: Path, *arguments: str, probe: bool = False, **variables: str) -> None:
        command = [sys.executable, str(ROOT / "app.py"), "--port", "0", "--runs-dir", str(runs_dir), *arguments]
        own = {"PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1", "IEKD_PROBE": str(int(probe)), **variables}
        environment = {**os.environ, **own}
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=runs_dir, env=environment)

    def __enter__(self) -> str:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()  # comes when the page can be opened
        found = re.search(r"http://\S+", line)
        assert found, f"no address in {line!r}"
        return found.group()

    def __exit__(self, *_: object) -> None:
        self.process.terminate()
        self.process.wait(PATIENCE)
        assert self.process.stdout is not None
        self.process.stdout.close()


def call(url: str, name: str, *values: Any, **headers: str) -> tuple[str, Any]:
    """("complete" or "error", data) of a named endpoint."""
    event = CLIENT.post(f"{url}/gradio_api/call/{name}", json={"data": list(values)}, headers=headers)
    assert event.status_code == 200, event.text
    with CLIENT.stream("GET", f"{url}/gradio_api/call/{name}/{event.json()['event_id']}") as answer:
        lines = [line for line in answer.iter_lines() if line]
    kind = next(line for line in reversed(lines) if line.startswith("event:")).removeprefix("event: ")
    return kind, json.loads(lines[-1].removeprefix("data: "))


def wait_until(condition: Any, seconds: float = PATIENCE) -> Any:
    """Ask until it is true; the limit is for what hangs only, generous because other programs may use the machine."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if value := condition():
            return value
        time.sleep(0.3)
    raise AssertionError(f"not within {seconds:.0f} s")
