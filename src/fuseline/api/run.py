"""A training run's folder."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fuseline.errors import FuselineError
from fuseline.runtime import Predictor, load


@dataclass(frozen=True)
class Run:
    """A training run's folder and what is in it."""

    folder: Path

    def _json(self, name: str) -> Any:
        try:
            return json.loads((self.folder / name).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            raise FuselineError(
                "no_such_run", f"{self.folder} has no {name}", "did the training finish? see `fuseline train --resume`"
            ) from None

    @property
    def record(self) -> dict[str, Any]:
        """run.json: seed, parts, seconds, notes said aloud, versions."""
        return dict(self._json("run.json"))

    @property
    def metrics(self) -> dict[str, Any]:
        """metrics.json; of a cross-validation folds.json."""
        return dict(self._json("folds.json" if (self.folder / "folds.json").exists() else "metrics.json"))

    @property
    def report(self) -> Path:
        return self.folder / "report.html"

    @property
    def package(self) -> Path:
        return self.folder / "model.fuse"

    def load(self) -> Predictor:
        """The packaged model, verified and without torch."""
        return load(self.folder)

    def score(self, metric: str | None = None, part: str = "test") -> float:
        """One metric of one part (of a cross-validation: its mean over folds)."""
        metrics = self.metrics
        name = metric or metrics["metric"]
        if "mean" in metrics:
            return float(metrics["mean"][name])
        return float(metrics["parts"][part]["metrics"][name]["value"])
