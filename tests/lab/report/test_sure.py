"""What the page and the card say of how sure a model is, where it is not."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from fuseline.lab.export.card import model_card
from fuseline.lab.report.headline import cautions
from fuseline.lab.report.read import read_run
from fuseline.lab.report.sure import sureness

SCORES = {"ece": 0.2, "brier": 0.6, "log_loss": 1.0, "accuracy": 0.5, "reliability": {"bins": []}}


def group(kind: str, verdict: str, present: list[str] | None) -> dict[str, Any]:
    return {
        "kind": kind,
        "present": present,
        "by": None,
        "fitted_rows": 0 if present else 55,
        "rows": 49,
        "coverage": 0.9,
        "chance": 0.1,
        "size": 2.0,
        "verdict": verdict,
    }


METRICS: dict[str, Any] = {
    "task": "classification",
    "metric": "accuracy",
    "parts": {},
    "sure": {
        "about": {"rows": 55, "of": "validation"},
        "rows": 49,
        "tasks": {
            "": {
                "calibration": {"asked": "auto", "method": "none", "before": SCORES, "after": SCORES},
                "coverage": 0.9,
                "conformal": [group("all", "within 2 points", None), group("shown", "too few rows", ["note"])] * 7,
                "selective": {
                    "risk": {"1": 0.5, "0.8": 0.4, "0.5": 0.3},
                    "curve": {"coverage": [0.5, 1.0], "risk": [0.3, 0.5]},
                    "abstain": {
                        "error": 0.1,
                        "confidence": 0.95,
                        "checked": [{"present": None, "rows": 49, "answered": 0.0, "error": None}],
                    },
                },
            }
        },
    },
}


def test_a_model_that_answers_nothing_says_so_first(tmp_path: Path) -> None:
    (tmp_path / "metrics.json").write_text(json.dumps(METRICS), encoding="utf-8")
    files = read_run(tmp_path)
    assert any("withholds every answer" in line for line in cautions(files))
    [block] = sureness(files)
    assert any("answered none of the test rows" in line for line in block.sentences)
    assert not any("None" in line for line in block.sentences)
    assert any("as the model gave them" in line for line in block.sentences)
    judged, few = (t for t in block.tables if t.first == "Rows" and "checked on" in t.headings and len(t.headings) > 3)
    assert (judged.folded, few.folded, len(few.rows)) == (False, True, 7)
    parity = {"rows": 3, "max_abs_difference": 0.0, "tolerance": 1e-3}
    card = model_card("m", {"inputs": []}, METRICS, parity)
    assert "none of these wrongly" not in card
    assert "**it answered none of the test rows**" in card
    assert "## Limits" in card
