"""Every metric against scikit-learn, plain and with the weights of a resample."""

from __future__ import annotations

import numpy as np
import pytest

from fuseline.tasks import metrics

sklearn = pytest.importorskip("sklearn.metrics")

ROWS, CLASSES = 120, 4
GENERATOR = np.random.default_rng(0)
TRUTH = GENERATOR.integers(0, CLASSES, ROWS)
ANSWER = np.where(GENERATOR.random(ROWS) < 0.6, TRUTH, GENERATOR.integers(0, CLASSES, ROWS))
SCORE = (TRUTH == 2) + GENERATOR.normal(size=ROWS)
TIED = SCORE.round(0)
ONCE = np.ones((1, ROWS))
WEIGHTS = GENERATOR.multinomial(ROWS, np.full(ROWS, 1 / ROWS), size=5).astype(float)


def member(numbers: np.ndarray) -> np.ndarray:
    return numbers[:, None] == np.arange(CLASSES)


@pytest.mark.parametrize("score", [SCORE, TIED, np.zeros(ROWS)], ids=["distinct", "tied", "constant"])
@pytest.mark.parametrize(
    ("name", "theirs"), [("auroc", sklearn.roc_auc_score), ("auprc", sklearn.average_precision_score)]
)
def test_areas(name, theirs, score):
    truth = TRUTH == 2
    assert getattr(metrics.areas(truth, score, ONCE), name)[0] == pytest.approx(theirs(truth, score))
    expected = [theirs(truth, score, sample_weight=w) for w in WEIGHTS]
    np.testing.assert_allclose(getattr(metrics.areas(truth, score, WEIGHTS), name), expected)


def test_areas_do_not_depend_on_the_order_of_tied_rows():
    order = np.random.default_rng(1).permutation(ROWS)
    a, b = (metrics.areas(TRUTH[i] == 2, TIED[i], ONCE) for i in (slice(None), order))
    np.testing.assert_allclose(a, b, rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", ["precision", "recall", "f1"])
def test_per_class_macro_and_weighted(name):
    theirs = getattr(sklearn, f"{name}_score")
    for weights in (ONCE, WEIGHTS):
        counts = metrics.counts(member(TRUTH), member(ANSWER), weights)
        ours = getattr(counts, name)
        for r, w in enumerate(weights):
            np.testing.assert_allclose(ours[r], theirs(TRUTH, ANSWER, average=None, sample_weight=w))
        macro = [theirs(TRUTH, ANSWER, average="macro", sample_weight=w) for w in weights]
        np.testing.assert_allclose(metrics.mean_defined(ours), macro)
        weighted = [theirs(TRUTH, ANSWER, average="weighted", sample_weight=w) for w in weights]
        np.testing.assert_allclose(counts.weighted(ours), weighted)


def test_macro_leaves_out_a_class_that_never_occurs_as_scikit_learn_does():
    truth, answer = np.array([0, 1, 1, 2]), np.array([0, 1, 0, 1])  # class 2 never answered, class 3 never there
    counts = metrics.counts(member(truth), member(answer), np.ones((1, 4)))
    assert np.isnan(counts.f1[0, 3])
    assert counts.f1[0, 2] == 0
    expected = sklearn.f1_score(truth, answer, average="macro")
    assert metrics.mean_defined(counts.f1)[0] == pytest.approx(expected)
    assert counts.weighted(counts.f1)[0] == pytest.approx(sklearn.f1_score(truth, answer, average="weighted"))


def test_balanced_accuracy_micro_f1_specificity_and_confusion():
    counts = metrics.counts(member(TRUTH), member(ANSWER), ONCE)
    assert counts.balanced_accuracy[0] == pytest.approx(sklearn.balanced_accuracy_score(TRUTH, ANSWER))
    labels, answers = GENERATOR.random((2, ROWS, CLASSES)) > 0.5
    many = metrics.counts(labels, answers, ONCE)
    assert many.micro_f1[0] == pytest.approx(sklearn.f1_score(labels, answers, average="micro"))
    negative = sklearn.recall_score(TRUTH != 1, ANSWER != 1)
    assert counts.specificity[0, 1] == pytest.approx(negative)
    matrix = metrics.confusion(TRUTH, ANSWER, CLASSES)
    np.testing.assert_array_equal(matrix, sklearn.confusion_matrix(TRUTH, ANSWER))


def test_more_classes_than_are_counted_at_once():
    truth, answer = (np.random.default_rng(s).integers(0, 150, 400) for s in (1, 2))
    counts = metrics.counts(truth[:, None] == np.arange(150), answer[:, None] == np.arange(150), np.ones((1, 400)))
    expected = sklearn.f1_score(truth, answer, average="macro", labels=np.union1d(truth, answer))
    assert metrics.mean_defined(counts.f1)[0] == pytest.approx(expected)


@pytest.mark.parametrize("truth", [np.zeros(5, bool), np.ones(5, bool), np.zeros(0, bool)])
def test_undefined_is_nan(truth):
    score, once = np.linspace(0, 1, len(truth)), np.ones((1, len(truth)))
    found = metrics.areas(truth, score, once)
    assert np.isnan(found.auroc[0])
    assert np.isnan(found.auprc[0]) != truth.any()
    assert metrics.roc_points(truth, score) is None
    assert (metrics.pr_points(truth, score) is None) != truth.any()


def test_curves_are_scikit_learns_and_are_thinned():
    truth = TRUTH == 2
    fpr, tpr, _ = sklearn.roc_curve(truth, TIED, drop_intermediate=False)
    ours = metrics.roc_points(truth, TIED)
    np.testing.assert_allclose(ours["fpr"], fpr)
    np.testing.assert_allclose(ours["tpr"], tpr)
    precision, recall, _ = sklearn.precision_recall_curve(truth, TIED)
    ours = metrics.pr_points(truth, TIED)
    np.testing.assert_allclose(ours["recall"], recall[:-1][::-1])
    np.testing.assert_allclose(ours["precision"], precision[:-1][::-1])
    generator = np.random.default_rng(0)
    many = metrics.roc_points(generator.random(5000) > 0.5, generator.random(5000))
    assert len(many["fpr"]) == len(many["tpr"]) == 200
    assert (many["fpr"][0], many["tpr"][0], many["fpr"][-1], many["tpr"][-1]) == (0, 0, 1, 1)


def test_calibration_error_by_hand():
    stated = np.repeat([0.2, 0.9], 100)
    came = np.r_[np.arange(100) < 40, np.arange(100) < 80].astype(bool)
    found = metrics.calibration(stated, came)
    # |0.4 - 0.2| and |0.8 - 0.9|, half of the rows each
    assert found.ece(np.ones((1, 200)))[0] == pytest.approx(0.15)
    assert found.bins() == [
        {"confidence": pytest.approx(0.2), "accuracy": 0.4, "count": 100},
        {"confidence": pytest.approx(0.9), "accuracy": 0.8, "count": 100},
    ]


def test_calibration_bins_hold_equal_mass():
    stated = np.random.default_rng(0).random(3000) ** 3
    counts = [b["count"] for b in metrics.calibration(stated, stated > 0.5).bins()]
    assert counts == [200] * 15
    few = metrics.calibration(stated[:40], stated[:40] > 0.5).bins()
    assert [b["count"] for b in few] == [10] * 4


def test_errors_of_many_targets_with_absent_ones():
    generator = np.random.default_rng(0)
    truth = generator.normal(size=(80, 3)) * [1, 100, 0.01] + [0, 1e6, 5]
    answer = truth + generator.normal(size=(80, 3)) * [0.5, 20, 0.01]
    truth[generator.random((80, 3)) < 0.2] = np.nan
    weights = generator.multinomial(80, np.full(80, 1 / 80), size=4).astype(float)
    found = metrics.errors(truth, answer, weights)
    for r, w in enumerate(weights):
        for k in range(3):
            there = ~np.isnan(truth[:, k])
            args = (truth[there, k], answer[there, k])
            expected = {
                "mae": sklearn.mean_absolute_error(*args, sample_weight=w[there]),
                "rmse": sklearn.root_mean_squared_error(*args, sample_weight=w[there]),
                "r2": sklearn.r2_score(*args, sample_weight=w[there]),
            }
            assert {n: getattr(found, n)[r, k] for n in expected} == pytest.approx(expected)


def test_errors_where_nothing_is_defined():
    found = metrics.errors(np.array([[7.0, np.nan], [7.0, np.nan]]), np.zeros((2, 2)), np.ones((1, 2)))
    assert found.rmse[0, 0] == 7
    assert np.isnan(found.r2[0, 0]), "R² of a constant"
    assert np.isnan([found.mae[0, 1], found.rmse[0, 1], found.r2[0, 1]]).all()


def test_plain_is_json():
    assert (metrics.plain(np.float64(0.5)), metrics.plain(float("nan")), metrics.plain(np.inf)) == (0.5, None, None)
