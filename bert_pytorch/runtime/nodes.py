"""Lists of machines as schedulers write them.  No torch here: launchers read them on login nodes."""

import re
from collections.abc import Iterable, Iterator

from bert_pytorch.errors import ConfigError

MAX_NODES = 100_000
"""More than any machine has: a list that names more is a mistake, not a cluster."""

_BRACKETS = re.compile(r"\[([^\[\]]*)\]")
_NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?")
_COUNT = re.compile(r"([0-9]{1,6})(?:\(x([0-9]{1,6})\))?")
_RANGE = re.compile(r"([0-9]+)(?:-([0-9]+))?")


def expand_node_list(text: str) -> list[str]:
    """Return the names in SLURM's compact list: `gpu[01-03,7],login` is gpu01 gpu02 gpu03 gpu7 login.

    Raises:
        ConfigError: if it is not such a list, or names more than `MAX_NODES`.
    """
    names: list[str] = []
    for part in _split_outside_brackets(text):
        for name in _expanded(part, text):
            if len(names) == MAX_NODES:
                raise ConfigError("node list", [f"found {_short(text)} with more than {MAX_NODES} names."])
            names.append(_checked(name, text))
    if not names:
        raise ConfigError("node list", [f"found {text!r}, wanted names such as node[1-4] or node1,node2."])
    return names


def read_node_file(lines: Iterable[str]) -> list[str]:
    """Return the machines of a node file in their order, each once.

    Cobalt and PBS write a name a line (PBS one a slot), SGE and MPI words after it (slots, queue), Open MPI comments.

    Raises:
        ConfigError: if a line does not begin with a name, or there is none.
    """
    names: dict[str, None] = {}
    for line in lines:
        words = line.partition("#")[0].split()
        if words:
            names[_checked(words[0].partition(":")[0], line)] = None
    if not names:
        raise ConfigError("node file", ["found no name in it, wanted one a line."])
    return list(names)


def expand_counts(text: str) -> list[int]:
    """Return a number for each node of a job from SLURM's compact list: `2(x3),1` is 2, 2, 2, 1; else none.

    The form is that of SLURM_TASKS_PER_NODE in sbatch(1).
    """
    counts: list[int] = []
    for part in text.split(","):
        found = _COUNT.fullmatch(part)
        if found is None or len(counts) + int(found[2] or 1) > MAX_NODES:
            return []
        counts += [int(found[1])] * int(found[2] or 1)
    return counts


def same_machine(one: str, other: str) -> bool:
    """Whether two names may mean one machine: equal, or the first part of the other (`node1`, `node1.cluster`)."""
    one, other = one.lower(), other.lower()
    return one == other or one.startswith(other + ".") or other.startswith(one + ".")


def _split_outside_brackets(text: str) -> Iterator[str]:
    for part in re.split(r",(?![^\[\]]*\])", text.strip()):
        if part:
            yield part


def _expanded(part: str, text: str) -> Iterator[str]:
    found = _BRACKETS.search(part)
    if found is None:
        yield part
        return
    before, after = part[: found.start()], part[found.end() :]
    for item in found[1].split(","):
        numbers = _RANGE.fullmatch(item)
        if numbers is None:
            raise ConfigError("node list", [f"found [{found[1]}] in {_short(text)}, wanted numbers such as [1-3,7]."])
        first, last = numbers[1], numbers[2] or numbers[1]
        if len(last) > 9 or int(last) - int(first) >= MAX_NODES:
            raise ConfigError("node list", [f"found {_short(item)} in it: more than {MAX_NODES} names."])
        for number in range(int(first), int(last) + 1):
            yield from _expanded(f"{before}{number:0{len(first)}}{after}", text)


def _checked(name: str, text: str) -> str:
    """Refuse what is no name of a machine: these words go into command lines."""
    if len(name) > 253 or not _NAME.fullmatch(name):
        raise ConfigError(
            "node list", [f"found the name {_short(name)} in {_short(text)}, wanted letters, digits, . _ -"]
        )
    return name


def _short(text: str) -> str:
    return repr(text if len(text) <= 80 else text[:77] + "...")
