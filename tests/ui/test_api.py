"""The endpoints as programs see them: every one has names, types and words, and docs/api.md says what there is."""

from __future__ import annotations

import io
import os
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args, get_type_hints

import pytest
from PIL import Image
from ui_helpers import CLIENT, PATIENCE, QUICK, ROOT, TOKEN, call, serving, wait_until

from iekd.config.run import RunConfig, make_config
from iekd.errors import UserError
from iekd.runs import status as run_states
from iekd.ui.api.methods import ENDPOINTS
from iekd.ui.shared.answers import DatasetRow, Exported, RunStatus, State, schema_words, setting_rows
from iekd.ui.shared.endpoints import schema_of

PAGE = ROOT / "docs" / "api.md"
CHANGES = ("stop_run", "resume_run", "move_run_to_front", "delete_run")


@pytest.fixture(scope="module")
def info(server: str) -> dict[str, Any]:
    found: dict[str, Any] = CLIENT.get(f"{server}/gradio_api/info", timeout=PATIENCE).json()
    return found


def parts(schema: Any, place: str = "") -> Iterator[tuple[str, Any]]:
    """Every schema within a schema, with where it stands."""
    yield place, schema
    for name, part in schema.get("properties", {}).items():
        yield from parts(part, f"{place}.{name}")
    for key in ("items", "additionalProperties"):
        if isinstance(schema.get(key), dict):
            yield from parts(schema[key], f"{place}[{key}]")
    for part in schema.get("anyOf", []):
        yield from parts(part, f"{place}|")


def test_every_value_of_every_endpoint_has_a_name_a_type_and_words(info: dict[str, Any]) -> None:
    assert info["unnamed_endpoints"] == {}
    assert set(info["named_endpoints"]) == {f"/{name}" for name in ENDPOINTS}
    for name, said in info["named_endpoints"].items():
        assert said["description"].endswith("."), name
        assert len(said["returns"]) == 1
        for value in (*said["parameters"], *said["returns"]):
            where = f"{name}: {value['label']}"
            assert value["label"] == value.get("parameter_name", "answer"), where
            assert value["python_type"]["description"], where
            assert "Any" not in value["python_type"]["type"], where
            assert "://" not in str(value.get("example_input")), "the server fetches no addresses"
            for place, schema in parts(value["type"]):
                typed = {"type", "anyOf", "enum", "const"} & set(schema)
                assert typed, f"{where}{place} has no type"
                named = re.search(r"\.\w+$", place) and not place.endswith("._type")
                assert not named or schema.get("description"), f"{where}{place} has no description"


def test_the_main_settings_of_start_are_described_and_the_others_listed(info: dict[str, Any], server: str) -> None:
    config = info["named_endpoints"]["/start"]["parameters"][0]["type"]
    assert config["properties"]["epochs"]["maximum"] == 10_000
    assert {"dataset", "teacher", "student", "methods", "seeds", "epochs"} == set(config["properties"])
    (rows,) = call(server, "list_settings")[1]
    assert [row["name"] for row in rows] == list(RunConfig.model_fields)


def test_the_ranges_that_are_listed_are_the_ranges_that_are_checked() -> None:
    checked = 0
    for row in setting_rows():
        for key, step in (("minimum", -1), ("maximum", 1), ("above", 0), ("below", 0)):
            if key in row:
                checked += 1
                with pytest.raises(UserError):
                    make_config(**{row["name"]: row[key] + step})  # type: ignore[literal-required]
        if "choices" in row:
            with pytest.raises(UserError):
                make_config(**{row["name"]: "no such choice"})
        assert schema_words(RunConfig.model_json_schema()["properties"][row["name"]]) == row["type"]
    assert checked > 30


def test_a_state_is_one_of_those_that_are_documented(server: str, finished_run: str) -> None:
    states = (*run_states.LIVE, run_states.STOPPED, run_states.FINISHED, run_states.FAILED, run_states.LOST)
    assert set(get_args(State)) == set(states)
    kind, (status,) = call(server, "run_status", finished_run)
    assert kind == "complete"
    assert list(status) == list(get_type_hints(RunStatus))
    assert status["state"] == "finished"


def test_a_program_reads_what_came_out_of_a_run(server: str, finished_run: str) -> None:
    (report,) = call(server, "run_report", finished_run)[1]
    assert report.startswith(f"# Run {finished_run}")
    (log,) = call(server, "run_log", finished_run, 3)[1]
    assert 1 <= len(log.splitlines()) <= 3
    assert len(call(server, "run_log", finished_run)[1][0].splitlines()) > 3
    (files,) = call(server, "run_files", finished_run)[1]
    assert [file["name"] for file in files][:2] == ["answers.csv", "teacher"]
    for file in files:
        answer = CLIENT.get(f"{server}/{file['address']}", timeout=PATIENCE)
        assert answer.status_code == 200
        assert len(answer.content) >= file["bytes"]


def test_a_program_exports_a_model_and_fetches_it(server: str, finished_run: str) -> None:
    pytest.importorskip("onnxruntime")
    kind, answer = call(server, "export_model", finished_run, "ie-ft-seed0", "onnx")
    assert kind == "complete", answer
    assert list(answer[0]) == list(get_type_hints(Exported))
    assert answer[0]["difference"] < 1e-4
    with zipfile.ZipFile(
        io.BytesIO(CLIENT.get(f"{server}/{answer[0]['address']}", timeout=PATIENCE).content)
    ) as archive:
        (file,) = [entry for entry in archive.infolist() if entry.filename.endswith(".onnx")]
    assert file.file_size == answer[0]["bytes"]
    for model, name, said in (("nobody", "onnx", "nobody"), ("ie-ft-seed0", "exe", "Unknown format 'exe'")):
        kind, error = call(server, "export_model", finished_run, model, name)
        assert said in error["error"]


def test_a_program_sees_what_there_is_to_choose_from(server: str) -> None:
    (datasets,) = call(server, "list_datasets")[1]
    assert list(datasets[0]) == list(get_type_hints(DatasetRow))
    for endpoint, known in (("list_models", "resnet8"), ("list_methods", "ie-ft"), ("list_datasets", "cifar10")):
        assert known in [row["name"] for row in call(server, endpoint)[1][0]]


def test_a_run_waits_moves_to_the_front_and_is_deleted(tmp_path: Path, pictures: Path) -> None:
    config = {**QUICK, "dataset": f"folder:{pictures}", "epochs": 5000, "methods": ["baseline"], "teacher": "none"}
    with serving(tmp_path) as url:
        first, second, third = (call(url, "start", config, f"{number}")[1][0] for number in range(3))
        kind, (moved,) = call(url, "move_run_to_front", third)
        assert (kind, moved["run"]) == ("complete", third)
        kind, error = call(url, "delete_run", third)
        assert kind == "error"
        assert "Stop it first" in error["error"]
        for run_id in (second, third, first):
            call(url, "stop_run", run_id)
        wait_until(lambda: all(run["state"] == "stopped" for run in call(url, "list_runs")[1][0]))
        assert call(url, "delete_run", third)[1] == [{"run": third, "deleted": True}]
        assert [run["run"] for run in call(url, "list_runs")[1][0]] == [second, first]
        kind, error = call(url, "run_report", first)
        assert "has no report" in error["error"]


@pytest.mark.parametrize("name", [*CHANGES, "run_files", "export_model"])
def test_what_changes_a_run_or_takes_it_home_needs_the_token(guarded: str, finished_run: str, name: str) -> None:
    values = [finished_run, "teacher", "onnx"] if name == "export_model" else [finished_run]
    answer = CLIENT.post(f"{guarded}/gradio_api/run/{name}", json={"data": values}, timeout=PATIENCE)
    assert answer.status_code == 403
    assert "token" in answer.json()["error"]
    if name == "run_files":
        assert call(guarded, name, finished_run, **{"x-iekd-token": TOKEN})[0] == "complete"


def test_a_visitor_learns_nothing_of_paths_from_report_and_log(guarded: str, finished_run: str, pictures: Path) -> None:
    for name in ("run_report", "run_log"):
        (text,) = call(guarded, name, finished_run)[1]
        assert str(pictures.parent) not in text
    (text,) = call(guarded, "run_report", finished_run, **{"x-iekd-token": TOKEN})[1]
    assert str(pictures) in text


def endpoint_rows() -> list[str]:
    rows = []
    for name, endpoint in ENDPOINTS.items():
        values = [f"[{p.name}]" if p.optional else p.name for p in endpoint.parameters]
        rows.append(f"| `{name}({', '.join(values)})` | {endpoint.description} |")
    return rows


def field_rows() -> list[str]:
    fields = schema_of(RunStatus)["properties"].items()
    return [f"| `{name}` | {schema_words(field)}: {field['description']} |" for name, field in fields]


@pytest.mark.parametrize(
    ("head", "rows"), [("| endpoint | what it does |", endpoint_rows()), ("| field | meaning |", field_rows())]
)
def test_the_tables_of_the_documentation_are_complete(head: str, rows: list[str]) -> None:
    (table,) = re.findall(rf"^{re.escape(head)}\n\|---\|---\|\n((?:\|.*\n)*)", PAGE.read_text(), re.MULTILINE)
    assert table.splitlines() == rows, "copy these lines:\n" + "\n".join(rows)


def examples() -> list[Any]:
    found = re.findall(r"^```(\w+) page( mcp)?\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    return [pytest.param(language, code, id=f"{language}-{number}") for number, (language, _, code) in enumerate(found)]


@pytest.fixture(scope="module")
def with_tools(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    pytest.importorskip("mcp")
    with serving(tmp_path_factory.mktemp("example-runs"), "--mcp") as url:
        yield url


@pytest.mark.parametrize(("language", "code"), examples())
def test_the_examples_of_the_documentation_run(with_tools: str, tmp_path: Path, language: str, code: str) -> None:
    if language == "bash" and not shutil.which("curl"):
        pytest.skip("curl is not installed")
    Image.new("L", (28, 28), 90).save(tmp_path / "cat.png")
    command = [sys.executable, "-c"] if language == "python" else ["bash", "-euo", "pipefail", "-c"]
    code = code.replace("http://127.0.0.1:7860", with_tools)
    done = subprocess.run(
        [*command, code], cwd=tmp_path, text=True, capture_output=True, timeout=PATIENCE, env=os.environ, check=False
    )
    assert done.returncode == 0, done.stderr
    assert '{"error"' not in done.stdout, done.stdout
    said = {"python": "teacher" if "gradio_client" in code else "score", "bash": '"data":'}[language]
    assert said in done.stdout, done.stdout


def test_there_are_examples_of_each_kind() -> None:
    assert [example.values[0] for example in examples()] == ["python", "bash", "bash", "python"]
