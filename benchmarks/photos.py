"""What reading a folder of photographs costs: decoded at full size, as small as is needed, and from the cache.

    python benchmarks/photos.py [--photos 200] [--rounds 3]

The photographs are made: smooth noise with some grain, JPEG of the size and weight that a telephone's have. Each
reading is a process of its own, and rounds take turns. Nothing else should run meanwhile.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image

READ = """
import sys, time
from iekd import data
from iekd.data import decoding, reading
reading.WORTH_CACHING = 0.0
if sys.argv[2] == "whole":
    decoding.ENOUGH = 10**6
began = time.perf_counter()
data.load("folder:" + sys.argv[1], cache=sys.argv[2] == "cached")
print(time.perf_counter() - began)
"""
WAYS = ("whole", "small", "cached")


def photograph(rng: np.random.Generator, width: int, height: int) -> Image.Image:
    across, down = np.fft.rfftfreq(width)[None], np.fft.fftfreq(height)[:, None]
    frequency = np.hypot(across, down)
    frequency[0, 0] = 1.0
    shape = (height, width // 2 + 1)
    waves = [
        np.fft.irfft2((rng.normal(size=shape) + 1j * rng.normal(size=shape)) / frequency**1.3, s=(height, width))
        for _ in range(3)
    ]
    pixels = np.stack([w / w.std() * 50 + 120 for w in waves], -1) + rng.normal(size=(height, width, 3)) * 2
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--photos", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        folder, rng = Path(place) / "photos", np.random.default_rng(0)
        few = [photograph(rng, 4000, 3000) for _ in range(4)]
        for i in range(given.photos):
            path = folder / "ab"[i % 2] / f"{i}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            few[i % 4].rotate(180 * (i // 4 % 2)).save(path, quality=88)
        weight = sum(path.stat().st_size for path in folder.rglob("*.jpg")) / given.photos
        print(f"{given.photos} photographs of 4000 x 3000, {weight / 1e6:.1f} MB each")
        environment = {**os.environ, "IEKD_CACHE_DIR": str(Path(place) / "cache")}

        def read(way: str) -> float:
            command = [sys.executable, "-c", READ, str(folder), way]
            done = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
            return float(done.stdout)

        read("cached")  # the first time, to be found afterwards
        times: dict[str, list[float]] = {way: [] for way in WAYS}
        for _ in range(given.rounds):
            for way in WAYS:
                times[way].append(read(way))
        base = statistics.median(times["whole"])
        for way in WAYS:
            middle = statistics.median(times[way])
            listed = ", ".join(f"{t:.2f}" for t in times[way])
            print(f"{way:6} {middle:7.2f} s ({listed}), {base / middle:.1f} times as fast as whole")


if __name__ == "__main__":
    main()
