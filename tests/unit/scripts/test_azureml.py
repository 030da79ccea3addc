"""The job file for Azure ML: its schema, and the command that it holds."""

import copy
import re
import shlex
from collections.abc import Callable
from typing import Any

import pytest
import yaml

from bert_pytorch.config.command_line import parse_settings
from bert_pytorch.launch.allocation import read_allocation
from bert_pytorch.launch.config import read_request
from bert_pytorch.launch.phases import words_of_phase
from bert_pytorch.pretraining.config import PretrainingConfig
from tests.support.data import REPOSITORY
from tests.support.manifests import schema_problems

FILE = REPOSITORY / "scripts" / "launch" / "azureml" / "pretraining.yml"

Job = dict[str, Any]


def job() -> Job:
    document: Job = yaml.safe_load(FILE.read_text(encoding="utf-8"))
    return document


def test_the_cli_takes_it() -> None:
    assert list(schema_problems(job(), "azure_command_job")) == []


@pytest.mark.parametrize(
    "change",
    [
        lambda d: d.pop("command"),
        lambda d: d.update(instance_count=2),
        lambda d: d["distribution"].update(type="ddp"),
        lambda d: d["resources"].update(shm_size="16 GB"),
        lambda d: d["services"]["my_tensorboard"].update(logDir="outputs"),
        lambda d: d["services"]["my_tensorboard"].update(type="vs_code"),
        lambda d: d["inputs"]["shards_128"].update(mode="rw_mount"),
        lambda d: d["environment"]["build"].pop("path"),
        lambda d: d["environment_variables"].update(OMP_NUM_THREADS=1),
    ],
)
def test_a_broken_job_is_found(change: Callable[[Job], object]) -> None:
    document = copy.deepcopy(job())
    change(document)
    assert list(schema_problems(document, "azure_command_job"))


@pytest.mark.parametrize("sharded", [False, True])
def test_its_command_runs_both_phases_on_inputs_and_output_that_it_declares(sharded: bool) -> None:
    document = job()
    if sharded:  # as its first lines tell, for ZeRO
        told = re.search(r"^# .* --set inputs\.(\S+)=(\S+)$", FILE.read_text(encoding="utf-8"), re.MULTILINE)
        assert told
        assert told[1] in document["inputs"]
        document["inputs"][told[1]] = told[2]
        assert list(schema_problems(document, "azure_command_job")) == []
    *_, command = document["command"].split("&&")

    def mounted(found: re.Match[str]) -> str:
        value = document[found[1]][found[2]]
        return value if isinstance(value, str) else f"/{value['mode']}/{found[2]}"

    words = shlex.split(re.sub(r"\$\{\{(\w+)\.(\w+)\}\}", mounted, command))
    assert words[:3] == ["python", "-m", "bert_pytorch.launch"]
    request = read_request(words[3:], {})
    assert request.config.phase == "both"
    for phase, length, batch in (("1", 128, 65536), ("2", 512, 32768)):
        words = words_of_phase(request.words, phase)
        config = parse_settings(PretrainingConfig, words, program="", description="").settings
        assert config.input_dir == (f"/ro_mount/shards_{length}",)
        assert str(config.output_dir) == "/rw_mount/run"
        assert config.global_batch_size == batch
        assert config.shard_optimizer == sharded


def test_each_machine_runs_one_launcher_that_finds_the_others_by_azures_variables() -> None:
    document = job()
    assert document["distribution"] == {"type": "pytorch", "process_count_per_instance": 1}
    words = shlex.split(document["command"].split("&&")[-1])
    azure = {"MASTER_ADDR": "10.0.0.4", "MASTER_PORT": "6105", "WORLD_SIZE": "2", "RANK": "1", "NODE_RANK": "1"}
    config = read_request(words[3:], {}).config
    found = read_allocation(config, azure, local_gpus=8, has_program=lambda name: False)
    assert (found.nodes, found.starter, found.processes) == (("10.0.0.4", "machine-1"), "each", "gpu")


def test_tensorboard_shows_the_runs_own_curves() -> None:
    document = job()
    assert f"/tensorboard {document['services']['my_tensorboard']['log_dir']}" in document["command"]
    build = document["environment"]["build"]
    context = (FILE.parent / build["path"]).resolve()
    assert context == REPOSITORY
    assert (context / build["dockerfile_path"]).is_file()
