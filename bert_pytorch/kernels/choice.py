"""Choosing among ways that compute the same.

What a person asks for counts first, then what the run used before, what is possible, and what measures fastest.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple


class Candidate(NamedTuple):
    """One way to compute something."""

    name: str
    problem: str | None = None
    """Why it cannot be used here; None: it can."""


class Choice(NamedTuple):
    """What is used, and why, for the log."""

    name: str
    reason: str


def choose(
    candidates: Sequence[Candidate],
    *,
    asked: str | None = None,
    saved: str | None = None,
    measure: Callable[[str], float] | None = None,
) -> Choice:
    """Choose one of several ways.

    Args:
        candidates: in the order in which they are preferred where nothing is measured; at least one is usable.
        asked: the name that a person gave; None: free choice.
        saved: the name that the run used so far; a resumed run makes the same choice where it can.
        measure: seconds that one takes; what it raises rules the candidate out. None: nothing is measured.

    Raises:
        ValueError: if what is asked for cannot be used; tells why and what can be.
    """
    problems = {candidate.name: candidate.problem for candidate in candidates}
    usable = [name for name, problem in problems.items() if problem is None]
    excluded = [f"{name}: {problem}" for name, problem in problems.items() if problem is not None]
    if asked is not None:
        problem = problems.get(asked, "unknown")
        if problem is not None:
            raise ValueError(f"{asked} cannot be used: {problem}; found usable: {', '.join(usable)}.")
        return Choice(asked, "asked for")
    if saved in usable:
        return Choice(saved, "as this run did so far")
    if len(usable) == 1 or measure is None:
        return Choice(usable[0], _joined("the first that can be used" if len(usable) > 1 else "", excluded))
    seconds: dict[str, float] = {}
    for name in usable:
        try:
            seconds[name] = measure(name)
        except Exception as error:  # a kernel may fail on a machine in any way; the others then serve
            excluded.append(f"{name}: {_first_line(error)}")
    if not seconds:
        return Choice(usable[-1], _joined("nothing could be measured", excluded))
    ranked = sorted(seconds, key=lambda name: seconds[name])
    times = ", ".join(f"{name} {seconds[name] * 1e3:.3f} ms" for name in ranked)
    return Choice(ranked[0], _joined(f"measured: {times}", excluded))


def _joined(reason: str, excluded: list[str]) -> str:
    return "; ".join(part for part in (reason, *excluded) if part) or "the only way here"


def _first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {str(error).strip().splitlines()[0] if str(error).strip() else ''}"[:200]
