"""The machine as Linux tells it: caches, and the memory limit of whatever group this process is in."""

import pytest

from slimcv.doctor import machine


def write(folder, **files):
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / name.replace("__", ".")).write_text(text + "\n")


def member(tmp_path, text):
    file = tmp_path / "membership"
    file.write_text(text)
    return file


def test_caches_are_read_with_their_level_kind_and_size(tmp_path):
    write(tmp_path / "index0", level="1", type="Data", size="48K", shared_cpu_list="0,4")
    write(tmp_path / "index2", level="2", type="Unified", size="2M", shared_cpu_list="0,4")
    write(tmp_path / "index3", level="3", type="Unified", size="32768K", shared_cpu_list="0-7")
    found = machine.caches(tmp_path)
    assert [(cache.level, cache.kind, cache.size_bytes) for cache in found] == [
        (1, "data", 48 * 2**10),
        (2, "unified", 2 * 2**20),
        (3, "unified", 32 * 2**20),
    ]
    assert found[2].shared_by == "0-7"


def test_a_system_that_tells_nothing_of_its_caches_has_none(tmp_path):
    write(tmp_path / "index0", level="1")
    assert machine.caches(tmp_path) == ()
    assert machine.caches(tmp_path / "absent") == ()


def test_available_memory_is_the_kernels_estimate(tmp_path):
    file = tmp_path / "meminfo"
    file.write_text("MemTotal:  100 kB\nMemAvailable:   60 kB\n")
    assert machine.memory_available_bytes(file) == 60 * 1024
    assert machine.memory_available_bytes(tmp_path / "absent") is None


@pytest.mark.parametrize(
    ("own", "above", "limit"),
    [("1000", "max", 1000), ("max", "max", None), ("5000", "2000", 2000)],
)
def test_the_smallest_limit_of_a_group_and_those_above_it_holds(tmp_path, own, above, limit):
    root = tmp_path / "cgroup"
    write(root / "a", memory__max=above)
    write(root / "a" / "b", memory__max=own)
    found = machine.memory_limit_bytes(cgroups=root, membership=member(tmp_path, "0::/a/b\n"))
    assert found == limit


def test_version_1_of_cgroups_has_a_huge_number_for_no_limit(tmp_path):
    root = tmp_path / "cgroup"
    write(root / "memory", memory__limit_in_bytes=str(2**63 - 4096))
    write(root / "memory" / "a", memory__limit_in_bytes="4096000")
    inside = member(tmp_path, "4:memory:/a\n3:cpu,cpuacct:/z\n")
    assert machine.memory_limit_bytes(cgroups=root, membership=inside) == 4096000
    outside = member(tmp_path, "4:memory:/\n")
    assert machine.memory_limit_bytes(cgroups=root, membership=outside) is None


def test_this_machine_has_cores_memory_and_threads():
    found = machine.describe()
    assert found.cores >= len(found.affinity) >= 1
    assert 1 <= found.threads_allowed <= len(found.affinity)
    assert found.memory_bytes > 0


def test_settings_that_change_the_speed_are_told(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    monkeypatch.setenv("UNRELATED", "1")
    assert machine.describe().environment["OMP_NUM_THREADS"] == "3"
    assert "UNRELATED" not in machine.describe().environment
