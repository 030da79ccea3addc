"""Node lists: SLURM's compact form as scontrol(1) describes it, and node files; hostile ones are refused."""

import shutil
import subprocess
from pathlib import Path

import pytest

from bert_pytorch.errors import ConfigError
from bert_pytorch.runtime.nodes import expand_counts, expand_node_list, read_node_file, same_machine

LISTS = [
    ("node1", ["node1"]),
    ("node[1-3]", ["node1", "node2", "node3"]),
    ("gpu[01-03,7],login", ["gpu01", "gpu02", "gpu03", "gpu7", "login"]),
    ("n[9-11]", ["n9", "n10", "n11"]),
    ("rack[0-1]n[08-10]", [f"rack{rack}n{node}" for rack in (0, 1) for node in ("08", "09", "10")]),
    ("a.b.c,d-e", ["a.b.c", "d-e"]),
]


@pytest.mark.parametrize(("text", "names"), LISTS)
def test_a_compact_list_names_its_machines(text: str, names: list[str]) -> None:
    assert expand_node_list(text) == names


@pytest.mark.skipif(shutil.which("scontrol") is None, reason="SLURM's scontrol is not installed (apt: slurm-wlm)")
@pytest.mark.parametrize("text", [text for text, _ in LISTS])
def test_scontrol_names_the_same_machines(text: str, tmp_path: Path) -> None:
    conf = tmp_path / "slurm.conf"
    conf.write_text("ClusterName=none\nSlurmctldHost=localhost\n")
    done = subprocess.run(
        ["scontrol", "show", "hostnames", text],
        env={"SLURM_CONF": str(conf)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert expand_node_list(text) == done.stdout.split()


@pytest.mark.parametrize(
    "text",
    [
        "",
        ",",
        "node[1-",
        "node[a-b]",
        "node[3-1]",
        "node[1-999999999999]",
        "n[1-999]x[1-999]",
        "a b",
        "$(id)",
        "-oProxyCommand=x",
    ],
)
def test_what_is_no_list_of_machines_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="node list"):
        expand_node_list(text)


@pytest.mark.parametrize(
    ("text", "counts"),
    [
        ("2(x3),1", [2, 2, 2, 1]),
        ("72", [72]),
        ("1,2,3", [1, 2, 3]),
        ("", []),
        ("2(x3", []),
        ("1(x999999),1(x999999)", []),
    ],
)
def test_compact_counts_are_one_a_node(text: str, counts: list[int]) -> None:
    assert expand_counts(text) == counts


@pytest.mark.parametrize(
    "text",
    [
        "nid1\nnid2\n",  # Cobalt
        "nid1\nnid1\nnid2\nnid2\n",  # PBS: a line a slot
        "nid1 4 all.q@nid1 <NULL>\nnid2 4 all.q@nid2 <NULL>\n",  # SGE
        "# made by the operator\nnid1 slots=8\n\nnid2 slots=8\n",  # Open MPI
        "nid1:8\nnid2:8\n",  # MPICH
    ],
)
def test_a_node_file_names_each_machine_once(text: str) -> None:
    assert read_node_file(text.splitlines()) == ["nid1", "nid2"]


@pytest.mark.parametrize("text", ["", "# nothing\n", "-oProxyCommand=x\n", "a;b\n"])
def test_a_node_file_without_names_is_refused(text: str) -> None:
    with pytest.raises(ConfigError):
        read_node_file(text.splitlines())


def test_short_and_full_names_are_one_machine() -> None:
    assert same_machine("node1", "Node1.cluster.org")
    assert not same_machine("node1", "node10")
