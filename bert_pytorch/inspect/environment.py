"""`inspect environment`: what a person pastes into a bug report; no secrets, and torch may be absent or broken."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar

import tyro

import bert_pytorch
from bert_pytorch.config.settings import Settings
from bert_pytorch.errors import BertPytorchError
from bert_pytorch.inspect import machine
from bert_pytorch.inspect.terminal import Color, paint, printable, wants_color
from bert_pytorch.inspect.variables import shown_variables
from bert_pytorch.runtime.interfaces import interfaces_here
from bert_pytorch.runtime.ranks import discover_ranks, find_meeting, ranks_on_this_machine
from bert_pytorch.tracking.run_record import git_commit

REPOSITORY = Path(bert_pytorch.__file__).resolve().parents[1]
TORCH_FACTS = "bert_pytorch.diagnosis.torch_facts"
_TORCH_SECONDS = 60


class EnvironmentConfig(Settings):
    """Show what a bug report needs: versions, machine, GPUs, scheduler, ranks, and what `auto` means here."""

    folders: tyro.conf.Positional[tuple[Path, ...]] = ()
    """Folders whose file systems are shown, such as --output_dir and --input_dir; by default the current one."""
    as_json: bool = False
    """Print JSON instead of text."""
    color: Color = "auto"
    """auto: on a terminal, unless $NO_COLOR is set."""

    renamed_flags: ClassVar[dict[str, str]] = {"json": "--as_json"}


def describe_environment(config: EnvironmentConfig) -> Iterator[str]:
    """Yield the lines of the report."""
    found = environment_facts(config.folders or (Path(),))
    if config.as_json:
        yield json.dumps(found, ensure_ascii=False, indent=1)
        return
    yield from report_lines(found, color=wants_color(config.color))


def report_lines(found: Mapping[str, Any], *, color: bool) -> Iterator[str]:
    """Yield facts by section."""
    for heading, facts in found.items():
        yield paint(heading, "heading", color)
        yield from _lines(facts)


def environment_facts(folders: tuple[Path, ...], python: str = sys.executable) -> dict[str, Any]:
    """Return all facts by section; a section that cannot be found out says why.

    Args:
        folders: whose file systems are looked at.
        python: the interpreter that is asked about torch.
    """
    asking = AskedTorch(python)  # which takes a while
    sections: dict[str, Callable[[], Mapping[str, Any]]] = {
        "bert_pytorch": _own_facts,
        "system": machine.system_facts,
        "torch": asking.answer,
        "processors": machine.processor_facts,
        "memory": machine.memory_facts,
        "NVIDIA driver": machine.driver_facts,
        "compilers": machine.compiler_facts,
        "folders": lambda: machine.folder_facts(folders),
        "network": lambda: {each.name: ", ".join(each.addresses) for each in interfaces_here()},
        "ranks": lambda: rank_facts(os.environ),
        "variables": lambda: shown_variables(os.environ),
    }
    found: dict[str, Any] = dict.fromkeys(sections)
    for name in sorted(sections, key=lambda name: name == "torch"):  # the others meanwhile
        try:
            found[name] = dict(sections[name]())
        except (OSError, ValueError, BertPytorchError) as error:
            found[name] = {"not found out": str(error)}
    return found


class AskedTorch:
    """A process of its own that is asked about torch, which may be missing, or crash where it is loaded."""

    def __init__(self, python: str) -> None:
        path = os.pathsep.join(filter(None, [str(REPOSITORY), os.environ.get("PYTHONPATH")]))
        self._problem = ""
        try:
            self._process = subprocess.Popen(
                [python, "-m", TORCH_FACTS],
                env={**os.environ, "PYTHONPATH": path},
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                errors="replace",
            )
        except OSError as error:
            self._problem = f"{python} cannot be started ({error})"

    def answer(self) -> dict[str, Any]:
        """Wait for what it says, or for how it ended."""
        if self._problem:
            return {"broken": self._problem}
        with self._process as process:
            try:
                out, err = process.communicate(timeout=_TORCH_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                return {"broken": f"torch was not loaded within {_TORCH_SECONDS} s"}
        if process.returncode:
            how = f"ended by signal {-process.returncode}" if process.returncode < 0 else "failed"
            said = err.strip().splitlines()
            return {"broken": f"{how}: {said[-1] if said else 'it said nothing'}"}
        answer: dict[str, Any] = json.loads(out.splitlines()[-1])
        return {**answer.pop("versions"), **answer}


def rank_facts(environment: Mapping[str, str]) -> dict[str, str]:
    """Return which rank this process is by which rule, and where ranks would meet."""
    ranks = discover_ranks(environment)
    here = ranks_on_this_machine(environment, ranks)
    found = {
        "started by": ranks.starter,
        "rank": f"{ranks.rank} of {ranks.size}, local rank {ranks.local_rank} of {'unknown' if here is None else here}",
    }
    if ranks.size > 1:
        meeting = find_meeting(environment, ranks)
        found["meeting"] = f"{meeting.host}:{meeting.port}"
        found["machines"] = ", ".join(meeting.hosts) or "no list"
    return found


def _own_facts() -> dict[str, Any]:
    commit = git_commit()
    modified = ", modified" if commit is not None and commit["modified"] else ""
    return {
        "version": bert_pytorch.__version__,
        "commit": "none (not a git checkout)" if commit is None else f"{commit['commit']}{modified}",
        "place": str(REPOSITORY),
    }


def _lines(facts: Any, indent: int = 2) -> Iterator[str]:
    """Yield nested facts, a value a line."""
    pairs = facts.items() if isinstance(facts, dict) else [("-", item) for item in facts]
    width = max((len(str(name)) for name, value in pairs if not isinstance(value, dict | list)), default=0)
    for name, value in pairs:
        if isinstance(value, dict) and not isinstance(facts, dict):
            yield " " * indent + "- " + ", ".join(f"{key} {item}" for key, item in value.items())
        elif isinstance(value, dict | list):
            if value:
                yield f"{' ' * indent}{name}"
                yield from _lines(value, indent + 2)
        else:
            yield f"{' ' * indent}{name:<{width}}  {printable(str(value))}"
    if not pairs:
        yield " " * indent + "none"
