"""What was called, in order; and what happens to a call that Habana's pages do not describe."""

from collections.abc import Callable

made: list[str] = []
"""Names of calls, the first one first."""


listeners: list[Callable[[str], None]] = []
"""Told of each call."""


def record(name: str) -> None:
    """Note that something was called."""
    made.append(name)
    for listener in listeners:
        listener(name)


def only_documented(module: str) -> Callable[[str], object]:
    """Return a module's `__getattr__`: whatever it does not define is refused."""

    def refuse(name: str) -> object:
        raise AttributeError(f"{module}.{name}: the stand-in knows only what docs.habana.ai describes and we call")

    return refuse
