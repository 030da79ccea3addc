"""`launch check` on real ranks, some of which hang; ranks on processors of their own."""

import json
import os
import re
import shutil
import signal
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.support import sshd
from tests.support.runs import REPOSITORY, run_program, started, torchrun, wait_until
from tests.support.slurm import free_ports

CHECK = str(REPOSITORY / "scripts" / "launch" / "check.py")
QUICK = ("--device", "cpu", "--largest_mib", "1", "--seconds_per_size=0.02")
LAUNCH = [sys.executable, "-m", "bert_pytorch.launch", "check"]

two_processors = pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="needs two processors")


def rank(number: int, size: int, port: int, *options: str) -> list[str]:
    method = f"tcp://127.0.0.1:{port}?rank={number}&world_size={size}"
    return [sys.executable, CHECK, *(options or QUICK), "--init_method", method]


def assert_complete(report: dict[str, Any], ranks: int) -> None:
    assert [each["rank"] for each in report["ranks"]] == list(range(ranks))
    assert all(each["flops"] > 1e8 for each in report["ranks"])
    sizes = [message["num_bytes"] for message in report["messages"]]
    assert sizes == [8, 1 << 12, 1 << 16, 1 << 20]
    for message in report["messages"]:
        assert message["algorithm_bandwidth"] == pytest.approx(message["num_bytes"] / message["seconds"])
        assert message["bus_bandwidth"] == pytest.approx(message["algorithm_bandwidth"] * 2 * (ranks - 1) / ranks)
    bandwidths = [message["algorithm_bandwidth"] for message in report["messages"]]
    assert bandwidths[-1] > bandwidths[0]  # of a hundred thousand times the bytes; which takes longer, load decides


def test_the_launcher_checks_all_ranks_of_this_machine() -> None:
    done = run_program([*LAUNCH, "--nproc_per_node", "3", *QUICK, "--as_json"])
    assert done.code == 0, done.err
    report = json.loads(done.out)
    assert_complete(report, 3)
    assert report["network"] == "within this machine"


def test_a_person_reads_a_table() -> None:
    done = run_program([*LAUNCH, *QUICK, "--nproc_per_node", "2"])
    assert done.code == 0, done.err
    assert "2 ranks on 1 machine; network: within this machine" in done.out
    assert re.search(r"float32 +1 MiB +[\d.]+ (us|ms) +[\d.]+ +[\d.]+", done.out)
    assert re.search(r"latency [\d.]+ (us|ms) \(8 B\), bandwidth [\d.]+ GB/s on the bus", done.out)
    assert len(re.findall(r"^  rank \d .* GFLOP/s  cpu, \d+ threads", done.out, re.MULTILINE)) == 2


def test_one_process_checks_itself() -> None:
    done = run_program([sys.executable, CHECK, *QUICK])
    assert done.code == 0, done.err
    assert "one rank: nobody to exchange messages with" in done.out
    assert "GFLOP/s" in done.out


@pytest.mark.skipif(shutil.which("mpirun") is None, reason="mpirun is not installed (apt: openmpi-bin)")
def test_ranks_of_open_mpi_check_each_other_and_keep_its_binding() -> None:
    bound = "core" if len(os.sched_getaffinity(0)) > 1 else "none"
    mpirun = ["mpirun", "--allow-run-as-root", "--oversubscribe", "--bind-to", bound, "-np", "2"]
    done = run_program([*mpirun, sys.executable, CHECK, *QUICK, "--as_json"])
    assert done.code == 0, done.err
    report = json.loads(done.out)
    assert_complete(report, 2)
    if bound == "core":
        assert all("bound by Open MPI" in each["processors"] for each in report["ranks"])
        assert len({each["processors"].partition(",")[0] for each in report["ranks"]}) == 2


@pytest.mark.skipif(bool(sshd.missing_programs()), reason="not installed: openssh-server")
def test_two_machines_over_ssh_are_named(tmp_path: Path) -> None:
    with sshd.running_machines(tmp_path) as variables:
        nodes = ["--nodes", ",".join(sshd.MACHINES), "--port", str(free_ports(1)[0])]
        done = run_program([*LAUNCH, *nodes, *QUICK, "--as_json"], **variables)
    assert done.code == 0, done.err
    assert_complete(json.loads(done.out), 2)


def test_a_rank_that_comes_late_is_waited_for(tmp_path: Path) -> None:
    (port,) = free_ports(1)
    with started(rank(0, 2, port), tmp_path / "log") as first:
        wait_until(lambda: port_is_open(port), 60, "rank 0's store")
        assert first.poll() is None
        done = run_program(rank(1, 2, port))
        assert done.code == 0, done.err
        assert first.wait(60) == 0
    assert "2 ranks on 1 machine" in (tmp_path / "log").read_text()


def test_a_rank_that_never_comes_is_named_in_time() -> None:
    (port,) = free_ports(1)
    done = run_program(rank(0, 2, port, "--rendezvous_timeout_minutes", "0.02"))
    assert done.code == 1
    assert "1 of 2 ranks joined" in done.err
    assert "missing: rank 1" in done.err
    assert "Traceback" not in done.err


@pytest.mark.parametrize(
    ("lost", "number"),
    [(1, signal.SIGSTOP), (1, signal.SIGKILL), (0, signal.SIGSTOP)],
    ids=["1 hangs", "1 is killed", "0 hangs, which keeps the store"],
)
def test_a_rank_that_is_lost_while_messages_travel_is_named_in_time(lost: int, number: int, tmp_path: Path) -> None:
    (port,) = free_ports(1)
    options = ("--device", "cpu", "--stage_seconds", "3", "--seconds_per_size", "30")
    logs = [tmp_path / "log 0", tmp_path / "log 1"]
    with (
        started(rank(0, 2, port, *options), logs[0]) as first,
        started(rank(1, 2, port, *options), logs[1]) as second,
    ):
        victim, survivor = (first, second) if lost == 0 else (second, first)
        wait_until(lambda: cpu_seconds(victim.pid) > 4 or victim.poll() is not None, 90, "messages")
        victim.send_signal(number)
        assert survivor.wait(90) == 1
    told = logs[1 - lost].read_text()
    assert re.search(rf"error: .*rank {lost} on \S+ did not answer within 3 s", told), told
    assert "Traceback" not in told


@two_processors
def test_ranks_of_torchrun_train_on_processors_of_their_own_with_as_many_threads(
    tiny_model: Path, shards64: Path, tmp_path: Path
) -> None:
    flags = {
        "model_config_file": tiny_model, "input_dir": shards64, "max_steps": 1, "global_batch_size": 4,
        "max_predictions_per_seq": 10, "output_dir": tmp_path / "run", "skip_checkpoint": True,
    }  # fmt: skip
    command = ["env", "-u", "OMP_NUM_THREADS", "-u", "MKL_NUM_THREADS", *torchrun(2, **flags)]
    done = run_program(command)
    assert done.code == 0, done.err
    allowed = sorted(os.sched_getaffinity(0))
    share = len(allowed) // 2
    assert f"processors: {share} (" in done.out
    assert f"{share} threads; local rank 0 of 2; network: within this machine" in done.out


def port_is_open(port: int) -> bool:
    """Whether somebody listens, without taking a place among those who are waited for."""
    listening = f":{port:04X} "
    lines = [line for name in ("tcp", "tcp6") for line in Path(f"/proc/net/{name}").read_text().splitlines()[1:]]
    return any(listening in line.split()[1] + " " and line.split()[3] == "0A" for line in lines)


def cpu_seconds(pid: int) -> float:
    """Return the processor time of a process."""
    try:
        words = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except FileNotFoundError:
        return 0.0
    return (int(words[11]) + int(words[12])) / os.sysconf("SC_CLK_TCK")
