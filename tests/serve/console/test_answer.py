"""The answer as it is shown, and errors at the field that they are about."""

from __future__ import annotations

from typing import Any

import pytest
from serve.console import standin
from serve.console.standin import Page, answer, reply


def ask(page: Page, *answers: dict[str, Any], **changes: Any) -> None:
    page.server.predict = lambda body: (200, reply(*answers, **changes))
    page.predict()


def failing(page: Page, status: int, **body: Any) -> None:
    body = {"error": "no", "code": "bad_cell", "hint": "", "row": None, "column": None, "request_id": "r-17"} | body
    page.server.predict = lambda _: (status, body)
    page.expected = (f"status of {status}",)


def widths(page: Page, css: str) -> list[float]:
    return list(page.js("return [...document.querySelectorAll(arguments[0])].map(e => parseFloat(e.style.width))", css))


def test_value_bars_contributions_and_facts(page: Page) -> None:
    page.open()
    ask(page, answer(notes=["sound taken as absent: too short"]))
    assert page.text(".big") == "yes"
    assert page.text(".sure") == "83.1 %"
    assert page.texts(".bars:not(.diverging) .bar-label")[:2] == ["yes", "no"]
    assert widths(page, "#answer .bars:not(.diverging) i") == [83.1, 16.9]
    assert page.texts("#answer .diverging .bar-label") == ["picture", "note", "vitals"]
    assert page.texts("#answer .diverging .figure") == ["+28.7", "+18.4", "−5.2"]
    assert widths(page, "#answer .diverging i") == pytest.approx([50, 50 * 0.184 / 0.287, 50 * 0.052 / 0.287], abs=0.01)
    # To the right of the middle what speaks for it, to the left what speaks against.
    bar, picture, _, vitals = (e.rect for e in page.all(".diverging li:first-child .bar, .diverging i"))
    middle = bar["x"] + bar["width"] / 2
    assert picture["x"] == pytest.approx(middle, abs=1.5)
    assert vitals["x"] + vitals["width"] < middle + 1.5
    assert vitals["x"] < middle - 3
    assert page.texts("#answer .chip.used bdi") == ["picture", "note", "vitals"]
    assert page.texts("#answer .chip.absent bdi") == ["sound"]
    assert page.texts("#answer .notes li") == ["sound taken as absent: too short"]
    facts = page.text("#answer > .facts")
    assert all(part in facts for part in ("1.4 ms", "23.9 ms", "round trip", standin.VERSION, "9b1f0c7e2a"))
    assert page.text("#spoken") == "Answer: yes, 83.1 %. Based on picture, note, vitals; absent: sound."


def test_two_hundred_classes_are_folded(page: Page) -> None:
    names = [f"class {i}" for i in range(200)]
    page.server.models = [standin.model(classes=names, mode="multiclass")]
    page.open()
    ask(page, answer(value="class 7", probabilities={n: 0.5 if n == "class 7" else 0.5 / 199 for n in names}))
    seen = "#answer .bars:not(.diverging) li:not([hidden])"
    assert len(page.all(seen)) == 8
    assert page.texts(f"{seen} .bar-label")[0] == "class 7"
    button = next(b for b in page.all("#answer button") if "200" in b.text)
    button.click()
    assert len(page.all(seen)) == 200
    assert button.get_attribute("aria-expanded") == "true"


def test_a_number_with_its_interval_in_its_own_unit(page: Page) -> None:
    page.server.models = [standin.model(task="regression", mode="number", classes=[], targets=["weight"])]
    page.open()
    told = {"class": None, "base": 70.0, "inputs": {"note": -3.25, "picture": 0}}
    ask(page, answer(value=66.75, probabilities=None, interval=[60.1, 73.4], contributions=told))
    assert page.text(".big") == "66.75"
    assert page.text(".target") == "weight"
    assert page.text(".interval") == "between 60.1 and 73.4"
    assert page.texts("#answer .diverging .figure") == ["−3.25", "0"]
    assert "Without any input 70, with these 66.75" in page.text("#answer")


def test_labels_and_several_numbers(page: Page) -> None:
    page.server.models = [standin.model(mode="multilabel")]
    page.open()
    ask(page, answer(value=["a", "b"], probabilities={"a": 0.9, "b": 0.6, "c": 0.1}, contributions=None))
    assert page.texts(".value .chosen") == ["a", "b"]
    assert len(page.all("#answer i.chosen")) == 2
    assert page.server.posted[-1][1]["contributions"] is False, "the server tells none of several labels"
    ask(page, answer(value=[], probabilities={"a": 0.2}, contributions=None))
    assert page.text(".value") == "no label"
    ask(page, answer(value={"x": 1.5, "y": -2}, probabilities=None, contributions=None))
    assert page.text(".pairs") == "x1.5y-2"


def test_a_changed_row_makes_the_answer_old(page: Page) -> None:
    page.open()
    ask(page)
    assert not page.one("#stale").is_displayed()
    page.control("note").send_keys("x")
    assert page.one("#stale").is_displayed()
    ask(page)
    assert not page.one("#stale").is_displayed()


@pytest.mark.parametrize("whole", [True, False])
def test_an_error_lands_on_its_field(page: Page, whole: bool) -> None:
    page.open()
    page.control("age").send_keys("5")
    said = {"hint": "write 5", "column": "age", "row": 0, "code": "bad_cell"}
    if whole:
        failing(page, 422, error="'5 kg' is no number", **said)
    else:
        error = {"message": "'5 kg' is no number", **said}
        page.server.predict = lambda _: (200, reply({"value": None, "used": [], "absent": [], "error": error}))
    page.predict()
    assert page.error("age") == "'5 kg' is no number – write 5"
    age = page.control("age")
    assert age.get_attribute("aria-invalid") == "true"
    described = (age.get_attribute("aria-describedby") or "").split()
    assert any("is no number" in page.text(f"#{i}") for i in described)
    assert page.js("return document.activeElement") == age
    assert "bad_cell" in page.text("#answer .failure")
    age.send_keys("6")
    assert page.error("age") == ""


def test_an_error_of_an_input_lands_on_its_first_column(page: Page) -> None:
    page.open()
    failing(page, 422, error="too long", column="vitals")
    page.predict()
    assert page.error("age") == "too long"


def test_overload_says_how_long_to_wait(page: Page) -> None:
    page.open()
    page.server.headers = {"Retry-After": "3"}
    failing(page, 429, error="256 rows wait already", code="overloaded", hint="try again later")
    page.predict()
    told = page.text("#answer")
    assert all(part in told for part in ("256 rows wait already", "try again later", "wait 3 s", "overloaded", "r-17"))


@pytest.mark.parametrize("body", ["a proxy's page", [], None, {"detail": "x"}, {"error": {"deep": 1}}])
def test_an_answer_in_no_known_shape_is_told_plainly(page: Page, body: Any) -> None:
    page.open()
    page.server.predict = lambda _: (502, body)
    page.expected = ("status of 502",)
    page.predict()
    assert "the server answered 502" in page.text("#answer .failure")
    page.server.predict = lambda _: (200, body)
    page.predict()
    assert "no answer" in page.text("#answer .failure")
