"""Why, inside the inputs: parts drawn where they are, in words too, and what is said when there is nothing to draw."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any

import pytest
from selenium.webdriver import Keys
from serve.console import standin
from serve.console.standin import Page, answer, reply
from serve.console.test_looks import NASTY
from serve.console.test_media import png, wav

NOTE = "🫀 keine Luft, <b>שלום</b> heute"
"""an emoji first: one character to Python, two units to JavaScript"""


def part(label: str, value: float, *place: float) -> dict[str, Any]:
    return {"label": label, "place": list(place), "value": value}


def inside(name: str, modality: str, unit: str, parts: Sequence[dict[str, Any]], **more: Any) -> dict[str, Any]:
    out = {"input": name, "modality": modality, "method": "occlusion", "unit": unit, "hidden": "it is left out"}
    return out | {"parts": list(parts), "text": None, "seen": None, "outputs": len(parts), "gap": None} | more


def words(text: str, values: dict[str, float], name: str = "note") -> dict[str, Any]:
    parts = [part(w, v, text.index(w), text.index(w) + len(w)) for w, v in values.items()]
    return inside(name, "text", "word", parts, text=text)


def patches(values: Sequence[float], seen: Sequence[float] | None) -> dict[str, Any]:
    """Two by two."""
    found = []
    for i, value in enumerate(values):
        left, top = i % 2 / 2, i // 2 / 2
        label = f"row {i // 2 + 1}, column {i % 2 + 1} of 2"
        found.append(part(label, value, left, top, left + 0.5, top + 0.5))
    return inside("picture", "image", "patch", found, seen=seen)


def explained(*inputs: dict[str, Any], **changes: Any) -> dict[str, Any]:
    gone = {"value": "no", "suggestion": None, "quantity": 0.4, "change": -0.431, "error": None}
    row = {
        "row": 0,
        "answer": {"value": "yes"},
        "of": {"kind": "probability", "target": None, "label": "yes", "steps": None},
        "quantity": 0.831,
        "inputs": {"method": "exact", "base": 0.412, "values": {"picture": 0.287, "note": 0.184}, "errors": None},
        "inside": list(inputs),
        "what_if": [{"absent": "note", "changes": None, **gone}],
        "notes": [],
        "outputs": 214,
        "error": None,
    }
    return {"format": 1, "model": {"name": "clinic", "version": "x"}, "rows": [row | changes], "summary": {}}


def press(page: Page, words: str = "Why, inside the inputs") -> None:
    page.press(next(b for b in page.all("#why button") if b.text == words))


def why(page: Page, body: Any, status: int = 200, **answered: Any) -> None:
    """Predicts and asks why; waits for what comes."""
    page.server.predict = lambda _: (200, reply(answer(**answered)))
    page.server.explain = lambda _: (status, body)
    page.predict()
    press(page)
    page.wait(lambda: page.all("#why .why, #why .failure"))


def test_words_patches_sounds_and_cells_where_they_are(page: Page) -> None:
    page.open()
    page.drop("picture", png(), "x.png", "image/png")
    page.drop("sound", wav(), "s.wav", "audio/wav")
    page.control("age").send_keys("61")
    moments = [
        part(f"{t / 4:.2f} to {t / 4 + 0.25:.2f} s", v, t / 4, t / 4 + 0.25) for t, v in enumerate((0.02, -0.04))
    ]
    found = explained(
        words(NOTE, {"keine": 0.2, "Luft,": 0.1, "<b>שלום</b>": -0.05}),
        patches([0.04, -0.02, 0, 0.01], [0, 0, 1, 1]),
        inside("sound", "audio", "second", moments),
        inside("pulse", "timeseries", "step", [part("step 1", 0.001, 0, 0), part("steps 2 to 4", -0.004, 1, 3)]),
        inside("vitals", "tabular", "column", [part("age", -0.052), part("sex", 0.0)]),
        notes=["smoker: <i>maybe</i> is no value of the training rows"],
    )
    why(page, found)
    path, asked = page.server.why[-1]
    assert path == f"/v1/models/clinic/versions/{standin.VERSION}/explain", "the version that answered is asked"
    assert asked["inside"] is True
    assert asked["grid"] == 8
    assert asked["rows"] == page.server.posted[-1][1]["rows"]
    # Words: places count characters, of which an emoji is one.
    assert page.texts(".words .tint") == ["keine", "Luft,", "<b>שלום</b>"]
    assert page.text(".words") == NOTE
    assert page.js("return [...document.querySelectorAll('.tint')].map(e => [e.className, e.title])") == [
        ["tint for", "+20.0"],
        ["tint for", "+10.0"],
        ["tint against", "−5.0"],
    ]
    strengths = page.js(
        "return [...document.querySelectorAll('.tint')].map(e => e.style.getPropertyValue('--strength'))"
    )
    assert strengths == ["50.0%", "25.0%", "12.5%"]
    # Patches: the second one to the right of the first, hatched since it speaks against.
    over, canvas = page.one(".heat svg").rect, page.one(".heat canvas").rect
    assert over == pytest.approx(canvas, abs=1)
    first, second, third, fourth = page.all(".heat g")
    assert second.rect["x"] == pytest.approx(over["x"] + over["width"] / 2, abs=1)
    assert third.rect["y"] == pytest.approx(over["y"] + over["height"] / 2, abs=1)
    assert [len(g.find_elements("css selector", "rect")) for g in (first, second, third, fourth)] == [1, 2, 1, 1]
    assert page.texts(".heat title")[1] == "row 1, column 2 of 2: −2.0"
    assert "strongest: row 1, column 1 of 2 +4.0" in (page.one(".heat svg").get_attribute("aria-label") or "")
    # The sound: as wide as its waveform, up what speaks for it, down what speaks against.
    wave, strip = page.one(".wide .waveform").rect, page.one(".strip").rect
    assert strip["width"] == pytest.approx(wave["width"], abs=1)
    up, down = page.all(".strip rect.for")[0].rect, page.all(".strip rect.against")[0].rect
    assert up["y"] < down["y"]
    assert up["x"] < down["x"]
    # Steps, of which the second part has three.
    one, three = (e.rect for e in page.all(".inside[data-unit=step] .strip .catch"))
    assert three["width"] == pytest.approx(3 * one["width"], rel=0.02)
    assert page.text(".inside[data-unit=step] .axis") == "step 1step 4"
    assert "Alone each did little: at most 0.4" in page.text(".inside[data-unit=step]")
    assert "did little" not in page.text(".inside[data-unit=second]")
    # Cells with what stands in them, and what-ifs.
    assert page.texts(".inside[data-unit=column] .bar-label") == ["age 61", "sex"]
    assert page.texts(".inside[data-unit=column] .figure") == ["−5.2", "0.0"]
    assert page.texts(".whatif tbody tr :is(th, td)") == ["note absent", "no", "40.0 %", "−43.1"]
    told = page.text("#why")
    assert "stands for 4.0 points of probability" in told
    assert "stands for 20.0 points of probability" in told
    assert "smoker: <i>maybe</i> is no value" in told
    assert "in note: keine +20.0" in page.text("#spoken")
    assert page.probe("nameless") == []
    assert page.overflow() == 0


def test_patches_of_a_part_of_the_picture(page: Page) -> None:
    page.open()
    cases: list[tuple[tuple[int, int], Sequence[float], float, float, int]] = [
        ((300, 200), (1 / 6, 0, 5 / 6, 1), 1 / 6, 1 / 3, 4),  # the middle was cropped
        ((400, 100), (0, -1.5, 1, 2.5), 0, 1 / 2, 4),  # black above and below: patches end at the picture
        ((300, 200), (0, -2, 1, 1), 0, 1 / 2, 2),  # the upper patches lie on black alone
    ]
    for size, seen, left, width, shown in cases:
        page.drop("picture", png(size=size), "x.png", "image/png")
        why(page, explained(patches([0.1] * 4, seen)))
        marks, canvas = page.all(".heat g"), page.one(".heat canvas").rect
        assert len(marks) == shown
        assert marks[0].rect["x"] - canvas["x"] == pytest.approx(left * canvas["width"], abs=1)
        assert marks[0].rect["width"] == pytest.approx(width * canvas["width"], abs=1)
        assert canvas["width"] / canvas["height"] == pytest.approx(size[0] / size[1], abs=0.02)
        assert ("inside the frame" in page.text("#why")) == (left > 0)
        assert ("2 patches lie on the black" in page.text("#why")) == (shown == 2)


def test_what_cannot_be_drawn_is_told_in_words(page: Page) -> None:
    page.open()
    page.drop("picture", b"\0" * 128 + b"DICM", "x.dcm", "application/dicom")
    why(page, explained(patches([0.04, -0.2, 0, 0], [0, 0, 1, 1])))
    assert "cannot show the picture" in page.text("#why")
    assert page.all(".heat") == []
    assert page.texts(".inside .bar-label")[0] == "row 1, column 2 of 2"
    assert page.all(".inside .bars")[0].is_displayed()
    why(page, explained(patches([0.04, -0.2, 0, 0], None), words("כאב חזק בחזה", {"כאב": 0.2, "בחזה": -0.1})))
    assert "is not known" in page.text("#why")
    first, last = (e.rect for e in page.all(".words .tint"))
    assert first["x"] > last["x"], "a text from right to left stands so"


def test_a_number_without_contributions_and_nothing_inside(page: Page) -> None:
    page.server.models = [standin.model(task="regression", mode="number", classes=[], targets=["weight"])]
    page.open()
    of = {"kind": "number", "target": None, "label": None, "steps": None}
    inputs = {"method": "sampled", "base": 70.0, "values": {"who": -3.25}, "errors": {"who": 0.5}}
    note = "who (graph) has no parts that can be hidden"
    what = [{"absent": "who", "value": 70.0, "quantity": 70.0, "change": 3.25}, {"absent": "x", "error": "broken"}]
    found = explained(of=of, quantity=66.75, inputs=inputs, notes=[note], what_if=what)
    why(page, found, value=66.75, probabilities=None, contributions=None)
    told = page.text("#why")
    assert "No input of this row has parts that can be hidden" in told
    assert note in told
    assert page.texts("#why .diverging .figure") == ["−3.25 ± 0.5"]
    assert "Without any input 70, with these 66.75" in told
    assert page.texts(".whatif tr")[1:] == ["who absent70+3.25", "x absentbroken"]


def test_too_much_is_said_and_asked_again_coarser(page: Page) -> None:
    page.open()
    page.expected = ("status of 413", "status of 422")
    said = {"error": "these explanations take more than 32 answers", "code": "too_large", "hint": "a coarser grid"}
    why(page, said, 413)
    told = page.text("#why")
    assert all(
        p in told for p in ("more parts than the server explains at once", "more than 32 answers", "coarser grid")
    )
    press(page, "Ask again with 4 × 4 patches and at most 16 parts")
    page.wait(lambda: len(page.server.why) == 2 and page.all("#why .failure"))
    assert [page.server.why[-1][1][k] for k in ("grid", "most_parts")] == [4, 16]
    page.server.explain = lambda _: (200, explained(row=0, error={"message": "<b>no</b>", "code": "bad_cell"}, of=None))
    press(page, "Ask again with 2 × 2 patches and at most 4 parts")
    page.wait(lambda: "<b>no</b>" in page.text("#why .failure"))
    for body in ([], explained(quantity=None)):
        page.server.explain = lambda _, body=body: (200, body)  # type: ignore[misc]
        press(page, "Ask again")
        page.wait(lambda: "no_explanation" in page.text("#why .failure"))


def test_it_waits_is_cancelled_and_gives_way_to_a_new_answer(page: Page) -> None:
    go = threading.Event()
    page.open()
    page.predict()

    def slow(_: Any) -> tuple[int, Any]:
        go.wait(10)
        return 200, explained(words("old", {"old": 0.1}))

    page.server.explain = slow
    button = page.one("#why button")
    button.send_keys(Keys.ENTER)
    page.wait(lambda: page.all("#why progress"))
    assert page.js("return document.activeElement.textContent") == "Cancel", "the focus is not lost"
    page.one("#why .quiet").send_keys(Keys.ENTER)
    page.wait(lambda: "Cancelled." in page.text("#why"))
    assert page.js("return document.activeElement.textContent") == "Why, inside the inputs"
    press(page)
    page.wait(lambda: page.all("#why progress"))
    page.predict()  # a new answer: what is asked of the old one is given up
    assert page.texts("#why button") == ["Why, inside the inputs"]
    go.set()
    page.server.explain = lambda _: (200, explained(words("new", {"new": 0.1})))
    page.one("#why button").send_keys(Keys.ENTER)
    page.wait(lambda: page.texts(".words") == ["new"])
    assert page.js("return document.activeElement.tagName") == "H3"
    page.control("note").send_keys("x")
    page.server.predict = lambda _: (200, reply(answer(error={"message": "no", "code": "bad_cell"})))
    page.predict()
    assert page.text("#why") == "", "a row that could not be read is not explained"
    page.server.models = [standin.model(task="detection")]
    page.open()
    page.predict()
    assert page.text("#why") == "", "boxes are no number"


def test_hostile_words_stay_words_and_readable(page: Page) -> None:
    page.open(width=360, dark=True)
    page.drop("picture", png(size=(90, 300)), '"><img src=x onerror=hit=1>.png', "image/png")
    text = " ".join(NASTY)
    of = {"kind": "probability", "target": NASTY[4], "label": NASTY[0], "steps": None}
    gone = [{"absent": w, "value": {NASTY[4]: w}, "suggestion": None, "quantity": 0.1, "change": -0.1} for w in NASTY]
    found = explained(
        words(text, dict.fromkeys((NASTY[3].split()[0], NASTY[4]), 0.2), NASTY[1]),
        patches([0.1, -0.1, 0.0, 0.1], [0, 0, 1, 1]),
        inside(NASTY[0], NASTY[0], NASTY[6], [part(w, -0.1) for w in NASTY], hidden=NASTY[1]),
        inside("bad", "text", "word", [part("x", 0.1, 3), part("y", 0.2, 9, 2)], text="abc"),
        of=of,
        what_if=gone,
        notes=list(NASTY),
    )
    why(page, found)
    page.js("document.querySelectorAll('#why details').forEach(d => (d.open = true))")
    assert page.text(".words") == text.replace("\u202e", "\ufffd"), "no override of direction"
    assert page.js("return getComputedStyle(document.querySelector('.words')).unicodeBidi") in ("isolate", "plaintext")
    assert page.texts("#why .notes li") == list(NASTY)
    assert page.js("return window.hit ?? null") is None
    assert page.js("return document.querySelectorAll('main script, main img, main iframe').length") == 0
    assert page.overflow() == 0
    assert page.probe("beyond") == []
    assert page.probe("nameless") == []
    assert page.probe("contrast")[1] == []
    page.one("#theme").click()
    assert page.text("#theme") == "Theme: light"
    assert page.probe("contrast")[1] == []
