"""torchrun on two machines, of which one is lost and comes back: the run goes on from its last checkpoint by itself."""

import socket
from pathlib import Path
from typing import Any

from tests.support.agents import agent_command, lose, started_agent
from tests.support.runs import (
    assert_same_state,
    checkpoint,
    metrics,
    pretraining_command,
    run_ranks,
    wait_until,
)
from tests.support.slurm import free_ports

UPDATES = 60


def test_the_machine_that_does_not_host_the_meeting_is_lost_and_comes_back(
    shards64: Path, tiny_model: Path, tmp_path: Path
) -> None:
    flags: dict[str, Any] = {
        "input_dir": shards64, "model_config_file": tiny_model, "learning_rate": 5e-3, "global_batch_size": 8,
        "local_batch_size": 4, "max_steps": UPDATES, "num_steps_per_checkpoint": 10, "max_predictions_per_seq": 10,
        "num_workers": 1,
    }  # fmt: skip
    whole, run = tmp_path / "whole", tmp_path / "run"
    run_ranks([pretraining_command(**flags, output_dir=whole)] * 2, tmp_path / "whole.log")

    (port,) = free_ports(1)
    command = agent_command(port, pretraining_command(**flags, output_dir=run)[1:])
    host_log, other_log = tmp_path / "host.log", tmp_path / "other.log"
    with started_agent(command, host_log) as host:
        wait_until(lambda: hosts_meeting(port), 60, "the first agent to host the meeting")
        with started_agent(command, other_log) as other:
            wait_until(lambda: len(metrics(run, "train")) >= 15, 90, "fifteen updates")
            lose(other)
        assert len(metrics(run, "train")) < UPDATES
        with started_agent(command, other_log) as again:
            assert again.wait(90) == 0, other_log.read_text() + host_log.read_text()
            assert host.wait(30) == 0, host_log.read_text()

    for part in ("model", "optimizer", "data_position"):
        assert_same_state(checkpoint(whole, UPDATES)[part], checkpoint(run, UPDATES)[part], part)
    rows, wanted = metrics(run, "train"), metrics(whole, "train")
    assert [row["step"] for row in rows] == list(range(1, UPDATES + 1))
    assert [row["loss"] for row in rows] == [row["loss"] for row in wanted]
    first, second = metrics(run, "start")
    assert first["step"] == 0
    assert second["step"] >= 10
    assert second["step"] % 10 == 0


def hosts_meeting(port: int) -> bool:
    with socket.socket() as call:
        return call.connect_ex(("127.0.0.1", port)) == 0
