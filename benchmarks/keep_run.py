"""Keep what a finished run found among the results: benchmarks/paper/NAME with its report, a picture of its curves and
its students' weights, without the folders of this machine.

    python benchmarks/keep_run.py RUN_FOLDER NAME
"""

import argparse
from pathlib import Path

from iekd.hub.curves import curves_png
from iekd.hub.privacy import Scrubber
from iekd.runs.status import FINISHED
from iekd.runs.store import Run

OUT = Path(__file__).parent / "paper"
KEPT = ("report.json", "report.md", "config.json")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("name")
    given = parser.parse_args()
    run = Run(given.run.resolve())
    if run.status.state != FINISHED:
        parser.error(f"{run.id} is {run.status.state}; only finished runs are kept")
    scrub, out = Scrubber(run), OUT / given.name
    students = [path for name, path in run.model_folders.items() if name != "teacher"]
    for path in [run.path / name for name in KEPT] + [file for folder in students for file in folder.glob("model.*")]:
        if path.is_file():
            target = out / path.relative_to(run.path)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(scrub.file(path))
            print(f"{target}: {target.stat().st_size / 1e6:.2f} MB")
    if curves := curves_png(run):
        (out / "curves.png").write_bytes(curves)


if __name__ == "__main__":
    main()
