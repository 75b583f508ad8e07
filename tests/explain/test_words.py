"""Explanations in words: above all that the model does not answer."""

from __future__ import annotations

from typing import Any

from fuseline.explain.quantity import leaning
from fuseline.explain.schema import Explanation, Quantity, WhatIf
from fuseline.explain.words import failure, remarks, standing, then
from fuseline.runtime import Answer

SICK = Quantity(kind="probability", label="sick")
OF_SEVERITY = Quantity(kind="probability", target="severity", label="high")


def told(answer: Answer, of: Quantity = SICK, **more: Any) -> Explanation:
    return Explanation(row=3, answer=answer.to_dict(), of=of, **more)


def test_who_abstains_is_not_shown_as_an_answer() -> None:
    silent = Answer(probabilities={"sick": 0.6, "well": 0.4}, abstained=True, suggestion="sick", set=["sick", "well"])
    words = standing(told(silent))
    assert words == ["not sure enough to answer; it leans to sick", "not ruled out: sick, well"]
    assert standing(told(Answer("sick", {"sick": 0.9, "well": 0.1}, absent=("note",)))) == ["absent: note"]
    assert standing(told(Answer("well", {"sick": 0.1, "well": 0.9}))) == ["answer well"]
    number = Quantity(kind="number")
    assert standing(told(Answer(3.5, interval=(1.0, 7.25)), number)) == ["answer 3.5", "between 1 and 7.25"]


def test_one_of_several_targets() -> None:
    details = {"severity": {"probabilities": {"high": 0.6}, "abstained": True, "suggestion": "high"}}
    answer = Answer({"severity": None, "age": 3.0}, details=details)
    assert standing(told(answer, OF_SEVERITY)) == ["not sure enough to answer; it leans to high"]
    assert leaning(OF_SEVERITY, answer) == "high"
    assert leaning(SICK, Answer("sick")) is None


def test_what_if_nothing_is_answered_then() -> None:
    one = WhatIf(absent="note", changes=None, value=None, suggestion="well", quantity=0.3, change=-0.1)
    assert then(SICK, one) == "none; leans to well"
    assert then(SICK, one.model_copy(update={"value": "well", "suggestion": None})) == "well"
    both = one.model_copy(update={"value": {"severity": "low"}, "suggestion": None})
    assert then(OF_SEVERITY, both) == "low"


def test_failures_name_the_column_and_notes_are_not_endless() -> None:
    error = {"code": "bad_cell", "message": "inf is infinite", "hint": "", "row": 3, "column": "age"}
    assert failure(Explanation(row=3, answer={}, error=error)) == "age: inf is infinite"
    many = told(Answer("sick", notes=[f"note {i}" for i in range(9)]), notes=("the last",))
    assert remarks(many)[-1] == "and 4 notes more"
    assert len(remarks(many)) == 7
