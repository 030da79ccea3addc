"""Pictures through matplotlib, for which this is the door; no display is needed."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bert_pytorch.errors import MissingDependencyError
from bert_pytorch.files import atomic_path

_DOTS_AN_INCH = 120


@contextlib.contextmanager
def saved_figure(path: Path, size: tuple[float, float], *, spacing: float | None = None) -> Iterator[Any]:
    """Yield a matplotlib `Figure` to draw on, and write it as a PNG afterwards: the same bytes for the same figure.

    Args:
        path: of the picture, which is whole or as it was before.
        size: width and height in inches.
        spacing: inches around each of its parts; None: matplotlib's own.

    Raises:
        MissingDependencyError: if matplotlib is not installed.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
        from matplotlib.layout_engine import ConstrainedLayoutEngine
    except ImportError as error:
        raise MissingDependencyError(
            f"{path.name} needs matplotlib ({error}). Install it: pip install -r requirements-extras.txt"
        ) from error
    pads: dict[str, Any] = {} if spacing is None else {"h_pad": spacing, "w_pad": spacing}
    figure = Figure(figsize=size, layout=ConstrainedLayoutEngine(**pads))
    FigureCanvasAgg(figure)
    yield figure
    with atomic_path(path) as temporary:
        figure.savefig(temporary, format="png", dpi=_DOTS_AN_INCH, metadata={"Software": None})
