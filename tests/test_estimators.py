"""The estimators as scikit-learn's users meet them."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pytest
from made import note, picture

pytest.importorskip("torch")
pytest.importorskip("sklearn")

import torch
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.utils.estimator_checks import parametrize_with_checks

import fuseline
from fuseline import FuselineError, FusionClassifier, FusionRegressor
from fuseline.estimators import drafted_inputs

QUICK: dict[str, Any] = {"epochs": 15, "learning_rate": 1e-2, "width": 16}
SMALL = {
    "picture": {"modality": "image", "size": 32, "encoder": {"kind": "small"}},
    "note": {"modality": "text", "max_length": 16, "vocab_size": 300, "encoder": {"kind": "small"}},
    "vitals": {"modality": "tabular", "columns": {"age": "number", "sex": "category"}},
}
LEARN = ("check_classifiers_", "check_regressors_train", "check_class_weight")
"""scikit-learn's checks that ask for a score"""
ROUNDING = (
    "float32 products of another batch size round differently, by about 1e-6 of the answer: the check allows 1e-7"
)


@pytest.fixture(autouse=True)
def _one_thread() -> Any:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@parametrize_with_checks(
    [FusionClassifier(**QUICK), FusionRegressor(**QUICK)],
    expected_failed_checks=lambda _: {"check_methods_subset_invariance": ROUNDING},
)
def test_scikit_learns_own_checks(estimator: Any, check: Any) -> None:
    if not check.func.__name__.startswith(LEARN):  # of what the others ask, one epoch knows as much
        estimator = clone(estimator).set_params(epochs=1)
    check(estimator)


def _rows(count: int = 40) -> tuple[list[dict[str, Any]], list[str], np.ndarray]:
    """Rows of bytes, text, number and category, a quarter of the cells None; labels; numbers that follow the labels."""
    rng = np.random.default_rng(0)
    rows, labels = [], []
    for i in range(count):
        label = i % 2
        row = {
            "picture": picture(rng, label),
            "note": note(rng, label),
            "age": float(rng.normal(40 + 20 * label, 8)),
            "sex": str(rng.choice(["f", "m"])),
        }
        rows.append({k: None if rng.random() < 0.25 else v for k, v in row.items()})
        labels.append("ill" if label else "well")
    return rows, labels, 5.0 * (np.arange(count) % 2) + rng.normal(size=count)


@pytest.fixture(scope="module")
def fitted() -> tuple[FusionClassifier, pl.DataFrame]:
    rows, labels, _ = _rows()
    X = pl.DataFrame(rows)
    return FusionClassifier(inputs=SMALL, batch_size=8, **{**QUICK, "epochs": 40}).fit(X, labels), X


def test_a_table_of_pictures_words_and_numbers_is_learned(fitted: tuple[FusionClassifier, pl.DataFrame]) -> None:
    model, X = fitted
    assert list(model.feature_names_in_) == X.columns
    assert model.classes_.tolist() == ["ill", "well"]
    assert set(model.recipe_.inputs) == {"picture", "note", "vitals"}
    assert model.score(X, _rows()[1]) > 0.85
    chances = model.predict_proba(X)
    np.testing.assert_allclose(chances.sum(axis=1), 1.0)
    assert (model.classes_[chances.argmax(axis=1)] == model.predict(X)).all()


def test_pandas_and_polars_give_the_same(fitted: tuple[FusionClassifier, pl.DataFrame]) -> None:
    model, X = fitted
    rows, labels, _ = _rows()
    frame = pd.DataFrame(rows, index=range(100, 100 + len(rows)))
    frame["age"] = frame["age"].astype(float)  # None has become NaN
    assert frame["age"].isna().any()
    again = clone(model).fit(frame, pd.Series(labels))
    np.testing.assert_array_equal(again.predict_proba(frame), model.predict_proba(X))


def test_every_cell_may_be_absent(fitted: tuple[FusionClassifier, pl.DataFrame]) -> None:
    model, X = fitted
    chances = model.predict_proba(X.clear(2))
    assert np.isfinite(chances).all()
    np.testing.assert_array_equal(chances[0], chances[1])


def test_a_saved_package_answers_as_the_estimator(
    fitted: tuple[FusionClassifier, pl.DataFrame], tmp_path: Path
) -> None:
    model, X = fitted
    path = model.save(tmp_path / "ward.fuse")
    predictor = fuseline.load(path)
    answers = predictor.predict(X.to_dicts())
    assert [a.value for a in answers] == model.predict(X).tolist()
    got = np.array([[a.probabilities[c] for c in model.classes_] for a in answers if a.probabilities])
    np.testing.assert_allclose(got, model.predict_proba(X), atol=1e-4)
    assert predictor.package.manifest["name"] == "ward"
    assert len(model.parity_rows_) > 1


def test_pickle_round_trip(fitted: tuple[FusionClassifier, pl.DataFrame]) -> None:
    model, X = fitted
    again = pickle.loads(pickle.dumps(model))
    np.testing.assert_array_equal(again.predict_proba(X), model.predict_proba(X))


def test_cross_validation_and_grid_search_over_a_mixed_table() -> None:
    rows, labels, _ = _rows(36)
    X = pd.DataFrame(rows)[["note", "age", "sex"]]
    model = FusionClassifier(**{**QUICK, "epochs": 4})
    scores = cross_val_score(model, X, labels, cv=2, error_score="raise")
    assert scores.shape == (2,)
    assert ((scores >= 0) & (scores <= 1)).all()
    grid = {"fusion": ["sum", {"kind": "attention", "layers": 1}], "batch_size": [16]}
    search = GridSearchCV(model, grid, cv=2, error_score="raise").fit(X, labels)
    assert search.best_params_["fusion"] in grid["fusion"]
    assert search.predict(X).shape == (36,)


def test_a_regressor_of_several_numbers_and_its_package(tmp_path: Path) -> None:
    rows, _, numbers = _rows()
    X = pl.DataFrame(rows)[["age", "sex"]].rename({"age": "target_0"})  # a column called as a target might be
    Y = np.column_stack([numbers, 1000 - 100 * numbers])
    model = FusionRegressor(fusion="sum", batch_size=8, **QUICK).fit(X, Y)
    got = model.predict(X)
    assert got.shape == (40, 2)
    assert np.corrcoef(got[:, 1], Y[:, 1])[0, 1] > 0.6
    answers = fuseline.load(model.save(tmp_path / "two.fuse")).predict(X.to_dicts())
    np.testing.assert_allclose([list(a.value.values()) for a in answers], got, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("labels", [[True, False], [3, 7], ["NA", "None"], ["[1]", "a;b"]])
def test_labels_come_back_as_they_were(labels: list[Any]) -> None:
    X = np.linspace(0, 1, 20)[:, None]
    y = np.array(labels)[(X[:, 0] > 0.5).astype(int)]
    model = FusionClassifier(epochs=2, width=8).fit(X, y)
    assert model.classes_.dtype == y.dtype
    assert set(model.predict(X).tolist()) <= set(labels)
    assert model.task_.classes == model.classes_.tolist()


def test_a_class_of_one_row_trains() -> None:
    X = np.arange(40.0)[:, None]
    y = np.array([0, 1] * 19 + [1, 2])
    assert FusionClassifier(epochs=1, width=8, val=0.3).fit(X, y).task_.counts[2] == 1


def test_a_columns_type_is_believed_and_words_are_looked_at() -> None:
    X = pl.DataFrame(
        {
            "row": range(30),
            "flag": [True, False] * 15,
            "level": pl.Series(["a", "b", "c"] * 10, dtype=pl.Categorical),
            "remark": [f"the {i}th patient coughs at night" for i in range(30)],
        }
    )
    inputs = drafted_inputs(X)
    assert inputs["remark"]["modality"] == "text"
    assert inputs["tabular"]["columns"] == {"row": "number", "flag": "boolean", "level": "category"}


def test_random_state_decides() -> None:
    X, y = np.random.default_rng(0).normal(size=(40, 3)), np.arange(40) % 2
    by_seed = [FusionClassifier(epochs=1, random_state=s).fit(X, y).predict_proba(X) for s in (1, 1, 2)]
    np.testing.assert_array_equal(by_seed[0], by_seed[1])
    assert np.abs(by_seed[0] - by_seed[2]).max() > 0


def test_the_best_epoch_of_validation_is_kept_and_training_stops_early() -> None:
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(100, 3)), rng.integers(0, 2, 100)  # nothing to learn
    model = FusionClassifier(epochs=40, patience=2, width=8).fit(X, y)
    assert model.n_iter_ < 40


@pytest.mark.parametrize(
    ("cells", "code", "row"),
    [({"age": ["x"]}, "bad_cell", 3), ({"picture": [b"no picture"]}, "bad_cell", 3)],
)
def test_a_bad_cell_is_a_value_error_that_names_it(
    fitted: tuple[FusionClassifier, pl.DataFrame], cells: dict[str, list[Any]], code: str, row: int
) -> None:
    model, X = fitted
    (column,) = cells
    bad = X.with_columns(pl.Series(column, [*[None] * 3, *cells[column], *[None] * (len(X) - 4)]))
    with pytest.raises(ValueError, match=column) as caught:
        model.predict(bad)
    assert isinstance(caught.value, FuselineError)
    assert (caught.value.code, caught.value.row, caught.value.column) == (code, row, column)
    with pytest.raises(ValueError, match=column):
        clone(model).fit(bad, _rows()[1])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"fusion": "blend"}, "no fusion of kind 'blend'"),
        ({"width": 30}, "do not divide"),
        ({"epochs": 0}, r"training\.epochs"),
        ({"inputs": {"x0": {"modality": "smell"}}}, "smell"),
        ({"inputs": {"x9": {"modality": "text"}}}, "x9"),
    ],
)
def test_a_bad_parameter_is_a_value_error_at_fit(changes: dict[str, Any], message: str) -> None:
    X, y = np.arange(20.0)[:, None], np.arange(20) % 2
    with pytest.raises(ValueError, match=message):
        FusionClassifier(**changes).fit(X, y)


@pytest.mark.parametrize(
    ("y", "message"),
    [
        (["a", None] * 10, "row 1"),
        (["a", " "] * 10, "row 1"),
        (["a"] * 20, "only one class"),
        ([0.0, np.nan] * 10, "NaN"),
        ([0.5, 1.5] * 10, "continuous"),
        (np.zeros((20, 2)), "1d array"),
        ([0, 1], "inconsistent"),
        (None, "target y is None"),
    ],
)
def test_bad_labels_are_value_errors(y: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        FusionClassifier(epochs=1).fit(np.arange(20.0)[:, None], y)


def test_a_constant_number_cannot_be_learned() -> None:
    with pytest.raises(ValueError, match="nothing to learn"):
        FusionRegressor(epochs=1).fit(np.arange(20.0)[:, None], np.ones(20))


def test_other_columns_than_in_fit_are_refused(fitted: tuple[FusionClassifier, pl.DataFrame]) -> None:
    model, X = fitted
    with pytest.raises(ValueError, match="feature names"):
        model.predict(X.rename({"age": "years"}))
    with pytest.raises(ValueError, match="same order"):
        model.predict(X[X.columns[::-1]])


def test_saving_before_fitting_is_refused(tmp_path: Path) -> None:
    with pytest.raises(NotFittedError):
        FusionClassifier().save(tmp_path / "m.fuse")
    assert list(tmp_path.iterdir()) == []
