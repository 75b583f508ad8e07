"""Numbers, names and texts as a person reads them."""

from __future__ import annotations

import math
import unicodedata
from typing import Any

from fuseline.lab.report.read import Estimate

NONE = "–"
SPACE = "\N{NO-BREAK SPACE}"
"""between a number and its unit"""

HIDDEN = ("Cc", "Cs", "Co", "Cn")
MARK = "\N{REPLACEMENT CHARACTER}"

LABELS = {
    "accuracy": "Accuracy",
    "balanced_accuracy": "Balanced accuracy",
    "auroc": "AUROC",
    "auprc": "AUPRC",
    "log_loss": "Log loss",
    "brier": "Brier score",
    "ece": "Calibration error (ECE)",
    "calibration_error": "Calibration error (ECE)",
    "mae": "MAE",
    "mse": "MSE",
    "rmse": "RMSE",
    "nrmse": "NRMSE",
    "r2": "R²",
    "bleu": "BLEU",
    "chrf": "chrF",
    "rouge1": "ROUGE-1",
    "rouge2": "ROUGE-2",
    "rougeL": "ROUGE-L",
    "f1": "F1",
    "map_50_95": "mAP, IoU 0.50 to 0.95",
    "map_50": "mAP, IoU 0.50",
    "map_75": "mAP, IoU 0.75",
    "ap_50_95": "AP, IoU 0.50 to 0.95",
    "ap_50": "AP, IoU 0.50",
    "ap_75": "AP, IoU 0.75",
    "iou": "IoU of right boxes",
    "mrr": "MRR",
    "ndcg": "nDCG",
}
WAYS = {"_left_to_right": "left → right", "_right_to_left": "right → left"}
KEY = (
    "auroc",
    "auprc",
    "accuracy",
    "balanced_accuracy",
    "macro_f1",
    "micro_f1",
    "log_loss",
    "ece",
    "rmse",
    "mae",
    "r2",
    "bleu",
    "chrf",
    "rougeL",
    "map_50_95",
    "map_50",
    "map_75",
    "iou",
    "mrr",
    "recall_at_1",
    "recall_at_5",
    "recall_at_10",
    "ndcg_at_10",
)
"""metrics that are shown first; the others are a click away"""
BOUNDED = frozenset({"accuracy", "balanced_accuracy", "auroc", "auprc", "f1", "precision", "recall"}) | {
    "map_50_95",
    "map_50",
    "map_75",
    "iou",
}
AVERAGES = ("macro", "weighted", "micro")


def clean(text: Any, limit: int | None = None) -> str:
    """Printable text: controls and unpaired surrogates become a visible mark; beyond `limit` it ends in an ellipsis."""
    whole = text if isinstance(text, str) else str(text)
    out = whole if limit is None else whole[: limit + 1]
    if not out.isprintable():  # the quick way for most, and for pictures, which come here as long data URIs
        out = "".join(c if c in "\n\t" or unicodedata.category(c) not in HIDDEN else MARK for c in out)
    return out if limit is None or len(out) <= limit else out[: limit - 1].rstrip() + "…"


def label(metric: str) -> str:
    """`f1_macro` to `F1 (macro)`, `auroc` to `AUROC`; a name that is not known is shown with spaces."""
    if "." in metric:  # of several tasks: `finding.auroc`
        task, _, rest = metric.partition(".")
        return f"{clean(task, 40)}: {label(rest)}"
    bare = metric.removeprefix("val_").removeprefix("test_")
    for way, said in WAYS.items():
        if bare.endswith(way):
            return f"{label(bare.removesuffix(way))} ({said})"
    if "_at_" in bare:
        stem, _, k = bare.partition("_at_")
        return f"{LABELS.get(stem, stem.capitalize())}@{k}"
    if bare in LABELS:
        return LABELS[bare]
    words = bare.split("_")
    average = next((a for a in AVERAGES if a in words), None)
    stem = "_".join(w for w in words if w != average)
    name = LABELS.get(stem) or stem.replace("_", " ").capitalize()
    return f"{name} ({average})" if average and stem else name


def is_bounded(metric: str) -> bool:
    """Whether the metric lies between 0 and 1, whatever the data."""
    metric = metric.rpartition(".")[2]
    if metric.startswith(("recall_at_", "mrr", "ndcg_at_")):
        return True
    words = [w for w in metric.split("_") if w not in AVERAGES]
    return "_".join(words) in BOUNDED


def fmt(value: float | None, digits: int = 3) -> str:
    """Three decimals up to a thousand in the ordinary range, else as many significant digits; a dash for none."""
    if value is None or not math.isfinite(value):
        return NONE
    size = abs(value)
    if size >= 1e6 or 0 < size < 10**-digits:
        return f"{value:.{digits}g}"
    if size >= 1000:
        return f"{value:,.0f}"
    return f"{value:.{1 if size >= 100 else 2 if size >= 10 else digits}f}"


def interval(estimate: Estimate) -> str:
    """`0.81 to 0.90`, or nothing where no interval was computed."""
    if estimate.low is None or estimate.high is None:
        return ""
    return f"{fmt(estimate.low)} to {fmt(estimate.high)}"


def estimate(item: Estimate) -> str:
    inside = interval(item)
    return f"{fmt(item.value)} ({inside})" if inside else fmt(item.value)


def count(value: float | None) -> str:
    return NONE if value is None else f"{int(value):,}"


def percent(share: float | None) -> str:
    """`34 %`; a share above zero never reads as 0 %, nor one below all as 100 %."""
    if share is None:
        return NONE
    if 0 < share < 0.005:
        return f"<{SPACE}1{SPACE}%"
    if 0.995 < share < 1:
        return f">{SPACE}99{SPACE}%"
    return f"{100 * share:.0f}{SPACE}%"


def seconds(value: float | None) -> str:
    if value is None:
        return NONE
    if value < 60:
        return f"{value:.1f}{SPACE}s"
    minutes, rest = divmod(round(value), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}{SPACE}h{SPACE}{minutes}{SPACE}min" if hours else f"{minutes}{SPACE}min{SPACE}{rest}{SPACE}s"


def size(octets: float | None) -> str:
    if octets is None:
        return NONE
    return f"{octets / 1e6:.1f}{SPACE}MB" if octets >= 1e5 else f"{octets / 1e3:.1f}{SPACE}kB"


def amount(value: float | None) -> str:
    """Parameters: `22.7 M`, `318 k`, `940`."""
    if value is None:
        return NONE
    for scale, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= scale:
            return f"{value / scale:.3g}{SPACE}{unit}"
    return f"{value:.0f}"


def join(names: list[str]) -> str:
    """`a`, `a and b`, `a, b and c`."""
    return " and ".join(p for p in (", ".join(names[:-1]), names[-1]) if p) if names else ""
