"""The page without a browser: it is built lightly, it refuses what is wrong in words, and programs can use it."""

from __future__ import annotations

import gc
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from ui_helpers import CLIENT, QUICK, ROOT, serving, wait_until

from iekd import data
from iekd.config.presets import PRESETS
from iekd.config.run import GROUPS, RunConfig, make_config
from iekd.data import registry
from iekd.errors import DataError, RunError, UserError
from iekd.runs.prepare import prepare
from iekd.ui.api.methods import ENDPOINTS
from iekd.ui.rights.access import Access
from iekd.ui.tabs import form

DEFAULTS = form.to_values(RunConfig())


def test_building_the_page_does_not_import_torch(tmp_path: Path) -> None:
    code = (
        f"import sys; from iekd.ui.app import build_app; build_app({str(tmp_path)!r}); "
        "print([m for m in ('torch', 'torchvision') if m in sys.modules])"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True)
    assert done.stdout.strip() == "[]"


def test_the_page_never_names_the_engine() -> None:
    for file in (ROOT / "iekd" / "ui").glob("*.py"):
        assert "iekd.engine" not in file.read_text(), file


def test_the_form_as_it_opens_is_the_default_run() -> None:
    assert form.to_config(DEFAULTS) == RunConfig()
    advanced = {name for names in GROUPS.values() for name in names}
    shown = advanced | {"dataset", "teacher", "student", "methods", "epochs", "seeds"}
    assert shown == set(RunConfig.model_fields)


def test_the_form_can_say_any_configuration(pictures: Path) -> None:
    config = RunConfig(
        dataset=f"folder:{pictures}",
        methods=("kd", "ft"),
        seeds=(3, 1),
        limit_train=500,
        resolution=24,
        lr=0.05,
        name="mine",
    )
    assert form.to_config(form.to_values(config)) == config


@pytest.mark.parametrize(
    "values",
    [
        {"methods": ("baseline", "ft", "ft+kd", "ie-dml", "ie-dml+kd"), "peer": "resnet14"},
        {"methods": ("ie-ft+kd",), "inheritance_weight": 0.5, "exploration_weight": 0.0},
        {"milestones": (0.25, 0.5, 0.9), "schedule": "multi-step", "nesterov": False, "validation_fraction": 0.0},
        {"inheritance_share": 1.0, "channel_split": "random", "distance": "cosine", "ie_stages": "all"},
        {"auto_encoder": False, "weight_schedule": "decay", "dkd_other_weight": 8.0},
        {"augmentation": "resized-crop", "cutout": 8, "image_memory": 0.5},
    ],
    ids=str,
)
def test_the_form_can_say_every_method_and_option(values: dict[str, Any]) -> None:
    config = RunConfig(**values)
    assert form.to_config(form.to_values(config)) == config


class Shelf(data.Source):
    """A source like that of a plugin: `shelf:NAME`."""

    name, usage, note = "shelf:", "shelf:NAME", "pictures from a shelf"

    def describe(self, name: str, test_fraction: float) -> data.DatasetInfo:
        return data.DatasetInfo(name, name, 20, 10, 2, 1, 16)

    def load(self, request: data.Request) -> data.Dataset:
        raise DataError("The shelf is empty. Fill it.")

    def own_path(self, name: str) -> Path:
        return Path("/shelves") / name.removeprefix(self.name)


@pytest.fixture
def shelf(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "_SOURCES", {**registry._SOURCES, Shelf.name: Shelf()})


@pytest.mark.usefixtures("shelf")
def test_the_form_can_say_a_plugins_dataset() -> None:
    config = RunConfig(dataset="shelf:birds")
    values = form.to_values(config)
    assert (values["dataset"], values["folder"]) == (form.OWN_IMAGES, "shelf:birds")
    assert form.to_config(values) == config
    assert "Or shelf:NAME: pictures from a shelf." in form.folder_help()
    assert form.own_dataset("/home/me/a:b") == "folder:/home/me/a:b"
    assert form.own_dataset("folder:/home/me/a") == "folder:/home/me/a"


def test_a_preset_gives_every_field_of_all_presets_so_none_is_left_over() -> None:
    fields = set(form.PRESET_FIELDS)
    assert form.preset_values("quick") == {name: DEFAULTS[name] for name in fields}, "what the form opens with"
    found = [form.preset_values(name) for name in PRESETS]
    assert all(values.keys() == fields for values in found)
    assert len({str(sorted(values.items(), key=str)) for values in found}) == len(PRESETS)


def test_help_says_names_as_they_are_written() -> None:
    assert form.help_text("auto_encoder").startswith("ft, ie-ft")
    assert form.help_text("compile").startswith("torch.compile")
    assert form.help_text("lr").startswith("Peak")


def test_methods_are_in_one_order_whatever_was_ticked_first() -> None:
    config = form.to_config({**DEFAULTS, "methods": ["ie-ft", "baseline"], "with_kd": ["ie-ft+kd", "at+kd"]})
    assert config.methods == ("baseline", "at+kd", "ie-ft", "ie-ft+kd")
    assert form.to_config({**DEFAULTS, "methods": [], "with_kd": ["at+kd"]}).methods == ("at+kd",)


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_fills_in_what_it_fixes_and_undoes_the_others(name: str) -> None:
    other = {**DEFAULTS, **form.preset_values("crd"), "dataset": "cifar100", "seeds": "0, 1", "temperature": 3}
    config = form.to_config({**other, **form.preset_values(name)})
    assert config == make_config(preset=name, dataset="cifar100", seeds=(0, 1), temperature=3)


@pytest.mark.parametrize(
    "values",
    [
        {"teacher_from": "train"},
        {"teacher_from": "run:20260101-120000-abcd/ie-ft-seed0"},
        {"teacher_from": "FILE"},
        {"teacher_from": "pretrained", "student_from": "run:20260101-120000-abcd", "teacher_lr": 0.01},
        {"teacher_from": "FILE", "teacher_mean": (0.4914, 0.4822, 1 / 3), "teacher_std": (0.2, 0.2, 0.2)},
        {"teacher_from": "FILE", "teacher_mean": (0.0,), "teacher_std": (1.0,)},
    ],
    ids=str,
)
def test_the_form_can_say_where_the_teacher_comes_from(tmp_path: Path, values: dict[str, Any]) -> None:
    (tmp_path / "resnet 20.th").write_text("")
    source = values["teacher_from"].replace("FILE", str(tmp_path / "resnet 20.th"))
    config = RunConfig(**{**values, "teacher_from": source})
    shown = form.to_values(config)
    assert all(isinstance(shown[field], str) for field in ("teacher_from", "student_from", "teacher_mean"))
    assert form.to_config(shown) == config


def test_the_forecast_says_where_the_networks_come_from(tmp_path: Path, pictures: Path) -> None:
    from safetensors.torch import save_file

    from iekd.data import describe
    from iekd.models.registry import build
    from iekd.runs.store import Store
    from iekd.ui.tabs.forecast import forecast_html

    classes = describe(f"folder:{pictures}").classes
    for name, count in (("<b>.th", classes), ("<i>.th", classes + 1)):
        save_file(build("resnet8", count).state_dict(), tmp_path / name)
    values = {**QUICK, "dataset": f"folder:{pictures}"}

    def forecast(**source: str) -> str:
        return forecast_html(prepare(RunConfig(**values, **source), tmp_path), Store(tmp_path))

    card = forecast(teacher_from=str(tmp_path / "<b>.th"))
    assert "comes from the file &lt;b&gt;.th" in card
    assert "will be trained first" in forecast(teacher_from="train")
    card = forecast(teacher_from=str(tmp_path / "<i>.th"), student_from=str(tmp_path / "<b>.th"))
    assert (
        "the file &lt;i&gt;.th will be fine-tuned on these classes first (2 epochs), then kept for later runs" in card
    )
    assert "<dt>Students start from</dt><dd>file &lt;b&gt;.th</dd>" in card
    with pytest.raises(RunError, match="no run 'nothing'"):
        forecast(teacher_from="run:nothing")


def test_the_forecast_counts_what_the_run_will_hold_out(tmp_path: Path) -> None:
    """Of classes of different size the parts are rounded one by one."""
    from iekd import data
    from iekd.runs.store import Store
    from iekd.ui.tabs.forecast import forecast_html

    for name, count in (("a", 24), ("b", 24), ("c", 5), ("d", 14)):
        (tmp_path / "mine" / name).mkdir(parents=True)
        for i in range(count):
            Image.new("L", (8, 8), i).save(tmp_path / "mine" / name / f"{i}.png")
    for values in ({}, {"validation_fraction": 0.3}, {"limit_train": 8}, {"test_fraction": 0.4}):
        config = RunConfig(**{**QUICK, "dataset": f"folder:{tmp_path / 'mine'}", **values})
        loaded = (
            data.load(config.dataset, resolution=8, test_fraction=config.test_fraction)
            .limited(config.limit_train).held_out(config.validation_fraction)
        )  # fmt: skip
        card = forecast_html(prepare(config, tmp_path / "runs"), Store(tmp_path / "runs"))
        choosing = f"{len(loaded.validation)} to watch" if loaded.validation else f"from, {len(loaded.test)} to test"
        assert f"Folder &#x27;mine&#x27;: {len(loaded.train)} to learn from" in card
        assert choosing in card
        assert f"{len(loaded.test)} to test on (drawn by chance), 4 classes" in card


def test_the_forecast_warns_where_memory_is_short(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from iekd.runs import estimate
    from iekd.runs.store import Store
    from iekd.ui.tabs.forecast import forecast_html

    config = RunConfig(batch_size=4096, device="cpu")
    monkeypatch.setattr(estimate, "free_memory", lambda: 4e9)
    card = forecast_html(prepare(config, tmp_path), Store(tmp_path))
    assert "4.0 GB are free" in card
    assert "Batch size" in card
    monkeypatch.setattr(estimate, "free_memory", lambda: 400e9)
    assert "are free" not in forecast_html(prepare(config, tmp_path), Store(tmp_path))


def test_a_run_that_waits_for_another_folder_says_so_on_its_page(tmp_path: Path) -> None:
    from iekd.runs.status import Status
    from iekd.runs.store import Store
    from iekd.ui.render.run import waiting_for

    store = Store(tmp_path)
    run, handle = store.create(RunConfig(**QUICK))
    assert handle is not None
    run.write_status(Status(waiting="Waiting for the GPU, which run <b> uses."))
    assert waiting_for(run, store) == "Waiting for the GPU, which run &lt;b&gt; uses."
    os.close(handle)


def test_the_forecast_names_settings_without_effect(tmp_path: Path) -> None:
    from iekd.runs.store import Store
    from iekd.ui.tabs.forecast import forecast_html

    def forecast(config: RunConfig) -> str:
        return forecast_html(prepare(config, tmp_path), Store(tmp_path))

    card = forecast(RunConfig(temperature=2, kd_weight=0.5, dist_weight=7))
    assert "<b>Temperature</b> (only for kd, dkd, dist and forms with +kd)" in card
    assert "<b>DIST weight</b> (only for dist)" in card
    assert "No effect" not in forecast(RunConfig(methods=("kd", "dist"), temperature=2))


def test_a_run_whose_teachers_file_has_gone_is_still_shown(tmp_path: Path, pictures: Path) -> None:
    from iekd.runs.store import Store
    from iekd.ui.render.curves import read_curves, teacher_accuracy

    (tmp_path / "m.th").write_text("")
    config = RunConfig(**QUICK, dataset=f"folder:{pictures}", teacher_from=str(tmp_path / "m.th"))
    run, handle = Store(tmp_path / "runs").create(config)
    assert handle is not None
    os.close(handle)
    assert teacher_accuracy(run, run.config, read_curves(run)) is None
    (tmp_path / "m.th").unlink()
    assert teacher_accuracy(run, run.config, read_curves(run)) is None


def test_the_hub_is_not_asked_in_order_to_draw_a_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from iekd.models import hub_configs
    from iekd.runs.store import Store
    from iekd.ui.render.curves import read_curves, teacher_accuracy

    monkeypatch.setattr(hub_configs, "download", lambda *_: pytest.fail("the Hub was asked"))
    run, handle = Store(tmp_path).create(RunConfig(**QUICK, teacher_from=f"hf:ann/gone@{'0' * 40}"))
    assert handle is not None
    os.close(handle)
    assert teacher_accuracy(run, run.config, read_curves(run)) is None


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"teacher_from": "/nowhere.pth"}, "no file '/nowhere.pth'"),
        ({"teacher_from": " "}, "Teacher comes from is empty"),
        ({"teacher_from": "train", "teacher_mean": "0.5", "teacher_std": "0.5"}, "teacher's file only"),
        ({"teacher_mean": "0.5"}, "Teacher std is missing"),
        ({"teacher_mean": "red", "teacher_std": "1"}, "Teacher mean 'red'"),
        ({"epochs": 0}, "Epochs '0'"),
        ({"epochs": 2.5}, "Epochs '2.5'"),
        ({"epochs": None}, "Epochs is empty"),
        ({"lr": -1}, "Learning rate '-1'"),
        ({"batch_size": -4}, "Batch size '-4'"),
        ({"seeds": "one"}, "Seeds 'one'"),
        ({"seeds": ""}, "Seeds is empty"),
        ({"seeds": "1, 1"}, "named twice"),
        ({"methods": []}, "No method"),
        ({"teacher": "none"}, "needs a teacher"),
        ({"limit_train": "many"}, "Limit training images 'many'"),
        ({"dataset": form.OWN_IMAGES, "folder": ""}, "Fill the cards"),
        ({"dataset": form.OWN_IMAGES, "folder": "/nowhere/at/all"}, "/nowhere/at/all"),
    ],
)
def test_what_is_wrong_is_said_in_one_sentence(change: dict[str, Any], said: str, tmp_path: Path) -> None:
    with pytest.raises(UserError) as error:
        prepare(form.to_config({**DEFAULTS, **change}), tmp_path)
    assert said in str(error.value)
    assert "\n" not in str(error.value)


def test_a_runs_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    from iekd.ui.server.launch import check_writable

    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match="cannot be written"):
        check_writable(tmp_path / "file" / "runs")
    done = subprocess.run(
        [sys.executable, str(ROOT / "app.py"), "--runs-dir", str(tmp_path / "file")],
        capture_output=True,
        text=True,
        cwd=ROOT,
        check=False,
    )
    assert done.returncode == 2
    assert done.stderr.startswith("Error: The runs folder")
    assert "Traceback" not in done.stderr


def test_a_busy_port_is_stepped_over() -> None:
    from iekd.ui.server.launch import free_port

    with socket.socket() as busy:
        busy.bind(("127.0.0.1", 0))
        busy.listen()
        port = busy.getsockname()[1]
        assert port < free_port("127.0.0.1", port) < port + 50


def test_a_port_that_another_program_takes_first_is_no_trouble(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Gradio binds it some time after it was found free."""
    from iekd.ui.server import launch

    asked: list[int] = []
    with socket.socket() as quicker:

        class Page:
            def launch(self, server_port: int, **_: Any) -> None:
                asked.append(server_port)
                if len(asked) == 1:
                    quicker.bind(("127.0.0.1", server_port))
                    quicker.listen()
                    raise OSError("Cannot find empty port")

            def queue(self, **_: Any) -> None: ...
            def block_thread(self) -> None: ...

        monkeypatch.setattr(launch, "build_app", lambda *_: Page())
        for name in ("patch_process", "patch_page", "_keep_order", "_log_to_stderr"):
            monkeypatch.setattr(launch, name, lambda *_: None)
        monkeypatch.setattr(launch.signal, "signal", lambda *_: None)
        gc.disable()  # as app.py does
        launch.launch(port=0, where=tmp_path)
        assert gc.isenabled()
    first, second = asked
    assert second != first


def test_a_runs_table_escapes_names_and_survives_a_broken_folder(tmp_path: Path) -> None:
    from iekd.runs.store import Store
    from iekd.ui.render.template import render
    from iekd.ui.tabs.runs import table_html

    store = Store(tmp_path)
    assert table_html(store, Access().of(None)) == render("no_runs")
    _, handle = store.create(RunConfig(name="<img src=x onerror=alert(1)>"))
    assert handle is not None
    os.close(handle)
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "config.json").write_text("{")
    table = table_html(store, Access().of(None))
    assert "<img" not in table
    assert "cannot be read" in table
    assert "Lost" in table


@pytest.mark.parametrize(("seeds", "said"), [((0,), None), ((1,), ", seed 1"), ((0, 1), ", 2 seeds")])
def test_runs_that_differ_in_their_seed_alone_can_be_told_apart(tmp_path: Path, seeds: Any, said: str | None) -> None:
    from iekd.runs.store import Store
    from iekd.ui.tabs.runs import table_html

    _, handle = Store(tmp_path).create(RunConfig(seeds=seeds))
    assert handle is not None
    os.close(handle)
    table = table_html(Store(tmp_path), Access().of(None))
    assert "seed" not in table if said is None else f"10 epochs{said}</small>" in table


@pytest.fixture(scope="module")
def client(server: str) -> Any:
    from gradio_client import Client

    return Client(server, verbose=False)


def test_only_the_named_endpoints_are_public(client: Any) -> None:
    named = client.view_api(return_format="dict")["named_endpoints"]
    assert set(named) == {f"/{name}" for name in ENDPOINTS}


def test_a_program_starts_watches_and_stops_a_run(client: Any, pictures: Path) -> None:
    config = {**QUICK, "dataset": f"folder:{pictures}", "epochs": 5000, "methods": ["baseline"], "teacher": "none"}
    first = client.predict(config, "one key", api_name="/start")
    assert client.predict(config, "one key", api_name="/start") == first
    assert [r["run"] for r in client.predict(api_name="/list_runs")].count(first) == 1
    wait_until(lambda: client.predict(first, api_name="/run_status")["accuracies"])
    client.predict(first, api_name="/stop_run")
    over = wait_until(lambda: (s := client.predict(first, api_name="/run_status"))["state"] == "stopped" and s)
    assert 0 <= over["accuracies"]["baseline-seed0"] <= 100


def test_a_program_compares_and_a_broken_image_harms_no_other(
    client: Any, finished_run: str, pictures: Path, tmp_path: Path
) -> None:
    from gradio_client import handle_file

    broken = tmp_path / "broken.png"
    broken.write_bytes(b"no picture")
    good = pictures / "test" / "disc" / "0.png"
    answer = client.predict(finished_run, [handle_file(str(broken)), handle_file(str(good))], api_name="/compare")
    bad, fine = answer["images"]
    assert [bad["name"], fine["name"]] == ["broken.png", "0.png"]
    assert bad["predictions"] == {}
    assert "'broken.png'" in bad["error"]
    assert set(fine["predictions"]) == {"teacher", "baseline", "ie-ft"}
    for said in fine["predictions"].values():
        assert {row["label"] for row in said} == {"cross", "disc", "stripes"}
        assert sum(row["score"] for row in said) == pytest.approx(1, abs=1e-4)


def test_a_program_gets_the_comparison_as_csv(client: Any, finished_run: str, pictures: Path, tmp_path: Path) -> None:
    """The same numbers as `compare`, a group of columns for each network."""
    import csv
    import io

    from gradio_client import handle_file

    broken = tmp_path / "=broken.png"
    broken.write_bytes(b"no picture")
    files = [handle_file(str(broken)), handle_file(str(pictures / "test" / "disc" / "0.png"))]
    _, expected = client.predict(finished_run, files, api_name="/compare")["images"]
    bad, fine = csv.DictReader(io.StringIO(client.predict(finished_run, files, api_name="/compare_csv")))
    assert bad["image"].lstrip("'=") == "broken.png"
    assert "broken.png" in bad["error"]
    assert set(bad.values()) == {bad["image"], bad["error"], ""}
    assert fine["image"] == "0.png"
    for network, said in expected["predictions"].items():
        assert fine[f"{network} prediction"] == said[0]["label"]
        for i, row in enumerate(said, 1):
            assert fine[f"{network} label_{i}"] == row["label"]
            assert float(fine[f"{network} score_{i}"]) == pytest.approx(row["score"], abs=1e-6)
    view = client.view_api(return_format="dict")["named_endpoints"]["/compare_csv"]
    assert [value["type"]["type"] for value in view["returns"]] == ["string"]
    assert [value["parameter_name"] for value in view["parameters"]] == [
        "run_id", "images", "models", "model_files",
    ]  # fmt: skip


def test_the_comparison_as_csv_has_the_cells_that_predict_writes(
    finished_run: str, runs_dir: Path, pictures: Path, tmp_path: Path
) -> None:
    import csv
    import io

    from typer.testing import CliRunner

    from iekd.cli.main import app
    from iekd.runs.store import Store
    from iekd.ui.tabs.compare import compare_files_csv

    (tmp_path / "broken.png").write_bytes(b"no picture")
    files = [str(pictures / "test" / "disc" / "0.png"), str(pictures / "test" / "cross" / "1.png")]
    files.append(str(tmp_path / "broken.png"))
    words = ["predict", f"{finished_run}/teacher", *files, "--csv", str(tmp_path / "out.csv")]
    CliRunner().invoke(app, [*words, "--top", "3", "--runs-dir", str(runs_dir)])
    with open(tmp_path / "out.csv", newline="") as written:
        expected = list(csv.DictReader(written))
    compared = list(csv.DictReader(io.StringIO(compare_files_csv(Store(runs_dir), finished_run, files))))
    for row, line, file in zip(expected, compared, files, strict=True):
        for column, cell in row.items():
            shown = line[column if column in line else f"teacher {column}"]
            assert shown.replace(Path(file).name, "") == cell.replace(file, ""), column


@pytest.mark.parametrize(
    ("endpoint", "arguments", "said"),
    [
        ("/run_status", ["20200101-nothing"], "There is no run '20200101-nothing'"),
        ("/run_status", ["../secret"], "There is no run"),
        ("/stop_run", ["nothing"], "There is no run 'nothing'"),
        ("/compare", ["nothing", []], "No image"),
        ("/compare_csv", ["nothing", []], "No image"),
        ("/start", [{"epochs": 0}, ""], "Epochs '0'"),
        ("/start", [{"student": "resnet9"}, ""], "Unknown model 'resnet9'"),
        ("/start", [{"teacher_from": "run:nothing"}, ""], "There is no run 'nothing'"),
        ("/start", [{"teacher_from": "nowhere.pth"}, ""], "There is no file 'nowhere.pth'"),
        ("/start", [{"epoch": 3}, ""], "Did you mean 'epochs'?"),
    ],
)
def test_programs_are_told_what_is_wrong(client: Any, endpoint: str, arguments: list[Any], said: str) -> None:
    with pytest.raises(Exception, match=r".+") as error:  # gradio_client has its own kinds
        client.predict(*arguments, api_name=endpoint)
    assert said in str(error.value)
    assert "Traceback" not in str(error.value)


def test_the_runs_folder_is_not_served(server: str, finished_run: str, runs_dir: Path) -> None:

    answer = CLIENT.get(f"{server}/gradio_api/file={runs_dir / finished_run / 'config.json'}")
    assert answer.status_code in (403, 404)


def test_a_second_page_takes_the_next_port(server: str, tmp_path: Path) -> None:
    port = server.rpartition(":")[2]
    with serving(tmp_path, "--port", port) as other:
        assert int(port) < int(other.rpartition(":")[2])


def test_grey_example_pictures_are_answered(finished_run: str, runs_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import numpy as np

    from iekd.runs.store import Store
    from iekd.ui.tabs import compare

    grey = np.full((16, 16, 1), 30, np.uint8)
    monkeypatch.setattr(compare, "_examples_of", lambda *_: [("data:,", grey, "disc")])
    html = compare.results_html(Store(runs_dir), finished_run, [], None, [0])
    assert html.count('<div class="said') == 3
    assert "problem" not in html
