"""Builds the folder that is pushed to a Hugging Face Space (`make space`; see docs/spaces.md).

    python .ci/space.py [--out build/space] [--models org/name ...]

The repository itself can be pushed too, but a Space refuses binary files that are not stored with git-lfs, wants no
tests, and ZeroGPU takes certain versions of torch only. Leaves out: the push, which is one command of `hf`.
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SHIPPED = (
    "app.py", "iekd", "checkpoints", "LICENSE", "NOTICE",
    "docs", "benchmarks/RESULTS.md", "CONTRIBUTING.md", "CHANGELOG.md",  # to which README links
)  # fmt: skip
# ZeroGPU's documentation lists torch 2.8.0, 2.9.1, 2.10.0 and 2.11.0 (August 2026); torchvision 0.26 is for torch 2.11
PINNED = {"torch": "torch==2.11.0", "torchvision": "torchvision==0.26.0"}
BINARY = ("*.safetensors", "*.npz", "*.png", "*.onnx", "*.mo")


def requirements() -> str:
    """The requirements of the root, torch and torchvision pinned; gradio comes with the Space (sdk_version)."""
    lines = ["# of the Space; the package itself takes later versions too (requirements.txt of the repository)"]
    for line in (ROOT / "requirements.txt").read_text().splitlines():
        name = re.split(r"[^\w-]", line)[0]
        if name and name != "gradio":
            lines.append(PINNED.get(name, line))
    return "\n".join([*lines, "spaces   # lends a GPU on ZeroGPU; does nothing elsewhere"]) + "\n"


def build(out: Path, models: list[str]) -> None:
    """Write the folder; what was there before is replaced."""
    if out.exists():
        if not (out / "app.py").is_file() and any(out.iterdir()):
            sys.exit(f"'{out}' is not a folder that was built here. Name another with --out, or remove it.")
        shutil.rmtree(out)
    out.mkdir(parents=True)
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "--", *SHIPPED]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    for name in listed.stdout.splitlines():
        (out / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, out / name)
    front, text = (ROOT / "README.md").read_text().removeprefix("---\n").split("\n---\n", 1)
    shown = "".join(f"\n  - {name}" for name in models)
    (out / "README.md").write_text(f"---\n{front}{f'{chr(10)}models:{shown}' if models else ''}\n---\n{text}")
    (out / "requirements.txt").write_text(requirements())
    (out / ".gitattributes").write_text("".join(f"{p} filter=lfs diff=lfs merge=lfs -text\n" for p in BINARY))
    size = sum(path.stat().st_size for path in out.rglob("*") if path.is_file())
    sys.stdout.write(f"{out}: {size / 1e6:.1f} MB. Push it: hf upload ORG/NAME {out} . --repo-type space\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, default=ROOT / "build" / "space")
    parser.add_argument("--models", nargs="*", default=[], help="models on the Hub that the Space shows, as org/name")
    arguments = parser.parse_args()
    build(arguments.out, arguments.models)


if __name__ == "__main__":
    main()
