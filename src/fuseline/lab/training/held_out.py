"""What the model answers on rows that training never saw: the part of profile.json that shows a change of its answers.

Dimensions: N rows, D model width.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from fuseline.data.profile import CategorySketch, NumberSketch
from fuseline.lab.model import FusionModel
from fuseline.lab.steps import steps_of, to_numpy
from fuseline.lab.training.prepare import Prepared
from fuseline.package.files import finite
from fuseline.tasks.decoding import by_steps, complete
from fuseline.tasks.labels import amount_of, answer_text

ROWS = 1000
"""rows answered at most: a few hundred tell a distribution, and large encoders are slow"""
WRITTEN = 128
"""rows whose answer is a text, at most: it costs a step a word"""
SAMPLE = 256
NUMBERS = 32_768
"""numbers of the embedding's sample at most: wide models keep fewer rows, profile.json stays small"""


def held_out_rows(prepared: Prepared) -> tuple[str, np.ndarray]:
    """The test rows, or where there are none the validation rows, or all there is."""
    for part in ("test", "val", "train"):
        rows = prepared.rows(part)
        if len(rows):
            break
    return part, rows


@torch.inference_mode()
def held_out_profile(prepared: Prepared, model: FusionModel) -> dict[str, Any]:
    """`predictions`: shares of the labels and a sketch of the confidences, or sketches of the predicted numbers.
    `embedding`: a seeded sample of fused embeddings. Nothing under a key that is an input's own name."""
    part, rows = held_out_rows(prepared)
    rng = np.random.default_rng(prepared.recipe.training.seed)
    most = WRITTEN if by_steps(prepared.task) else ROWS
    rows = np.sort(rng.choice(rows, min(most, len(rows)), replace=False))
    model.eval()
    device = next(model.parameters()).device
    decoded, embeddings = [], []
    for batch in prepared.reader.batches(rows, max(64, prepared.recipe.training.batch_size)):
        outputs = model({k: v.to(device) for k, v in batch.arrays.items()}, batch.present_BM.to(device))
        arrays = complete(prepared.task, to_numpy(outputs), steps_of(model))
        embeddings.append(arrays.pop("embedding"))
        decoded += prepared.task.decode(arrays)
    of = f"{part} rows"
    out = {
        "predictions": answers_profile(decoded, of),
        "embedding": embedding_profile(np.concatenate(embeddings), rng, of),
    }
    return {k: finite(v) for k, v in out.items() if k not in prepared.parser.names}


def answers_profile(decoded: list[Any], of: str) -> dict[str, Any]:
    """Sketches of the answers. `of`: which rows they are of."""
    return {"kind": "predictions", "rows": len(decoded), "of": of, **_answers(decoded)}


def embedding_profile(embedding_ND: np.ndarray, rng: np.random.Generator, of: str) -> dict[str, Any]:
    """A sample of fused embeddings."""
    rows, width = embedding_ND.shape
    kept = min(SAMPLE, rows, max(2, NUMBERS // width))
    chosen = np.sort(rng.choice(rows, kept, replace=False))
    sample = [[float(f"{v:.4g}") for v in row] for row in embedding_ND[chosen].tolist()]
    return {"kind": "embedding", "rows": rows, "dim": width, "of": of, "sample": sample}


def _answers(decoded: list[Any]) -> dict[str, Any]:
    labels, confidence, numbers = CategorySketch(), NumberSketch("confidence"), NumberSketch("value")
    for answer in decoded:
        if answer.probabilities is not None:
            labels.add(answer_text(answer.value))
            confidence.add(max(answer.probabilities.values()))
        elif (amount := amount_of(answer.value)) is not None:
            numbers.add(amount)
    if labels.count:
        top = labels.to_dict(labels.count)["top"]
        shares = {label: count / labels.count for label, count in top}
        return {"labels": shares, "confidence": confidence.to_dict(labels.count)}
    return {"value": numbers.to_dict(len(decoded))} if numbers.count else {}
