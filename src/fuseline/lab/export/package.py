"""Write, seal and verify NAME.fuse/ from a trained model."""

from __future__ import annotations

import copy
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import torch

import fuseline
from fuseline.lab.encoders.tuning import merge_lora
from fuseline.lab.export.card import model_card
from fuseline.lab.export.graph import export_graph
from fuseline.lab.export.parity import replay
from fuseline.lab.model import FusionModel
from fuseline.lab.stacked.steady import steady_rows
from fuseline.lab.steps import steps_of, to_numpy
from fuseline.modalities.rows import RowParser
from fuseline.package import Package, write_package
from fuseline.package.files import finite, replace_folder
from fuseline.recipe import Recipe, dump_recipe
from fuseline.runtime import load
from fuseline.tasks import Task
from fuseline.tasks.decoding import complete


@torch.no_grad()
def expected_outputs(
    model: FusionModel, parser: RowParser, rows: Sequence[Mapping[str, Any]], batch: int = 8, *, task: Task
) -> dict[str, np.ndarray]:
    """The trained model's own outputs for parsed rows, after all steps where it answers by steps."""
    parts: list[dict[str, np.ndarray]] = []
    for start in range(0, len(rows), batch):
        arrays = parser.arrays(rows[start : start + batch])
        present = torch.from_numpy(arrays.pop("present"))
        out = model({k: torch.from_numpy(v) for k, v in arrays.items()}, present)
        parts.append(complete(task, to_numpy(out), steps_of(model)))
    return {k: np.concatenate([p[k] for p in parts]) for k in parts[0]}


def export_package(
    model: FusionModel,
    *,
    recipe: Recipe,
    parser: RowParser,
    task: Task,
    rows: Sequence[Mapping[str, Any]],
    target: Path,
    name: str,
    run: Mapping[str, Any],
    metrics: Mapping[str, Any],
    profile: Mapping[str, Any],
    extra: Mapping[str, Any] = MappingProxyType({}),
    texts: Mapping[str, str] = MappingProxyType({}),
) -> Package:
    """Write the package beside `target`, replay `rows` (parsed) through it without torch, and only then put it there.

    `extra`: more JSON members by name; `texts`: others.

    Raises FuselineError ``export_failed`` or ``parity``; then `target` is as it was.
    """
    model = copy.deepcopy(model).cpu().float().eval()
    merge_lora(model)
    rows = [*rows, dict.fromkeys(parser.names)]  # a row without anything must agree, too
    for hidden in parser.names[: len(rows) - 1]:
        rows.append({**rows[0], hidden: None})
    rows, unsteady = steady_rows(model, parser, rows)
    expected = expected_outputs(model, parser, rows, task=task)
    new = target.with_name(target.name + ".new")
    shutil.rmtree(new, ignore_errors=True)
    new.mkdir(parents=True)
    try:
        export_graph(model, parser.modalities, new)
        for member, text in texts.items():
            (new / member).write_text(text, encoding="utf-8")

        def seal(parity: Mapping[str, Any]) -> Package:
            return write_package(
                new,
                name=name,
                recipe_yaml=dump_recipe(recipe),
                columns=parser.states(),
                task={"kind": task.name, "state": task.state()},
                extra={
                    "profile.json": finite(profile),
                    "metrics.json": finite(metrics),
                    "parity.json": finite(parity),
                    **extra,
                },
                card=model_card(name, run, metrics, parity, recipe.notice),
                fuseline_version=fuseline.__version__,
            )

        unproven = {"rows": 0, "max_abs_difference": 0.0, "tolerance": recipe.evaluation.tolerance}
        seal(unproven)
        parity = replay(load(new), rows, expected, tolerance=recipe.evaluation.tolerance)
        if unsteady:
            parity["left_out"] = unsteady
        seal(parity)
        replace_folder(new, target)
    finally:
        shutil.rmtree(new, ignore_errors=True)
    from fuseline.package import read_package

    return read_package(target)
