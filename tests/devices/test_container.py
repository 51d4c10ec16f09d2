"""The limits of control groups, read from made-up files."""

from __future__ import annotations

from pathlib import Path

from vivace.devices.container import Limits, container_limits


def write(root: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text + "\n")


def test_no_files_mean_no_limits(tmp_path: Path) -> None:
    assert container_limits(tmp_path) == Limits(None, None)


def test_version_2_limits_are_read_at_the_groups_own_path(tmp_path: Path) -> None:
    write(
        tmp_path,
        {
            "proc/self/cgroup": "0::/job/worker",
            "sys/fs/cgroup/job/worker/cpu.max": "250000 100000",
            "sys/fs/cgroup/job/worker/memory.max": "1073741824",
        },
    )
    assert container_limits(tmp_path) == Limits(2.5, 1 << 30)


def test_a_parents_tighter_limit_counts(tmp_path: Path) -> None:
    write(
        tmp_path,
        {
            "proc/self/cgroup": "0::/job/worker",
            "sys/fs/cgroup/job/worker/cpu.max": "400000 100000",
            "sys/fs/cgroup/job/worker/memory.max": "9000",
            "sys/fs/cgroup/job/cpu.max": "100000 100000",
            "sys/fs/cgroup/job/memory.max": "5000",
        },
    )
    assert container_limits(tmp_path) == Limits(1.0, 5000)


def test_the_root_of_the_mount_counts_when_the_groups_path_is_hidden(tmp_path: Path) -> None:
    write(tmp_path, {"proc/self/cgroup": "0::/hidden/from/here", "sys/fs/cgroup/cpu.max": "50000 100000"})
    assert container_limits(tmp_path) == Limits(0.5, None)


def test_version_1_limits_are_read_from_each_controllers_mount(tmp_path: Path) -> None:
    write(
        tmp_path,
        {
            "proc/self/cgroup": "5:cpu,cpuacct:/docker/abc\n4:memory:/docker/abc",
            "sys/fs/cgroup/cpu,cpuacct/docker/abc/cpu.cfs_quota_us": "400000",
            "sys/fs/cgroup/cpu,cpuacct/docker/abc/cpu.cfs_period_us": "100000",
            "sys/fs/cgroup/memory/docker/abc/memory.limit_in_bytes": "2147483648",
        },
    )
    assert container_limits(tmp_path) == Limits(4.0, 2 << 30)


def test_version_1_says_no_limit_with_minus_one_and_a_huge_number(tmp_path: Path) -> None:
    write(
        tmp_path,
        {
            "proc/self/cgroup": "5:cpu:/\n4:memory:/",
            "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1",
            "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000",
            "sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712",
        },
    )
    assert container_limits(tmp_path) == Limits(None, None)


def test_version_2_says_no_limit_with_the_word_max(tmp_path: Path) -> None:
    write(
        tmp_path, {"proc/self/cgroup": "0::/", "sys/fs/cgroup/cpu.max": "max 100000", "sys/fs/cgroup/memory.max": "max"}
    )
    assert container_limits(tmp_path) == Limits(None, None)
