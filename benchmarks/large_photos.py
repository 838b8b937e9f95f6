"""Whether training on a large folder of photographs, 224 pixels wide, takes more memory than on a small one.

    python benchmarks/large_photos.py PHOTOS [--counts 2000,20000] [train options...]

PHOTOS is a folder with train/<class>/* and test/<class>/*. For each count a folder of so many photographs is made of
them: each is shifted by some pixels and stored anew, so that no two files are equal. On it a ResNet-8 is trained for
some steps, and what the processes of the run take together is sampled (streaming.py). The images stay in their files:
`--image-memory 0.1`.
"""

import argparse
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image
from streaming import measure

SHORT = 288  # pixels of the shorter side of the copies
OPTIONS = (
    "--teacher", "none", "--student", "resnet8", "--methods", "baseline", "--epochs", "1", "--device", "cpu",
    "--precision", "fp32", "--resolution", "224", "--image-memory", "0.1", "--batch-size", "32",
    "--limit-train", "640", "--validation-fraction", "0", "--augmentation", "resized-crop",
)  # fmt: skip


def make_folder(photos: Path, root: Path, count: int, tested: int = 200) -> None:
    """`count` copies of the training photographs, and a few of the others to test on."""
    rng = np.random.default_rng(0)
    for part, of_part in (("train", count), ("test", tested)):
        files = sorted(path for path in (photos / part).rglob("*") if path.is_file())
        for i, path in enumerate(files):
            (root / part / path.parent.name).mkdir(parents=True, exist_ok=True)
            with Image.open(path) as opened:
                picture = opened.convert("RGB")
            picture.thumbnail((2 * SHORT, SHORT))
            pixels = np.asarray(picture)
            for k in range(i, of_part, len(files)):
                shifted = np.roll(pixels, rng.integers(-9, 10, 2), (0, 1))
                Image.fromarray(shifted).save(root / part / path.parent.name / f"{path.stem}-{k:06}.jpg", quality=85)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("photos", type=Path)
    parser.add_argument("--counts", default="2000,20000")
    chosen, options = parser.parse_known_args()
    print("| photographs | on disk | decoded | memory at the peak |\n|---:|---:|---:|---:|")
    for count in map(int, chosen.counts.split(",")):
        with tempfile.TemporaryDirectory() as place:
            make_folder(chosen.photos, Path(place) / "photos", count)
            size = sum(path.stat().st_size for path in (Path(place) / "photos").rglob("*.jpg"))
            peak, _, _ = measure(Path(place) / "photos", [*OPTIONS, *options], f"{place}/runs")
            decoded = (count + 200) * 224 * 224 * 3
            print(f"| {count:,} | {size / 1e9:.2f} GB | {decoded / 1e9:.2f} GB | {peak / 1e6:,.0f} MB |", flush=True)


if __name__ == "__main__":
    main()
