from __future__ import annotations

from types import SimpleNamespace

import psutil
import pytest

from iekd.data import control_groups, memory


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """`machine(groups, **files)`: a computer with 1000 bytes free, whose process is in those control groups."""
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=1000))
    monkeypatch.setattr(control_groups, "GROUPS", tmp_path / "cgroup")
    monkeypatch.setattr(control_groups, "MOUNTED", tmp_path / "mounted")

    def make(groups, **files):
        (tmp_path / "cgroup").write_text(groups)
        for name, text in files.items():
            path = tmp_path / "mounted" / name.replace("__", "/").replace("_DOT_", ".")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        return memory.free_memory()

    return make


def version_2(limit, used, cache, at="") -> dict[str, str]:
    values = {"max": limit, "current": used, "stat": f"anon 5\ninactive_file {cache}\n"}
    return {f"{at}memory_DOT_{k}": f"{v}" for k, v in values.items()}


def version_1(limit, used, cache, at="") -> dict[str, str]:
    values = {"limit_in_bytes": limit, "usage_in_bytes": used, "stat": f"rss 5\ntotal_inactive_file {cache}\n"}
    return {f"memory__{at}memory_DOT_{k}": f"{v}" for k, v in values.items()}


def test_without_groups_it_is_the_machines(machine):
    assert machine("") == 1000
    control_groups.GROUPS.unlink()
    assert memory.free_memory() == 1000


@pytest.mark.parametrize(
    ("groups", "files"),
    [
        ("0::/\n", version_2(600, 300, 50)),
        ("0::/a/b\n", version_2(600, 300, 50, at="a__b__")),
        ("0::/a/b\n", {**version_2(600, 300, 50, at="a__"), **version_2("max", 10, 0, at="a__b__")}),
        ("3:cpu:/\n4:memory:/a/b\n0::/\n", version_1(600, 300, 50, at="a__b__")),
        ("4:memory:/gone\n", version_1(600, 300, 50)),
    ],
    ids=["root", "nested", "above", "version 1", "of the container"],
)
def test_a_groups_limit_counts_where_it_is_lower(machine, groups, files):
    """What the group uses only to remember files can be taken back."""
    assert machine(groups, **files) == 600 - 300 + 50


@pytest.mark.parametrize("limit", ["max", 10**15])
def test_a_group_without_a_limit_says_nothing(machine, limit):
    assert machine("0::/\n", **version_2(limit, 300, 50)) == 1000


def test_the_real_machine_has_some():
    assert 0 < memory.free_memory() <= psutil.virtual_memory().total


def test_the_budget_is_what_is_given_or_half_of_what_is_free(machine):
    machine("")
    assert memory.image_budget(None) == 500
    assert memory.image_budget(0.25) == 0.25e9
    assert memory.image_budget(0) == 0
