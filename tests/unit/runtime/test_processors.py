"""Tables on folders that imitate /sys: which processors a rank gets, and how many threads somebody asked for."""

from pathlib import Path

import pytest

from bert_pytorch.runtime.processors import (
    count_cores,
    format_cpu_list,
    gpu_node,
    parse_cpu_list,
    read_processors,
    share_of_rank,
    threads_asked,
)


def machine(root: Path, nodes: list[str], siblings: list[str], file: str = "core_cpus_list") -> Path:
    """Write what sysfs says of a machine: processors of each NUMA node, and each core's hyperthreads."""
    for number, cpus in enumerate(nodes):
        folder = root / f"devices/system/node/node{number}"
        folder.mkdir(parents=True)
        (folder / "cpulist").write_text(f"{cpus}\n")
    for core in siblings:
        for cpu in parse_cpu_list(core):
            folder = root / f"devices/system/cpu/cpu{cpu}/topology"
            folder.mkdir(parents=True)
            (folder / file).write_text(f"{core}\n")
    return root


def two_sockets(root: Path) -> Path:
    """Return a machine of 2 sockets with 4 cores each; hyperthreads are numbered as Intel's: 0 and 8 are a core."""
    return machine(root, ["0-3,8-11", "4-7,12-15"], [f"{core},{core + 8}" for core in range(8)])


@pytest.mark.parametrize(
    ("size", "shares"),
    [
        (1, ["0-15"]),
        (2, ["0-3,8-11", "4-7,12-15"]),
        (4, ["0-1,8-9", "2-3,10-11", "4-5,12-13", "6-7,14-15"]),
        (3, ["0-1,8-9", "2-4,10-12", "5-7,13-15"]),
        (16, ["0", "8", "1", "9", "2", "10", "3", "11", "4", "12", "5", "13", "6", "14", "7", "15"]),
        (17, ["0-15"] * 17),
    ],
)
def test_ranks_share_whole_cores_then_hyperthreads_then_everything(
    size: int, shares: list[str], tmp_path: Path
) -> None:
    processors = read_processors(range(16), two_sockets(tmp_path))
    assert [format_cpu_list(share_of_rank(processors, rank, size)) for rank in range(size)] == shares


@pytest.mark.parametrize(
    ("gpu_nodes", "shares"),
    [
        ((0, 0, 1, 1), ["0-1,8-9", "2-3,10-11", "4-5,12-13", "6-7,14-15"]),
        ((1, 0, 1, 0), ["4-5,12-13", "0-1,8-9", "6-7,14-15", "2-3,10-11"]),
        ((1, 1, 1, 1), ["4,12", "5,13", "6,14", "7,15"]),
        ((0, None, 1, 1), ["0-1,8-9", "2-3,10-11", "4-5,12-13", "6-7,14-15"]),  # one is unknown: all as without GPUs
        ((2, 2, 2, 2), ["0-1,8-9", "2-3,10-11", "4-5,12-13", "6-7,14-15"]),  # a node without processors
        ((0, 0), ["0-1,8-9", "2-3,10-11", "4-5,12-13", "6-7,14-15"]),  # not of all ranks
    ],
)
def test_a_rank_gets_processors_beside_its_gpu(
    gpu_nodes: tuple[int | None, ...], shares: list[str], tmp_path: Path
) -> None:
    processors = read_processors(range(16), two_sockets(tmp_path))
    assert [format_cpu_list(share_of_rank(processors, rank, 4, gpu_nodes)) for rank in range(4)] == shares


@pytest.mark.parametrize("allowed", [{3}, {0, 8}, {1, 2, 9}, {0, 1, 6, 14, 15}, set(range(16))])
@pytest.mark.parametrize("size", [1, 2, 3, 5, 8, 40])
@pytest.mark.parametrize("node", [None, 0, 1])
def test_no_rank_is_bound_to_nothing_or_outside_its_cpuset_and_all_is_used(
    allowed: set[int], size: int, node: int | None, tmp_path: Path
) -> None:
    processors = read_processors(allowed, two_sockets(tmp_path))
    shares = [share_of_rank(processors, rank, size, (node,) * size) for rank in range(size)]
    assert all(share and share <= allowed for share in shares)
    near = {each.number for each in processors if each.node == node} or allowed
    assert frozenset().union(*shares) == near
    if len(near) >= size:
        assert sum(map(len, shares)) == len(near)  # nobody shares


def test_cores_are_counted_once(tmp_path: Path) -> None:
    processors = read_processors(range(16), two_sockets(tmp_path))
    assert count_cores(processors, {0, 8, 1}) == 2
    assert count_cores(processors, range(16)) == 8


@pytest.mark.parametrize("file", ["core_cpus_list", "thread_siblings_list"])
def test_older_kernels_name_the_siblings_otherwise(file: str, tmp_path: Path) -> None:
    processors = read_processors(range(4), machine(tmp_path, ["0-3"], ["0-1", "2-3"], file))
    assert [processor.core for processor in processors] == [0, 0, 2, 2]


def test_a_machine_that_says_nothing_has_a_core_a_processor(tmp_path: Path) -> None:
    processors = read_processors({5, 2}, tmp_path)
    assert [tuple(processor) for processor in processors] == [(2, 2, 0), (5, 5, 0)]


@pytest.mark.parametrize(("text", "node"), [("1\n", 1), ("0", 0), ("-1\n", None), ("none", None)])
def test_the_node_of_a_gpu_is_read_by_its_address(text: str, node: int | None, tmp_path: Path) -> None:
    folder = tmp_path / "bus/pci/devices/0000:3b:00.0"
    folder.mkdir(parents=True)
    (folder / "numa_node").write_text(text)
    assert gpu_node("0000:3B:00.0", tmp_path) == node
    assert gpu_node("0000:5e:00.0", tmp_path) is None


@pytest.mark.parametrize(
    ("text", "numbers"),
    [("0-3,8\n", {0, 1, 2, 3, 8}), ("7", {7}), ("", set()), ("3-1", set()), ("x,2", {2}), ("1-2-3", set())],
)
def test_a_list_of_processors_is_read(text: str, numbers: set[int]) -> None:
    assert parse_cpu_list(text) == numbers


@pytest.mark.parametrize("text", ["", "0", "0-3,8", "1,3,5-6"])
def test_a_list_is_written_as_it_was_read(text: str) -> None:
    assert format_cpu_list(parse_cpu_list(text)) == text


@pytest.mark.parametrize(
    ("own", "starters", "torchrun", "asked"),
    [
        ({}, {}, False, None),
        ({"OMP_NUM_THREADS": "4"}, {}, False, 4),
        ({"OMP_NUM_THREADS": "4,2"}, None, False, 4),
        ({"OMP_NUM_THREADS": "1"}, {}, True, None),  # torchrun's own
        ({"OMP_NUM_THREADS": "1"}, {"OMP_NUM_THREADS": "1"}, True, 1),
        ({"OMP_NUM_THREADS": "1"}, None, True, 1),  # cannot be known
        ({"OMP_NUM_THREADS": "2"}, {}, True, 2),
        ({"OMP_NUM_THREADS": "1"}, {}, False, 1),
        ({"OMP_NUM_THREADS": "many"}, {}, False, None),
    ],
)
def test_torchruns_default_is_nobodys_choice(
    own: dict[str, str], starters: dict[str, str] | None, torchrun: bool, asked: int | None
) -> None:
    assert threads_asked(own, starters, torchrun=torchrun) == asked
