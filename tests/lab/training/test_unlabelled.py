"""Rows without a target teach: which they are, what they change, and that nothing else changes by them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import made
import numpy as np
import polars as pl
import pytest
from safetensors.numpy import load_file

from fuseline import api
from fuseline.data.table import Table
from fuseline.errors import FuselineError
from fuseline.lab.report import write_report
from fuseline.lab.training.disk.where import open_cache
from fuseline.lab.training.prepare import Prepared, prepare
from fuseline.lab.training.run import run as run_one
from fuseline.progress import voice
from fuseline.recipe import parse_recipe

LEAN = {"bootstrap": 0, "degradation": False, "export": False, "report": False}
QUICK = {"epochs": 3, "batch_size": 8, "patience": 100, "precision": "float32", "loggers": [], "checkpoint_seconds": 0}


def recipe(table: Path | None, *, unlabelled: Any = None, **more: Any) -> dict[str, Any]:
    training = {**QUICK, **more.pop("training", {})}
    if unlabelled is not None:
        training["unlabelled"] = unlabelled
    base = {"inputs": {n: made.INPUTS[n] for n in ("note", "vitals")}, "training": training, "evaluation": LEAN}
    data = made.recipe(table or Path("table.csv"), **{**base, **more})
    if table is None:
        del data["table"]
    return data


def half_labelled(folder: Path, rows: int = 64) -> Path:
    """Two rows of each four have a target: both classes are among them."""
    path = made.make_table(folder, rows, absent=0.1)
    frame = pl.read_csv(path)
    frame = frame.with_row_index("i").with_columns(
        pl.when(pl.col("i") % 4 < 2).then(pl.col(c)).alias(c) for c in ("sick", "score")
    )
    frame.drop("i").write_csv(path)
    return path


def prepared(data: dict[str, Any], table: Any, folder: Path) -> Prepared:
    spec = parse_recipe(data)
    opened = Table.open(table, absent=spec.table.absent)
    return prepare(spec, opened, folder=folder, voice=voice("quiet"), cache=open_cache(spec.training))


@pytest.mark.parametrize("kind", ["stratified", "random", "group"])
def test_the_labelled_rows_are_split_as_without_the_others(kind: str, tmp_path: Path) -> None:
    path = half_labelled(tmp_path)
    split = {"kind": kind, "seed": 3, **({"group": "patient"} if kind == "group" else {})}
    frame = pl.read_csv(path)
    alone = frame.filter(pl.col("sick").is_not_null())
    whole = prepared(recipe(path, unlabelled={}, split=split), path, tmp_path)
    part = whole.part[frame["sick"].is_not_null().to_numpy()]
    np.testing.assert_array_equal(part, prepared(recipe(path, split=split), alone, tmp_path).part)
    assert (whole.part[whole.unlabelled] == -1).all()
    assert frame["sick"][whole.unlabelled.tolist()].is_null().all()
    assert len(whole.unlabelled) == 32
    assert whole.fingerprint() != prepared(recipe(path, split=split), path, tmp_path).fingerprint()


def test_what_may_not_train_stays_out(tmp_path: Path) -> None:
    rows = [
        {"x": float(i), "y": None if i % 3 == 0 else ("a" if i % 2 else "b"), "who": i // 5, "day": i}
        for i in range(60)
    ]
    inputs = {"x": {"modality": "tabular", "columns": {"x": "number"}}}
    target = {"kind": "classification", "target": "y"}
    by_group = prepared(
        recipe(None, unlabelled={}, inputs=inputs, task=target, split={"kind": "group", "group": "who"}), rows, tmp_path
    )
    held = {rows[i]["who"] for i in np.flatnonzero(by_group.part > 0)}
    assert held
    assert not held & {rows[i]["who"] for i in by_group.unlabelled}
    assert any("belong to what validates or tests by split.group" in n for n in by_group.notes)
    by_time = prepared(
        recipe(None, unlabelled={}, inputs=inputs, task=target, split={"kind": "time", "time": "day"}), rows, tmp_path
    )
    assert len(by_time.unlabelled)
    assert by_time.unlabelled.max() < np.flatnonzero(by_time.part > 0).min()
    for i, row in enumerate(rows):
        row["set"] = "test" if i > 45 else "val" if i > 30 else "train" if i % 4 < 2 else None
        row["y"] = row["y"] if row["set"] else None
    given = prepared(
        recipe(None, unlabelled={}, inputs=inputs, task=target, split={"kind": "given", "column": "set"}),
        rows,
        tmp_path,
    )
    assert 0 < given.unlabelled.max() <= 30


def test_a_broken_cell_of_an_unlabelled_row_is_named(tmp_path: Path) -> None:
    path = half_labelled(tmp_path)
    frame = pl.read_csv(path, infer_schema=False).with_row_index("i")
    bad = frame.with_columns(age=pl.when(pl.col("i") == 2).then(pl.lit("old")).otherwise(pl.col("age"))).drop("i")
    bad.write_csv(path)
    with pytest.raises(FuselineError, match="old") as caught:
        prepared(recipe(path, unlabelled={}), path, tmp_path)
    assert caught.value.row == 2
    data = recipe(path, unlabelled={})
    data["table"]["on_error"] = "quarantine"
    ready = prepared(data, path, tmp_path)
    assert 2 not in ready.unlabelled
    assert len(ready.unlabelled) == 31


def test_interrupted_and_resumed_it_ends_alike(tmp_path: Path) -> None:
    path = half_labelled(tmp_path)
    data = recipe(path, unlabelled={"threshold": "auto", "align": True}, training={"epochs": 4, "interval_steps": 2})
    whole = api.train(data, out=tmp_path / "whole", quiet=True)

    def stop(interval: int, value: float) -> None:
        if interval == 3:
            raise KeyboardInterrupt

    spec, opened = parse_recipe(data), Table.open(path)
    (tmp_path / "broken").mkdir()
    with pytest.raises(KeyboardInterrupt):
        run_one(spec, opened, tmp_path / "broken", voice=voice("quiet"), table_path=path, watch=stop)
    broken = api.resume(tmp_path / "broken", quiet=True)
    for name in ("best.safetensors", "last/tensors.safetensors"):
        one, two = (load_file(r.folder / "checkpoints" / name) for r in (whole, broken))
        assert one.keys() == two.keys()
        for key, values in one.items():
            np.testing.assert_array_equal(values, two[key], err_msg=key)
    assert whole.metrics == broken.metrics
    assert whole.record["unlabelled"] == broken.record["unlabelled"]
    history = [pl.read_csv(r.folder / "history.csv").drop("seconds") for r in (whole, broken)]
    assert history[0].equals(history[1])
    told = whole.record["unlabelled"]
    assert told["rows"] == whole.record["parts"]["unlabelled"] == 32
    assert 0 <= told["last"]["confident"] <= 1
    assert abs(sum(told["labelled"].values()) - 1) < 1e-5
    page = write_report(whole.folder).read_text()
    assert 'id="unlabelled"' in page
    assert "32 rows without a target trained, too" in page
    # What was validated is what was kept: the averaged weights.
    best = whole.record["best"]
    assert whole.metrics["parts"]["val"]["metrics"][best["metric"]]["value"] == pytest.approx(best["value"], abs=1e-6)


def test_numbers_and_several_labels_learn_too(tmp_path: Path) -> None:
    path = half_labelled(tmp_path)
    one = api.train(
        recipe(path, unlabelled={}, task={"kind": "regression", "target": "score"}), out=tmp_path / "a", quiet=True
    )
    assert one.record["unlabelled"]["last"]["loss"] > 0
    assert "pseudo_labels" not in one.record["unlabelled"]
    frame = pl.read_csv(path).with_columns(
        sick=pl.when(pl.col("sick") == "yes").then(pl.lit("ill;old")).otherwise(pl.col("sick"))
    )
    many = {"kind": "classification", "target": "sick", "mode": "multilabel"}
    data = recipe(None, unlabelled={"threshold": 0.6}, task=many, split={"kind": "random"})
    two = api.train(data, table=frame, out=tmp_path / "b", quiet=True)
    assert set(two.record["unlabelled"]["pseudo_labels"]) <= {"ill", "no", "old"}
    with pytest.raises(FuselineError, match=r"unlabelled\.threshold"):
        api.train(
            recipe(None, unlabelled={"threshold": "auto"}, task=many), table=frame, out=tmp_path / "c", quiet=True
        )


def test_a_file_of_unlabelled_rows(tmp_path: Path) -> None:
    path = made.make_table(tmp_path, 24)
    frame = pl.read_csv(path)
    # Its own answers are not looked at; a column that no input reads may lack.
    frame.with_columns(sick=pl.lit("maybe")).drop("score").write_csv(tmp_path / "more.csv")
    data = recipe(path, unlabelled={"rows": "more.csv"}, training={"epochs": 1})
    data["table"]["path"] = str(path)
    data["training"]["unlabelled"]["rows"] = str(tmp_path / "more.csv")
    run = api.train(data, out=tmp_path / "run", quiet=True)
    assert run.record["parts"]["unlabelled"] == 24
    assert any(n.startswith("leak: all inputs: the same row stands") for n in run.record["notes"]), "of the test's own"
    plain = api.train(recipe(path, training={"epochs": 1}), out=tmp_path / "plain", quiet=True)
    assert {k: run.record["parts"][k] for k in ("train", "val", "test")} == {
        k: plain.record["parts"][k] for k in ("train", "val", "test")
    }
    # The rows lie in the run's folder: it goes on without the file.
    (tmp_path / "more.csv").unlink()
    api.resume(run.folder, quiet=True)
    with pytest.raises(FuselineError) as caught:
        api.train(data, out=tmp_path / "again", quiet=True)
    assert caught.value.code == "no_such_file"
    frame.drop("note").write_csv(tmp_path / "more.csv")
    with pytest.raises(FuselineError, match=r"more\.csv has no column 'note'"):
        api.train(data, out=tmp_path / "again", quiet=True)
    # A broken cell is told by its row in the file that has it.
    frame.with_columns(age=pl.when(pl.int_range(24) == 2).then(pl.lit("old")).otherwise(pl.col("age").cast(str)))[
        2:
    ].write_csv(tmp_path / "more.csv")
    with pytest.raises(FuselineError, match=r"row 0, column 'age': in more\.csv: 'old' is no number"):
        api.train(data, out=tmp_path / "again", quiet=True)


def test_what_cannot_be_is_said(tmp_path: Path) -> None:
    full = made.make_table(tmp_path, 24)
    cases: list[tuple[dict[str, Any], str]] = [
        (recipe(full, unlabelled={}), "no row without a target"),
        (recipe(full, unlabelled={}, task={"kind": "retrieval", "left": ["note"], "right": ["vitals"]}), "retrieval"),
        (recipe(full, unlabelled={"threshold": 1.5}), "threshold"),
        (recipe(full, unlabelled={"drops": 0.5}), "unknown key"),
        (recipe(full, training={"ema": 1.0}), "ema"),
    ]
    for data, said in cases:
        with pytest.raises(FuselineError, match=said):
            api.train(data, out=tmp_path / "a", quiet=True)
    with pytest.raises(FuselineError) as caught:
        api.train(recipe(full, training={"ema": 0.9}), out=tmp_path / "b", quiet=True, workers=2)
    assert caught.value.code == "bad_team"


def cross_modal(rng: np.random.Generator, rows: int, *, labelled: bool) -> pl.DataFrame:
    """Labelled rows have one number only, unlabelled ones both: what the second says can come from them alone."""
    label = np.arange(rows) % 2
    first, second = (2.0 * label - 1 + rng.normal(0, 0.3, rows) for _ in range(2))
    return pl.DataFrame(
        {
            "first": first,
            "second": [None] * rows if labelled else second.tolist(),
            "truth": ["yes" if k else "no" for k in label] if labelled else [None] * rows,
        },
        schema_overrides={"second": pl.Float64, "truth": pl.String},
    )


def test_an_input_that_no_labelled_row_has_is_learned_from_the_others(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    table = pl.concat([cross_modal(rng, 60, labelled=True), cross_modal(rng, 200, labelled=False)])
    asked = cross_modal(rng, 200, labelled=False).with_columns(first=pl.lit(None, dtype=pl.Float64))
    truth = np.arange(200) % 2
    inputs = {n: {"modality": "tabular", "columns": {n: "number"}} for n in ("first", "second")}
    right = {}
    for name, unlabelled in (("without", None), ("with", {"drop": 0.5, "threshold": "auto"})):
        data = recipe(
            None,
            unlabelled=unlabelled,
            inputs=inputs,
            task={"kind": "classification", "target": "truth"},
            fusion={"kind": "concat", "width": 16},
            training={"epochs": 12, "learning_rate": 1e-2},
        )
        run = api.train(data, table=table, out=tmp_path / name, quiet=True)
        ready = prepared(data, pl.concat([table, asked]), tmp_path)
        right[name] = float((answers(run, ready, np.arange(260, 460)) == truth).mean())
    assert right["without"] < 0.75, right
    assert right["with"] > 0.95, right


def answers(run: api.Run, ready: Prepared, rows: np.ndarray) -> np.ndarray:
    import torch

    from fuseline.lab.build import build_model
    from fuseline.lab.training.checkpoint import load_weights

    model = build_model(ready.recipe, ready.plans, ready.parser.modalities, ready.task)
    load_weights(model, run.folder / "checkpoints" / "best.safetensors")
    batch = ready.reader.batch(rows)
    with torch.inference_mode():
        found: np.ndarray = model.eval()(batch.arrays, batch.present_BM)["logits"].argmax(-1).numpy()
    return found
