"""The form is the model's columns; what is sent is what is seen, and an empty field is an absent cell."""

from __future__ import annotations

from serve.console import standin
from serve.console.standin import VERSION, Page, Standin


def test_a_field_for_every_column_of_its_kind(page: Page) -> None:
    page.open()
    assert page.texts(".field-head bdi") == ["picture", "note", "sound", "age", "sex", "smoker", "seen"]
    kinds = [
        page.control(c).get_attribute("type") for c in ("picture", "note", "sound", "age", "sex", "smoker", "seen")
    ]
    assert kinds == ["file", "textarea", "file", "number", "text", "radio", "date"]
    assert page.control("age").get_attribute("step") == "any"
    known = page.js("return [...arguments[0].list.options].map(o => o.value)", page.control("sex"))
    assert known == ["f", "m"]
    assert page.texts(".card:not(.single) legend bdi") == ["vitals"]
    assert set(page.texts(".state")) == {"absent"}


def test_absent_cells_are_left_out(page: Page) -> None:
    page.open()
    assert page.predict() == {"rows": [{}], "contributions": True}
    page.control("age").send_keys("0")
    page.control("note").send_keys("   ")
    page.one("#contributions").click()
    assert page.state("note") == "absent"
    assert page.state("age") == "given"
    assert page.predict() == {"rows": [{"age": 0}], "contributions": False}
    assert page.server.posted[-1][0] == f"/v1/models/clinic/versions/{VERSION}/predict"


def test_every_kind_is_sent_as_its_json_type(page: Page) -> None:
    page.open()
    page.control("note").send_keys('No "fever".\nCough\\')
    page.control("age").send_keys("-1.5e2")
    page.control("sex").send_keys("x")
    page.choose("smoker", 1)
    page.enter("seen", "2024-03-05")
    row = {"note": 'No "fever".\nCough\\', "age": -150, "sex": "x", "smoker": False, "seen": "2024-03-05"}
    assert page.predict()["rows"] == [row]
    assert "not among" in page.field("sex").text
    assert "5 of 7 cells given; absent: picture, sound" in page.text("#given")


def test_clear_makes_absent_again(page: Page) -> None:
    page.open()
    page.control("note").send_keys("x")
    page.choose("smoker", 0)
    page.press(page.field("note").find_element("css selector", ".field-head button"))
    assert page.state("note") == "absent"
    assert page.state("smoker") == "given"
    page.one("#clear").click()
    assert set(page.texts(".state")) == {"absent"}
    assert page.predict()["rows"] == [{}]


def test_what_the_browser_cannot_read_is_an_error_and_not_an_absent_cell(page: Page) -> None:
    page.open()
    page.control("age").send_keys("1e")
    page.control("seen").send_keys("12")  # a month without its day
    page.one("#send").click()
    assert "is no number" in page.error("age")
    assert "is no whole date" in page.error("seen")
    assert page.control("age").get_attribute("aria-invalid") == "true"
    assert page.js("return document.activeElement") == page.control("age")
    assert page.server.posted == []
    page.control("age").send_keys("1")
    assert page.error("age") == ""


def test_known_values_are_one_press_away(page: Page) -> None:
    page.open()
    page.press(page.field("sex").find_elements("css selector", ".quick button")[1])
    assert page.predict()["rows"] == [{"sex": "m"}]


def test_versions_keep_the_row_and_go_to_their_own_address(page: Page) -> None:
    page.server.models = [standin.model(), standin.model(version="b0", default=False)]
    page.server.status = standin.status(versions={VERSION: 0.9, "b0": 0.1})
    page.open()
    page.wait(lambda: "10.0 % of traffic" in page.text("#version"))
    page.control("note").send_keys("kept")
    page.probe("enter", page.one("#version"), "b0")
    assert page.predict()["rows"] == [{"note": "kept"}]
    assert page.server.posted[-1][0] == "/v1/models/clinic/versions/b0/predict"
    page.probe("enter", page.one("#version"), "")
    page.predict()
    assert page.server.posted[-1][0] == "/v1/models/clinic/predict"


def test_another_model_is_another_form(page: Page, server: Standin) -> None:
    wards = [standin.column("ward", "category", "vitals", ("a",)), standin.column("__proto__", "text", "note")]
    other = standin.model(name="ward/1 b", inputs={"vitals": "tabular", "note": "text"}, columns=wards)
    server.models = [standin.model(), other]
    page.open()
    page.probe("enter", page.one("#model"), "ward/1 b")
    assert page.texts(".field-head bdi") == ["ward", "__proto__"]
    page.control("__proto__").send_keys("x")
    assert dict(page.predict()["rows"][0]) == {"__proto__": "x"}
    assert server.posted[-1][0] == f"/v1/models/ward%2F1%20b/versions/{VERSION}/predict"


def test_the_model_tells_of_itself(page: Page) -> None:
    page.open()
    assert page.one("#notice").text == "This is <b>no</b> medical device.", "seen without a click"
    page.one("#about summary").click()
    told = page.one("#about-body").text
    for part in ("sick", "binary", "4.6 MB", "0.2.0", "auroc ★", "0.9431", "picture", "tabular"):
        assert part in told
