"""The metrics by groups of rows, for the page."""

from __future__ import annotations

from dataclasses import dataclass

from fuseline.lab.report.read import Estimate, RunFiles, listing, mapping, number
from fuseline.lab.report.robust import Figures
from fuseline.lab.report.words import clean, count, estimate, fmt, label

SHOWN = 4
"""metrics beside the watched one"""


@dataclass(frozen=True)
class Fair:
    sentence: str
    tables: list[Figures]


def fair(files: RunFiles) -> Fair | None:
    """None where no column was named in `evaluation.slices`."""
    found = mapping(files.metrics.get("slices"))
    metric = str(found.get("metric") or "")
    tables = []
    for column, groups in mapping(found.get("columns")).items():
        entries = [mapping(g) for g in listing(groups)]
        names = [metric, *(n for g in entries for n in mapping(g.get("metrics")) if n != metric)]
        names = list(dict.fromkeys(names))[: 1 + SHOWN]
        rows = []
        for g in entries:
            own = mapping(g.get("metrics"))
            cells = (
                ["too few rows"] + [""] * (len(names) - 1)
                if g.get("few")
                else [estimate(Estimate.read(n, own.get(n))) for n in names]
            )
            rows.append([clean(g.get("group"), 60), count(number(g.get("rows"))), *cells])
        tables.append(Figures(f"By {clean(column, 60)}.", "Group", ["rows", *map(label, names)], rows))
    return Fair(_sentence(found, metric), tables) if tables else None


def _sentence(found: dict[str, object], metric: str) -> str:
    worst = mapping(found.get("worst"))
    few = sum(bool(mapping(g).get("few")) for own in mapping(found.get("columns")).values() for g in listing(own))
    text = f"Measured on the {clean(found.get('of'), 10)} rows, with 95 % intervals. "
    if worst:
        clear = {
            True: "a difference larger than chance explains",
            False: "within what chance explains",
        }
        text += (
            f"The worst group is {clean(worst.get('column'), 60)} = {clean(worst.get('group'), 60)}: {label(metric)} "
            f"{fmt(number(worst.get('value')))} on {count(number(worst.get('rows')))} rows, "
            f"{fmt(number(worst.get('others')))} on all others"
        )
        text += f", {clear[bool(worst['clear'])]}" if worst.get("clear") is not None else ""
        text += ". It was looked for among all groups, so some group will always look worst."
    else:
        text += "No group has enough rows to be judged."
    return text + (f" {few} groups have too few rows to tell." if few else "")
