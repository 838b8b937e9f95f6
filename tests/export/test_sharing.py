"""What leaves the machine names files and not the folders that they lie in; tests/hub/test_privacy.py has the texts."""

from __future__ import annotations

import pytest

from iekd.export.sharing import command_without_folders, name_without_folders, without_folders


@pytest.mark.parametrize(
    ("name", "shared"),
    [
        ("folder:/data/my clinic/pets", "folder:pets"),
        ("folder:data/my clinic/pets", "folder:pets"),
        ("~/my clinic/names.txt", "names.txt"),
        ("../ann/x.pt", "x.pt"),
        ("/home/bob", "~"),
        ("folder:/home/bob", "folder:~"),
        ("cifar10", "cifar10"),
        ("run:20260101-120000-a1b2/teacher", "run:20260101-120000-a1b2/teacher"),
        ("hf:ann/pets", "hf:ann/pets"),
        ("https://example.org/a/b", "https://example.org/a/b"),
    ],
)
def test_a_name_that_is_a_path_is_cut_down_to_its_end(name, shared):
    assert name_without_folders(name) == shared
    assert name_without_folders(shared) == shared, "once is enough"


def test_a_command_stays_one():
    command = "iekd train --dataset 'folder:/data/my clinic/pets' --teacher-from /srv/x.pth --epochs 3"
    assert command_without_folders(command) == "iekd train --dataset folder:pets --teacher-from x.pth --epochs 3"
    assert command_without_folders("iekd 'not closed") == ""


def test_a_home_at_the_root_of_the_disk_does_not_hide_every_slash(monkeypatch):
    """Containers that run as any user have one."""
    monkeypatch.setenv("HOME", "/")
    assert without_folders("class T-shirt/top in /data/pets") == "class T-shirt/top in pets"
    monkeypatch.setenv("HOME", "/srv/ann smith")
    assert without_folders("runs in /srv/ann smith/runs and /srv/ann smithson") == "runs in runs and ann smithson"
