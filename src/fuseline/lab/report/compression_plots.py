"""The compression page's plots: what a smaller or faster model costs in the metric, and what each part gives away."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from fuseline.lab.report.compression_read import Effect
from fuseline.lab.report.plots import Plot, Theme, plot
from fuseline.lab.report.read import Estimate
from fuseline.lab.report.words import clean, fmt

NUMBERED = 12
"""members of the front that carry their number; of more, the numbers would cover each other"""
WITH_BARS = 40
"""models below which each shows its interval; of more, only the front does"""
MOST_BARS = 24
DASHED = (0, (4, 3))
HEIGHT = 3.9
AREA = (310.0, 220.0)
"""points that the axes of a picture `HEIGHT` inches high take, about"""


Box = tuple[float, float, float, float]
"""left, bottom, right and top, in points"""


@dataclass(frozen=True)
class Dot:
    """One model: `x` in the axis' unit, `drop` in points. `mark`: "base", "chosen", "front" or "". `number`: its row in
    the front's table."""

    x: float
    drop: Estimate
    mark: str = ""
    number: int | None = None

    @property
    def y(self) -> float:
        return self.drop.value or 0.0


Placed = tuple[Dot, float, float]
"""a model and where it lies, in points"""


def front(dots: Sequence[Dot]) -> list[Dot]:
    """Those that no other beats in both `x` and drop, by rising x."""
    out: list[Dot] = []
    for dot in sorted(dots, key=lambda d: (d.x, d.y)):
        if not out or dot.y < out[-1].y:
            out.append(dot)
    return out


def ceiling(dots: Sequence[Dot], limit: float | None) -> float:
    """The drop above which models are drawn at the picture's edge: a ruined one would flatten all others to a line."""
    kept = [d.y for d in dots if d.mark in ("base", "chosen")] + ([limit] if limit is not None else [])
    floor = min(d.y for d in dots)
    ranked = sorted(d.y for d in dots)
    usual = ranked[(3 * (len(ranked) - 1)) // 4]
    reach = max(*(k - floor for k in kept), usual - floor, 0.5)
    return floor + min(max(ranked) - floor, 2.5 * reach)


def trade_off(
    title: str,
    dots: Sequence[Dot],
    x: str,
    y: str,
    *,
    x_unit: str,
    x_limit: float | None = None,
    y_limit: float | None = None,
    y_unit: str = "",
    log: bool = False,
    chosen: str = "chosen",
) -> Plot | None:
    """The drop against latency or size: down and left is better. Budgets are dashed, the room inside them is tinted.
    None for fewer than two models."""
    dots = [d for d in dots if d.drop.value is not None and d.x > 0]
    if len(dots) < 2:
        return None
    top = ceiling(dots, y_limit)
    ordered = sorted(dots, key=lambda d: ("", "front", "base", "chosen").index(d.mark))

    def draw(axes: Any, theme: Theme) -> None:
        colours = {"base": theme.second, "chosen": theme.accent, "front": theme.ink, "": theme.muted}
        _frame(axes, theme, dots, top, (x_limit, x_unit), (y_limit, y_unit), log)
        steps = [d for d in front(dots) if d.y <= top]
        axes.step([d.x for d in steps], [d.y for d in steps], where="post", color=theme.muted, linewidth=1.2, zorder=2)
        for dot in ordered:
            colour, faint = colours[dot.mark], 1.0 if dot.mark else 0.45
            if dot.y > top:
                axes.plot([dot.x], [top], "^", color=colour, alpha=faint, markersize=5, clip_on=False, zorder=4)
                continue
            low, high = dot.drop.low, dot.drop.high
            if low is not None and high is not None and (dot.mark or len(dots) <= WITH_BARS):
                style = {"alpha": 0.35 if dot.mark else 0.18, "linewidth": 3.0, "solid_capstyle": "butt"}
                axes.plot([dot.x, dot.x], [low, high], color=colour, zorder=3, **style)
            size = {"base": 7.0, "chosen": 8.0, "front": 5.0, "": 4.0}[dot.mark]
            axes.plot(
                [dot.x], [dot.y], "D" if dot.mark == "base" else "o", color=colour, alpha=faint, markersize=size,
                markeredgewidth=0, zorder=5 if dot.mark else 4,
            )  # fmt: skip
        _names(axes, theme, ordered, top, chosen, x_limit, y_limit)
        beyond = sum(d.y > top for d in dots)
        if beyond:
            said = f"▲ {beyond} beyond {_points(top)}"
            axes.annotate(
                said, (1, 1), (0, 7), xycoords="axes fraction", textcoords="offset points", color=theme.muted,
                ha="right", fontsize=8.5,
            )  # fmt: skip
        axes.set_xlabel(clean(x, 60))
        axes.set_ylabel(clean(y, 60))

    return plot(title, _alt(title, dots, x, y, x_limit, y_limit), draw, height=HEIGHT)


Limit = tuple[float | None, str]
"""a budget and its unit"""


def _frame(axes: Any, theme: Theme, dots: Sequence[Dot], top: float, across: Limit, upwards: Limit, log: bool) -> None:
    """Limits of the axes, ticks, and the budget's lines where they fall near the models."""
    xs, ys = [d.x for d in dots], [d.y for d in dots if d.y <= top]
    x_limit = across[0] if across[0] is not None and min(xs) / 4 < across[0] < 1.6 * max(xs) else None
    left, right = min([*xs, *_given(x_limit)]), max([*xs, *_given(x_limit)])
    y_limit = upwards[0] if upwards[0] is not None and upwards[0] < min(ys) + 3 * max(top - min(ys), 0.5) else None
    ends = [e for d in dots if d.mark and d.y <= top and (e := d.drop.low) is not None]
    low = max(min([*ys, *ends]), min(ys) - 1.2 * (top - min(ys) + 0.5))  # a wide interval may leave the picture
    low, high = min([low, *_given(y_limit)]), max([top, *_given(y_limit)])
    high = max(high, low + 0.5)
    room = high - low
    bottom, high = low - 0.08 * room, high + 0.12 * room
    if log:
        away = 10 ** (0.1 * max(math.log10(right / left), 0.3))  # so that no dot lies on the frame
        left, right = left / away, right * away
        axes.set_xscale("log")
        ticks = [m * 10.0**k for k in range(-9, 10) for m in (1, 2, 5) if left <= m * 10.0**k <= right]
        ticks = [t for t in ticks if f"{t:g}"[0] == "1"] if len(ticks) > 7 else ticks
        axes.set_xticks(ticks, [_plain(t) for t in ticks])
        axes.minorticks_off()
    else:
        left, right = 0.0, right * 1.08
    if x_limit is not None or y_limit is not None:
        ends = [right if x_limit is None else x_limit, high if y_limit is None else y_limit]
        axes.fill_between([left, ends[0]], bottom, ends[1], color=theme.accent, alpha=0.07, linewidth=0, zorder=0)
    style = {"color": theme.muted, "linewidth": 0.9, "linestyle": DASHED, "zorder": 1}
    said = {"textcoords": "offset points", "color": theme.muted, "fontsize": 8.5}
    if x_limit is not None:
        axes.axvline(x_limit, **style)
        side, away = ("right", -4) if _share(x_limit, left, right, log) > 0.75 else ("left", 4)
        name = f"{_plain(x_limit)} {across[1]}"
        axes.annotate(name, (x_limit, 1), (away, -9), xycoords=("data", "axes fraction"), ha=side, **said)
    if y_limit is not None:
        axes.axhline(y_limit, **style)
        name = f"{_plain(y_limit)} {upwards[1]}"
        axes.annotate(name, (0, y_limit), (4, 4), xycoords=("axes fraction", "data"), **said)
    axes.set(xlim=(left, right), ylim=(bottom, high))


def _given(value: float | None) -> list[float]:
    return [] if value is None else [value]


def _share(x: float, left: float, right: float, log: bool) -> float:
    """How far from left to right."""
    return math.log(x / left) / math.log(right / left) if log else (x - left) / (right - left)


def _names(
    axes: Any, theme: Theme, dots: Sequence[Dot], top: float, chosen: str, x_limit: float | None, y_limit: float | None
) -> None:
    """Words beside the base and the chosen model, numbers beside the front where there are few: each on the side of its
    dot where it covers least."""
    many = sum(d.number is not None for d in dots) > NUMBERED
    shown = [(d, *_place(axes, d.x, d.y)) for d in dots if d.y <= top]
    boxes = [(x - 3, y - 3, x + 3, y + 3) for d, x, y in shown if d.mark or len(shown) <= WITH_BARS]
    boxes += _lines(axes, shown, x_limit, y_limit)
    for dot, x, y in reversed(shown):  # the marked ones come last, and choose first
        numbered = dot.number is not None and not many
        if dot.mark in ("base", "chosen"):
            text = "base" if dot.mark == "base" else f"{chosen} ({dot.number})" if numbered else chosen
        elif numbered:
            text = str(dot.number)
        else:
            continue
        size, wide = (9.0, 6.0 * len(text)) if dot.mark != "front" else (8.5, 5.5 * len(text))
        sides = [(dx, dy) for dy in (6.0, -6.0 - size, -size / 2) for dx in (6.0, -6.0 - wide)]
        # above and below, and a step further out, where all of these are taken
        sides += [(-wide / 2, dy) for dy in (8.0, -8.0 - size)]
        sides += [(dx, dy) for dy in (18.0, -18.0 - size) for dx in (6.0, -6.0 - wide)]
        placed = [(x + dx, y + dy, x + dx + wide, y + dy + size) for dx, dy in sides]
        best = min(range(len(placed)), key=lambda i: sum(_overlap(placed[i], b) for b in boxes) + _outside(placed[i]))
        boxes.append(placed[best])
        colour = {"base": theme.second, "chosen": theme.accent}.get(dot.mark, theme.ink)
        axes.annotate(
            text, (dot.x, dot.y), sides[best], textcoords="offset points", color=colour, fontsize=size, zorder=6,
            fontweight="normal" if dot.mark == "front" else "bold",
        )  # fmt: skip


def _lines(axes: Any, shown: Sequence[Placed], x_limit: float | None, y_limit: float | None) -> list[Box]:
    """What of the dashed lines and of the marked models' intervals a word should not cover."""
    left, bottom = axes.get_xlim()[0], axes.get_ylim()[0]
    boxes = []
    if x_limit is not None:
        at = _place(axes, max(x_limit, left), bottom)[0]
        boxes.append((at - 1, 0.0, at + 1, AREA[1]))
    if y_limit is not None:
        at = _place(axes, axes.get_xlim()[1], y_limit)[1]
        boxes.append((0.0, at - 1, AREA[0], at + 1))
    for dot, x, _ in shown:
        if dot.mark and dot.drop.low is not None and dot.drop.high is not None:
            low, high = (_place(axes, dot.x, e)[1] for e in (dot.drop.low, dot.drop.high))
            boxes.append((x - 1.5, low, x + 1.5, high))
    return boxes


def _place(axes: Any, x: float, y: float) -> tuple[float, float]:
    """Points from the lower left corner, of axes that the layout has not measured yet: about `AREA`."""
    (left, right), (bottom, top) = axes.get_xlim(), axes.get_ylim()
    across = _share(x, left, right, axes.get_xscale() == "log")
    return AREA[0] * across, AREA[1] * (y - bottom) / (top - bottom)


def _overlap(a: Box, b: Box) -> float:
    return max(0.0, min(a[2], b[2]) - max(a[0], b[0])) * max(0.0, min(a[3], b[3]) - max(a[1], b[1]))


def _outside(box: Box) -> float:
    return 1e3 * (max(0.0, -box[0]) + max(0.0, box[2] - AREA[0]) + max(0.0, -box[1]) + max(0.0, box[3] - AREA[1]))


def _plain(value: float | None) -> str:
    return "" if value is None else f"{value:,.10g}" if abs(value) < 1e6 else f"{value:.2g}"


def _points(value: float) -> str:
    return f"{value:.1f}"


def _alt(title: str, dots: Sequence[Dot], x: str, y: str, x_limit: float | None, y_limit: float | None) -> str:
    marked = {d.mark: d for d in dots if d.mark in ("base", "chosen")}
    said = [f"{name} at {fmt(d.x)} and {fmt(d.drop.value)}" for name, d in marked.items()]
    said += [f"budget at {_plain(x_limit)} across" if x_limit is not None else ""]
    said += [f"budget at {_plain(y_limit)} upwards" if y_limit is not None else ""]
    steps = ", ".join(f"({fmt(d.x)}, {fmt(d.y)})" for d in front(dots)[:NUMBERED])
    parts = "; ".join(s for s in said if s)
    return f"Scatter plot of {len(dots)} models: {y} over {x}. {parts}. Front: {steps}."


def sensitivity(title: str, effects: Sequence[Effect], x: str) -> Plot | None:
    """Bars of how far each action on each part moves the answers, largest on top, beside them the megabytes saved."""
    known = [e for e in effects if e.change is not None]
    shown = known[:MOST_BARS]
    if not shown:
        return None
    if len(known) > len(shown):
        title += f", the {len(shown)} largest of {len(known)}"
    kinds = list(dict.fromkeys(_kind(e.action) for e in sorted(shown, key=lambda e: e.action)))

    def draw(axes: Any, theme: Theme) -> None:
        for row, effect in enumerate(reversed(shown)):
            colour = theme.colour(kinds.index(_kind(effect.action)))
            axes.barh(row, effect.change, height=0.56, color=colour, linewidth=0)
            saved = f"{_saved(effect.saved)}"
            axes.annotate(
                saved, (1.02, row), xycoords=("axes fraction", "data"), color=theme.ink, va="center", fontsize=8.5
            )
        names = [f"{clean(e.part, 18)} · {clean(e.action, 16)}" for e in reversed(shown)]
        axes.set_yticks(range(len(shown)), names)
        for tick in axes.get_yticklabels():
            tick.set_color(theme.ink)
        axes.grid(False, axis="y")
        axes.spines["left"].set_visible(False)
        axes.locator_params(axis="x", nbins=4)
        axes.annotate(
            "saves", (1.02, 1), (0, 6), xycoords="axes fraction", textcoords="offset points", color=theme.muted,
            fontsize=8.5,
        )  # fmt: skip
        axes.set(xlabel=x, ylim=(-0.6, len(shown) - 0.35), xlim=(0, 1.04 * max(e.change or 0.0 for e in shown) or 1.0))

    said = "; ".join(f"{clean(e.part, 60)}, {clean(e.action, 40)}: {fmt(e.change)}, {_saved(e.saved)}" for e in shown)
    return plot(title, f"{title}, largest first: {said}.", draw, height=0.9 + 0.27 * len(shown))


def _kind(action: str) -> str:
    """What gives a bar its colour: the sort of a cut, else the number format."""
    return next((k for k in ("layers", "widths", "words", "vocabulary") if k in action), action)


def _saved(value: float | None) -> str:
    return "–" if value is None else f"{value:,.1f} MB"
