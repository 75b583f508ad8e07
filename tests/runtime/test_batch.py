"""Answers in parts: the predictor's own, in order, and the same bytes however often the run was killed."""

from __future__ import annotations

import json
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import made
import numpy as np
import polars as pl
import pytest
from polars.testing import assert_frame_equal

import fuseline
from fuseline import api
from fuseline.data.table import Table
from fuseline.errors import FuselineError
from fuseline.modalities import MediaRoot
from fuseline.runtime import Answer, Predictor
from fuseline.runtime.batch import WINDOW
from fuseline.runtime.parts import Parts, frame_of, schema_of

ROWS, SHARD, SIZE = 60, 4, 2
PARTS = ROWS // SHARD


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made.make_table(tmp_path_factory.mktemp("table"), ROWS, seed=3)


@pytest.fixture(scope="module")
def whole(package: Path, table: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The parts of a run that nobody disturbed."""
    out = tmp_path_factory.mktemp("whole") / "answers"
    counts = batch(package, table, out)
    assert counts == {"rows": ROWS, "errors": 0, "parts": PARTS, "kept": 0}
    return out


def batch(model: Any, table: Any, out: Path, **changes: Any) -> dict[str, int]:
    return api.batch(model, table, out, **{"shard_rows": SHARD, "batch_size": SIZE, "quiet": True, **changes})


def read(out: Path) -> pl.DataFrame:
    return pl.concat([pl.read_parquet(p) for p in sorted(out.glob("part-*.parquet"))])


def contents(out: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in out.glob("part-*.parquet")}


def test_the_answers_are_the_predictors_in_the_tables_order(package: Path, table: Path, whole: Path) -> None:
    frame = read(whole)
    predictor = fuseline.load(package)
    rows = pl.read_csv(table, infer_schema=False).to_dicts()
    answers = [predictor.predict([row], media=table.parent)[0] for row in rows]
    assert frame["row"].to_list() == list(range(ROWS))
    assert frame["value"].to_list() == [a.value for a in answers]
    expected = np.array([[a.probabilities[c] for c in ("no", "yes")] for a in answers if a.probabilities])
    np.testing.assert_allclose(frame.select("p_no", "p_yes").to_numpy(), expected, atol=1e-5)
    np.testing.assert_allclose(frame["confidence"].to_numpy(), expected.max(axis=1), atol=1e-5)
    assert frame["used"].to_list() == [list(a.used) for a in answers]
    assert frame["absent"].to_list() == [list(a.absent) for a in answers]
    assert frame["error"].null_count() == ROWS
    state = json.loads((whole / "_batch.json").read_text())
    assert (state["state"], state["errors"], state["parts"]) == ("done", 0, PARTS)
    assert predictor.package.version in state["package"]


CODE = f"""
import sys
import time
from pathlib import Path
from fuseline import api
from fuseline.runtime.parts import Parts

write = Parts.write
def slowly(self, part, frame):  # so that there is time to kill it
    time.sleep(0.1)
    write(self, part, frame)

Parts.write = slowly
api.batch(sys.argv[1], Path(sys.argv[2]), sys.argv[3], shard_rows={SHARD}, batch_size={SIZE}, quiet=True)
"""


def killed_after(parts: int, package: Path, table: Path, out: Path) -> None:
    """Run in a process that gets SIGKILL as soon as so many parts are there."""
    process = subprocess.Popen([sys.executable, "-c", CODE, str(package), str(table), str(out)])
    until = time.monotonic() + 120
    while len(list(out.glob("part-*.parquet"))) < parts:
        assert process.poll() is None, "it ended before it could be killed"
        assert time.monotonic() < until
        time.sleep(0.001)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL


def test_a_run_that_is_killed_twice_ends_with_the_same_bytes(
    package: Path, table: Path, whole: Path, tmp_path: Path
) -> None:
    out, rng = tmp_path / "answers", random.Random(11)
    first = rng.randrange(1, 4)
    killed_after(first, package, table, out)
    there = {p: p.stat().st_mtime_ns for p in out.glob("part-*.parquet")}
    assert first <= len(there) < PARTS
    killed_after(len(there) + rng.randrange(1, 3), package, table, out)
    before = len(list(out.glob("part-*.parquet")))
    assert len(there) < before < PARTS
    assert batch(package, table, out)["kept"] == before
    assert contents(out) == contents(whole)
    assert {p: p.stat().st_mtime_ns for p in there} == there  # what was whole was not made again
    assert sorted(p.name for p in out.iterdir()) == ["_batch.json", *sorted(contents(whole))]


def test_a_half_part_and_what_a_kill_left_are_made_anew(
    package: Path, table: Path, whole: Path, tmp_path: Path
) -> None:
    out = tmp_path / "answers"
    shutil.copytree(whole, out)
    half = out / "part-00002.parquet"
    half.write_bytes(half.read_bytes()[:-20])
    (out / "part-00005.parquet").unlink()
    (out / ".part-00007.parquet.123").write_bytes(b"half")
    assert batch(package, table, out)["kept"] == PARTS - 2
    assert contents(out) == contents(whole)
    assert not list(out.glob(".part-*"))


def test_bad_rows_have_their_reason_and_leave_the_rest_alone(
    package: Path, table: Path, whole: Path, tmp_path: Path
) -> None:
    frame = pl.read_csv(table, infer_schema=False).with_row_index()
    bad = pl.col("index").is_in([3, 17])
    frame = frame.with_columns(pl.when(bad).then(pl.lit("nowhere.png")).otherwise("picture").alias("picture"))
    broken = table.parent / "broken.csv"
    frame.drop("index").write_csv(broken)
    counts = batch(package, broken, tmp_path / "answers")
    assert counts == {"rows": ROWS, "errors": 2, "parts": PARTS, "kept": 0}
    got = read(tmp_path / "answers")
    errors = got.filter(pl.col("error").is_not_null())
    assert errors["row"].to_list() == [3, 17]
    assert all("picture" in text and f"row {row}" in text for row, text in errors.select("row", "error").rows())
    assert errors.select("value", "p_yes", "confidence").null_count().row(0) == (2, 2, 2)
    others = ~pl.col("row").is_in([3, 17])
    assert_frame_equal(got.filter(others), read(whole).filter(others), abs_tol=1e-5)
    assert batch(package, broken, tmp_path / "answers")["errors"] == 2  # counted in parts that were there, too


def test_a_row_that_the_model_cannot_compute_fails_alone(
    package: Path, table: Path, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    predictor = fuseline.load(package)
    poison = pl.read_csv(table, infer_schema=False)["note"].drop_nulls()[0]
    tokens = predictor.rows.modalities["note"].parse({"note": poison}, MediaRoot())
    run = predictor.run

    def failing(parsed: Sequence[Mapping[str, Any]]) -> dict[str, np.ndarray]:
        if any(p["note"] is not None and list(p["note"]) == list(tokens) for p in parsed):
            raise RuntimeError("a bad shape")
        return run(parsed)

    monkeypatch.setattr(predictor, "run", failing)
    counts = batch(predictor, table, tmp_path / "answers")
    got = read(tmp_path / "answers")
    failed = pl.read_csv(table, infer_schema=False)["note"] == poison
    assert counts["errors"] == failed.sum() > 0
    assert (got["error"].is_not_null() == failed.fill_null(False)).all()
    others = got.filter(pl.col("error").is_null())
    assert_frame_equal(others, read(whole).join(others.select("row"), on="row", how="semi"), abs_tol=1e-5)


def test_another_package_table_or_shape_is_refused_unless_all_is_thrown_away(
    package: Path, other_package: Path, table: Path, whole: Path, tmp_path: Path
) -> None:
    out = tmp_path / "answers"
    shutil.copytree(whole, out)
    cases: list[tuple[Any, Any, dict[str, Any], str]] = [
        (other_package, table, {}, "the package changed"),
        (package, table, {"shard_rows": 7}, "shard-rows changed"),
        (package, table, {"absent": ["note"]}, "absent changed"),
    ]
    changed = table.parent / "changed.csv"
    changed.write_text(table.read_text().replace("yes", "no", 1))
    cases.append((package, changed, {}, "the table's content changed"))
    for model, source, options, said in cases:
        with pytest.raises(FuselineError, match=said) as caught:
            batch(model, source, out, **options)
        assert caught.value.code == "changed"
        assert "--no-resume" in caught.value.hint
    assert contents(out) == contents(whole)
    assert batch(other_package, table, out, resume=False, shard_rows=50)["kept"] == 0
    assert len(contents(out)) == 2
    assert (read(out)["p_yes"] != read(whole)["p_yes"]).any()


def test_a_folder_of_other_files_is_not_touched(package: Path, table: Path, tmp_path: Path) -> None:
    (tmp_path / "part-00000.parquet").write_text("mine")
    for resume in (True, False):
        with pytest.raises(FuselineError, match="other files"):
            batch(package, table, tmp_path, resume=resume)
    assert (tmp_path / "part-00000.parquet").read_text() == "mine"
    with pytest.raises(FuselineError, match="is a file"):
        batch(package, table, tmp_path / "part-00000.parquet")


def test_what_cannot_be_is_said_before_a_folder_is_made(package: Path, table: Path, tmp_path: Path) -> None:
    empty = tmp_path / "empty.csv"
    empty.write_text(table.read_text().splitlines()[0] + "\n")
    cases: list[tuple[Any, dict[str, Any], str]] = [
        (empty, {}, "empty_table"),
        (tmp_path / "none.csv", {}, "no_such_file"),
        (table, {"absent": ["nota"]}, "unknown_column"),
        (table, {"engine": "spark"}, "unknown_kind"),
        (table, {"workers": 2}, "bad_usage"),
    ]
    for source, options, code in cases:
        with pytest.raises(FuselineError) as caught:
            batch(package, source, tmp_path / "answers", **options)
        assert caught.value.code == code
    assert not (tmp_path / "answers").exists()


def test_every_input_absent_still_answers_every_row(package: Path, table: Path, tmp_path: Path) -> None:
    absent = ["picture", "note", "sound", "vitals"]
    assert batch(package, table, tmp_path / "answers", absent=absent)["rows"] == ROWS
    got = read(tmp_path / "answers")
    assert got["absent"].to_list() == [absent] * ROWS
    assert got["value"].n_unique() == 1


def test_a_table_in_memory_is_known_by_its_content(package: Path, whole: Path, tmp_path: Path) -> None:
    rows = [{"age": 40.0 + i, "note": "calm breath"} for i in range(6)]
    absent = ["picture", "sound", "sex", "smoker", "seen"]
    out = tmp_path / "answers"
    assert batch(package, rows, out, absent=absent)["kept"] == 0
    assert batch(package, pl.DataFrame(rows), out, absent=absent)["kept"] == 2
    with pytest.raises(FuselineError, match="content changed"):
        batch(package, [*rows[:-1], {"age": 1.0, "note": "fever"}], out, absent=absent)


def test_no_more_than_a_window_of_rows_is_read_at_once(
    package: Path, table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken, together = [], []
    run, take = Predictor.run, Table.take

    def counted_take(self: Any, rows: np.ndarray, columns: Any = None) -> pl.DataFrame:
        taken.append(len(rows))
        return take(self, rows, columns)

    def counted_run(self: Any, parsed: Sequence[Any]) -> dict[str, np.ndarray]:
        together.append(len(parsed))
        return run(self, parsed)

    monkeypatch.setattr(Table, "take", counted_take)
    monkeypatch.setattr(Predictor, "run", counted_run)
    batch(package, table, tmp_path / "answers", shard_rows=ROWS)
    assert max(taken) == WINDOW * SIZE
    assert max(together) == SIZE
    assert sum(taken) == sum(together) == ROWS


def test_the_columns_of_every_kind_of_answer() -> None:
    number = SimpleNamespace(name="regression", columns=("score",))
    frame = frame_of(number, 5, [Answer(1.5, None, (1.0, 2.0), ("a",), ("b",), ["said"]), Answer(error=_error())])  # type: ignore[arg-type]
    assert frame.columns == ["row", "value", "low", "high", "used", "absent", "notes", "error"]
    assert frame.row(0) == (5, 1.5, 1.0, 2.0, ["a"], ["b"], ["said"], None)
    assert frame.row(1)[:4] == (6, None, None, None)
    numbers: Any = SimpleNamespace(name="regression", columns=("x", "y"))
    assert frame_of(numbers, 0, [Answer({"x": 1.0, "y": 2.0})])["value"].to_list() == [{"x": 1.0, "y": 2.0}]
    for classes, value, kind in [
        ([False, True], True, pl.Boolean),
        ([1, 2], 2, pl.Int64),
        (["a", 2], 2, pl.String),
    ]:
        labels = [str(c) for c in classes]
        task: Any = SimpleNamespace(
            name="classification", columns=("t",), classes=classes, labels=labels, mode="multiclass"
        )
        assert schema_of(task)["value"] == kind
        row = frame_of(task, 0, [Answer(value, dict(zip(labels, (0.25, 0.75), strict=True)))]).row(0, named=True)
        assert row["value"] == (str(value) if kind == pl.String else value)
        assert (row["confidence"], row[f"p_{labels[0]}"]) == (0.75, 0.25)
        task.mode = "multilabel"
        assert schema_of(task)["value"] == pl.List(kind)
        assert frame_of(task, 0, [Answer([])])["value"].to_list() == [[]]


def _error() -> FuselineError:
    return FuselineError("bad_cell", "broken", row=6)


def test_a_full_disk_is_an_error_in_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(pl.DataFrame, "write_parquet", full)
    with pytest.raises(FuselineError, match="No space left") as caught:
        Parts(tmp_path).write(0, pl.DataFrame({"a": [1]}))
    assert caught.value.code == "cannot_write"
