"""From trained (or frozen) encoders to an estimator over their embeddings: boosted trees, or a linear one.

Dimensions: N rows, M inputs, D an encoder's width, O linear answers, F features.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import safe_open
from safetensors.numpy import load_file

from fuseline.errors import FuselineError
from fuseline.lab.encoders.tabular import Scaler
from fuseline.lab.model import FusionModel
from fuseline.lab.stacked.boost import BINS, Rows, boost
from fuseline.lab.stacked.embed import Embedded, embed
from fuseline.lab.stacked.fusion import CODE_WIDTH, StackedFusion
from fuseline.lab.stacked.head import TreeHead
from fuseline.lab.stacked.linear import LinearHead, SideBySide
from fuseline.lab.stacked.options import TreesConfig, estimators, stacked_config
from fuseline.lab.stacked.probe import fit_linear, hidden_copies
from fuseline.lab.stacked.raw import RawTable
from fuseline.lab.stacked.reduce import reduce
from fuseline.lab.training.checkpoint import save_weights
from fuseline.lab.training.prepare import Prepared
from fuseline.modalities.tabular import ABSENT
from fuseline.package.files import finite
from fuseline.progress import Voice
from fuseline.tasks.classification import Classification
from fuseline.tasks.regression import Regression

FILE = "stacked.safetensors"
Arrays = dict[str, np.ndarray]


@dataclass
class Stacked:
    """The model whose answers are the estimator's, and what is told of it."""

    model: FusionModel
    value: float | None
    """the watched metric on validation rows; None where there are none, or where they leave it undefined"""
    higher_is_better: bool
    facts: dict[str, Any]


@dataclass
class Fitted:
    """One estimator: `arrays` are what :func:`build_stacked` reads."""

    arrays: Arrays
    value: float | None
    higher_is_better: bool
    facts: dict[str, Any]


def stack(prepared: Prepared, base: FusionModel, folder: Path, voice: Voice, *, metric: str) -> Stacked:
    """Embed the training and validation rows by `base`'s encoders, then fit what shall answer from that. What
    `folder`/checkpoints holds of it already is taken from there.

    Raises FuselineError ``trees_unreadable``, ``diverged``.
    """
    checkpoints = folder / "checkpoints"
    checkpoints.mkdir(exist_ok=True)
    file, chunks = checkpoints / FILE, checkpoints / "embeddings"
    if not file.exists():
        _fit(prepared, base, file, chunks, voice, metric)
    shutil.rmtree(chunks, ignore_errors=True)
    with safe_open(file, "np") as opened:
        said = json.loads(opened.metadata()["said"])
    value, up = said.pop("value"), said.pop("higher_is_better")
    return Stacked(build_stacked(prepared, base, load_file(file)), value, up, said)


def build_stacked(prepared: Prepared, base: FusionModel, arrays: Mapping[str, np.ndarray]) -> FusionModel:
    """The model from its saved arrays, with `base`'s encoders; tables are read as they are."""
    parts = [_own(arrays, f"parts.{m}.") for m in range(len(base.names))]
    tables = _tables(prepared)
    encoders: list[Any] = [tables.get(name, own) for name, own in zip(base.names, base.encoders, strict=True)]
    fusion: StackedFusion | SideBySide
    head: TreeHead | LinearHead
    if linear := _own(arrays, "linear."):
        fusion, head = SideBySide(parts, names=base.names), LinearHead(prepared.task, linear)
    else:
        fusion, head = StackedFusion(parts, names=base.names), TreeHead(prepared.task, _own(arrays, "trees."))
    device = next(base.parameters()).device
    return FusionModel(base.names, encoders, fusion, head, width=0, dropout=0.0).to(device).eval()


def _own(arrays: Mapping[str, np.ndarray], prefix: str) -> Arrays:
    return {key.removeprefix(prefix): value for key, value in arrays.items() if key.startswith(prefix)}


def _tables(prepared: Prepared) -> dict[str, RawTable]:
    plans = prepared.plans
    return {n: RawTable(prepared.parser.modalities[n]) for n in plans if plans[n].modality == "tabular"}


def _fit(prepared: Prepared, base: FusionModel, file: Path, chunks: Path, voice: Voice, metric: str) -> None:
    spec = prepared.recipe.training
    rows = {part: own for part in ("train", "val") if len(own := prepared.rows(part))}
    tables, size = _tables(prepared), max(64, spec.batch_size)
    seen = {
        part: embed(base, tables, prepared.reader, own, chunks, batch_size=size, voice=voice, title=f"embedding {part}")
        for part, own in rows.items()
    }
    groups_N = None if prepared.groups is None else prepared.groups[rows["train"]]
    fits: dict[str, Fitted] = {}
    for kind in estimators(prepared.recipe, prepared.task):
        if kind == "trees":
            fits[kind] = _trees(prepared, base, seen, groups_N, voice, metric)
        else:
            line = fit_linear(prepared, base.names, seen, groups_N, kind, voice)
            fits[kind] = Fitted(line.arrays, *_judged(prepared, seen, line.answer, line.val_NF, metric), line.facts)
    kind = best_of({k: f.value for k, f in fits.items()}, next(iter(fits.values())).higher_is_better)
    chosen = fits[kind]
    said = {
        "value": chosen.value,
        "higher_is_better": chosen.higher_is_better,
        "estimator": kind,
        "estimators": {k: f.value for k, f in fits.items()} if len(fits) > 1 else {},
        **chosen.facts,
    }
    arrays = {k: torch.from_numpy(np.ascontiguousarray(v)) for k, v in chosen.arrays.items()}
    save_weights(arrays, file, said=json.dumps(said))


def best_of(values: Mapping[str, float | None], higher: bool) -> str:
    """The best one's name; of equals the first, where none is defined too."""
    names = list(values)
    for name, value in values.items():
        own = values[names[0]]
        if value is not None and (own is None or (value > own if higher else value < own)):
            names.insert(0, name)
    return names[0]


def _judged(
    prepared: Prepared,
    seen: Mapping[str, Embedded],
    answer: Callable[[torch.Tensor], dict[str, torch.Tensor]],
    features_NF: np.ndarray | None,
    metric: str,
) -> tuple[float | None, bool]:
    """The metric on validation rows, and whether more of it is better."""
    if features_NF is None:
        return None, True
    with torch.no_grad():
        out = answer(torch.from_numpy(features_NF))
    scores = prepared.task.score(seen["val"].targets, {k: v.numpy() for k, v in out.items()}, details=False)
    return finite(float(scores.metrics[metric].value)), scores.metrics[metric].higher_is_better


def _trees(
    prepared: Prepared,
    base: FusionModel,
    seen: Mapping[str, Embedded],
    groups_N: np.ndarray | None,
    voice: Voice,
    metric: str,
) -> Fitted:
    spec, task = prepared.recipe.training, prepared.task
    config = stacked_config(prepared.recipe).trees
    parts, held_out = _parts(prepared, seen["train"], groups_N, config, spec.seed)
    fusion = StackedFusion(parts, names=base.names)
    features = {part: _features(fusion, own) for part, own in seen.items()}
    for part, own_NF in features.items():
        if np.isinf(own_NF).any():
            raise FuselineError("diverged", f"an encoder gave infinite numbers for a {part} row", "train it again")
    # Of training rows, linear answers by models that did not see them: others would look surer than they are.
    features["train"] = _replaced(fusion, features["train"], held_out, seen["train"].present_NM)
    voice.say(f"boosting trees over {features['train'].shape[1]} features")
    shown = with_hidden(features["train"], seen["train"], fusion.owners, spec.seed)
    val = seen.get("val")
    checked = None if val is None else Rows(features["val"], val.targets, np.ones(len(val.targets)))
    made = boost(task, shown, checked, config, categories=fusion.categories, seed=spec.seed)
    value, up = _judged(prepared, seen, TreeHead(task, made.arrays).answer, features.get("val"), metric)
    facts = {
        "features": features["train"].shape[1],
        "rounds": made.rounds,
        "trees": len(made.arrays["root_T"]),
    }
    arrays = {f"trees.{k}": v for k, v in made.arrays.items()}
    arrays |= {f"parts.{m}.{k}": v for m, own in enumerate(parts) for k, v in own.items()}
    return Fitted(arrays, value, up, facts)


def _parts(
    prepared: Prepared, train: Embedded, groups_N: np.ndarray | None, config: TreesConfig, seed: int
) -> tuple[list[Arrays], list[np.ndarray]]:
    """The arrays of each input's part, and the linear answers (rows that have it, O) of what is embedded."""
    wanted_NO = _wanted(prepared, train.targets) if config.probe else None
    parts: list[Arrays] = []
    held_out: list[np.ndarray] = []
    for m, (name, pooled_ND) in enumerate(zip(prepared.plans, train.pooled, strict=True)):
        if prepared.plans[name].modality == "tabular":
            parts.append(_table(prepared.parser.modalities[name], pooled_ND[train.present_NM[:, m]], seed + m))
            held_out.append(np.zeros((0, 0)))
            continue
        here = train.present_NM[:, m]
        arrays, answers = reduce(
            pooled_ND[here],
            None if wanted_NO is None else wanted_NO[here],
            None if groups_N is None else groups_N[here],
            components=config.components,
            seed=seed,
        )
        parts.append(arrays)
        held_out.append(answers)
    return parts, held_out


def _wanted(prepared: Prepared, targets: np.ndarray) -> np.ndarray:
    """What linear answers shall meet (N, O): 1 for a row's class, or the targets in standard units."""
    task = prepared.task
    if isinstance(task, Regression):
        return np.asarray((targets - np.array(task.mean)) / np.array(task.std))
    if targets.ndim == 2:
        return targets.astype(np.float64)
    assert isinstance(task, Classification)
    return np.asarray(np.eye(len(task.classes))[targets.astype(int)])


def _table(modality: Any, cells_ND: np.ndarray, seed: int) -> Arrays:
    """A table's part: each category's values that training rows have are numbered; others are missing to the trees."""
    cards = modality.cardinalities
    widest = max(cards, default=2)
    code_CV = np.full((len(cards), widest), np.nan)
    for c in range(len(cards)):
        index, count = np.unique(cells_ND[:, c].astype(int), return_counts=True)
        count, index = count[index != ABSENT], index[index != ABSENT]
        often = np.sort(index[np.argsort(-count, kind="stable")[: BINS - 1]])
        code_CV[c, often] = np.arange(len(often))
    vector_CVE = np.random.default_rng(seed).normal(size=(len(cards), widest, CODE_WIDTH)) / np.sqrt(CODE_WIDTH)
    vector_CVE[:, ABSENT] = 0.0
    quantiles_NQ = np.asarray(modality.quantiles, dtype=np.float64)
    scaler = Scaler(quantiles_NQ, np.asarray(modality.std)) if len(quantiles_NQ) else None
    arrays = {
        "code_CV": code_CV,
        "vector_CVE": vector_CVE,
        "centre_N": np.zeros(0) if scaler is None else scaler.centre.numpy(),
        "scale_N": np.zeros(0) if scaler is None else scaler.scale.numpy(),
    }
    return {k: v.astype(np.float32) for k, v in arrays.items()}


@torch.no_grad()
def _features(fusion: StackedFusion, rows: Embedded) -> np.ndarray:
    pooled = [torch.from_numpy(v) for v in rows.pooled]
    return fusion.features(pooled, torch.from_numpy(rows.present_NM))[0].numpy()


def _replaced(
    fusion: StackedFusion, features_NF: np.ndarray, held_out: list[np.ndarray], present_NM: np.ndarray
) -> np.ndarray:
    out = features_NF.copy()
    for m, answers in enumerate(held_out):
        if answers.shape[1]:
            places = np.flatnonzero(fusion.owners == m)[-answers.shape[1] - 1 : -1]  # behind them stands its presence
            out[np.ix_(present_NM[:, m], places)] = answers
    return out


def with_hidden(features_NF: np.ndarray, rows: Embedded, owner_F: np.ndarray, seed: int) -> Rows:
    """The rows, and again those of which chance hides an input or more; one always stays (ModDrop, Neverova et al.
    2016). Trees that never met a row without an input would send it wherever most rows went."""
    again, hidden_AM = hidden_copies(rows.present_NM, seed)
    copy_NF = np.where(hidden_AM[:, owner_F], np.nan, features_NF[again])
    presence = slice(features_NF.shape[1] - hidden_AM.shape[1], None)
    copy_NF[:, presence] = rows.present_NM[again] & ~hidden_AM
    targets = np.concatenate([rows.targets, rows.targets[again]])
    return Rows(np.concatenate([features_NF, copy_NF]), targets, np.ones(len(targets)))
