"""Memory there is room for: the machine's, and what control groups leave of it."""

import pytest

from slimcv.measure import room


def write(folder, **files):
    """Files of a control group; two underscores stand for a dot."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / name.replace("__", ".")).write_text(f"{content}\n")


def member(tmp_path, lines):
    (tmp_path / "membership").write_text(lines)
    return tmp_path / "membership"


def test_available_memory_is_the_kernels_estimate(tmp_path):
    file = tmp_path / "meminfo"
    file.write_text("MemTotal:  100 kB\nMemAvailable:   60 kB\n")
    assert room.available_bytes(file) == 60 * 1024
    assert room.available_bytes(tmp_path / "absent") is None


@pytest.mark.parametrize(
    ("own", "above", "limit"),
    [("1000", "max", 1000), ("max", "max", None), ("5000", "2000", 2000)],
)
def test_the_smallest_limit_of_a_group_and_those_above_it_holds(tmp_path, own, above, limit):
    root = tmp_path / "cgroup"
    write(root / "a", memory__max=above)
    write(root / "a" / "b", memory__max=own)
    found = room.limit_bytes(cgroups=root, membership=member(tmp_path, "0::/a/b\n"))
    assert found == limit


def test_version_1_of_cgroups_has_a_huge_number_for_no_limit(tmp_path):
    root = tmp_path / "cgroup"
    write(root / "memory", memory__limit_in_bytes=str(2**63 - 4096))
    write(root / "memory" / "a", memory__limit_in_bytes="4096000")
    inside = member(tmp_path, "4:memory:/a\n3:cpu,cpuacct:/z\n")
    assert room.limit_bytes(cgroups=root, membership=inside) == 4096000
    outside = member(tmp_path, "4:memory:/\n")
    assert room.limit_bytes(cgroups=root, membership=outside) is None


def test_what_is_left_is_the_least_of_machine_and_groups(tmp_path):
    meminfo, root = tmp_path / "meminfo", tmp_path / "cgroup"
    meminfo.write_text("MemAvailable:   60 kB\n")
    write(root / "a", memory__max=50_000, memory__current=30_000, memory__stat="anon 1\ninactive_file 9000")
    inside = member(tmp_path, "0::/a\n")
    given = {"meminfo": meminfo, "cgroups": root, "membership": inside}
    assert room.free_bytes(**given) == 29_000, "pages of files that were only read are given up at once"
    write(root / "a", memory__max="max")
    assert room.free_bytes(**given) == 60 * 1024
    assert room.free_bytes(**{**given, "meminfo": tmp_path / "absent"}) is None


def test_a_group_over_its_limit_leaves_nothing(tmp_path):
    root = tmp_path / "cgroup"
    write(root / "a", memory__max=1000, memory__current=2000)
    inside = member(tmp_path, "0::/a\n")
    assert room.free_bytes(meminfo=tmp_path / "absent", cgroups=root, membership=inside) == 0
