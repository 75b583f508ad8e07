"""Training with augmentation, mixup and attacks: the same command, the same numbers; never outside of training."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import made
import numpy as np
import pytest

from fuseline import api
from fuseline.errors import FuselineError
from fuseline.lab.augment.batch import Augmenter
from fuseline.lab.training.reader import Batch

LEAN = {"bootstrap": 0, "degradation": False, "export": False, "report": False}
HARD = {"mixup": 0.3, "adversarial": {"kind": "pgd", "steps": 2}}


def recipe(table: Path, task: str = "classification", **training: Any) -> dict[str, Any]:
    inputs = {name: {**made.INPUTS[name], "augment": "strong"} for name in ("vitals", "note")}
    inputs["note"]["augment"] = {"preset": "strong", "synonyms": {"cough": ["hack"], "lungs": ["chest"]}}
    base = {"epochs": 2, "batch_size": 8, "precision": "float32", "loggers": []}
    target = {"kind": task, "target": "sick" if task == "classification" else "score"}
    return made.recipe(table, inputs=inputs, task=target, training={**base, **training}, evaluation=LEAN)


@pytest.mark.parametrize("task", ["classification", "regression"])
def test_the_same_command_gives_the_same_numbers_and_only_training_rows_change(
    task: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = made.make_table(tmp_path)
    seen: list[np.ndarray] = []
    plain = Augmenter.__call__

    def watched(self: Augmenter, batch: Batch, step: int) -> Batch:
        seen.append(batch.rows)
        return plain(self, batch, step)

    monkeypatch.setattr(Augmenter, "__call__", watched)
    one, two = (api.train(recipe(table, task, **HARD), out=tmp_path / n, quiet=True) for n in ("a", "b"))
    assert one.metrics == two.metrics
    assert np.isfinite(one.score())
    rows = set(np.concatenate(seen).tolist())
    assert len(rows) <= one.record["parts"]["train"]
    assert (one.folder / "augmented.json").exists()


def test_what_training_cannot_do_is_said(tmp_path: Path) -> None:
    table = made.make_table(tmp_path)
    unknown = recipe(table, adversarial={"inputs": ["xray"]})
    with pytest.raises(FuselineError, match=r"adversarial\.inputs"):
        api.train(unknown, out=tmp_path / "a", quiet=True)
    lost = recipe(table)
    lost["inputs"]["note"]["augment"] = {"synonyms": "nowhere.csv"}
    with pytest.raises(FuselineError, match=r"nowhere\.csv"):
        api.train(lost, out=tmp_path / "c", quiet=True)
    sides = made.recipe(
        table,
        inputs={n: made.INPUTS[n] for n in ("note", "vitals")},
        task={"kind": "retrieval", "left": ["note"], "right": ["vitals"]},
        training={"epochs": 1, "batch_size": 8, "precision": "float32", "loggers": [], "mixup": 0.2},
        evaluation=LEAN,
    )
    with pytest.raises(FuselineError, match=r"training\.mixup"):
        api.train(sides, out=tmp_path / "b", quiet=True)
