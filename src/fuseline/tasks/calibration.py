"""Chances that mean what they say: maps from a model's chances to calibrated ones. numpy only; fitted in the lab.

- temperature: logits / T (Guo et al. 2017, "On Calibration of Modern Neural Networks"); never changes the answer of one
  class of many
- beta: log odds = a ln p - b ln(1 - p) + c with a, b >= 0 (Kull et al. 2017, "Beta calibration")
- isotonic: a rising step function, straight between its steps (Zadrozny & Elkan 2002)

The last two map each class against the rest and bring a row's chances back to a sum of 1. Dimensions: B batch, C
classes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

METHODS = ("none", "temperature", "beta", "isotonic")
"""simplest first"""
FLOOR = 1e-12
"""below every chance that a fitted map can give"""


@dataclass(frozen=True)
class Calibration:
    """A fitted map. Only the method's own field is filled."""

    method: str = "none"
    temperature: float = 1.0
    beta: tuple[tuple[float, float, float], ...] = ()
    """(a, b, c) of each class; of one of two classes: of the second, whose complement is the first"""
    curves: tuple[tuple[tuple[float, ...], tuple[float, ...]], ...] = ()
    """chances and what becomes of them, rising, of each class; of two classes as above"""

    def to_dict(self) -> dict[str, Any]:
        out: dict[str, Any] = {"method": self.method}
        match self.method:
            case "temperature":
                out["temperature"] = self.temperature
            case "beta":
                out["beta"] = [list(abc) for abc in self.beta]
            case "isotonic":
                out["curves"] = [{"at": list(x), "chance": list(y)} for x, y in self.curves]
        return out

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Calibration:
        return cls(
            method=data["method"],
            temperature=float(data.get("temperature", 1.0)),
            beta=tuple((float(a), float(b), float(c)) for a, b, c in data.get("beta", ())),
            curves=tuple((tuple(c["at"]), tuple(c["chance"])) for c in data.get("curves", ())),
        )

    def apply(
        self, log_BC: np.ndarray, log_not_BC: np.ndarray, *, multilabel: bool = False
    ) -> tuple[np.ndarray, np.ndarray]:
        """Logarithms of chances and of their complements, (B, C) each, before and after."""
        match self.method:
            case "none":
                return log_BC, log_not_BC
            case "temperature" if multilabel:
                odds_BC = (log_BC - log_not_BC) / self.temperature
                return -np.logaddexp(0, -odds_BC), -np.logaddexp(0, odds_BC)
            case "temperature":
                return complete(log_BC / self.temperature)
        two = not multilabel and log_BC.shape[1] == 2
        columns = [1] if two else list(range(log_BC.shape[1]))
        log_odds_BC = np.stack(
            [self._log_odds(i, log_BC[:, c], log_not_BC[:, c]) for i, c in enumerate(columns)], axis=1
        )
        log_BC, log_not_BC = -np.logaddexp(0, -log_odds_BC), -np.logaddexp(0, log_odds_BC)
        if two:
            return np.concatenate([log_not_BC, log_BC], axis=1), np.concatenate([log_BC, log_not_BC], axis=1)
        return (log_BC, log_not_BC) if multilabel else complete(log_BC)

    def _log_odds(self, i: int, log_B: np.ndarray, log_not_B: np.ndarray) -> np.ndarray:
        """Calibrated log odds of one class against the rest."""
        if self.method == "beta":
            a, b, c = self.beta[i]
            least = np.log(FLOOR)
            return np.asarray(a * np.maximum(log_B, least) - b * np.maximum(log_not_B, least) + c)
        at, chance = self.curves[i]
        p_B = np.clip(np.interp(np.exp(log_B), at, chance), FLOOR, 1 - FLOOR)
        return np.asarray(np.log(p_B) - np.log1p(-p_B))


def complete(scores_BC: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Scores brought to logarithms of chances that sum to 1, and of their complements."""
    log_BC = scores_BC - np.logaddexp.reduce(scores_BC, axis=1, keepdims=True)
    if log_BC.shape[1] == 2:
        return log_BC, log_BC[:, ::-1]
    with np.errstate(divide="ignore"):  # the complement of a certain class is 0
        return log_BC, np.log(-np.expm1(log_BC))
