from __future__ import annotations

import math
from typing import Any

import pytest

from fuseline.modalities.rows import Parsed
from fuseline.runtime.predictor import Predictor
from fuseline.tasks import Decoded


@pytest.mark.parametrize(
    ("value", "fine"),
    [
        ([1.0, -math.inf], False),
        ({"a": [1.0], "b": [math.nan]}, False),
        (math.inf, False),
        ([{"box": [0.0, 1.0], "label": "x"}], True),
        ("inf", True),
        (None, True),
        ([], True),
    ],
)
def test_an_answer_that_is_no_finite_number_is_the_rows_error(value: Any, fine: bool) -> None:
    predictor = object.__new__(Predictor)
    predictor.names = ("load",)
    answer = predictor._based(Parsed({"load": 1}, [], None), Decoded(value))
    assert (answer.error is None) == fine
    assert answer.value == (value if fine else None)
