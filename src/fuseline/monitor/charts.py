"""Small inline SVG charts, reference against now. Colours come from the page's style, so that they suit light and dark.

Dimensions: K bins or categories, N rows, D width.
"""

from __future__ import annotations

import html
import math
from collections.abc import Sequence

import numpy as np

from fuseline.monitor.reference import FEW, Numbers

WIDTH, HEIGHT = 360, 150
LEFT, RIGHT, TOP, BOTTOM = 8, 8, 8, 22
BINS = 24
BAR, GAP = 11, 30
MOST_BARS = 13
NAME = 110


def say(text: object, limit: int = 200) -> str:
    """Text for a page: escaped, without control characters, cut."""
    whole = "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in str(text)[: limit + 1])
    return html.escape(whole if len(whole) <= limit else whole[: limit - 1] + "…")


def brief(value: float) -> str:
    """A number as an axis names it."""
    return f"{value:.3g}" if abs(value) < 1000 else f"{value:,.0f}" if abs(value) < 1e7 else f"{value:.2g}"


def histogram(known: Numbers, values: np.ndarray) -> str:
    """Shares of the reference (filled) and of now (line). A few distinct values get a bar each."""
    if len(known.at) <= FEW + 1 and not known.strictly:
        points = known.at[1:]
        was = np.diff(known.share)
        being = np.array([(values == p).mean() for p in points])
        names = [brief(float(p)) for p in points]
        if being.sum() < 0.9995:
            names, was, being = [*names, "other"], np.append(was, 0.0), np.append(being, 1 - being.sum())
        return bars(names, was, being)
    low, high = _span(known, values)
    edges, inside = _edges(known, values, low, high)
    low, high = float(edges[0]), float(edges[-1])
    # Between its known points the reference is drawn straight; what lies beyond the picture is in the outer bins.
    was = np.diff([0.0, *np.interp(inside, known.at, known.share).tolist(), 1.0])
    being = np.histogram(np.clip(values, low, high), edges)[0] / max(1, len(values))
    top = max(float(was.max()), float(being.max()), 1e-9)
    bins = len(edges) - 1
    x = LEFT + (WIDTH - LEFT - RIGHT) * np.arange(bins + 1) / bins
    floor = HEIGHT - BOTTOM

    def steps(shares: np.ndarray) -> str:
        y = floor - (floor - TOP) * shares / top
        return " ".join(f"{x[i]:.1f},{y[i]:.1f} {x[i + 1]:.1f},{y[i]:.1f}" for i in range(bins))

    middle = brief((low + high) / 2)
    return (
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="shares, reference and now">'
        f'<polygon class="was" points="{x[0]:.1f},{floor} {steps(was)} {x[-1]:.1f},{floor}"/>'
        f'<polyline class="now" points="{x[0]:.1f},{floor} {steps(being)} {x[-1]:.1f},{floor}"/>'
        f'<line class="axis" x1="{LEFT}" y1="{floor}" x2="{WIDTH - RIGHT}" y2="{floor}"/>'
        f'<text x="{LEFT}" y="{HEIGHT - 6}">{brief(low)}</text>'
        f'<text x="{WIDTH / 2}" y="{HEIGHT - 6}" text-anchor="middle">{middle}</text>'
        f'<text x="{WIDTH - RIGHT}" y="{HEIGHT - 6}" text-anchor="end">{brief(high)}</text></svg>'
    )


def _edges(known: Numbers, values: np.ndarray, low: float, high: float) -> tuple[np.ndarray, np.ndarray]:
    """Edges of the bins, and where the reference's shares are read for the inner ones. Values on a grid (whole numbers,
    tenths) get bins of as many steps each: others would show a comb that is not there."""
    points = known.at[1:]
    unit = float(np.diff(points).min()) if len(points) > 1 else 0.0
    if unit > 0 and (high - low) / unit < 2000:
        places = (np.concatenate([points, values]) - points[0]) / unit
        if np.abs(places - places.round()).max() < 1e-3:
            first, last = round((low - points[0]) / unit), round((high - points[0]) / unit)
            step = -(-(last - first + 1) // BINS)
            count = -(-(last - first + 1) // step)
            steps = first + step * np.arange(count + 1)
            return points[0] + unit * (steps - 0.5), points[0] + unit * (steps[1:-1] - 1 + 1e-3)
    edges = np.linspace(low, high, BINS + 1)
    return edges, edges[1:-1]


def _span(known: Numbers, values: np.ndarray) -> tuple[float, float]:
    """Where both have their rows, a hundredth at each end aside."""
    inner = known.at[(known.share >= 0.01) & (known.share <= 0.99)]
    ends = [*(inner if len(inner) else known.at)[[0, -1]].tolist(), *np.quantile(values, [0.01, 0.99]).tolist()]
    low, high = min(ends), max(ends)
    if not math.isfinite(high - low) or high - low <= 1e-12 * max(abs(low), abs(high)):
        return low - 0.5, low + 0.5
    return low, high


def bars(names: Sequence[str], was_K: np.ndarray, being_K: np.ndarray) -> str:
    """A pair of bars for each name, share of rows; those that changed most where there are many."""
    order = list(range(len(names)))
    if len(order) > MOST_BARS:
        worst = np.argsort(-np.abs(was_K - being_K), kind="stable")[:MOST_BARS].tolist()
        order = sorted(worst)
    height = GAP * len(order) + 4
    room = WIDTH - NAME - 50
    top = max(float(was_K.max(initial=0)), float(being_K.max(initial=0)), 1e-9)
    parts = [f'<svg viewBox="0 0 {WIDTH} {height}" role="img" aria-label="shares, reference and now">']
    for place, i in enumerate(order):
        y = 3 + GAP * place
        parts.append(f'<text class="name" x="{NAME - 8}" y="{y + 15}" text-anchor="end">{say(names[i], 16)}</text>')
        for style, share, down in (("was", was_K[i], 0), ("now", being_K[i], BAR + 1)):
            width = max(0.5, room * float(share) / top)
            parts.append(f'<rect class="{style}" x="{NAME}" y="{y + down}" width="{width:.1f}" height="{BAR}" rx="2"/>')
            parts.append(f'<text x="{NAME + width + 5:.1f}" y="{y + down + 9.5}">{share:.1%}</text>')
    return "".join([*parts, "</svg>"])


def plane(reference_ND: np.ndarray, now_ND: np.ndarray) -> str:
    """Both samples on the two directions in which they spread most together (principal components, by SVD)."""
    both = np.concatenate([reference_ND, now_ND])
    both = both - both.mean(axis=0)
    _, _, axes = np.linalg.svd(both, full_matrices=False)
    flat = both @ axes[:2].T
    if flat.shape[1] < 2:
        flat = np.column_stack([flat, np.zeros(len(flat))])
    low, high = flat.min(axis=0), flat.max(axis=0)
    span = np.where(high > low, high - low, 1.0)
    size = 260
    x = 10 + (WIDTH - 20) * (flat[:, 0] - low[0]) / span[0]
    y = size - 10 - (size - 20) * (flat[:, 1] - low[1]) / span[1]
    dots = [
        f'<circle class="{"was" if i < len(reference_ND) else "now"}" cx="{x[i]:.1f}" cy="{y[i]:.1f}" r="2.6"/>'
        for i in range(len(flat))
    ]
    return f'<svg viewBox="0 0 {WIDTH} {size}" role="img" aria-label="embeddings">{"".join(dots)}</svg>'


def gauge(value: float, threshold: float) -> str:
    """A score against what chance reaches."""
    top = 1.15 * max(value, threshold, 1e-12)
    room = WIDTH - LEFT - RIGHT
    width, mark = max(0.5, room * max(0.0, value) / top), LEFT + room * threshold / top
    anchor = "end" if mark > WIDTH / 2 else "start"
    return (
        f'<svg viewBox="0 0 {WIDTH} 46" role="img" aria-label="score and threshold">'
        f'<rect class="rail" x="{LEFT}" y="8" width="{room}" height="12" rx="3"/>'
        f'<rect class="now" x="{LEFT}" y="8" width="{width:.1f}" height="12" rx="3"/>'
        f'<line class="mark" x1="{mark:.1f}" y1="3" x2="{mark:.1f}" y2="25"/>'
        f'<text x="{mark:.1f}" y="40" text-anchor="{anchor}">chance reaches {threshold:.2g}</text></svg>'
    )
