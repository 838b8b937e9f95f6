"""Put a run that takes longer than a day's work among the results while it is unfinished, and go on with it elsewhere.

    iekd runs stop ID
    python benchmarks/unfinished.py keep RUN_FOLDER              # benchmarks/paper/unfinished/ID.zip
    python benchmarks/unfinished.py take ID RUNS_FOLDER CIFAR10  # CIFAR10: the folder of images
    iekd runs resume ID --runs-dir RUNS_FOLDER

The file holds the newest checkpoint of each stage, so the result is that of a run that was never
stopped, within the rounding of another processor. It names no folder of the machine; `take` puts in those of yours.
"""

import argparse
import json
import zipfile
from collections import defaultdict
from pathlib import Path

from iekd.hub.privacy import Scrubber
from iekd.runs.store import CHECKPOINTS, Run
from iekd.runs.transfer import files_of

PAPER = Path(__file__).resolve().parent / "paper"
KEPT = PAPER / "unfinished"


def keep(run: Run) -> None:
    scrub, stages = Scrubber(run), defaultdict(list)
    for folder in sorted((run.path / CHECKPOINTS).glob("*-*")):  # auto-encoder-00011700, students-00005411
        stages[folder.name.rpartition("-")[0]].append(folder)
    older = {folder for folders in stages.values() for folder in folders[:-1]}
    KEPT.mkdir(exist_ok=True)
    target = KEPT / f"{run.id}.zip"
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        for path in files_of(run, True):
            name = path.relative_to(run.path).as_posix()
            if not name.startswith("models/") and path.parent not in older:
                archive.writestr(f"{run.id}/{name}", scrub.file(path))
    print(f"{target}: {target.stat().st_size / 1e6:.2f} MB")


def take(run_id: str, runs: Path, images: Path) -> None:
    with zipfile.ZipFile(KEPT / f"{run_id}.zip") as archive:
        archive.extractall(runs)
    config = runs / run_id / "config.json"
    values = json.loads(config.read_text())
    values["dataset"] = f"folder:{images}"
    values["teacher_from"] = str(PAPER / Path(values["teacher_from"]).name)
    config.write_text(json.dumps(values, indent=1))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    kept = commands.add_parser("keep")
    kept.add_argument("run", type=Path)
    taken = commands.add_parser("take")
    taken.add_argument("run_id")
    taken.add_argument("runs", type=Path)
    taken.add_argument("images", type=Path)
    given = parser.parse_args()
    if given.command == "take":
        return take(given.run_id, given.runs.resolve(), given.images.resolve())
    run = Run(given.run.resolve())
    if run.alive():
        parser.error(f"{run.id} is {run.status.state}; stop it first")
    return keep(run)


if __name__ == "__main__":
    main()
