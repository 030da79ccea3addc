"""Limits of control groups, read from folders that imitate both versions."""

from pathlib import Path

import pytest

from bert_pytorch.runtime.cgroups import cpu_limit, memory_limit


def write(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


CPU = [
    ({}, None),
    ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "max 100000\n"}, None),
    ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "250000 100000\n"}, 2.5),
    (
        {
            "proc/self/cgroup": "0::/job/step\n",
            "sys/fs/cgroup/job/step/cpu.max": "800000 100000",
            "sys/fs/cgroup/job/cpu.max": "400000 100000",
        },
        4,
    ),  # the narrower group around it
    # a container that sees its own group as the root, under the host's name of it
    ({"proc/self/cgroup": "0::/kubepods/pod1\n", "sys/fs/cgroup/cpu.max": "1200000 100000"}, 12),
    ({"proc/self/cgroup": "0::/../../x\n", "sys/fs/cgroup/cpu.max": "100000 100000"}, 1),
    (
        {
            "proc/self/cgroup": "4:memory:/m\n1:cpu,cpuacct:/a\n",
            "sys/fs/cgroup/cpu,cpuacct/a/cpu.cfs_quota_us": "150000",
            "sys/fs/cgroup/cpu,cpuacct/a/cpu.cfs_period_us": "100000",
        },
        1.5,
    ),
    (
        {
            "proc/self/cgroup": "1:cpu:/\n",
            "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1",
            "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000",
        },
        None,
    ),
    ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "nonsense\n"}, None),
]


@pytest.mark.parametrize(("files", "limit"), CPU)
def test_the_least_limit_of_all_groups_around_a_process_counts(
    files: dict[str, str], limit: float | None, tmp_path: Path
) -> None:
    assert cpu_limit(write(tmp_path, files)) == limit


@pytest.mark.parametrize(
    ("files", "limit"),
    [
        ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/memory.max": "max"}, None),
        ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/memory.max": "34359738368"}, 32 << 30),
        ({"proc/self/cgroup": "4:memory:/j\n", "sys/fs/cgroup/memory/j/memory.limit_in_bytes": "1073741824"}, 1 << 30),
        (
            {"proc/self/cgroup": "4:memory:/\n", "sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712"},
            None,
        ),
    ],
)
def test_memory_is_limited_as_the_group_says(files: dict[str, str], limit: int | None, tmp_path: Path) -> None:
    assert memory_limit(write(tmp_path, files)) == limit
