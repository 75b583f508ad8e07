"""Small models of every kind to cut, with batches of real rows."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from conformance.subjects import TARGETS, Subject, cases, missing_package

from fuseline.lab.build import build_model, plan_inputs
from fuseline.lab.encoders.tuning import merge_lora
from fuseline.lab.model import FusionModel
from fuseline.lab.training.reader import Batch

Outputs = dict[str, torch.Tensor]


def case_names(*starts: str) -> list[str]:
    """Cases whose packages are installed; `starts` limit their names."""
    return [c.name for c in cases() if missing_package(c) is None and c.name.startswith(starts or "")]


def subject_of(name: str, folder: Path) -> Subject:
    """A case of the conformance suite, its adapters merged as in a package."""
    subject = Subject(next(c for c in cases() if c.name == name), folder)
    merge_lora(subject.model)
    return subject


def batch_of(subject: Subject, rows: int = 6) -> Batch:
    """The first two rows have every input."""
    arrays = subject.parser.arrays([subject.full, subject.other, *subject.rows[: rows - 2]])
    tensors = {name: torch.from_numpy(array) for name, array in arrays.items()}
    present = tensors.pop("present")
    encoded = [subject.task.encode({c: TARGETS[c][i] for c in subject.task.columns}) for i in range(rows)]
    return Batch(tensors, present, torch.from_numpy(np.stack(encoded)), np.arange(rows))


def fresh_of(subject: Subject) -> FusionModel:
    """The same recipe built again: what a package is loaded into."""
    model = build_model(subject.recipe, plan_inputs(subject.recipe), subject.parser.modalities, subject.task)
    merge_lora(model)
    return model.eval()


@torch.no_grad()
def run(model: FusionModel, batch: Batch) -> Outputs:
    outputs: Outputs = model(batch.arrays, batch.present_BM)
    return outputs


def equal(a: Outputs, b: Outputs) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


def trains(model: FusionModel, batch: Batch) -> bool:
    """One step of training: every weight that may change has a finite gradient or none at all."""
    model.train()
    assert batch.targets is not None
    loss = model.head.loss(model(batch.arrays, batch.present_BM), batch.targets)
    torch.autograd.backward(loss)
    found = [w.grad for w in model.parameters() if w.grad is not None]
    model.zero_grad(set_to_none=True)
    model.eval()
    return bool(found) and all(bool(g.isfinite().all()) for g in found)


def marks(model: FusionModel) -> tuple[list[bool], dict[str, bool]]:
    """Modes of the modules, and which weights ask for a gradient."""
    return [m.training for m in model.modules()], {n: w.requires_grad for n, w in model.named_parameters()}
