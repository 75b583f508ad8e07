"""The page against the server that it is made for: a real package behind the real doors."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from selenium import webdriver
from serve.console.standin import Page, Standin

from fuseline.runtime import load
from fuseline.serve.run import Running
from fuseline.serve.settings import Settings
from fuseline.serve.specs import spec_of


@pytest.fixture
def real(package: Path) -> Iterator[str]:
    """Address of a server of the clinic's package."""
    started, loop = threading.Event(), asyncio.new_event_loop()
    running: list[Running] = []

    async def main() -> None:
        running.append(Running([spec_of(str(package))], Settings(port=0, drain_seconds=1)))
        await running[0].run(lambda infos: started.set())

    thread = threading.Thread(target=loop.run_until_complete, args=(main(),))
    thread.start()
    try:
        assert started.wait(60), "the server did not start"
        yield f"http://127.0.0.1:{running[0].port}/"
    finally:
        loop.call_soon_threadsafe(running[0].stop)
        thread.join(30)
        loop.close()


@pytest.fixture
def console(driver: webdriver.Chrome, real: str) -> Iterator[Page]:
    driver.get("about:blank")
    page = Page(driver, Standin(url=real))
    page.collect()
    page.failures.clear()
    page.hosts.clear()
    yield page
    page.collect()
    driver.get("about:blank")
    assert page.failures == []
    assert page.hosts == {real.split("/")[2]}


def test_the_answer_is_the_predictors_own(console: Page, package: Path, rows: list[dict[str, Any]]) -> None:
    console.open()
    assert console.texts(".field-head bdi") == ["picture", "note", "sound", "age", "sex", "smoker", "seen"]
    names = ("picture", "sound", "note", "age")
    row = {name: next(r[name] for r in rows if name in r) for name in names}
    console.drop("picture", row["picture"], "p.png", "image/png")
    console.drop("sound", row["sound"], "s.wav", "audio/wav")
    console.enter("note", row["note"])
    console.enter("age", str(row["age"]))
    console.one("#send").click()
    console.wait(lambda: console.all("#answer .value"), 30)
    [expected] = load(package).predict([row])
    assert console.text(".big") == str(expected.value)
    assert expected.probabilities is not None
    shown = dict(zip(console.texts("#answer .bar-label"), console.texts("#answer .figure"), strict=False))
    assert shown == shown | {k: f"{100 * p:.1f} %" for k, p in expected.probabilities.items()}
    assert set(console.texts("#answer .chip.used bdi")) == set(expected.used) == {"picture", "sound", "note", "vitals"}
    assert sorted(console.texts("#answer .diverging .bar-label")) == sorted(expected.used)
    console.wait(lambda: console.text("#health") == "ready")
    # Why, inside the inputs: the same as the predictor's own explanation.
    console.press(console.one("#why button"))
    console.wait(lambda: console.all("#why .why"), 60)
    [why] = load(package).explain([row], inside=True).rows
    parts = {i.input: i.parts for i in why.inside}
    assert console.texts(".words .tint") == [p.label for p in parts["note"]]
    assert len(console.all(".heat g")) == len(parts["picture"]) == 64
    assert len(console.all(".strip g")) == len(parts["sound"])
    strongest = max(parts["note"], key=lambda p: abs(p.value))
    sign = "−" if strongest.value < 0 else "+"
    assert f"{sign}{100 * abs(strongest.value):.1f}" in console.js(
        "return [...document.querySelectorAll('.tint')].map(e => e.title)"
    )


def test_a_broken_picture_is_told_at_its_field(console: Page) -> None:
    console.expected = ("status of 422",)
    console.open()
    console.drop("picture", b"no picture at all", "p.png", "image/png")
    console.one("#send").click()
    console.wait(lambda: console.error("picture"), 30)
    assert console.control("picture").get_attribute("aria-invalid") == "true"


def test_the_real_status_is_drawn(console: Page) -> None:
    console.open()
    console.wait(lambda: console.text("#health") == "ready", 30)
    console.wait(lambda: "0 of 256" in console.text(".tiles"))
    assert "100.0 % of traffic" in console.text("#version")
