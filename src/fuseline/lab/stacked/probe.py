"""From embeddings to a linear estimator. Dimensions: N rows, A copies, M inputs, D an encoder's width, N numbers,
C categories, V values of a category, W kept values of all, F features.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fuseline.errors import FuselineError
from fuseline.lab.encoders.tabular import Scaler
from fuseline.lab.stacked.boost import Rows
from fuseline.lab.stacked.embed import Embedded
from fuseline.lab.stacked.fewshot import Linear, linear_probe, prototypes
from fuseline.lab.stacked.linear import LinearHead, SideBySide
from fuseline.lab.stacked.options import stacked_config
from fuseline.lab.training.prepare import Prepared
from fuseline.modalities.tabular import ABSENT
from fuseline.progress import Voice
from fuseline.tasks.classification import Classification

HIDDEN_SHARE = 0.15
"""chance that an input is hidden in a row's second copy, so that an estimator knows rows without it"""
MOST_VALUES = 32
"""of a category that have a place of their own: the most frequent ones"""
WORDS = {"linear_probe": "fitting a linear probe", "prototypes": "class means"}
Arrays = dict[str, np.ndarray]


@dataclass
class Probed:
    """`arrays` as a run keeps them; `answer` of features; those of validation rows, where there are some."""

    arrays: Arrays
    answer: Callable[[Tensor], dict[str, Tensor]]
    val_NF: np.ndarray | None
    facts: dict[str, Any]


def fit_linear(
    prepared: Prepared,
    names: Sequence[str],
    seen: Mapping[str, Embedded],
    groups_N: np.ndarray | None,
    kind: str,
    voice: Voice,
) -> Probed:
    """`linear_probe` or `prototypes` over the embeddings in `seen`. Raises FuselineError ``diverged``."""
    task, seed, config = prepared.task, prepared.recipe.training.seed, stacked_config(prepared.recipe).linear
    assert isinstance(task, Classification)
    train, val = seen["train"], seen.get("val")
    parts = [
        coded(prepared.parser.modalities[name], pooled_ND[train.present_NM[:, m]])
        if prepared.plans[name].modality == "tabular"
        else centred(pooled_ND[train.present_NM[:, m]], unit=config.distance == "cosine")
        for m, (name, pooled_ND) in enumerate(zip(names, train.pooled, strict=True))
    ]
    fusion = SideBySide(parts, names=tuple(names))
    features = {part: features_of(fusion, own) for part, own in seen.items()}
    for part, own_NF in features.items():
        if not np.isfinite(own_NF).all():
            raise FuselineError("diverged", f"an encoder gave infinite numbers for a {part} row", "train it again")
    voice.say(f"{WORDS[kind]} over {features['train'].shape[1]} features")
    rows = Rows(features["train"], train.targets, np.ones(len(train.targets)))
    made: Linear
    if kind == "prototypes":
        judged = None if val is None else Rows(features["val"], val.targets, np.ones(len(val.targets)))
        euclidean = config.distance == "euclidean"
        made = prototypes(task, rows, train.present_NM, fusion.owners, judged, euclidean=euclidean)
    else:
        again, hidden_AM = hidden_copies(train.present_NM, seed)
        copy_NF = np.where(hidden_AM[:, fusion.owners], 0.0, features["train"][again]).astype(np.float32)
        targets = np.concatenate([train.targets, train.targets[again]])
        source_N = np.concatenate([np.arange(len(train.targets)), again])
        # A row and its copy count as one row: of a class of one row, a copy would else make it twice as frequent.
        counts_N = 1 / np.bincount(source_N)[source_N]
        shown = Rows(np.concatenate([features["train"], copy_NF]), targets, counts_N)
        made = linear_probe(task, shown, source_N, groups_N, seed=seed)
    arrays = {f"linear.{k}": v for k, v in made.arrays.items()}
    arrays |= {f"parts.{m}.{k}": v for m, own in enumerate(parts) for k, v in own.items()}
    head = LinearHead(task, made.arrays)
    return Probed(arrays, head.answer, features.get("val"), {"features": fusion.owners.size, **made.facts})


@torch.no_grad()
def features_of(fusion: SideBySide, rows: Embedded) -> np.ndarray:
    pooled = [torch.from_numpy(v) for v in rows.pooled]
    return fusion.features(pooled, torch.from_numpy(rows.present_NM)).numpy()


def hidden_copies(present_NM: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Which rows (A,) are shown again, and which of their inputs are hidden then (A, M); one always stays (ModDrop,
    Neverova et al. 2016)."""
    rng = np.random.default_rng(seed)
    hidden_NM = present_NM & (rng.random(present_NM.shape) < HIDDEN_SHARE)
    hidden_NM[(present_NM & ~hidden_NM).sum(axis=1) == 0] = False
    again = np.flatnonzero(hidden_NM.any(axis=1))
    return again, hidden_NM[again]


def centred(pooled_ND: np.ndarray, *, unit: bool) -> Arrays:
    """Arrays of `Centred`, from the training rows that have the input."""
    x_ND = pooled_ND.astype(np.float64)
    mean_D = x_ND.mean(axis=0) if len(x_ND) else np.zeros(x_ND.shape[1])
    length = float(np.sqrt(((x_ND - mean_D) ** 2).sum(axis=1).mean())) if len(x_ND) else 0.0
    small = 1e-6 * max(1.0, float(np.linalg.norm(mean_D)))  # all rows alike: what is left is rounding
    out = {"mean_D": mean_D, "length_1": np.array([length if length > small else 1.0]), "unit_1": np.array([unit])}
    return {k: v.astype(np.float32) for k, v in out.items()}


def coded(modality: Any, cells_ND: np.ndarray) -> Arrays:
    """Arrays of `Coded`, from the training rows that have the table's input."""
    cards = modality.cardinalities
    widest = max(cards, default=1)
    often = []
    for c in range(len(cards)):
        index, count = np.unique(cells_ND[:, c].astype(int), return_counts=True)
        count, index = count[index != ABSENT], index[index != ABSENT]
        often.append(np.sort(index[np.argsort(-count, kind="stable")[:MOST_VALUES]]))
    kept_CVW = np.zeros((len(cards), widest, sum(map(len, often))))
    at = 0
    for c, values in enumerate(often):
        kept_CVW[c, values, at + np.arange(len(values))] = 1.0
        at += len(values)
    quantiles_NQ = np.asarray(modality.quantiles, dtype=np.float64)
    scaler = Scaler(quantiles_NQ, np.asarray(modality.std)) if len(quantiles_NQ) else None
    cells = max(1, len(cards) + len(quantiles_NQ))
    out = {
        "kept_CVW": kept_CVW,
        "centre_N": np.zeros(0) if scaler is None else scaler.centre.numpy(),
        "scale_N": np.zeros(0) if scaler is None else scaler.scale.numpy(),
        "share_1": np.array([1 / np.sqrt(cells)]),  # so that a table counts about as much as another input
    }
    return {k: v.astype(np.float32) for k, v in out.items()}
