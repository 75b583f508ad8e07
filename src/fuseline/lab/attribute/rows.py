"""Integrated gradients for the rows of an explanation, from a package's own weights."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from fuseline.errors import FuselineError
from fuseline.explain import quantity as of_answer
from fuseline.explain.explainer import Options
from fuseline.explain.parts import parts_of
from fuseline.explain.schema import Explanation, Inside, PartValue, Quantity
from fuseline.lab.attribute.gather import BASELINES, baselines, edges, gather
from fuseline.lab.attribute.integrated import TOLERANCE, Attribution, Output, integrate
from fuseline.lab.build import plan_inputs
from fuseline.lab.compress.subject import rebuild
from fuseline.lab.model import FusionModel
from fuseline.modalities import MediaRoot, Modality
from fuseline.modalities.graph import Graph
from fuseline.modalities.rows import RowParser
from fuseline.package import Package
from fuseline.runtime import Answer
from fuseline.tasks import Task, task_class
from fuseline.tasks.classification import Classification
from fuseline.tasks.regression import Regression

FAR = 1e-2
"""a probability further than this from the package's (or a number by that share) was not answered by this model"""


def attribute_rows(
    package: Package,
    rows: Sequence[Explanation],
    cells: Sequence[Mapping[str, Any]],
    *,
    media: MediaRoot,
    inside: bool | Sequence[str] = True,
    grid: int = 8,
    most_parts: int = 64,
) -> list[Explanation]:
    """The explanations with `inside` by integrated gradients.

    Raises FuselineError ``already_quantised``, ``cannot_rebuild``, ``cannot_explain`` where the answer is neither of a
    classification nor of a regression.
    """
    parser = RowParser.from_states(package.recipe, package.columns)
    Options(inside=inside, grid=grid, most_parts=most_parts).check(parser)
    task: Task = task_class(package.task["kind"]).from_state(package.task["state"])
    if not isinstance(task, (Classification, Regression)):
        raise FuselineError(
            "cannot_explain", f"gradients of a {task.name} are not told", "leave --gradients out: parts are hidden then"
        )
    model = rebuild(package, plan_inputs(package.recipe), parser, task)
    for weight in model.parameters():
        weight.requires_grad_(False)
    chosen = Options(inside=inside, grid=grid, most_parts=most_parts)
    return [
        row if row.error is not None else _attributed(model, parser, task, row, own, media, chosen)
        for row, own in zip(rows, cells, strict=True)
    ]


def _attributed(
    model: FusionModel,
    parser: RowParser,
    task: Classification | Regression,
    row: Explanation,
    cells: Mapping[str, Any],
    media: MediaRoot,
    options: Options,
) -> Explanation:
    assert row.of is not None
    assert row.quantity is not None
    parsed = parser.parse(cells, media, row.row)
    arrays = {key: torch.from_numpy(value) for key, value in parser.arrays([parsed.values]).items()}
    present_BM = arrays.pop("present")
    output = output_of(task, row.of)
    with torch.no_grad():
        outputs = model(arrays, present_BM)
        bare = float(output(outputs)[0])
    [decoded] = task.decode({key: value.numpy() for key, value in outputs.items()})
    ours = of_answer.read(row.of, Answer(decoded.value, decoded.probabilities, details=decoded.details))
    if abs(ours - row.quantity) > FAR * max(1.0, abs(row.quantity)):
        raise FuselineError(
            "cannot_rebuild",
            f"the model built from the recipe says {ours:.4g}, its package {row.quantity:.4g}",
            "did a pretrained encoder change since? leave --gradients out",
            row=row.row,
        )
    found: list[Inside] = []
    notes = list(row.notes)
    if abs(bare - ours) > TOLERANCE:
        notes.append(f"gradients are of the probability before it is calibrated, {bare:.3f}")
    unit = 1.0 if row.of.kind == "probability" else abs(row.quantity)
    for name in parser.names:
        value, modality = parsed.values[name], parser.modalities[name]
        if value is None or not options.looks_into(name):
            continue
        if modality.name not in BASELINES:
            notes.append(f"{name} ({modality.name}): gradients are not told; leave --gradients out")
            continue
        attribution = integrate(model, arrays, present_BM, name, baselines(modality, value), output, unit=unit)
        if attribution is None:
            notes.append(f"{name}: its encoder has nothing that gradients reach")
            continue
        if abs(attribution.gap) > TOLERANCE * max(unit, abs(attribution.change)):
            notes.append(
                f"{name}: not complete to {TOLERANCE:g} after {attribution.steps} steps, off by {attribution.gap:.2g}"
            )
        for kind, values, text in _parts(modality, model, name, parser.cells(name, cells), value, attribution, options):
            found.append(
                Inside(
                    input=name,
                    modality=modality.name,
                    method="integrated gradients",
                    unit=kind,
                    hidden=BASELINES[modality.name],
                    parts=tuple(values),
                    text=text,
                    outputs=attribution.steps,
                    gap=attribution.gap,
                )
            )
    return row.model_copy(update={"inside": tuple(found), "notes": tuple(notes)})


def _parts(
    modality: Modality,
    model: FusionModel,
    name: str,
    cells: Mapping[str, Any],
    value: Any,
    attribution: Attribution,
    options: Options,
) -> Iterator[tuple[str, list[PartValue], str | None]]:
    """(unit, parts, text) of every way to divide the value."""
    if isinstance(modality, Graph):
        entity = torch.from_numpy(modality.collate([value])["entity"])
        yield (
            "edge",
            edges(modality, model.encoders[model.names.index(name)], entity, attribution, options.most_parts),
            None,
        )
        return
    for parts in parts_of(modality, cells, value, grid=options.grid, most=options.most_parts):
        yield parts.unit, gather(modality, parts, attribution), parts.text


def output_of(task: Classification | Regression, of: Quantity) -> Output:
    """The explained number in the model's outputs, with a graph for gradients."""
    if isinstance(task, Regression):
        place = 0 if of.target is None else list(task.columns).index(of.target)
        return lambda outputs: outputs["prediction"][:, place]
    place = task.labels.index(str(of.label))

    def chance(outputs: Mapping[str, Tensor]) -> Tensor:
        logits_BC = outputs["logits"].float()
        chances_BC = logits_BC.sigmoid() if task.mode == "multilabel" else logits_BC.softmax(dim=-1)
        return chances_BC[:, place]

    return chance
