"""Plots of answers against truth: ROC, precision-recall and reliability, or predicted against true and residuals."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from typing import Any

import polars as pl

from fuseline.lab.report.forecast import forecast_plots
from fuseline.lab.report.plots import Line, Plot, reliability, scatter, unit_curves
from fuseline.lab.report.read import Part, RunFiles, listing, mapping, number, numbers
from fuseline.lab.report.words import clean, fmt


def quality_plots(files: RunFiles, part: Part | None) -> list[Plot]:
    """Every plot that the part's details and predictions allow."""
    if part is None:
        return []
    tested = "test" if part.name == "folds" else part.name
    plots: list[Plot] = []
    if roc := _curves(part.details.get("roc"), "fpr", "tpr", ("auroc", "auc"), "AUROC"):
        plots.append(unit_curves("ROC", roc, "false positive rate", "true positive rate", diagonal=True))
    if pr := _curves(part.details.get("pr"), "recall", "precision", ("auprc", "average_precision", "ap"), "AUPRC"):
        plots.append(unit_curves("Precision and recall", pr, "recall", "precision"))
    if (found := _reliability(part)) is not None:
        plots.append(found)
    match files.task:
        case "regression":
            return plots + _regression(files, tested)
        case "forecast":
            return plots + forecast_plots(files, part, tested)
    return plots


def _named(item: Any) -> list[tuple[str, dict[str, Any]]]:
    """A curve, a list of curves that say their label, or a mapping label -> curve."""
    if isinstance(item, list):
        found = [mapping(c) for c in item]
        return [(str(c.get("label", c.get("class", ""))), c) for c in found]
    whole = mapping(item)
    if any(isinstance(v, list) for v in whole.values()):
        return [(str(whole.get("label", whole.get("positive", ""))), whole)]
    return [(k, mapping(v)) for k, v in whole.items() if isinstance(v, dict)]


def _curves(item: Any, x: str, y: str, areas: Sequence[str], area_name: str) -> list[Line]:
    lines = []
    for name, curve in _named(item):
        xs, ys = numbers(curve.get(x)), numbers(curve.get(y))
        kept = [(a, b) for a, b in zip(xs, ys, strict=False) if math.isfinite(a) and math.isfinite(b)]
        if len(kept) < 2:
            continue
        area = next((a for k in areas if (a := number(curve.get(k))) is not None), None)
        note = f"{area:.3f}" if area is not None else ""
        lines.append(Line(clean(name or area_name, 60), [a for a, _ in kept], [b for _, b in kept], note))
    return lines


def _first(item: dict[str, Any], *keys: str) -> Any:
    return next((item[k] for k in keys if k in item), None)


PREDICTED, OBSERVED, ROWS = (
    ("confidence", "predicted", "mean_predicted", "probability"),
    ("accuracy", "observed", "share", "fraction"),
    ("count", "rows", "n", "counts"),
)


def _reliability(part: Part) -> Plot | None:
    item = part.details.get("reliability")
    whole = mapping(item)
    bins = [mapping(b) for b in listing(item if isinstance(item, list) else whole.get("bins"))]
    bins = [b for b in bins if b]
    if bins:
        x, y, n = ([_first(b, *keys) for b in bins] for keys in (PREDICTED, OBSERVED, ROWS))
    else:
        x, y, n = (listing(_first(whole, *keys)) for keys in (PREDICTED, OBSERVED, ROWS))
    xs, ys, ns = numbers(x), numbers(y), [c if math.isfinite(c) else 0.0 for c in numbers(n)]
    if not any(c > 0 for c in ns):
        return None
    stated = part.metrics.get("ece") or part.metrics.get("calibration_error")
    ece = number(whole.get("ece"))
    return reliability("Reliability", xs, ys, ns, ece if ece is not None else stated.value if stated else None)


def _regression(files: RunFiles, part: str) -> list[Plot]:
    """Predicted against true and residual against predicted, one pair a target, from the predictions."""
    frame = files.predictions
    if frame is None or not {"target", "value"} <= set(frame.columns):
        return []
    frame = frame.filter(pl.col("part") == part)
    truth, answer = (_targets(frame[c].to_list()) for c in ("target", "value"))
    plots = []
    for name in [n for n in answer if n in truth][:6]:
        pairs = [
            (t, a) for t, a in zip(truth[name], answer[name], strict=True) if math.isfinite(t) and math.isfinite(a)
        ]
        if not pairs:
            continue
        ts, answers = [t for t, _ in pairs], [a for _, a in pairs]
        residuals = [a - t for t, a in pairs]
        mean = sum(residuals) / len(residuals)
        said = clean(name or files.target, 40)
        plots.append(
            scatter(
                f"Predicted and true {said}".rstrip(),
                ts,
                answers,
                "true",
                "predicted",
                identity=True,
                alt=f"Scatter plot of {len(pairs)} rows: true {said} from {fmt(min(ts))} to {fmt(max(ts))}, "
                f"predicted from {fmt(min(answers))} to {fmt(max(answers))}.",
            )
        )
        plots.append(
            scatter(
                f"Residuals of {said}",
                answers,
                residuals,
                "predicted",
                "predicted − true",
                identity=False,
                alt=f"Scatter plot of residuals over predictions: mean {fmt(mean)}, "
                f"from {fmt(min(residuals))} to {fmt(max(residuals))}.",
            )
        )
    return plots


def _targets(cells: Sequence[Any]) -> dict[str, list[float]]:
    """Cells to columns of numbers: plain numbers under "", JSON mappings under their keys."""
    read = [_value(c) for c in cells]
    names = list(dict.fromkeys(k for v in read for k in v))
    return {n: [v.get(n, math.nan) for v in read] for n in names}


def _value(cell: Any) -> dict[str, float]:
    if isinstance(cell, str):
        try:
            cell = json.loads(cell)
        except (ValueError, RecursionError):
            return {}
    if isinstance(cell, dict):
        return {str(k): x for k, v in cell.items() if (x := number(v)) is not None}
    found = number(cell)
    return {} if found is None else {"": found}
