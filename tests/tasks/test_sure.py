"""What is added to answers: sets, intervals, abstaining; of one task and of several."""

from __future__ import annotations

import json
from typing import Any

import numpy as np

from fuseline.tasks.bins import Bins
from fuseline.tasks.classification import Classification, ClassificationConfig
from fuseline.tasks.conformal import Conformal, Group
from fuseline.tasks.forecast import Forecast, ForecastConfig
from fuseline.tasks.multi import Multi, MultiConfig
from fuseline.tasks.regression import Regression, RegressionConfig
from fuseline.tasks.sure import Abstain, Sure, stated

LOGITS = {"logits": np.log(np.array([[0.9, 0.06, 0.04], [0.4, 0.35, 0.25]]))}
BOTH: list[tuple[str, ...]] = [("note", "xray"), ("note", "xray")]


def conformal(threshold: float, size: int = 1, rows: int = 50) -> Conformal:
    return Conformal(0.9, "lac", [Group(("note", "xray"), None, rows, np.full(size, threshold))])


def abstain(threshold: float | None) -> Abstain:
    return Abstain(0.1, 0.95, ((None, {"threshold": threshold, "rows": 90}),))


def classes() -> Classification:
    return Classification.fit(ClassificationConfig(target="y"), {"y": ["a", "b", "c"] * 3})


def answers(task: Any, sure: Sure, outputs: dict[str, np.ndarray], present: Any = BOTH) -> list[dict[str, Any]]:
    sure = Sure.from_dict(json.loads(json.dumps(sure.to_dict())))
    found = sure.of(task, outputs, present, [{}] * len(present))
    return [stated(d, s) for d, s in zip(task.decode(outputs), found, strict=True)]


def test_a_set_holds_what_is_not_ruled_out_and_always_the_answer() -> None:
    first, second = answers(classes(), Sure(conformal={"": conformal(0.7)}), LOGITS)
    assert (first["set"], second["set"]) == (["a"], ["a", "b"])
    assert [a["set"] for a in answers(classes(), Sure(conformal={"": conformal(0.05)}), LOGITS)] == [["a"], ["a"]]


def test_an_answer_that_is_not_sure_enough_has_no_value_but_a_suggestion() -> None:
    first, second = answers(classes(), Sure(abstain={"": abstain(0.8)}), LOGITS)
    assert (first["value"], first["abstained"], "suggestion" in first) == ("a", False, False)
    assert (second["value"], second["abstained"], second["suggestion"]) == (None, True, "a")


def test_where_nothing_can_be_promised_nothing_is_answered() -> None:
    assert all(a["value"] is None for a in answers(classes(), Sure(abstain={"": abstain(None)}), LOGITS))


def test_the_strictest_threshold_of_related_inputs_holds_for_those_never_tested() -> None:
    groups = (
        ((), {"threshold": 0.9}),
        (("a",), {"threshold": 0.6}),
        (("b",), {"threshold": None}),
        (None, {"threshold": 0.5}),
    )
    one = Abstain(0.1, 0.95, groups)
    assert (one.threshold(("a",)), one.threshold(("a", "c"))) == (0.6, 0.9)
    assert one.threshold(("a", "b")) > 1


def test_no_guarantee_is_said() -> None:
    [answer] = answers(
        classes(), Sure(conformal={"": conformal(0.7, rows=5)}), {"logits": LOGITS["logits"][:1]}, BOTH[:1]
    )
    assert answer["notes"] == ["no guarantee: too few held-out rows to fit any set or interval"]
    assert "set" not in answer


def test_numbers_and_forecasts() -> None:
    one = Regression.fit(RegressionConfig(target="y"), {"y": [0.0, 1.0]})
    [answer] = answers(one, Sure(conformal={"": conformal(2.0)}), {"prediction": np.array([[5.0]])}, BOTH[:1])
    assert answer["interval"] == (3.0, 7.0)
    [answer] = answers(one, Sure(conformal={"": conformal(np.inf)}), {"prediction": np.array([[5.0]])}, BOTH[:1])
    assert answer["interval"] is None
    assert answer["notes"][0].startswith("no guarantee: 50 held-out rows are too few")
    two = Regression.fit(RegressionConfig(targets=("y", "z")), {"y": [0.0, 1.0], "z": [0.0, 1.0]})
    [answer] = answers(two, Sure(conformal={"": conformal(1.0, 2)}), {"prediction": np.array([[5.0, 6.0]])}, BOTH[:1])
    assert answer["details"]["intervals"] == {"y": [4.0, 6.0], "z": [5.0, 7.0]}
    ahead = Forecast.fit(ForecastConfig(target="y@next"), {"y@next": [[1.0, 2.0], [2.0, 4.0]]})
    outputs = {"forecast": np.array([[[[1.0, 2.0, 3.0]], [[2.0, 3.0, 4.0]]]])}
    [answer] = answers(ahead, Sure(conformal={"": conformal(1.0, 2)}), outputs, BOTH[:1])
    assert answer["details"]["interval"] == {"coverage": 0.9, "low": [0.0, 1.0], "high": [4.0, 5.0]}
    assert "quantiles" in answer["details"]


def test_several_tasks_have_theirs_under_their_names() -> None:
    task = Multi.fit(
        MultiConfig(tasks={"kind": {"kind": "classification"}, "size": {"kind": "regression"}}),  # type: ignore[arg-type]
        {"kind": ["a", "b", "c"] * 3, "size": [1.0, 2.0, 3.0] * 3},
    )
    sure = Sure(
        conformal={"kind": conformal(0.7), "size": conformal(1.0)},
        abstain={"kind": abstain(0.8)},
        by=[Bins.fit("sex", ["f", "m"])],
    )
    outputs = {"kind.logits": LOGITS["logits"], "size.prediction": np.array([[1.0], [2.0]])}
    first, second = answers(task, sure, outputs)
    assert first["value"] == {"kind": "a", "size": 1.0}
    assert second["value"] == {"kind": None, "size": 2.0}
    assert second["details"]["kind"]["suggestion"] == "a"
    assert second["details"]["kind"]["set"] == ["a", "b"]
    assert second["details"]["size"]["interval"] == [1.0, 3.0]
    json.dumps(second)
    assert any("sex: absent" in note for note in first["notes"])
