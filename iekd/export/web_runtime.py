"""onnxruntime-web, the program that runs networks in a browser: its pinned version, or files of a folder to copy."""

from __future__ import annotations

import base64
import hashlib
import shutil
from dataclasses import dataclass
from pathlib import Path

from iekd.errors import UserError

VERSION = "1.30.0"
CDN = "https://cdn.jsdelivr.net"
# the smallest set: one script that runs on WebAssembly alone, and the WebAssembly itself. Bytes and SHA-384 of VERSION
SCRIPT, WASM = "ort.wasm.bundle.min.mjs", "ort-wasm-simd-threaded.wasm"
PINNED = {
    SCRIPT: (73054, "sha384-PLWz+nHEVHpjwBsO0YVdvQj6n5814Iv8E3b8FG0Rp/uIAtjFMCKOpP66iPzedrIG"),
    WASM: (14239897, "sha384-vjBJ1z7qrhkTyYsNqKeF6c7N+nOJSU94czEo+tvZcu8G75JparGq9kB+kTnEUNVM"),
}
PLACES = ("", "dist", "package/dist", "node_modules/onnxruntime-web/dist")  # of a folder that holds npm's package
COPIES = "runtime"  # folder of the page


@dataclass(frozen=True)
class Runtime:
    """What a page has to load.

    base: address of the files, ending in a slash; relative to the page for a copy. host: that the page must be allowed
    to ask; empty for a copy. files: name, bytes and hash ("sha384-...") of script and WebAssembly, in this order.
    """

    base: str
    host: str
    files: tuple[tuple[str, int, str], ...]


def pinned_runtime() -> Runtime:
    """The pinned version, from a public network of copies; the page checks the hashes."""
    files = tuple((name, *PINNED[name]) for name in (SCRIPT, WASM))
    return Runtime(f"{CDN}/npm/onnxruntime-web@{VERSION}/dist/", CDN, files)


def find_runtime(source: Path) -> Path:
    """The folder of the two files in npm's package onnxruntime-web, in its dist/, or where npm has installed it.

    Raises:
        UserError: they are not there.
    """
    found = next((source / place for place in PLACES if (source / place / SCRIPT).is_file()), None)
    if found is None or not (found / WASM).is_file():
        missing = SCRIPT if found is None else WASM
        raise UserError(
            f"The runtime cannot be copied: there is no '{missing}' in '{source}'. Get it with "
            f"`npm pack onnxruntime-web@{VERSION}`, unpack that, and give its folder."
        )
    return found


def copied_runtime(source: Path, page: Path) -> Runtime:
    """Copy the two files from a folder, see `find_runtime`, into a page, which then needs no other host."""
    found = find_runtime(source)
    target = page / COPIES
    target.mkdir(parents=True, exist_ok=True)
    files = []
    for name in (SCRIPT, WASM):
        shutil.copyfile(found / name, target / name)
        data = (target / name).read_bytes()
        files.append((name, len(data), integrity(data)))
    return Runtime(f"{COPIES}/", "", tuple(files))


def integrity(data: bytes) -> str:
    """The hash of a file as a browser checks it (Subresource Integrity)."""
    return "sha384-" + base64.b64encode(hashlib.sha384(data).digest()).decode()
