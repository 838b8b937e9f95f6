"""`hf:ORG/NAME` as a dataset, against a Hub on this machine; in a process of its own, since the Hub's address is read
when its libraries are imported."""

from __future__ import annotations

import importlib.util
import io
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from datasets_stand_in import COMMIT, DatasetsHub
from PIL import Image

from iekd import data
from iekd.config.run import make_config
from iekd.data import hub_rows
from iekd.errors import DataError

NEEDS = pytest.mark.skipif(
    importlib.util.find_spec("datasets") is None, reason="the library datasets is not here: pip install iekd[dev]"
)
COLOURS = ((200, 30, 30), (30, 200, 30), (30, 30, 200))

CLIENT = """
import json, sys
from iekd import data
from iekd.errors import DataError

for name in json.load(sys.stdin):
    try:
        whole = data.prepare(name)
        before = data.describe(whole)
        first = {"counts": [before.train_images, before.test_images, before.classes],
                 "at_hand": data.source_of(whole).at_hand(whole), "classes": before.class_names}
        d, info = data.load(whole, resolution=8), data.describe(whole)
        assert info.side > 0, "known, so that settings for such pictures can be proposed"
        streamed = data.load(whole, resolution=8, image_memory=0.0)
        print(json.dumps({
            "name": whole, "classes": d.class_names, "labels": d.train.labels.tolist(), "test": d.test.labels.tolist(),
            "colours": d.train.images.mean((1, 2)).round().tolist(), "fingerprint": d.fingerprint,
            "counts": [info.train_images, info.test_images, info.classes], "drawn": info.test_is_drawn,
            "notes": info.notes, "before": first, "streamed": type(streamed.train.images).__name__,
            "file": data.relative_name(whole, streamed.train.images.files[0]),
        }))
    except DataError as error:
        print(json.dumps({"error": str(error)}))
"""


README = b"""---
dataset_info:
  features:
  - name: picture
    dtype: image
  - name: colour
    dtype:
      class_label:
        names:
          '0': red
          '1': green
          '2': blue
  splits:
  - name: train
    num_bytes: 1000
    num_examples: 6
  - name: test
    num_bytes: 1000
    num_examples: 3
configs:
- config_name: default
  data_files:
  - split: train
    path: data/train-*
  - split: test
    path: data/test-*
---
"""


def ask(address: str, cache: Path, names: list[str]) -> list[dict]:
    """What the program says of datasets of the Hub at that address."""
    surroundings = {
        **os.environ, "HF_ENDPOINT": address, "IEKD_CACHE_DIR": str(cache), "HF_HOME": str(cache / "hf"),
        "HF_HUB_DISABLE_TELEMETRY": "1",
    }  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-c", CLIENT], input=json.dumps(names), env=surroundings, capture_output=True, text=True,
        check=False, timeout=300,
    )  # fmt: skip
    answers = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    assert len(answers) == len(names), done.stderr[-2000:]
    return answers


def parquet(columns: dict, features) -> bytes:
    import pyarrow
    import pyarrow.parquet

    written = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.table(columns, schema=features.arrow_schema), written)
    return written.getvalue()


def pictures(labels: list[int]) -> list[dict]:
    found = []
    for label in labels:
        file = io.BytesIO()
        Image.new("RGB", (12, 10), COLOURS[label % 3]).save(file, "PNG")
        found.append({"bytes": file.getvalue(), "path": None})
    return found


@NEEDS
def test_datasets_of_the_hub_are_fetched_once_and_read_as_folders_are(tmp_path):
    from datasets import ClassLabel, Features, Value
    from datasets import Image as ImageColumn

    names = ClassLabel(names=["red", "green", "blue"])
    plain = Features({"picture": ImageColumn(), "colour": names})
    fine = Features({"img": ImageColumn(), "fine": names, "coarse": ClassLabel(names=["warm", "cold"])})
    words = Features({"image": ImageColumn(), "size": Value("int64"), "label": Value("string")})
    ten = [0, 1, 2] * 3 + [-1]

    def one(labels):
        return parquet({"picture": pictures(labels), "colour": labels}, plain)

    both = {"img": pictures([2, 0, 1]), "fine": [2, 0, 1], "coarse": [1, 0, 1]}
    hub = DatasetsHub({
        "ann/drawn": {"data/train-00000-of-00001.parquet": one(ten)},
        "ann/split": {
            "data/train-00000-of-00001.parquet": one([0, 1, 2, 2]), "data/test-00000-of-00001.parquet": one([-1, -1]),
            "data/validation-00000-of-00001.parquet": one([2, 1]),
        },
        "ann/fine": {f"data/{part}-00000-of-00001.parquet": parquet(both, fine) for part in ("train", "test")},
        "ann/words": {"train.parquet": parquet(
            {"image": pictures([1, 0, 1, 0]), "size": [1, 2, 3, 4], "label": ["g", "r", "g", "r"]}, words)},
        "ann/said": {"README.md": README, "data/train-00000-of-00001.parquet": one([0, 1, 2, 2, 1, 0]),
                     "data/test-00000-of-00001.parquet": one([1, 0, 2])},
        "ann/code": {"code.py": b"raise SystemExit('run')"},
        "ann/gated": {"data/train-00000-of-00001.parquet": one(ten)},
    }, gated=("ann/gated",))  # fmt: skip
    asked = [
        "hf:ann/drawn", "hf:ann/split", "hf:ann/fine", "hf:ann/fine?label=coarse", "hf:ann/words", "hf:ann/code",
        "hf:ann/gated", "hf:ann/said", "hf:ann/none", "hf:ann/drawn@gone", "hf:ann/drawn?train=extra",
    ]  # fmt: skip
    try:
        drawn, split, which, coarse, by_words, code, gated, said, missing, revision, no_split = ask(
            hub.address, tmp_path, asked
        )
    finally:
        hub.close()

    assert drawn["name"] == f"hf:ann/drawn@{COMMIT}", "a run says what it was trained on"
    assert drawn["fingerprint"] == COMMIT[:16]
    assert drawn["classes"] == ["red", "green", "blue"], "the order of the labels, not of the names"
    assert (drawn["counts"], drawn["drawn"]) == ([6, 3, 3], True)
    assert [COLOURS[k] for k in drawn["labels"]] == [tuple(map(int, colour)) for colour in drawn["colours"]]
    assert any("1 image without a class" in note for note in drawn["notes"])
    assert drawn["streamed"] == "FileImages"
    assert drawn["file"].startswith("train/")
    assert (split["counts"], sorted(split["test"]), split["drawn"]) == ([4, 2, 3], [1, 2], False)
    assert any("'test', whose first images have no class" in note for note in split["notes"])
    assert "fine, coarse" in which["error"]
    assert "?label=fine" in which["error"]
    assert coarse["classes"] == ["warm", "cold"]
    assert by_words["classes"] == ["g", "r"]
    assert said["before"] == {"counts": [6, 3, 3], "at_hand": False, "classes": ["red", "green", "blue"]}
    assert (said["counts"], sorted(said["test"])) == ([6, 3, 3], [0, 1, 2])
    assert "code that would run" in code["error"]
    assert "accepted its terms" in gated["error"]
    assert "no dataset 'ann/none'" in missing["error"]
    assert "no revision 'gone'" in revision["error"]
    assert "Say which of train, as hf:ann/drawn?train=train" in no_split["error"]

    # the Hub is away now
    again, commit, never = ask(hub.address, tmp_path, ["hf:ann/drawn", drawn["name"], "hf:ann/other"])
    assert again == commit == drawn, "whose images had to be fetched to know how many there are"
    assert "cannot be reached" in never["error"]


def test_names_are_checked_without_the_hub(refuses, monkeypatch):
    name = "hf:ann/pets@v1?train=all&label=race"
    assert make_config(dataset=name).dataset == "hf:ann/pets@v1?label=race&train=all"
    assert data.title_of(name) == "ann/pets"
    assert not data.for_guests(name)
    assert not data.source_of(name).at_hand(name)
    refuses(lambda: make_config(dataset="hf:a/b/c"), "hf:ORG/NAME")
    refuses(lambda: make_config(dataset="hf:../../etc"), "hf:ORG/NAME")
    refuses(lambda: make_config(dataset="hf:ann/pets?colour=red"), "colour", "label")
    monkeypatch.setattr(hub_rows, "find_spec", lambda _: None)
    refuses(lambda: data.prepare("hf:ann/pets"), "pip install 'iekd[hub-data]'", kind=DataError)


def test_a_copy_that_was_cut_off_is_a_sentence(tmp_path, monkeypatch, refuses):
    monkeypatch.setenv("IEKD_CACHE_DIR", str(tmp_path))
    name = f"hf:ann/pets@{COMMIT}"
    folder = data.source_of(name).root_of(name)
    folder.mkdir(parents=True)
    (folder / "dataset.json").write_text(json.dumps({"class_names": ["a"]}))
    refuses(lambda: data.load(name), "not complete", folder, kind=DataError)
