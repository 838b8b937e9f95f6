"""How many threads compute: from the cores, the cgroup and the load, all of them made up here."""

from __future__ import annotations

import pytest
import torch

from iekd.data import control_groups
from iekd.data.control_groups import cpu_quota
from iekd.engine import threads
from iekd.engine.accelerate import side_by_side
from iekd.engine.threads import EVERY, PATIENCE, Load, Threads


@pytest.fixture
def machine(monkeypatch):
    """`machine(n)`: one of so many cores, all of which torch uses."""
    before = torch.get_num_threads()

    def make(count):
        for module in (threads, control_groups):
            monkeypatch.setattr(module, "cpus_here", lambda: set(range(count)))
        monkeypatch.setattr(control_groups, "cpu_quota", lambda: None)
        torch.set_num_threads(count)

    yield make
    torch.set_num_threads(before)


class Looks:
    """Threads, a clock that is put forward, and the load that is found then."""

    def __init__(self, asked="auto", **options):
        self.now, self.load, self.told = 0.0, 0.0, []
        self.threads = Threads(
            asked, tell=lambda *news: self.told.append(news), load=lambda: self.load, clock=lambda: self.now, **options
        )

    def at(self, load, times=1):
        self.load = load
        for _ in range(times):
            self.now += EVERY
            self.threads.look()
        return self.threads.count


@pytest.mark.parametrize(
    ("count", "load", "chosen"),
    [(2, 0, 2), (2, 0.3, 2), (2, 1, 1), (2, 2, 1), (1, 1, 1), (8, 0.3, 8), (8, 1, 7), (8, 5.1, 3), (8, 8, 1)],
)
def test_what_others_use_is_left_to_them(machine, count, load, chosen):
    machine(count)
    assert Looks().at(load) == chosen


def test_room_must_last_before_threads_are_added(machine):
    machine(2)
    looks = Looks()
    assert looks.at(1.0) == 1
    assert [looks.at(load) for load in (0.0, 1.0) * 5] == [1] * 10, "it flaps"
    assert looks.at(0.0, PATIENCE) == 2


@pytest.mark.parametrize("load", [0.3, 0.35, 0.39])
def test_a_load_in_between_changes_nothing_either_way(machine, load):
    machine(2)
    assert Looks().at(load, 10) == 2
    slow = Looks()
    slow.at(1.0)
    assert slow.at(load, 10) == 1


def test_it_looks_every_few_seconds_only(machine):
    machine(2)
    looks = Looks()
    looks.at(0.0)
    looks.load = 2.0
    for _ in range(100):
        looks.threads.look()
    assert looks.threads.count == 2


def test_a_change_is_told_and_logged(machine, caplog):
    machine(2)
    with caplog.at_level("INFO", "iekd"):
        looks = Looks()
        looks.at(1.2)
        looks.at(1.2)
    assert looks.told == [(1, 1.2)]
    (line,) = caplog.messages
    assert "1.2 of 2 cores" in line
    assert "1 thread(s) compute from now on, before it was 2" in line


def test_a_fixed_number_never_changes(machine):
    machine(2)
    looks = Looks(3)
    assert looks.at(2.0, 10) == 3
    assert looks.told == []
    with looks.threads.used():
        assert torch.get_num_threads() == 3
    assert torch.get_num_threads() == 2


def test_what_cannot_be_measured_changes_nothing(machine):
    machine(2)
    assert Looks().at(None, 10) == 2


def test_torchs_own_number_is_the_most(machine):
    """OMP_NUM_THREADS, or whoever has called torch before."""
    machine(8)
    torch.set_num_threads(3)
    assert Looks().at(0.0, 10) == 3
    assert Looks().at(6.0) == 2


def test_a_resumed_run_starts_with_the_threads_it_had(machine):
    machine(4)
    assert Looks(before=3).threads.count == 3
    assert Looks(before=30).threads.count == 4


def test_learners_side_by_side_share_the_threads_as_they_change(machine):
    machine(8)
    looks, seen = Looks(), []

    def source():
        for load in (0, 0, 6.0, 6.0):
            looks.now += EVERY
            looks.load = load
            yield load

    def work(_):
        return [torch.get_num_threads()]

    for found in side_by_side(source(), [work], ahead=1, threads=looks.threads):
        seen.append(found)
    assert seen[0] == 4, "half of eight: the source computes too"
    assert seen[-1] in (1, 4), "a worker may be in front of the source's look"
    assert looks.threads.count == 2


def write(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


@pytest.mark.parametrize(
    ("membership", "files", "quota"),
    [
        ("0::/a/b", {"a/cpu.max": "150000 100000", "a/b/cpu.max": "max 100000"}, 1.5),
        ("0::/a/b", {"a/cpu.max": "800000 100000", "a/b/cpu.max": "400000 100000"}, 4),
        ("0::/", {"cpu.max": "200000 100000"}, 2),
        ("0::/not/here", {"cpu.max": "50000 100000"}, 0.5),  # a container that sees the host's name
        ("0::/a", {"a/cpu.max": "max 100000"}, None),
        ("0::/a", {}, None),
        ("4:cpu,cpuacct:/a\n0::/", {"cpu,cpuacct/a/cpu.cfs_quota_us": "300000",
                                    "cpu,cpuacct/a/cpu.cfs_period_us": "100000"}, 3),
        ("1:cpu:/a/b", {"cpu/a/cpu.cfs_quota_us": "100000", "cpu/a/cpu.cfs_period_us": "50000",
                        "cpu/a/b/cpu.cfs_quota_us": "-1", "cpu/a/b/cpu.cfs_period_us": "50000"}, 2),
        ("2:cpuset:/a", {"cpuset/a/cpu.max": "100000 100000"}, None),
    ],
)  # fmt: skip
def test_the_quota_of_a_cgroup_and_of_those_around_it(tmp_path, monkeypatch, membership, files, quota):
    write(tmp_path / "proc/self/cgroup", membership + "\n")
    for name, text in files.items():
        write(tmp_path / "groups" / name, text + "\n")
    monkeypatch.setattr(control_groups, "GROUPS", tmp_path / "proc/self/cgroup")
    monkeypatch.setattr(control_groups, "MOUNTED", tmp_path / "groups")
    assert cpu_quota() == quota


def test_cores_are_those_of_the_affinity_and_the_quota(machine, monkeypatch):
    machine(8)
    assert control_groups.cores() == 8
    for quota, found in ((2.5, 2), (0.5, 1), (16.0, 8)):
        monkeypatch.setattr(control_groups, "cpu_quota", lambda quota=quota: quota)
        assert control_groups.cores() == found


class TestLoad:
    """/proc/stat, in hundredths of a second: user nice system idle iowait irq softirq steal."""

    @pytest.fixture
    def load(self, tmp_path):
        self.stat, self.now, self.own = tmp_path / "stat", 0.0, 0.0
        self.write((0,) * 8, (0,) * 8, (0,) * 8)

        def make(cpus=(0, 1), nice=0):
            return Load(self.stat, set(cpus), lambda: self.own, lambda: self.now, nice)

        return make

    def write(self, *cpus):
        rows = [f"cpu{n} {' '.join(map(str, row))} 0 0" for n, row in enumerate(cpus)]
        self.stat.write_text("\n".join(["cpu 9 9 9 9 9 9 9 9 0 0", *rows, "intr 1 2"]))

    def second(self, *cpus, own=0.0):
        self.now, self.own = self.now + 1, self.own + own
        self.write(*cpus)

    def test_ours_is_not_counted(self, load):
        asked = load()
        self.second((100, 0, 0, 0, 0, 0, 0, 0), (40, 0, 10, 50, 0, 0, 0, 0), own=1.0)
        assert asked() == pytest.approx(0.5)

    def test_it_is_of_the_time_since_the_last_call(self, load):
        asked = load()
        self.second((100, 0, 0, 0, 0, 0, 0, 0), (0,) * 8)
        assert asked() == pytest.approx(1)
        self.second((100, 0, 0, 100, 0, 0, 0, 0), (0,) * 8)
        assert asked() == 0

    def test_background_work_gives_way_to_us_but_not_if_we_are_background_work(self, load):
        first, second = load(), load(nice=19)
        self.second((0, 100, 0, 0, 0, 0, 0, 0), (0, 0, 0, 100, 0, 0, 0, 0))
        assert first() == 0
        assert second() == pytest.approx(1)

    def test_other_cores_do_not_count_and_stolen_time_does(self, load):
        asked = load(cpus=(1,))
        self.second((100, 0, 0, 0, 0, 0, 0, 0), (0, 0, 0, 70, 0, 0, 0, 30))
        assert asked() == pytest.approx(0.3)

    def test_without_such_a_file_it_is_unknown(self, load, tmp_path):
        self.stat = tmp_path / "none"
        assert load()() is None


def test_this_machines_own_load_can_be_read():
    asked = Load()
    assert asked.before is not None
