"""Integrated gradients: completeness, and that they are the weights' own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import served
import torch

import fuseline
from fuseline.errors import FuselineError
from fuseline.explain import Explanations, explain_rows
from fuseline.explain.explainer import Options
from fuseline.explain.page import render
from fuseline.explain.summary import summarise
from fuseline.lab.attribute import attribute_rows
from fuseline.lab.attribute import rows as attribute
from fuseline.modalities import MediaRoot

NOWHERE = MediaRoot(None)


@pytest.fixture(scope="module")
def predictor(package: Path) -> fuseline.Predictor:
    return fuseline.load(package, threads=1)


@pytest.fixture(scope="module")
def cells() -> list[dict[str, Any]]:
    return [*served.rows(1, absent=0.0), {"note": "heavy cough again"}, {"age": "old"}]


def test_parts_add_up_and_the_gap_is_said(predictor: fuseline.Predictor, cells: list[Any]) -> None:
    plain = explain_rows(predictor, cells)
    found = attribute_rows(predictor.package, plain.rows, cells, media=NOWHERE, grid=4, most_parts=8)
    assert found[-1].error is not None
    assert [p.input for p in found[0].inside] == ["picture", "note", "sound", "vitals"]
    for row in found[:-1]:
        for part in row.inside:
            assert part.method == "integrated gradients"
            assert abs(part.gap) <= 1e-3
            assert any(p.value for p in part.parts)
    words = next(p for p in found[1].inside if p.input == "note")
    assert [p.label for p in words.parts] == ["heavy", "cough", "again", "(special tokens)"]
    told = Explanations(model={"name": "x", "version": "1"}, rows=tuple(found), summary=summarise(found))
    assert render(told, predictor, cells, NOWHERE).count(">heavy<") == 1


def test_only_inputs_that_are_named(predictor: fuseline.Predictor, cells: list[Any]) -> None:
    plain = explain_rows(predictor, cells[:1])
    [row] = attribute_rows(predictor.package, plain.rows, cells[:1], media=NOWHERE, inside=["vitals"])
    assert {p.input for p in row.inside} == {"vitals"}
    assert {p.label for p in row.inside[0].parts} == {"age", "sex", "smoker", "seen"}
    with pytest.raises(FuselineError, match="no input"):
        attribute_rows(predictor.package, plain.rows, cells[:1], media=NOWHERE, inside=["nose"])


def test_random_weights_destroy_it(
    predictor: fuseline.Predictor, cells: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Adebayo et al. 2018: what stays the same whatever the weights does not explain the model."""
    rows = [{"picture": r["picture"]} for r in served.rows(4, seed=11, absent=0.0)]
    plain = explain_rows(predictor, rows)

    def patches() -> np.ndarray:
        found = attribute_rows(predictor.package, plain.rows, rows, media=NOWHERE, inside=["picture"], grid=6)
        return np.array([[p.value for p in row.inside[0].parts] for row in found])

    first, again = patches(), patches()
    assert (first == again).all()
    build = attribute.rebuild

    def shuffled(*args: Any) -> Any:
        model = build(*args)
        torch.manual_seed(5)
        with torch.no_grad():
            for weight in model.encoders[0].parameters():
                weight.copy_(torch.randn_like(weight) * weight.std(correction=0))
        return model

    monkeypatch.setattr(attribute, "rebuild", shuffled)
    monkeypatch.setattr(attribute, "FAR", 10.0)  # it answers otherwise, of course
    other = patches()
    ranks = [np.corrcoef(a.argsort().argsort(), b.argsort().argsort())[0, 1] for a, b in zip(first, other, strict=True)]
    assert abs(np.mean(ranks)) < 0.5


def test_a_model_that_answers_otherwise_is_refused(predictor: fuseline.Predictor, cells: list[Any]) -> None:
    [row] = explain_rows(predictor, cells[:1], Options()).rows
    wrong = row.model_copy(update={"quantity": row.quantity - 0.3})
    with pytest.raises(FuselineError) as caught:
        attribute_rows(predictor.package, [wrong], cells[:1], media=NOWHERE)
    assert caught.value.code == "cannot_rebuild"
