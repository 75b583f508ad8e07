"""Heads for few rows a class: their numbers against hand-made ones, absence, packages, and when they are hinted at."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import made
import numpy as np
import polars as pl
import pytest
import torch

import fuseline
from fuseline import api
from fuseline.errors import FuselineError
from fuseline.lab.compress.subject import rebuild
from fuseline.lab.export.openvino import write_openvino
from fuseline.lab.stacked.boost import Rows
from fuseline.lab.stacked.fewshot import folds, linear_probe, prototypes
from fuseline.lab.stacked.fit import best_of
from fuseline.lab.stacked.linear import LinearHead, SideBySide
from fuseline.tasks.classification import Classification, ClassificationConfig

LEAN = {"bootstrap": 0, "degradation": False, "export": False, "report": False}
TRAINING = {"epochs": 1, "batch_size": 16, "precision": "float32", "loggers": []}
NOTE = {**made.INPUTS["note"], "encoder": {"kind": "small", "width": 16, "layers": 1, "heads": 2}}
INPUTS = {"note": NOTE, "vitals": made.INPUTS["vitals"]}


def recipe(table: Path, estimator: str, **more: Any) -> dict[str, Any]:
    base = {
        "inputs": INPUTS,
        "split": {"kind": "stratified", "val": 0.25, "test": 0.25},
        "fusion": {"kind": "stacked", "base": "concat", "width": 16, "estimator": estimator},
        "training": TRAINING,
        "evaluation": LEAN,
    }
    return made.recipe(table, **{**base, **more})


def task_of(labels: list[str], **options: Any) -> Classification:
    return Classification.fit(ClassificationConfig(target="y", **options), {"y": labels})


def clouds(classes: int, rows: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rows of two inputs, 4 and 3 wide, of which a fourth lack the second one; features, presence, classes."""
    rng = np.random.default_rng(seed)
    y_N = np.arange(rows) % classes
    centre_KF = np.random.default_rng(1).normal(size=(classes, 7)) * 2
    x_NF = centre_KF[y_N] + rng.normal(size=(rows, 7))
    present_NM = np.ones((rows, 2), bool)
    present_NM[::4, 1] = False
    x_NF[:, 4:] *= present_NM[:, 1:]
    return np.concatenate([x_NF, present_NM], axis=1).astype(np.float32), present_NM, y_N


OWNERS = np.array([0] * 4 + [1] * 3 + [0, 1])


def test_prototypes_are_the_nearest_class_mean_over_the_inputs_that_a_row_has() -> None:
    x_NF, present_NM, y_N = clouds(3, 30)
    task = task_of([str(y) for y in y_N])
    made_ = prototypes(task, Rows(x_NF, y_N, np.ones(30)), present_NM, OWNERS, None, euclidean=True)
    sharp = made_.facts["sharpness"]
    wanted = np.zeros((30, 3))
    for m, own in enumerate((slice(0, 4), slice(4, 7))):
        for k in range(3):
            centre = x_NF[present_NM[:, m] & (y_N == k), own].mean(axis=0)
            gap = ((x_NF[:, own] - centre) ** 2).sum(axis=1)
            wanted[:, k] -= np.where(present_NM[:, m], sharp[m] * gap, 0.0)
    wanted -= np.logaddexp.reduce(wanted, axis=1, keepdims=True)
    given = LinearHead(task, made_.arrays).answer(torch.from_numpy(x_NF))["logits"].detach().numpy()
    np.testing.assert_allclose(given, wanted, atol=2e-3 * max(sharp))
    assert (given.argmax(axis=1) == y_N).mean() > 0.8


def test_cosine_prototypes_do_not_see_a_vectors_length() -> None:
    x_NF, present_NM, y_N = clouds(3, 30)
    here = x_NF[:, :4] / np.linalg.norm(x_NF[:, :4], axis=1, keepdims=True)
    x_NF[:, :4] = here
    val = Rows(x_NF, y_N, np.ones(30))
    made_ = prototypes(task_of([str(y) for y in y_N]), val, present_NM, OWNERS, val, euclidean=False)
    weight_KF = made_.arrays["weight_KF"]
    lengths = np.linalg.norm(weight_KF[:, :4], axis=1)
    np.testing.assert_allclose(lengths, made_.facts["sharpness"][0], rtol=1e-3)
    assert not made_.arrays["weight_KF"][:, 7:].any()


def test_an_input_of_noise_counts_less() -> None:
    x_NF, present_NM, y_N = clouds(3, 60)
    x_NF[:, 4:7] = np.random.default_rng(5).normal(size=(60, 3)) * present_NM[:, 1:]
    sharp = prototypes(
        task_of([str(y) for y in y_N]), Rows(x_NF, y_N, np.ones(60)), present_NM, OWNERS, None, euclidean=True
    ).facts["sharpness"]
    assert sharp[1] < 0.5 * sharp[0]


def test_classes_of_one_row_and_of_none_are_answered() -> None:
    x_NF, present_NM, y_N = clouds(3, 13)
    y_N = np.where(np.arange(13) == 4, 2, y_N % 2)  # class 2 has one row, class 3 none
    task = task_of([str(y) for y in y_N], classes=("0", "1", "2", "3"))
    rows = Rows(x_NF, y_N, np.ones(13))
    for made_ in (
        prototypes(task, rows, present_NM, OWNERS, None, euclidean=False),
        linear_probe(task, rows, np.arange(13), None, seed=0),
    ):
        logits = LinearHead(task, made_.arrays).answer(torch.from_numpy(x_NF))["logits"].detach().numpy()
        assert np.isfinite(logits).all()
        chance = np.exp(logits - np.logaddexp.reduce(logits, axis=1, keepdims=True))
        np.testing.assert_allclose(chance[:, 3], 1 / 27, atol=2e-3)  # of half a row among 13 and it
        if "sharpness" in made_.facts:  # a probe's penalty may be too strong for one row
            assert logits[4].argmax() == 2


def test_a_probe_is_scikit_learns_own_and_copies_stay_in_their_rows_fold() -> None:
    from sklearn.linear_model import LogisticRegression

    x_NF, _, y_N = clouds(2, 40)
    task = task_of([str(y) for y in y_N])
    made_ = linear_probe(task, Rows(x_NF, y_N, np.ones(40)), np.arange(40), None, seed=0)
    model = LogisticRegression(C=made_.facts["inverse_l2"], max_iter=500).fit(x_NF, y_N)
    given = LinearHead(task, made_.arrays).answer(torch.from_numpy(x_NF))["logits"].exp().detach().numpy()
    np.testing.assert_allclose(given, model.predict_proba(x_NF), atol=1e-4)
    fold_N = folds(np.repeat([0, 1], 10), None, 0)
    assert all(np.bincount(fold_N[own], minlength=5).tolist() == [2] * 5 for own in (slice(0, 10), slice(10, 20)))
    groups_N = np.arange(20) // 4
    fold_N = folds(np.repeat([0, 1], 10), groups_N, 0)
    assert all(len(set(fold_N[groups_N == g])) == 1 for g in range(5))


def test_an_absent_input_adds_nothing_of_another_row() -> None:
    parts = [
        {"mean_D": np.array([5.0, 5.0]), "length_1": np.array([2.0]), "unit_1": np.array([1.0])},
        {"mean_D": np.zeros(1), "length_1": np.ones(1), "unit_1": np.zeros(1)},
    ]
    fusion = SideBySide(parts, names=("a", "b"))
    pooled = [torch.tensor([[9.0, 5.0], [float("nan"), 3.0]]), torch.tensor([[1.0], [4.0]])]
    out = fusion.features(pooled, torch.tensor([[True, True], [False, True]]))
    assert out.tolist() == [[1.0, 0.0, 1.0, 1.0, 1.0], [0.0, 0.0, 4.0, 0.0, 1.0]]


def test_a_package_of_what_did_best_is_one_linear_layer(tmp_path: Path) -> None:
    evaluation = {**LEAN, "export": True, "degradation": True, "report": True}
    path = made.make_table(tmp_path, rows=80)
    run = api.train(
        recipe(path, "auto", evaluation=evaluation, inputs={"vitals": INPUTS["vitals"]}), out=tmp_path / "run"
    )
    choice = run.record["choice"]
    assert set(choice["estimators"]) == {"linear_probe", "prototypes", "trees"}
    assert choice["stacked"] == max(choice["estimators"].values())
    assert run.metrics["parts"]["val"]["metrics"]["auroc"]["value"] == pytest.approx(choice["stacked"], abs=1e-6)
    assert run.score("auroc") > 0.7
    model = fuseline.load(run.folder)
    assert model.package.recipe.fusion.options["estimator"] == choice["estimator"]
    test = pl.read_parquet(run.folder / "predictions.parquet").filter(pl.col("part") == "test")
    frame = pl.read_csv(path)
    answers = model.predict([*(frame.row(i, named=True) for i in test["row"]), {}])
    assert [a.value for a in answers[:-1]] == test["value"].to_list()
    assert np.isfinite(list(answers[-1].probabilities.values())).all()
    if choice["estimator"] != "trees":
        assert write_openvino(model.package, tmp_path) == "onnxruntime"
    with pytest.raises(FuselineError, match="which nothing here makes smaller") as caught:
        rebuild(model.package, {}, model.rows, model.task)
    assert caught.value.code == "cannot_rebuild"


def test_trained_encoders_several_labels_and_the_hint(tmp_path: Path) -> None:
    path = made.make_table(tmp_path, rows=40)
    frame = pl.read_csv(path)
    labels = ["cold;cough" if s == "yes" else "cough" if i % 4 else "" for i, s in enumerate(frame["sick"])]
    frame.with_columns(labels=pl.Series(labels)).write_csv(path)
    task = {"kind": "classification", "target": "labels", "mode": "multilabel"}
    split = {"kind": "random", "val": 0.25, "test": 0.25}
    run = api.train(recipe(path, "linear_probe", task=task, split=split), out=tmp_path / "run", quiet=True)
    assert run.record["choice"]["estimator"] == "linear_probe"
    assert not any("few-shot" in n for n in run.record["notes"])
    with pytest.raises(FuselineError, match="several labels a row"):
        api.train(recipe(path, "prototypes", task=task, split=split), out=tmp_path / "refused", quiet=True)
    plain = recipe(path, "trees", inputs={"vitals": INPUTS["vitals"]})
    plain["fusion"] = {"kind": "stacked", "trees": {"iterations": 2}}
    run = api.train(plain, out=tmp_path / "plain", quiet=True)
    assert any("2 of 2 classes have fewer than 20 rows" in n and "docs/few-shot.md" in n for n in run.record["notes"])


@pytest.mark.parametrize(
    ("more", "code", "words"),
    [
        ({"task": {"kind": "regression", "target": "score"}}, "bad_recipe", "chooses between classes"),
        ({"fusion": {"kind": "stacked", "estimator": "prototype"}}, "bad_recipe", "fusion.estimator"),
        (
            {"fusion": {"kind": "stacked", "estimator": "auto"}, "split": {"val": 0.0}},
            "no_validation",
            "estimator: auto",
        ),
    ],
)
def test_what_cannot_be_is_refused(more: dict[str, Any], code: str, words: str, tmp_path: Path) -> None:
    with pytest.raises(FuselineError, match=words) as caught:
        api.train(recipe(made.make_table(tmp_path), "prototypes", **more), out=tmp_path / "run", quiet=True)
    assert caught.value.code == code


def test_of_equals_the_simplest_is_kept() -> None:
    assert best_of({"a": 1.0, "b": 1.0}, True) == "a"
    assert best_of({"a": None, "b": 0.2, "c": 0.1}, True) == "b"
    assert best_of({"a": None, "b": 0.2, "c": 0.1}, False) == "c"
    assert best_of({"a": None, "b": None}, True) == "a"
