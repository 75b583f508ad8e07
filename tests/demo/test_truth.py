"""The known best: likelihoods are laws, posteriors are calibrated, and more evidence never hurts on average."""

from __future__ import annotations

from itertools import combinations
from pathlib import Path

import numpy as np
import pytest

from fuseline.demo import generate, load_truth
from fuseline.demo import statement as st
from fuseline.demo.generator import draw_visit
from fuseline.demo.truth import DemoTruth
from fuseline.errors import FuselineError


def drawn(rows: int, seed: int = 0) -> DemoTruth:
    """Visits of the stated model without their files: enough rows for statistics in a second."""
    rng = np.random.default_rng(seed)
    labels = rng.choice(len(st.CLASSES), size=rows, p=st.PRIOR)
    visits = [draw_visit(int(y), rng) for y in labels]
    zero = np.zeros(len(st.CLASSES))
    return DemoTruth(
        labels,
        {m: np.array([v.evidence.get(m, zero) for v in visits]) for m in st.MODALITIES},
        {m: np.array([m in v.evidence for v in visits]) for m in st.MODALITIES},
    )


@pytest.fixture(scope="module")
def many() -> DemoTruth:
    return drawn(8000)


def test_every_law_sums_to_one() -> None:
    assert sum(st.PRIOR) == pytest.approx(1)
    assert sum(st.SENTENCE_COUNT) == pytest.approx(1)
    for y in range(len(st.CLASSES)):
        assert sum(chance[y] for chance in st.SENTENCES.values()) == pytest.approx(1)
        assert sum(chance[y] for chance in st.COUGH.values()) == pytest.approx(1)
        for law in st.NUMBERS.values():
            top = law.top if law.top is not None else law.mean[y] + 60 * law.step
            grid = top - law.step * np.arange(800)
            assert sum(law.likelihood(float(v), y) for v in grid) == pytest.approx(1, abs=1e-6)


def test_posterior_by_hand() -> None:
    """One picture with a cloud and without lines: prior times two likelihoods."""
    log_C = np.log(st.PICTURE["cloud"]) + np.log(1 - np.array(st.PICTURE["lines"]))
    evidence = {m: np.zeros((1, 3)) for m in st.MODALITIES} | {"picture": log_C[None]}
    truth = DemoTruth(np.array([1]), evidence, {m: np.array([m == "picture"]) for m in st.MODALITIES})
    odds = [0.40 * 0.07 * 0.92, 0.30 * 0.85 * 0.85, 0.30 * 0.12 * 0.20]
    assert truth.posterior()[0] == pytest.approx(np.array(odds) / sum(odds))
    assert truth.posterior(["note", "sound"])[0] == pytest.approx(st.PRIOR)


def test_posteriors_are_calibrated(many: DemoTruth) -> None:
    for subset in (st.MODALITIES, *combinations(st.MODALITIES, 1)):
        posterior = many.posterior(subset)
        for low in np.arange(0.3, 1.0, 0.1):
            sure = posterior.max(axis=1)
            some = (sure >= low) & (sure < low + 0.1)
            if some.sum() >= 200:
                right = (posterior.argmax(axis=1) == many.labels)[some].mean()
                assert abs(right - sure[some].mean()) < 4 * np.sqrt(0.25 / some.sum())


def test_more_modalities_are_better(many: DemoTruth) -> None:
    for size in range(len(st.MODALITIES)):
        for subset in combinations(st.MODALITIES, size):
            for more in set(st.MODALITIES) - set(subset):
                assert many.bayes_accuracy([*subset, more]).expected > many.bayes_accuracy(subset).expected


def test_fusing_is_worth_its_while(many: DemoTruth) -> None:
    fused = many.bayes_accuracy().expected
    single = max(many.bayes_accuracy([m]).expected for m in st.MODALITIES)
    assert 0.88 < fused < 0.95
    assert 0.70 < single < fused - 0.12
    best = many.bayes_accuracy()
    assert abs(best.reached - best.expected) < 0.015


def rows_tested_pick_rows(many: DemoTruth) -> None:
    rows = [7, 3, 3, 100]
    assert many.posterior(rows=rows) == pytest.approx(many.posterior()[rows])
    assert many.bayes_accuracy(rows=rows).rows == 4


def test_an_unknown_modality_is_named(many: DemoTruth) -> None:
    with pytest.raises(FuselineError, match="smell"):
        many.posterior(["smell"])


def test_saved_and_loaded(tmp_path: Path) -> None:
    truth = generate(tmp_path, rows=50, seed=2)
    again = load_truth(tmp_path)
    assert np.array_equal(again.labels, truth.labels)
    for m in st.MODALITIES:
        assert np.array_equal(again.evidence[m], truth.evidence[m])
        assert np.array_equal(again.present[m], truth.present[m])


def test_truth_that_is_none(tmp_path: Path) -> None:
    with pytest.raises(FuselineError, match="no demo truth"):
        load_truth(tmp_path)
    (tmp_path / "truth.csv").write_text("row,diagnosis\n0,well\n")
    with pytest.raises(FuselineError, match="not written by"):
        load_truth(tmp_path)
