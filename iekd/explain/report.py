"""An explanation as files: explain.json, explain.md, a PNG for each image, and the maps as numbers."""

from __future__ import annotations

import io
import json
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np

from iekd.errors import UserError
from iekd.explain.about import CKA, FLATNESS, GRAD_CAM, HALVES, JSON, LRP, NEURONS, NUMBERS, TEXT
from iekd.explain.draw import METHODS, OPACITY, sheets
from iekd.explain.explain import ABOUT, FAITHFULNESS, Explanation

MAPS = "maps"  # folder of their pictures
SHOWN = 8  # pictures in the text
LEAST = 5e-4  # share of the relevance that is worth a number


def write(found: Explanation, folder: Path, opacity: float = OPACITY, save_maps: bool = False) -> list[Path]:
    """Write everything into a folder, which is made; pictures of an earlier explanation in it are removed.

    Args:
        opacity: of the maps over the images, 0..1.
        save_maps: write `maps.npz` too, see `map_arrays`.
    Returns:
        The files.
    Raises:
        UserError: the folder cannot be written, or the opacity is out of range.
    """
    check_opacity(opacity)
    pictures = {}
    if found.maps:
        titles = [found.label_of(i) or Path(name).name for i, name in enumerate(found.pictures.names)]
        for i, file in enumerate(sheets(found.pictures.images, titles, found.maps, opacity), 1):
            pictures[f"{MAPS}/image-{i:03}.png"] = file
    described = {**found.to_json(), "files": list(pictures)}
    texts = {JSON: json.dumps(described, indent=1) + "\n", TEXT: as_markdown(found, list(pictures))}
    contents = {**pictures, **{name: text.encode() for name, text in texts.items()}}
    if save_maps:
        numbers = io.BytesIO()
        np.savez_compressed(numbers, **map_arrays(found))  # type: ignore[arg-type]
        contents[NUMBERS] = numbers.getvalue()
    try:
        (folder / MAPS).mkdir(parents=True, exist_ok=True)
        for old in (folder / MAPS).glob("image-*.png"):
            old.unlink()
        for name, content in contents.items():
            part = folder / f"{name}.part"
            part.write_bytes(content)
            os.replace(part, folder / name)
        if not pictures:
            (folder / MAPS).rmdir()
    except OSError as error:
        raise UserError(f"'{folder}' cannot be written ({error.strerror}). Choose another folder with --out.") from None
    return [folder / name for name in contents]


def map_arrays(found: Explanation) -> dict[str, np.ndarray]:
    """The images (B,H,W,C) uint8 as "images", and each map (B,H,W) float32 by its place among the maps, as "map0"."""
    return {"images": found.pictures.images, **{f"map{i}": maps.maps for i, maps in enumerate(found.maps)}}


def check_opacity(opacity: float) -> None:
    """Raises UserError if it is out of range."""
    if not 0 <= opacity <= 1:
        raise UserError(f"Opacity '{opacity:g}' cannot be used: give a number from 0 (only the image) to 1.")


def as_markdown(found: Explanation, pictures: Sequence[str] = ()) -> str:
    """The explanation as a page of text; pictures: the files of the maps."""
    lines = ["# Explanation", "", *_networks(found)]
    if found.maps:
        lines += ["## Where they look", "", *_maps(found)]
        lines += [f"![{Path(name).stem}]({name})\n" for name in pictures[:SHOWN]]
        lines += [f"All {len(pictures)} pictures are in `{MAPS}/`.", ""] if len(pictures) > SHOWN else []
        for name in (GRAD_CAM, LRP, FAITHFULNESS):
            if name == FAITHFULNESS or any(maps.method == name for maps in found.maps):
                lines += [f"**{ABOUT[name].title}.**", *_words(name)]
    for name, table in ((CKA, _similarity), (NEURONS, _neurons), (FLATNESS, _flatness), (HALVES, _halves)):
        if rows := list(table(found)):
            lines += [f"## {ABOUT[name].title}", "", *_words(name), *rows]
    if found.problems:
        lines += ["## Not computed", ""]
        lines += [f"- {p.diagnostic}{f' of {p.network}' if p.network else ''}: {p.reason}" for p in found.problems]
        lines += [""]
    return "\n".join(lines)


def _words(name: str) -> list[str]:
    about = ABOUT[name]
    return [f"{about.shows} {about.reading} ({about.reference}.)", ""]


def _table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    cells = [[cell.replace("|", "\\|") for cell in row] for row in rows]
    return [f"| {' | '.join(row)} |" for row in (header, ["---"] * len(header), *cells)] + [""]


def _networks(found: Explanation) -> list[str]:
    rows = []
    for n in found.networks:
        accuracy = "" if n.accuracy is None else f"{n.accuracy:.2f} %"
        halves = ", ".join(f"{half} {count}" for half, count in n.halves.items())
        rows.append((n.name, n.model, n.method, accuracy, halves))
    return _table(("network", "model", "method", "test accuracy", "channels of the halves"), rows)


def _maps(found: Explanation) -> list[str]:
    rows = []
    for maps in found.maps:
        faithful, kept = maps.faithfulness, maps.conservation
        row = [METHODS[maps.method], maps.label]
        if faithful is None:
            row += [""] * 3
        else:
            score = f"{faithful.score:.3f} ± {faithful.error:.3f}"
            row += [score, f"{faithful.insertion:.3f}", f"{faithful.deletion:.3f}"]
        if kept is None:
            row += [""] * 3
        else:
            lost = _percent(kept.lost) if kept.lost > LEAST else "nothing"
            row += [_percent(kept.pixels), _percent(kept.biases), lost]
        rows.append(row)
    header = (
        "map", "of", "faithfulness", "insertion", "deletion", "relevance at the pixels", "in the biases", "lost",
    )  # fmt: skip
    return _table(header, rows)


def _similarity(found: Explanation) -> Iterator[str]:
    for stage in found.similarity:
        yield f"{_stage(stage.stage).capitalize()}, {stage.images} images:\n"
        rows = [
            (name, *("" if value is None else f"{value:.3f}" for value in row))
            for name, row in zip(stage.names, stage.values, strict=True)
        ]
        yield from _table(("", *stage.names), rows)


def _neurons(found: Explanation) -> list[str]:
    rows = [
        (_stage(n.stage), n.name, f"{n.active:,.0f} of {n.neurons:,}", _percent(n.share),
         f"{n.silent_channels} of {n.channels}")
        for n in sorted(found.neurons, key=lambda n: -n.stage)
    ]  # fmt: skip
    return _table(("stage", "network", "active", "share", "silent channels"), rows) if rows else []


def _flatness(found: Explanation) -> list[str]:
    if not found.flatness:
        return []
    rows = [
        (f.network, *(f"{mean:.3f} ± {deviation:.3f}" for mean, deviation in zip(f.mean, f.deviation, strict=True)))
        for f in found.flatness
    ]
    return _table(("loss of", *(f"noise {100 * level:g} %" for level in found.flatness[0].levels)), rows)


def _halves(found: Explanation) -> list[str]:
    rows = []
    for worth in found.halves:
        percents = [
            f"{value:.1f} % ({low:.1f} to {high:.1f})"
            for value, (low, high) in zip(
                (worth.whole, worth.inheritance, worth.exploration), worth.intervals, strict=True
            )
        ]
        same = "" if worth.network == worth.split_of else f", channels as in {worth.split_of}"
        rows.append((worth.network + same, *percents))
    return _table(("accuracy of", "all channels", "inheritance alone", "exploration alone"), rows) if rows else []


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def _stage(stage: int) -> str:
    return "last stage" if stage == -1 else f"stage {-stage} from the end"
