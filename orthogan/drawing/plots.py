"""Plots in one style (matplotlib): curves over training, histograms, and the singular values of layers."""

from __future__ import annotations

import io
import math
import os
import textwrap
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from PIL import Image

from orthogan.drawing.grid import save_png
from orthogan.errors import UserError

if TYPE_CHECKING:  # matplotlib takes half a second to import, so import it only for drawing
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe & Ito 2008: distinguishable with any color vision
PALETTE = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000", "#96781e")
GREY, ALARM = "#777777", "#be321e"
STYLE: dict[Any, Any] = {
    "font.family": "DejaVu Sans",  # ships with matplotlib: the same picture everywhere
    "font.size": 9,
    "text.parse_math": False,  # names may contain dollar signs
    "axes.titlesize": 9.5,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": GREY,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#e4e4e8",
    "lines.linewidth": 1.6,
    "legend.frameon": False,
    "figure.titlesize": 12,
    "figure.dpi": 144,
    "savefig.dpi": "figure",
}
WIDTH, HEIGHT = 3.5, 2.4  # of one panel [inches]
COLUMNS = 4  # largest number of panels side by side
LETTER = 0.075  # width of a letter [inches], to determine the columns of a legend
BINS = 60
DECADES = 2.0  # positive values with a larger ratio get a log axis
GROUP = 6  # lines in one panel, besides the baseline
FLOOR = 4.0  # decades below the largest singular value that the axis shows
FEW = 24  # up to this many values are drawn as dots

Panels = Mapping[str, Mapping[str, np.ndarray]]  # panel -> series -> values (n,)


@dataclass(frozen=True)
class Line:
    """A named line: points (x, low, mean, high) in order of x; ``base``: drawn gray and dashed."""

    name: str
    points: Sequence[tuple[float, float, float, float]]
    base: bool = False


class Spectrum(Protocol):
    """The spectrum of a layer, as measured by ``orthogan.evaluation.spectrum``."""

    @property
    def name(self) -> str:
        """Dotted name of the layer."""
        ...

    @property
    def shape(self) -> tuple[int, ...]:
        """Rows and columns of the weight as a matrix."""
        ...

    @property
    def singular_values(self) -> Any:
        """All of them (n,), descending."""
        ...

    @property
    def rank(self) -> int:
        """Number of singular values above rounding."""
        ...

    @property
    def stable_rank(self) -> float:
        """Squared Frobenius norm over squared spectral norm."""
        ...

    @property
    def condition_number(self) -> float:
        """Largest over smallest singular value."""
        ...


def check_suffix(path: str | os.PathLike[str]) -> None:
    """Raise ``UserError`` unless ``path`` ends in .png; call it before computing anything."""
    if Path(path).suffix.lower() != ".png":
        raise UserError(f"{path}: plots are written as PNG; the name must end in .png")


def plot_curves(panels: Mapping[str, Sequence[Line]], path: str | os.PathLike[str], *, x_label: str) -> Path:
    """Write a PNG with a panel of lines and bands for each of ``panels`` (title -> lines).

    A name has the same color in all panels. More than six names in addition to the baseline are spread over several
    columns of panels with the same axes, each with the baseline. Lines are interrupted at non-finite values.

    Raises:
        UserError: the name does not end in .png, or the file cannot be written.
    """
    check_suffix(path)
    names = list(dict.fromkeys(line.name for lines in panels.values() for line in lines if not line.base))
    count = max(1, math.ceil(len(names) / GROUP))
    size = math.ceil(len(names) / count)
    groups = [names[start : start + size] for start in range(0, len(names), size)] if names else [[]]
    columns = 1 if len(groups) > 1 else max(1, min(COLUMNS, len(panels), math.ceil(math.sqrt(len(panels)))))
    rows = max(1, math.ceil(len(panels) / columns))
    with _figure(len(groups) * columns * WIDTH, rows * HEIGHT) as (figure, finish):
        parts = figure.subfigures(1, len(groups), squeeze=False)[0]
        for part, group in zip(parts, groups, strict=True):
            axes = part.subplots(rows, columns, squeeze=False).flatten()
            for axis, (title, lines) in zip(axes, panels.items(), strict=False):
                _curves(axis, [line for line in lines if line.base or line.name in group], lines, group)
                axis.set_title(_wrap(title, WIDTH))
                axis.set_xlabel(x_label)
            for axis in axes[len(panels) :]:
                axis.set_axis_off()
            _legend(part, axes, columns * WIDTH, names, 1 + size)
        return finish(path, {"orthogan": "curves"})


def plot_histograms(
    panels: Panels, path: str | os.PathLike[str], *, title: str, x_label: str, shared: bool = True
) -> Path:
    """Write a PNG with a panel for each of ``panels``: a histogram of each series, its mean as a dashed line.

    A series has the same color in all panels; y is the fraction of its values in each of 60 equal bins.

    Args:
        x_label: label of the x axis.
        shared: all panels have the same x axis.

    Raises:
        UserError: nothing to draw, non-finite values, more than eight series, or a name that does not end in .png.
    """
    check_suffix(path)
    names = list(dict.fromkeys(name for series in panels.values() for name in series))
    if not names:
        raise UserError("nothing to draw: there are no values")
    if len(names) > len(PALETTE):
        raise UserError(f"{len(names)} overlapping histograms cannot be distinguished; draw at most {len(PALETTE)}")
    for panel, series in panels.items():
        for name, values in series.items():
            if not len(values) or not np.isfinite(values).all():
                raise UserError(f"{panel}, {name}: cannot draw a series without values, or with NaN or infinite values")
    everything = [values for series in panels.values() for values in series.values()]
    wide, tall = 2.2 * WIDTH, max(0.85 * HEIGHT, 1.1 + 0.17 * len(names))
    with _figure(wide, tall * len(panels)) as (figure, finish):
        axes = figure.subplots(len(panels), 1, squeeze=False).flatten()
        for axis, (panel, series) in zip(axes, panels.items(), strict=True):
            low, high = _limits(everything if shared else list(series.values()))
            for name, values in series.items():
                color = PALETTE[names.index(name)]
                weights = np.full(len(values), 1 / len(values))
                axis.hist(values, BINS, (low, high), weights=weights, histtype="step", color=color, label=_clean(name))
                mean = float(values.mean())
                axis.axvline(mean, color=color, linestyle="--", linewidth=1)
                down = -1 - 11 * list(series).index(name)  # [points]
                axis.annotate(
                    f"mean {mean:.3g}",
                    (1, 1),
                    (-2, down),
                    textcoords="offset points",
                    xycoords="axes fraction",
                    ha="right",
                    va="top",
                    color=color,
                    fontsize=8,
                )
            axis.set(title=_wrap(panel, wide), xlim=(low, high), ylabel="fraction of values")
        axes[-1].set_xlabel(_wrap(x_label, wide))
        figure.suptitle(_wrap(title, 0.7 * wide))
        _legend(figure, axes, wide, names, len(names))
        return finish(path, {"orthogan": "histograms", "subject": title})


def plot_spectra(
    rows: Sequence[Spectrum],
    path: str | os.PathLike[str],
    *,
    title: str = "",
    of: str = "the weight as a matrix, one row per output",
) -> Path:
    """Write a PNG with a panel for each of ``rows``: sorted singular values (log axis) over their normalized rank.

    All panels have the same axes. The number of values below the axis or the numerical rank is shown in red.

    Raises:
        UserError: there are no rows, the name does not end in .png, or the file cannot be written.
    """
    if not rows:
        raise UserError("nothing to draw: no layer was measured")
    check_suffix(path)
    high, low = 2.0, 0.5
    for row in rows:
        if row.rank:
            values = [float(value) for value in row.singular_values[: row.rank]]
            high, low = max(high, values[0]), min(low, max(values[-1], values[0] / 10**FLOOR))
    margin = (high / low) ** 0.04
    columns = min(6, len(rows), max(2 if len(rows) > 1 else 1, round(math.sqrt(len(rows) * 0.8))))
    lines = math.ceil(len(rows) / columns)
    wide = max(columns, 2) * WIDTH
    with _figure(wide, lines * HEIGHT + 0.6) as (figure, finish):
        axes = figure.subplots(lines, columns, squeeze=False).flatten()
        for axis, row in zip(axes, rows, strict=False):
            _log_axis(axis, low / margin, high * margin)
            axis.set(xlim=(-0.02, 1.02), xticks=(0, 0.5, 1), xticklabels=("0", "0.5", "1"))
            _spectrum(axis, row, low / margin)
        for axis in axes[len(rows) :]:
            axis.set_axis_off()
        heading = f"Singular values of {title}" if title else "Singular values of each layer"
        figure.suptitle(_wrap(heading, 0.7 * wide))
        said = (
            f"y: singular values of {of} (log scale, the same in every panel). x: relative rank, 0 = largest, 1 = "
            "smallest. A flat line is a well-conditioned layer. Dashed: 1."
        )
        figure.supxlabel(_wrap(said, wide), fontsize=8.5, color=GREY)
        return finish(path, {"orthogan": "spectrum", "subject": title})


@contextmanager
def _figure(width: float, height: float) -> Iterator[tuple[Figure, Callable[..., Path]]]:
    """Create a figure in our style, ``width`` x ``height`` inches, and the function that writes it, without pyplot."""
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    with matplotlib.rc_context(STYLE):
        figure = Figure((width, height), layout="constrained")
        FigureCanvasAgg(figure)

        def finish(path: str | os.PathLike[str], metadata: Mapping[str, str]) -> Path:
            buffer = io.BytesIO()
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", "Glyph .* missing", UserWarning)  # missing glyphs are drawn as boxes
                figure.savefig(buffer, format="png", bbox_inches="tight", pad_inches=0.1)  # tight: no text is cut off
            return save_png(Image.open(buffer).convert("RGB"), path, metadata)

        yield figure, finish


def _curves(axis: Axes, lines: Sequence[Line], everything: Sequence[Line], names: Sequence[str]) -> None:
    """Draw ``lines`` on axes whose limits include ``everything``."""
    from matplotlib.ticker import EngFormatter, MaxNLocator

    finite = [y for line in everything for point in line.points for y in point[1:] if math.isfinite(y)]
    if not finite:
        axis.text(0.5, 0.5, "no finite values", color=GREY, ha="center", transform=axis.transAxes)
        axis.set(xticks=(), yticks=())
        return
    low, high = min(finite), max(finite)
    log = low > 0 and math.log10(high / low) > DECADES
    for line in lines:
        color = GREY if line.base else PALETTE[names.index(line.name)]
        points = np.array(line.points, dtype=float).reshape(-1, 4)
        points[~np.isfinite(points)] = np.nan
        x, below, mean, above = points.T
        axis.plot(x, mean, "--" if line.base else "-", color=color, label=_clean(line.name))
        there = np.pad(np.isfinite(mean), 1)
        alone = there[1:-1] & ~there[:-2] & ~there[2:]  # an isolated point
        axis.plot(x[alone], mean[alone], "o", color=color, markersize=4)
        if (above > below).any():
            axis.fill_between(x, below, above, color=color, alpha=0.14, linewidth=0)
    if log:
        margin = (high / low) ** 0.04
        _log_axis(axis, low / margin, high * margin)
    else:
        margin = 0.04 * (high - low) or 0.5
        axis.set_ylim(low - margin, high + margin)
    xs = [point[0] for line in everything for point in line.points]
    axis.set_xlim(min(xs), max(xs)) if max(xs) > min(xs) else axis.set_xlim(xs[0] - 1, xs[0] + 1)
    axis.xaxis.set_major_formatter(EngFormatter(sep=""))
    axis.xaxis.set_major_locator(MaxNLocator(5, integer=True))


def _log_axis(axis: Axes, low: float, high: float) -> None:
    """Set a log scale for y, with powers of ten as plain numbers, and 2 and 5 between them if there is room."""
    from matplotlib.ticker import LogLocator, NullFormatter

    axis.set(yscale="log", ylim=(low, high))
    axis.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if math.log10(high / low) < 2.2 else (1,), numticks=8))
    axis.yaxis.set_major_formatter("{x:g}")
    axis.yaxis.set_minor_formatter(NullFormatter())


def _spectrum(axis: Axes, row: Spectrum, floor: float) -> None:
    values = [float(value) for value in row.singular_values]
    shape = "x".join(map(str, row.shape))
    name = _clean(row.name or "(itself)")
    room = 42 - len(shape)  # the end of a long name distinguishes layers, so its beginning is cut
    axis.set_title(f"{name if len(name) <= room else '…' + name[1 - room :]}  {shape}\n")
    full = math.isfinite(row.condition_number)
    condition = f"{row.condition_number:.3g}" if full else f"infinite (rank {row.rank})"
    said = f"stable rank {row.stable_rank:.1f} of {len(values)}, condition {condition}"
    axis.text(0, 1.03, said, color=GREY if full else ALARM, fontsize=8, transform=axis.transAxes)
    axis.axhline(1, color="black", linestyle="--", linewidth=0.9)
    shown = [value for value in values[: row.rank] if value >= floor]
    places = np.arange(len(values)) / max(1, len(values) - 1)
    style = "o-" if len(values) <= FEW else "-"
    axis.plot(places[: len(shown)], shown, style, color=PALETTE[0], markersize=3.5, linewidth=2)
    if len(shown) < len(values):
        where = "zero" if len(shown) == row.rank else "below the axis"
        text = f"{len(values) - len(shown)} of {len(values)} are {where}"
        axis.text(0.99, 0.97, text, color=ALARM, ha="right", va="top", transform=axis.transAxes)
        axis.plot(
            [places[len(shown)], 1], [0.015, 0.015], color=ALARM, linewidth=3, transform=axis.get_xaxis_transform()
        )


def _legend(figure: Any, axes: Iterable[Axes], width: float, names: Sequence[str], entries: int) -> None:
    """Draw one legend below all panels, in as many columns as fit into ``width`` [inches].

    It is as high as a legend with ``entries`` names, so that panels of adjacent figures have the same height.
    """
    from matplotlib.lines import Line2D

    found: dict[str, Any] = {}
    for axis in axes:
        for handle, label in zip(*axis.get_legend_handles_labels(), strict=True):
            found.setdefault(label, handle)
    if not found:
        return
    columns = min(entries, max(1, int(width / (0.6 + LETTER * max(map(len, [*names, *found]))))))
    for index in range(len(found), (math.ceil(entries / columns) - 1) * columns + 1):
        found[" " * index] = Line2D([], [], linestyle="none")
    figure.legend(list(found.values()), list(found), loc="outside lower center", ncols=columns, fontsize=9)


def _limits(values: Sequence[np.ndarray]) -> tuple[float, float]:
    """Return the smallest and the largest value, with a margin if they are equal."""
    low, high = min(float(v.min()) for v in values), max(float(v.max()) for v in values)
    if high - low > 1e-9 * max(abs(low), abs(high)):
        return low, high
    room = 0.5 * abs(low) or 0.5
    return low - room, high + room


def _wrap(text: str, width: float) -> str:
    """Wrap ``text`` to ``width`` inches."""
    return textwrap.fill(_clean(text), max(20, int(width / LETTER)))


def _clean(text: str) -> str:
    """Remove what a font cannot show from ``text``: bytes of file names that are not text, and line breaks."""
    return " ".join(text.encode("utf-8", "backslashreplace").decode().split())
