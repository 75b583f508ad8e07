"""How sure the answers are, for the page: calibration before and after, coverage by group, risk against coverage."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from fuseline.lab.report.plots import Line, Plot, curves, reliability
from fuseline.lab.report.read import RunFiles, listing, mapping, number, numbers
from fuseline.lab.report.robust import Figures
from fuseline.lab.report.words import clean, count, fmt

WORDS = {"all": "as they come", "shown": "shown with", "natural": "that have just", "by": "with"}
BEFORE_AFTER = ("before", "after")


@dataclass
class Sureness:
    title: str
    sentences: list[str] = field(default_factory=list)
    plots: list[Plot] = field(default_factory=list)
    tables: list[Figures] = field(default_factory=list)


def sureness(files: RunFiles) -> list[Sureness]:
    """A block a task; nothing where nothing was asked for."""
    found = mapping(files.metrics.get("sure"))
    about = mapping(found.get("about"))
    if not about:
        return []
    if not mapping(found.get("tasks")):
        return [Sureness("", ["What was fitted was not checked: there are no test rows."])]
    return [_block(name, mapping(own), about, found) for name, own in mapping(found["tasks"]).items()]


def _block(name: str, own: dict[str, Any], about: dict[str, Any], found: dict[str, Any]) -> Sureness:
    out = Sureness(clean(name, 60))
    out.sentences.append(
        f"Fitted on {count(number(about.get('rows')))} rows ({clean(about.get('of'), 20)}), checked on "
        f"{count(number(found.get('rows')))} test rows."
    )
    if about.get("ordered"):
        out.sentences.append(
            "The rows are ordered in time: what is stated assumes that new rows are like those it was fitted on, and "
            "time may change them."
        )
    for add in (_calibration, _conformal, _selective):
        add(mapping(own), out)
    return out


def _calibration(own: dict[str, Any], out: Sureness) -> None:
    told = mapping(own.get("calibration"))
    if not told or told.get("asked") in (None, "none"):
        return
    method = clean(told.get("method"), 20)
    changed = method not in ("", "none")
    if changed:
        out.sentences.append(f"Chances are calibrated by: {method}.")
    else:
        why = clean(told.get("why") or "", 120) or "no method made the held-out rows more likely, in cross-validation"
        out.sentences.append(f"Chances are as the model gave them: {why}.")
    told = told if changed else {**told, "after": {}}
    rows = []
    for key, label in (("ece", "ECE"), ("brier", "Brier score"), ("log_loss", "Log loss"), ("accuracy", "Accuracy")):
        rows.append([label, *(fmt(number(mapping(told.get(w)).get(key))) for w in BEFORE_AFTER if told.get(w))])
    headings = list(BEFORE_AFTER) if changed else ["as they are"]
    out.tables.append(Figures("Calibration on the test rows.", "Metric", headings, rows))
    losses = mapping(told.get("log_loss"))
    if losses:
        rows = [[clean(k, 20), fmt(number(v))] for k, v in losses.items()]
        out.tables.append(
            Figures("Cross-validated log loss on the rows it was fitted on.", "Method", ["log loss"], rows)
        )
    for when in BEFORE_AFTER:
        whole = mapping(mapping(told.get(when)).get("reliability"))
        bins = [mapping(b) for b in listing(whole.get("bins"))]
        if bins:
            x, y, n = (numbers([b.get(k) for b in bins]) for k in ("confidence", "accuracy", "count"))
            title = f"Reliability {when}" if changed else "Reliability"
            out.plots.append(reliability(title, x, y, n, number(whole.get("ece"))))


def _conformal(own: dict[str, Any], out: Sureness) -> None:
    stated = number(own.get("coverage"))
    groups = [mapping(g) for g in listing(own.get("conformal"))]
    if stated is None or not groups:
        return
    judged = [g for g in groups if g.get("verdict") != "too few rows"]
    low = [g for g in judged if g.get("verdict") == "below"]
    out.sentences.append(
        f"Sets and intervals shall hold the truth in {100 * stated:g} % of rows. Of {len(groups)} groups, "
        f"{len(judged)} have enough rows to tell, and {len(low)} of these fall short by more than 2 points and by more "
        f"than chance explains" + (f": {'; '.join(_group(g) for g in low[:5])}." if low else ".")
    )
    headings = ["fitted on", "checked on", "holds the truth", "classes, or width", f"against {100 * stated:g} %"]
    caption = (
        "How often the truth is inside, by the inputs that are there. Shown with: rows that have these inputs, asked "
        "with just these. That have just: rows that came with no others."
    )
    if judged:
        out.tables.append(Figures(caption, "Rows", headings, [_covered(g) for g in judged]))
    if few := [g for g in groups if g.get("verdict") == "too few rows"]:
        caption = f"The {len(few)} groups with too few rows to tell, to fit a threshold of their own or to check it."
        out.tables.append(Figures(caption, "Rows", headings[:-1], [_covered(g)[:-1] for g in few], folded=len(few) > 6))


def _covered(g: dict[str, Any]) -> list[str]:
    return [
        _group(g),
        count(number(g.get("fitted_rows"))) if number(g.get("fitted_rows")) else "others' rows",
        count(number(g.get("rows"))),
        _percent(number(g.get("coverage"))),
        fmt(number(g.get("size"))),
        clean(g.get("verdict"), 30),
    ]


def _group(group: dict[str, Any]) -> str:
    kind = str(group.get("kind"))
    if kind == "all":
        return "all, as they come"
    if kind == "by":
        return "with " + ", ".join(clean(v, 60) for v in listing(group.get("by")))
    names = ", ".join(clean(n, 40) for n in listing(group.get("present"))) or "no input"
    return f"{WORDS.get(kind, kind)} {names}"


def _selective(own: dict[str, Any], out: Sureness) -> None:
    told = mapping(own.get("selective"))
    curve = mapping(told.get("curve"))
    x, y = numbers(curve.get("coverage")), numbers(curve.get("risk"))
    if not x or len(x) != len(y):
        return
    risk = mapping(told.get("risk"))
    error: Callable[[str], str] = lambda share: _percent(number(risk.get(share)))  # noqa: E731
    out.sentences.append(
        f"Of all answers {error('1')} are wrong, of the surest 80 % of them {error('0.8')}, of the surest half "
        f"{error('0.5')} (area under risk-coverage {fmt(number(told.get('aurc')))})."
    )
    out.plots.append(
        curves("Risk against coverage", [Line("wrong", x, y)], "share of rows answered, surest first", "share wrong")
    )
    abstain = mapping(told.get("abstain"))
    checked = [mapping(c) for c in listing(abstain.get("checked"))]
    if not checked:
        return
    rows = []
    for entry in checked:
        named = entry.get("present")
        words = (
            "all, as they come"
            if named is None
            else "shown with " + (", ".join(clean(n, 40) for n in listing(named)) or "no input")
        )
        answered = number(entry.get("answered"))
        rows.append([words, count(number(entry.get("rows"))), _percent(answered), _percent(number(entry.get("error")))])
    stated = _percent(number(abstain.get("error")))
    if number(checked[0].get("answered")) == 0:
        out.sentences.append(
            f"It answered none of the test rows: of no share of the rows could it be shown that at most {stated} of "
            "the answers are wrong. Every row gets what the model leans to, for a person to check."
        )
    held = _percent(number(abstain.get("confidence")))
    caption = f"Answers given where at most {stated} of them shall be wrong (at {held} confidence)."
    out.tables.append(Figures(caption, "Rows", ["checked on", "answered", "wrong among these"], rows))


def _percent(share: float | None) -> str:
    return "–" if share is None else f"{100 * share:.1f} %"
