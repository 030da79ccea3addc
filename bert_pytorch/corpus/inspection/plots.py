"""Charts as a picture."""

from collections.abc import Sequence
from pathlib import Path

from bert_pytorch.corpus.inspection.histograms import Chart
from bert_pytorch.pictures import saved_figure

_COLOUR, _MEAN, _MEDIAN = "#4c72b0", "#c44e52", "#55a868"
_IN_ONE_COLUMN = 4
_LONGEST_TITLE = 90


def save_charts(path: Path, charts: Sequence[Chart]) -> None:
    """Write charts, as a PNG; no display is needed.

    Raises:
        MissingDependencyError: if matplotlib is not installed.
    """
    columns = 1 if len(charts) <= _IN_ONE_COLUMN else 2
    rows = -(-len(charts) // columns)
    with saved_figure(path, (9 * columns, 3.8 * rows), spacing=0.12) as figure:
        from matplotlib.ticker import FuncFormatter, MaxNLocator  # there, or the line before had failed

        thousands = FuncFormatter(lambda value, _: f"{value:,.0f}")
        for number, chart in enumerate(charts, start=1):
            axes = figure.add_subplot(rows, columns, number)
            edges = chart.edges.astype(float)
            if chart.logarithmic:
                edges[0] = max(edges[0], 0.5)  # 0 has no place on a logarithmic axis
                axes.set_xscale("log", base=2)
            axes.bar(edges[:-1], chart.counts, edges[1:] - edges[:-1], align="edge", color=_COLOUR, edgecolor="white")
            axes.axvline(max(chart.mean, edges[0]), color=_MEAN, label=f"mean {chart.mean:,.1f}")
            axes.axvline(
                max(chart.median, edges[0]), color=_MEDIAN, linestyle="--", label=f"median {chart.median:,.0f}"
            )
            axes.set_title(_title(chart.title), parse_math=False)
            axes.set_xlabel(_axis(chart))
            axes.set_ylabel(f"number of {chart.what}")
            axes.set_xlim(edges[0], edges[-1])
            axes.xaxis.set_major_formatter(thousands)
            axes.yaxis.set_major_formatter(thousands)
            axes.yaxis.set_major_locator(MaxNLocator(integer=True))
            axes.grid(axis="y", alpha=0.3)
            axes.set_axisbelow(True)
            axes.spines[["top", "right"]].set_visible(False)
            axes.legend(frameon=False)


def _title(title: str) -> str:
    """Return a title that fits over a chart; folders may be called anything."""
    shown = "".join(char if char.isprintable() else "?" for char in title)
    return shown if len(shown) <= _LONGEST_TITLE else f"… {shown[-_LONGEST_TITLE:]}"


def _axis(chart: Chart) -> str:
    if chart.beyond:
        return f"{chart.axis} (last bar: {chart.edges[-2]:,} and more)"
    return f"{chart.axis} (logarithmic: each bar twice as wide as the one before)" if chart.logarithmic else chart.axis
