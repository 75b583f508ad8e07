"""The compression page's tables, as texts ready to be shown."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from fuseline.lab.report.compression_read import Effect, Search, Subset, Trial
from fuseline.lab.report.compression_words import (
    calls,
    change,
    faster,
    in_words,
    megabytes,
    ms,
    points,
    short,
    smaller,
    span,
)
from fuseline.lab.report.read import Estimate, number
from fuseline.lab.report.words import NONE, clean, count, fmt, label, percent, seconds

Cell = tuple[str, str]
"""a value, and its range or nothing"""

TITLES = {"precision": "Format", "keep_float": "Kept in float", "aware": "Tuned under rounding"}
WHOLE = {"precision": "float32", "keep_float": NONE, "aware": "no", "student": NONE}
"""what a candidate has where it names nothing; of all else: the whole"""
BACKENDS = {"onnxruntime": "ONNX Runtime", "openvino": "OpenVINO"}
MOST_SETTINGS = 60
LEAST_CHANGE = 0.002
"""below it a change is noise, so that no step is a bargain for changing nothing at all"""


def latency(found: Estimate | None) -> Cell:
    if found is None or found.value is None:
        return NONE, ""
    inner = f"{short(found.low)} to {short(found.high)}" if None not in (found.low, found.high) else ""
    return ms(found.value), inner


def drop(found: Estimate) -> Cell:
    return points(found.value), span(found)


@dataclass(frozen=True)
class Versus:
    """One line of base against chosen."""

    name: str
    base: Cell
    chosen: Cell
    said: str
    number: bool = True


def versus(search: Search) -> list[Versus]:
    """The float model and the chosen one, line by line; nothing where there are not two."""
    base, chosen = search.base, search.chosen
    if base is None or chosen is None:
        return []
    size = (megabytes(base.size), ""), (megabytes(chosen.size), "")
    rows = [Versus("Size", *size, "" if search.alone else in_words(smaller(base, chosen)))]
    for n in search.spans:
        before, after, _ = search.times(n)
        said = "" if search.alone else in_words(faster(search, n))
        rows.append(Versus(f"Latency {calls(n)}", latency(before), latency(after), said))
    name, unit = label(search.metric), search.unit
    moved = "" if search.alone else change(chosen.drop, unit, search.up)
    rows.append(Versus(f"{name}, rows that chose", (fmt(base.score), ""), (fmt(chosen.score), ""), moved))
    if search.unseen is not None:
        one, of = search.unseen.whole, clean(search.unseen.of, 30)
        moved = change(one.drop, unit, search.up)
        rows.append(Versus(f"{name}, {of} rows", (fmt(one.base), ""), (fmt(one.score), ""), moved))
    if not search.alone:
        if chosen.same is not None:
            rows.append(Versus("Same answer", (NONE, ""), (percent(chosen.same), ""), "of the rows that chose"))
        if chosen.change is not None:
            rows.append(Versus("Answers move by", (NONE, ""), (fmt(chosen.change), ""), f"{moves(search)}, on average"))
        rows += settings(base.candidate, chosen.candidate)
    return rows


def moves(search: Search) -> str:
    """What a change of the answers is measured in."""
    regression = search.raw.get("task") == "regression"
    return "in standard deviations of the target" if regression else "of chances between 0 and 1"


def settings(base: Mapping[str, Any], chosen: Mapping[str, Any]) -> list[Versus]:
    """The candidates' own keys, a line each: backend, format of each part, layers, widths, and what else there is."""
    a, b = _flat(base), _flat(chosen)
    rows = []
    for path in list(dict.fromkeys([*a, *b]))[:MOST_SETTINGS]:
        key, *parts = path
        before, after = (_setting(key, x[path]) if path in x else WHOLE.get(key, "whole") for x in (a, b))
        if before == after and before in (NONE, "no"):
            continue
        name = TITLES.get(key) or clean(key, 40).replace("_", " ").capitalize()
        name += "".join(f" · {clean(p, 60)}" for p in parts)
        rows.append(Versus(name, (before, ""), (after, ""), "", number=False))
    return rows


def _flat(value: Any, path: tuple[str, ...] = ()) -> dict[tuple[str, ...], Any]:
    """Nested settings to paths, without the headings `cut` and `numbers`; empty ones are left out."""
    if isinstance(value, dict) and len(path) < 4:
        out: dict[tuple[str, ...], Any] = {}
        for key, item in list(value.items())[:MOST_SETTINGS]:
            out |= _flat(item, () if not path and key in ("cut", "numbers") and item else (*path, str(key)))
        return out
    return {path: value} if path and value not in (None, [], {}, "") else {}


def _setting(key: str, value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if (found := number(value)) is not None:
        return percent(found) if key in ("layers", "widths") and 0 < found <= 1 else f"{found:g}"
    if isinstance(value, list):
        text = clean(", ".join(_setting("", v) for v in value[:40]), 200)
        return f"used words of {text}" if key == "vocabulary" else text
    return BACKENDS.get(str(value)) or clean(value, 120)


@dataclass(frozen=True)
class SubsetRow:
    name: str
    cells: list[list[Cell]]
    """of the rows that chose, then of the unseen ones: rows, base, chosen, drop"""
    marks: list[str]
    """a word where the drop is above the budget"""


def subsets(search: Search) -> list[SubsetRow]:
    """Base and chosen for every subset of inputs, on the rows that chose and on unseen ones."""
    chosen, base = search.chosen, search.base
    if chosen is None or base is None or search.alone:
        return []
    before = {frozenset(s.present): s for s in base.subsets}
    own = {frozenset(s.present): s for s in chosen.subsets}
    seen = {frozenset(s.present): s for s in search.unseen.subsets} if search.unseen else {}
    rows = []
    for key in dict.fromkeys([*own, *seen]):
        pair = [own.get(key), seen.get(key)] if search.unseen else [own.get(key)]
        names = next(s.present for s in pair if s is not None)
        cells = [_cells(s, before.get(key) if i == 0 else None) for i, s in enumerate(pair)]
        marks = [above(s.drop, search.max_drop) if s is not None else "" for s in pair]
        rows.append(SubsetRow(" + ".join(clean(n, 60) for n in names) or "as the rows are", cells, marks))
    return rows


def _cells(one: Subset | None, other: Subset | None) -> list[Cell]:
    if one is None:
        return [(NONE, "")] * 4
    base = one.base if one.base is not None else other.score if other is not None else None
    return [(count(one.rows), ""), (fmt(base), ""), (fmt(one.score), ""), drop(one.drop)]


def above(found: Estimate, limit: float | None) -> str:
    """`above` the limit, `surely above` where the whole interval is, or nothing."""
    if limit is None or found.value is None or found.value <= limit:
        return ""
    return "surely above" if found.low is not None and found.low > limit else "above"


@dataclass(frozen=True)
class TrialRow:
    key: str
    words: str
    mark: str
    """base, chosen, closest or nothing"""
    number: int | None
    size: str
    latency: list[Cell]
    score: str
    drop: Cell
    same: str
    why: list[str]
    took: str


def trial_row(search: Search, trial: Trial, number: int | None = None) -> TrialRow:
    mark = "base" if trial is search.base else search.role if trial is search.chosen else ""
    return TrialRow(
        key=clean(trial.key, 24),
        words=clean(trial.words if mark != "base" or "float" in trial.words else f"float model · {trial.words}", 200),
        mark=mark,
        number=number,
        size=megabytes(trial.size),
        latency=[latency(trial.latency.get(n)) for n in search.spans],
        score=fmt(trial.score),
        drop=drop(trial.drop) if trial is not search.base else (NONE, ""),
        same=percent(trial.same) if trial is not search.base else NONE,
        why=["" if trial.feasible else "no reason stated"]
        if not trial.why_not
        else [clean(w, 200) for w in trial.why_not],
        took=seconds(sum(trial.seconds.values()) if trial.seconds else None),
    )


def by_speed(search: Search, trials: list[Trial]) -> list[Trial]:
    """Fastest first, those without a latency last."""
    first = next(iter(search.spans), None)

    def order(trial: Trial) -> tuple[float, float, str]:
        return trial.median(first) or float("inf"), trial.size or float("inf"), trial.key

    return sorted(trials, key=order)


def front_rows(search: Search) -> list[TrialRow]:
    return [trial_row(search, t, i + 1) for i, t in enumerate(by_speed(search, search.pareto))]


def trial_rows(search: Search) -> list[TrialRow]:
    """The base, then those within the budget, then the others; each fastest first."""
    done = [t for t in search.trials if t.failed is None and t is not search.base]
    inside, outside = ([t for t in done if t.feasible is wanted] for wanted in (True, False))
    first = [search.base] if search.base is not None else []
    return [trial_row(search, t) for t in [*first, *by_speed(search, inside), *by_speed(search, outside)]]


def failures(search: Search) -> list[tuple[str, str, str]]:
    """key, words and reason"""
    return [
        (clean(t.key, 24), clean(t.words, 200), clean(t.failed, 600)) for t in search.trials if t.failed is not None
    ]


def effects(search: Search) -> list[Effect]:
    """Largest change first, those without one last."""
    return sorted(search.sensitivity, key=lambda e: (e.change is None, -(e.change or 0.0), e.part, e.action))


def effect_rows(search: Search) -> list[list[str]]:
    rows = []
    for e in effects(search):
        saved = NONE if e.saved is None else megabytes(e.saved * 1e6)
        rows.append([clean(e.part, 60), clean(e.action, 60), fmt(e.change), points(e.drop), saved, percent(e.share)])
    return rows


def effect_sentence(search: Search) -> str:
    """Which part gives most away under the same action, which action on any part does, and which saves most for what it
    changes."""
    found = [e for e in effects(search) if e.change is not None]
    if not found:
        return ""

    def name(e: Effect) -> str:
        return f"“{clean(e.part, 60)}”"

    def saved(e: Effect) -> str:
        return megabytes((e.saved or 0.0) * 1e6)

    same = {a: [e for e in found if e.action == a] for a in dict.fromkeys(e.action for e in search.sensitivity)}
    shared = max(same.values(), key=lambda es: len({e.part for e in es}))
    text = ""
    if len({e.part for e in shared}) > 1:
        first, last = shared[0], shared[-1]
        text = f"With {clean(first.action, 60)} alone, {name(first)} is the most sensitive part (its answers move by "
        text += f"{fmt(first.change)} on average, {moves(search)}) and {name(last)} the least ({fmt(last.change)}). "
    most = found[0]
    text += (
        f"Of all single steps, {clean(most.action, 60)} in {name(most)} moves the answers most: by {fmt(most.change)}"
    )
    if most.drop is not None:
        text += f", which leaves {label(search.metric)} {change(Estimate('', most.drop), search.unit, search.up)}"
    text += f", for {saved(most)} saved." if most.saved is not None else "."
    paying = [e for e in found if e.saved is not None and e.saved > 0 and e is not most]
    if paying:
        best = max(paying, key=lambda e: (e.saved or 0.0) / ((e.change or 0.0) + LEAST_CHANGE))
        text += f" The best bargain is {clean(best.action, 60)} in {name(best)}: {saved(best)}"
        text += f" for a change of {fmt(best.change)}."
    return text
