"""The Hub's Jobs, as a stand-in whose jobs are processes of this machine."""

from __future__ import annotations

import threading
import time
from types import SimpleNamespace

import pytest
from jobs_stand_in import JobsHub, Xet

from iekd.launchers import hub_jobs
from iekd.launchers.hub_jobs import HubJobsLauncher
from iekd.runs.store import Store


@pytest.fixture
def jobs(monkeypatch, tmp_path):
    """The Hub. Threads that look at its jobs end with the test."""
    pytest.importorskip("huggingface_hub", minversion="2.0")  # older ones speak to Xet in another way, past `Xet`
    from huggingface_hub import constants
    from huggingface_hub.utils import _http, _xet

    (tmp_path / "hub").mkdir()
    made = JobsHub(tmp_path / "hub")
    monkeypatch.setattr(constants, "ENDPOINT", made.address)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_TELEMETRY", True)
    # between its attempts
    monkeypatch.setattr(_http, "time", SimpleNamespace(sleep=lambda seconds: None, time=time.time))
    monkeypatch.setattr(_xet, "get_xet_session", lambda: Xet(made))
    monkeypatch.setattr(hub_jobs, "EVERY", 0.2)
    monkeypatch.setenv("HF_TOKEN", "hf_ann")
    monkeypatch.setenv("IEKD_CHECKPOINT_SECONDS", "0.2")
    yield made
    # threads that look at runs go on until these are over, and would ask the Hub of the next tests
    monkeypatch.setattr(HubJobsLauncher, "look", lambda self, run_id: True)
    for thread in threading.enumerate():
        if isinstance(thread, hub_jobs._Thread):
            thread.join(60)
            assert not thread.is_alive(), thread.name
    made.close()


@pytest.fixture
def hub_launcher(jobs, tmp_path):
    return HubJobsLauncher(Store(tmp_path / "runs"))


@pytest.fixture
def waiting(jobs, hub_launcher, tiny_config):
    """A run whose job has a machine and does nothing on it, and the job."""
    jobs.idle = True
    run = hub_launcher.store.get(hub_launcher.submit(tiny_config(dataset="fashion-mnist-sample")))
    return run, jobs.jobs[0]
