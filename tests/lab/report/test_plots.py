"""Plots: the same bytes every time, hostile labels, and the small sums behind them."""

import base64
import math
import xml.etree.ElementTree as ET
from itertools import pairwise

import pytest

from fuseline.lab.report.answers import quality_plots
from fuseline.lab.report.plots import (
    DARK,
    LIGHT,
    Bar,
    Line,
    curves,
    ranking,
    reliability,
    scatter,
    spread,
    unit_curves,
    wilson,
)
from fuseline.lab.report.read import Part, RunFiles
from fuseline.lab.report.tables import confusion, summary
from fuseline.lab.report.words import clean, fmt, label, percent, seconds


def texts(uri: str) -> str:
    root = ET.fromstring(base64.b64decode(uri.split(",", 1)[1]))
    return " ".join("".join(e.itertext()) for e in root.iter() if e.tag.endswith("text"))


def test_hostile_labels_are_drawn_as_they_are() -> None:
    name = "$\\frac{1$ <b>&\x00\u4f60"
    for plot in (
        curves("t", [Line(name, [1, 2], [1, 2]), Line("b", [1, 2], [1, 2])], "step", "loss"),
        unit_curves("t", [Line(name, [0, 1], [0, 1], "0.5")], "x", "y"),
        ranking("t", [Bar(name, 0.5, 0.4, 0.6), Bar("b", 0.4)], name),
    ):
        assert "$\\frac{1$ <b>&" in texts(plot.light)
        assert "\x00" not in plot.alt


def test_the_same_numbers_give_the_same_bytes() -> None:
    made = [reliability("r", [0.1, 0.9], [0.2, 0.8], [10, 20], 0.1) for _ in range(2)]
    assert made[0] == made[1]
    light, dark = (base64.b64decode(uri.split(",", 1)[1]).decode() for uri in (made[0].light, made[0].dark))
    assert LIGHT.accent in light
    assert DARK.accent in dark
    assert not any(colour in dark for colour in LIGHT.colours)


def test_one_point_and_many_curves_can_be_drawn() -> None:
    curves("t", [Line("train", [10], [0.5])], "step", "loss", best=(10, 0.5))
    many = [Line(f"class {i}", [0, 1], [0, 1], f"{i / 20:.3f}") for i in range(12)]
    shown = texts(unit_curves("ROC", many, "x", "y", diagonal=True).light)
    assert "class 11" in shown
    assert "class 0" in shown
    assert "class 5" not in shown


def test_there_is_no_half_step() -> None:
    shown = texts(curves("t", [Line("a", [1, 2], [3, 4]), Line("b", [1, 2], [4, 3])], "step", "loss").light).split()
    assert "2" in shown
    assert "1.5" not in shown
    assert "1.2" not in shown


def test_a_scatter_of_many_rows_stays_small() -> None:
    x = [float(i) for i in range(100_000)]
    plot = scatter("s", x, [v if i % 3 else math.nan for i, v in enumerate(x)], "a", "b", identity=True, alt="a")
    assert len(plot.light) < 200_000


def test_wilson_against_known_values() -> None:
    assert wilson(0.5, 10) == pytest.approx((0.2366, 0.7634), abs=1e-4)
    assert wilson(0.0, 10) == pytest.approx((0.0, 0.2775), abs=1e-4)


def test_spread_keeps_labels_apart() -> None:
    placed = sorted(spread([0.5, 0.5, 0.5], 0.1))
    assert all(b - a > 0.099 for a, b in pairwise(placed))
    assert spread([0.9, 0.1], 0.1) == [0.9, 0.1]


def test_words() -> None:
    assert label("macro_f1") == "F1 (macro)"
    assert label("val_auroc") == "AUROC"
    assert label("top_5_hits") == "Top 5 hits"
    assert [fmt(v) for v in (None, math.nan, 0.12345, 12.345, 1234567.0, 1e-6, 0, -3.2)] == [
        "–", "–", "0.123", "12.35", "1.23e+06", "1e-06", "0.000", "-3.200",
    ]  # fmt: skip
    assert percent(0.001) == "<\xa01\xa0%"
    assert percent(0.999) == ">\xa099\xa0%"
    assert seconds(3725) == "1\xa0h\xa02\xa0min"
    assert clean("a\x00\ud800b", 10) == "a\ufffd\ufffdb"
    assert clean("abcdef", 4) == "abc…"


def test_confusions_of_many_classes_are_listed() -> None:
    names = [f"c{i}" for i in range(30)]
    counts = [[5 if i == j else 0 for j in range(30)] for i in range(30)]
    counts[3][7] = 4
    found = confusion({"confusion": {"labels": names, "counts": counts}})
    assert found.rows == []
    assert found.worst == [("c3", "c7", "4", "44\xa0%")]
    assert confusion({"confusion": {"labels": names, "counts": counts[:2]}}) is None
    assert confusion({}) is None


def test_a_columns_own_statistics_are_shown() -> None:
    stated = {"vitals.age": {"mean": 47.0, "min": 18, "max": 91}, "vitals.sex": {"counts": {"f": 3}}}
    assert summary(stated, "age") == "mean 47.00 min 18.00 max 91.00"
    assert summary(stated, "sex") == ""
    assert summary({"notes.length": {"mean": 44.5}}, "notes") == "length mean 44.50"
    assert summary({"mean": 2, "kind": "x"}) == "mean 2.000 · kind x"


def test_details_that_make_no_sense_are_left_out() -> None:
    files = RunFiles.__new__(RunFiles)
    object.__setattr__(files, "metrics", {"task": "classification"})
    object.__setattr__(files, "recipe", {})
    bad = {"roc": [{"label": "a", "fpr": [0], "tpr": "x"}], "pr": 3, "reliability": {"bins": [{}], "confidence": [0.5]}}
    assert quality_plots(files, Part("test", 3, {}, bad)) == []
