"""The share card of a run, from the command line and as a drawing."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from typer.testing import CliRunner

from iekd.cli.main import app
from iekd.errors import RunError
from iekd.runs.card import DATASET_NOTE, NAME_NOTE, SIZE, card_of, notes, png_of, spelled
from iekd.runs.store import Store
from iekd.ui.render.run import head_html


def card_by_command(root: Path, run_id: str, target: Path) -> Any:
    return CliRunner().invoke(
        app, ["runs", "card", run_id, "--out", str(target), "--runs-dir", str(root), "--json"], catch_exceptions=False
    )


def test_the_command_writes_a_png_and_tells_its_alt_text(tmp_path: Path, written_run: Any) -> None:
    run, target = written_run(Store(tmp_path / "runs"), name="Clothes"), tmp_path / "card.png"
    done = card_by_command(tmp_path / "runs", run.id, target)
    assert done.exit_code == 0
    answer = json.loads(done.stdout)
    assert answer["alt_text"].startswith("Clothes. ResNet-20 to ")
    assert "Teacher 94.0 %, Plain student 86.0 %" in answer["alt_text"]
    assert "+2.0 points over the plain student. 95 %: +1.0 to +3.0 over 1,000 test images" in answer["alt_text"]
    assert answer["notes"] == []
    image = Image.open(target)
    assert (image.format, image.size) == ("PNG", SIZE)
    before = target.read_bytes()
    again = card_by_command(tmp_path / "runs", run.id, target)
    assert again.exit_code != 0
    assert "is there already" in again.output
    assert target.read_bytes() == before


def test_a_run_on_part_of_the_dataset_says_so(tmp_path: Path, written_run: Any) -> None:
    run = written_run(Store(tmp_path), limit_train=2500)
    assert card_of(run, run.report).dataset == "Fashion-MNIST, 10,000 images (limited to 2,500)"
    assert "10,000 images (limited to 2,500) · " in head_html(run, run.config, run.status, Store(tmp_path))


def test_a_run_without_a_result_has_no_card(tmp_path: Path, written_run: Any) -> None:
    run, target = written_run(Store(tmp_path / "runs")), tmp_path / "card.png"
    (run.path / "report.json").unlink()
    refused = card_by_command(tmp_path / "runs", run.id, target)
    assert refused.exit_code != 0
    assert "has no result" in refused.output
    assert not target.exists()
    with pytest.raises(RunError):
        card_of(run, {"learners": []})


def test_results_too_weak_to_compare_say_so(tmp_path: Path, written_run: Any) -> None:
    run = written_run(Store(tmp_path), plain=10.0, taught=10.5)
    card = card_of(run, run.report)
    assert card.gain == "Too weak to judge"
    assert "points over" not in card.alt_text()


def test_a_loss_has_a_real_minus_in_words_and_the_fonts_own_in_the_picture(tmp_path: Path, written_run: Any) -> None:
    run = written_run(Store(tmp_path), plain=88.0, taught=86.0)
    card = card_of(run, run.report)
    assert card.gain == "−2.0 points over the plain student"
    assert "95 %: −3.0 to −1.0 over" in card.alt_text()
    assert png_of(card) == png_of(replace(card, gain=card.gain.replace("−", "-")))


def test_letters_that_the_font_lacks_are_spelled_or_named(tmp_path: Path, written_run: Any) -> None:
    assert spelled("Żółw–Größe → 2×") == "Zolw-Grosse to 2x"
    assert spelled("служба") is None
    run = written_run(Store(tmp_path), name="服装")
    card = card_of(run, run.report)
    assert notes(card) == [NAME_NOTE]
    assert DATASET_NOTE not in notes(card)
    assert Image.open(io.BytesIO(png_of(card))).size == SIZE


def test_a_very_long_name_stays_inside(tmp_path: Path, written_run: Any) -> None:
    run = written_run(Store(tmp_path), name="W" * 80)
    image = Image.open(io.BytesIO(png_of(card_of(run, run.report)))).convert("L")
    border = image.crop((SIZE[0] - 40, 20, *SIZE))
    assert border.getextrema() == (255, 255)
