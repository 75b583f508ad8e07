"""A made run: what training leaves in a folder, drawn from a seed. Nothing here is a result of a model."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import soundfile
from PIL import Image

from fuseline.package.files import finite
from fuseline.tasks import task_class
from fuseline.tasks.degradation import degradation, subsets

INPUTS = ("xray", "notes", "cough", "vitals")
VITALS = {"age": "number", "sex": "category", "temperature": "number"}
RECIPE = """\
version: 1
table: {path: table.csv}
inputs:
  xray: {modality: image, column: image, encoder: {kind: small}}
  notes: {modality: text, encoder: {kind: minilm, tune: frozen}}
  cough: {modality: audio, encoder: {kind: small}}
  vitals: {modality: tabular, columns: {age: number, sex: category, temperature: number}}
task: {kind: %s, target: %s}
fusion: {kind: %s, layers: 2}
training: {epochs: 12, learning_rate: %s, seed: 0}
"""


def _write(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, ensure_ascii=False), encoding="utf-8")


def write_table(folder: Path, rows: int, rng: np.random.Generator) -> None:
    """table.csv with pictures, notes, sounds and vitals beside it, a third of the cells absent."""
    (folder / "media").mkdir(parents=True)
    grid = np.linspace(-1, 1, 120)
    table: dict[str, list[Any]] = {k: [] for k in ("image", "notes", "cough", *VITALS, "covid", "days")}
    for i in range(rows):
        sick = i % 3 == 0
        picture, sound = f"media/{i}.png", f"media/{i}.wav"
        lungs = np.exp(-((np.abs(grid)[None, :] - 0.45) ** 2 * 9 + grid[:, None] ** 2 * 3))
        haze = rng.normal(0, 0.08, (120, 120)) + (0.3 * np.exp(-((grid[:, None] - 0.4) ** 2) * 8) if sick else 0)
        Image.fromarray((255 * np.clip(0.85 - 0.7 * lungs + haze, 0, 1)).astype(np.uint8)[:90]).save(folder / picture)
        t = np.arange(8000) / 8000
        burst = np.exp(-8 * ((t * (3 if sick else 1)) % 1)) * rng.normal(0, 0.3, 8000)
        soundfile.write(folder / sound, burst.astype(np.float32), 8000)
        note = "Bilateral patchy opacities, worse at the bases." if sick else "Clear lungs. No effusion, heart normal."
        table["image"].append(picture if rng.random() > 0.3 else None)
        table["notes"].append(note if rng.random() > 0.3 else None)
        table["cough"].append(sound if rng.random() > 0.3 else None)
        table["age"].append(int(rng.integers(18, 92)) if rng.random() > 0.3 else None)
        table["sex"].append(str(rng.choice(["f", "m"])))
        table["temperature"].append(round(float(rng.normal(38.4 if sick else 36.9, 0.6)), 1))
        table["covid"].append("yes" if sick else "no")
        table["days"].append(round(float(rng.gamma(3, 3) + (6 if sick else 0)), 1))
    pl.DataFrame(table).write_csv(folder / "table.csv")


def write_run(
    folder: Path,
    *,
    name: str = "clinic",
    task: str = "classification",
    fusion: str = "attention",
    learning_rate: float = 1e-3,
    seed: int = 0,
    rows: int = 300,
    table: Path | None = None,
) -> Path:
    """A whole run folder with its table, package folder and all optional files."""
    rng = np.random.default_rng(seed)
    folder.mkdir(parents=True)
    home = table or folder.parent / f"{folder.name}-table"
    if table is None:
        write_table(home, rows, rng)
    frame = pl.read_csv(home / "table.csv")
    target = "covid" if task == "classification" else "days"
    (folder / "recipe.yaml").write_text(RECIPE % (task, target, fusion, learning_rate), encoding="utf-8")
    parts = np.array((["train"] * 7 + ["val"] + ["test"] * 2) * (rows // 10 + 1))[:rows]
    _write(folder / "run.json", _run(name, home, rows, parts, task))
    _write(folder / "data.json", _data(frame, parts, target, task))
    _history(folder, rng, "auroc" if task == "classification" else "mae")
    write = _classification if task == "classification" else _regression
    write(folder, frame, parts, rng)
    _write(folder / "parity.json", {"max_abs_difference": 2.1e-6, "tolerance": 1e-3, "rows": 60})
    (folder / "model.fuse").mkdir()
    (folder / "model.fuse" / "graph.onnx").write_bytes(bytes(1_500_000))
    return folder


def _run(name: str, home: Path, rows: int, parts: np.ndarray, task: str) -> dict[str, Any]:
    kinds = [
        ("xray", "image", ["image"], "small", "full", 412_000, 412_000),
        ("notes", "text", ["notes"], "minilm", "frozen", 22_713_216, 0),
        ("cough", "audio", ["cough"], "small", "full", 318_000, 318_000),
        ("vitals", "tabular", list(VITALS), "features", "full", 9_600, 9_600),
    ]
    keys = ("name", "modality", "columns", "encoder", "tune", "parameters", "trainable")
    best = {"interval": 8, "step": 90, "metric": "auroc" if task == "classification" else "mae", "value": 0.88}
    return {
        "name": name,
        "created": "2026-01-02T03:04:05Z",
        "fuseline_version": "0.1.0",
        "seed": 0,
        "seconds": {"prepare": 3.1, "train": 68.4, "evaluate": 5.2, "export": 9.9},
        "notes": ["notes: 14 texts were longer than 128 tokens and were cut.", "bfloat16 gains 1.05 times: not used."],
        "parts": {**{p: int((parts == p).sum()) for p in ("train", "val", "test")}, "quarantined": 3},
        "inputs": [dict(zip(keys, k, strict=True)) for k in kinds],
        "parameters": {"total": 23_900_000, "trainable": 1_200_000},
        "best": best,
        "versions": {"python": "3.11.2", "torch": "2.13.0", "polars": "2.1.0"},
        "table": {"path": str(home / "table.csv"), "rows": rows},
    }


def _data(frame: pl.DataFrame, parts: np.ndarray, target: str, task: str) -> dict[str, Any]:
    kinds = {"image": ("xray", "image"), "notes": ("notes", "text"), "cough": ("cough", "audio")}
    columns = []
    for column in ("image", "notes", "cough", *VITALS):
        source, modality = kinds.get(column, ("vitals", "tabular"))
        absent = {p: float(frame[column].is_null().to_numpy()[parts == p].mean()) for p in ("train", "val", "test")}
        summary = {"mean": 47.25, "low": 18, "high": 91} if column == "age" else {"length": 44.5}
        kind = VITALS.get(column, "")
        columns.append(
            {
                "input": source,
                "column": column,
                "modality": modality,
                "kind": kind,
                "absent": absent,
                "summary": summary,
            }
        )
    if task == "regression":
        values = np.quantile(frame[target].to_numpy()[parts == "train"], [0, 0.25, 0.5, 0.75, 1]).tolist()
        said: dict[str, Any] = {"column": target, "quantiles": values}
    else:
        by = {p: frame.filter(pl.Series(parts == p))[target].value_counts().rows() for p in ("train", "val", "test")}
        said = {"column": target, "counts": {p: dict(sorted(v)) for p, v in by.items()}}
    leak = {"column": "notes", "message": "the same text stands in train and test", "count": 2}
    return {"columns": columns, "target": said, "leaks": [leak]}


def _history(folder: Path, rng: np.random.Generator, name: str) -> None:
    lines = [f"interval,step,seconds,learning_rate,train_loss,val_loss,val_{name}"]
    for i in range(13):
        train, val = 0.7 * 0.82**i + 0.02, 0.42 + 0.3 * 0.7**i + 0.006 * max(i - 8, 0) ** 1.5
        value = 0.88 if i == 8 else 0.87 - 0.35 * 0.7**i - 0.008 * abs(i - 8) + rng.normal(0, 0.004)
        lines.append(f"{i},{10 * (i + 1)},{5.2 * (i + 1):.1f},0.001,{train:.4f},{val:.4f},{value:.4f}")
    (folder / "history.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")


def _classification(folder: Path, frame: pl.DataFrame, parts: np.ndarray, rng: np.random.Generator) -> None:
    kind = task_class("classification")
    task = kind.fit(kind.Config(target="covid"), {"covid": frame["covid"].to_list()})
    truth = (frame["covid"].to_numpy() == "yes").astype(np.int64)
    signs = np.where(truth == 1, 1.0, -1.0)

    def logits(sharpness: float) -> np.ndarray:
        score = signs * sharpness + rng.normal(0, 1.5, len(truth))
        return np.stack([-score / 2, score / 2], axis=1).astype(np.float32)

    outputs = {s: {"logits": logits(0.22 * len(s) + 0.2 * ("vitals" in s))} for s in subsets(INPUTS)}
    full = outputs[INPUTS]
    scores = {}
    for part in ("val", "test"):
        some = parts == part
        scores[part] = task.score(truth[some], {"logits": full["logits"][some]}, bootstrap=200).to_dict()
    present = np.stack([frame[c].is_not_null().to_numpy() for c in ("image", "notes", "cough", "sex")], axis=1)
    some = parts == "test"
    by_subset = {s: {"logits": o["logits"][some]} for s, o in outputs.items()}
    table = degradation(task, INPUTS, present[some], truth[some], by_subset, bootstrap=100)
    whole = {"task": "classification", "metric": task.metric, "parts": scores, "degradation": table}
    _write(folder / "metrics.json", finite(whole))
    keep = np.flatnonzero(parts != "train")
    answers = task.decode({"logits": full["logits"][keep]})
    pl.DataFrame(
        {
            "row": keep,
            "part": parts[keep],
            "target": [task.labels[i] for i in truth[keep]],
            "value": [a.value for a in answers],
            "confidence": [max(a.probabilities.values()) for a in answers],
            "probabilities": [json.dumps(a.probabilities) for a in answers],
            "used": [json.dumps([n for n, p in zip(INPUTS, present[i], strict=True) if p]) for i in keep],
            "correct": [a.value == task.labels[i] for a, i in zip(answers, truth[keep], strict=True)],
        }
    ).write_parquet(folder / "predictions.parquet")


def _regression(folder: Path, frame: pl.DataFrame, parts: np.ndarray, rng: np.random.Generator) -> None:
    kind = task_class("regression")
    truth = frame["days"].to_numpy()
    task = kind.fit(kind.Config(target="days"), {"days": truth.tolist()})
    answer = truth.mean() + 0.7 * (truth - truth.mean()) + rng.normal(0, 2, len(truth))
    scores = {}
    for part in ("val", "test"):
        some = parts == part
        outputs = {"prediction": answer[some, None]}
        scores[part] = task.score(truth[some, None], outputs, bootstrap=200).to_dict()
    _write(folder / "metrics.json", finite({"task": "regression", "metric": task.metric, "parts": scores}))
    keep = np.flatnonzero(parts != "train")
    pl.DataFrame(
        {
            "row": keep,
            "part": parts[keep],
            "target": [json.dumps(v) for v in truth[keep].tolist()],
            "value": [json.dumps(v) for v in answer[keep].tolist()],
            "error": np.abs(answer - truth)[keep],
        }
    ).write_parquet(folder / "predictions.parquet")


def write_folds(folder: Path) -> Path:
    """The folder of a cross-validation: two folds, each a run, and folds.json."""
    folder.mkdir(parents=True)
    folds = []
    for i in range(2):
        one = write_run(folder / f"fold-{i}", seed=i, rows=120, table=None if i == 0 else folder / "fold-0-table")
        scores = json.loads((one / "metrics.json").read_text())["parts"]["test"]["metrics"]
        folds.append({"fold": i, "folder": one.name, "metrics": {k: m["value"] for k, m in scores.items()}})
    names = list(folds[0]["metrics"])
    values = {n: [f["metrics"][n] for f in folds] for n in names}
    mean, std = ({n: float(f(v)) for n, v in values.items()} for f in (np.mean, np.std))
    whole = {"task": "classification", "metric": "auroc", "folds": folds, "mean": mean, "std": std}
    _write(folder / "folds.json", finite(whole))
    return folder


@pytest.fixture(name="write_run")
def _write_run() -> Callable[..., Path]:
    return write_run


@pytest.fixture(name="write_folds")
def _write_folds() -> Callable[[Path], Path]:
    return write_folds


@pytest.fixture(scope="session")
def clinic(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A whole run of a classification. Not to be changed by a test: copy it first."""
    return write_run(tmp_path_factory.mktemp("clinic") / "run")
