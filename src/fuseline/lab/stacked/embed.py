"""Mean tokens of rows, kept on disk as they are made: an interrupt repeats one chunk.

Dimensions: N rows, M inputs, D an encoder's width.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file

from fuseline.lab.fusion.parts import Intake
from fuseline.lab.model import FusionModel, own_arrays
from fuseline.lab.stacked.fusion import pool
from fuseline.lab.stacked.raw import RawTable
from fuseline.lab.training.checkpoint import save_weights
from fuseline.lab.training.reader import Reader
from fuseline.progress import Voice

CHUNK = 256
"""rows of a file"""


@dataclass
class Embedded:
    """Rows as their inputs' mean tokens (N, D each), which inputs each has, and its encoded target."""

    pooled: list[np.ndarray]
    present_NM: np.ndarray
    targets: np.ndarray


@torch.inference_mode()
def embed(
    model: FusionModel,
    tables: Mapping[str, RawTable],
    reader: Reader,
    rows: np.ndarray,
    folder: Path,
    *,
    batch_size: int,
    voice: Voice,
    title: str,
) -> Embedded:
    """`model`: its encoders are read, but those of `tables`, whose cells are taken as they are. `folder`: of the
    chunks; those it holds are not made again.

    The caller takes the folder away once what follows from it is saved, and before encoders change.
    """
    folder.mkdir(parents=True, exist_ok=True)
    model.eval()
    chunks = []
    with voice.track(title, len(rows)) as advance:
        for start in range(0, len(rows), CHUNK):
            own = rows[start : start + CHUNK]
            path = folder / f"{hashlib.sha256(own.tobytes()).hexdigest()[:16]}.safetensors"
            if not path.exists():
                save_weights(_chunk(model, tables, reader, own, batch_size), path)
            chunks.append(load_file(path))
            advance(len(own))
    joined = {key: torch.cat([c[key] for c in chunks]).numpy() for key in chunks[0]}
    return Embedded([joined[f"pooled.{m}"] for m in range(len(model.names))], joined["present"], joined["targets"])


def _chunk(
    model: FusionModel, tables: Mapping[str, RawTable], reader: Reader, rows: np.ndarray, size: int
) -> dict[str, torch.Tensor]:
    device = next(model.parameters()).device
    parts: list[dict[str, torch.Tensor]] = []
    for batch in reader.batches(rows, size):
        assert batch.targets is not None
        arrays = {k: v.to(device) for k, v in batch.arrays.items()}
        tokens = model.encoded(arrays)
        for name, table in tables.items():
            tokens[name] = table(**own_arrays(name, arrays))
        pooled, present_BM = pool(Intake(model.names, 0.0), tokens, batch.present_BM.to(device))
        own = {f"pooled.{m}": v.float().cpu() for m, v in enumerate(pooled)}
        parts.append({**own, "present": present_BM.cpu(), "targets": batch.targets})
    return {key: torch.cat([p[key] for p in parts]) for key in parts[0]}
