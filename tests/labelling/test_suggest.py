"""Suggestions of real packages, their table, and labels taken back, from Python and on the command line."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import made
import numpy as np
import polars as pl
import pytest
from typer.testing import CliRunner

import fuseline
from fuseline.cli.app import app
from fuseline.errors import FuselineError
from fuseline.labelling import pool as pools
from fuseline.labelling.measures import unsure
from fuseline.labelling.suggest import resolve
from fuseline.runtime import Predictor
from fuseline.tasks.regression import Regression, RegressionConfig

ROWS = 30


@pytest.fixture(scope="module")
def model(package: Path) -> Predictor:
    return fuseline.load(package)


@pytest.fixture
def pool(tmp_path: Path) -> Path:
    """30 rows: 3 lacks every input, 5 has a broken cell, 6 is a copy of 7, 9 has a label."""
    path = made.make_table(tmp_path, ROWS, seed=4)
    frame = pl.read_csv(path, infer_schema=False)
    inputs = ["picture", "note", "sound", "age", "sex", "smoker", "seen"]
    rows = frame.to_dicts()
    rows[3] |= dict.fromkeys(inputs)
    rows[5]["picture"] = "media/none.png"
    rows[6] |= {c: rows[7][c] for c in inputs}
    for i, row in enumerate(rows):
        row["sick"] = "yes" if i == 9 else None
    path = tmp_path / "pool.csv"
    pl.DataFrame(rows, schema=frame.schema).write_csv(path)
    return path


@pytest.mark.parametrize("by", ["uncertainty", "diversity", "badge", "random"])
def test_every_method_leaves_aside_what_cannot_be_labelled(by: str, model: Predictor, pool: Path) -> None:
    found = fuseline.suggest(model, pool, 100, by=by, quiet=True)
    assert found.counts == {"rows": ROWS, "errors": 1, "labelled": 1, "empty": 1, "copies": 1, "candidates": ROWS - 4}
    assert len(set(found.rows)) == len(found.rows) == ROWS - 4
    assert not {3, 5, 7, 9} & set(found.rows)
    assert [(e.row, e.column) for e in found.bad] == [(5, "picture")]
    assert f"{ROWS - 4} of the 100 rows asked for" in found.notes[0]
    again = fuseline.suggest(model, pool, 8, by=by, seed=1, quiet=True)
    assert again.rows == fuseline.suggest(model, pool, 8, by=by, seed=1, quiet=True).rows
    assert len(again.rows) == 8
    assert all(again.why)


def test_uncertainty_is_of_the_answers_that_predict_gives(model: Predictor, pool: Path) -> None:
    found = fuseline.suggest(model, pool, 5, by="uncertainty", measure="margin", quiet=True)
    rows = pl.read_csv(pool, infer_schema=False).to_dicts()
    answers = model.predict([{k: v for k, v in rows[i].items() if v} for i in found.rows], media=pool.parent)
    chances = np.array([list(a.probabilities.values()) for a in answers])
    np.testing.assert_allclose(found.scores, unsure(chances, "margin", several=False), atol=1e-4)
    assert found.scores == sorted(found.scores, reverse=True)
    assert found.by == "uncertainty (margin)"


def test_disagreement_is_of_answers_without_one_input(model: Predictor, pool: Path) -> None:
    found = fuseline.suggest(model, pool, 3, measure="disagreement", quiet=True)
    row = {k: v for k, v in pl.read_csv(pool, infer_schema=False).row(found.rows[0], named=True).items() if v}
    [whole] = model.predict([row], media=pool.parent)
    assert len(whole.used) > 1
    columns = {name: model.package.recipe.columns_of(name) for name in whole.used}
    less = [{k: v for k, v in row.items() if k not in columns[name]} for name in whole.used]
    committee = np.array([list(a.probabilities.values()) for a in [whole, *model.predict(less, media=pool.parent)]])
    mean = committee.mean(axis=0)
    assert found.scores[0] == pytest.approx((committee * np.log(committee / mean)).sum(axis=1).mean(), abs=1e-5)
    most = whole.used[int(np.abs(committee[1:] - committee[0]).sum(axis=1).argmax())]
    assert found.why[0].endswith(f"most without {most}")


def test_the_table_for_the_labeller_and_files_seen_from_another_folder(model: Predictor, pool: Path) -> None:
    there = pool.parent / "people"
    there.mkdir()
    found = fuseline.suggest(model, pool, 6, out=there / "label.csv", quiet=True)
    assert found.by == "badge"
    frame = pl.read_csv(there / "label.csv", infer_schema=False)
    whole = pl.read_csv(pool, infer_schema=False)
    assert frame.columns == [
        *(c for c in whole.columns if c != "sick"),
        "_row",
        "_why",
        "_score",
        "_suggested_by",
        "sick",
    ]
    assert frame["_row"].to_list() == [str(r) for r in found.rows]
    assert frame["note"].to_list() == whole["note"].gather(found.rows).to_list()
    named = [p for p in frame["picture"] if p]
    assert named
    assert all(p.startswith("../media/") and (there / p).is_file() for p in named)
    assert frame["sick"].null_count() == 6
    with pytest.raises(FuselineError) as caught:
        fuseline.suggest(model, pool, 6, out=there / "label.csv", quiet=True)
    assert caught.value.code == "file_exists"


def test_diversity_keeps_off_the_labelled_table(model: Predictor, pool: Path) -> None:
    """Half of the pool is labelled already, as another table: none of it is chosen before the other half."""
    whole = pl.read_csv(pool, infer_schema=False)
    half = whole.filter(pl.int_range(ROWS) % 2 == 0)
    half = half.filter(pl.Series([i not in (1, 2) for i in range(half.height)]))  # but the bad rows
    half.write_csv(pool.parent / "labelled.csv")
    found = fuseline.suggest(model, pool, 8, by="diversity", labelled=pool.parent / "labelled.csv", quiet=True)
    assert all(r % 2 for r in found.rows)
    assert found.why[0].startswith("unlike every labelled row")


def test_numbers_of_a_pool_that_does_not_fit_in_a_window(
    model: Predictor, pool: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Small windows and batches change nothing; a row that the graph chokes on fails alone."""
    wanted = fuseline.suggest(model, pool, 5, by="uncertainty", quiet=True)
    monkeypatch.setattr(pools, "WINDOW", 1)
    small = fuseline.suggest(model, pool, 5, by="uncertainty", batch_size=3, quiet=True)
    assert small.rows == wanted.rows
    np.testing.assert_allclose(small.scores, wanted.scores, atol=1e-4)
    outputs = pools._outputs

    def choking(predictor: Any, rows: Any, how: Any) -> Any:
        if any(r["note"] is not None and "never" in str(r) for r in rows) or len(rows) > 1:
            raise RuntimeError("too large")
        return outputs(predictor, rows, how)

    monkeypatch.setattr(pools, "_outputs", choking)
    assert fuseline.suggest(model, pool, 5, by="uncertainty", quiet=True).rows == wanted.rows


@pytest.mark.parametrize(
    ("options", "code", "words"),
    [
        ({"by": "badger"}, "unknown_kind", "did you mean 'badge'"),
        ({"measure": "entropi"}, "unknown_kind", "entropy"),
        ({"by": "random", "measure": "margin"}, "bad_usage", "belongs to --by uncertainty"),
        ({"n": 0}, "bad_usage", "0 rows"),
        ({"out": "x.xlsx"}, "bad_output", ".parquet"),
    ],
)
def test_what_makes_no_sense_is_refused(
    options: dict[str, Any], code: str, words: str, model: Predictor, pool: Path
) -> None:
    with pytest.raises(FuselineError) as caught:
        fuseline.suggest(model, pool, **{"n": 5, "quiet": True, **options})
    assert caught.value.code == code
    assert words in str(caught.value)


def test_pools_that_have_nothing_to_label(model: Predictor, pool: Path) -> None:
    whole = pl.read_csv(pool, infer_schema=False)
    with pytest.raises(FuselineError, match="1 cannot be read"):
        fuseline.suggest(model, _written(pool, whole[5:6]), 5, quiet=True)
    with pytest.raises(FuselineError, match="have a label"):
        fuseline.suggest(model, _written(pool, whole.with_columns(sick=pl.lit("no"))), 5, quiet=True)
    with pytest.raises(FuselineError) as caught:
        fuseline.suggest(model, _written(pool, whole.drop("note")), 5, quiet=True)
    assert caught.value.code == "missing_column"


def _written(pool: Path, frame: pl.DataFrame) -> Path:
    path = pool.parent / "other.csv"
    frame.write_csv(path)
    return path


def numbers(names: tuple[str, ...]) -> Any:
    """A model of numbers, as far as the choice of a method looks at it."""
    task = Regression(RegressionConfig(target="y"), mean=[2.0], std=[4.0])
    return SimpleNamespace(task=task, names=names, package=SimpleNamespace(name="dose"))


def test_what_numbers_can_say_of_themselves() -> None:
    assert resolve(numbers(("a", "b")), "auto", "auto") == ("uncertainty", "disagreement")
    assert resolve(numbers(("a",)), "auto", "auto") == ("diversity", "")
    for by, measure, words in (
        ("badge", "auto", "chances of classes"),
        ("uncertainty", "entropy", "numbers have disagreement"),
    ):
        with pytest.raises(FuselineError, match=words):
            resolve(numbers(("a", "b")), by, measure)
    with pytest.raises(FuselineError, match="one input"):
        resolve(numbers(("a",)), "uncertainty", "auto")


def test_a_committee_of_numbers() -> None:
    """y = 2 + 4·(a + 3b) of the inputs that are there, so a + 3b in standard deviations."""
    predictor = numbers(("a", "b"))
    weights = np.array([1.0, 3.0])
    predictor.backend = SimpleNamespace(
        run=lambda arrays: {"prediction": 2 + 4 * (arrays["present"] @ weights)[:, None]}
    )
    present = np.array([[True, True], [True, False]])
    whole = predictor.task.scale(predictor.backend.run({"present": present}))
    found = pools._committee(predictor, {"present": present}, whole)
    assert found[0, 0] == pytest.approx(np.std([4.0, 3.0, 1.0]))  # whole, without a, without b
    assert found[0, 1] == 1
    assert np.isnan(found[1, 0])


@pytest.fixture
def round_(model: Predictor, pool: Path) -> SimpleNamespace:
    """A suggestion of 6 rows beside a training table, of which 4 are labelled."""
    train = made.make_table(pool.parent / "train", 12, seed=8)
    frame = pl.read_csv(train, infer_schema=False)
    path = pool.parent / "train.csv"
    cells = {c: [p and f"train/{p}" for p in frame[c]] for c in ("picture", "sound")}
    frame.with_columns(**{k: pl.Series(k, v) for k, v in cells.items()}).write_csv(path)
    label = pool.parent / "label.csv"
    found = fuseline.suggest(model, pool, 6, out=label, quiet=True)
    labels = ["yes", "no", None, "yes", "no", None]
    given = pl.read_csv(label, infer_schema=False).with_columns(sick=pl.Series(labels))
    given.write_csv(label)
    return SimpleNamespace(
        train=path, label=label, found=found, given=given, out=pool.parent / "train-2.csv", pool=pool
    )


def test_labels_are_taken_back_and_the_rest_stays(model: Predictor, round_: SimpleNamespace) -> None:
    rest = round_.pool.parent / "pool-2.csv"
    taken = fuseline.take_labels(model, round_.label, round_.train, round_.out, pool=round_.pool, rest=rest)
    assert (taken.taken, taken.unlabelled, taken.rows, taken.rest) == ([0, 1, 3, 4], 2, 16, ROWS - 4)
    before, after = (pl.read_csv(p, infer_schema=False) for p in (round_.train, round_.out))
    assert after.columns == before.columns
    assert after[:12].equals(before)
    assert after["sick"][12:].to_list() == ["yes", "no", "yes", "no"]
    assert all((round_.out.parent / p).is_file() for p in after["picture"] if p)
    gone = {round_.found.rows[i] for i in taken.taken}
    whole = pl.read_csv(round_.pool, infer_schema=False)
    assert pl.read_csv(rest, infer_schema=False).equals(whole[[i for i in range(ROWS) if i not in gone]])
    assert any("dealt out anew" in note for note in taken.notes)
    with pytest.raises(FuselineError) as caught:
        fuseline.take_labels(model, round_.label, round_.train, round_.out)
    assert caught.value.code == "file_exists"


@pytest.mark.parametrize("over", ["train", "label", "pool"])
def test_what_is_read_is_never_written_over(over: str, model: Predictor, round_: SimpleNamespace) -> None:
    path = getattr(round_, over)
    before = path.read_bytes()
    for words in ({"out": path}, {"out": round_.out, "rest": path}):
        with pytest.raises(FuselineError, match="is read, and cannot be written over"):
            fuseline.take_labels(model, round_.label, round_.train, pool=round_.pool, force=True, **words)
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    ("change", "options", "code", "words"),
    [
        (lambda f: f.with_columns(sick=pl.lit("yess")), {}, "bad_cell", "did you mean 'yes'"),
        (lambda f: f.with_columns(sick=pl.lit(None, pl.String)), {}, "no_target", "no row has a label"),
        (lambda f: pl.concat([f, f[:1]]), {}, "duplicate", "labelled twice: rows 0 and 6"),
        (lambda f: pl.concat([f, f[:1]]).drop("_row"), {}, "duplicate", "the same row is there twice"),
        (lambda f: f.with_columns(patient=pl.lit("3")), {"id": "patient"}, "duplicate", "an id is there twice"),
        (lambda f: f.drop("sick"), {}, "missing_column", "label.csv has no column 'sick'"),
        (lambda f: f.with_columns(age=pl.lit("41,5")), {}, "bad_cell", "row 0: '41,5' is no number"),
        (lambda f: f.drop("_row"), {"pool": True}, "missing_column", "keep the columns that"),
        (lambda f: f, {"pool": True, "rest": True}, "bad_usage", "both the new table and the rest"),
    ],
)
def test_labels_that_cannot_be_taken(
    change: Any, options: dict[str, Any], code: str, words: str, model: Predictor, round_: SimpleNamespace
) -> None:
    change(round_.given).write_csv(round_.label)
    named = {"pool": round_.pool, "rest": round_.out}
    options = {key: named.get(key, value) for key, value in options.items()}
    with pytest.raises(FuselineError) as caught:
        fuseline.take_labels(model, round_.label, round_.train, round_.out, **options)
    assert caught.value.code == code
    assert words in str(caught.value)
    assert not round_.out.exists()


def test_new_classes_and_rows_that_are_there_already(model: Predictor, round_: SimpleNamespace) -> None:
    given = round_.given.with_columns(sick=pl.Series(["maybe", None, None, None, None, "yes"]))
    given.write_csv(round_.label)
    with pytest.raises(FuselineError, match="'maybe' is no class"):
        fuseline.take_labels(model, round_.label, round_.train, round_.out)
    taken = fuseline.take_labels(model, round_.label, round_.train, round_.out, allow_new_classes=True)
    assert taken.new_classes == ["maybe"]
    again = round_.out.with_name("train-3.csv")
    with pytest.raises(FuselineError, match="it is row 12 of the training table"):
        fuseline.take_labels(model, round_.label, round_.out, again, allow_new_classes=True)
    assert (
        fuseline.take_labels(model, round_.label, round_.out, again, allow_new_classes=True, allow_copies=True).rows
        == 16
    )
    given.with_columns(patient=pl.Series([str(90 + i) for i in range(5)] + ["1"])).write_csv(round_.label)
    with pytest.raises(FuselineError, match="1 is row 2 of the training table") as caught:
        fuseline.take_labels(model, round_.label, round_.train, again, id="patient", allow_new_classes=True, force=True)
    assert caught.value.code == "duplicate"


def test_files_from_elsewhere_are_copied_only_when_asked(model: Predictor, round_: SimpleNamespace) -> None:
    home = round_.train.parent / "home"
    home.mkdir()
    train = home / "train.csv"
    pl.read_csv(round_.train, infer_schema=False).with_columns(picture=None, sound=None).write_csv(train)
    with pytest.raises(FuselineError, match="copy-media") as caught:
        fuseline.take_labels(model, round_.label, train, home / "new.csv")
    assert caught.value.code == "unsafe_path"
    with pytest.raises(FuselineError, match="another folder"):
        fuseline.take_labels(model, round_.label, train, home.parent / "new.csv")
    fuseline.take_labels(model, round_.label, train, home / "new.csv", copy_media=True)
    added = pl.read_csv(home / "new.csv", infer_schema=False)[12:]
    named = [p for c in ("picture", "sound") for p in added[c] if p]
    assert named
    assert all(p.startswith("added-media/") and (home / p).is_file() for p in named)


def test_labels_of_another_pool_are_refused(model: Predictor, round_: SimpleNamespace) -> None:
    other = round_.pool.with_name("other.csv")
    pl.read_csv(round_.pool, infer_schema=False).reverse().write_csv(other)
    with pytest.raises(FuselineError, match="is it the pool of this suggestion"):
        fuseline.take_labels(model, round_.label, round_.train, round_.out, pool=other)


def test_a_round_on_the_command_line(package: Path, round_: SimpleNamespace) -> None:
    run = CliRunner().invoke
    label = round_.label.with_name("cli.csv")
    result = run(app, ["suggest", str(package), str(round_.pool), "-n", "4", "-o", str(label), "--quiet"])
    assert result.exit_code == 1, result.output  # a row cannot be read
    assert "4 of 26 rows to label, by badge" in result.output
    assert "row 5, column 'picture'" in result.output
    pl.read_csv(label, infer_schema=False).with_columns(sick=pl.lit("no")).write_csv(label)
    arguments = ["suggest", str(package), "--take", str(label), "--into", str(round_.train), "-o", str(round_.out)]
    result = run(app, arguments)
    assert result.exit_code == 0, result.output
    assert "4 labelled rows taken, 0 without a label yet" in result.output
    assert run(app, ["suggest", str(package), "--take", str(label)]).exit_code == 2
    assert run(app, ["suggest", str(package)]).exit_code == 2
    assert run(app, ["suggest", str(package), str(round_.pool), "--rest", "x.csv"]).exit_code == 2
