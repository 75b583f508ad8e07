"""The report's tables: data, model, metrics, confusion, classes, degradation, folds. Plain values for the template."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from fuseline.lab.report.plots import Bar, Plot, ranking
from fuseline.lab.report.read import Estimate, RunFiles, listing, mapping, number, numbers
from fuseline.lab.report.words import KEY, SPACE, amount, clean, count, fmt, interval, label, percent

PARTS = ("train", "val", "test")
WHOLE = ("support", "rows", "count")
MOST_LABELS = 20
"""classes up to which the confusion matrix is shown whole"""


@dataclass(frozen=True)
class Share:
    """A bar in a table cell; `width` in percent."""

    text: str
    width: float


def share(value: Any) -> Share | None:
    found = number(value)
    return None if found is None else Share(percent(found), round(100 * min(max(found, 0.0), 1.0), 1))


@dataclass(frozen=True)
class ColumnRow:
    column: str
    input: str
    kind: str
    absent: list[Share | None]
    """one a part"""
    summary: str


def columns(files: RunFiles) -> list[ColumnRow]:
    out = []
    for item in map(mapping, listing(files.data.get("columns"))):
        absent = mapping(item.get("absent"))
        kinds = [str(item[k]) for k in ("modality", "kind") if item.get(k)]
        out.append(
            ColumnRow(
                clean(item.get("column", ""), 80),
                clean(item.get("input", ""), 60),
                clean(" · ".join(dict.fromkeys(kinds)), 40),
                [share(absent.get(p)) for p in PARTS],
                summary(item.get("summary"), str(item.get("column", ""))),
            )
        )
    return out


def summary(item: Any, column: str = "") -> str:
    """`mean 47.2 · min 18 · max 94`. Statistics of a whole input come as `input.statistic` or `input.column`, each a
    mapping of its own: of these, the column's own are shown where there are any."""
    found = mapping(item)
    own = {k: v for k, v in found.items() if column and k.split(".", 1)[-1] == column}
    pairs = []
    for key, value in (own or found).items():
        if isinstance(value, dict):
            name = "" if own else clean(key.split(".", 1)[-1], 30).replace("_", " ")
            inner = [_pair_text(k, mapping(value).get(k)) for k in ("mean", "min", "max")]
            pairs += [" ".join([name, *(x for x in inner if x)]).strip()] if any(inner) else []
        elif text := _pair_text(key, value):
            pairs.append(text)
    return " · ".join(pairs[:8])


def _pair_text(name: str, value: Any) -> str:
    if not isinstance(value, (int, float, str)):
        return ""
    x = number(value)
    return f"{clean(name, 30).replace('_', ' ')} {fmt(x) if x is not None else clean(value, 40)}"


@dataclass(frozen=True)
class LabelRow:
    label: str
    counts: list[tuple[str, Share | None]]
    """count and share of the part, one a part"""


def target_counts(files: RunFiles) -> list[LabelRow]:
    """Rows of each label in each part, most frequent in training first."""
    counts = mapping(mapping(files.data.get("target")).get("counts"))
    by_part = {p: {k: n for k, v in mapping(counts.get(p)).items() if (n := number(v)) is not None} for p in PARTS}
    names = sorted({k for c in by_part.values() for k in c}, key=lambda k: (-by_part["train"].get(k, 0), k))
    rows = []
    for name in names:
        cells: list[tuple[str, Share | None]] = []
        for p in PARTS:
            total, n = sum(by_part[p].values()), by_part[p].get(name)
            cells.append((count(n), share(n / total) if n is not None and total else None))
        rows.append(LabelRow(clean(name, 60), cells))
    return rows


def leaks(files: RunFiles) -> list[str]:
    out = []
    for item in listing(files.data.get("leaks")):
        found = mapping(item)
        text = clean(found.get("message") or item, 400)
        column = clean(found.get("column") or "", 60)
        out.append(f"{column}: {text}" if column and column not in text else text)
    return out


def inputs(files: RunFiles) -> list[list[str]]:
    """input, modality, columns, encoder, tune, parameters, trained."""
    rows = []
    for item in files.inputs:
        names = [clean(c, 40) for c in listing(item.get("columns"))]
        rows.append(
            [
                clean(item.get("name", ""), 60),
                clean(item.get("modality", ""), 20),
                ", ".join(names[:12]) + (f" and {len(names) - 12} more" if len(names) > 12 else ""),
                clean(item.get("encoder", ""), 60),
                clean(item.get("tune", ""), 20),
                amount(number(item.get("parameters"))),
                amount(number(item.get("trainable"))),
            ]
        )
    return rows


@dataclass(frozen=True)
class MetricRow:
    name: str
    watched: bool
    key: bool
    cells: list[tuple[str, str]]
    """value and interval, one a part"""


def _pair(item: Estimate | None) -> tuple[str, str]:
    return (fmt(item.value), interval(item)) if item else ("–", "")


def metric_table(files: RunFiles) -> tuple[list[str], list[MetricRow]]:
    """The parts' headings and a row a metric."""
    parts = files.parts[::-1]  # test first: it is what counts, and what a narrow screen shows
    names = list(dict.fromkeys(name for p in parts for name in p.metrics))
    rows = []
    for name in names:
        found = [p.metrics.get(name) for p in parts]
        first = next(e for e in found if e is not None)
        shown = label(name) + ("" if first.higher_is_better else f"{SPACE}↓")
        watched = name == files.metric
        rows.append(MetricRow(shown, watched, watched or name.rpartition(".")[2] in KEY, [_pair(e) for e in found]))
    if not any(row.key for row in rows):
        rows = [replace(row, key=True) for row in rows]
    said = {"val": "Validation", "test": "Test"}
    return [f"{said.get(p.name, p.name)} ({count(p.rows)} rows)" for p in parts], rows


@dataclass(frozen=True)
class ConfusionCell:
    text: str
    share: float
    """percent of the true label's rows"""
    right: bool


@dataclass(frozen=True)
class Confusion:
    labels: list[str]
    rows: list[list[ConfusionCell]]
    worst: list[tuple[str, str, str, str]]
    """true, answered, rows, share of the true label's rows; most frequent confusion first"""


def confusion(details: dict[str, Any]) -> Confusion | None:
    """The matrix (rows: truth, columns: answer); with more than 20 classes only the most frequent confusions."""
    item = mapping(details.get("confusion"))
    names = [clean(x, 28) for x in listing(item.get("labels") or details.get("labels"))]
    matrix = [numbers(r) for r in listing(item.get("counts") or item.get("matrix") or details.get("confusion"))]
    if not names or len(matrix) != len(names) or any(len(r) != len(names) for r in matrix):
        return None
    rows, worst = [], []
    for i, line in enumerate(matrix):
        total = sum(line) or 1.0
        rows.append([ConfusionCell(f"{n:.0f}", round(100 * n / total, 1), i == j) for j, n in enumerate(line)])
        worst += [(n, n / total, names[i], names[j]) for j, n in enumerate(line) if j != i and n > 0]
    worst.sort(key=lambda w: (-w[0], -w[1], w[2], w[3]))
    said = [(t, a, f"{n:.0f}", percent(s)) for n, s, t, a in worst[:10]]
    return Confusion(names, rows if len(names) <= MOST_LABELS else [], said)


def per_class(details: dict[str, Any]) -> tuple[list[str], list[list[str]]]:
    """Headings and rows of the table of classes; of many regression targets, of the targets."""
    several = listing(details.get("per_target"))
    item = details.get("per_class") or (several if len(several) > 1 else None)
    found = [mapping(x) for x in listing(item)]
    if isinstance(item, dict):
        found = [{"label": k, **mapping(v)} for k, v in item.items()]
    keys = ("label", "class", "target")
    names = list(dict.fromkeys(k for row in found for k in row if k not in keys))
    names = [n for n in names if any(number(row.get(n)) is not None for row in found)]
    rows = [
        [clean(next((row[k] for k in keys if k in row), ""), 60)]
        + [(count if n in WHOLE else fmt)(number(row.get(n))) for n in names]
        for row in found
    ]
    return [label("rows" if n in WHOLE else n) for n in names], rows


@dataclass(frozen=True)
class Subset:
    present: list[str]
    rows: int
    metrics: dict[str, Estimate]
    mark: str

    @property
    def name(self) -> str:
        return " + ".join(self.present) if self.present else "nothing"


@dataclass(frozen=True)
class Degradation:
    headings: list[str]
    rows: list[tuple[str, str, str, list[tuple[str, str]]]]
    """name, mark, rows, (value, interval) a metric"""
    plot: Plot | None
    sentence: str


def degradation(files: RunFiles) -> Degradation | None:
    """The metrics for every subset of inputs present, best first by the run's metric."""
    read = []
    for item in map(mapping, listing(files.metrics.get("degradation"))):
        present = [clean(p, 40) for p in listing(item.get("present"))]
        found = {k: Estimate.read(k, v) for k, v in mapping(item.get("metrics")).items()}
        if found:
            read.append((present, int(number(item.get("rows")) or 0), found))
    if not read:
        return None
    names = list(dict.fromkeys(n for *_, found in read for n in found))
    watched = files.metric if files.metric in names else names[0]

    def score(found: dict[str, Estimate]) -> float:
        e = found.get(watched)
        if e is None or e.value is None:
            return float("-inf")
        return e.value if e.higher_is_better else -e.value

    read.sort(key=lambda r: (-score(r[2]), len(r[0]), r[0]))
    full = max(len(present) for present, *_ in read)
    single = next((present for present, *_ in read if len(present) == 1), None)
    subsets = [
        Subset(p, n, found, "full" if len(p) == full else "single" if p == single else "") for p, n, found in read
    ]
    columns = sorted(names, key=lambda n: (n != watched, KEY.index(n) if n in KEY else len(KEY)))[:5]
    rows = [(s.name, s.mark, count(s.rows), [_pair(s.metrics.get(n)) for n in columns]) for s in subsets]
    shown = [(s, s.metrics[watched]) for s in subsets if watched in s.metrics]
    bars = [Bar(s.name, e.value, e.low, e.high, s.mark) for s, e in shown if e.value is not None]
    title = f"{label(watched)} by what is present"
    picture = ranking(title, bars[:20], label(watched)) if len(bars) > 1 else None
    return Degradation([label(n) for n in columns], rows, picture, _said(subsets, watched))


def _said(subsets: list[Subset], watched: str) -> str:
    """What all inputs gain over the best one, and which of them the model would miss most."""
    found = [(s, e, e.value) for s in subsets if (e := s.metrics.get(watched)) and e.value is not None]
    full = next(((s, e, v) for s, e, v in found if s.mark == "full"), None)
    single = next(((s, v) for s, _, v in found if s.mark == "single"), None)
    if full is None or single is None or len(full[0].present) < 2:
        return ""
    everything, up, reached = full[0].present, full[1].higher_is_better, full[2]
    gain = (reached - single[1]) * (1 if up else -1)
    verdict = f"{fmt(abs(gain))} {'better' if gain > 0 else 'worse'} than" if gain else "the same as"
    text = (
        f"With everything present, {label(watched)} is {fmt(reached)}: {verdict} the best input alone "
        f"({single[0].name}, {fmt(single[1])})."
    )
    left = [(s, v) for s, _, v in found if len(s.present) == len(everything) - 1]
    if len(everything) > 2 and len(left) > 1:  # best first, so the last one hurts most
        (missed, worst), (spared, best) = (
            (", ".join(n for n in everything if n not in s.present), v) for s, v in (left[-1], left[0])
        )
        harmless = (best - reached) * (1 if up else -1) >= 0
        text += f" Going without {missed} costs most ({fmt(worst)}); going without {spared} costs "
        text += f"{'nothing' if harmless else 'least'} ({fmt(best)})."
    return text


def folds(files: RunFiles) -> tuple[list[str], list[list[str]]]:
    """Headings and rows of the cross-validation: a row a fold, then the mean and the spread."""
    found = [mapping(f) for f in listing(files.folds.get("folds"))]
    if not found:
        return [], []

    def values(item: Any) -> dict[str, float | None]:
        return {k: Estimate.read(k, v).value for k, v in mapping(item).items()}

    lines = [(f"Fold {clean(f.get('fold', i), 10)}", values(f.get("metrics"))) for i, f in enumerate(found)]
    lines += [(said, values(files.folds.get(k))) for k, said in (("mean", "Mean"), ("std", "Standard deviation"))]
    order = [files.folds.get("metric"), *KEY]
    names = sorted({n for _, v in lines for n in v}, key=lambda n: (order.index(n) if n in order else len(order), n))[
        :8
    ]
    return [label(n) for n in names], [[said, *(fmt(v.get(n)) for n in names)] for said, v in lines if v]
