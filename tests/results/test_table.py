"""A grid of runs and its table: what is run, what is used again, what the files say."""

from __future__ import annotations

import csv
import io
import json
import os
import shutil
from dataclasses import replace

import numpy as np
import pytest
from typer.testing import CliRunner

from iekd.cli import main as cli
from iekd.config.run import make_config
from iekd.results import table
from iekd.results.predictions import Right
from iekd.results.significance import over_images
from iekd.runs import grid as grids
from iekd.runs.status import FAILED, FINISHED, STOPPED
from iekd.runs.store import Store
from iekd.runs.worker import execute

OPTIONS = {"resolution": 16, "epochs": 1, "teacher_epochs": 1, "auto_encoder_epochs": 1, "batch_size": 32}
OPTIONS |= {"device": "cpu", "precision": "fp32", "validation_fraction": 0}


def test_pairs_are_read():
    libraries = "timm:resnet18:resnet8,none:hf:ann/tiny@v1, torchvision:vgg11:timm:test_vit"
    assert grids.parse_pairs(libraries) == [
        ("timm:resnet18", "resnet8"), ("none", "hf:ann/tiny@v1"), ("torchvision:vgg11", "timm:test_vit"),
    ]  # fmt: skip
    assert grids.parse_pairs("resnet20:resnet8, none:resnet8,") == [("resnet20", "resnet8"), ("none", "resnet8")]


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("resnet20", "resnet20"),
        ("a:b:c", "a:b:c"),
        ("timm:resnet18", "timm:resnet18"),
        (":b", ":b"),
        ("a:", "a:"),
        ("", "No pair"),
        ("a:b,a:b", "twice"),
    ],
)
def test_malformed_pairs_are_refused(refuses, text, word):
    refuses(lambda: grids.parse_pairs(text), word)


def test_a_cell_for_each_pair_and_seed_or_each_pair(refuses):
    pairs = [("resnet20", "resnet8"), ("resnet14", "resnet8")]
    config = make_config(methods=("kd",), seeds=(0, 3), epochs=2)
    apart = grids.cells(pairs, config, together=False)
    assert [(c.teacher, c.student, c.seeds, c.epochs) for c in apart] == [
        ("resnet20", "resnet8", (0,), 2), ("resnet20", "resnet8", (3,), 2),
        ("resnet14", "resnet8", (0,), 2), ("resnet14", "resnet8", (3,), 2),
    ]  # fmt: skip
    assert [c.seeds for c in grids.cells(pairs, config, together=True)] == [(0, 3), (0, 3)]
    refuses(lambda: grids.cells([("resnet21", "resnet8")], config, False), "resnet21", "resnet20")
    refuses(lambda: grids.cells([("none", "resnet8")], config, False), "kd", "teacher")


@pytest.fixture(scope="module")
def grid(tmp_path_factory, tiny_config):
    """(store, cells, done) of two pairs, two methods and two seeds."""
    store = Store(tmp_path_factory.mktemp("grid"))
    configs = grids.cells(
        [("resnet8", "resnet8"), ("resnet8", "resnet14")], tiny_config(methods=("baseline", "kd"), seeds=(0, 1)), False
    )

    def train(run, handle):
        execute(run, lambda: False)
        os.close(handle)

    return store, configs, grids.run_grid(configs, store, train, lambda: False)


def never(run, handle):
    pytest.fail("this cell was finished before")


def test_the_teacher_is_trained_once(grid):
    store, _, done = grid
    stages = [{row["stage"] for row in store.get(cell.run).metrics(0)[0]} for cell in done]
    assert [("teacher" in s) for s in stages] == [True, False, False, False]
    assert len({cell.report["teacher"]["accuracy"] for cell in done}) == 1


def test_a_finished_grid_runs_nothing_again(grid):
    store, configs, done = grid
    again = grids.run_grid(configs, store, never, lambda: False)
    assert [cell.run for cell in again] == [cell.run for cell in done]
    assert all(cell.reused for cell in again)
    assert not any(cell.reused for cell in done)


def test_a_name_does_not_make_another_run(grid):
    store, configs, done = grid
    named = [config.model_copy(update={"name": "for the paper"}) for config in configs]
    assert [c.run for c in grids.run_grid(named, store, never, lambda: False)] == [c.run for c in done]


@pytest.mark.parametrize("change", [{"epochs": 2}, {"lr": 0.05}, {"seeds": (7,)}, {"methods": ("baseline",)}])
def test_another_configuration_is_another_run(grid, change):
    store, configs, _ = grid
    assert grids.finished_run(configs[0], store) is not None
    assert grids.finished_run(configs[0].model_copy(update=change), store) is None


def test_only_finished_runs_are_used_again(tmp_path, tiny_config):
    store, config = Store(tmp_path), tiny_config(methods=("baseline",), teacher="none")
    run, _ = store.create(config)
    execute(run, lambda: True)
    assert run.status.state == STOPPED
    assert grids.finished_run(config, store) is None
    (tmp_path / "damaged").mkdir()
    (tmp_path / "damaged" / "config.json").write_text("{")
    assert grids.finished_run(config, store) is None
    run, _ = store.create(config)
    execute(run, lambda: False)
    assert grids.finished_run(config, store).id == run.id
    report = run.report
    del report["config"]["validation_fraction"]  # as written by a version without it
    (run.path / "report.json").write_text(json.dumps(report))
    assert grids.finished_run(config, store) is None


def test_a_run_of_other_pictures_is_not_used_again(tmp_path, tiny_config, picture_folder):
    root, store = tmp_path / "pictures", Store(tmp_path / "runs")
    shutil.copytree(picture_folder, root)
    config = tiny_config(dataset=f"folder:{root}", methods=("baseline",), teacher="none")
    run, _ = store.create(config)
    execute(run, lambda: False)
    assert grids.finished_run(config, store).id == run.id
    next((root / "test" / "red").iterdir()).unlink()
    assert grids.finished_run(config, store) is None


def test_an_interrupted_grid_continues_where_it_stopped(tmp_path, tiny_config):
    store = Store(tmp_path)
    config = tiny_config(methods=("baseline",), teacher="none", seeds=(0, 1, 2))
    configs = grids.cells([("none", "resnet8")], config, False)
    trained = []

    def train(run, handle):
        execute(run, lambda: False)
        os.close(handle)
        trained.append(run.config.seeds)

    first = grids.run_grid(configs, store, train, lambda: len(trained) == 1)
    assert [cell.state for cell in first] == [FINISHED, table.MISSING, table.MISSING]
    text = table.to_markdown(first, config)
    assert "Seeds 0; 1 epoch; not all runs have finished (seeds 1, 2)." in text
    second = grids.run_grid(configs, store, train, lambda: False)
    assert trained == [(0,), (1,), (2,)]
    assert [cell.reused for cell in second] == [True, False, False]


def test_a_run_of_the_grid_that_was_interrupted_is_resumed(tmp_path, tiny_config, checkpoints_everywhere):
    store = Store(tmp_path)
    config = tiny_config(methods=("baseline",), teacher="none", epochs=4)
    (cell,) = grids.cells([("none", "resnet8")], config, False)
    run, handle = store.create(cell.model_copy(update={"name": "by hand"}))
    execute(run, lambda: len(run.metrics()[0]) >= 3)
    os.close(handle)
    before = len(run.metrics()[0])
    assert run.status.state == STOPPED
    assert grids.interrupted_run(cell.model_copy(update={"epochs": 5}), store) is None

    def train(again, handle):
        assert again.id == run.id
        execute(again, lambda: False)
        os.close(handle)

    (done,) = grids.run_grid([cell], store, train, lambda: False)
    assert (done.run, done.state, done.reused, run.attempt) == (run.id, FINISHED, False, 2)
    steps = [row["step"] for row in run.metrics()[0] if row["kind"] == "train"]
    assert steps == sorted(set(steps)), "not from the beginning"
    assert len(run.metrics()[0]) > before
    assert grids.interrupted_run(cell, store) is None


def test_a_run_that_somebody_else_resumes_is_left_to_them(tmp_path, tiny_config):
    store = Store(tmp_path)
    (cell,) = grids.cells([("none", "resnet8")], tiny_config(methods=("baseline",), teacher="none"), False)
    run, handle = store.create(cell)
    execute(run, lambda: True)
    os.close(handle)
    held = os.dup(run.lock())  # between the look and the taking

    def train(other, handle):
        assert other.id != run.id
        execute(other, lambda: False)
        os.close(handle)

    assert grids.interrupted_run(cell, store).id == run.id
    assert [done.state for done in grids.run_grid([cell], store, train, lambda: False)] == [FINISHED]
    os.close(held)


def test_a_cell_that_fails_does_not_stop_the_others(tmp_path, tiny_config):
    store = Store(tmp_path)
    config = tiny_config(methods=("baseline",), teacher="none", seeds=(0, 1))

    def train(run, handle):
        execute(run, lambda: False)
        os.close(handle)

    bad, good = grids.cells([("none", "resnet8")], config, False)
    done = grids.run_grid([bad.model_copy(update={"limit_train": 2}), good], store, train, lambda: False)
    assert [cell.state for cell in done] == [FAILED, FINISHED]
    (column,) = table.columns(done)
    assert column.methods[0].n == 1


def test_columns_gather_the_seeds_of_a_pair(grid):
    _, _, done = grid
    found = table.columns(done)
    assert [(c.teacher, c.student) for c in found] == [("resnet8", "resnet8"), ("resnet8", "resnet14")]
    for column, cells in zip(found, (done[:2], done[2:]), strict=True):
        for i, summary in enumerate(column.methods):
            values = [cell.report["learners"][i]["accuracy_last"] for cell in cells]
            assert (summary.n, summary.mean) == (2, pytest.approx(sum(values) / 2))
        baseline, kd = column.methods
        assert kd.difference.mean == pytest.approx(kd.mean - baseline.mean)


def fake(method: str, *accuracies: float) -> list[dict]:
    return [
        {"method": method, "seed": seed, "accuracy_last": a, "accuracy_best": a, "best_epoch": 1, "params": 5}
        for seed, a in enumerate(accuracies)
    ]


@pytest.fixture
def made_up(tiny_config):
    """Cells without runs: one pair in which kd wins by far, one without a teacher."""
    taught = {"teacher": {"accuracy": 94.4}, "learners": fake("baseline", 80, 81, 82) + fake("kd_x", 85, 86.1, 86.9)}
    alone = {"teacher": None, "learners": fake("baseline", 70)}
    config = tiny_config(methods=("baseline", "kd"), seeds=(0, 1, 2))
    without = tiny_config(methods=("baseline",), teacher="none")
    return [
        table.Cell(config, "a", taught, FINISHED, False), table.Cell(without, "b", alone, FINISHED, True),
        table.Cell(config, "c", None, FAILED, False),
    ]  # fmt: skip


def test_markdown_says_all_of_it(made_up):
    text = table.to_markdown(made_up, made_up[0].config)
    rows = [line.split("|")[1:-1] for line in text.splitlines() if line.startswith("|")]
    assert [cell.strip() for cell in rows[0]][1:] == ["resnet8 -> resnet8", "resnet8"]
    assert [cell.strip() for cell in rows[2]] == ["teacher", "94.40", ""]
    assert [cell.strip() for cell in rows[3]] == ["baseline", "81.00 ± 1.00", "70.00"]
    assert [cell.strip() for cell in rows[4]] == ["kd_x", "86.00 ± 0.95 (+5.00; +4.75 to +5.25)*", ""]
    assert "Seeds 0, 1, 2; 1 epoch; not all runs have finished (seeds 0, 1, 2)." in text


def test_what_the_test_images_leave_open_is_known_from_the_answers(grid):
    """Runs of one seed each: what one run of all seeds would have said, from answers.csv."""
    _, _, done = grid
    (column, _) = table.columns(done)
    right = [cell.answers.right for cell in done[:2]]
    pairs = [np.stack([r[f"{method}-seed{seed}"] for seed, r in enumerate(right)]) for method in ("kd", "baseline")]
    assert column.methods[1].difference.over_images == over_images(*pairs)
    assert table.to_json(done)["rows"][1]["difference"]["over_images"]["n"] == pairs[0].shape[1]
    (alone, _) = table.columns([done[0], done[2]])
    tested = alone.methods[1].difference.over_images
    one = table.to_markdown([done[0]], done[0].config)
    assert f"; {tested.low:+.2f} to {tested.high:+.2f} over images)" in one


@pytest.mark.parametrize("trouble", ["absent", "other images", "no student", "cut off", "other answers"])
def test_without_all_answers_there_is_no_interval_over_images(grid, trouble):
    _, _, done = grid
    known = done[0].answers
    answers = {
        "absent": None,
        "other images": replace(known, images=known.images[::-1]),
        "no student": replace(known, right={"teacher": known.right["teacher"]}),
        "cut off": Right(known.images[:7], {name: column[:7] for name, column in known.right.items()}),
        "other answers": replace(known, right={name: ~column for name, column in known.right.items()}),
    }[trouble]
    other = done[1] if trouble != "cut off" else replace(done[0], answers=answers)
    (column,) = table.columns([replace(done[0], answers=answers), other])
    assert column.methods[1].difference.over_images is None


def test_students_that_diverged_are_named(made_up):
    made_up[0].report["diverged"] = {"kd_x-seed3": "The loss of 'kd_x-seed3' became nan at step 6."}
    config = made_up[0].config
    assert "in run a kd_x-seed3 diverged and is left out of all numbers" in table.to_markdown(made_up, config)
    assert "kd_x-seed3 diverged" in table.to_latex(made_up, config)


def test_latex_is_a_tabular_with_the_best_in_bold(made_up):
    text = table.to_latex(made_up, made_up[0].config)
    assert text.count("\\begin{tabular}{lrr}") == text.count("\\end{tabular}") == 1
    assert "kd\\_x & \\textbf{86.00} $\\pm$ 0.95$^*$ &  \\\\" in text
    assert "baseline & 81.00 $\\pm$ 1.00 & \\textbf{70.00} \\\\" in text
    body = [line for line in text.splitlines() if line.endswith("\\\\")]
    assert all(line.count("&") == 2 for line in body)


def test_csv_has_a_line_per_student(made_up):
    rows = list(csv.DictReader(io.StringIO(table.to_csv(made_up))))
    assert len(rows) == 7
    assert [r["seed"] for r in rows] == ["0", "1", "2", "0", "1", "2", "0"]
    assert (rows[3]["method"], rows[3]["accuracy_last"], rows[3]["teacher_accuracy"]) == ("kd_x", "85", "94.4")
    assert rows[6]["teacher"] == "none"


def iekd_(*words):
    return CliRunner().invoke(cli.app, [str(w) for w in words])


def as_options(**values):
    return [word for field, value in values.items() for word in (f"--{field.replace('_', '-')}", value)]


def test_the_command_writes_the_table_and_reuses_its_runs(tmp_path, picture_folder):
    words = [
        "table",
        "--pairs",
        "resnet8:resnet8",
        "--methods",
        "baseline,kd",
        "--seeds",
        "0,1",
        "--runs-dir",
        tmp_path,
    ]
    words += ["--dataset", f"folder:{picture_folder}", *as_options(**OPTIONS), "--json"]
    first = iekd_(*words)
    assert first.exit_code == 0, first.output
    found = json.loads(first.stdout.splitlines()[-1])
    assert [(r["method"], r["n"]) for r in found["rows"]] == [("baseline", 2), ("kd", 2)]
    assert found["missing"] == 0
    assert {"low", "high", "p", "significant"} <= set(found["rows"][1]["difference"])
    for kind in ("md", "csv", "tex", "json"):
        assert len(list((tmp_path / "tables").glob(f"*/table.{kind}"))) == 1
    again = json.loads(iekd_(*words).stdout.splitlines()[-1])
    assert [r["run"] for r in again["runs"]] == [r["run"] for r in found["runs"]]
    assert all(r["reused"] for r in again["runs"])
    assert again["rows"] == found["rows"]
    shown = iekd_(*words[:-1], "--out", tmp_path / "here")
    assert shown.stderr.count("class 0 ") == 1, "before the training, of all runs together"
    assert shown.stderr.count("Warning: With") == 1
    assert (tmp_path / "here" / "table.md").read_text().splitlines()[0] in shown.stdout
    assert len(json.loads(iekd_("runs", "list", "--runs-dir", tmp_path, "--json").stdout)["runs"]) == 2


def test_a_grid_without_results_writes_no_table(tmp_path, picture_folder):
    words = ["table", "--pairs", "none:resnet8", "--methods", "baseline", "--limit-train", "2", "--runs-dir", tmp_path]
    result = iekd_(*words, "--dataset", f"folder:{picture_folder}", *as_options(**OPTIONS))
    assert result.exit_code == 1
    assert "too few" in result.stderr
    assert "1 of 1 run is missing" in result.stdout
    assert not (tmp_path / "tables").exists()


def test_the_command_refuses_what_makes_no_sense(tmp_path):
    for words, said in ((["--pairs", "resnet8"], "resnet8"), (["--teacher", "resnet8"], "--teacher"),
                        (["--pairs", "resnet8:resnet9"], "resnet9"), (["--methods", "kdd"], "kdd"),
                        (["--out", "/proc/nope"], "/proc/nope"),
                        (["--pairs", "resnet20:resnet8", "--teacher-from", "run:gone"], "no run 'gone'")):  # fmt: skip
        result = iekd_("table", *words, "--runs-dir", tmp_path)
        assert result.exit_code == 2
        assert said in result.output
        assert not list(tmp_path.iterdir())
