"""Detection against pycocotools, and what is made of boxes on the way."""

from __future__ import annotations

import contextlib
import io
import json
from typing import Any

import numpy as np
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from fuseline.errors import FuselineError
from fuseline.tasks import task_class
from fuseline.tasks.detection import Detection, DetectionConfig
from fuseline.tasks.detection_scores import best_threshold

LABELS = ("car", "dog", "tree")
Row = list[dict[str, Any]]


def rows_of(rng: np.random.Generator, count: int) -> list[Row]:
    """True boxes in pictures of 200 x 100, some rows without any."""
    out = []
    for _ in range(count):
        boxes = []
        for _ in range(int(rng.integers(0, 4))):
            x, y, w, h = rng.uniform(0, 120), rng.uniform(0, 50), rng.uniform(10, 80), rng.uniform(10, 50)
            boxes.append({"label": str(rng.choice(LABELS)), "xyxy": [x, y, x + w, y + h]})
        out.append(boxes)
    return out


def guesses(rng: np.random.Generator, rows: list[Row], queries: int = 8) -> dict[str, np.ndarray]:
    """Near hits, doubles, wrong labels and inventions, with scores that mean a little."""
    logits = rng.normal(-3, 1, (len(rows), queries, len(LABELS)))
    boxes = np.sort(rng.uniform(0, 1, (len(rows), queries, 2, 2)), axis=2).reshape(len(rows), queries, 4)
    for n, row in enumerate(rows):
        for q in range(min(queries, 2 * len(row))):
            box = row[q // 2]
            boxes[n, q] = (np.array(box["xyxy"]) + rng.normal(0, 3, 4)) / (200, 100, 200, 100)
            logits[n, q, LABELS.index(box["label"])] = rng.normal(1 - q % 2, 2)
    return {"logits": logits, "boxes": boxes, "picture": np.tile([200.0, 100.0], (len(rows), 1))}


def fitted(rows: list[Row], **options: Any) -> Detection:
    return Detection.fit(DetectionConfig(target="boxes", classes=LABELS, **options), {"boxes": [*rows, None]})


def encoded(task: Detection, rows: list[Row]) -> np.ndarray:
    targets = [task.encode({"boxes": json.dumps(row)}) for row in rows]
    return np.stack([t for t in targets if t is not None])


def coco(task: Detection, rows: list[Row], outputs: dict[str, np.ndarray]) -> dict[str, float]:
    """The same by pycocotools."""
    truths, found = [], []
    for n, (row, got) in enumerate(zip(rows, task.found(outputs), strict=True)):
        for box in row:
            x1, y1, x2, y2 = np.float32(box["xyxy"]).astype(float).tolist()
            area = (x2 - x1) * (y2 - y1)
            entry = {"bbox": [x1, y1, x2 - x1, y2 - y1], "area": area, "iscrowd": 0, "id": len(truths) + 1}
            truths.append({**entry, "image_id": n, "category_id": LABELS.index(box["label"])})
        for box, label, score in zip(got.boxes_D4 * (200, 100, 200, 100), got.labels_D, got.scores_D, strict=True):
            x1, y1, x2, y2 = box.tolist()
            found.append({"image_id": n, "category_id": int(label), "bbox": [x1, y1, x2 - x1, y2 - y1], "score": score})
    with contextlib.redirect_stdout(io.StringIO()):
        table = COCO()
        table.dataset = {
            "images": [{"id": n} for n in range(len(rows))],
            "annotations": truths,
            "categories": [{"id": i, "name": name} for i, name in enumerate(LABELS)],
        }
        table.createIndex()
        judge = COCOeval(table, table.loadRes(found), "bbox")
        judge.evaluate()
        judge.accumulate()
        judge.summarize()
    return dict(zip(("map_50_95", "map_50", "map_75"), judge.stats[:3].tolist(), strict=True))


@pytest.mark.parametrize("seed", range(4))
def test_average_precision_is_cocos(seed: int) -> None:
    rng = np.random.default_rng(seed)
    rows = rows_of(rng, 30)
    outputs = guesses(rng, rows)
    task = fitted(rows, nms=None if seed % 2 else 0.7)
    scores = task.score(encoded(task, rows), outputs)
    expected = coco(task, rows, outputs)
    assert 0.05 < expected["map_50_95"] < 0.95
    for name, value in expected.items():
        assert scores.metrics[name].value == pytest.approx(value, abs=1e-6)


def test_a_row_that_is_drawn_twice_counts_as_two() -> None:
    """What the bootstrap stands on: weights are repetitions."""
    rng = np.random.default_rng(7)
    rows = rows_of(rng, 12)
    outputs, task = guesses(rng, rows), fitted(rows)
    weights = rng.integers(0, 3, 12)
    drawn = np.repeat(np.arange(12), weights)
    weighted = task.measure(encoded(task, rows), outputs)(weights[None].astype(float))
    repeated = task.score(encoded(task, [rows[i] for i in drawn]), {k: v[drawn] for k, v in outputs.items()})
    for name, metric in repeated.metrics.items():
        assert weighted[name][0] == pytest.approx(metric.value), name


def test_intervals_hold_the_value_and_follow_groups() -> None:
    rng = np.random.default_rng(1)
    rows = rows_of(rng, 24)
    outputs, task = guesses(rng, rows), fitted(rows)
    scores = task.score(encoded(task, rows), outputs, bootstrap=200, groups=np.arange(24) // 2)
    metric = scores.metrics["map_50"]
    assert metric.low is not None
    assert metric.high is not None
    assert metric.low < metric.value < metric.high
    assert [c["label"] for c in scores.details["per_class"]] == list(LABELS)


def test_perfect_answers_score_one_and_no_answers_zero() -> None:
    rows = [row for row in rows_of(np.random.default_rng(2), 20) if row]
    task = fitted(rows)
    outputs = guesses(np.random.default_rng(0), rows)
    outputs["logits"][:] = -20
    for n, row in enumerate(rows):
        for q, box in enumerate(row):
            outputs["boxes"][n, q] = np.array(box["xyxy"]) / (200, 100, 200, 100)
            outputs["logits"][n, q, LABELS.index(box["label"])] = 5
    perfect = task.score(encoded(task, rows), outputs).metrics
    assert {k: round(m.value, 6) for k, m in perfect.items()} == dict.fromkeys(perfect, 1.0)
    assert task.judge(encoded(task, rows), outputs, [])["error"] == pytest.approx([0.0] * len(rows), abs=1e-6)
    outputs["picture"][:] = 0
    none = task.score(encoded(task, rows), outputs).metrics
    assert (none["map_50"].value, none["recall"].value) == (0.0, 0.0)
    assert task.judge(encoded(task, rows), outputs, [])["error"] == [1.0] * len(rows)


def test_no_picture_no_boxes_and_it_says_so() -> None:
    rows = rows_of(np.random.default_rng(3), 4)
    task, outputs = fitted(rows), guesses(np.random.default_rng(3), rows)
    outputs["logits"][:] = 9
    outputs["picture"][1] = 0
    answers = task.decode(outputs)
    assert (answers[1].value, answers[1].notes) == ([], ["no picture, so no boxes"])
    assert all(a.value and not a.notes for i, a in enumerate(answers) if i != 1)


def test_answers_are_in_pixels_of_the_picture_and_above_the_threshold() -> None:
    task = fitted(rows_of(np.random.default_rng(3), 4), threshold=0.6)
    outputs = {
        "logits": np.array([[[3.0, -9, -9], [0.0, -9, -9], [-9.0, -9, -9]]]),
        "boxes": np.array([[[0.1, 0.2, 0.5, 1.5], [0.6, 0.6, 0.9, 0.9], [0, 0, 1, 1]]]),
        "picture": np.array([[200.0, 100.0]]),
    }
    [answer] = task.decode(outputs)
    [box] = answer.value
    assert (box["box"], box["label"]) == ([20.0, 20.0, 100.0, 100.0], "car")
    assert answer.details is not None
    assert [b["score"] > 0.05 for b in answer.details["boxes"]] == [True, True]
    assert (answer.details["width"], answer.details["height"]) == (200.0, 100.0)
    json.dumps(answer.details)


def test_the_threshold_of_validation_rows_gives_the_best_f1() -> None:
    rng = np.random.default_rng(5)
    rows = rows_of(rng, 40)
    outputs, task = guesses(rng, rows), fitted(rows)
    targets = encoded(task, rows)
    [note] = task.settle(targets, outputs)
    chosen = task.score(targets, outputs).metrics["f1"].value
    assert f"{task.threshold:.3f}" in note
    for threshold in np.linspace(0.01, 0.99, 60):
        other = fitted(rows, threshold=float(threshold))
        assert other.score(targets, outputs).metrics["f1"].value <= chosen + 0.02
    given = fitted(rows, threshold=0.9)
    assert given.settle(targets, outputs) == []
    assert given.threshold == 0.9
    nothing = {**outputs, "picture": np.zeros_like(outputs["picture"])}
    assert best_threshold(task._sheet(targets, nothing)) is None


def test_state_goes_through_json() -> None:
    rows = rows_of(np.random.default_rng(3), 8)
    task = fitted(rows, mirror_labels={"car": "dog"})
    task.threshold = 0.123
    again = task_class("detection").from_state(json.loads(json.dumps(task.state())))
    outputs = guesses(np.random.default_rng(3), rows)
    assert again.decode(outputs) == task.decode(outputs)
    assert again.state() == task.state()


@pytest.mark.parametrize(
    ("options", "cells", "code"),
    [
        ({}, [None, "[]"], "no_target"),
        ({}, [[[0.1, 0.1, 0.5, 0.5]]], "bad_recipe"),
        ({"max_boxes": 1}, [[[1, 1, 5, 5], [2, 2, 5, 5]]], "bad_recipe"),
        ({"classes": ["a"]}, ['[{"label": "b", "xyxy": [1, 2, 3, 4]}]'], "bad_cell"),
        ({"mirror_labels": {"left": "object"}}, [[[1, 1, 5, 5]]], "bad_recipe"),
        ({}, [[[1, 1, 5, 5], {"label": "a", "xyxy": [2, 2, 5, 5]}]], "bad_recipe"),
    ],
)
def test_what_cannot_be_learned_is_said_at_once(options: dict[str, Any], cells: list[Any], code: str) -> None:
    with pytest.raises(FuselineError) as error:
        Detection.fit(DetectionConfig(target="boxes", **options), {"boxes": cells})
    assert error.value.code == code


def test_a_row_with_more_boxes_than_the_target_holds_is_its_own_error() -> None:
    task = Detection.fit(DetectionConfig(target="boxes"), {"boxes": [[[1, 1, 5, 5]]]})
    assert task.max_boxes == 10
    with pytest.raises(FuselineError, match="11 boxes"):
        task.encode({"boxes": [[1, 1, 5, 5]] * 11})
    assert task.encode({"boxes": None}) is None


def test_not_finite_outputs_have_no_metrics() -> None:
    rows = rows_of(np.random.default_rng(3), 4)
    task, outputs = fitted(rows), guesses(np.random.default_rng(3), rows)
    outputs["logits"][0, 0, 0] = np.nan
    scores = task.score(encoded(task, rows), outputs, bootstrap=10)
    assert all(np.isnan(m.value) for m in scores.metrics.values())
