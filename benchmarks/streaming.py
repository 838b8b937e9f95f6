"""What training on a folder of images costs in memory when their files are re-decoded every epoch.

    python benchmarks/streaming.py [--counts 2000,20000,200000] [--side 64] [train options...]

Makes a folder of JPEG files for each count, runs `iekd train --image-memory 0.2` on it for one epoch of a small
network, and prints what its processes took together at the most, what loading took, and how many images were trained
on in a second. Memory is counted so that what processes share counts once (PSS) where the system says it, else as the
sum of all (RSS). Fewer than 0.2 GB of pixels stay in memory.
"""

import argparse
import io
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import psutil
from PIL import Image

CLASSES = 10
SMALL = (
    "--teacher", "none", "--student", "resnet8", "--methods", "baseline", "--epochs", "1", "--device", "cpu",
    "--precision", "fp32", "--validation-fraction", "0", "--image-memory", "0.2",
)  # fmt: skip


def make_folder(root: Path, count: int, side: int) -> None:
    """`count` training pictures and a tenth as many to test on: a hundred different ones, under many names."""
    rng = np.random.default_rng(0)
    encoded = []
    for i in range(100):
        colours = rng.integers(0, 256, (4, 4, 3)) // 2 + 12 * (i % CLASSES)
        picture, buffer = Image.fromarray(colours.astype(np.uint8)).resize((side, side)), io.BytesIO()
        picture.save(buffer, "JPEG")
        encoded.append(buffer.getvalue())
    for part, of_part in (("train", count), ("test", count // 10)):
        for k in range(CLASSES):
            (root / part / f"class{k}").mkdir(parents=True)
        for i in range(of_part):
            (root / part / f"class{i % CLASSES}" / f"picture-{i:07}.jpg").write_bytes(encoded[i % 100])


def memory_of(process: psutil.Process) -> int:
    """Bytes that a process and its children take now."""
    total = 0
    for one in [process, *process.children(recursive=True)]:
        try:
            taken = one.memory_full_info()
            total += getattr(taken, "pss", taken.rss)
        except psutil.Error:  # it has ended meanwhile
            continue
    return total


def measure(folder: Path, options: list[str], runs_dir: str) -> tuple[int, float, float]:
    """(bytes at the peak, seconds of loading, seconds of training) of one run."""
    command = [sys.executable, "-m", "iekd", "train", "--json", "--dataset", f"folder:{folder}", "--runs-dir", runs_dir]
    with subprocess.Popen([*command, *SMALL, *options], stdout=subprocess.PIPE, text=True) as started:
        process, peak = psutil.Process(started.pid), 0
        while started.poll() is None:
            peak = max(peak, memory_of(process))
            time.sleep(0.2)
        assert started.stdout is not None
        run = json.loads(started.stdout.read().splitlines()[-1])
    if run["state"] != "finished":
        sys.exit(f"The run did not finish: {run}")
    events = [json.loads(line) for line in (Path(run["path"]) / "events.jsonl").read_text().splitlines()]
    at = {event.get("stage", event["event"]): event["time"] for event in events}
    return peak, at["students"] - at["running"], at["evaluation"] - at["students"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--counts", default="2000,20000,200000")
    parser.add_argument("--side", type=int, default=64)
    arguments, options = parser.parse_known_args()
    options = ["--resolution", str(arguments.side), *options]
    print(
        "| training images | decoded (GB) | peak memory (GB) | loading (s) | images/s |\n|---|---|---|---|---|",
        flush=True,
    )
    for count in map(int, arguments.counts.split(",")):
        with tempfile.TemporaryDirectory() as place:
            make_folder(Path(place) / "pictures", count, arguments.side)
            peak, loading, training = measure(Path(place) / "pictures", options, str(Path(place) / "runs"))
        decoded = 1.1 * count * arguments.side**2 * 3
        print(
            f"| {count:,} | {decoded / 1e9:.2f} | {peak / 1e9:.2f} | {loading:.0f} | {count / training:.0f} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
