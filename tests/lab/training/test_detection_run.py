"""Detection from the table to the answer: boxes on coloured squares."""

from __future__ import annotations

import base64
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from PIL import Image

import fuseline
from fuseline import api
from fuseline.api import Run
from fuseline.data.table import Table
from fuseline.lab.build import build_model
from fuseline.lab.training.cache import Cache
from fuseline.lab.training.prepare import prepare
from fuseline.progress import voice
from fuseline.recipe import parse_recipe

RECIPE: dict[str, Any] = {
    "inputs": {
        "photo": {"modality": "image", "encoder": {"kind": "small", "size": 32, "channels": [16, 24]}},
        "age": {"modality": "tabular", "columns": {"age": "number"}},
    },
    "task": {"kind": "detection", "target": "boxes", "layers": 1, "mirror": True},
    "fusion": {"kind": "sum", "width": 16},
    "split": {"kind": "random", "val": 0.25, "test": 0.25},
    "training": {"epochs": 2, "batch_size": 8, "precision": "float32", "loggers": []},
    "evaluation": {"bootstrap": 20},
}


def make_table(folder: Path, rows: int = 32) -> Path:
    """Squares in pictures of many shapes; every third picture holds none, every seventh row has no picture."""
    rng = np.random.default_rng(0)
    (folder / "media").mkdir(parents=True)
    out = []
    for i in range(rows):
        width, height = (int(n) for n in rng.integers(40, 90, 2))
        pixels = rng.integers(0, 60, (height, width, 3), dtype=np.uint8)
        boxes = []
        for _ in range(i % 3):
            side, label = int(rng.integers(12, 20)), int(rng.integers(0, 2))
            x, y = int(rng.integers(0, width - side)), int(rng.integers(0, height - side))
            pixels[y : y + side, x : x + side, label] = 220
            boxes.append({"label": ["red", "green"][label], "xyxy": [x, y, x + side, y + side]})
        Image.fromarray(pixels).save(folder / f"media/{i}.png")
        out.append({"photo": f"media/{i}.png" if i % 7 else None, "age": float(i), "boxes": json.dumps(boxes)})
    pl.DataFrame(out).write_csv(folder / "table.csv")
    return folder / "table.csv"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp("squares")
    table = make_table(folder)
    return fuseline.train({**RECIPE, "table": {"path": str(table)}}, out=folder / "run", quiet=True)


def test_metrics_counts_and_the_chosen_threshold_are_written(run: Run) -> None:
    assert run.metrics["metric"] == "map_50_95"
    assert {"map_50", "map_50_95", "f1", "iou"} <= set(run.metrics["parts"]["test"]["metrics"])
    [blind] = [e for e in run.metrics["degradation"] if e["present"] == ["age"]]
    assert blind["metrics"]["map_50"]["value"] == 0, "boxes were invented"
    target = json.loads((run.folder / "data.json").read_text())["target"]
    assert sum(target["counts"]["train"].values()) > 0
    assert target["empty"]["train"] > 0
    threshold = run.load().task.threshold  # type: ignore[attr-defined]
    assert any(f"boxes are answered from a score of {threshold:.3f}" in note for note in run.record["notes"])


def test_the_report_shows_boxes(run: Run) -> None:
    page = run.report.read_text(encoding="utf-8")
    assert not (run.folder / "reasons.json").exists(), "boxes are no chance and no number"
    assert "mAP, IoU 0.50 to 0.95" in page
    assert "truth: blue dashes" in page
    assert "overlap with the truth" in page
    blue = 0
    for part in page.split("data:image/jpeg;base64,")[1:]:
        pixels = np.asarray(Image.open(io.BytesIO(base64.b64decode(part.split('"')[0]))), dtype=int)
        blue += int(((pixels[:, :, 2] > 180) & (pixels[:, :, 0] < 130) & (pixels[:, :, 1] > 150)).sum())
    assert blue > 50


def test_the_package_answers_in_pixels_of_what_was_sent(run: Run) -> None:
    predictor = run.load()
    pixels = np.zeros((50, 400, 3), np.uint8)
    file, turned = io.BytesIO(), io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG")
    exif = Image.Exif()
    exif[274] = 6
    Image.fromarray(pixels).save(turned, "JPEG", exif=exif)
    rows = [{"photo": file.getvalue()}, {"photo": turned.getvalue()}, {"age": 3.0}]
    wide, tall, blind = predictor.predict(rows)
    assert wide.details is not None
    assert tall.details is not None
    assert (wide.details["width"], wide.details["height"]) == (400.0, 50.0)
    assert (tall.details["width"], tall.details["height"]) == (50.0, 400.0)
    for answer, size in ((wide, (400, 50)), (tall, (50, 400))):
        boxes = np.array([b["box"] for b in answer.details["boxes"]])  # type: ignore[index]
        assert len(boxes)
        assert (boxes >= 0).all()
        assert (boxes <= np.tile(size, 2)).all()
    assert boxes[:, 3].max() > 60
    assert (blind.value, blind.notes, blind.absent) == ([], ["no picture, so no boxes"], ("photo",))


def test_tables_are_answered_and_evaluated(run: Run, tmp_path: Path) -> None:
    table = Path(run.record["table"]["path"])
    found = api.evaluate(run.package, table, bootstrap=0, quiet=True)["parts"]["test"]
    assert found["rows"] == 32
    for name in ("answers.csv", "answers.parquet", "answers.jsonl"):
        assert api.predict(run.package, table, tmp_path / name, quiet=True) == {"rows": 32, "errors": 0}
    answers = pl.read_csv(tmp_path / "answers.csv")
    assert json.loads(answers["value"][0]) == []
    api.batch(run.package, table, tmp_path / "parts", quiet=True)
    parts = pl.read_parquet(tmp_path / "parts" / "part-*.parquet")
    assert [json.loads(v) for v in parts["value"]] == [json.loads(v) for v in answers["value"]]


def test_a_frozen_encoders_tokens_keep_their_places(tmp_path: Path) -> None:
    """Kept tokens give the outputs that the cells give."""
    table = Table.open(make_table(tmp_path, 12))
    recipe = parse_recipe({**RECIPE, "split": {"kind": "random", "val": 0.0, "test": 0.0}})
    prepared = prepare(recipe, table, folder=tmp_path, voice=voice("quiet"), cache=Cache(64))
    model = build_model(recipe, prepared.plans, prepared.parser.modalities, prepared.task).eval()
    rows = np.arange(12)
    with torch.no_grad():
        live = prepared.reader.batch(rows)
        wanted = model(live.arrays, live.present_BM)
        prepared.reader.keep("photo", model.encoders[0])  # type: ignore[arg-type]
        kept = prepared.reader.batch(rows)
        assert "photo.tokens" in kept.arrays
        found = model(kept.arrays, kept.present_BM)
    for name, value in wanted.items():
        torch.testing.assert_close(found[name], value, atol=1e-5, rtol=1e-5)


def test_detection_needs_one_picture(tmp_path: Path) -> None:
    table = make_table(tmp_path, 12)
    blind = {**RECIPE, "inputs": {"age": RECIPE["inputs"]["age"]}, "table": {"path": str(table)}}
    with pytest.raises(fuseline.FuselineError, match="needs one picture"):
        fuseline.train(blind, out=tmp_path / "run", quiet=True)
