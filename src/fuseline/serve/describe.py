"""What the doors may tell of a package, read from its fitted state."""

from __future__ import annotations

from typing import Any, cast

from fuseline.runtime import Predictor
from fuseline.serve.calls import ColumnInfo, ColumnKind, ModelInfo

MOST_VALUES = 200


def describe(predictor: Predictor, name: str | None = None) -> ModelInfo:
    """The package's columns, answer and version. `name`: what it is served as; default: its own name."""
    package, task = predictor.package, predictor.task
    recipe = package.recipe
    columns = []
    for key, spec in recipe.inputs.items():
        state = package.columns[key]["state"]
        known = dict(state.get("categories", ()))
        for column in recipe.columns_of(key):
            kind = cast(ColumnKind, (spec.columns or {}).get(column, spec.modality))
            values = tuple(str(v) for v in known.get(column, ())[:MOST_VALUES])
            columns.append(ColumnInfo(column, kind, key, spec.required, values))
    metrics = package.read_json("metrics.json") or {}
    return ModelInfo(
        name=name or package.name,
        version=package.version,
        task=task.name,
        mode=task.mode,
        classes=tuple(getattr(task, "labels", ())),
        targets=tuple(task.columns),
        inputs={key: spec.modality for key, spec in recipe.inputs.items()},
        columns=tuple(columns),
        bytes=package.bytes,
        fuseline=str(package.manifest.get("fuseline", "")),
        backend=predictor.backend_kind,
        metric=str(metrics.get("metric", "")),
        metrics=_scores(metrics),
        notice=" ".join((recipe.notice or "").split()),
        profile=package.read_json("profile.json"),
    )


def _scores(metrics: dict[str, Any]) -> dict[str, float]:
    parts = metrics.get("parts", {})
    part = parts.get("test") or parts.get("val") or {}
    return {k: float(m["value"]) for k, m in part.get("metrics", {}).items() if m.get("value") is not None}
