"""The scripts beside exported files read images as this package does, and run without it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from iekd.data.decoding import PHOTOMETRIC, WHITE_IS_ZERO, to_array
from iekd.export import FORMATS, export_model
from iekd.export.script import onnx_script
from iekd.inference.predict import Predictor
from iekd.models.artifact import ModelCard


@pytest.fixture(scope="module")
def pictures(tmp_path_factory) -> list[Path]:
    """Files of every kind that is read in a way of its own."""
    folder, rng = tmp_path_factory.mktemp("pictures of all kinds"), np.random.default_rng(0)
    smooth = np.clip(np.add.outer(np.linspace(0, 200, 90), np.linspace(-40, 60, 150)), 0, 255)
    colour = np.stack([smooth, smooth[::-1], smooth[:, ::-1]], 2).astype(np.uint8)
    deep = (smooth * 200).astype(np.uint16)
    made = {
        "wide.png": Image.fromarray(colour),
        "tall.png": Image.fromarray(colour.transpose(1, 0, 2).copy()),
        "exact.png": Image.fromarray(colour[:16, :16]),
        "noise.png": Image.fromarray(rng.integers(0, 256, (40, 30, 3), np.uint8)),
        "grey.png": Image.fromarray(smooth.astype(np.uint8)),
        "black and white.png": Image.fromarray(smooth > 90),
        "16 bits.png": Image.fromarray(deep),
        "dark 16 bits.png": Image.fromarray((smooth / 2).astype(np.uint16)),
        "floats.tiff": Image.fromarray((smooth * 30).astype(np.float32)),
        "floats up to 1.tiff": Image.fromarray((smooth / 255).astype(np.float32)),
        "floats without end.tiff": Image.fromarray(np.where(smooth > 240, np.inf, smooth).astype(np.float32)),
        "see through.png": Image.fromarray(np.dstack([colour, smooth.astype(np.uint8)])),
        "grey and alpha.png": Image.fromarray(smooth.astype(np.uint8)).convert("LA"),
        "colours by number.png": Image.fromarray(colour).quantize(16),
        "print.jpg": Image.fromarray(colour).convert("CMYK"),
    }
    for name, image in made.items():
        image.save(folder / name)
    Image.fromarray(colour).quantize(16).save(folder / "one colour is clear.png", transparency=3)
    Image.fromarray(deep).save(folder / "zero is white.tiff", tiffinfo={PHOTOMETRIC: WHITE_IS_ZERO})
    turned = Image.Exif()
    turned[0x0112] = 6
    Image.fromarray(colour).save(folder / "turned.jpg", exif=turned)
    # the decoder makes these smaller: by how much depends on their size
    Image.fromarray(np.tile(colour, (10, 10, 1))).save(folder / "large.jpg")
    Image.fromarray(np.tile(colour, (45, 40, 1))).save(folder / "24 million pixels.jpg")
    return sorted(folder.iterdir())


@pytest.fixture(scope="module")
def reader(model):
    """`reader(card)` -> the script's function that reads a file; its network is never loaded."""

    def read(card):
        text = onnx_script(card, "model.onnx", "use_it.py").split("model = str(")[0]
        names: dict = {}
        exec(compile(text, "use_it.py", "exec"), names)
        return names["pixels_of"]

    return read


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("fit", ["crop", "pad", "squash"])
def test_it_reads_every_file_as_in_training(fit, channels, model, reader, pictures):
    card = replace(ModelCard.read(model), fit=fit, channels=channels)
    pixels_of = reader(card)
    assert len(pictures) > 15
    for path in pictures:
        wanted = to_array(path, 16, channels, fit=fit).transpose(2, 0, 1)[None]
        np.testing.assert_array_equal(pixels_of(path), wanted, path.name)


def test_it_knows_the_white_of_the_training_images(model, reader, pictures):
    pixels_of = reader(replace(ModelCard.read(model), white=4095.0, channels=1))
    (path,) = (p for p in pictures if p.name == "dark 16 bits.png")
    np.testing.assert_array_equal(pixels_of(path)[0, 0], to_array(path, 16, 1, white=4095.0)[..., 0])
    assert (pixels_of(path)[0, 0] != to_array(path, 16, 1)[..., 0]).any()


@pytest.mark.parametrize("format_name", ["onnx", "torch", "int8"])
def test_it_predicts_without_this_package(format_name, model, tiny, pictures, tmp_path, alone):
    export_model(model, format_name, tmp_path / "out", dataset=tiny)
    used = [path for path in pictures if path.name in ("noise.png", "turned.jpg", "see through.png")]
    lines = alone(tmp_path / "out" / "use_it.py", *used).splitlines()
    predictor = Predictor(model)
    for path, line in zip(used, lines, strict=True):
        name, *found = line.split("\t")
        top = predictor.predict(to_array(path, 16, 3)).top
        assert name == str(path)
        assert len(found) == len(top) == 3
        scores = dict(text.rsplit(" ", 1) for text in found)
        for label, score in top:
            tolerance = 0.2 if FORMATS[format_name].approximate else 2e-4
            assert float(scores[label]) == pytest.approx(score, abs=tolerance)
        assert next(iter(scores)) == max(scores, key=lambda label: float(scores[label]))


def test_a_script_that_needs_this_package_is_noticed(tmp_path, alone):
    for line in ("import iekd", "import iekd.errors", "from iekd.data import load"):
        (tmp_path / "use_it.py").write_text(line)
        with pytest.raises(AssertionError, match="iekd"):
            alone(tmp_path / "use_it.py")


def test_the_script_beside_a_named_file_opens_that_file(model, tiny, pictures, tmp_path, alone):
    export_model(model, "onnx", tmp_path / "shoes.onnx")
    script = tmp_path / "shoes.use_it.py"
    assert "python shoes.use_it.py image.jpg" in script.read_text()
    assert alone(script, pictures[0]).startswith(str(pictures[0]))


def test_the_script_beside_weights_runs_with_this_package(model, pictures, tmp_path, fresh_python):
    export_model(model, "safetensors", tmp_path / "out")
    code = (
        f"import runpy, sys; sys.argv = ['', {str(pictures[0])!r}]; runpy.run_path({str(tmp_path / 'out/use_it.py')!r})"
    )
    label, score = Predictor(model).predict(to_array(pictures[0], 16, 3)).top[0]
    assert f"{label} {score:.4f}" in fresh_python(code)
