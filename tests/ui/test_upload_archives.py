"""Archives of pictures over real HTTP: they become a dataset that can be trained on, or one sentence."""

from __future__ import annotations

import contextlib
import io
import json
import os
import time
import zipfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from ui_helpers import CLIENT, QUICK, TOKEN, animals, call, serving, wait_until

from iekd import data
from iekd.config.run import RunConfig
from iekd.data.archives import Room
from iekd.data.folder import UPLOADED
from iekd.errors import UserError
from iekd.runs.store import Store
from iekd.runs.uploads import WAITS, _size, add_pictures, is_added, unused
from iekd.ui.rights.access import Access, AccessError, Limits


@pytest.fixture
def shapes(pictures: Path) -> bytes:
    """The drawn pictures as a zip, with a folder around them."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for path in sorted(pictures.rglob("*.png")):
            archive.write(path, f"shapes/{path.relative_to(pictures)}")
    return file.getvalue()


@pytest.fixture(scope="module")
def public(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path, Path]]:
    """(address, runs folder, folder of uploads) of a public page on which visitors may train."""
    root, uploads = tmp_path_factory.mktemp("public"), tmp_path_factory.mktemp("uploads")
    with serving(root, "--public", IEKD_PUBLIC_TRAINING="1", GRADIO_TEMP_DIR=str(uploads)) as url:
        yield url, root, uploads


def send(url: str, name: str, content: bytes, *more: str, **headers: str) -> tuple[str, Any]:
    """What `add_pictures` says of a file."""
    sent = CLIENT.post(f"{url}/gradio_api/upload", files={"files": (name, content)}, headers=headers, timeout=60)
    assert sent.status_code == 200, sent.text
    file = {"path": sent.json()[0], "orig_name": name, "meta": {"_type": "gradio.FileData"}}
    return call(url, "add_pictures", file, *more, **headers)


def files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


def test_a_visitor_trains_on_pictures_of_their_own(public: tuple[str, Path, Path], shapes: bytes) -> None:
    url, root, _ = public
    kind, (name,) = send(url, "shapes.zip", shapes)
    assert kind == "complete"
    assert data.describe(name).classes == 3
    config = {**QUICK, "dataset": name, "methods": ["baseline"], "teacher": "none", "epochs": 1}
    kind, (run_id,) = call(url, "start", config, "")
    assert kind == "complete", run_id
    run = Store(root).get(run_id)
    wait_until(lambda: not run.status.live)
    assert run.status.state == "finished", run.status
    assert (root / run_id / "visitor").is_file()


def test_a_visitor_still_names_no_folder_of_the_machine(
    public: tuple[str, Path, Path], shapes: bytes, pictures: Path
) -> None:
    url, root, _ = public
    _, (name,) = send(url, "shapes.zip", shapes)
    own = Path(name.removeprefix("folder:"))
    for path in (pictures, root, own / "..", own.parent, own / "train", f"{own}/../../../etc", f"{own}x", "~"):
        kind, said = call(url, "start", {**QUICK, "dataset": f"folder:{path}"}, "")
        assert kind == "error", path
        assert "Folders of this machine" in json.dumps(said), path
    kind, said = call(url, "start", {**QUICK, "dataset": "folder:"}, "")
    assert (kind, "no folder ''" in json.dumps(said)) == ("error", True)


@pytest.mark.parametrize(
    ("name", "content"),
    [("evil.zip", "../evil.png"), ("noise.zip", None), ("page.tar", None), ("loose.zip", "a.png"), ("a.exe", None)],
)
def test_what_is_refused_leaves_nothing(public: tuple[str, Path, Path], name: str, content: str | None) -> None:
    url, root, uploads = public
    known = {p for p in files(uploads) if not p.stat().st_size}
    before = files(root)
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr(content or "x", b"x")
    kind, said = send(url, name, packed.getvalue() if content else b"<script>alert(1)</script>" * 100)
    assert kind == "error"
    assert name in json.dumps(said)
    assert "Traceback" not in json.dumps(said)
    assert [p for p in files(root) if p not in before] == []
    assert {p for p in files(uploads) if not p.stat().st_size} == known, "Gradio's empty files"


def test_whoever_sends_folders_in_folders_is_asked_which_are_the_classes(public: tuple[str, Path, Path]) -> None:
    packed = animals()
    kind, said = send(public[0], "animals.zip", packed)
    assert kind == "error"
    assert "send classes: 'outer' (the outer folders: 'cats', 'fish') or 'inner'" in json.dumps(said)
    kind, (name,) = send(public[0], "animals.zip", packed, "inner")
    assert (kind, data.describe(name).class_names) == ("complete", ("lion", "puma", "ray", "shark"))
    kind, said = send(public[0], "animals.zip", packed, "both")
    assert (kind, "'both' cannot be used" in json.dumps(said)) == ("error", True)


def test_two_who_upload_the_same_both_get_it(public: tuple[str, Path, Path], shapes: bytes) -> None:
    """Gradio keeps one file for both."""
    url, _, _ = public
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda _: send(url, "class.zip", shapes + bytes(2)), range(4)))
    assert [kind for kind, _ in answers] == ["complete"] * 4
    assert len({name for _, (name,) in answers}) == 1


def test_no_archive_is_a_sentence(public: tuple[str, Path, Path]) -> None:
    answer = CLIENT.post(f"{public[0]}/gradio_api/call/add_pictures", json={"data": [None]})
    assert answer.status_code == 400
    assert "needs 'archive': an uploaded zip" in answer.json()["error"]


def test_who_may_not_start_may_not_upload(guarded: str, runs_dir: Path, shapes: bytes) -> None:
    before = files(runs_dir / UPLOADED)
    kind, said = send(guarded, "shapes.zip", shapes)
    assert kind == "error"
    assert "token" in json.dumps(said)
    assert files(runs_dir / UPLOADED) == before
    kind, (name,) = send(guarded, "shapes.zip", shapes, **{"x-iekd-token": TOKEN})
    assert kind == "complete"
    assert is_added(Store(runs_dir), name)


# Rules, without a server


def test_a_visitors_archive_is_small(shapes: bytes, tmp_path: Path) -> None:
    store, visitor = Store(tmp_path), Access(public=True, training=True, limits=Limits(images=10))
    (tmp_path / "shapes.zip").write_bytes(shapes)
    with pytest.raises(UserError, match="more than 20 images"):
        add_pictures(store, tmp_path / "shapes.zip", *visitor.room_for(None))
    assert Access().room_for(None) == (Room(), None)
    with pytest.raises(AccessError, match="switched off"):
        Access(public=True).room_for(None)


def test_many_at_once_take_no_more_than_all_may(shapes: bytes, tmp_path: Path) -> None:
    store, got = Store(tmp_path), []
    archives = [tmp_path / f"{i}.zip" for i in range(6)]
    for i, path in enumerate(archives):
        path.write_bytes(shapes)
        with zipfile.ZipFile(path, "a") as archive:
            archive.writestr("note.txt", str(i))
    one = pictures_size(add_pictures(store, archives[0], Room()))
    assert one > 99 * 4096, "small files take blocks"

    def add(path: Path) -> None:
        with contextlib.suppress(UserError):
            got.append(add_pictures(store, path, Room(), total=3 * one))

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(add, archives))
    assert 2 <= len(set(got)) <= 3
    assert pictures_size(f"folder:{tmp_path / UPLOADED}") <= 4 * one


def pictures_size(name: str) -> int:
    return _size(Path(name.removeprefix("folder:")))


def test_what_is_uploaded_again_is_wanted_again(shapes: bytes, tmp_path: Path) -> None:
    store, path = Store(tmp_path), tmp_path / "shapes.zip"
    path.write_bytes(shapes)
    folder = Path(add_pictures(store, path, Room()).removeprefix("folder:"))
    os.utime(folder, (1, 1))
    assert unused(store) == [folder]
    add_pictures(store, path, Room())
    assert unused(store) == []
    broken, handle = store.create(RunConfig())
    assert handle is not None
    os.close(handle)
    values = json.loads((broken.path / "config.json").read_text())
    (broken.path / "config.json").write_text(json.dumps({**values, "dataset": {"a": 1}}))
    os.utime(folder, (1, 1))
    assert unused(store) == [folder]


def test_uploads_on_another_disk_are_known(shapes: bytes, tmp_path: Path) -> None:
    (tmp_path / "runs").mkdir()
    (tmp_path / "disk").mkdir()
    (tmp_path / "runs" / UPLOADED).symlink_to(tmp_path / "disk")
    (tmp_path / "shapes.zip").write_bytes(shapes)
    store = Store(tmp_path / "runs")
    assert is_added(store, add_pictures(store, tmp_path / "shapes.zip", Room()))


def test_pictures_that_no_run_names_make_room(shapes: bytes, tmp_path: Path) -> None:
    store = Store(tmp_path)
    kept, gone = (tmp_path / f"{name}.zip" for name in ("kept", "gone"))
    for n, path in enumerate((kept, gone)):
        path.write_bytes(shapes)
        with zipfile.ZipFile(path, "a") as archive:
            archive.writestr("note.txt", str(n))
    named = add_pictures(store, kept, Room())
    other = add_pictures(store, gone, Room())
    assert add_pictures(store, gone, Room()) == other
    _, handle = store.create(RunConfig(dataset=named))
    assert handle is not None
    os.close(handle)
    assert unused(store) == []
    long_ago = time.time() - WAITS - 10
    for name in (named, other):
        os.utime(name.removeprefix("folder:"), (long_ago, long_ago))
    assert unused(store) == [Path(other.removeprefix("folder:"))]
    with pytest.raises(UserError, match="no room"):
        add_pictures(store, kept, Room(), total=0)
    assert not Path(other.removeprefix("folder:")).exists()
    assert Path(named.removeprefix("folder:")).exists()
    assert add_pictures(store, kept, Room(), total=2**30) == named
