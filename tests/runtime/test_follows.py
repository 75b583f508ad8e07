"""Everything that opens a package runs it with the backend that it was measured with."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import made
import polars as pl
import pytest
import served
from runtime.graphs import with_openvino

import fuseline
from fuseline import api
from fuseline.serve.engine import Local
from fuseline.serve.settings import Settings


@pytest.fixture(scope="module")
def measured(package: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A package that was measured with OpenVINO and holds no other graph."""
    target = tmp_path_factory.mktemp("measured") / "clinic.fuse"
    return with_openvino(package, target, onnx=False, runtime={"backend": "openvino", "precision": "float32"})


def test_a_server_says_what_runs_and_answers_on_every_lane(package: Path, measured: Path) -> None:
    rows = served.rows(24)
    known = fuseline.load(package).predict(rows)

    async def ask() -> None:
        engine = Local(Settings(max_batch_rows=4), threads=1, cores=2)
        try:
            info = await engine.load(measured, "clinic")
            assert (info.backend, engine.lanes) == ("openvino", 2)
            asked = [
                engine.score((info.name, info.version), [row], deadline=time.monotonic() + 60, seen=False)
                for row in rows
            ]
            scored = await asyncio.gather(*asked)
        finally:
            await engine.close()
        for got, answer in zip(scored, known, strict=True):
            assert got.answers[0].probabilities == pytest.approx(answer.probabilities, abs=1e-4)

    asyncio.run(ask())


def test_predict_and_batch_give_the_same_table(package: Path, measured: Path, tmp_path: Path) -> None:
    table = made.make_table(tmp_path / "table", 20, seed=8)
    frames = []
    for model in (package, measured):
        out = tmp_path / model.parent.name
        api.batch(model, table, out / "parts", quiet=True, batch_size=3)
        api.predict(model, table, out / "answers.csv", quiet=True, batch_size=3)
        frames.append((pl.read_parquet(out / "parts" / "part-*.parquet"), pl.read_csv(out / "answers.csv")))
    for one, other, column in zip(*frames, ("confidence", "confidence"), strict=True):
        assert one.height == other.height == 20
        assert one["value"].to_list() == other["value"].to_list()
        assert (one[column] - other[column]).abs().max() < 1e-4
