"""Predictions for any number of images: every one is answered once, in order, whatever stands between them."""

from __future__ import annotations

import io
import os
import re
import sys
import tarfile
import zipfile
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import iekd
from iekd.data.decoding import to_array
from iekd.inference.classifier import Described, OpenedModel, Scores, open_classifier
from iekd.inference.images import FoundImage, find_images
from iekd.inference.predict_files import predict, predict_found
from iekd.models.artifact import ModelCard

SIDE = 8


class Brightness(OpenedModel):
    """Says "light" with the mean of the pixels (0..1) as its probability; unlike are images with a black pixel."""

    def __init__(self, **values):
        card = {
            "model": "none", "datasets": (), "class_names": ("dark", "light"), "channels": 1, "resolution": SIDE,
            "mean": (0.0,), "std": (1.0,), "accuracy": None, "params": 0, "energy_threshold": 0.5, **values,
        }  # fmt: skip
        self.card, self.size, self.batch_size, self.device, self.asked = ModelCard(**card), 0, 4, "cpu", []

    def scores(self, images):
        self.asked.append(len(images))
        assert images.dtype == np.uint8
        assert images.shape[1:] == (SIDE, SIDE, self.card.channels)
        light = images.mean((1, 2, 3), dtype=np.float64).astype(np.float32) / 255
        return Scores(np.stack([1 - light, light], 1), images.min((1, 2, 3)).astype(np.float32))


def png(value, side=SIDE, mode="L") -> bytes:
    file = io.BytesIO()
    Image.new("L", (side, side), value).convert(mode).save(file, "PNG")
    return file.getvalue()


def write(path: Path, value=100, **options) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(png(value, **options))
    return path


def light(row) -> int:
    """The value of the pixels that a prediction was made for."""
    return round(255 * dict(row.top)["light"])


def test_every_image_is_answered_in_order(tmp_path):
    for i in range(23):
        write(tmp_path / f"{i:02d}.png", 10 + i)
    model = Brightness()
    rows = list(predict(model, tmp_path))
    assert [row.name for row in rows] == [str(tmp_path / f"{i:02d}.png") for i in range(23)]
    assert [light(row) for row in rows] == list(range(10, 33))
    assert model.asked == [4, 4, 4, 4, 4, 3]
    model.asked.clear()
    list(predict(model, tmp_path, batch=10))
    assert model.asked == [10, 10, 3]


def test_a_broken_image_keeps_its_place(tmp_path):
    """Wherever it stands in its batch, also if a whole batch is broken."""
    for broken in ({0}, {3}, {4}, {0, 1, 2, 3}, {4, 5, 6, 7}, set(range(10))):
        for i in range(10):
            path = write(tmp_path / f"{i}.png", 10 + i)
            if i in broken:
                path.write_bytes(path.read_bytes()[:40])
        rows = list(predict(Brightness(), tmp_path))
        assert [i for i, row in enumerate(rows) if row.error] == sorted(broken)
        for i, row in enumerate(rows):
            if i in broken:
                assert (row.top, row.label, row.unlike) == ((), "", None)
                assert f"{i}.png'" in row.error
            else:
                assert light(row) == 10 + i


class Held(bytes):
    """The content of an image, counted as long as somebody holds it."""

    now = most = 0

    def __init__(self, *_):
        Held.now += 1
        Held.most = max(Held.most, Held.now)

    def __del__(self):
        Held.now -= 1


def test_memory_does_not_grow_with_the_number_of_images():
    """Of 2,000 images a few batches are named and read at any time, and none before it is asked for."""
    named = read = 0

    def source():
        nonlocal read
        read += 1
        return Held(png(50))

    def images():
        nonlocal named
        for named in range(1, 2001):
            yield FoundImage(f"{named}", source)

    rows = predict_found(Brightness(), images(), batch=5)
    assert (named, read) == (0, 0)
    for i, _ in enumerate(rows):
        assert read <= named <= i + 3 * 5
    assert (i, named, read) == (1999, 2000, 2000)
    assert Held.most <= 3 * 5


def test_large_images_in_an_archive_wait_in_smaller_batches(monkeypatch):
    monkeypatch.setattr("iekd.inference.predict_files.ENCODED", 100)
    model = Brightness()
    list(predict_found(model, (FoundImage(f"{i}", lambda: png(50)) for i in range(9)), batch=100))
    assert max(model.asked) <= 2


def test_whoever_stops_asking_stops_the_reading(tmp_path):
    read = []
    images = (FoundImage(f"{i}", lambda i=i: read.append(i) or png(1)) for i in range(1000))
    rows = predict_found(Brightness(), images)
    next(rows)
    rows.close()
    assert len(read) < 20


def test_an_image_is_seen_as_in_training(tmp_path):
    """Its fit, its channels, and the white of its 12 bits."""
    wide = np.zeros((20, 40), np.uint16)
    wide[:, 10:30] = 4095
    Image.fromarray(wide).save(tmp_path / "wide.png")
    for values in ({"fit": "crop"}, {"fit": "pad"}, {"fit": "squash"}, {"white": 4095.0}, {"channels": 3}):
        model = Brightness(**values)
        (row,) = predict(model, tmp_path)
        card = model.card
        seen = to_array(tmp_path / "wide.png", SIDE, card.channels, "", card.fit, card.white)
        assert light(row) == round(seen.mean())
    assert light(next(predict(Brightness(white=4095.0), tmp_path))) > 240
    assert light(next(predict(Brightness(fit="squash", white=4095.0), tmp_path))) < 200


def test_backgrounds_are_matched_unless_told_otherwise(tmp_path):
    write(tmp_path / "a.png", 250)
    model = Brightness(background=0.02)
    (row,) = predict(model, tmp_path)
    assert (row.inverted, light(row)) == (True, 5)
    (row,) = predict(model, tmp_path, match_background=False)
    assert (row.inverted, light(row)) == (False, 250)


def test_a_label_below_the_threshold_is_left_out(tmp_path):
    for value in (26, 102, 153, 230):
        write(tmp_path / f"{value:03d}.png", value)
    rows = list(predict(Brightness(), tmp_path, threshold=0.8))
    assert [row.label for row in rows] == ["dark", "", "", "light"]
    assert [row.unsure for row in rows] == [False, True, True, False]
    assert [row.top[0][0] for row in rows] == ["dark", "dark", "light", "light"], "what it would be is still there"
    assert [len(row.top) for row in predict(Brightness(), tmp_path, top=1)] == [1] * 4


def test_images_unlike_the_training_images_are_marked(tmp_path):
    write(tmp_path / "a.png", 0)
    write(tmp_path / "b.png", 9)
    assert [row.unlike for row in predict(Brightness(), tmp_path)] == [True, False]
    assert [row.unlike for row in predict(Brightness(energy_threshold=None), tmp_path)] == [None, None]


@pytest.mark.parametrize("options", [{"top": 0}, {"threshold": 1.5}, {"threshold": -0.1}, {"batch": 0}], ids=str)
def test_options_out_of_range_are_refused_at_once(refuses, options):
    ((name, value),) = options.items()
    refuses(lambda: predict(Brightness(), [], **options), name.capitalize(), value)


def test_the_python_function_takes_names_and_paths(tmp_path, monkeypatch):
    shipped = Path(__file__).parents[2] / "checkpoints"
    monkeypatch.setenv("IEKD_CHECKPOINTS_DIR", str(shipped))
    write(tmp_path / "a.png")
    answers = [
        next(iekd.predict(model, paths))
        for model in ("fashion-mnist-resnet8-ie-ft", shipped / "fashion-mnist-resnet8-ie-ft")
        for paths in (tmp_path, str(tmp_path), [tmp_path / "a.png"])
    ]
    assert len({(row.top, row.unlike) for row in answers}) == 1
    assert len(answers[0].top) == 5
    with pytest.raises(ValueError, match="nothing"):
        iekd.predict("nothing", tmp_path)


def test_the_example_in_the_documentation_runs(tmp_path, monkeypatch, capsys):
    checkout = Path(__file__).parents[2]
    example = re.search(r"```python\n(import iekd\n.*?)```", (checkout / "docs" / "predict.md").read_text(), re.S)[1]
    monkeypatch.setenv("IEKD_CHECKPOINTS_DIR", str(checkout / "checkpoints"))
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "photos" / "a.png")
    write(tmp_path / "photos" / "b.png").write_bytes(b"x")
    exec(example, {})
    first, second = capsys.readouterr().out.splitlines()
    assert first.startswith("photos/a.png ")
    assert "photos/b.png" in second
    assert "not an image" in second


# ---- where images are found -----------------------------------------------------------------------------------------


def names(paths, others=None):
    return [found.name for found in find_images([str(p) for p in paths], others)]


def test_folders_are_walked_and_other_files_counted(tmp_path):
    for name in ("b.png", "a.jpg", "sub/c.PNG", "sub/deeper/d.webp", ".hidden/e.png", "__MACOSX/f.png"):
        write(tmp_path / name)
    (tmp_path / "sub" / "no-ending").write_bytes(png(1))
    for name in ("notes.txt", "sub/table.csv", "sub/more.csv", "x.pdf", "inner.zip", ".DS_Store", "Thumbs.db"):
        (tmp_path / name).write_bytes(b"x")
    others = Counter()
    expected = ["a.jpg", "b.png", "sub/c.PNG", "sub/no-ending", "sub/deeper/d.webp"]
    assert names([tmp_path], others) == [str(tmp_path / name) for name in expected]
    assert others == {".txt": 1, ".csv": 2, ".pdf": 1, ".zip": 1}


def test_a_pipe_in_a_folder_is_not_waited_for(tmp_path):
    write(tmp_path / "a.png")
    for name in ("b.png", "no-ending"):
        os.mkfifo(tmp_path / name)
    (tmp_path / "c.png").symlink_to(tmp_path / "nowhere")
    others = Counter()
    assert names([tmp_path], others) == [str(tmp_path / "a.png"), str(tmp_path / "c.png")]
    assert others == {"special": 2}


def test_links_do_not_lead_in_a_circle(tmp_path):
    write(tmp_path / "a" / "x.png")
    (tmp_path / "a" / "around").symlink_to(tmp_path)
    assert len(names([tmp_path])) < 5


def test_a_named_file_is_tried_whatever_its_ending(tmp_path):
    path = tmp_path / "picture.data"
    path.write_bytes(png(70))
    (row,) = predict(Brightness(), path)
    assert light(row) == 70


@pytest.mark.parametrize("name", ["a b.png", " a.png", "'a'.png", "犬.png", "=1+1.png", "a\nb.png"])
def test_any_name_is_found(tmp_path, name):
    write(tmp_path / name, 44)
    os.chdir(tmp_path)
    for path in (tmp_path, name, f"'{tmp_path / name}'"):
        (row,) = predict(Brightness(), path)
        assert light(row) == 44


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have no such names")
def test_a_name_that_is_no_text_is_found(tmp_path):
    path = os.fsencode(tmp_path) + b"/\xff.png"
    with open(path, "wb") as file:
        file.write(png(45))
    (row,) = predict(Brightness(), tmp_path)
    assert light(row) == 45


def test_what_is_not_there_is_an_error_in_its_place(tmp_path):
    write(tmp_path / "a.png")
    (tmp_path / "empty").mkdir()
    paths = [tmp_path / "none.png", tmp_path / "a.png", tmp_path / "empty"]
    missing, good, empty = predict(Brightness(), paths)
    assert "none.png" in missing.error
    assert not good.error
    assert "empty' has no images" in empty.error


def zipped(path, files, compression=zipfile.ZIP_DEFLATED):
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return path


def test_archives_are_read_without_unpacking(tmp_path):
    files = {"a.png": png(1), "in/b.png": png(2), "in/notes.txt": b"x", "in/.hidden.png": png(3), "in/c": png(4)}
    path = zipped(tmp_path / "many.zip", files)
    with tarfile.open(tmp_path / "many.tar.gz", "w:gz") as archive:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    for archive in (path, tmp_path / "many.tar.gz"):
        others = Counter()
        rows = list(predict_found(Brightness(), find_images([str(archive)], others), batch=2))
        assert [row.name for row in rows] == [f"{archive}/{name}" for name in ("a.png", "in/b.png", "in/c")]
        assert [light(row) for row in rows] == [1, 2, 4]
        assert others == {".txt": 1}
    assert sorted(p.name for p in tmp_path.iterdir()) == ["many.tar.gz", "many.zip"]
    assert not any(Path(os.environ["IEKD_CACHE_DIR"]).rglob("*.png"))


def test_a_damaged_image_in_a_zip_harms_no_other(tmp_path):
    path = zipped(tmp_path / "x.zip", {"a.png": png(1), "b.png": png(2), "c.png": png(3)}, zipfile.ZIP_STORED)
    content = bytearray(path.read_bytes())
    content[content.index(png(2)) + 40] ^= 0xFF
    path.write_bytes(content)
    rows = list(predict(Brightness(), path))
    assert [bool(row.error) for row in rows] == [False, True, False]
    assert "b.png" in rows[1].error


def test_bombs_and_hostile_archives_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("iekd.data.archives.RATIO_FROM", 100_000)
    bomb = zipped(tmp_path / "bomb.zip", {f"{i}.png": png(0) + bytes(400_000) for i in range(100)})
    assert bomb.stat().st_size < 120_000
    read = 0
    rows = []
    for row in predict(Brightness(), [bomb, write(tmp_path / "good.png")]):
        rows.append(row)
        read += not row.error
    assert read < 80
    assert "unpacks to more than" in rows[-2].error
    assert not rows[-1].error, "and the next path is still read"
    for name in ("../out.png", "/abs.png", "C:\\x.png"):
        (row,) = predict(Brightness(), zipped(tmp_path / "evil.zip", {name: png(1)}))
        assert "outside" in row.error
    monkeypatch.setattr("iekd.data.archives.LARGEST_IMAGE", 1000)
    big, small = predict(Brightness(), zipped(tmp_path / "big.zip", {"a.png": png(0) + bytes(2000), "b.png": png(7)}))
    assert "a.png" in big.error
    assert light(small) == 7


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 no zip", zipfile])
def test_what_is_no_archive_is_an_error(tmp_path, content):
    path = tmp_path / "x.zip"
    if content is zipfile:
        zipped(path, {"notes.txt": b"x"})
    else:
        path.write_bytes(content)
    (row,) = predict(Brightness(), path)
    assert "x.zip" in row.error


# ---- files of weights -----------------------------------------------------------------------------------------------


def test_a_file_of_weights_is_used_once_it_is_described(tmp_path, refuses):
    import torch

    from iekd.models.registry import build

    torch.manual_seed(0)
    model = build("resnet8", 3, 3).eval()
    torch.save(model.state_dict(), tmp_path / "x.pth")
    numbers = {"resolution": 16, "mean": (0.5,) * 3, "std": (0.25,) * 3}
    described = Described("resnet8", ("a", "b", "c"), **numbers)
    classifier = open_classifier(tmp_path / "x.pth", described=described)
    images = np.random.default_rng(0).integers(0, 256, (5, 16, 16, 3), dtype=np.uint8)
    with torch.no_grad():
        x = (torch.from_numpy(images).permute(0, 3, 1, 2) / 255 - 0.5) / 0.25
        expected = model(x).logits.softmax(1).numpy()
    np.testing.assert_allclose(classifier.probabilities(images), expected, atol=1e-5)
    assert classifier.unlike(classifier.scores(images)) == [None] * 5
    path = tmp_path / "x.pth"
    refuses(lambda: open_classifier(path), "--model", "--classes", "--resolution")
    refuses(lambda: open_classifier(path, described=Described("resnet8", ("a", "b"), **numbers)), "3", "2")
    without = Described("resnet8", ("a", "b", "c"), 16)
    refuses(lambda: open_classifier(path, described=without), "--mean", "--std")


def test_a_model_of_ours_is_not_described_otherwise(refuses):
    folder = Path(__file__).parents[2] / "checkpoints" / "fashion-mnist-resnet8-ie-ft"
    for described, option in (
        (Described("resnet20"), "--model"), (Described(class_names=("a",)), "--classes"),
        (Described(resolution=32), "--resolution"), (Described(fit="pad"), "--fit"),
    ):  # fmt: skip
        refuses(lambda d=described: open_classifier(folder, described=d), option, "Leave")
    assert open_classifier(folder, described=Described("resnet8")).card.model == "resnet8"
