"""One model of every kind in the tables, untrained, with rows to run it on.

A new modality, encoder, fusion or task is found through its table. It needs a line here only where it cannot be built
from its defaults (an encoder that loads a folder), where its cells must be made (a modality, in ``made.py`` too) or
where its target must be named (a task): without that line the suite fails and says what it lacks.
"""

from __future__ import annotations

import importlib.util
import io
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import made
import numpy as np
import soundfile
import torch
import writers
from lab.encoders import tiny

from fuseline.data.table import Table
from fuseline.lab.build import AUTO, build_model, plan_inputs
from fuseline.lab.encoders import ENCODERS, SETS, encoder_class
from fuseline.lab.export import export_package
from fuseline.lab.export.package import expected_outputs
from fuseline.lab.fusion import FUSIONS
from fuseline.lab.model import FusionModel
from fuseline.lab.stacked.linear import LinearHead, SideBySide
from fuseline.lab.stacked.probe import centred, coded
from fuseline.lab.stacked.raw import RawTable
from fuseline.lab.training.prepare import read_task
from fuseline.modalities import MediaRoot, modality_class
from fuseline.modalities.rows import RowParser
from fuseline.recipe import parse_recipe
from fuseline.runtime import Predictor, load
from fuseline.tasks import TASKS

Outputs = dict[str, np.ndarray]
Runner = Callable[[Sequence[Mapping[str, Any]]], Outputs]

TOLERANCE = 1e-5
"""Between two batches with the same row in them. Not 0: a matrix product adds up in another order for another batch
size or length, in torch as in onnxruntime, and differs in the last bits of a float32. Relative where |a| > 1."""
PARITY = 1e-4
"""Between torch and the package: other kernels, and a graph that was rewritten."""
WIDTH = 32

INPUT_OF = {spec["modality"]: name for name, spec in made.INPUTS.items()}

ENCODER_OPTIONS: dict[tuple[str, str], dict[str, Any]] = {
    ("text", "minilm"): {"max_length": 12},
    ("image", "efficientnet-lite0"): {"size": 64},
    ("image", "vgg"): {"depth": 11, "batch_norm": True, "size": 32},
    ("video", "small"): {"frame": {"kind": "small", "channels": [8, 16]}, "width": 32, "layers": 1},
    ("document", "small"): {"width": 32, "layers": 1, "patch": 16},
    ("images", "small"): {"channels": [8, 16]},
    ("texts", "small"): {"width": 32},
    ("text", "hf"): {"tune": "lora", "rank": 2},  # adapters must be merged on the way into the package
}
CELL_OPTIONS: dict[tuple[str, str], dict[str, Any]] = {
    # A tiny raw-waveform model has a token every half millisecond, and attention over all of them.
    ("audio", "hf"): {"max_seconds": 0.12, "min_seconds": 0.02},
}
TINY = {"text": tiny.TEXT, "image": tiny.IMAGE, "audio": tiny.AUDIO, "video": ("videomae",)}
"""model folders that stand for `kind: hf`; the first of them is exported, too (their own tests export them all)"""

SAME_GRAPH = {"transe": "rotate", "complex": "rotate"}
"""kinds that differ from another before the training of the task only: that one is exported for them"""

TASK_OPTIONS: dict[str, list[dict[str, Any]]] = {
    "classification": [{"target": "sick"}, {"target": "grade"}, {"target": "labels"}],
    "regression": [{"target": "score"}, {"targets": ["score", "dose"]}],
    "forecast": [{"target": "pulse@next"}, {"target": "pulse@next", "quantiles": [0.25, 0.5], "season": 3}],
    # An untrained model is sure of nothing, and near ties would be cut here and kept there.
    "detection": [{"target": "boxes", "threshold": 0.001, "nms": None, "queries": 4}],
    "generation": [
        {"target": "story", "max_length": 6, "decoder": {"kind": "prefix", "source": "gpt2", "tune": "lora"}},
        {"target": "story", "max_length": 6, "decoder": {"kind": "small", "width": 32}},
        {"target": "story", "max_length": 6, "decoder": {"kind": "seq2seq", "source": "t5", "tune": "full"}},
    ],
    "retrieval": [{"left": ["note"], "right": ["vitals"], "dim": 16}],
    "multi": [
        {
            "tasks": {
                "grade": {"kind": "classification"},
                "numbers": {"kind": "regression", "targets": ["score", "dose"]},
                "pair": {"kind": "retrieval", "left": ["note"], "right": ["vitals"], "dim": 8},
            }
        }
    ],
}
TASK_INPUTS = {"forecast": ("pulse", "vitals"), "detection": ("picture", "note", "vitals")}
"""what a task reads where it needs more than any inputs"""
TARGETS: dict[str, list[Any]] = {
    "sick": ["yes", "no"] * 6,
    "grade": ["mild", "worse", "worst"] * 4,
    "labels": ["cold;cough", "cough", "fever"] * 4,
    "score": [float(i) for i in range(12)],
    "boxes": [[], [{"label": "spot", "xyxy": [10, 8, 22, 30]}, {"label": "mark", "xyxy": [20, 8, 40, 30]}]] * 6,
    "pulse@next": [[[60.0 + i, 70.0 - i], [61.0, None], [62.0 + i, 72.0]] for i in range(12)],
    "story": ["the patient is well", "fever again", "heavy cough 咳嗽", ""] * 3,
    "dose": [1000.0 - 3.5 * i for i in range(12)],
}

RNG = np.random.default_rng(9)


def _sound(seconds: float) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, RNG.normal(0, 0.2, round(seconds * 8000)), 8000, format="WAV")
    return file.getvalue()


# Cells as long and as short as cells get.
LONG = {
    "note": "heavy cough and fever again, " * 40,
    "sound": _sound(1.3),
    "photos": [made.picture(RNG, i % 2) for i in range(4)],
    "ocr": json.dumps([{"text": "heavy cough", "box": [1, 2, 30, 9]}] * 40),
    "remarks": ["heavy cough and fever again, " * 9] * 3,
}
SHORT = {"note": "a", "sound": _sound(0.02), "photos": made.picture(RNG, 1), "remarks": "a", "ocr": None}


@dataclass(frozen=True)
class Case:
    name: str
    encoders: dict[str, str] = field(default_factory=dict)
    """input -> kind; all other inputs of the case are small"""
    inputs: tuple[str, ...] = made.FEW
    folder: str = ""
    """the tiny model folder of `kind: hf`"""
    fusion: str = "attention"
    task: tuple[str, int] = ("classification", 0)
    exported: bool = True
    estimator: bool = False
    """a linear one over the encoders' embeddings answers, instead of the fusion and the task's own head"""


def encoder_cases() -> list[Case]:
    cases = []
    for modality, kinds in ENCODERS.items():
        name = INPUT_OF[modality]
        # The answer must depend on more than the input under test, or its absence would leave nothing to compare.
        inputs = (name, "note" if modality == "tabular" else "vitals")
        for kind in kinds:
            if modality in SETS and kind != "small":
                continue  # one wrapper around encoders that have cases of their own
            folders = TINY[modality] if kind == "hf" else ("",)
            for folder in folders:
                title = "-".join(filter(None, (modality, kind, folder)))
                # Small ones are in the package of every fusion.
                exported = kind != "small" and folder == folders[0] and kind not in SAME_GRAPH
                exported = exported and modality != "video"  # its backbone's own tests export it, and it takes long
                cases.append(Case(title, {name: kind}, inputs, folder, exported=exported))
    return cases


def fusion_cases() -> list[Case]:
    return [Case(f"fusion-{kind}", fusion=kind) for kind in FUSIONS]


def task_cases() -> list[Case]:
    cases = []
    for kind in TASKS:
        inputs = TASK_INPUTS.get(kind, ("note", "vitals"))
        for i in range(len(TASK_OPTIONS[kind])):
            exported = i > 0 or len(TASK_OPTIONS[kind]) == 1
            exported = exported and not (kind == "generation" and i > 1)  # every answer is many steps
            cases.append(Case(f"task-{kind}-{i}", {}, inputs, "", "concat", (kind, i), exported))
    return cases


def cases() -> list[Case]:
    # Exported by tests/lab/stacked, which has a package of it anyway.
    linear = Case("estimator-linear", estimator=True, exported=False)
    return [*encoder_cases(), *fusion_cases(), *task_cases(), linear]


def missing_package(case: Case) -> str | None:
    """The pip package whose weights a case needs and that is not installed."""
    needs = {kind: module for pairs in AUTO.values() for kind, module in pairs}
    modules = [needs[k] for k in case.encoders.values() if k in needs]
    return next((m for m in modules if importlib.util.find_spec(m) is None), None)


def sided(task: dict[str, Any], inputs: Sequence[str]) -> dict[str, Any]:
    """With every input on a side of a retrieval, alone or among several tasks."""
    if task["kind"] == "retrieval":
        return {**task, "left": [n for n in inputs if n not in task["right"]]}
    if "tasks" in task:
        return {**task, "tasks": {name: sided(own, inputs) for name, own in task["tasks"].items()}}
    return task


class Subject:
    """A case built: a fitted, untrained model in eval mode, and rows."""

    def __init__(self, case: Case, folder: Path) -> None:
        self.case, self.folder = case, folder
        self.media = MediaRoot(str(folder))
        options: dict[str, Any] = {"fusion": {"kind": case.fusion, "width": WIDTH}}
        kind, number = case.task
        options["task"] = sided({"kind": kind, **TASK_OPTIONS[kind][number]}, case.inputs)
        if "source" in (decoder := options["task"].get("decoder", {})):  # a tiny language model stands for one
            source = writers.language_model(folder / decoder["source"], decoder["source"])
            options["task"]["decoder"] = {**decoder, "source": str(source)}
        options["inputs"] = {name: self._input(name) for name in case.inputs}
        self.recipe = parse_recipe(made.recipe(**options))
        plans = plan_inputs(self.recipe)
        raw = self._table("some", 34, absent=0.33)
        for i, row in enumerate(raw):  # sounds of every length up to that of CELL_OPTIONS
            if i % 2 and row["sound"]:
                row["sound"] = _sound(0.02 + 0.003 * i)
        self.full_cells = self._table("whole", 2, absent=0.0)
        self.cells = [*raw, *({**self.full_cells[1], **edge} for edge in (LONG, SHORT))]
        modalities = {}
        for name, plan in plans.items():
            columns = self.recipe.inputs[name].columns or dict.fromkeys(self.recipe.columns_of(name), "")
            fitting = ({c: row[c] for c in columns} for row in raw)
            modalities[name] = modality_class(plan.modality).fit(plan.modality_config, columns, fitting, self.media)
        self.parser = RowParser(self.recipe, modalities)
        task, config = read_task(self.recipe)
        self.task = task.fit(config, {c: TARGETS[c] for c in config.columns})
        self.task.check(modalities)
        model = build_model(self.recipe, plans, modalities, self.task)
        if case.estimator:
            model = estimated(model, self.parser, self.task, [self.parsed(row) for row in self.cells])
        self.model = disturbed(model.eval())
        self.names = self.parser.names
        self.rows = [self.parsed(row) for row in self.cells]
        self.full = self.parsed(self.full_cells[0])
        self.other = self.parsed(self.full_cells[1])
        self.long, self.short = self.rows[-2:]
        self.nothing = dict.fromkeys(self.names)

    def _input(self, name: str) -> dict[str, Any]:
        spec = made.INPUTS[name]
        kind = self.case.encoders.get(name, "small")
        options = {"kind": kind, **ENCODER_OPTIONS.get((spec["modality"], kind), {})}
        if kind == "hf":
            options["source"] = str(tiny.make_tiny(self.case.folder, self.folder / self.case.folder))
        if kind == "small":
            return {**spec, "encoder": options}
        cls = encoder_class(spec["modality"], kind)
        known = {k: v for k, v in options.items() if k in cls.Config.model_fields}
        claimed = cls.cell_options(cls.Config(**known))  # what the encoder wants of its cells, it gets
        cells = CELL_OPTIONS.get((spec["modality"], kind), {})
        return {**{k: v for k, v in spec.items() if k not in claimed}, **cells, "encoder": options}

    def _table(self, name: str, rows: int, absent: float) -> list[dict[str, Any]]:
        folder = self.folder / name
        path = made.make_table(folder, rows, seed=len(name), absent=absent)
        made.write_triples(self.folder / "triples.csv")  # the graph of both tables, which are one to the model
        table = Table.open(path)
        cells = Table.rows(table.take(np.arange(rows)))
        for row in cells:
            for column in ("picture", "sound", "clip", "photos", "scan"):
                row[column] = row[column] and ";".join(f"{name}/{path}" for path in row[column].split(";"))
        return cells

    def parsed(self, cells: Mapping[str, Any]) -> dict[str, Any]:
        got = self.parser.parse(cells, self.media)
        assert got.error is None, str(got.error)
        return got.values

    def run(self, rows: Sequence[Mapping[str, Any]]) -> Outputs:
        """The model's own outputs, all rows in one batch."""
        return expected_outputs(self.model, self.parser, rows, batch=len(rows), task=self.task)

    @torch.no_grad()
    def run_arrays(self, arrays: Mapping[str, np.ndarray]) -> Outputs:
        given = {k: torch.from_numpy(v.copy()) for k, v in arrays.items()}
        present = given.pop("present")
        return {k: v.numpy() for k, v in self.model(given, present).items()}

    @cached_property
    def package(self) -> Path:
        """Exported by the lab, replayed and sealed; costs seconds."""
        target = self.folder / "model.fuse"
        export_package(
            self.model,
            recipe=self.recipe,
            parser=self.parser,
            task=self.task,
            rows=self.rows[:6],
            target=target,
            name=self.case.name,
            run={"inputs": []},
            metrics={},
            profile={},
        )
        return target

    @cached_property
    def predictor(self) -> Predictor:
        return load(self.package, threads=1)


def estimated(base: FusionModel, parser: RowParser, task: Any, rows: Sequence[Mapping[str, Any]]) -> FusionModel:
    """The model of a linear estimator over `base`'s encoders, with any weights."""
    encoders, parts = [], []
    for name, encoder in zip(base.names, base.encoders, strict=True):
        modality = parser.modalities[name]
        if modality.name == "tabular":
            cells = RawTable(modality)
            arrays = modality.collate([row[name] for row in rows if row[name] is not None])
            values_B1D = cells(**{k: torch.from_numpy(v) for k, v in arrays.items()}).values_BTD
            encoders.append(cells)
            parts.append(coded(modality, values_B1D[:, 0].numpy()))
        else:
            encoders.append(encoder)
            parts.append(centred(np.random.default_rng(2).normal(size=(20, encoder.width)), unit=len(parts) > 0))
    fusion = SideBySide(parts, names=base.names)
    shape = (len(task.classes), fusion.owners.size)
    weights = {"weight_KF": np.random.default_rng(3).normal(size=shape), "bias_K": np.zeros(shape[0])}
    head = LinearHead(task, {**weights, "seen_K": np.ones(shape[0]), "means_1": np.zeros(1)})
    return FusionModel(base.names, encoders, fusion, head, width=0, dropout=0.0)


def disturbed(model: FusionModel) -> FusionModel:
    """Fresh models have zero biases, adapters and unit norms: a mistake there would not show."""
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.numel() > 1 and bool((parameter == parameter.flatten()[0]).all()):
                parameter += 0.1 * torch.randn(parameter.shape, generator=generator)
    return model


def gap(a: Outputs, b: Outputs, rows_a: Any = slice(None), rows_b: Any = slice(None)) -> float:
    """Largest difference over all outputs, relative where a value exceeds 1."""
    assert a.keys() == b.keys()
    worst = 0.0
    for name in a:
        x, y = a[name][rows_a], b[name][rows_b]
        assert x.shape == y.shape
        assert np.isfinite(x).all()
        assert np.isfinite(y).all()
        worst = max(worst, float((np.abs(x - y) / np.maximum(1.0, np.abs(x))).max(initial=0.0)))
    return worst


def through_json(value: Any) -> Any:
    return json.loads(json.dumps(value, allow_nan=False))
