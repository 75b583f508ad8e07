"""The report's plots: matplotlib without a display, once on light and once on dark ground, as SVG data URIs.

The text stays text (small files, the reader's own font); positions are computed with matplotlib's wider DejaVu Sans,
so that labels fit. Same numbers, same bytes: the SVG's ids are salted and its date is left out.
"""

from __future__ import annotations

import base64
import io
import math
import re
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import matplotlib
from matplotlib.figure import Figure

from fuseline.lab.report.words import clean, fmt

WIDTH = 5.0
"""inches; 360 SVG units, so that 9-point text stays readable on a phone"""
POINTS = 500
"""dots of a scatter plot at most, evenly spaced over the rows"""


@dataclass(frozen=True)
class Theme:
    ink: str
    muted: str
    grid: str
    accent: str
    second: str
    others: tuple[str, ...]

    def colour(self, i: int) -> str:
        return (self.accent, self.second, *self.others)[i % (2 + len(self.others))]

    @property
    def colours(self) -> tuple[str, ...]:
        return (self.ink, self.muted, self.grid, self.accent, self.second, *self.others)


LIGHT = Theme("#1d2733", "#5b6877", "#dfe5ea", "#1f5f8b", "#b8561c", ("#3f7d58", "#7a5195", "#8a7a2d", "#a0466b"))
DARK = Theme("#e6ebf0", "#a3b0bd", "#34404c", "#74b3e0", "#eb9a63", ("#85c79d", "#bb9bd3", "#d3c373", "#e08fb0"))
_COLOUR = re.compile("|".join(LIGHT.colours))
_DARKENED = dict(zip(LIGHT.colours, DARK.colours, strict=True))

STYLE = {
    "svg.fonttype": "none",
    "svg.hashsalt": "fuseline",
    "text.parse_math": False,  # a label may hold dollar signs
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 9.0,
    "axes.unicode_minus": True,
    "path.simplify": True,
}


@dataclass(frozen=True)
class Plot:
    """One picture in two colour schemes. `alt` says in words what it shows."""

    title: str
    alt: str
    light: str
    dark: str


Draw = Callable[[Any, Theme], None]
"""draws on the axes (or the figure, where it needs several)"""


def _svg(draw: Draw, theme: Theme, height: float) -> str:
    figure = Figure(figsize=(WIDTH, height), layout="constrained", facecolor="none")
    axes = figure.add_subplot()
    axes.set_facecolor("none")
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color(theme.grid)
    axes.tick_params(colors=theme.muted, labelsize=8.5, length=0, pad=4)
    axes.grid(True, color=theme.grid, linewidth=0.6)
    axes.set_axisbelow(True)
    for axis in (axes.xaxis, axes.yaxis):
        axis.label.set_color(theme.muted)
    draw(axes, theme)
    out = io.StringIO()
    with warnings.catch_warnings():
        # The browser draws the text with its own fonts, so a glyph that DejaVu lacks is no loss.
        warnings.filterwarnings("ignore", message=r"Glyph .* missing from font", category=UserWarning)
        figure.savefig(out, format="svg", metadata={"Date": None, "Creator": None}, transparent=True)
    text = out.getvalue()
    family = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif"
    return text[text.index("<svg") :].replace("'DejaVu Sans', sans-serif", family).replace("'DejaVu Sans'", family)


def plot(title: str, alt: str, draw: Draw, height: float = 3.0) -> Plot:
    """Draw once, on light ground; the dark picture is the same one with the theme's colours exchanged."""
    with matplotlib.rc_context(STYLE):
        light = _svg(draw, LIGHT, height)
    dark = _COLOUR.sub(lambda found: _DARKENED.get(found[0], found[0]), light)
    return Plot(
        title, alt, *("data:image/svg+xml;base64," + base64.b64encode(p.encode()).decode() for p in (light, dark))
    )


@dataclass(frozen=True)
class Line:
    """A curve. `note` follows its name in the label, e.g. the area under it."""

    name: str
    x: Sequence[float]
    y: Sequence[float]
    note: str = ""

    @property
    def label(self) -> str:
        return clean(self.name, 24) + (f"  {self.note}" if self.note else "")


def spread(wanted: Sequence[float], gap: float) -> list[float]:
    """The positions moved as little as needed for neighbours to stand `gap` apart."""
    order = sorted(range(len(wanted)), key=lambda i: wanted[i])
    placed = [wanted[i] for i in order]
    for _ in range(50):
        for i, (a, b) in enumerate(pairwise(placed)):
            if b - a < gap:
                middle = (a + b) / 2
                placed[i], placed[i + 1] = middle - gap / 2, middle + gap / 2
    out = [0.0] * len(wanted)
    for i, y in zip(order, placed, strict=True):
        out[i] = y
    return out


def curves(
    title: str, lines: Sequence[Line], x: str, y: str, *, best: tuple[float, float] | None = None, alt: str = ""
) -> Plot:
    """Lines over training steps, each named at its end; `best` marks the kept model."""

    def draw(axes: Any, theme: Theme) -> None:
        if all(float(at).is_integer() for line in lines for at in line.x):  # steps, trials: there is no half one
            axes.xaxis.get_major_locator().set_params(integer=True)
        for i, line in enumerate(lines):
            few = {"marker": "o", "markersize": 3.5} if len(line.x) < 3 else {}
            axes.plot(line.x, line.y, color=theme.colour(i), linewidth=1.6, solid_capstyle="round", **few)
        low, high = axes.get_ylim()
        if best is not None:
            high += 0.12 * (high - low)
            axes.set_ylim(low, high)
        ends = spread([line.y[-1] for line in lines], 0.075 * (high - low))
        right = max(line.x[-1] for line in lines)
        for i, (line, at) in enumerate(zip(lines, ends, strict=True) if len(lines) > 1 else ()):
            axes.annotate(
                line.label, (right, at), (6, 0), textcoords="offset points", color=theme.colour(i), va="center"
            )
        if best is not None:
            axes.plot(*best, "o", color=theme.second, markersize=6, zorder=5)
            axes.annotate(
                f"kept: {fmt(best[1])}", best, (0, 7), textcoords="offset points", ha="center", color=theme.second
            )
        axes.set_xlabel(clean(x, 60))
        axes.set_ylabel(clean(y, 60))

    ends = "; ".join(f"{clean(n.name, 40)} from {fmt(n.y[0])} to {fmt(n.y[-1])}" for n in lines)
    return plot(title, alt or f"Line chart over {x}: {ends}.", draw)


def unit_curves(
    title: str, lines: Sequence[Line], x: str, y: str, *, diagonal: bool = False, level: float | None = None
) -> Plot:
    """Curves in the unit square (ROC, precision-recall). `diagonal`/`level`: where guessing would lie.

    Up to five curves are coloured and named; of more, the two lowest and the two highest notes are, the rest is grey.
    """
    named = list(range(len(lines)))
    if len(lines) > 5:
        ranked = sorted(named, key=lambda i: lines[i].note)
        named = [*ranked[-2:][::-1], *ranked[:2][::-1]]

    def draw(axes: Any, theme: Theme) -> None:
        if diagonal:
            axes.plot([0, 1], [0, 1], color=theme.muted, linewidth=0.8, linestyle=(0, (4, 3)))
        if level is not None:
            axes.axhline(level, color=theme.muted, linewidth=0.8, linestyle=(0, (4, 3)))
        for i, line in enumerate(lines):
            if i not in named:
                axes.plot(line.x, line.y, color=theme.muted, alpha=0.35, linewidth=0.8)
        for rank, i in enumerate(named):
            axes.plot(lines[i].x, lines[i].y, color=theme.colour(rank), linewidth=1.7)
        # Both kinds of curve leave one corner free: ROC the lower right, precision-recall the lower left.
        at, side = (0.97, "right") if diagonal else (0.03, "left")
        said = [(lines[i].label, theme.colour(rank)) for rank, i in enumerate(named)]
        said += [("dashed: a guess", theme.muted)] if diagonal or level is not None else []
        for row, (text, colour) in enumerate(reversed(said)):
            axes.text(at, 0.05 + 0.075 * row, text, color=colour, ha=side, transform=axes.transAxes)
        axes.set(xlim=(-0.01, 1.01), ylim=(-0.01, 1.02), xlabel=x, ylabel=y, aspect="equal")

    names = "; ".join(line.label for line in (lines[i] for i in named))
    return plot(title, f"{title}: {y} against {x}. {names}.", draw, height=4.2)


def reliability(
    title: str, confidence: Sequence[float], accuracy: Sequence[float], rows: Sequence[float], ece: float | None
) -> Plot:
    """Observed share against predicted probability, with 95 % Wilson intervals; dots grow with their rows."""
    kept = [
        (c, a, n)
        for c, a, n in zip(confidence, accuracy, rows, strict=False)
        if n > 0 and math.isfinite(c) and math.isfinite(a)
    ]
    most = max((n for *_, n in kept), default=1.0)

    def draw(axes: Any, theme: Theme) -> None:
        axes.plot([0, 1], [0, 1], color=theme.muted, linewidth=0.8, linestyle=(0, (4, 3)))
        axes.plot([c for c, *_ in kept], [a for _, a, _ in kept], color=theme.accent, linewidth=1.0, alpha=0.6)
        for c, a, n in kept:
            low, high = wilson(a, n)
            axes.plot([c, c], [low, high], color=theme.accent, alpha=0.35, linewidth=3, solid_capstyle="round")
            size = 3.5 + 5.5 * math.sqrt(n / most)
            axes.plot([c], [a], "o", color=theme.accent, markersize=size, clip_on=False, zorder=5)
        axes.text(0.97, 0.05, "dashed: perfect", color=theme.muted, ha="right", transform=axes.transAxes)
        if ece is not None:
            axes.text(0.97, 0.125, f"ECE {fmt(ece)}", color=theme.accent, ha="right", transform=axes.transAxes)
        axes.set(
            xlim=(-0.01, 1.01),
            ylim=(-0.01, 1.02),
            xlabel="predicted probability",
            ylabel="observed share",
            aspect="equal",
        )

    points = ", ".join(f"{fmt(c, 2)} → {fmt(a, 2)} ({n:.0f} rows)" for c, a, n in kept)
    return plot(title, f"{title}. Predicted → observed: {points}. ECE {fmt(ece)}.", draw, height=4.2)


def wilson(share: float, n: float) -> tuple[float, float]:
    """95 % interval of a share of `n` (Wilson 1927, https://doi.org/10.1080/01621459.1927.10502953)."""
    z2 = 1.96**2
    centre = (share + z2 / (2 * n)) / (1 + z2 / n)
    half = math.sqrt(z2) / (1 + z2 / n) * math.sqrt(max(share * (1 - share) / n + z2 / (4 * n * n), 0.0))
    return max(centre - half, 0.0), min(centre + half, 1.0)


@dataclass(frozen=True)
class Bar:
    """One subset's estimate. `mark`: "full", "single" (the best one alone) or ""."""

    name: str
    value: float
    low: float | None = None
    high: float | None = None
    mark: str = ""


def ranking(title: str, bars: Sequence[Bar], x: str) -> Plot:
    """Estimates with their intervals as bars, best on top, the values beside them."""

    def draw(axes: Any, theme: Theme) -> None:
        tint = {"full": theme.accent, "single": theme.second}
        for y, bar in enumerate(reversed(bars)):
            colour = tint.get(bar.mark, theme.muted)
            if bar.low is not None and bar.high is not None:
                axes.barh(y, bar.high - bar.low, left=bar.low, height=0.5, color=colour, alpha=0.25, linewidth=0)
            axes.plot([bar.value], [y], "o", color=colour, markersize=6)
            axes.annotate(
                fmt(bar.value),
                (1.02, y),
                xycoords=("axes fraction", "data"),
                color=colour if bar.mark else theme.ink,
                va="center",
            )
        axes.set_yticks(range(len(bars)), [clean(b.name, 32) for b in reversed(bars)])
        for tick, bar in zip(axes.get_yticklabels(), reversed(bars), strict=True):
            tick.set_color(tint.get(bar.mark, theme.ink))
        axes.grid(False, axis="y")
        axes.spines["left"].set_visible(False)
        axes.set(xlabel=clean(x, 60), ylim=(-0.6, len(bars) - 0.35))

    said = "; ".join(f"{clean(b.name, 60)}: {fmt(b.value)}" for b in bars)
    return plot(title, f"{clean(title, 120)}, best first: {said}.", draw, height=0.75 + 0.27 * len(bars))


def _thin(n: int) -> range:
    return range(0, n, max(math.ceil(n / POINTS), 1))


def scatter(
    title: str, x: Sequence[float], y: Sequence[float], x_name: str, y_name: str, *, identity: bool, alt: str
) -> Plot:
    """Dots; `identity` draws the diagonal of a perfect answer, else the line at zero."""
    keep = [i for i in _thin(len(x)) if math.isfinite(x[i]) and math.isfinite(y[i])]

    def draw(axes: Any, theme: Theme) -> None:
        xs, ys = [x[i] for i in keep], [y[i] for i in keep]
        axes.plot(xs, ys, "o", color=theme.accent, alpha=0.5, markersize=3.5, markeredgewidth=0)
        style = {"color": theme.muted, "linewidth": 0.8, "linestyle": (0, (4, 3))}
        if identity and xs:
            ends = [min(*xs, *ys), max(*xs, *ys)]
            axes.plot(ends, ends, **style)
            axes.text(0.03, 0.93, "dashed: perfect", color=theme.muted, transform=axes.transAxes)
        else:
            axes.axhline(0, **style)
        axes.set(xlabel=x_name, ylabel=y_name)

    return plot(title, alt, draw, height=3.6)
