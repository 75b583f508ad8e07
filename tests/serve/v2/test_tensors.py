"""Tensors to rows, and answers to tensors."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from fuseline.errors import FuselineError
from fuseline.runtime import Answer
from fuseline.serve.calls import ColumnInfo, ModelInfo
from fuseline.serve.v2.codec import InferRequest, Tensor, Wanted
from fuseline.serve.v2.tensors import check_outputs, output_shapes, rows_of, tensors_of


def bytes_tensor(name: str, *elements: Any, shape: tuple[int, ...] | None = None) -> Tensor:
    return Tensor(name, "BYTES", (len(elements),) if shape is None else shape, list(elements))


def number(name: str, datatype: str, *elements: Any) -> Tensor:
    return Tensor(name, datatype, (len(elements), 1), np.array(elements, dtype=datatype.lower().replace("fp", "float")))


@pytest.fixture
def info(fake: Any) -> ModelInfo:
    return fake.infos[0]  # type: ignore[no-any-return]


def refusal(info: ModelInfo, *tensors: Tensor, most: int = 8) -> FuselineError:
    with pytest.raises(FuselineError) as caught:
        rows_of(tensors, info, most)
    return caught.value


def test_every_kind_of_column_becomes_its_cell(info: ModelInfo) -> None:
    tensors = [
        bytes_tensor("picture", b"\xff\xd8\xff", "aGk="),
        bytes_tensor("note", "naïve".encode(), "text"),
        bytes_tensor("sound", b"RIFF", b""),
        number("age", "FP32", 41.5, math.nan),
        Tensor("sex", "INT64", (2,), np.array([1, 2])),
        Tensor("smoker", "BOOL", (2,), [True, None]),
        bytes_tensor("seen", b"2024-03-01", None),
    ]
    first, second = rows_of(tensors, info, 8)
    assert first == {
        "picture": b"\xff\xd8\xff",
        "note": "naïve",
        "sound": b"RIFF",
        "age": 41.5,
        "sex": 1,
        "smoker": True,
        "seen": "2024-03-01",
    }
    assert math.isnan(second.pop("age"))
    assert second == {"picture": "aGk=", "note": "text", "sound": None, "sex": 2, "smoker": None, "seen": None}
    assert all(type(v) in (bytes, str, float, int, bool) for v in first.values())  # no numpy: they travel as JSON


def test_what_is_no_utf8_stays_bytes_for_the_parser(info: ModelInfo) -> None:
    good, bad = rows_of([bytes_tensor("note", b"fine", b"\xff")], info, 8)
    assert (good, bad) == ({"note": "fine"}, {"note": b"\xff"})


@pytest.mark.parametrize(
    ("tensors", "code", "text"),
    [
        ([bytes_tensor("notes", "a")], "unknown_column", "did you mean 'note'"),
        ([bytes_tensor("zzzzz", "a")], "unknown_column", "its inputs: picture"),
        ([bytes_tensor("x" * 10**6, "a")], "unknown_column", "no input"),
        ([bytes_tensor("note", "a"), bytes_tensor("note", "a")], "bad_request", "twice"),
        ([number("note", "FP32", 1.0)], "bad_request", "'note' (text) is FP32"),
        ([number("picture", "FP64", 1.0)], "bad_request", "send one of: BYTES"),
        ([Tensor("age", "BOOL", (1,), np.array([True]))], "bad_request", "send one of: FP32"),
        ([bytes_tensor("note", "a", shape=(1, 1, 1))], "bad_request", "[B] or [B, 1]"),
        ([bytes_tensor("note", "a", "b", shape=(1, 2))], "bad_request", "[B] or [B, 1]"),
        ([bytes_tensor("note", "a", shape=())], "bad_request", "shape []"),
        ([bytes_tensor("note", "a"), bytes_tensor("sex", "f", "m")], "bad_request", "2 rows, others have 1"),
        ([bytes_tensor("note", shape=(0,))], "bad_rows", "no rows"),
        ([], "bad_rows", "no rows"),
        ([bytes_tensor("note", *["a"] * 9)], "too_large", "9 rows, at most 8"),
    ],
)
def test_requests_that_are_refused(info: ModelInfo, tensors: list[Tensor], code: str, text: str) -> None:
    error = refusal(info, *tensors)
    assert error.code == code
    assert text in str(error)


def by_name(tensors: list[Tensor]) -> dict[str, Tensor]:
    return {t.name: t for t in tensors}


def test_a_failed_row_leaves_its_neighbours(info: ModelInfo) -> None:
    chance = 0.1 + 0.2
    answers = [
        Answer("yes", {"no": 1 - chance, "yes": chance}, None, ("note",), ("picture",), ["sound taken as absent"]),
        Answer(error=FuselineError("bad_cell", "is no number", "correct it", row=1, column="age")),
    ]
    out = by_name(tensors_of(answers, info, InferRequest(())))
    assert list(out) == ["value", "probabilities", "used", "absent", "notes", "error"] == list(output_shapes(info))
    assert out["value"].data == ["yes", ""]
    assert out["probabilities"].shape == (2, 2)
    assert out["probabilities"].data[:2].tolist() == [1 - chance, chance]  # type: ignore[union-attr]
    assert np.isnan(out["probabilities"].data[2:]).all()
    assert [json.loads(t) for t in out["used"].data] == [["note"], []]
    assert [json.loads(t) for t in out["absent"].data] == [["picture"], []]
    assert [json.loads(t) for t in out["notes"].data] == [["sound taken as absent"], []]
    assert out["error"].data == ["", "row 1, column 'age': is no number (correct it)"]


def test_outputs_come_as_they_are_asked_for(info: ModelInfo) -> None:
    asked = InferRequest((), (Wanted("error"), Wanted("value")))
    check_outputs(asked.outputs, info)
    out = tensors_of([Answer("no", {"no": 1.0, "yes": 0.0})], info, asked)
    assert [t.name for t in out] == ["error", "value"]
    with pytest.raises(FuselineError, match="did you mean 'probabilities'"):
        check_outputs((Wanted("probability"),), info)
    with pytest.raises(FuselineError, match="twice"):
        check_outputs((Wanted("value"), Wanted("value")), info)


def test_multilabel_numbers_and_intervals(fake: Any) -> None:
    kwargs = vars(fake.infos[0])
    labels = ModelInfo(**kwargs | {"mode": "multilabel", "classes": ("a", "b", "c")})
    answers = [Answer(["a", "c"], {"a": 0.9, "b": 0.1, "c": 0.5}), Answer(error=FuselineError("bad_cell", "no"))]
    out = by_name(tensors_of(answers, labels, InferRequest(())))
    assert out["value"].data == ['["a", "c"]', ""]
    assert out["probabilities"].shape == (2, 3)

    one = ModelInfo(**kwargs | {"task": "regression", "mode": "number", "classes": (), "targets": ("y",)})
    answers = [Answer(1 / 3, interval=(0.1, 0.7)), Answer(error=FuselineError("bad_cell", "no"))]
    out = by_name(tensors_of(answers, one, InferRequest(())))
    assert "probabilities" not in out
    assert out["value"].shape == (2,)
    assert out["value"].data[0] == 1 / 3
    assert np.isnan(out["value"].data[1])
    assert out["interval"].shape == (2, 2)
    assert out["interval"].data[:2].tolist() == [0.1, 0.7]  # type: ignore[union-attr]
    assert "interval" not in by_name(tensors_of([Answer(1.0)], one, InferRequest(())))
    (asked,) = tensors_of([Answer(1.0)], one, InferRequest((), (Wanted("interval"),)))
    assert np.isnan(asked.data).all()

    many = ModelInfo(**kwargs | {"task": "regression", "mode": "numbers", "classes": (), "targets": ("y", "z")})
    answers = [Answer({"z": 2.0, "y": 1.0}), Answer(error=FuselineError("bad_cell", "no"))]
    value = by_name(tensors_of(answers, many, InferRequest(())))["value"]
    assert value.shape == (2, 2)
    assert value.data[:2].tolist() == [1.0, 2.0]  # type: ignore[union-attr]


def test_labels_have_their_text_form(fake: Any) -> None:
    info = ModelInfo(**vars(fake.infos[0]) | {"classes": ("0", "1")})
    answers = [Answer(v, {"0": 0.5, "1": 0.5}) for v in (1, 1.0, True, 0.5, "x")]
    assert by_name(tensors_of(answers, info, InferRequest(())))["value"].data == ["1", "1", "true", "0.5", "x"]


def test_an_entity_is_a_text_or_a_whole_number(info: ModelInfo) -> None:
    graph = replace(info, columns=(ColumnInfo("who", "graph", "who"),))
    assert rows_of([bytes_tensor("who", b"ann", "7", None)], graph, 8) == [{"who": "ann"}, {"who": "7"}, {"who": None}]
    assert rows_of([Tensor("who", "INT64", (2,), np.array([7, 8]))], graph, 8) == [{"who": 7}, {"who": 8}]
    assert "send one of: BYTES" in refusal(graph, number("who", "FP32", 1.5)).hint
