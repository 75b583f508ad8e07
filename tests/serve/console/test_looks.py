"""Widths, keyboard, names and contrast, hostile words: what an axe would look for, looked for by hand."""

from __future__ import annotations

from typing import Any

import pytest
from selenium.webdriver import ActionChains, Keys
from serve.console import standin
from serve.console.standin import Page, answer, reply

NASTY = (
    "<script>window.hit = 1</script>",
    '<img src=x onerror="window.hit=1">',
    "🫀🧬👩🏽‍⚕️",
    "שלום ‮abc",
    "x" * 300,
    "&amp; \" ' ` ${1}",
    "constructor",
)

GROUND = "return getComputedStyle(document.body).backgroundColor"


def full(page: Page, **how: Any) -> None:
    """The page with everything on it: an answer, charts, an error at a field, the model's details."""
    page.server.status = standin.status()
    page.open(**how)
    page.wait(lambda: page.all("tbody tr"))
    page.one("#about summary").click()
    page.drop("sound", standin_sound(), "tone.wav", "audio/wav")
    page.wait(lambda: page.all("svg.waveform"))
    page.js("document.querySelector('#send').click()")
    page.wait(lambda: page.all("#answer .value"))
    page.js("document.querySelector('.field .error').textContent = 'an error'")


def standin_sound() -> bytes:
    import io
    import wave

    out = io.BytesIO()
    with wave.open(out, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(8000)
        file.writeframes(bytes(8000))
    return out.getvalue()


@pytest.mark.parametrize("dark", [False, True])
def test_text_is_readable_in_both_themes(page: Page, dark: bool) -> None:
    full(page, dark=dark)
    count, bad = page.probe("contrast")
    assert count > 120
    assert bad == []
    assert page.js(GROUND) == ("rgb(16, 20, 26)" if dark else "rgb(244, 246, 248)")


def test_everything_has_a_name(page: Page) -> None:
    full(page)
    assert page.probe("nameless") == []
    assert page.one("#spoken").get_attribute("aria-live") == "polite"


@pytest.mark.parametrize("width", [360, 390, 620, 900, 1280])
def test_no_width_scrolls_sideways(page: Page, width: int) -> None:
    full(page, width=width)
    assert page.overflow() == 0
    assert page.probe("beyond") == []


def test_the_keyboard_alone_is_enough(page: Page) -> None:
    page.open(height=420)  # the fields are not all in sight at once
    keys = lambda *pressed: ActionChains(page.driver).send_keys(*pressed).perform()  # noqa: E731
    keys(Keys.TAB)
    assert page.js("return document.activeElement.className") == "skip"
    keys(Keys.ENTER)
    reached, typed = [], {"note": "cough", "age": "61", "sex": "f"}
    for _ in range(40):
        keys(Keys.TAB)
        here = page.probe("focused")
        assert page.probe("focusIsSeen"), f"no visible focus at {here}"
        assert not page.probe("focusIsCovered"), f"{here} has the focus behind something else"
        if here in typed and page.js("return document.activeElement.matches('input, textarea')"):
            keys(typed.pop(here))
        if here == "smoker" and page.js("return document.activeElement.type") == "radio":
            keys(Keys.ARROW_RIGHT)  # from absent round to yes
        reached.append(here)
        if here == "send":
            break
    assert reached[-1] == "send"
    assert {"picture", "note", "sound", "age", "sex", "smoker", "seen", "contributions"} <= set(reached)
    keys(Keys.ENTER)
    page.wait(lambda: page.text("#spoken").startswith("Answer: yes"))
    row = {"note": "cough", "age": 61, "sex": "f", "smoker": True}
    assert page.server.posted[-1][1]["rows"] == [row]
    assert page.js("return document.activeElement.id") == "send", "the focus is not lost"
    ActionChains(page.driver).key_down(Keys.CONTROL).send_keys(Keys.ENTER).key_up(Keys.CONTROL).perform()
    page.wait(lambda: len(page.server.posted) == 2)


def test_tabs_by_arrows(page: Page) -> None:
    page.open()
    page.one("[role=tab]").click()
    ActionChains(page.driver).send_keys(Keys.ARROW_RIGHT).perform()
    assert page.js("return document.activeElement.textContent") == "Python"
    assert [t.get_attribute("aria-selected") for t in page.all("[role=tab]")] == ["false", "true"]
    assert [p.is_displayed() for p in page.all("[role=tabpanel]")] == [False, True]


def test_the_theme_can_be_chosen_and_stays(page: Page) -> None:
    page.open()
    light = page.js(GROUND)
    for wanted in ("Theme: light", "Theme: dark"):
        page.one("#theme").click()
        assert page.text("#theme") == wanted
    dark = page.js(GROUND)
    assert dark != light
    page.open()
    assert page.js(GROUND) == dark
    assert page.text("#theme") == "Theme: dark"


@pytest.mark.parametrize("width", [360, 1280])
def test_hostile_words_stay_words(page: Page, width: int) -> None:
    columns = [standin.column(n, "text", NASTY[i]) for i, n in enumerate(NASTY)]
    columns.append(standin.column("sex", "category", NASTY[0], NASTY))
    columns.append(standin.column("few", "category", NASTY[0], NASTY[:5]))
    nasty = standin.model(
        name=NASTY[0],
        targets=[NASTY[4]],
        inputs=dict.fromkeys(NASTY, "text"),
        columns=columns,
        classes=list(NASTY),
        metrics=dict.fromkeys(NASTY, 0.5),
        fuseline=NASTY[1],
        version=NASTY[1],
    )
    page.server.models = [nasty, standin.model(name=NASTY[4])]
    page.server.status = standin.status(name=NASTY[0], versions={NASTY[1]: 1.0})
    observers = page.server.status["observers"]
    for feature, word in zip(observers["drift"]["models"][NASTY[0]]["features"], NASTY, strict=True):
        feature.update(feature=word, test=word)
    observers["alerts"]["alerts"] = [
        dict.fromkeys(("name", "severity", "model", "summary", "since"), word) for word in NASTY
    ]
    observers["metrics"]["models"][NASTY[0]]["answers"] = dict.fromkeys(NASTY, 10)
    page.open(width=width)
    page.wait(lambda: page.all("tbody tr"))
    page.one("#about summary").click()
    given = answer(
        value=NASTY[4],
        probabilities=dict(zip(NASTY, (0.1,) * 6 + (0.4,), strict=True)),
        used=NASTY[:4],
        absent=NASTY[4:],
        notes=list(NASTY),
        contributions={"class": NASTY[1], "base": 0.1, "inputs": dict.fromkeys(NASTY, -0.01)},
    )
    page.server.predict = lambda _: (200, reply(given, request_id=NASTY[1]))
    page.predict()
    assert sorted(page.texts("#answer .bars:not(.diverging) .bar-label")) == sorted(NASTY)
    assert page.texts("#answer .notes li") == list(NASTY)
    assert page.texts("tbody th bdi")[:1] == [NASTY[0]]
    assert page.overflow() == 0
    error = {"error": NASTY[1], "hint": NASTY[0], "code": NASTY[0], "column": NASTY[6], "request_id": NASTY[1]}
    page.expected = ("status of 422",)
    page.server.predict = lambda _: (422, error)
    page.predict()
    assert page.error(NASTY[6]).startswith(NASTY[1])
    assert page.overflow() == 0
    assert page.js("return window.hit ?? null") is None
    assert page.js("return document.querySelectorAll('main script, main img, main iframe').length") == 0


def test_the_browser_itself_refuses_markup_from_text(page: Page) -> None:
    page.open()
    with pytest.raises(Exception, match="TrustedHTML"):
        page.js("document.body.innerHTML = '<b>x</b>'")
    page.expected = ("TrustedHTML",)


def test_who_wants_no_motion_gets_none(page: Page) -> None:
    page.open()
    page.predict()
    assert page.probe("moving") == []
