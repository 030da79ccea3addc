"""The graphs that lazy mode would gather: operators and shapes of what is computed between two calls of `mark_step`."""

from collections.abc import Callable
from typing import Any, Self

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from tests.support.habana import calls

Graph = tuple[tuple[Any, ...], ...]


class GatheredGraphs(TorchDispatchMode):
    """Sees forward and backward passes and steps of optimizers; a graph that comes again is not compiled again."""

    def __init__(self) -> None:
        super().__init__()
        self.graphs: list[Graph] = []
        self._current: list[tuple[Any, ...]] = []

    def __enter__(self) -> Self:
        calls.listeners.append(self._called)
        return super().__enter__()

    def __exit__(self, *exception: Any) -> None:
        super().__exit__(*exception)
        calls.listeners.remove(self._called)

    def __torch_dispatch__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor)]
        self._current.append((str(func), *((*tensor.shape, tensor.dtype) for tensor in tensors)))
        return func(*args, **(kwargs or {}))

    def _called(self, name: str) -> None:
        if name == "mark_step":
            self.graphs.append(tuple(self._current))
            self._current = []
