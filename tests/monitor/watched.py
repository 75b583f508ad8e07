"""A made model without a package: its profile, and events as the server tells them to its observers."""

from __future__ import annotations

from typing import Any

import numpy as np

from fuseline.data.profile import CategorySketch, NumberSketch, ProfileBuilder
from fuseline.errors import FuselineError
from fuseline.runtime import Answer
from fuseline.serve.calls import Call, ColumnInfo, Event, ModelInfo, Reply, RowSeen

Drawn = dict[str, Any]
WIDTH = 8


def draw(rng: np.random.Generator) -> Drawn:
    """One row: statistics of its inputs, its answer, its embedding."""
    stats: dict[str, float | str] = {}
    if rng.random() < 0.7:
        stats |= {"picture.brightness": float(rng.normal(0.5, 0.1)), "picture.width": 64.0}
    if rng.random() < 0.8:
        words = float(rng.poisson(12))
        stats |= {"note.tokens": words, "note.unknown": float(rng.random() < 0.05) * float(rng.random())}
    if rng.random() < 0.95:
        stats["vitals.age"] = float(rng.integers(18, 90))
        if rng.random() < 0.9:
            stats["vitals.sex"] = str(rng.choice(["f", "m"], p=[0.55, 0.45]))
        stats["vitals.ward"] = str(rng.choice([f"w{i}" for i in range(40)], p=WARDS))
    sick = float(np.clip(rng.beta(2, 3), 0.01, 0.99))
    return {"stats": stats, "sick": sick, "embedding": rng.normal(size=WIDTH)}


WARDS = np.arange(40, 0, -1) ** 2 / (np.arange(40, 0, -1) ** 2).sum()


def profile(rows: int = 1500, seed: int = 0) -> dict[str, Any]:
    """What an export would write of such rows."""
    rng = np.random.default_rng(seed)
    builder, labels, confidence = ProfileBuilder(), CategorySketch(), NumberSketch("confidence")
    sample = []
    for i in range(rows):
        row = draw(rng)
        for name in ("picture", "note", "vitals"):
            own = {k.split(".")[1]: v for k, v in row["stats"].items() if k.startswith(name + ".")}
            builder.add(name, own or None)
        if i < 500:
            labels.add("yes" if row["sick"] >= 0.5 else "no")
            confidence.add(max(row["sick"], 1 - row["sick"]))
        if i < 256:
            sample.append([float(f"{v:.4g}") for v in row["embedding"]])
    return builder.to_dict() | {
        "errors": {"kind": "errors", "rows": rows, "columns": {"picture": rows // 100}},
        "predictions": {
            "kind": "predictions",
            "rows": 500,
            "labels": {k: n / 500 for k, n in labels.to_dict(500)["top"]},
            "confidence": confidence.to_dict(500),
        },
        "embedding": {"kind": "embedding", "rows": 500, "dim": WIDTH, "sample": sample},
    }


def info(version: str = "v1", name: str = "clinic", **changes: Any) -> ModelInfo:
    columns = (
        ColumnInfo("picture", "image", "picture"),
        ColumnInfo("note", "text", "note"),
        ColumnInfo("age", "number", "vitals"),
        ColumnInfo("sex", "category", "vitals"),
        ColumnInfo("ward", "category", "vitals"),
    )
    fields: dict[str, Any] = {
        "name": name,
        "version": version,
        "task": "classification",
        "mode": "binary",
        "classes": ("no", "yes"),
        "targets": ("sick",),
        "inputs": {"picture": "image", "note": "text", "vitals": "tabular"},
        "columns": columns,
        "bytes": 1000,
        "fuseline": "0",
        "profile": None,
    }
    return ModelInfo(**(fields | changes))


def seen(row: Drawn) -> RowSeen:
    names = ("picture", "note", "vitals")
    used = tuple(n for n in names if any(k.startswith(n + ".") for k in row["stats"]))
    sick = row["sick"]
    answer = Answer(
        "yes" if sick >= 0.5 else "no",
        {"no": 1 - sick, "yes": sick},
        None,
        used,
        tuple(n for n in names if n not in used),
    )
    return RowSeen(answer, row["stats"], tuple(row["embedding"].tolist()))


def failed(column: str | None = "picture", code: str = "bad_cell") -> RowSeen:
    return RowSeen(Answer(error=FuselineError(code, "secret cell", column=column)), {}, None)


def event(
    rows: list[RowSeen],
    request: str = "r1",
    *,
    model: str = "clinic",
    version: str = "v1",
    code: str = "ok",
    door: Any = "rest",
    seconds: float = 0.02,
) -> Event:
    call = Call(model, [{"note": "the secret cell"}] * len(rows), request, door=door)
    answers = tuple(r.answer for r in rows)
    reply = Reply(model, version, request, answers, 0.002, 0.01, (len(rows),)) if code == "ok" else None
    return Event(call, code, seconds, reply, tuple(rows), version)


def events(count: int, *, seed: int, size: int = 5, prefix: str = "r", change: Any = None) -> list[Event]:
    """`count` requests of `size` rows each; `change` spoils a drawn row."""
    rng = np.random.default_rng(seed)
    out = []
    for i in range(count):
        rows = [draw(rng) for _ in range(size)]
        out.append(event([seen(change(r) if change else r) for r in rows], f"{prefix}{i}"))
    return out
