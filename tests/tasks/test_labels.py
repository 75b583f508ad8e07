from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from fuseline.errors import FuselineError
from fuseline.tasks.labels import amount_of, classes_of, find, parse_label, parse_labels, positive_of, text_of


@pytest.mark.parametrize(
    ("label", "text"),
    [("a b", "a b"), (1, "1"), (1.0, "1"), (1.5, "1.5"), (True, "true"), (False, "false"), (-0.0, "0")],
)
def test_text_form(label, text):
    assert text_of(label) == text


@pytest.mark.parametrize(
    ("cells", "classes"),
    [
        (["b", "a", "b"], ["a", "b"]),
        ([10, 9, 10], [9, 10]),
        (["10", "9"], ["10", "9"]),
        ([True, False], [False, True]),
        ([2.0, 1.5], [1.5, 2.0]),
        ([1, "1", 2], ["1", 2]),
        ([1.0, 1, 2], [1, 2]),
    ],
)
def test_classes_are_ordered_and_keep_their_type(cells, classes):
    for order in (cells, cells[::-1]):
        found, counts = classes_of(order)
        assert found == classes
        assert [type(c) for c in found] == [type(c) for c in classes]
        assert sum(counts.values()) == len(cells)


@pytest.mark.parametrize(
    ("classes", "positive"),
    [
        (["no", "yes"], "yes"),
        (["Positive", "normal"], "Positive"),
        ([0, 1], 1),
        ([1, 2], 1),
        ([False, True], True),
        (["covid", "healthy"], "healthy"),
        (["true", "yes"], "yes"),
    ],
)
def test_positive_class_is_the_one_that_says_yes_else_the_second(classes, positive):
    assert classes[positive_of(classes)] == positive


@pytest.mark.parametrize("cell", [None, float("nan"), "", np.float64("nan")])
def test_absent_labels(cell):
    assert parse_label(cell, "y") is None


@pytest.mark.parametrize("cell", [["a"], {"a": 1}, b"a", float("inf"), np.array([1])])
def test_what_is_no_label_is_an_error_that_names_the_column(cell):
    with pytest.raises(FuselineError) as caught:
        parse_label(cell, "y")
    assert (caught.value.code, caught.value.column) == ("bad_cell", "y")


@pytest.mark.parametrize(
    ("cell", "labels"),
    [
        (["a", "b"], ["a", "b"]),
        (("a",), ["a"]),
        ({"b", "a"}, ["a", "b"]),
        (np.array([1, 2]), [1, 2]),
        (pl.Series(["x"]), ["x"]),
        ('["a", 1, true]', ["a", 1, True]),
        ("a;b ; c;", ["a", "b", "c"]),
        ("[]", []),
        ([], []),
        (7, [7]),
        (None, None),
        ("", None),
    ],
)
def test_multilabel_cells(cell, labels):
    assert parse_labels(cell, "y", ";") == labels


def test_another_separator():
    assert parse_labels("a|b;c", "y", "|") == ["a", "b;c"]


@pytest.mark.parametrize("cell", ["[a, b]", ["a", None], [["a"]], '[{"a": 1}]', {"a": 1}])
def test_broken_multilabel_cells(cell):
    with pytest.raises(FuselineError) as caught:
        parse_labels(cell, "y", ";")
    assert (caught.value.code, caught.value.column) == ("bad_cell", "y")


def test_an_unseen_label_names_what_was_meant():
    with pytest.raises(FuselineError, match="did you mean 'happy'") as caught:
        find("Hapy", {"happy": 0, "sad": 1}, "y")
    assert caught.value.code == "bad_cell"


def test_what_an_answer_amounts_to() -> None:
    box = {"box": [1.0, 2.0, 3.0, 4.0], "label": "car", "score": 0.9}
    found = [amount_of(v) for v in (2.5, [box, box], [], float("nan"), ["a"], "a", None, True)]
    assert found == [2.5, 2.0, 0.0, None, None, 1.0, None, None]
