"""The losses over the pretraining, as a picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.figure import Figure

from fuseline.lab.report.plots import LIGHT, STYLE

SHOWN = {"train_loss": "training", "val_loss": "held out", "val_contrast": "contrast", "val_masked": "masked"}
TITLES = {"val_recall_at_1": "recall at 1 between inputs, held out"}


def write_curve(history: Sequence[Mapping[str, float]], learned: Mapping[str, Any], folder: Path) -> None:
    """curve.svg: losses on the left, recall at 1 between inputs on the right where there are two. The same numbers, the
    same bytes."""
    if not history:
        return
    recall = [name for name in history[0] if name in TITLES]
    with matplotlib.rc_context({**STYLE, "svg.fonttype": "path"}):
        figure = Figure(figsize=(4.2 * (1 + len(recall)), 3.0), layout="constrained")
        axes = figure.subplots(1, 1 + len(recall), squeeze=False)[0]
        steps = [row["step"] for row in history]
        names = [n for n in SHOWN if n in history[0]]
        if len(names) == 3:  # one objective alone is the loss itself
            names.pop()
        for i, name in enumerate(names):
            axes[0].plot(steps, [row[name] for row in history], color=LIGHT.colour(i), label=SHOWN[name])
        axes[0].set(xlabel="step", title="loss")
        for place, name in zip(axes[1:], recall, strict=True):
            place.plot(steps, [row[name] for row in history], color=LIGHT.accent, label="held out")
            chance = [v for v in learned.get("chance", {}).values() if v == v]
            if chance:
                place.axhline(sum(chance) / len(chance), color=LIGHT.muted, linestyle=":", label="by lot")
            place.set(xlabel="step", title=TITLES[name], ylim=(0, 1))
        for place in axes:
            if len(history) > learned["best"]["interval"] >= 0:
                place.axvline(history[learned["best"]["interval"]]["step"], color=LIGHT.grid, zorder=0, label="kept")
            place.legend(frameon=False)
        new = folder / "curve.svg.new"
        figure.savefig(new, format="svg", metadata={"Date": None, "Creator": None})
        new.replace(folder / "curve.svg")
