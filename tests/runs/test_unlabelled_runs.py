"""`--unlabelled`: from the configuration into the run, and out of a public page's reach."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from iekd.config.run import RunConfig, make_config
from iekd.config.unused import unused_settings
from iekd.estimate.cost import plan_of
from iekd.runs.prepare import prepare
from iekd.runs.status import FINISHED
from iekd.runs.store import Store


@pytest.fixture
def more(tmp_path):
    rng = np.random.default_rng(0)
    (tmp_path / "more").mkdir()
    for i in range(48):
        Image.fromarray(rng.integers(0, 256, (16, 16, 3), np.uint8)).save(tmp_path / "more" / f"{i}.png")
    return tmp_path / "more"


def test_a_run_learns_from_them_and_says_who_does_not(tiny_config, more, tmp_path, complete, caplog):
    caplog.set_level("INFO", "iekd")
    config = tiny_config(methods=("baseline", "kd"), unlabelled=str(more))
    run, _ = complete(Store(tmp_path / "runs"), prepare(config, tmp_path / "runs").config)
    assert run.status.state == FINISHED
    assert "48 unlabelled images, which baseline cannot learn from" in caplog.text
    alone, _ = complete(Store(tmp_path / "runs"), tiny_config(methods=("baseline", "kd")))
    with_more, without = ({r["method"]: r for r in found.report["learners"]} for found in (run, alone))
    assert with_more["baseline"]["accuracy_last"] == without["baseline"]["accuracy_last"]
    assert run.report["teacher"]["accuracy"] == alone.report["teacher"]["accuracy"]
    assert "an earlier run" in alone.report["teacher"]["from"], (
        "unlabelled images do not change how a teacher is trained"
    )


def test_it_is_checked_before_the_run(tiny_config, more, tmp_path, refuses):
    refuses(lambda: prepare(tiny_config(unlabelled=str(tmp_path / "none")), tmp_path), "no folder", tmp_path / "none")
    assert tiny_config(unlabelled="~/more").unlabelled.startswith("/")
    assert "unlabelled" in unused_settings(tiny_config(methods=("baseline", "dkd"), unlabelled=str(more)))
    assert "unlabelled" not in unused_settings(tiny_config(methods=("baseline", "dml"), unlabelled=str(more)))


def test_the_estimate_counts_them(tiny_config, more, tmp_path):
    def students(config: RunConfig) -> float:
        plan = plan_of(config, prepare(config, tmp_path).info, True)
        return plan.macs["students"] - plan.held_out["students"]

    plain, extra = students(tiny_config(methods=("kd",))), students(tiny_config(methods=("kd",), unlabelled=str(more)))
    assert extra == pytest.approx(1.5 * plain), "48 beside 96"
    assert students(make_config(methods=("baseline",), unlabelled=str(more))) == students(
        make_config(methods=("baseline",))
    )
