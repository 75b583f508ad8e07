"""Indexing and searching with packages: from Python, on the command line, over HTTP."""

from __future__ import annotations

import asyncio
import base64
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import made
import numpy as np
import polars as pl
import pytest
from typer.testing import CliRunner

import fuseline
from fuseline.cli import app
from fuseline.errors import FuselineError
from fuseline.runtime import Predictor
from fuseline.serve.engine import Local
from fuseline.serve.http import make_app
from fuseline.serve.search import Shelf
from fuseline.serve.service import Service
from fuseline.serve.settings import Settings
from fuseline.vectors import read_index

TASK = {"kind": "retrieval", "left": ["note", "vitals"], "right": ["picture"], "dim": 16}


@pytest.fixture(scope="module")
def made_once(tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    """A small retrieval package, its table, and an index of the table's pictures."""
    folder = tmp_path_factory.mktemp("search")
    table = made.make_table(folder, 40, absent=0.2)
    recipe = made.recipe(
        table,
        inputs={name: made.INPUTS[name] for name in ("note", "vitals", "picture")},
        task=TASK,
        split={"kind": "random", "val": 0.2, "test": 0.2},
        fusion={"kind": "sum", "width": 32},
    )
    run = fuseline.train(recipe, out=folder / "run", quiet=True)
    counts = fuseline.index(run.folder, table, folder / "index", id="patient", keep=["picture", "sick"], quiet=True)
    return SimpleNamespace(folder=folder, table=table, run=run, index=folder / "index", counts=counts)


def cells_of(path: Path, row: int) -> dict[str, Any]:
    return {k: v for k, v in pl.read_csv(path).row(row, named=True).items() if v is not None}


def test_a_run_is_reported_as_retrieval(made_once: SimpleNamespace) -> None:
    page = made_once.run.report.read_text()
    for words in ("What is found", "Recall@5", "left → right", "its own is number", "data:image/jpeg"):
        assert words in page
    frame = pl.read_parquet(made_once.run.folder / "predictions.parquet")
    assert frame["error"].dtype == pl.Float64
    assert len(json.loads(frame["details"][0])["left"] or [0] * 16) == 16


def test_rows_that_have_the_side_are_indexed(made_once: SimpleNamespace) -> None:
    table = pl.read_csv(made_once.table)
    has = table["picture"].is_not_null()
    assert made_once.counts == {"rows": 40, "indexed": int(has.sum()), "lacking": int((~has).sum()), "errors": 0}
    index = read_index(made_once.index)
    kept = [index.kept(i) for i in range(index.rows)]
    assert [k["row"] for k in kept] == np.flatnonzero(has.to_numpy()).tolist()
    for one in kept[:5]:
        row = table.row(one["row"], named=True)
        cells = {k: row[k] for k in ("picture", "sick")}
        assert one == {"row": one["row"], "id": str(row["patient"]), "cells": cells}  # a CSV's cells are text


def test_search_is_the_order_of_the_models_own_vectors(made_once: SimpleNamespace) -> None:
    predictor = made_once.run.load()
    index = read_index(made_once.index)
    query = {"note": "heavy cough", "age": 66.0}
    [answer] = predictor.predict([query])
    wanted = np.argsort(-(index.vectors_NE @ np.array(answer.details["left"], np.float32)), kind="stable")[:5]
    for exact in (True, False):
        [found] = fuseline.search(predictor, made_once.index, [query], k=5, exact=exact)
        assert (found.side, found.used, found.absent) == ("left", ("note", "vitals"), ("picture",))
        assert [h.row for h in found.hits] == [index.kept(int(i))["row"] for i in wanted]
    assert found.hits[0].score >= found.hits[-1].score


def test_cells_of_the_indexed_side_find_what_is_like_them(made_once: SimpleNamespace) -> None:
    row = read_index(made_once.index).kept(7)["row"]
    picture = {"picture": cells_of(made_once.table, row)["picture"]}
    [found] = fuseline.search(made_once.run.folder, made_once.index, [picture], k=3, media=made_once.folder)
    assert found.side == "right"
    assert (found.hits[0].row, found.hits[0].score) == (row, pytest.approx(1, abs=1e-5))


def test_a_bad_row_leaves_its_neighbours_alone(made_once: SimpleNamespace) -> None:
    rows = [{"note": "calm breath"}, {"picture": b"no picture"}, {}, {"note": "calm breath"}]
    found = fuseline.search(made_once.run.folder, made_once.index, rows, k=2)
    assert [f.error and f.error.code for f in found] == [None, "bad_cell", "bad_rows", None]
    assert found[0].hits == found[3].hits
    assert [f.error.row for f in found if f.error] == [1, 2]


def test_the_left_side_can_be_indexed_too(made_once: SimpleNamespace, tmp_path: Path) -> None:
    counts = fuseline.index(made_once.run.folder, made_once.table, tmp_path / "left", side="left", quiet=True)
    assert counts["indexed"] > 30
    row = read_index(made_once.index).kept(0)["row"]
    picture = {"picture": cells_of(made_once.table, row)["picture"]}
    [found] = fuseline.search(made_once.run.folder, tmp_path / "left", [picture], k=3, media=made_once.folder)
    assert found.side == "right"
    assert set(found.hits[0].cells) == {"note", "age", "sex", "smoker", "seen"}
    with pytest.raises(FuselineError, match="no side 'middle'"):
        fuseline.index(made_once.run.folder, made_once.table, tmp_path / "x", side="middle", quiet=True)


def test_only_the_indexed_columns_are_needed(made_once: SimpleNamespace, tmp_path: Path) -> None:
    table = pl.read_csv(made_once.table).select("picture").write_csv
    table(made_once.folder / "pictures.csv")
    counts = fuseline.index(made_once.run.folder, made_once.folder / "pictures.csv", tmp_path / "i", quiet=True)
    assert counts["indexed"] == made_once.counts["indexed"]
    with pytest.raises(FuselineError, match="nothing to index"):
        fuseline.index(
            made_once.run.folder, made_once.table, tmp_path / "none", absent=["picture"], keep=[], quiet=True
        )
    assert not (tmp_path / "none").exists()


def test_a_broken_cell_is_counted(made_once: SimpleNamespace, tmp_path: Path) -> None:
    (made_once.folder / "broken.csv").write_text("picture\nmedia/0.png\nmedia/gone.png\nmedia/1.png\n")
    counts = fuseline.index(made_once.run.folder, made_once.folder / "broken.csv", tmp_path / "i", quiet=True)
    assert counts == {"rows": 3, "indexed": 2, "lacking": 0, "errors": 1}


def clinic(notes: list[Any], ages: list[Any]) -> pl.DataFrame:
    rows = pl.DataFrame({"note": notes, "age": ages})
    return rows.with_columns(pl.lit(None, pl.String).alias(c) for c in ("sex", "smoker", "seen"))


def test_how_near_two_sides_are_is_not_explained(made_once: SimpleNamespace) -> None:
    assert not (made_once.run.folder / "reasons.json").exists()
    [row] = made_once.run.load().explain([{"note": "calm breath", "age": 40}]).rows
    assert row.error["code"] == "cannot_explain"


def test_another_packages_index_is_refused(made_once: SimpleNamespace, package: Path, tmp_path: Path) -> None:
    rows = clinic(["calm breath", "heavy cough", None], [30.0, 70.0, None])
    counts = fuseline.index(package, rows, tmp_path / "other", absent=["picture", "sound"], quiet=True)
    assert counts == {"rows": 3, "indexed": 2, "lacking": 1, "errors": 0}
    with pytest.raises(FuselineError) as caught:
        fuseline.search(made_once.run.folder, tmp_path / "other", [{"note": "x"}])
    assert caught.value.code == "other_package"
    [found] = fuseline.search(package, tmp_path / "other", [{"note": "heavy cough", "age": 70.0}])
    assert (found.side, found.hits[0].row, found.hits[0].score) == ("embedding", 1, pytest.approx(1, abs=1e-5))


def cli(*words: Any) -> Any:
    return CliRunner().invoke(app, [str(w) for w in words], env={"COLUMNS": "200"})


def test_the_command_line(made_once: SimpleNamespace, tmp_path: Path) -> None:
    run, out = made_once.run.folder, tmp_path / "index"
    done = cli("index", run, made_once.table, "-o", out, "--id", "patient", "--keep", "picture", "-q")
    assert done.exit_code == 0, done.output
    assert f"{made_once.counts['indexed']} of 40 rows indexed" in done.output
    asked = ("--note", "heavy cough", "--age=66", "-k", 3, "--exact")
    [wanted] = fuseline.search(run, out, [{"note": "heavy cough", "age": "66"}], k=3, exact=True)
    assert json.loads(cli("search", run, out, *asked, "--json").output) == wanted.to_dict()
    shown = cli("search", run, out, *asked).output
    assert wanted.hits[0].cells["picture"] in shown
    row = wanted.hits[0]
    found = cli("search", run, out, "--picture", made_once.folder / row.cells["picture"], "--json").output
    assert json.loads(found)["hits"][0]["row"] == row.row
    assert cli("search", run, out, "--cell", "note=heavy cough", "--json").exit_code == 0


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--nope", "x"], "no column 'nope'"),
        (["--note"], "has no cell"),
        (["stray"], "belongs to no option"),
        (["--picture", "gone.png"], "cannot read gone.png"),
        (["--cell", "note"], "names no column"),
        ([], "no cell to search with"),
    ],
)
def test_what_cannot_be_asked_is_said(made_once: SimpleNamespace, words: list[str], said: str) -> None:
    done = cli("search", made_once.run.folder, made_once.index, *words)
    assert done.exit_code == 2
    assert said in " ".join(done.output.split())


def _talk(packages: list[Path], shelf: Shelf, conversation: Any) -> None:
    async def go() -> None:
        settings = Settings(objective_ms=60_000)
        service = Service(Local(settings, threads=1), settings)
        shelf.check([await service.load(path, f"model{i}") for i, path in enumerate(packages)])
        transport = httpx.ASGITransport(make_app(service, settings, shelf=shelf), raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://here") as client:
            await conversation(client, service)
        await service.close()

    asyncio.run(go())


def test_over_http(made_once: SimpleNamespace, package: Path, tmp_path: Path) -> None:
    rows = clinic(["calm breath", "heavy cough"], [30.0, 70.0])
    fuseline.index(package, rows, tmp_path / "clinic", absent=["picture", "sound"], quiet=True)
    predictor: Predictor = made_once.run.load()
    query = {"note": "heavy cough", "age": 66.0}
    [wanted] = fuseline.search(predictor, made_once.index, [query], k=3)

    async def one(client: httpx.AsyncClient, service: Service) -> None:
        reply = await client.post("/search", json={"rows": [query, {}], "k": 3})
        assert reply.status_code == 200, reply.text
        said = reply.json()
        assert said["version"] == predictor.package.version
        first, second = said["results"]
        assert [h["row"] for h in first["hits"]] == [h.row for h in wanted.hits]
        assert first["hits"][0]["cells"] == wanted.hits[0].cells
        np.testing.assert_allclose([h["score"] for h in first["hits"]], [h.score for h in wanted.hits], atol=1e-4)
        assert second["error"]["code"] == "bad_rows"
        row = read_index(made_once.index).kept(3)["row"]
        data = (made_once.folder / cells_of(made_once.table, row)["picture"]).read_bytes()
        form = await client.post("/search", files={"picture": ("x.png", data)}, data={"k": "1", "exact": "true"})
        assert form.json()["results"][0]["hits"][0]["row"] == row
        coded = {"picture": base64.b64encode(data).decode()}
        assert (await client.post("/search", json={"rows": [coded], "k": 1})).json()["results"][0]["side"] == "right"
        listed = (await client.get("/v1/indexes")).json()["indexes"]
        assert (listed[0]["name"], listed[0]["rows"]) == ("index", made_once.counts["indexed"])
        assert "/search" in (await client.get("/openapi.json")).json()["paths"]
        for body, code, status in (
            ({"rows": [query], "k": 0}, "bad_request", 400),
            ({"rows": [query], "exact": "yes"}, "bad_request", 400),
            ({"rows": [query], "index": "other"}, "not_found", 404),
            ({"rows": [query], "contributions": True}, "bad_request", 400),
            ({"row": query}, "bad_request", 400),
            ({"rows": []}, "bad_rows", 422),
        ):
            refused = await client.post("/search", json=body)
            assert (refused.status_code, refused.json()["code"]) == (status, code), body

    _talk([made_once.run.package], Shelf.open([made_once.index]), one)

    async def two(client: httpx.AsyncClient, service: Service) -> None:
        asked = {"rows": [{"note": "heavy cough", "age": 70.0}], "k": 1}
        assert (await client.post("/search", json=asked)).json()["code"] == "bad_request"
        for name, side, row in (("pictures", "left", None), ("clinic", "embedding", 1)):
            [found] = (await client.post("/search", json={**asked, "index": name})).json()["results"]
            assert found["side"] == side
            assert row is None or found["hits"][0]["row"] == row
        version = service.info("model1").version
        await service.unload("model1", version)
        gone = await client.post("/search", json={**asked, "index": "clinic"})
        assert gone.json()["code"] == "unknown_version"

    _talk([made_once.run.package, package], Shelf.open([f"pictures={made_once.index}", tmp_path / "clinic"]), two)

    with pytest.raises(FuselineError, match="was made by"):
        _talk([package], Shelf.open([made_once.index]), one)
    with pytest.raises(FuselineError, match="two indexes"):
        Shelf.open([made_once.index, made_once.index])


@pytest.mark.parametrize("k", [0, -1, True, 2.0])
def test_hits_are_counted_from_one(k: Any) -> None:
    with pytest.raises(FuselineError, match=r"k is") as caught:
        fuseline.search("no-model", "no-index", [{"caption": "a"}], k=k)
    assert caught.value.code == "bad_usage"
