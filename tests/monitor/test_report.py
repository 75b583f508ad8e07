from __future__ import annotations

from html.parser import HTMLParser
from typing import Any

import numpy as np
import pytest
import watched

from fuseline.monitor import charts, reference
from fuseline.monitor.compare import compare
from fuseline.monitor.report import Subject, render
from fuseline.monitor.seen import OPEN, kept_stats, records, table
from fuseline.monitor.window import Window

VOID = {"meta", "br", "link"}


class Balanced(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: list[str] = []

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.seen.append(tag)
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: Any) -> None:
        self.seen.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def page_of(profile: dict[str, Any], events: list[Any], **subject: Any) -> str:
    info = watched.info(profile=profile)
    rows = [r for e in events for r in records(e, info)]
    window = Window.of(table(rows, kept_stats(profile, OPEN)), profile)
    return render(Subject(**({"name": "clinic", "version": "v1"} | subject)), profile, window, compare(profile, window))


def test_the_page_is_whole_and_shows_every_part(profile: dict[str, Any]) -> None:
    page = page_of(profile, watched.events(60, seed=1))
    parser = Balanced()
    parser.feed(page)
    assert parser.open == []
    assert parser.seen.count("svg") >= 10
    assert "No drift found" in page
    for feature in ("picture.brightness", "vitals.ward", "predictions label", "embedding"):
        assert feature in page


def test_names_of_a_hostile_table_are_text(profile: dict[str, Any]) -> None:
    bad = "<img src=x onerror=alert(1)>"
    hostile = profile | {bad: {"kind": "input", "rows": 1500, "absent": 1}}
    hostile["vitals.sex"] = profile["vitals.sex"] | {"top": [[bad, 700], ["f\x00\u202e", 500]], "other": 0}
    page = page_of(hostile, watched.events(60, seed=1), name=bad, version="$name", notes=(bad, "${alpha}"))
    assert "<img" not in page
    assert "\x00" not in page
    assert "\u202e" not in page
    parser = Balanced()
    parser.feed(page)
    assert "img" not in parser.seen


def test_a_page_of_nothing(profile: dict[str, Any]) -> None:
    for known in ({}, profile):
        page = page_of(known, [])
        assert "Not checked" in page


@pytest.mark.parametrize(
    "values",
    [np.full(50, 64.0), np.array([1e300, -1e300]), np.array([0.0]), np.array([5e-324, 0.0])],
    ids=["constant", "huge", "one", "tiny"],
)
def test_charts_bear_any_numbers(profile: dict[str, Any], values: np.ndarray) -> None:
    for key in ("picture.brightness", "picture.width", "note.unknown"):
        known = reference.numbers(profile[key])
        assert known is not None
        drawn = charts.histogram(known, values)
        assert "nan" not in drawn
        assert "inf" not in drawn


def test_bars_show_those_that_changed_most() -> None:
    was, being = np.full(30, 1 / 30), np.full(30, 1 / 30)
    being[17] = 0.5
    drawn = charts.bars([f"w{i}" for i in range(30)], was, being)
    assert drawn.count("<rect") == 2 * charts.MOST_BARS
    assert ">w17<" in drawn
    assert ">50.0%<" in drawn
