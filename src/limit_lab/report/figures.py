"""Figures as SVG elements: small panels that wrap on a phone, in colours safe for the colour-blind."""

from __future__ import annotations

import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from xml.sax.saxutils import escape

from limit_lab.stats import Estimate

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK, MUTED, GRID = "#1b1e23", "#5d6570", "#d9dde3"
#: Okabe and Ito's palette without its yellow, which vanishes on paper; shapes repeat the distinction.
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#7a5195")
GLYPHS = {"o": "●", "s": "■", "D": "◆", "^": "▲", "v": "▼", "P": "✚", "X": "✖"}
MARKERS = tuple(GLYPHS)
BASE = ("#7d8590", "o")
#: The most points whose names find room beside them.
LABELLED = 10
ABOVE, BELOW = "#009e73", "#d55e00"
STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "limit_lab",
    "font.family": "DejaVu Sans",
    "font.size": 9.5,
    "text.parse_math": False,
    "text.color": INK,
    "axes.edgecolor": MUTED,
    "axes.labelcolor": MUTED,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "axes.spines.top": False,
    "axes.spines.right": False,
}
#: Where a label may stand, in points from its mark: right, left, below, above, near before far.
PLACES = [
    (dx * reach, dy * (8 if dx else reach + 4))
    for reach in (7, 14, 24, 36)
    for dx, dy in ((1, 1), (-1, 1), (1, -1), (-1, -1), (0, 1), (0, -1))
]


@dataclass(frozen=True, slots=True)
class Mark:
    """How a cell looks in every figure."""

    colour: str
    marker: str

    @property
    def glyph(self) -> str:
        """The marker as a character, for legends."""
        return GLYPHS[self.marker]


@dataclass(frozen=True, slots=True)
class Dot:
    """One point with its interval on the percent axis."""

    name: str
    estimate: Estimate


def marks(names: Sequence[str], untouched: Sequence[str]) -> dict[str, Mark]:
    """A colour and a shape for every cell, the same in all figures; the untouched base is grey."""
    tuned = [name for name in names if name not in untouched]
    found = {name: _mark(place) for place, name in enumerate(tuned)}
    return {name: found.get(name, Mark(*BASE)) for name in names}


def _mark(place: int) -> Mark:
    """Colours in turn, and a shape further at every turn."""
    turn = len(COLOURS)
    return Mark(COLOURS[place % turn], MARKERS[(place + place // turn) % len(MARKERS)])


def intervals(
    key: str, title: str, axis: str, dots: Sequence[Dot], look: Mapping[str, Mark], *, line: float | None = None
) -> str:
    """One row for each cell: its value in percent, its interval, and a vertical line (even, or chance) if given."""
    with _style():
        figure, axes = _panel(3.7, 0.77 + 0.16 * axis.count("\n") + 0.34 * len(dots))
        for row, dot in enumerate(dots):
            _whisker(axes, dot.estimate, row, look[dot.name], size=7)
            axes.annotate(
                f"{dot.estimate.value * 100:.1f}".replace("-", "−"),
                (dot.estimate.high * 100, row),
                xytext=(7, 0),
                textcoords="offset points",
                va="center",
            )
        if line is not None:
            axes.axvline(line * 100, color=MUTED, linewidth=1, linestyle=(0, (4, 3)), zorder=0)
        _rows(axes, [dot.name for dot in dots], axis)
        left, right = axes.get_xlim()
        axes.set_xlim(left, right + 0.14 * (right - left))
        told = [f"{dot.name}: {dot.estimate.text()}" for dot in dots]
        return _svg(figure, key, title, f"{axis}. ".replace("\n", ", ") + "; ".join(told))


def categories(key: str, title: str, rows: Mapping[str, Sequence[Dot]], look: Mapping[str, Mark]) -> str:
    """A band for each category, its name above every cell in it, on the scale where chance is 0 (dashed)."""
    lines = sum(len(dots) + 1.7 for dots in rows.values())
    with _style():
        figure, axes = _panel(4.0, 0.7 + 0.148 * lines)
        line = 0.0
        for name, dots in rows.items():
            if line:
                axes.axhline(line - 0.1, color=GRID, linewidth=0.8, zorder=0)
            axes.text(0.01, line + 0.5, name, transform=axes.get_yaxis_transform(), color=INK, va="center")
            for place, dot in enumerate(dots, 1):
                _whisker(axes, dot.estimate, line + 0.45 + place, look[dot.name], size=5)
            line += len(dots) + 1.7
        axes.axvline(0, color=MUTED, linewidth=1, linestyle=(0, (4, 3)), zorder=0)
        _rows(axes, [], "rescaled score in %\n0 is chance (dashed), 100 all correct")
        axes.set_ylim(line - 0.1, -0.3)
        told = [f"{name}: " + ", ".join(f"{dot.name} {dot.estimate.text()}" for dot in dots) for name, dots in rows.items()]
        return _svg(figure, key, title, "; ".join(told))


def _legend(figure: Figure, axes: Axes) -> None:
    """What the marks stand for, below the axes; long names one under the other, in a figure that grows with them."""
    names = axes.get_legend_handles_labels()[1]
    wide = max(map(len, names)) > 20
    if wide:
        figure.set_figheight(figure.get_figheight() + 0.17 * len(names))
    place = (0, -0.15 if wide else -0.2)
    axes.legend(frameon=False, fontsize=8, labelcolor=INK, loc="upper left", bbox_to_anchor=place, ncols=1 if wide else 2)


def plane(
    key: str,
    title: str,
    axes_named: tuple[str, str],
    points: Mapping[str, tuple[Estimate, Estimate]],
    look: Mapping[str, Mark],
) -> str:
    """Both paradigms at once: a cross of two intervals for each cell, its name beside it (of many, below); dashed: even."""
    with _style():
        figure, axes = _panel(4.8, 4.1)
        for name, (x, y) in points.items():
            mark = look[name]
            axes.plot([x.low * 100, x.high * 100], [y.value * 100] * 2, color=mark.colour, linewidth=1.6)
            axes.plot([x.value * 100] * 2, [y.low * 100, y.high * 100], color=mark.colour, linewidth=1.6)
            axes.plot([x.value * 100], [y.value * 100], mark.marker, color=mark.colour, markersize=7.5, label=name)
        axes.axhline(50, color=MUTED, linewidth=1, linestyle=(0, (4, 3)), zorder=0)
        axes.margins(0.12)
        axes.grid(color=GRID, linewidth=0.8)
        axes.set_axisbelow(True)
        axes.set_xlabel(axes_named[0])
        axes.set_ylabel(axes_named[1])
        if len(points) > LABELLED:
            _legend(figure, axes)
        else:
            _label(figure, axes, points)
        told = [f"{name}: {x.text()} and {y.text()}" for name, (x, y) in points.items()]
        return _svg(figure, key, title, "; ".join(told))


def curves(
    key: str,
    title: str,
    axis: str,
    drawn: Sequence[tuple[str, Sequence[tuple[int, Estimate]]]],
    level: tuple[str, Estimate] | None,
) -> str:
    """Values in percent against samples (logarithmic), each with its interval; a grey band for what has no samples."""
    with _style():
        figure, axes = _panel(4.8, 3.4)
        for place, (name, points) in enumerate(drawn):
            mark = _mark(place)
            x = [size * (1 + 0.025 * (place - (len(drawn) - 1) / 2)) for size, _ in points]  # so that intervals stand apart
            y = [found.value * 100 for _, found in points]
            axes.plot(x, y, color=mark.colour, marker=mark.marker, markersize=6, linewidth=1.4, label=name)
            for across, (_, found) in zip(x, points, strict=True):
                axes.plot([across] * 2, [found.low * 100, found.high * 100], color=mark.colour, linewidth=1.4)
        if level is not None:
            name, found = level
            axes.axhspan(found.low * 100, found.high * 100, color=BASE[0], alpha=0.18, linewidth=0)
            axes.axhline(found.value * 100, color=BASE[0], linewidth=1.2, label=name)
        axes.set_xscale("log")
        sizes = sorted({size for _, points in drawn for size, _ in points})
        axes.set_xticks(sizes, [_thousands(size) for size in sizes])
        axes.minorticks_off()
        axes.set_xlabel("samples")
        axes.set_ylabel(axis)
        axes.grid(color=GRID, linewidth=0.8)
        axes.set_axisbelow(True)
        _legend(figure, axes)
        told = [f"{name}: " + ", ".join(f"{size:,} samples {one.text()}" for size, one in points) for name, points in drawn]
        return _svg(figure, key, title, "; ".join(told))


def _thousands(count: int) -> str:
    return f"{count / 1000:g}k" if count >= 1000 else str(count)


def matrix(key: str, title: str, names: Sequence[str], values: Mapping[tuple[str, str], Estimate], even: float) -> str:
    """One field for each couple of cells, the row against the column, in percent; bold where ``even`` lies outside."""
    side = 0.52 * len(names)
    with _style():
        figure, axes = _panel(1.9 + side, 1.5 + 0.62 * side)
        reach = max((abs(one.value - even) for one in values.values()), default=1.0) or 1.0
        for (row, column), one in values.items():
            x, y = names.index(column), names.index(row)
            clear = one.low > even or one.high < even
            shade = ABOVE if one.value > even else BELOW
            alpha = 0.08 + 0.5 * abs(one.value - even) / reach if clear else 0.04
            axes.fill_between([x - 0.5, x + 0.5], y - 0.5, y + 0.5, color=shade, alpha=alpha, linewidth=0)
            text = f"{one.value * 100:{'+' if even == 0 else ''}.0f}".replace("-", "−")
            axes.text(x, y, text, ha="center", va="center", color=INK, weight="bold" if clear else "normal", fontsize=9)
        axes.set_xlim(-0.5, len(names) - 0.5)
        axes.set_ylim(len(names) - 0.5, -0.5)
        axes.set_xticks(range(len(names)), names, rotation=40, ha="right", color=INK, fontsize=8.5)
        axes.set_yticks(range(len(names)), names, color=INK, fontsize=8.5)
        axes.tick_params(length=0)
        for spine in axes.spines.values():
            spine.set_visible(False)
        told = [f"{row} against {column}: {one.text()}" for (row, column), one in values.items()]
        return _svg(figure, key, title, "; ".join(told))


def _label(figure: Figure, axes: Axes, points: Mapping[str, tuple[Estimate, Estimate]]) -> None:
    """Put each name where it covers least of the crosses and other names: greedy over places around its point."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.transforms import Bbox

    FigureCanvasAgg(figure)
    figure.draw_without_rendering()
    taken = []
    for x, y in points.values():
        corners = [(x.low * 100, y.low * 100), (x.high * 100, y.high * 100), (x.value * 100, y.value * 100)]
        (left, low), (right, high), (across, up) = axes.transData.transform(corners)
        taken += [Bbox([[left, up - 4], [right, up + 4]]), Bbox([[across - 4, low], [across + 4, high]])]
    frame = axes.get_window_extent()
    even = axes.transData.transform((0, 50))[1]
    taken.append(Bbox([[frame.x0, even - 2], [frame.x1, even + 2]]))
    for name, (x, y) in points.items():
        text = axes.annotate(name, (x.value * 100, y.value * 100), (0, 0), textcoords="offset points", va="center", color=INK)
        costs = []
        for place in PLACES:
            _move(text, place)
            box = text.get_window_extent().padded(2)
            outside = box.width * box.height - _overlap(box, frame)
            costs.append(sum(_overlap(box, other) for other in taken) + 4 * outside)
        _move(text, PLACES[costs.index(min(costs))])
        taken.append(text.get_window_extent().padded(2))


def _move(text: Any, place: tuple[float, float]) -> None:
    text.set_position(place)
    text.set_horizontalalignment("left" if place[0] > 0 else "right" if place[0] < 0 else "center")


def _overlap(one: Any, other: Any) -> float:
    width = min(one.x1, other.x1) - max(one.x0, other.x0)
    height = min(one.y1, other.y1) - max(one.y0, other.y0)
    return float(max(width, 0.0) * max(height, 0.0))


def _panel(width: float, height: float) -> tuple[Figure, Axes]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    figure.patch.set_alpha(0)
    axes = figure.add_subplot()
    axes.patch.set_alpha(0)
    return figure, axes


def _whisker(axes: Axes, estimate: Estimate, row: float, mark: Mark, *, size: float) -> None:
    axes.plot([estimate.low * 100, estimate.high * 100], [row, row], color=mark.colour, linewidth=2, solid_capstyle="round")
    axes.plot([estimate.value * 100], [row], mark.marker, color=mark.colour, markersize=size)


def _rows(axes: Axes, names: Sequence[str], axis: str) -> None:
    axes.set_yticks(range(len(names)), [name.replace(", ", ",\n", 1) for name in names], color=INK)
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
    axes.grid(axis="x", color=GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.set_xlabel(axis)


def _style() -> Any:
    from matplotlib import rc_context

    return rc_context(STYLE)


def _svg(figure: Figure, key: str, title: str, described: str) -> str:
    """The figure as an SVG element with title and description, its ids prefixed by ``key``."""
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg")
    text = buffer.getvalue()
    text = re.sub(r"<metadata>.*?</metadata>", "", text[text.index("<svg") :], flags=re.DOTALL)
    text = re.sub(r'\bid="([^"]+)"', rf'id="{key}-\1"', text)
    text = re.sub(r'(href="|url\()#', rf"\1#{key}-", text)
    names = f'<title id="{key}-title">{escape(title)}</title><desc id="{key}-desc">{escape(described)}</desc>'
    head, body = text.split(">", 1)
    return f'{head} role="img" aria-labelledby="{key}-title {key}-desc">{names}{body.strip()}'
