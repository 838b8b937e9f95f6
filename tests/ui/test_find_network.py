"""The search among all networks, and what the form says a network costs."""

from __future__ import annotations

import itertools
from types import SimpleNamespace

import pytest
import torch

from iekd import data
from iekd.config.run import make_config
from iekd.models.catalog import model_info
from iekd.runs.latencies import Latencies, main, measure
from iekd.runs.store import Store
from iekd.ui.render.train import networks_html
from iekd.ui.tabs.find_network import _meant, find, size_of


def test_names_are_found_by_their_words_ours_first() -> None:
    found = find("MobileNet v2")
    assert found[0] == "mobilenet-v2-crd"
    assert "torchvision:mobilenet_v2" in found
    assert all("mobilenet" in name and "v2" in name for name in found)
    assert find("no such network") == []
    assert _meant("no such network") == ""


def test_a_slip_gets_the_name_that_was_meant():
    assert find("vit_b16") == []
    assert "torchvision:vit_b_16" in _meant("vit_b16")
    assert "hf:microsoft/resnet-50" in _meant("microsoft/resnet-50")


@pytest.mark.parametrize("name", ["resnet8", "timm:resnet10t", "torchvision:squeezenet1_1"])
def test_parameters_are_those_that_the_form_counts(name: str) -> None:
    assert size_of(name) == f"{model_info(name).params(3, 10) / 1e6:.2f} M"


def test_what_cannot_be_built_says_so() -> None:
    assert size_of("timm:none") == "cannot be used here"


def test_the_costs_of_a_network() -> None:
    """1,091 kB: 272,752 parameters of 4 bytes; 4 times the multiply-adds of 32 x 32 at 64 x 64."""
    text = networks_html("resnet20", "resnet8", 3, 10, 64, {"resnet20": 0.00744, "resnet8": None})
    macs = model_info("resnet20").macs * 4 / 1e6
    assert f"{4 * model_info('resnet20').params(3, 10) / 1e6:.1f} MB" in text
    assert f"{macs:.2f} M multiply-adds at 64 × 64" in text
    assert "7.44 ms per image on this machine" in text
    assert "latency is being measured" in text
    assert "1,230 ms per image" in networks_html("resnet20", "resnet8", 3, 10, 64, {"resnet20": 1.23})
    assert "ms per image" not in networks_html("resnet20", "resnet8", 3, 10, 64, {})


def test_latencies_are_measured_once_and_stored(tmp_path, monkeypatch) -> None:
    config, info = make_config(), data.describe("fashion-mnist-sample")
    latencies, started = Latencies(Store(tmp_path)), []
    monkeypatch.setenv("IEKD_PROBE", "1")
    monkeypatch.setenv("IEKD_LOCK_DIR", str(tmp_path / "locks"))  # runs of other tests have the device

    class Process:
        def __init__(self, command, **options) -> None:
            started.append(command)

    monkeypatch.setattr("iekd.runs.latencies.subprocess", SimpleNamespace(Popen=Process, DEVNULL=-3))
    assert latencies.known("resnet8", config, info) is None
    assert latencies.ask(["resnet8"], config, info)
    monkeypatch.setattr("sys.argv", ["latencies", *started[0][3:]])
    monkeypatch.setattr("iekd.runs.latencies.os.nice", lambda by: None)
    assert main() == 0
    assert latencies.known("resnet8", config, info) > 0
    assert not latencies.ask(["resnet8"], config, info)
    assert len(started) == 1
    monkeypatch.setenv("IEKD_PROBE", "0")
    assert not latencies.ask(["resnet20"], config, info)


def test_other_work_does_not_make_a_network_slow(monkeypatch) -> None:
    """Each pass but two waits for a busy machine; the clock says so, and the shortest counts."""
    clock, seconds = [0.0], itertools.cycle([0.4, 0.9, 0.003, 0.5, 0.8])

    def pass_of(image: torch.Tensor) -> torch.Tensor:
        clock[0] += next(seconds)
        return image

    monkeypatch.setattr("iekd.models.registry.build", lambda *_: torch.nn.Identity())
    monkeypatch.setattr(torch.nn.Identity, "forward", lambda self, image: pass_of(image))
    monkeypatch.setattr("iekd.runs.latencies.time.perf_counter", lambda: clock[0])
    assert measure("resnet8", 2, 3, 32, "cpu") == pytest.approx(0.003)
    assert 5 < clock[0] < 11, "a few seconds, also where each pass takes long"


def test_a_network_that_cannot_run_is_not_asked_again(tmp_path) -> None:
    with pytest.raises(Exception, match="inception"):
        measure("timm:inception_nothing", 2, 3, 32, "cpu")
