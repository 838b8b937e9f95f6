"""The scripts that lie beside exported files: short programs that predict for an image, most without this package.

They read an image exactly as `data.decoding.to_array` does, which a test holds them to.
"""

from __future__ import annotations

from iekd.data.decoding import CROP, DEEP, ENOUGH, MAX_PIXELS, PAD, PHOTOMETRIC, SQUASH, WHITE_IS_ZERO
from iekd.models.artifact import ModelCard

SCRIPT = "use_it.py"
SHAPED = {
    CROP: "ImageOps.fit(image, ({side}, {side}), Image.Resampling.BILINEAR)",
    PAD: "ImageOps.pad(image, ({side}, {side}), Image.Resampling.BILINEAR)",
    SQUASH: "image.resize(({side}, {side}), Image.Resampling.BILINEAR)",
}
READ = '''

def pixels_of(path):
    """(1, {channels}, {side}, {side}) uint8: the image as the model was trained to see it."""
    image = Image.open(path)
    large = image.width * image.height > {most}  # a large JPEG is decoded at a fraction of its size
    image.draft(None, (image.width // 8, image.height // 8) if large else ({draft}, {draft}))
    with contextlib.suppress(Exception):
        ImageOps.exif_transpose(image, in_place=True)
    if image.mode in {deep}:  # more than 8 bits
        values = np.nan_to_num(np.asarray(image, np.float64), posinf=0.0, neginf=0.0)
        white = {white}
        if getattr(image, "tag_v2", {{}}).get({photometric}) == {inverted}:  # a TIFF in which 0 is white
            values = white - values
        image = Image.fromarray((values.clip(0, white) * (255.0 / white)).round().astype(np.uint8))
    elif "A" in image.getbands() or "transparency" in image.info:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    image = image if image.mode in ("1", "L") else image.convert("RGB")
    image = image.convert("{mode}")
    image = {shaped}
    return np.asarray(image, np.uint8).reshape(1, {side}, {side}, {channels}).transpose(0, 3, 1, 2).copy()


'''
SHOW = """for path in sys.argv[1:]:
    [probabilities] = {answer}
    best = np.argsort(-probabilities)[:5]
    print(path, *(f"{{labels[i]}} {{probabilities[i]:.4f}}" for i in best), sep="\\t")
"""
ONNX = '''"""Predicts images with {file}:  python {script} image.jpg    (pip install numpy pillow onnxruntime)"""

import contextlib
import json
import sys
from pathlib import Path

import numpy as np
import onnxruntime
from PIL import Image, ImageOps
'''
ONNX_LOAD = """model = str(Path(__file__).with_name("{file}"))
session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
labels = json.loads(session.get_modelmeta().custom_metadata_map["labels"])
"""
TORCH = '''"""Predicts images with {file}:  python {script} image.jpg    (pip install torch numpy pillow)"""

import contextlib
import json
import sys
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps
'''
TORCH_LOAD = """texts = {{"labels": ""}}
program = torch.export.load(Path(__file__).with_name("{file}"), extra_files=texts).module()
labels = json.loads(texts["labels"])
"""
WEIGHTS = '''"""Predicts images with {file}:  python {script} image.jpg    (needs iekd, which has the network)"""

import sys
from pathlib import Path

from iekd import Predictor
from iekd.data.decoding import to_array

predictor = Predictor(Path(__file__).parent)
card = predictor.card
for path in sys.argv[1:]:
    found = predictor.predict(to_array(path, card.resolution, card.channels, "", card.fit, card.white))
    print(path, *(f"{{label}} {{score:.4f}}" for label, score in found.top), sep="\\t")
'''


def onnx_script(card: ModelCard, file: str, script: str) -> str:
    """For onnxruntime, numpy and Pillow."""
    answer = 'session.run(None, {"pixels": pixels_of(path)})[0]'
    return _filled(ONNX + READ + ONNX_LOAD + SHOW, card, file, script, answer)


def torch_script(card: ModelCard, file: str, script: str) -> str:
    """For torch, numpy and Pillow."""
    return _filled(
        TORCH + READ + TORCH_LOAD + SHOW, card, file, script, "program(torch.from_numpy(pixels_of(path))).numpy()"
    )


def weights_script(card: ModelCard, file: str, script: str) -> str:
    """For this package."""
    return _filled(WEIGHTS, card, file, script, "")


def _filled(template: str, card: ModelCard, file: str, script: str, answer: str) -> str:
    white = "next((white for white in (1.0, 255.0) if values.max() <= white), 65535.0)"
    white = white if card.white is None else str(float(card.white))
    return template.format(
        file=file, script=script, answer=answer, side=card.resolution, channels=card.channels, most=MAX_PIXELS,
        draft=ENOUGH * card.resolution, deep=DEEP, white=white, mode="L" if card.channels == 1 else "RGB",
        photometric=PHOTOMETRIC, inverted=WHITE_IS_ZERO, shaped=SHAPED[card.fit].format(side=card.resolution),
    )  # fmt: skip
