"""The model's outputs over rows, for every subset of inputs. Dimensions: N rows, M inputs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from fuseline.lab.model import FusionModel
from fuseline.lab.steps import steps_of, to_numpy
from fuseline.lab.training.reader import Reader
from fuseline.progress import Voice
from fuseline.tasks.decoding import complete


@dataclass
class Outputs:
    """What the model says of rows when only some inputs may be seen."""

    rows: np.ndarray
    targets: np.ndarray
    present_NM: np.ndarray
    """what each row really has"""
    by_subset: dict[tuple[str, ...], dict[str, np.ndarray]]

    @property
    def full(self) -> dict[str, np.ndarray]:
        return next(iter(self.by_subset.values()))


@torch.inference_mode()
def run_rows(
    model: FusionModel,
    reader: Reader,
    rows: np.ndarray,
    wanted: Sequence[tuple[str, ...]],
    *,
    batch_size: int,
    voice: Voice,
    title: str,
) -> Outputs:
    """Each row is encoded once; every subset then only fuses."""
    model.eval()
    device = next(model.parameters()).device
    parts: dict[tuple[str, ...], list[dict[str, np.ndarray]]] = {s: [] for s in wanted}
    targets: list[np.ndarray] = []
    present: list[np.ndarray] = []
    with voice.track(title, len(rows)) as advance:
        for batch in reader.batches(rows, batch_size):
            assert batch.targets is not None
            tokens = model.encode({k: v.to(device) for k, v in batch.arrays.items()})
            for subset in wanted:
                allowed = torch.tensor([n in subset for n in model.names])
                outputs = model.answer(tokens, (batch.present_BM & allowed).to(device))
                del outputs["embedding"]
                parts[subset].append(complete(reader.task, to_numpy(outputs), steps_of(model)))
            targets.append(batch.targets.numpy())
            present.append(batch.present_BM.numpy())
            advance(len(batch.rows))
    joined = {s: {k: np.concatenate([p[k] for p in got]) for k in got[0]} for s, got in parts.items()}
    return Outputs(rows, np.concatenate(targets), np.concatenate(present), joined)
