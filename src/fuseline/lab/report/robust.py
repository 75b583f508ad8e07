"""The curves and figures of robustness.json, for the page."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from fuseline.lab.report.plots import Line, Plot, curves
from fuseline.lab.report.read import Estimate, RunFiles, listing, mapping, number
from fuseline.lab.report.words import clean, count, fmt, interval, label

KINDS = (
    ("noise", "strength", "Under noise", "strength of the noise"),
    ("absent", "share", "Taken away", "share of rows that lose the input"),
    ("attacked", "strength", "Attacked", "strength of the attack"),
)


@dataclass(frozen=True)
class Figures:
    caption: str
    first: str
    headings: list[str]
    rows: list[list[str]]
    folded: bool = False
    """closed until it is asked for"""


@dataclass(frozen=True)
class Robust:
    sentence: str
    plots: list[Plot]
    tables: list[Figures]
    notes: list[str]


def robust(files: RunFiles) -> Robust | None:
    """None where nothing was measured."""
    found = files.robustness
    metric = str(found.get("metric") or "")
    clean_one = Estimate.read(metric, mapping(found.get("clean")).get(metric))
    if clean_one.value is None:
        return None
    plots, tables = [], []
    for kind, at, title, x in KINDS:
        lines = _lines(mapping(found.get(kind)), at, metric, clean_one.value)
        if not lines:
            continue
        plots.append(curves(f"{title}: {label(metric)}", lines, x, label(metric)))
        levels = list(dict.fromkeys(v for line in lines for v in line.x))
        rows = []
        for line in lines:
            values = dict(zip(line.x, line.y, strict=True))
            rows.append([line.name, *(fmt(values[v]) if v in values else "–" for v in levels)])
        tables.append(Figures(f"{title}: {label(metric)} by {x}.", "Input", [f"{v:g}" for v in levels], rows))
    return Robust(_sentence(found, clean_one, metric), plots, tables, _notes(found))


def _lines(inputs: dict[str, Any], at: str, metric: str, start: float) -> list[Line]:
    out = []
    for name, item in inputs.items():
        x, y = [0.0], [start]
        for point in map(mapping, listing(mapping(item).get("curve"))):
            level = number(point.get(at))
            value = Estimate.read(metric, mapping(point.get("metrics")).get(metric)).value
            if level is not None and value is not None:
                x.append(level)
                y.append(value)
        if len(x) > 1:
            out.append(Line(clean(name, 40), x, y))
    return out


def _sentence(found: dict[str, Any], one: Estimate, metric: str) -> str:
    rows, of = number(found.get("rows")), clean(found.get("of") or "held-out", 20)
    text = f"On {count(rows)} {of} rows, {label(metric)} is {fmt(one.value)}"
    text += f" ({interval(one)})" if interval(one) else ""
    return text + (
        " as they are. Below, one input at a time is made noisy, taken away, or attacked by an adversary who knows the "
        "model and the truth; all others stay as they are."
    )


def _notes(found: dict[str, Any]) -> list[str]:
    notes = [
        f"Noise on {clean(name, 40)}, strength 1: {clean(mapping(item).get('unit') or '', 120)}, "
        + ", ".join(f"{k} {fmt(v)}" for k, v in mapping(mapping(item).get("base")).items())
        + "."
        for name, item in mapping(found.get("noise")).items()
    ]
    attack = mapping(found.get("attack"))
    radii = mapping(attack.get("radii"))
    pushes = [str(mapping(item).get("pushes")) for item in mapping(found.get("attacked")).values()]
    pushed = {kind for one in pushes for kind in one.split(", ")}
    told = ", ".join(f"{k} {fmt(v)}" for k, v in radii.items() if k in pushed and number(v) is not None)
    if told:
        notes.append(f"Attack: PGD of {fmt(number(attack.get('steps')))} steps; radii of strength 1: {told}.")
    if names := [clean(n, 40) for n in listing(found.get("not_attacked"))]:
        notes.append(f"Not attacked, since nothing in them can be pushed by little: {', '.join(names)}.")
    return notes
