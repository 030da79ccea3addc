"""What `launch kubernetes` prints: valid for Kubernetes and Kubeflow, and the same run whatever the cards."""

import copy
import io
import itertools
import os
import subprocess
import sys
import typing
from collections.abc import Callable, Sequence
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import pytest
import yaml

from bert_pytorch.config.command_line import parse_settings
from bert_pytorch.config.settings import Settings
from bert_pytorch.corpus.encoding import EncodeConfig
from bert_pytorch.corpus.formatting import FormatConfig
from bert_pytorch.corpus.vocabulary import VocabConfig
from bert_pytorch.errors import ConfigError
from bert_pytorch.finetuning.squad import SquadRunConfig
from bert_pytorch.inference.answer import AnswerCommandConfig
from bert_pytorch.launch.allocation import Allocation, read_allocation
from bert_pytorch.launch.config import REPOSITORY, Request, read_request
from bert_pytorch.launch.kubernetes import MANIFESTS, KubernetesConfig, main, render
from bert_pytorch.launch.phases import words_of_phase
from bert_pytorch.pretraining.config import PretrainingConfig
from bert_pytorch.runtime.device import DeviceConfig
from tests.support.data import shared_data
from tests.support.manifests import KUBERNETES_VERSIONS, crd_problems, pods, problems, templates, words_of

Manifest = dict[str, Any]

IMAGE = "registry.example/bert_pytorch:0.1.0-cuda"
SETS = "/data/corpus/encoded/sequences_lowercase_max_seq_len_{}_next_seq_task_true"
PRETRAINING = [
    "--phase", "both", "run_pretraining.py", "--output_dir", "/runs/large",
    "--input_dir_phase1", SETS.format(128), "--input_dir_phase2", SETS.format(512),
]  # fmt: skip
FINE_TUNING = [
    "run_squad.py", "--init_checkpoint", "/runs/large", "--do_train", "--train_file", "/data/squad/train-v1.1.json",
    "--output_dir", "/runs/squad",
]  # fmt: skip
INFERENCE = [
    "run_squad.py", "--init_checkpoint", "/runs/squad", "--do_predict", "--predict_file", "/data/squad/dev-v1.1.json",
    "--output_dir", "/runs/answers",
]  # fmt: skip
STAGES = {"format": FormatConfig, "vocab": VocabConfig, "encode": EncodeConfig}
TASKS = {"pretraining": PRETRAINING, "fine-tuning": FINE_TUNING, "inference": INFERENCE}
DATA = [
    "scripts/create_datasets.sh", "--output", "/data/corpus", "--nproc", "32", "--input", "/data/text",
    "--encode-type", "bert",
]  # fmt: skip
ANSWERING = [
    "python", "-m", "bert_pytorch.predict", "answer", "--checkpoint", "/runs/squad",
    "--input_file", "/data/squad/dev-v1.1.json", "--output_file", "/runs/answers.jsonl",
]  # fmt: skip
SIZES = {
    1: [("pod", 1, 1), ("job", 1, 1), ("pytorchjob", 1, 1)],
    8: [("pod", 1, 8), ("job", 1, 8), ("pytorchjob", 1, 8), ("mpijob", 2, 4)],
    32: [("pytorchjob", 4, 8), ("mpijob", 4, 8)],
}
SHAPES = [(cards, *shape) for cards, shapes in SIZES.items() for shape in shapes]
DEVICES = ("cuda", "hpu")
CARDS = {"cuda": "nvidia.com/gpu", "hpu": "habana.ai/gaudi"}


def manifest(words: Sequence[str], **options: object) -> Manifest:
    """Render as `main` does, through the text that kubectl reads."""
    config = KubernetesConfig.model_validate({"image": IMAGE} | options).checked("launch kubernetes")
    document: Manifest = yaml.safe_load(yaml.safe_dump(render(config, words)))
    return document


def every_combination() -> list[Any]:
    return [
        pytest.param({"device": device, "kind": kind, "machines": machines, "cards": each}, words, cards,
                     id=f"{task}-{device}-{kind}-{machines}x{each}")
        for task, words in TASKS.items() for device in DEVICES for cards, kind, machines, each in SHAPES
    ] + [
        pytest.param({"device": "cpu", "kind": "job", "cpus_per_card": 32}, DATA, 0, id="data-cpu-job"),
        pytest.param({"device": "cuda", "kind": "pod"}, ANSWERING, 1, id="answering-cuda-pod"),
    ]  # fmt: skip


combinations = pytest.mark.parametrize(("options", "words", "cards"), every_combination())


def started(document: Manifest) -> tuple[Manifest, list[str]]:
    """Return the Pod whose container runs our program, and the words of it."""
    spec = next(pod for pod in pods(document) if "sshd" not in pod["containers"][0]["command"][0])
    return spec, words_of(spec["containers"][0])


def request_of(document: Manifest) -> Request:
    """Return what the launcher in the Pod makes of its words."""
    words = started(document)[1]
    assert words[:3] == ["python", "-m", "bert_pytorch.launch"]
    return read_request(words[3:], {})


def read(words: Sequence[str], settings: type[Settings]) -> Settings:
    device = next((words[index + 1] for index, word in enumerate(words) if word == "--device"), "auto")
    if device not in typing.get_args(DeviceConfig.model_fields["device"].annotation):
        pytest.skip(f"--device {device} is not in this version")
    return parse_settings(settings, list(words), program="test", description="").settings


@combinations
@pytest.mark.parametrize("version", KUBERNETES_VERSIONS)
def test_kubernetes_and_kubeflow_take_it(options: Manifest, words: list[str], cards: int, version: str) -> None:
    assert problems(manifest(words, **options), version) == []


@pytest.mark.parametrize("kind", ["mpijob", "pytorchjob"])
def test_the_operators_own_definitions_take_it(kind: str) -> None:
    definition = shared_data("schemas", f"kubeflow.org_{kind}s.yaml")
    for device, words in itertools.product(DEVICES, TASKS.values()):
        document = manifest(words, device=device, kind=kind, machines=4, cards=8)
        assert crd_problems(document, definition) == []
    replicas = next(value for name, value in document["spec"].items() if name.endswith("ReplicaSpecs"))
    replicas["Worker"]["replicas"] = "4"
    assert crd_problems(document, definition)


@combinations
def test_it_has_the_cards_and_a_process_for_each(options: Manifest, words: list[str], cards: int) -> None:
    document = manifest(words, **options)
    spec = document["spec"]
    replicas = spec.get("mpiReplicaSpecs") or spec.get("pytorchReplicaSpecs") or {"one": {"replicas": 1}}
    found = 0
    for replica, pod in zip(replicas.values(), pods(document), strict=True):
        resources = pod["containers"][0]["resources"]
        assert resources["requests"] == resources["limits"]
        mine = {name: value for name, value in resources["limits"].items() if name in CARDS.values()}
        assert set(mine) <= {CARDS.get(options["device"])}
        found += replica["replicas"] * sum(mine.values())
        assert ("hugepages-2Mi" in resources["limits"]) == (options["device"] == "hpu" and bool(mine))
        assert pod.get("hostIPC", False) == (options["device"] == "hpu" and bool(mine))
    assert found == cards
    if words in TASKS.values():
        assert int(request_of(document).config.nproc_per_node or 0) * options["machines"] == cards


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize(("phase", "batch"), [("1", 65536), ("2", 32768)])
def test_the_global_batch_is_the_runs_whatever_the_cards(device: str, phase: str, batch: int) -> None:
    for _, kind, machines, each in SHAPES:
        request = request_of(manifest(PRETRAINING, device=device, kind=kind, machines=machines, cards=each))
        assert request.config.phase == "both"
        config = read(words_of_phase(request.words, phase), PretrainingConfig)
        assert isinstance(config, PretrainingConfig)
        assert config.global_batch_size == batch
        assert config.device == device


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("task", ["fine-tuning", "inference"])
def test_fine_tuning_takes_its_words_whatever_the_cards(task: str, device: str) -> None:
    found = set()
    for _, kind, machines, each in SHAPES:
        request = request_of(manifest(TASKS[task], device=device, kind=kind, machines=machines, cards=each))
        config = read(request.words, SquadRunConfig)
        assert isinstance(config, SquadRunConfig)
        found.add((config.do_train, config.do_predict, config.train_batch_size, config.device))
    assert found == {(task == "fine-tuning", task == "inference", 32, device)}


def test_a_command_of_one_process_is_run_as_it_is() -> None:
    assert started(manifest(DATA, device="cpu"))[1] == DATA
    assert started(manifest(ANSWERING))[1] == ANSWERING
    read(ANSWERING[4:], AnswerCommandConfig)
    environment = {**os.environ, "PYTHON": "echo"}
    done = subprocess.run(["bash", *DATA], cwd=REPOSITORY, env=environment, capture_output=True, text=True, check=True)
    stages = [line.split() for line in done.stdout.splitlines()]
    assert [words[:3] for words in stages] == [["-m", "bert_pytorch.corpus", name] for name in STAGES]
    for words, settings in zip(stages, STAGES.values(), strict=True):
        read(words[3:], settings)


@combinations
def test_paths_lie_in_volumes_and_what_is_written_in_one_that_can_be(
    options: Manifest, words: list[str], cards: int
) -> None:
    spec, found = started(manifest(words, **options))
    mounts = {mount["mountPath"]: mount.get("readOnly", False) for mount in spec["containers"][0]["volumeMounts"]}
    assert {mount["name"] for mount in spec["containers"][0]["volumeMounts"]} <= {v["name"] for v in spec["volumes"]}
    for word, following in itertools.pairwise(found):
        if following.startswith("/"):
            (mount,) = (path for path in ("/data", "/runs") if following.startswith(path + "/"))
            assert mount in mounts
            if word in ("--output", "--output_dir", "--output_file"):
                assert not mounts[mount]
    for entry in spec["containers"][0]["env"]:
        assert not entry["value"].startswith("/") or any(entry["value"].startswith(path) for path in mounts)


@combinations
def test_nothing_is_privileged_and_a_stop_has_time_to_save(options: Manifest, words: list[str], cards: int) -> None:
    document = manifest(words, **options)
    for pod in pods(document):
        (container,) = pod["containers"]
        security = container["securityContext"]
        assert pod["securityContext"]["runAsNonRoot"]
        assert pod["securityContext"]["runAsUser"] > 0
        assert security["allowPrivilegeEscalation"] is False
        assert security["capabilities"]["drop"] == ["ALL"]
        assert "privileged" not in security
        assert not any("hostPath" in volume for volume in pod["volumes"])
        memory = next(volume["emptyDir"] for volume in pod["volumes"] if volume["name"] == "shared-memory")
        assert memory["medium"] == "Memory"
        if words in TASKS.values():
            assert pod["terminationGracePeriodSeconds"] > request_of(document).config.grace_seconds + 10
    if document["kind"] == "Job":
        assert templates(document)[0]["spec"]["restartPolicy"] == "Never"


def test_a_longer_grace_of_the_launcher_is_a_longer_one_of_the_pod() -> None:
    (pod,) = pods(manifest(["--grace_seconds", "600", *PRETRAINING]))
    assert pod["terminationGracePeriodSeconds"] == 660


def test_words_reach_the_program_as_they_are() -> None:
    odd = ["$(HOME)", "$$", "a$b", "$(id)", "`id`", "a 'b' \"c\"", "", "{x: 1}", "- y", "# z"]
    request = request_of(manifest([*PRETRAINING, "--log_prefix", *odd]))
    assert list(request.words[-len(odd) - 2 : -2]) == odd


def test_every_machine_of_a_pytorchjob_runs_a_launcher_that_meets_the_others_at_the_master() -> None:
    document = manifest(PRETRAINING, kind="pytorchjob", machines=4, cards=8, name="large")
    assert [spec["replicas"] for spec in document["spec"]["pytorchReplicaSpecs"].values()] == [1, 3]
    for pod in pods(document):
        assert words_of(pod["containers"][0]) == started(document)[1]
    # What the operator says to each: MASTER_ADDR, and RANK and WORLD_SIZE counting Pods.
    operator = {"MASTER_ADDR": "large-master-0", "WORLD_SIZE": "4", "RANK": "2", "PET_NNODES": "4"}
    found = allocation(document, operator, {})
    assert found.nodes == ("large-master-0", "large-worker-0", "large-worker-1", "large-worker-2")
    assert (found.starter, found.processes) == ("each", "8")
    assert found == allocation(document, operator | {"RANK": "0"}, {})
    assert document["spec"]["runPolicy"]["backoffLimit"] == 3 * 4 + 1  # three restarts of all four do not reach it
    assert request_of(document).config.join_minutes == 60
    told = manifest(["--join_minutes", "5", *PRETRAINING], kind="pytorchjob", machines=4)
    assert request_of(told).config.join_minutes == 5


def test_the_launcher_of_an_mpijob_reaches_the_workers_of_the_operators_host_file() -> None:
    document = manifest(PRETRAINING, kind="mpijob", machines=4, cards=8, name="large")
    workers = [f"large-worker-{index}.large.default.svc" for index in range(4)]
    hosts = "".join(f"{worker} slots=8\n" for worker in workers)
    operator = {"OMPI_MCA_orte_default_hostfile": "/etc/mpi/hostfile", "OMPI_MCA_orte_set_default_slots": "8"}
    found = allocation(document, operator, {"/etc/mpi/hostfile": hosts})
    assert (list(found.nodes), found.starter, found.processes) == (workers, "ssh", "8")
    launcher, worker = pods(document)
    assert launcher["containers"][0]["resources"]["limits"] == {"cpu": "1", "memory": "2Gi"}
    (program,) = worker["containers"][0]["lifecycle"]["preStop"]["exec"]["command"][1:]
    assert (REPOSITORY / program).is_file()


def allocation(document: Manifest, environment: dict[str, str], files: dict[str, str]) -> Allocation:
    return read_allocation(
        request_of(document).config, environment, local_gpus=0, has_program=lambda name: True, read=files.__getitem__
    )


def broken(change: Callable[[Manifest], object], kind: str) -> Manifest:
    document = copy.deepcopy(manifest(PRETRAINING, kind=kind, machines=1 if kind in ("pod", "job") else 4))
    change(document)
    return document


@pytest.mark.parametrize(
    ("kind", "change"),
    [
        ("pod", lambda d: d["spec"].update(restartPolicy=["OnFailure"])),
        ("pod", lambda d: d["spec"].update(terminationGraceSeconds=1)),
        ("pod", lambda d: d["spec"]["containers"][0].pop("name")),
        ("pod", lambda d: d["spec"]["containers"][0].update(args="run_pretraining.py")),
        ("job", lambda d: d["spec"].pop("template")),
        ("job", lambda d: d["spec"]["podFailurePolicy"]["rules"][0].pop("action")),
        ("job", lambda d: d["spec"]["template"]["spec"]["volumes"][0].pop("name")),
        ("mpijob", lambda d: d["spec"].update(slotsPerWorker="8")),
        ("mpijob", lambda d: d["spec"].update(mpiImplementation="openmpi")),
        ("mpijob", lambda d: d["spec"]["runPolicy"].pop("cleanPodPolicy")),
        ("mpijob", lambda d: d["spec"]["mpiReplicaSpecs"].pop("Launcher")),
        ("mpijob", lambda d: d["spec"]["mpiReplicaSpecs"]["Worker"].update(restartPolicy="Always")),
        ("mpijob", lambda d: d["spec"]["mpiReplicaSpecs"]["Worker"]["template"]["spec"].update(hostIpc=True)),
        ("pytorchjob", lambda d: d["spec"].update(nprocPerNode=8)),
        ("pytorchjob", lambda d: d["spec"]["pytorchReplicaSpecs"].update(Launcher={})),
        ("pytorchjob", lambda d: d["spec"]["pytorchReplicaSpecs"]["Master"].update(replicas=2)),
        ("pytorchjob", lambda d: templates(d)[1]["spec"]["containers"][0].update(name="train")),
        ("pytorchjob", lambda d: templates(d)[1]["spec"]["containers"][0]["env"][0].update(value=1)),
    ],
)
def test_a_broken_manifest_is_found(kind: str, change: Callable[[Manifest], object]) -> None:
    assert problems(broken(change, kind), KUBERNETES_VERSIONS[0])


@pytest.mark.parametrize(
    ("options", "words", "said"),
    [
        ({"image": ""}, PRETRAINING, "--image is missing"),
        ({"image": "registry.example/bert:latest"}, PRETRAINING, "latest is another image"),
        ({"image": "registry.example:5000/bert"}, PRETRAINING, "image"),
        ({"machines": 2}, PRETRAINING, "--kind job is one machine"),
        ({"kind": "mpijob"}, PRETRAINING, "--machines 2 or more"),
        ({"name": "Large_1"}, PRETRAINING, "name"),
        ({}, [], "nothing to run"),
        ({}, ["--nodes", "n1,n2", *PRETRAINING], "--nodes of the launcher is said by this command"),
        ({}, ["--nproc_per_node", "4", *PRETRAINING], "--nproc_per_node of the launcher"),
        ({}, ["--phase", "3", "run_pretraining.py"], "phase"),
        ({}, ["nowhere.py"], "no such script"),
        ({}, [*FINE_TUNING[:-1], "runs/squad"], "wanted a folder in /runs"),
        ({}, [*FINE_TUNING, "--device", "cpu"], "keep the first"),
        ({"cards": 8}, DATA, "is one process"),
        ({"kind": "pytorchjob"}, ANSWERING, "is one process"),
    ],
)
def test_what_cannot_run_is_told_before_it_is_submitted(options: Manifest, words: list[str], said: str) -> None:
    own = [word for name, value in ({"image": IMAGE} | options).items() for word in (f"--{name}", str(value))]
    with pytest.raises(ConfigError, match=said):
        main([*own, *words])


def test_scripts_from_elsewhere_are_not_in_the_image(tmp_path: Path) -> None:
    script = tmp_path / "mine.py"
    script.touch()
    with pytest.raises(ConfigError, match="is not in the image"):
        manifest([str(script)])
    at_hand = request_of(manifest([str(REPOSITORY / "run_glue.py")]))
    assert at_hand.script == REPOSITORY / "run_glue.py"
    assert "run_glue.py" in started(manifest([str(REPOSITORY / "run_glue.py")]))[1]


def test_what_is_printed_is_what_kubectl_reads() -> None:
    text = io.StringIO()
    with redirect_stdout(text):
        assert main(["--image", IMAGE, "--kind=pytorchjob", "--machines", "4", "--cards=8", *PRETRAINING]) == 0
    assert yaml.safe_load(text.getvalue()) == manifest(PRETRAINING, kind="pytorchjob", machines=4, cards=8)
    assert "&id" not in text.getvalue()


def test_the_script_prints_nothing_else_and_its_exit_code_is_the_commands() -> None:
    script = str(REPOSITORY / "scripts" / "launch" / "kubernetes.sh")
    environment = {**os.environ, "PYTHON": sys.executable}
    for own, code in ((["--image", IMAGE], 0), ([], 2)):
        done = subprocess.run([script, *own, *INFERENCE], env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == code, done.stderr
        assert bool(done.stderr) == bool(code)
        if code == 0:
            assert yaml.safe_load(done.stdout) == manifest(INFERENCE)


@pytest.mark.parametrize("version", KUBERNETES_VERSIONS)
@pytest.mark.parametrize("name", ["pod", "claims"])
def test_the_manifests_that_are_whole_can_be_created_as_they_are(name: str, version: str) -> None:
    documents = list(yaml.safe_load_all((MANIFESTS / f"{name}.yaml").read_text(encoding="utf-8")))
    for document in documents:
        assert problems(document, version) == []


def test_the_pod_is_what_the_defaults_print() -> None:
    (document,) = yaml.safe_load_all((MANIFESTS / "pod.yaml").read_text(encoding="utf-8"))
    words = started(document)[1][3:]
    expected = manifest(words, kind="pod", image=document["spec"]["containers"][0]["image"])
    own = ["--nproc_per_node=1"], ["--device", "cuda"]
    document["spec"]["containers"][0]["args"] = [*own[0], *words, *own[1]]
    assert document == expected
