"""Explanations of a tiny package's answers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import served

import fuseline
from fuseline.errors import FuselineError
from fuseline.explain import Explanations, Options, explain_rows, explainer
from fuseline.explain import quantity as of_answer
from fuseline.explain.page import render, say
from fuseline.explain.schema import Summary
from fuseline.modalities import MediaRoot
from fuseline.runtime import Answer

NOWHERE = MediaRoot(None)
NONE = Summary(rows=0, errors=0, importance={}, by_class={})
VITALS = dict.fromkeys(("age", "sex", "smoker", "seen"), "vitals")


@pytest.fixture(scope="module")
def predictor(package: Path) -> fuseline.Predictor:
    return fuseline.load(package, threads=1)


@pytest.fixture(scope="module")
def rows() -> list[dict[str, Any]]:
    whole = served.rows(1, absent=0.0)[0]
    return [whole, {"note": "calm breath fever", "age": 40}, {"age": "old"}, {}]


@pytest.fixture(scope="module")
def found(predictor: fuseline.Predictor, rows: list[Any]) -> Explanations:
    return predictor.explain(rows, inside=True, changes={"age": 70, "note": None}, grid=2, most_parts=4)


def test_shares_add_up_to_the_answer(found: Explanations, predictor: fuseline.Predictor, rows: list[Any]) -> None:
    answers = predictor.predict(rows)
    for row, answer in zip(found.rows, answers, strict=True):
        if answer.error is not None:
            continue
        assert row.answer["value"] == answer.value
        assert row.quantity == pytest.approx(max(answer.probabilities.values()), abs=1e-5)
        assert set(row.inputs.values) == set(answer.used)
        assert row.inputs.base + sum(row.inputs.values.values()) == pytest.approx(row.quantity, abs=1e-6)
        assert abs(row.inputs.gap) < 1e-9
        assert row.inputs.outputs == 2 ** len(answer.used)
    assert found.rows[3].inputs.values == {}, "a row of nothing is explained by nothing"


def test_a_bad_row_is_alone(found: Explanations) -> None:
    assert [r.error is not None for r in found.rows] == [False, False, True, False]
    assert (found.rows[2].error["code"], found.rows[2].error["row"]) == ("bad_cell", 2)
    assert (found.summary.rows, found.summary.errors) == (3, 1)


def test_what_parts_did_is_what_hiding_them_does(
    found: Explanations, predictor: fuseline.Predictor, rows: list[Any]
) -> None:
    units = {(p.input, p.unit): p for p in found.rows[0].inside}
    assert set(units) == {("picture", "patch"), ("note", "word"), ("sound", "second"), ("vitals", "column")}
    assert len(units["picture", "patch"].parts) == 4
    row = found.rows[1]
    words = next(p for p in row.inside if p.input == "note")
    assert [p.label for p in words.parts] == ["calm", "breath", "fever"]
    [then] = predictor.predict([{"note": "calm breath ", "age": 40}])
    assert words.parts[2].value == pytest.approx(row.quantity - then.probabilities[row.of.label], abs=1e-5)
    asked = row.inputs.outputs + sum(p.outputs for p in row.inside) + 3  # two changes, and both of them
    assert row.outputs == asked


def test_what_if(found: Explanations, predictor: fuseline.Predictor, rows: list[Any]) -> None:
    row = found.rows[1]
    absent = {w.absent: w for w in row.what_if if w.absent}
    assert set(absent) == {"note", "vitals"}
    [then] = predictor.predict([{"age": 40}])
    assert absent["note"].quantity == pytest.approx(then.probabilities[row.of.label], abs=1e-5)
    changed = [w for w in row.what_if if w.changes]
    assert [w.changes for w in changed] == [{"age": 70}, {"note": None}, {"age": 70, "note": None}]
    [then] = predictor.predict([{"note": "calm breath fever", "age": 70}])
    assert changed[0].quantity == pytest.approx(then.probabilities[row.of.label], abs=1e-5)
    assert changed[0].change == pytest.approx(changed[0].quantity - row.quantity)
    told = predictor.explain([{"age": 40}], changes={"picture": b"no picture"})
    assert told.rows[0].what_if[-1].changes == {"picture": "10 bytes"}
    assert Explanations.model_validate_json(told.model_dump_json()) == told
    [bad] = predictor.explain([{"age": 40}], changes={"age": "old"}).rows
    assert bad.error is None
    assert "no number" in bad.what_if[-1].error


def test_many_inputs_are_sampled(
    predictor: fuseline.Predictor, rows: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    exact = predictor.explain(rows[:1]).rows[0].inputs
    monkeypatch.setattr("fuseline.explain.explainer.EXACT_MOST", 2)
    [row] = predictor.explain(rows[:1], orders=24).rows
    assert row.inputs.method == "sampled"
    assert abs(row.inputs.gap) < 1e-9
    assert {w.absent for w in row.what_if} == set(exact.values)
    for name, value in row.inputs.values.items():
        assert abs(value - exact.values[name]) <= 5 * row.inputs.errors[name] + 1e-6


def test_what_is_refused(predictor: fuseline.Predictor, rows: list[Any]) -> None:
    for options, code in (
        ({"inside": ["nose"]}, "unknown_column"),
        ({"changes": {"agee": 1}}, "unknown_column"),
        ({"grid": 0}, "bad_usage"),
        ({"inside": True, "most_outputs": 20}, "too_large"),
    ):
        with pytest.raises(FuselineError) as caught:
            predictor.explain(rows[:1], **options)
        assert caught.value.code == code
    with pytest.raises(FuselineError, match="list of rows"):
        predictor.explain(rows[0])
    [row] = predictor.explain(rows[1:2], of="maybe").rows
    assert row.error["code"] == "cannot_explain"
    assert predictor.explain([]).rows == ()


def test_what_is_too_much_is_refused_before_it_is_made(
    predictor: fuseline.Predictor, rows: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    made_of: list[Any] = []
    monkeypatch.setattr(explainer, "_with", lambda parsed, changes: made_of.append(changes) or parsed)
    with pytest.raises(FuselineError, match="at most 100"):
        predictor.explain(rows[:1], inside=["picture"], grid=64, most_outputs=100)
    assert len(made_of) == 15, "the subsets, and none of the thousands of patches"


def test_texts_of_every_alphabet_stand_on_the_page_and_do_not_turn_it() -> None:
    written = "咳嗽\u3000发烧 می\u200cخواهم 👩\u200d👧 8\u00a0mg"
    assert say(written) == written
    assert say("a\u202eb\x00<i>") == "a\ufffdb\ufffd&lt;i&gt;"


def test_a_value_that_training_never_saw_is_said(predictor: fuseline.Predictor) -> None:
    [row] = predictor.explain([{"sex": "purple", "age": 50}], changes={"sex": "green", "age": 60}).rows
    assert ["'purple'" in row.notes[0], "'green'" in row.notes[1], len(row.notes)] == [True, True, 2]
    [row] = predictor.explain([{"sex": "f", "age": 50}], changes={"sex": "m"}).rows
    assert row.notes == ()


def test_a_silent_model_says_so_on_the_page(predictor: fuseline.Predictor, rows: list[Any]) -> None:
    [row] = predictor.explain(rows[:1]).rows
    silent = row.model_copy(update={"answer": row.answer | {"value": None, "abstained": True, "suggestion": "yes"}})
    page = render(
        Explanations(model={"name": "m", "version": "v"}, rows=(silent,), summary=NONE), predictor, rows[:1], NOWHERE
    )
    assert "not sure enough to answer; it leans to yes" in page
    assert "null" not in page


def test_what_is_explained_of_each_task() -> None:
    class Named:
        def __init__(self, name: str) -> None:
            self.name = name

    number, forecast = Answer(2.5), Answer({"pm": [1.0, 3.0], "no2": [4.0, 6.0]})
    several = Answer({"ill": "yes", "days": 3.0}, details={"ill": {"probabilities": {"yes": 0.8, "no": 0.2}}})
    labels = Answer(["a"], {"a": 0.6, "b": 0.3})
    for task, answer, of, want in (
        ("regression", number, None, 2.5),
        ("forecast", forecast, None, 2.0),
        ("forecast", forecast, "no2", 5.0),
        ("forecast", Answer([1.0, 2.0]), None, 1.5),
        ("multi", several, None, 0.8),
        ("multi", several, "ill=no", 0.2),
        ("multi", several, "days", 3.0),
        ("classification", labels, "b", 0.3),
    ):
        chosen = of_answer.choose(Named(task), answer, of)
        assert of_answer.read(chosen, answer) == pytest.approx(want)
    for task, answer, of in (
        ("generation", Answer("a text"), None),
        ("detection", Answer([{"label": "lung", "box": [0, 0, 1, 1]}]), None),
        ("regression", number, "days"),
        ("forecast", forecast, "so2"),
    ):
        with pytest.raises(FuselineError) as caught:
            of_answer.choose(Named(task), answer, of)
        assert caught.value.code == "cannot_explain"


def test_json_and_back(found: Explanations) -> None:
    text = found.model_dump_json()
    assert Explanations.model_validate_json(text) == found
    assert "NaN" not in text


def test_the_summary_has_intervals(predictor: fuseline.Predictor) -> None:
    rows = served.rows(12)
    summary = explain_rows(predictor, rows).summary
    for name, mean in summary.importance.items():
        assert mean.rows == sum(name in {VITALS.get(column, column) for column in row} for row in rows)
        assert mean.low <= mean.value <= mean.high
        assert mean.value >= 0
    per_class = sum(means[name].rows for means in summary.by_class.values() for name in means if name == "note")
    assert per_class == summary.importance["note"].rows


def test_the_page_holds_all_and_calls_nobody(found: Explanations, predictor: fuseline.Predictor) -> None:
    rows = [*served.rows(1, absent=0.0), {"note": "<script>alert(1)</script> & calm"}]
    said = predictor.explain(rows, inside=True, grid=2)
    page = render(said, predictor, rows, NOWHERE)
    assert "<script" not in page
    assert "&lt;script&gt;" in page
    assert page.count("data:image/jpeg") == 3, "the picture, its heat, the spectrogram"
    assert "http" not in page.replace("http-equiv", "")
    assert "without any input" in page.lower()
    bad = render(found, predictor, [*rows[:1], {}, {"age": "old"}, {}], NOWHERE)
    assert "old" in bad


def test_options_are_frozen_and_seeded(predictor: fuseline.Predictor, rows: list[Any]) -> None:
    again = explain_rows(predictor, rows[1:2], Options(inside=True, grid=2))
    assert again == explain_rows(predictor, rows[1:2], Options(inside=True, grid=2))
    assert np.isfinite(again.rows[0].quantity)
