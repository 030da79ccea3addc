"""`launch kubernetes`: a job for `kubectl create -f -`, made of the plain manifests in `scripts/launch/kubernetes/`.

No template language: a manifest is read as YAML, and what a job has of its own is set in it.  How ranks meet:

- Pod, Job: one machine, whose launcher starts torchrun.
- PyTorchJob: a launcher on each machine (`--start_with each`); the operator names the first `NAME-master-0`.
- MPIJob: one launcher, which reads the operator's host file and reaches the workers' sshd.
"""

import copy
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import Field

from bert_pytorch.config.command_line import parse_settings
from bert_pytorch.config.settings import Settings
from bert_pytorch.errors import EXIT_DONE, ConfigError
from bert_pytorch.launch.config import REPOSITORY, LaunchConfig, read_request, split_words
from bert_pytorch.launch.phases import value_of

PROGRAM = "launch kubernetes"
DESCRIPTION = (
    "Print a job for `kubectl create -f -`: launch kubernetes [these options] [the launcher's options] SCRIPT.py "
    "[its options], or in place of the script a command of one process (scripts/create_datasets.sh …)"
)
MANIFESTS = REPOSITORY / "scripts" / "launch" / "kubernetes"
IMAGE_PYTHON = "python"
SSHD = ["/usr/sbin/sshd", "-D", "-e", "-f", "/etc/ssh/bert_pytorch_sshd_config"]
SSH_PORT = 2222
"""Above 1024, where a user may listen; `scripts/launch/docker/` says it to both sides."""
LEAVING = Path(__file__).with_name("leaving.py").relative_to(REPOSITORY)
KILL_MARGIN_SECONDS = 60
"""How much longer than the launcher's grace a Pod's is: the launcher takes 10 s more before it kills, disks lag."""
JOIN_MINUTES = 60
"""How long Pods that started wait for those that have no room in the cluster yet, or whose image is on its way."""
RUNS = "/runs"
CARDS = {"cuda": "nvidia.com/gpu", "hpu": "habana.ai/gaudi"}

Manifest = dict[str, Any]


class KubernetesConfig(Settings):
    """Options of `launch kubernetes`; they stand before the launcher's."""

    image: str = Field("", pattern=r"^$|^[A-Za-z0-9][^\s]*(:[A-Za-z0-9_][\w.-]*|@sha256:[0-9a-f]{64})$")
    """Image with its tag or digest, built from scripts/launch/docker/.  Required."""
    kind: Literal["pod", "job", "pytorchjob", "mpijob"] = "job"
    """What Kubernetes runs: pod (once), job (one machine, made anew when it is lost), pytorchjob or mpijob (several, by
    Kubeflow's operators)."""
    name: str = Field("bert", pattern=r"^[a-z]([-a-z0-9]{0,38}[a-z0-9])?$")
    """Name of the job, and how those of its Pods begin."""
    machines: int = Field(1, ge=1, le=4096)
    """Pods with cards.  The global batch is the run's, whatever their number."""
    device: Literal["cuda", "hpu", "cpu"] = "cuda"
    """Kind of card, given to the script as well; cpu has none."""
    cards: int = Field(1, ge=1, le=64)
    """Cards of each machine, with a process each; on a CPU, processes."""
    cpus_per_card: int = Field(8, ge=1)
    """Cores for each card."""
    memory_gib_per_card: int = Field(48, ge=1)
    """Memory of the machine for each card, GiB; shared memory counts to it."""
    shared_memory_gib: int = Field(16, ge=1)
    """Size of /dev/shm, GiB."""
    hugepages_mib: int = Field(95_000, ge=2, multiple_of=2)
    """Huge pages of a machine with Gaudi cards, MiB (Habana's "Running Workloads on Kubernetes")."""
    data_claim: str = "bert-data"
    """Claim of the volume /data: corpora and vocabularies; a script only reads it."""
    runs_claim: str = "bert-runs"
    """Claim of the volume /runs: output folders; ReadWriteMany for several machines."""
    restarts: int = Field(3, ge=0)
    """How often what fails is started again, to continue from its last checkpoint.  Stops and evictions of a job do not
    count."""

    def combination_problems(self) -> Iterator[str]:
        """Say what is missing or cannot be."""
        yield from super().combination_problems()
        if not self.image:
            yield "--image is missing: name one with its tag, such as registry.example/bert_pytorch:0.1.0-cuda."
        if self.image.endswith(":latest"):
            yield f"--image: found {self.image}, wanted a tag of one version: latest is another image at each restart."
        if self.kind in ("pod", "job") and self.machines > 1:
            yield f"--kind {self.kind} is one machine, found --machines {self.machines}: take pytorchjob or mpijob."
        if self.kind == "mpijob" and self.machines < 2:
            yield "--kind mpijob wants --machines 2 or more: its launcher has no card; take job for one machine."


def main(argv: Sequence[str]) -> int:
    """Print the manifest that the words ask for; returns the exit code."""
    own, words = split_words(argv, KubernetesConfig)
    asks_help = not argv or words[:1] in (["--help"], ["-h"])
    own = ["--help"] if asks_help else own
    config = parse_settings(KubernetesConfig, own, program=PROGRAM, description=DESCRIPTION).settings
    sys.stdout.write(yaml.safe_dump(render(config, words), sort_keys=False, width=120))
    return EXIT_DONE


def render(config: KubernetesConfig, words: Sequence[str]) -> Manifest:
    """Return the manifest of a job.

    Args:
        config: this command's options.
        words: the launcher's options, a script and its options; or another command.

    Raises:
        ConfigError: if the words cannot be run so.
    """
    pod, document = _pod(config, words), _read(config.kind)
    document["metadata"]["name"] = config.name
    if config.kind == "pod":
        document["spec"] = pod
    elif config.kind == "job":
        document["spec"] |= {"backoffLimit": config.restarts, "template": _template(pod | {"restartPolicy": "Never"})}
    else:
        del pod["restartPolicy"]  # each kind of replica has one
        fill = _fill_pytorchjob if config.kind == "pytorchjob" else _fill_mpijob
        fill(document["spec"], pod, config)
    return document


def _fill_pytorchjob(spec: Manifest, pod: Manifest, config: KubernetesConfig) -> None:
    replicas = spec["pytorchReplicaSpecs"]
    # The operator gives up when the restarts of all containers, which restart together, have reached this number.
    spec["runPolicy"]["backoffLimit"] = config.restarts * config.machines + 1
    replicas["Master"]["template"] = _template(pod)
    replicas["Worker"] |= {"replicas": config.machines - 1, "template": _template(pod)}
    if config.machines == 1:
        del replicas["Worker"]


def _fill_mpijob(spec: Manifest, pod: Manifest, config: KubernetesConfig) -> None:
    replicas = spec["mpiReplicaSpecs"]
    spec["slotsPerWorker"] = config.cards
    spec["runPolicy"]["backoffLimit"] = config.restarts
    replicas["Launcher"]["template"] = _template(_without_cards(pod))
    replicas["Worker"] |= {"replicas": config.machines, "template": _template(_reached_by_ssh(pod))}


def _pod(config: KubernetesConfig, words: Sequence[str]) -> Manifest:
    """Return the `spec` of a Pod with cards that runs the words."""
    spec: Manifest = _read("pod")["spec"]
    (container,) = spec["containers"]
    container["image"] = config.image
    container["command"], container["args"], grace_seconds = _command(config, words)
    spec["terminationGracePeriodSeconds"] = grace_seconds + KILL_MARGIN_SECONDS
    container["resources"] = _resources(config)
    volumes = {volume["name"]: volume for volume in spec["volumes"]}
    volumes["data"]["persistentVolumeClaim"]["claimName"] = config.data_claim
    volumes["runs"]["persistentVolumeClaim"]["claimName"] = config.runs_claim
    volumes["shared-memory"]["emptyDir"]["sizeLimit"] = f"{config.shared_memory_gib}Gi"
    if not _is_for_launcher(words):
        (mount,) = (mount for mount in container["volumeMounts"] if mount["name"] == "data")
        del mount["readOnly"]  # such as building a corpus
    if config.device == "hpu":  # Habana's "Running Workloads on Kubernetes"
        spec["hostIPC"] = True
        container["securityContext"]["capabilities"]["add"] = ["SYS_NICE"]
        container["env"].append({"name": "HABANA_LOGS", "value": "/scratch/habana_logs"})  # the image's is not writable
    return spec


def _command(config: KubernetesConfig, words: Sequence[str]) -> tuple[list[str], list[str], int]:
    """Return command, its arguments, and the seconds that it may take to stop."""
    if not words:
        raise ConfigError(PROGRAM, ["found nothing to run; after the options follows a script, run_pretraining.py …"])
    if not _is_for_launcher(words):
        if config.kind in ("pytorchjob", "mpijob") or config.cards > 1:
            problem = f"{words[0]} is one process, found --kind {config.kind} with {config.cards} cards on each machine"
            raise ConfigError(PROGRAM, [f"{problem}; take --kind job and --cards 1 (more cores: --cpus_per_card)."])
        return [_literal(words[0])], [_literal(word) for word in words[1:]], 0
    request = read_request(words, {})
    if not request.script.is_relative_to(REPOSITORY):
        raise ConfigError(PROGRAM, [f"{request.script} is not in the image; name a script of this repository."])
    for name in ("script", "nproc_per_node", "nodes", "start_with"):
        if getattr(request.config, name) not in (None, "auto"):
            problem = f"--{name} of the launcher is said by this command (--kind, --machines, --cards); leave it out."
            raise ConfigError(PROGRAM, [problem])
    folder = value_of(request.words, "output_dir")
    if folder is not None and not Path(folder).is_relative_to(RUNS):
        raise ConfigError(PROGRAM, [f"found --output_dir {folder}, wanted a folder in {RUNS}, which outlives the Pod."])
    device = value_of(request.words, "device")
    if device not in (None, config.device):
        raise ConfigError(PROGRAM, [f"found --device {config.device} and, for the script, {device}; keep the first."])
    own = [f"--nproc_per_node={config.cards}"]
    if config.kind == "pytorchjob" and config.machines > 1:
        own += ["--start_with=each", f"--nodes={config.name}-master-0,{config.name}-worker-[0-{config.machines - 2}]"]
        if "join_minutes" not in request.config.model_fields_set:
            own.append(f"--join_minutes={JOIN_MINUTES}")
    own += split_words(words, LaunchConfig)[0]
    script = [str(request.script.relative_to(REPOSITORY)), *request.words]
    given = [] if device else ["--device", config.device]
    args = [_literal(word) for word in (*own, *script, *given)]
    return [IMAGE_PYTHON, "-m", "bert_pytorch.launch"], args, request.config.grace_seconds


def _is_for_launcher(words: Sequence[str]) -> bool:
    return words[0].startswith("-") or words[0].endswith(".py")


def _literal(word: str) -> str:
    """Return a word that Kubernetes hands on as it is: in a container's command, $(NAME) is a variable's value."""
    return word.replace("$", "$$")


def _resources(config: KubernetesConfig) -> Manifest:
    limits: Manifest = {
        "cpu": str(config.cpus_per_card * config.cards),
        "memory": f"{config.memory_gib_per_card * config.cards}Gi",
    }
    if config.device in CARDS:
        limits[CARDS[config.device]] = config.cards
    if config.device == "hpu":
        limits["hugepages-2Mi"] = f"{config.hugepages_mib}Mi"
    return {"requests": limits, "limits": dict(limits)}


def _without_cards(pod: Manifest) -> Manifest:
    """Return an MPIJob's launcher: it starts and waits, and reads the end of a phase in /runs."""
    spec = copy.deepcopy(pod)
    spec.pop("hostIPC", None)
    (container,) = spec["containers"]
    container["securityContext"]["capabilities"].pop("add", None)
    few = {"cpu": "1", "memory": "2Gi"}
    container["resources"] = {"requests": few, "limits": dict(few)}
    return spec


def _reached_by_ssh(pod: Manifest) -> Manifest:
    """Return an MPIJob's worker: sshd, which must not end before what it started has saved."""
    spec = copy.deepcopy(pod)
    (container,) = spec["containers"]
    container["command"], container["args"] = SSHD[:1], SSHD[1:]
    container["readinessProbe"] = {"tcpSocket": {"port": SSH_PORT}, "periodSeconds": 2}
    container["lifecycle"] = {"preStop": {"exec": {"command": [IMAGE_PYTHON, str(LEAVING)]}}}
    return spec


def _template(spec: Manifest) -> Manifest:
    return {"metadata": {"labels": dict(_read("pod")["metadata"]["labels"])}, "spec": copy.deepcopy(spec)}


def _read(kind: str) -> Manifest:
    manifest: Manifest = yaml.safe_load((MANIFESTS / f"{kind}.yaml").read_text(encoding="utf-8"))
    return manifest
