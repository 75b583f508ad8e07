from __future__ import annotations

import json

import numpy as np
import pytest

from fuseline.errors import FuselineError
from fuseline.recipe import read_options
from fuseline.tasks import task_class
from fuseline.tasks.classification import Classification, ClassificationConfig

sklearn = pytest.importorskip("sklearn.metrics")


def fit(cells, **options) -> Classification:
    return Classification.fit(ClassificationConfig(target="y", **options), {"y": cells})


def made(task: Classification, rows: int = 90, seed: int = 0):
    """Targets and logits that know something of them."""
    generator = np.random.default_rng(seed)
    classes = len(task.classes)
    if task.mode == "multilabel":
        targets = (generator.random((rows, classes)) > 0.6).astype(np.float32)
        return targets, (generator.normal(size=(rows, classes)) + 2 * targets - 1).astype(np.float32)
    targets = generator.integers(0, classes, rows)
    logits = generator.normal(size=(rows, classes)) + 1.5 * np.eye(classes)[targets]
    return targets, logits.astype(np.float32)


BINARY = fit(["ill", "well", "ill", None, "well", "well"], positive="ill")
MULTI = fit(["a", "b", "c"] * 10)
LABELS = fit([["a", "b"], ["b"], [], ["c"], None] * 4)
TASKS = pytest.mark.parametrize("task", [BINARY, MULTI, LABELS], ids=["binary", "multiclass", "multilabel"])


@pytest.mark.parametrize(
    ("cells", "mode", "classes", "metric"),
    [
        (["no", "yes"] * 3, "binary", ["no", "yes"], "auroc"),
        ([3, 1, 2] * 4, "multiclass", [1, 2, 3], "macro_f1"),
        ([True, False, None], "binary", [False, True], "auroc"),
        (['["x"]', '["x", "y"]', "[]"], "multilabel", ["x", "y"], "macro_f1"),
        ([["x"], ["x", "y"], None], "multilabel", ["x", "y"], "macro_f1"),
    ],
)
def test_mode_is_seen_in_the_cells(cells, mode, classes, metric):
    task = fit(cells)
    assert (task.mode, task.classes, task.metric) == (mode, classes, metric)


def test_explicit_mode_classes_and_positive():
    assert fit(["a", "b"] * 3, mode="multiclass").metric == "macro_f1"
    assert fit(["a;b", "b"], mode="multilabel").classes == ["a", "b"]
    task = fit(["b", "a"] * 3, classes=["b", "a", "unseen"])
    assert (task.classes, task.counts) == (["b", "a", "unseen"], [3, 3, 0])
    assert fit(["ill", "well"] * 3).positive == 1
    assert BINARY.positive == 0
    assert fit(["yes", "zero"] * 3).positive == 0
    assert fit(["yes", "zero"] * 3, classes=["yes", "zero"]).positive == 1


@TASKS
def test_state_survives_json(task):
    again = task_class("classification").from_state(json.loads(json.dumps(task.state())))
    assert again.state() == task.state()
    targets, logits = made(task)
    first, second = (t.score(targets, {"logits": logits}) for t in (task, again))
    assert first.to_dict() == second.to_dict()
    assert task.decode({"logits": logits}) == again.decode({"logits": logits})


@pytest.mark.parametrize("cells", [[1, 2, 3] * 3, [1.5, 2.5] * 3, [True, False] * 3, ["1", "2"] * 3])
def test_labels_keep_their_type(cells):
    task = Classification.from_state(json.loads(json.dumps(fit(cells).state())))
    for cell in cells:
        number = task.encode({"y": cell})
        assert (number.dtype, number.shape) == (np.int64, ())
        logits = np.zeros((1, len(task.classes)))
        logits[0, number] = 5
        value = task.decode({"logits": logits})[0].value
        assert value == cell
        assert type(value) is type(cell)


def test_encodes_a_class_by_its_text_form():
    task = fit([1, 2] * 3)
    assert task.encode({"y": "2"}) == task.encode({"y": 2.0}) == task.encode({"y": np.int32(2)}) == 1
    assert task.encode({"y": None}) is None


def test_encodes_labels():
    encoded = LABELS.encode({"y": ["c", "a", "a"]})
    assert encoded.dtype == np.float32
    assert encoded.tolist() == [1, 0, 1]
    assert LABELS.encode({"y": []}).tolist() == [0, 0, 0]
    assert LABELS.encode({"y": None}) is None


@pytest.mark.parametrize("task", [BINARY, LABELS], ids=["binary", "multilabel"])
def test_an_unseen_class_is_an_error_that_names_the_column(task):
    with pytest.raises(FuselineError, match="not among the classes") as caught:
        task.encode({"y": "aliens"})
    assert (caught.value.code, caught.value.column) == ("bad_cell", "y")


@pytest.mark.parametrize(
    ("cells", "options", "code", "words"),
    [
        (["a"] * 5, {}, "one_class", "'a'"),
        ([None, None], {}, "no_target", "no training row"),
        ([], {}, "no_target", "no training row"),
        ([[], []], {}, "one_class", "no training row has a label"),
        ([["a"], ["a"]], {}, "one_class", "one label"),
        ([f"name {i}" for i in range(20)], {}, "too_many_classes", "id or free text"),
        ([i * 0.37 for i in range(20)], {}, "too_many_classes", "regression"),
        (list(range(1200)) * 3, {}, "too_many_classes", "1200 classes"),
        (["a", "b", "c"] * 5, {"mode": "binary"}, "bad_recipe", "3 classes"),
        (["a", "b", "c"] * 5, {"positive": "a"}, "bad_recipe", "multiclass"),
        (["a", "b"] * 5, {"positive": "d"}, "bad_recipe", "'d'"),
        (["a", "b"] * 5, {"class_weights": {"d": 2}}, "bad_recipe", "'d'"),
        (["a", "b"] * 5, {"classes": ["a", "a"]}, "bad_recipe", "twice"),
        (["a", "b"] * 5, {"classes": ["a", "c"]}, "bad_cell", "'b'"),
        (["a", ["b"]] * 5, {"mode": "multiclass"}, "bad_cell", "multilabel"),
    ],
)
def test_targets_that_cannot_be_learned(cells, options, code, words):
    with pytest.raises(FuselineError, match=words) as caught:
        fit(cells, **options)
    assert (caught.value.code, caught.value.column) == (code, "y")


@pytest.mark.parametrize(
    "options",
    [{}, {"target": "y", "mode": "ternary"}, {"target": "y", "class_weights": {"a": -1}}, {"target": "y", "x": 1}],
)
def test_broken_options(options):
    with pytest.raises(FuselineError) as caught:
        read_options(ClassificationConfig, options, "task")
    assert caught.value.code == "bad_recipe"


def test_class_weights_may_be_keyed_by_numbers_and_booleans_as_yaml_reads_them():
    config = read_options(ClassificationConfig, {"target": "y", "class_weights": {True: 3, False: 1}}, "task")
    task = Classification.fit(config, {"y": [True, False, False, False]})
    assert task.class_weights()[1] / task.class_weights()[0] == pytest.approx(3)
    assert Classification.from_state(json.loads(json.dumps(task.state()))).class_weights() is not None


@TASKS
def test_decodes_chances(task):
    _, logits = made(task, rows=5)
    for row, answer in zip(logits.astype(float), task.decode({"logits": logits}), strict=True):
        if task.mode == "multilabel":
            chances = 1 / (1 + np.exp(-row))
            assert answer.value == [c for c, p in zip(task.classes, chances, strict=True) if p >= 0.5]
        else:
            chances = np.exp(row) / np.exp(row).sum()
            assert answer.value == task.classes[int(chances.argmax())]
        assert answer.probabilities == pytest.approx(dict(zip(task.labels, chances, strict=True)))


def values(task, **options):
    targets, logits = made(task)
    scores = task.score(targets, {"logits": logits}, **options)
    chances = np.array([list(d.probabilities.values()) for d in task.decode({"logits": logits})])
    return targets, chances, scores, {k: m.value for k, m in scores.metrics.items()}


def test_binary_scores_are_scikit_learns():
    targets, chances, scores, found = values(BINARY)
    truth, p = targets == 0, chances[:, 0]  # the positive class, "ill", is the first
    answer = p > 0.5
    expected = {
        "auroc": sklearn.roc_auc_score(truth, p),
        "auprc": sklearn.average_precision_score(truth, p),
        "accuracy": sklearn.accuracy_score(truth, answer),
        "balanced_accuracy": sklearn.balanced_accuracy_score(truth, answer),
        "log_loss": sklearn.log_loss(truth, p),
        "brier": sklearn.brier_score_loss(truth, p),
        "specificity": sklearn.recall_score(~truth, ~answer),
    }
    for name in ("precision", "recall", "f1"):
        theirs = getattr(sklearn, f"{name}_score")
        expected |= {name: theirs(truth, answer)}
        expected |= {f"{a}_{name}": theirs(truth, answer, average=a) for a in ("macro", "weighted")}
    assert 0 < found.pop("ece") < 0.5
    assert found == pytest.approx(expected)
    assert scores.details["positive"] == "ill"
    assert [c["label"] for c in scores.details["roc"]] == ["ill"]


def test_multiclass_scores_are_scikit_learns():
    targets, chances, scores, found = values(MULTI)
    answer = chances.argmax(axis=1)
    expected = {
        "auroc": sklearn.roc_auc_score(targets, chances, multi_class="ovr"),
        "auprc": sklearn.average_precision_score(np.eye(3)[targets], chances),
        "accuracy": sklearn.accuracy_score(targets, answer),
        "balanced_accuracy": sklearn.balanced_accuracy_score(targets, answer),
        "log_loss": sklearn.log_loss(targets, chances),
        "brier": ((chances - np.eye(3)[targets]) ** 2).sum(axis=1).mean(),
    }
    for name in ("precision", "recall", "f1"):
        theirs = getattr(sklearn, f"{name}_score")
        expected |= {f"{a}_{name}": theirs(targets, answer, average=a) for a in ("macro", "weighted")}
    assert 0 < found.pop("ece") < 0.5
    assert found == pytest.approx(expected, rel=1e-5)
    assert scores.details["confusion"]["counts"] == sklearn.confusion_matrix(targets, answer).tolist()
    assert [c["support"] for c in scores.details["per_class"]] == np.bincount(targets).tolist()


def test_multilabel_scores_are_scikit_learns():
    targets, chances, scores, found = values(LABELS)
    answer = chances >= 0.5
    expected = {
        "auroc": sklearn.roc_auc_score(targets, chances),
        "auprc": sklearn.average_precision_score(targets, chances),
        "accuracy": sklearn.accuracy_score(targets, answer),
        "micro_f1": sklearn.f1_score(targets, answer, average="micro"),
        "log_loss": np.mean([sklearn.log_loss(targets[:, c], chances[:, c]) for c in range(3)]),
        "brier": np.mean([sklearn.brier_score_loss(targets[:, c], chances[:, c]) for c in range(3)]),
    }
    for name in ("precision", "recall", "f1"):
        theirs = getattr(sklearn, f"{name}_score")
        expected |= {f"{a}_{name}": theirs(targets, answer, average=a) for a in ("macro", "weighted")}
    assert 0 < found.pop("ece") < 0.5
    assert found == pytest.approx(expected, rel=1e-5)
    assert "confusion" not in scores.details


@TASKS
def test_details_are_json_and_intervals_hold_the_value(task):
    _, _, scores, _ = values(task, bootstrap=300, groups=np.repeat(np.arange(30), 3))
    json.dumps(scores.to_dict(), allow_nan=False)
    assert task.metric in scores.metrics
    for name, m in scores.metrics.items():
        assert m.low < m.high
        if name != "ece":  # resampling adds miscalibration of its own
            assert m.low <= m.value <= m.high
        assert m.higher_is_better == (name not in ("log_loss", "brier", "ece"))
    assert sum(b["count"] for b in scores.details["reliability"]["bins"]) == (270 if task is LABELS else 90)
    assert values(task, details=False)[2].details == {}


@TASKS
def test_order_of_rows_does_not_matter(task):
    targets, logits = made(task)
    order = np.random.default_rng(1).permutation(len(targets))
    a, b = (task.score(targets[i], {"logits": logits[i]}).metrics for i in (slice(None), order))
    assert {k: m.value for k, m in a.items()} == pytest.approx({k: m.value for k, m in b.items()})


def test_one_class_present_leaves_only_the_rankings_undefined():
    scores = BINARY.score(np.zeros(20, dtype=np.int64), {"logits": made(BINARY, 20)[1]}, bootstrap=50)
    undefined = {k for k, m in scores.metrics.items() if np.isnan(m.value)}
    assert undefined == {"auroc", "specificity"}
    assert scores.metrics["auroc"].low is None
    json.dumps(scores.details, allow_nan=False)


def test_certain_answers_keep_their_order_and_their_loss():
    logits = np.float32([[0, 60], [0, 50], [0, 40]])
    scores = MULTI_PAIR.score(np.array([1, 1, 0]), {"logits": logits}).metrics
    assert scores["auroc"].value == 1
    assert scores["log_loss"].value == pytest.approx(40 / 3)


MULTI_PAIR = fit(["a", "b"] * 3)


@TASKS
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_diverged_model_has_no_scores(task, bad):
    targets, logits = made(task)
    logits[3, 0] = bad
    scores = task.score(targets, {"logits": logits}, bootstrap=50)
    assert all(np.isnan(m.value) and m.low is None for m in scores.metrics.values())
    assert scores.details == {"notes": ["the model's outputs are not finite"]}


@TASKS
def test_one_row_and_none(task):
    targets, logits = made(task)
    for rows in (0, 1):
        scores = task.score(targets[:rows], {"logits": logits[:rows]}, bootstrap=50)
        assert scores.rows == rows
        assert np.isnan(scores.metrics["accuracy"].value) == (rows == 0)
        json.dumps(scores.details, allow_nan=False)


def test_too_dear_intervals_are_left_out_and_said(monkeypatch):
    monkeypatch.setattr("fuseline.tasks.classification.RANKING_CELLS", 100)
    scores = values(MULTI, bootstrap=50)[2]
    assert scores.metrics["auroc"].low is None
    assert scores.metrics["auroc"].value > 0.5
    assert scores.metrics["macro_f1"].low is not None
    assert "no intervals" in scores.details["notes"][0]


def test_classes_that_are_probably_one_are_told() -> None:
    assert fit(["ill", "Ill ", "well", "ill", "well"] * 4).notes == (
        "the classes 'Ill ', 'ill' differ only in case or white space: are they one?",
    )
    assert MULTI.notes == ()
