"""Whole runs over a graph: what only the edges reveal is learned, packaged, and answered for entities of no row."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from graphs import CLASSES, write_club

from fuseline import api
from fuseline.data.table import Table
from fuseline.explain import Explanations, explain_rows
from fuseline.explain.page import render
from fuseline.explain.summary import summarise
from fuseline.lab.attribute import attribute_rows
from fuseline.lab.compress.subject import open_subject
from fuseline.lab.encoders.graph_links import GraphTransE
from fuseline.lab.training.cache import Cache
from fuseline.modalities import MediaRoot
from fuseline.package import read_package
from fuseline.progress import Silent
from fuseline.runtime import Predictor

NOISE = {"modality": "tabular", "columns": {"noise": "number"}}
LEAN = {"bootstrap": 0, "degradation": False, "export": False, "report": False}


def train(table: Path, inputs: dict[str, Any], out: Path, epochs: int, **evaluation: Any) -> Any:
    recipe = {
        "inputs": inputs,
        "task": {"kind": "classification", "target": "colour"},
        "split": {"kind": "stratified", "val": 0.15, "test": 0.35},
        "fusion": {"kind": "concat", "width": 32},
        "training": {"epochs": epochs, "learning_rate": 5e-3, "precision": "float32", "loggers": []},
        "evaluation": {**LEAN, **evaluation},
    }
    return api.train(recipe, table=table, out=out, quiet=True)


def accuracy(run: Any) -> float:
    return float(run.metrics["parts"]["test"]["metrics"]["accuracy"]["value"])


def graph(**encoder: Any) -> dict[str, Any]:
    return {"modality": "graph", "edges": "triples.csv", "encoder": {"kind": "small", **encoder}}


def test_only_the_graph_reveals_the_label(tmp_path: Path) -> None:
    table = write_club(tmp_path, 240)
    ids = {"modality": "tabular", "columns": {"noise": "number", "who": "category"}}
    assert accuracy(train(table, {"noise": ids}, tmp_path / "without", 6)) < 0.45  # chance: 0.25

    # A row whose entity the graph does not hold, and one without any.
    frame = pl.read_csv(table)
    odd = pl.DataFrame({"who": ["nobody", None], "noise": [0.1, 0.2], "colour": ["amber", "blue"]})
    pl.concat([frame, odd]).write_csv(table)
    run = train(table, {"noise": NOISE, "who": graph(layers=1)}, tmp_path / "with", 15, export=True)
    assert accuracy(run) > 0.9
    assert "who is no entity of the graph in 1 rows" in run.record["notes"]

    predictor = run.load()
    later = pl.read_csv(tmp_path / "later.csv")
    answers = predictor.predict(later.select("who", "noise").to_dicts())
    right = [a.value == c for a, c in zip(answers, later["colour"], strict=True)]
    assert sum(right) > 0.9 * len(right), "people of no training row, whose edges were known"
    assert not any(a.notes for a in answers)
    subject = open_subject(read_package(run.package), Table.open(table), cache=Cache(16), voice=Silent())
    assert subject.names == ("noise", "who"), "a package can be built again: the checks inside compared answers"
    edges_of_some(predictor, later.select("who", "noise").to_dicts()[:6])
    [stranger, without] = predictor.predict([{"who": "eve"}, {"noise": 0.0}])
    assert (stranger.used, stranger.notes) == (("who",), ["who is no entity of the graph: 'eve'"])
    assert stranger.value in CLASSES
    assert (without.absent, without.notes) == (("who",), [])


def edges_of_some(predictor: Predictor, rows: list[dict[str, Any]]) -> None:
    """Gradients add up over the edges, and say what the clubs were drawn by: memberships tell the colour."""
    rows = [*rows, {"who": "eve"}]
    plain = explain_rows(predictor, rows)
    found = attribute_rows(predictor.package, plain.rows, rows, media=MediaRoot(None), inside=["who"])
    sizes: dict[str, list[float]] = {"member": [], "admires": []}
    for row in found[:-1]:
        [who] = row.inside
        assert (who.unit, len(who.parts)) == ("edge", 6)
        assert abs(who.gap or 0.0) <= 1e-3
        for part in who.parts:
            head, relation, tail = part.label.split(" \N{RIGHTWARDS ARROW} ")
            assert head == rows[row.row]["who"]
            assert tail.startswith("club ")
            assert part.place == (0.0, 1.0)
            sizes[relation].append(abs(part.value))
    assert np.mean(sizes["member"]) > 1.5 * np.mean(sizes["admires"]), "2.7 times as much where it was written"
    assert found[-1].inside[0].parts == (), "nobody's edges"
    [few] = attribute_rows(predictor.package, plain.rows[:1], rows[:1], media=MediaRoot(None), most_parts=2)
    told = next(p.parts for p in few.inside if p.input == "who")
    assert told[2].label == "(4 more edges)"
    assert sum(p.value for p in told) == pytest.approx(sum(p.value for p in found[0].inside[0].parts), abs=1e-3)
    shown = Explanations(model={"name": "x", "version": "1"}, rows=tuple(found), summary=summarise(found))
    assert "Inside who: edges" in render(shown, predictor, rows, MediaRoot(None))


def test_a_relation_that_holds_the_target_is_said(tmp_path: Path) -> None:
    table = write_club(tmp_path, 60)
    frame = pl.read_csv(table)
    lines = [f"{who},wears,{colour}" for who, colour in zip(frame["who"], frame["colour"], strict=True)]
    with (tmp_path / "triples.csv").open("a", encoding="utf-8") as file:
        file.write("\n".join(lines) + "\n")
    run = train(table, {"who": graph(layers=1)}, tmp_path / "run", 1)
    assert any(n.startswith("leak: who: edges of the relation 'wears' say colour") for n in run.record["notes"])


def test_links_are_learned_once_and_not_again_on_resuming(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    begun: list[int] = []
    begin = GraphTransE.begin

    def counted(self: GraphTransE, seed: int, say: Any) -> None:
        begun.append(seed)
        begin(self, seed, say)

    monkeypatch.setattr(GraphTransE, "begin", counted)
    table = write_club(tmp_path, 60)
    run = train(table, {"who": graph(kind="transe", epochs=2, size=8)}, tmp_path / "run", 2)
    assert len(begun) == 1
    before = (run.folder / "metrics.json").read_text(encoding="utf-8")
    again = api.resume(run.folder, quiet=True)
    assert len(begun) == 1, "its vectors are in the checkpoint"
    assert (again.folder / "metrics.json").read_text(encoding="utf-8") == before
