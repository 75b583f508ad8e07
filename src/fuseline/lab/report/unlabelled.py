"""What rows without a target said while they trained: figures of run.json, curves of history.csv."""

from __future__ import annotations

from dataclasses import dataclass

from fuseline.lab.report.plots import Line, Plot, curves
from fuseline.lab.report.read import RunFiles, listing, mapping, number
from fuseline.lab.report.tables import Share, share
from fuseline.lab.report.words import clean, count, fmt

SHOWN = 24
"""classes in the table, those with most labelled rows first"""
CURVES = (
    ("unlabelled_confident", "sure enough to teach"),
    ("unlabelled_agreement", "agrees with the teacher"),
    ("unlabelled_commonest", "commonest pseudo-label"),
)


@dataclass(frozen=True)
class Pseudo:
    """A class: its share of the labelled rows, and of the pseudo-labels."""

    label: str
    given: Share | None
    said: Share | None


@dataclass(frozen=True)
class Unlabelled:
    sentence: str
    doubts: list[str]
    plots: list[Plot]
    rows: list[Pseudo]


def unlabelled(files: RunFiles) -> Unlabelled | None:
    """None where every row had a target."""
    found = mapping(files.run.get("unlabelled"))
    rows = number(found.get("rows"))
    if not rows:
        return None
    kept = mapping(found.get("kept"))
    sentence = f"{count(rows)} rows without a target trained, too: the student's answer on a changed row, with inputs "
    sentence += "hidden at random, was brought to the teacher's answer on the row as it is."
    sure, agreed = number(kept.get("confident")), number(kept.get("agreement"))
    if sure is not None and agreed is not None:
        sentence += f" At the kept model the teacher was sure enough of {sure:.0%} of them, and the student agreed on "
        sentence += f"{agreed:.0%}."
    elif (loss := number(kept.get("loss"))) is not None:
        sentence += f" At the kept model the loss between the two was {fmt(loss)}."
    given, said = mapping(found.get("labelled")), mapping(found.get("pseudo_labels"))
    order = sorted(given, key=lambda k: -(number(given[k]) or 0.0))[:SHOWN] if said else []
    shares = [Pseudo(clean(k, 60), share(given[k]), share(said.get(k))) for k in order]
    doubts = [clean(d, 300) for d in listing(found.get("doubts"))]
    return Unlabelled(sentence, doubts, _plots(files), shares)


def _plots(files: RunFiles) -> list[Plot]:
    rows = [r for r in files.history if "step" in r]
    shares = [line for column, name in CURVES if (line := _line(rows, column, name)) is not None]
    plots = [curves("Unlabelled rows", shares, "step", "share")] if shares else []
    if (loss := _line(rows, "unlabelled_loss", "unlabelled")) is not None:
        plots.append(curves("Loss of unlabelled rows, before its weight", [loss], "step", "loss"))
    return plots


def _line(rows: list[dict[str, float]], column: str, name: str) -> Line | None:
    found = [(r["step"], r[column]) for r in rows if column in r]
    return Line(name, [x for x, _ in found], [y for _, y in found]) if found else None
