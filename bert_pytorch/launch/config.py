"""The launcher's own options; all words from the first that is not one belong to the program it starts."""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal, NamedTuple, get_args

from pydantic import Field

from bert_pytorch.config.command_line import parse_settings
from bert_pytorch.config.settings import Settings
from bert_pytorch.errors import ConfigError

PROGRAM = "launch"
DESCRIPTION = (
    "Start a program with torchrun on all machines of this job: launch [these options] SCRIPT.py [its options]; "
    "launch check [these options] measures the machines and their network; launch kubernetes prints a job for kubectl"
)

REPOSITORY = Path(__file__).resolve().parents[2]
CHECK = REPOSITORY / "scripts" / "launch" / "check.py"

Phase = Literal["1", "2", "both"]


class LaunchConfig(Settings):
    """Options of the launcher; they stand before the script."""

    script: Path | None = None
    """The program to start; by default the first word that is no option of the launcher."""
    phase: Phase | None = None
    """Phase of pretraining; both begins phase 2 once phase 1 has finished.  Also PHASE in the environment.  An option
    of the script that ends in _phase1 or _phase2 (--input_dir_phase2) is given to that phase only."""
    nodes: str | None = None
    """Machines, such as n[1-4] or n1,n2; by default those of the scheduler's job, else this one."""
    nproc_per_node: str | None = Field(None, pattern=r"^([1-9][0-9]{0,3}|auto|gpu)$")
    """Processes on each machine: a number, gpu (one a GPU, machines may differ) or auto; by default one a GPU that the
    scheduler gave or this machine has, else 1."""
    start_with: Literal["auto", "srun", "mpiexec", "ssh", "each"] = "auto"
    """How other machines are reached: auto takes srun under SLURM, mpiexec under PBS where there is one, else ssh.
    With each, something else starts this launcher on every machine (a PyTorchJob of Kubernetes, Azure ML): on --nodes,
    or on WORLD_SIZE machines, the first of them MASTER_ADDR."""
    port: int | None = Field(None, ge=1, le=65534)
    """Port at which machines meet, on the first, which uses the next one too; by default it follows from the job's
    number."""
    interface: str | None = Field(None, pattern=r"^[A-Za-z0-9_.-]{1,15}$")
    """Network interface of gloo and NCCL on all machines, such as hsn0; by default the one on the route to the first
    machine, unless GLOO_SOCKET_IFNAME and NCCL_SOCKET_IFNAME are set."""
    max_restarts: int = Field(0, ge=0)
    """How often torchrun starts all processes anew when one fails; they continue from the last checkpoint."""
    join_minutes: float = Field(10, gt=0)
    """How long machines wait for each other."""
    grace_seconds: int = Field(120, ge=1)
    """How long processes may take to save after a request to stop."""
    requeue: bool = False
    """Put a SLURM job back into the queue when it was stopped before its end; it continues where it was."""
    dry_run: bool = False
    """Print the commands instead of running them (--dry_run after the script is the script's own)."""


class Request(NamedTuple):
    """What is to be started."""

    config: LaunchConfig
    script: Path
    words: tuple[str, ...]
    """Options of the script."""


def read_request(argv: Sequence[str], environment: Mapping[str, str]) -> Request:
    """Split the words of a command line into the launcher's and the script's.

    Raises:
        ConfigError: if one of the launcher's is wrong, or no script follows.
    """
    if argv and argv[0] == "check":
        own, words = _own_anywhere(argv[1:])
        words = [str(CHECK), *words]
    else:
        own, words = split_words(argv, LaunchConfig)
    if (not words and not own) or (words and words[0] in ("-h", "--help")):
        own = ["--help"]
    config = parse_settings(LaunchConfig, own, program=PROGRAM, description=DESCRIPTION).settings
    if config.script is None and (not words or words[0].startswith("-")):
        found = words[0] if words else "nothing"
        raise ConfigError(PROGRAM, [f"found {found} where a script is wanted: launch [options] run_pretraining.py …"])
    script = config.script or Path(words.pop(0))
    script = script if script.is_file() else REPOSITORY / script
    if not script.is_file():
        raise ConfigError(PROGRAM, [f"{script}: there is no such script. Check the spelling of the path."])
    if config.phase is None and (phase := environment.get("PHASE")):
        if phase not in get_args(Phase):
            raise ConfigError("environment", [f"found PHASE={phase!r}, wanted 1, 2 or both."])
        config = config.model_copy(update={"phase": phase})
    if config.phase is not None and script.name != "run_pretraining.py":
        raise ConfigError(
            PROGRAM, [f"found phase {config.phase} with {script.name}; only run_pretraining.py has phases."]
        )
    return Request(config, script.resolve(), tuple(words))


def split_words(argv: Sequence[str], settings: type[Settings]) -> tuple[list[str], list[str]]:
    """Split off the options of `settings` at the beginning, each with its value unless it is a switch."""
    own: list[str] = []
    words = list(argv)
    while words and words[0].startswith("--"):
        name = words[0].partition("=")[0].removeprefix("--").replace("-", "_").removeprefix("no_")
        if name not in settings.model_fields:
            break
        switch = settings.model_fields[name].annotation is bool
        take = 1 if switch or "=" in words[0] else 2
        own, words = own + words[:take], words[take:]
    return own, words


def _own_anywhere(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """Sort the launcher's words out, wherever they stand; none is called as one of the check's."""
    own: list[str] = []
    rest: list[str] = []
    while words:
        taken, words = split_words(words, LaunchConfig)
        own, rest, words = own + taken, rest + words[:1], words[1:]
    return own, rest


def say(text: str) -> None:
    """Tell a person what the launcher does, beside what the program says."""
    sys.stderr.write(f"launch: {text}\n")
    sys.stderr.flush()
