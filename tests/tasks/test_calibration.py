"""Calibration maps as a package applies them."""

from __future__ import annotations

import json

import numpy as np
import pytest

from fuseline.tasks.calibration import Calibration, complete
from fuseline.tasks.classification import Classification, ClassificationConfig

LOGITS_BC = np.array([[2.0, 0.0, -1.0], [0.1, 0.2, 0.3], [-40.0, 900.0, 0.0]])
THREE = [
    Calibration("temperature", temperature=2.0),
    Calibration("beta", beta=((1.2, 0.7, 0.1), (1.0, 1.0, 0.0), (0.5, 2.0, -0.3))),
    Calibration("isotonic", curves=(((0.1, 0.9), (0.3, 0.6)),) * 3),
]


@pytest.mark.parametrize("one", THREE, ids=lambda c: c.method)
def test_a_map_gives_chances_that_sum_to_one_and_survives_json(one: Calibration) -> None:
    again = Calibration.from_dict(json.loads(json.dumps(one.to_dict())))
    assert again == one
    log_BC, log_not_BC = again.apply(*complete(LOGITS_BC))
    assert np.isfinite(log_BC).all()
    assert np.allclose(np.exp(log_BC).sum(axis=1), 1)
    assert np.allclose(np.exp(log_BC) + np.exp(log_not_BC), 1)


def test_a_temperature_never_changes_the_answer_and_draws_chances_together() -> None:
    raw_BC = complete(LOGITS_BC)[0]
    warm_BC = THREE[0].apply(*complete(LOGITS_BC))[0]
    assert (raw_BC.argmax(axis=1) == warm_BC.argmax(axis=1)).all()
    assert np.exp(warm_BC[0]).max() < np.exp(raw_BC[0]).max()


def test_of_two_classes_the_first_is_the_complement_of_the_second() -> None:
    one = Calibration("beta", beta=((2.0, 1.0, 0.5),))
    log_BC, _ = one.apply(*complete(np.array([[0.3, -0.2], [5.0, 1.0]])))
    p = np.exp(complete(np.array([[0.3, -0.2]]))[0])[0, 1]
    want = 1 / (1 + np.exp(-(2 * np.log(p) - np.log(1 - p) + 0.5)))
    assert np.exp(log_BC)[0, 1] == pytest.approx(want)
    assert np.allclose(np.exp(log_BC).sum(axis=1), 1)


def test_labels_of_which_several_hold_are_calibrated_each_for_itself() -> None:
    odds_BC = np.array([[1.0, -2.0]])
    logs = -np.logaddexp(0, -odds_BC), -np.logaddexp(0, odds_BC)
    log_BC, _ = Calibration("temperature", temperature=2.0).apply(*logs, multilabel=True)
    assert np.allclose(np.exp(log_BC), 1 / (1 + np.exp(-odds_BC / 2)))


def test_a_task_keeps_its_map_and_one_without_says_nothing_of_it() -> None:
    task = Classification.fit(ClassificationConfig(target="y"), {"y": ["a", "b", "c"] * 3})
    assert "calibration" not in task.state()
    before = task.decode({"logits": LOGITS_BC})[0].probabilities
    task.calibration = THREE[0]
    again = Classification.from_state(json.loads(json.dumps(task.state())))
    after = again.decode({"logits": LOGITS_BC})[0].probabilities
    assert before is not None
    assert after is not None
    assert max(after.values()) < max(before.values())
    assert np.allclose(again.raw_log_chances({"logits": LOGITS_BC})[0], complete(LOGITS_BC)[0])
