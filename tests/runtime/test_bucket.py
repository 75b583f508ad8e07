"""Rows of like length go together, and nobody can tell by the answers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import made
import numpy as np
import polars as pl
import pytest
import served

from fuseline.data.table import Table
from fuseline.errors import FuselineError
from fuseline.modalities import MediaRoot
from fuseline.modalities.rows import Parsed
from fuseline.progress import Silent
from fuseline.runtime import Answer, Predictor, load
from fuseline.runtime.bucket import WINDOW, by_length
from fuseline.runtime.evaluate import evaluate_frames

SIZE = 4
MODALITIES: Any = {"note": SimpleNamespace(lengths={"T": (1, 100)}), "picture": SimpleNamespace(lengths={})}


def rows(count: int) -> list[dict[str, Any]]:
    """Texts from a word to many, in no order."""
    rng = np.random.default_rng(3)
    out = served.rows(count)
    for row in out:
        if "note" in row:
            row["note"] = " ".join(rng.choice(["calm", "fever", "cough"], int(rng.integers(1, 60))))
    return out


def test_batches_go_from_short_to_long_and_leave_errors_out() -> None:
    lengths = [9, 3, None, 7, 1, 100, 2]
    parsed = [Parsed({"note": None if n is None else np.zeros(n), "picture": None}) for n in lengths]
    parsed.insert(1, Parsed(error=FuselineError("bad_cell", "broken")))
    assert by_length(MODALITIES, parsed, 3) == [[3, 5, 7], [2, 4, 0], [6]]
    assert by_length(MODALITIES, parsed, 100) == [[0, 2, 3, 4, 5, 6, 7]]
    assert by_length(MODALITIES, [], 3) == by_length(MODALITIES, parsed[1:2], 3) == []


def test_one_text_costs_no_other_its_length(package: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    predictor = load(package, threads=1)
    widths: list[tuple[int, int]] = []
    run = predictor.backend.run

    def watched(arrays: Any) -> Any:
        widths.append(arrays["note.ids"].shape)
        return run(arrays)

    monkeypatch.setattr(predictor.backend, "run", watched)
    many = rows(2 * WINDOW * SIZE)
    predictor.predict(many, batch_size=SIZE)
    bucketed = sum(rows * width for rows, width in widths)
    assert all(count == SIZE for count, _ in widths)
    widths.clear()
    for start in range(0, len(many), SIZE):
        predictor.predict(many[start : start + SIZE], batch_size=SIZE)
    assert bucketed < 0.75 * sum(rows * width for rows, width in widths)


def same(a: Sequence[Answer], b: Sequence[Answer]) -> None:
    for x, y in zip(a, b, strict=True):
        assert (x.value, x.used, x.absent, x.notes) == (y.value, y.used, y.absent, y.notes)
        assert (x.error and x.error.to_dict()) == (y.error and y.error.to_dict())
        if x.probabilities or y.probabilities:
            assert x.probabilities == pytest.approx(y.probabilities, abs=1e-5)


@pytest.mark.parametrize("count", [1, SIZE, SIZE + 1, WINDOW * SIZE, 2 * WINDOW * SIZE + 3])
def test_answers_come_back_in_order(package: Path, count: int) -> None:
    predictor = load(package, threads=1)
    many = rows(count)
    if count > 2:
        many[1] = {"picture": b"no picture"}
    alone = [predictor.predict([row])[0] for row in many]
    if count > 2:
        assert alone[1].error
        alone[1].error.row = 1
    same(predictor.predict(many, batch_size=SIZE), alone)
    frame = pl.DataFrame({"note": [row.get("note") for row in many], "age": [row.get("age") for row in many]})
    got = list(predictor.predict_frames([(100, frame)], media=MediaRoot(), batch_size=SIZE))
    assert [start for start, _ in got] == [100]
    same(got[0][1], predictor.predict(frame.to_dicts(), batch_size=1))


def test_no_more_than_a_window_is_decoded_at_once(package: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    decoded: list[int] = []
    answer = Predictor.answer

    def watched(self: Predictor, parsed: Sequence[Parsed], batch_size: int | None = None) -> list[Answer]:
        decoded.append(len(parsed))
        return answer(self, parsed, batch_size)

    monkeypatch.setattr(Predictor, "answer", watched)
    load(package, threads=1).predict(rows(70), batch_size=2)
    assert max(decoded) == WINDOW * 2
    assert sum(decoded) == 70


def test_metrics_do_not_depend_on_the_batches(both: Path, tmp_path: Path) -> None:
    table = Table.open(made.make_table(tmp_path / "table", 40, seed=4))
    metrics = []
    for backend, size in (("onnxruntime", 1), ("onnxruntime", 3), ("openvino", 8)):
        predictor = load(both, backend=backend, threads=1)
        columns = [*predictor.rows.columns, *predictor.task.columns]
        metrics.append(
            evaluate_frames(
                predictor,
                table.batches(columns, 16),
                rows=table.n_rows,
                media=MediaRoot(str(table.folder)),
                voice=Silent(),
                bootstrap=20,
                subsets_too=True,
                batch_size=size,
            )
        )
    for other in metrics[1:]:
        for part in ("test",):
            for name, metric in metrics[0]["parts"][part]["metrics"].items():
                assert other["parts"][part]["metrics"][name] == pytest.approx(metric, abs=1e-4, nan_ok=True)
        assert [e["rows"] for e in other["degradation"]] == [e["rows"] for e in metrics[0]["degradation"]]
        for a, b in zip(other["degradation"], metrics[0]["degradation"], strict=True):
            assert a["metrics"]["auroc"]["value"] == pytest.approx(b["metrics"]["auroc"]["value"], abs=1e-4)
