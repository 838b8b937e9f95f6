"""Which GPUs there are: the user's variable, the driver, the driver's list, or nobody tells."""

from __future__ import annotations

import os
import subprocess

import pytest

from iekd.runs import gpus as found
from iekd.runs.gpus import Gpu, gpus

A, B = "12345678-1234-1234-1234-123456789abc", "87654321-4321-4321-4321-cba987654321"


@pytest.fixture(autouse=True)
def unknown(monkeypatch):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    found._found.cache_clear()
    yield
    found._found.cache_clear()


@pytest.fixture
def listed(tmp_path, monkeypatch):
    """Two GPUs in the driver's list; the driver itself does not answer."""
    for bus, uuid in (("0000:01:00.0", A), ("0000:41:00.0", B)):
        (tmp_path / "gpus" / bus).mkdir(parents=True)
        (tmp_path / "gpus" / bus / "information").write_text(f"Model: \t X\nGPU UUID: \t GPU-{uuid}\nBus: PCIe\n")
    monkeypatch.setattr(found, "KNOWN", tmp_path / "gpus")
    monkeypatch.setattr(found, "_ask_driver", lambda: ())


@pytest.mark.usefixtures("listed")
@pytest.mark.parametrize(
    ("visible", "expected"),
    [
        (None, [("0", A), ("1", B)]), ("", [("0", A), ("1", B)]), ("0", [("0", A)]), ("1", [("1", B)]),
        ("1,0", [("1", B), ("0", A)]), (f"GPU-{B.upper()}", [(f"GPU-{B.upper()}", B)]), (f"MIG-{B}", [(f"MIG-{B}", B)]),
        (f"GPU-{B}, GPU-{A}", [(f"GPU-{B}", B), (f"GPU-{A}", A)]), ("1,7,0", [("1", B)]), ("7", [("7", None)]),
        ("-1", [("-1", None)]), ("nonsense", [("nonsense", None)]),
    ],
)  # fmt: skip
def test_what_is_visible_counts(monkeypatch, visible, expected):
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert gpus() == tuple(Gpu(*gpu) for gpu in expected)


@pytest.mark.usefixtures("listed")
def test_the_driver_knows_best(monkeypatch):
    """Its order need not be that of the bus."""
    monkeypatch.setattr(found, "_ask_driver", lambda: (B, A))
    assert gpus() == (Gpu("0", B), Gpu("1", A))
    found._found.cache_clear()
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,2")  # the driver tells what it sees with this
    assert gpus() == (Gpu("3", B), Gpu("2", A))


@pytest.mark.usefixtures("listed")
def test_it_stays_as_it_was_at_first(monkeypatch):
    """A worker hides all GPUs but its own, and others' slots must not change by that."""
    before = gpus()
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    assert gpus() == before


def test_where_nobody_tells_there_is_one(monkeypatch, tmp_path):
    monkeypatch.setattr(found, "KNOWN", tmp_path / "nothing")
    monkeypatch.setattr(found, "_ask_driver", lambda: ())
    assert gpus() == (Gpu("0", None),)


def test_the_driver_is_asked_in_its_own_words(tmp_path, monkeypatch):
    """A library with the driver's functions, in its place."""
    source, library = tmp_path / "cuda.c", tmp_path / "libcuda.so.1"
    source.write_text(
        "int cuInit(unsigned f) { return f; } int cuDeviceGet(int* d, int n) { *d = n + 40; return 0; }\n"
        "int cuDeviceGetCount(int* n) { *n = 2; return 0; }\n"
        "int cuDeviceGetUuid_v2(unsigned char* u, int d) { for (int i = 0; i < 16; i++) u[i] = d + i; return 0; }\n"
    )
    try:
        subprocess.run(["cc", "-shared", "-fPIC", "-o", str(library), str(source)], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("no C compiler")
    monkeypatch.setenv("LD_LIBRARY_PATH", str(tmp_path))
    assert found._ask_driver() == ("28292a2b-2c2d-2e2f-3031-323334353637", "292a2b2c-2d2e-2f30-3132-333435363738")


@pytest.mark.skipif(os.path.exists("/dev/nvidiactl"), reason="needs a machine without a GPU")
def test_without_a_driver_there_is_no_uuid():
    assert found._ask_driver() == ()
