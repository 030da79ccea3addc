"""`inspect environment`: complete, quick, without secrets, and alive where torch is not."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from bert_pytorch.inspect.environment import AskedTorch, environment_facts, rank_facts, report_lines
from bert_pytorch.inspect.machine import file_system_of, folder_facts, memory_facts, processor_facts
from bert_pytorch.inspect.variables import HIDDEN, shown_variables
from tests.support.commands import run_python
from tests.support.runs import REPOSITORY

SECTIONS = (
    *("bert_pytorch", "system", "torch", "processors", "memory", "NVIDIA driver", "compilers", "folders"),
    *("network", "ranks", "variables"),
)


def test_the_report_names_versions_processors_precision_and_attention_within_seconds(tmp_path: Path) -> None:
    begun = time.monotonic()
    done = run_python("-m", "bert_pytorch.inspect", "environment", "--as_json", tmp_path)
    seconds = time.monotonic() - begun
    assert done.code == 0, done.stderr
    found = json.loads(done.stdout)
    assert tuple(found) == SECTIONS
    versions = subprocess.run(
        [sys.executable, "-c", "import torch, numpy, sys; print(torch.__version__, numpy.__version__)"],
        capture_output=True, text=True, check=True,
    ).stdout.split()  # fmt: skip
    assert [found["torch"]["torch"], found["system"]["numpy"]] == versions
    commit = subprocess.run(["git", "-C", str(REPOSITORY), "rev-parse", "HEAD"], capture_output=True, text=True)
    if commit.returncode == 0:
        assert found["bert_pytorch"]["commit"].startswith(commit.stdout.strip())
    assert found["torch"]["precision"].split()[0] in ("fp32", "bf16", "fp16")
    assert found["torch"]["attention"]["sdpa"] == "can be used"
    assert found["processors"]["usable"].startswith(str(len(os.sched_getaffinity(0))))
    assert "free" in found["folders"][str(tmp_path)]
    assert seconds < 30  # 3 s on an idle machine; this one is shared


def test_text_has_a_heading_a_section_and_a_line_a_fact() -> None:
    facts = {"torch": {"torch": "2", "gpus": [{"name": "H100", "memory": 80}], "attention": {"sdpa": "yes"}}, "x": {}}
    assert list(report_lines(facts, color=False)) == [
        "torch",
        "  torch  2",
        "  gpus",
        "    - name H100, memory 80",
        "  attention",
        "    sdpa  yes",
        "x",
        "  none",
    ]


@pytest.mark.parametrize(
    ("program", "said"),
    [
        ("import sys; sys.exit('ImportError: libcudart.so.12: cannot open shared object file')", "libcudart.so.12"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)", "ended by signal 11"),
        ("raise ModuleNotFoundError(\"No module named 'torch'\")", "No module named 'torch'"),
    ],
)
def test_a_torch_that_is_missing_or_crashes_is_told_beside_everything_else(
    program: str, said: str, tmp_path: Path
) -> None:
    broken = tmp_path / "python"
    broken.write_text(f"#!{sys.executable}\n{program}\n")
    broken.chmod(0o755)
    found = environment_facts((tmp_path,), python=str(broken))
    assert said in found["torch"]["broken"]
    assert found["processors"]["processors"] == os.cpu_count()


def test_an_interpreter_that_is_not_there_is_told(tmp_path: Path) -> None:
    assert "cannot be started" in AskedTorch(str(tmp_path / "nowhere")).answer()["broken"]


def test_only_known_variables_are_shown_and_secrets_never() -> None:
    shown = shown_variables(
        {
            "SLURM_JOB_ID": "7",
            "SLURM_JWT": "secret1",
            "RANK": "0",
            "RANKING": "x",
            "HF_TOKEN": "secret2",
            "AWS_SECRET_ACCESS_KEY": "secret3",
            "NCCL_API_KEY": "secret4",
            "PBS_O_PASSWORD": "secret5",
            "BERT_PYTORCH_CACHE": "s3://me:secret6@host/cache",
            "CUDA_VISIBLE_DEVICES": "0,1",
            "OMP_NUM_THREADS": "\x1b[31m4",
            "PATH": "/bin",
        }
    )
    assert "secret" not in str(shown)
    assert shown == {
        "BERT_PYTORCH_CACHE": f"s3://{HIDDEN}@host/cache",
        "CUDA_VISIBLE_DEVICES": "0,1",
        "NCCL_API_KEY": HIDDEN,
        "OMP_NUM_THREADS": "\\x1b[31m4",
        "PBS_O_PASSWORD": HIDDEN,
        "RANK": "0",
        "SLURM_JOB_ID": "7",
        "SLURM_JWT": HIDDEN,
    }


def test_a_long_value_is_cut() -> None:
    (value,) = shown_variables({"SLURM_JOB_NODELIST": "n" * 5000}).values()
    assert len(value) < 250
    assert "5000 characters" in value


def test_ranks_are_told_with_the_rule_that_found_them() -> None:
    found = rank_facts(
        {
            "SLURM_JOB_ID": "7", "SLURM_STEP_ID": "0", "SLURM_PROCID": "3", "SLURM_STEP_NUM_TASKS": "5",
            "SLURM_LOCALID": "1", "SLURM_NODEID": "1", "SLURM_STEP_TASKS_PER_NODE": "2(x2),1",
            "SLURM_STEP_NODELIST": "n[1-3]",
        }
    )  # fmt: skip
    assert found["started by"] == "SLURM"
    assert found["rank"] == "3 of 5, local rank 1 of 2"
    assert found["machines"] == "n1, n2, n3"
    assert found["meeting"].startswith("n1:")


MOUNTS = (
    "overlay / overlay rw 0 0\ntmpfs /tmp tmpfs rw 0 0\nhost:/x /data/my\\040files nfs4 rw 0 0\nx /tmp ext4 rw 0 0\n"
)


@pytest.mark.parametrize(
    ("folder", "kind"),
    [("/home", "overlay"), ("/tmp/a", "ext4"), ("/tmpx", "overlay"), ("/data/my files/run", "nfs4"), ("/", "overlay")],
)
def test_the_file_system_is_that_of_the_nearest_mount(folder: str, kind: str) -> None:
    assert file_system_of(Path(folder), MOUNTS) == kind


def test_a_folder_that_is_not_there_yet_shows_the_one_above(tmp_path: Path) -> None:
    (line,) = folder_facts([tmp_path / "runs" / "new"]).values()
    assert line.startswith(f"not there; {tmp_path}: ")


def test_memory_and_model_are_read_as_the_kernel_writes_them(tmp_path: Path) -> None:
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc/meminfo").write_text("MemTotal:       16384000 kB\nMemAvailable:    8192000 kB\n")
    (tmp_path / "proc/cpuinfo").write_text("processor\t: 0\nmodel name\t: AMD EPYC 7763\n")
    assert memory_facts(tmp_path) == {"total": "15.6 GiB", "available": "7.8 GiB", "limit of the container": "none"}
    assert processor_facts(tmp_path)["model"] == "AMD EPYC 7763"
