"""The machine as Linux tells it: its caches and what it is set to."""

from slimcv.doctor import machine


def write(folder, **files):
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / name.replace("__", ".")).write_text(text + "\n")


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
