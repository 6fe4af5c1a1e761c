"""The thread count follows the affinity mask and whatever quota the container has, in either cgroup."""

import os

import pytest

from slimcv.measure import threads


def _write(folder, **files):
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / name.replace("__", ".")).write_text(text)


def _member(tmp_path, text):
    file = tmp_path / "membership"
    file.write_text(text)
    return file


@pytest.fixture(autouse=True)
def _four_cpus(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1, 2, 3}, raising=False)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("max 100000", 4),
        ("200000 100000", 2),
        ("150000 100000", 1),
        ("50000 100000", 1),
        ("900000 100000", 4),
    ],
)
def test_the_quota_of_version_2_limits_the_threads(tmp_path, text, expected):
    _write(tmp_path / "cgroup", cpu__max=text)
    found = threads.available(cgroups=tmp_path / "cgroup", membership=_member(tmp_path, "0::/\n"))
    assert found == expected


def test_a_group_above_may_be_the_tighter_one(tmp_path):
    _write(tmp_path / "cgroup/pod/app", cpu__max="max 100000")
    _write(tmp_path / "cgroup/pod", cpu__max="200000 100000")
    found = threads.available(cgroups=tmp_path / "cgroup", membership=_member(tmp_path, "0::/pod/app\n"))
    assert found == 2


@pytest.mark.parametrize("mount", ["cpu", "cpu,cpuacct"])
def test_the_quota_of_version_1_limits_the_threads(tmp_path, mount):
    _write(tmp_path / "cgroup" / mount / "app", cpu__cfs_quota_us="300000\n", cpu__cfs_period_us="100000\n")
    member = _member(tmp_path, "5:memory:/app\n4:cpu,cpuacct:/app\n")
    assert threads.available(cgroups=tmp_path / "cgroup", membership=member) == 3


def test_a_path_of_the_host_falls_back_to_the_root_of_the_mount(tmp_path):
    _write(tmp_path / "cgroup/cpu", cpu__cfs_quota_us="100000", cpu__cfs_period_us="100000")
    member = _member(tmp_path, "4:cpu:/docker/0123abcd\n")
    assert threads.available(cgroups=tmp_path / "cgroup", membership=member) == 1


def test_no_quota_in_version_1_is_spelled_minus_one(tmp_path):
    _write(tmp_path / "cgroup/cpu", cpu__cfs_quota_us="-1", cpu__cfs_period_us="100000")
    assert threads.quota_cpus(cgroups=tmp_path / "cgroup", membership=_member(tmp_path, "4:cpu:/\n")) is None


def test_without_cgroups_the_affinity_mask_counts(tmp_path):
    assert threads.available(cgroups=tmp_path / "none", membership=tmp_path / "none") == 4


def test_the_real_machine_has_at_least_one_thread():
    assert threads.available() >= 1
