"""Trees: scikit-learn's sum, our own and the ONNX node's agree, with missing values and categories."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from onnx import TensorProto, helper

from fuseline.lab.export.nodes import ML
from fuseline.lab.export.trees import ML_OPSET, attributes
from fuseline.lab.stacked import boost as boosting
from fuseline.lab.stacked.boost import Boosted, Rows, boost
from fuseline.lab.stacked.options import TreesConfig
from fuseline.lab.stacked.trees import Forest, Trees, _below
from fuseline.tasks.classification import Classification
from fuseline.tasks.regression import Regression

CONFIG = TreesConfig(iterations=12, learning_rate=0.3, min_rows=3)
COLOURS = 5


def features(rows: int, seed: int = 0) -> np.ndarray:
    """[a category of 5 values, a number, a number that is mostly missing], each missing here and there."""
    rng = np.random.default_rng(seed)
    x_NF = np.stack([rng.integers(0, COLOURS, rows), rng.normal(size=rows), rng.normal(size=rows)], axis=1)
    x_NF[rng.random(x_NF.shape) < np.array([0.1, 0.1, 0.6])] = np.nan
    return x_NF.astype(np.float32)


def labels(x_NF: np.ndarray) -> np.ndarray:
    """0 where the category is odd, 1 where the number is high or missing, else 2."""
    high = np.isnan(x_NF[:, 1]) | (x_NF[:, 1] > 0.2)
    return np.where(np.isin(x_NF[:, 0], [1, 3]), 0, np.where(high, 1, 2))


def made(kind: str, rows: int = 240) -> tuple[Any, Boosted, np.ndarray]:
    x_NF = features(rows)
    y_N = labels(x_NF)
    task: Any
    match kind:
        case "classes":
            task, y = Classification.fit(Classification.Config(target="y"), {"y": [*map(str, y_N)]}), y_N
        case "two classes":
            y = (y_N > 0).astype(int)
            task = Classification.fit(Classification.Config(target="y"), {"y": [*map(str, y)]})
        case "labels":
            config = Classification.Config(target="y", mode="multilabel", class_weights="balanced")
            y = np.stack([y_N == 0, y_N > 0], axis=1).astype(np.float32)
            task = Classification.fit(config, {"y": [[w for w, v in zip("ab", r, strict=True) if v] for r in y]})
        case _:
            y = np.stack([y_N * 10.0 + x_NF[:, 0], -1.0 * y_N], axis=1)
            y[np.isnan(y)] = 3.0
            task = Regression.fit(Regression.Config(targets=("u", "v")), {"u": y[:, 0], "v": y[:, 1]})
            y[::7, 1] = np.nan
    half = rows // 2
    one = np.ones(half)
    val = Rows(x_NF[half:], y[half:], one)
    return task, boost(task, Rows(x_NF[:half], y[:half], one), val, CONFIG, categories=1, seed=0), x_NF


def node_of(trees: Trees, columns_BX: np.ndarray) -> np.ndarray:
    """The ONNX node's sum in onnxruntime."""
    node = helper.make_node("TreeEnsembleRegressor", ["x"], ["y"], domain=ML, **attributes(trees))
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["B", columns_BX.shape[1]])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["B", len(trees.base_K)])
    opsets = [helper.make_opsetid("", 20), helper.make_opsetid(ML, ML_OPSET)]
    model = helper.make_model(helper.make_graph([node], "g", [x], [y]), opset_imports=opsets, ir_version=10)
    onnx.checker.check_model(model)
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return np.asarray(session.run(None, {"x": columns_BX})[0])


@pytest.mark.parametrize("kind", ["classes", "two classes", "labels", "numbers"])
@torch.no_grad()
def test_scikit_learn_torch_and_onnx_agree(kind: str) -> None:
    _, found, x_NF = made(kind)  # boosting itself compares with scikit-learn
    assert any(found.rounds)
    trees = Trees(found.arrays)
    assert len(trees.category_S), "no split by category: the test shows nothing of them"
    x_NF = np.concatenate([x_NF, np.full((1, 3), np.nan, np.float32), np.array([[2, np.inf, -np.inf]], np.float32)])
    whole = torch.from_numpy(x_NF)
    got = node_of(trees, trees.columns(whole).numpy())
    assert np.allclose(got + trees.base_K.numpy(), trees(whole).numpy(), atol=1e-5)
    alone = torch.cat([trees(whole[i : i + 1]) for i in range(9)])
    assert torch.equal(alone, trees(whole)[:9])


@torch.no_grad()
def test_trees_learn_what_categories_and_missing_cells_say() -> None:
    _, found, x_NF = made("classes", rows=900)
    answers = Trees(found.arrays)(torch.from_numpy(x_NF[450:])).argmax(dim=1).numpy()
    assert (answers == labels(x_NF)[450:]).mean() > 0.95


def test_trees_that_are_read_wrongly_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    plain = Forest.add

    def wrong(self: Forest, predictor: Any, output: int) -> None:
        nodes = predictor.nodes
        nodes["value"] *= 1.5
        plain(self, predictor, output)
        nodes["value"] /= 1.5

    monkeypatch.setattr(boosting.Forest, "add", wrong)
    with pytest.raises(boosting.FuselineError, match="scikit-learn") as caught:
        made("two classes")
    assert caught.value.code == "trees_unreadable"


@torch.no_grad()
def test_classes_that_no_row_has_and_rows_of_one_class() -> None:
    config = Classification.Config(target="y", classes=("a", "b", "c", "d"))
    task = Classification.fit(config, {"y": ["b", "c"] * 40})
    x_NF = features(80)
    y_N = np.array([1, 2] * 40)
    for chosen, best in ((slice(None), {1, 2}), (y_N == 1, {1})):
        rows = Rows(x_NF[chosen], y_N[chosen], np.ones(len(y_N[chosen])))
        found = boost(task, rows, None, CONFIG, categories=1, seed=0)
        chance_BC = Trees(found.arrays)(torch.from_numpy(x_NF)).softmax(dim=1).numpy()
        assert set(chance_BC.argmax(axis=1)) == best
        assert (chance_BC[:, [0, 3]] > 0).all()
        assert (chance_BC[:, [0, 3]] < 0.05).all()


@torch.no_grad()
def test_nothing_to_split_by_is_a_constant_that_onnx_takes() -> None:
    task = Regression.fit(Regression.Config(target="y"), {"y": [1.0, 3.0]})
    rows = Rows(np.full((2, 2), np.nan, np.float32), np.array([[1.0], [3.0]]), np.ones(2))
    trees = Trees(boost(task, rows, None, CONFIG, categories=1, seed=0).arrays)
    x_BF = torch.tensor([[float("nan"), 1.0], [0.0, -1.0]])
    assert np.allclose(trees(x_BF).numpy(), 0.0, atol=1e-6)
    assert np.array_equal(node_of(trees, trees.columns(x_BF).numpy()), np.zeros((2, 1)))


@pytest.mark.parametrize("threshold", [0.1, -0.1, 1e-50, -1e-50, 1 / 3, 16777217.0, 1e300, float("inf")])
def test_a_threshold_is_rounded_down_so_that_no_number_changes_sides(threshold: float) -> None:
    rounded = _below(threshold)
    with np.errstate(over="ignore"):
        near = [rounded, *(np.nextafter(rounded, np.float32(way)) for way in (np.inf, -np.inf))]
    for x in near:
        assert (x <= rounded) == (float(x) <= threshold)


@torch.no_grad()
def test_the_margin_is_the_distance_to_the_nearest_threshold_met() -> None:
    forest = {
        "feature_N": np.array([0, 0, 0, 1, 0]), "threshold_N": np.array([1.0, 0, 0, 5.0, 0]),
        "left_N": np.array([1, 1, 3, 1, 4]), "right_N": np.array([3, 1, 3, 4, 4]),
        "missing_left_N": np.zeros(5), "value_N": np.arange(5.0), "root_T": np.array([0]), "output_T": np.array([0]),
        "category_S": np.zeros(0), "right_SV": np.zeros((0, 2)), "base_K": np.zeros(1),
    }  # fmt: skip
    trees = Trees(forest)
    x_BF = torch.tensor([[0.5, 5.0], [1.5, 5.25], [float("nan"), 9.0]])
    assert trees.margin(x_BF, torch.tensor([True, True])).tolist() == [0.5, 0.25, 4.0]
    assert trees.margin(x_BF, torch.tensor([True, False])).tolist() == [0.5, 0.5, float("inf")]
