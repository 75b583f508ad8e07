"""What each single cut would cost and save, before anything is healed or exported: quick, in torch, one part at a time.

Dimensions: N rows, M inputs.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from fuseline.errors import FuselineError
from fuseline.lab.compress.candidate import Cut
from fuseline.lab.compress.cutting import Scores, cut_model, layers_kept
from fuseline.lab.compress.names import FUSION
from fuseline.lab.compress.stacks import find_stacks
from fuseline.lab.encoders.base import Encoder
from fuseline.lab.model import FusionModel
from fuseline.lab.tokens import Tokens
from fuseline.lab.training.prepare import Prepared
from fuseline.lab.training.reader import Batch
from fuseline.tasks.paired import agreement

LAYER_SHARES = (0.84, 0.67, 0.5, 0.34, 0.17)
WIDTH_SHARES = (0.75, 0.5, 0.3)
FEW_PARAMETERS = 30_000
"""a part with fewer is not worth a cut"""
LITTLE = 0.02
"""nor one that holds a smaller share than this of the parameters and of the time"""
REPEATS = 5


@dataclass(frozen=True)
class Rung:
    """One step down for one part."""

    part: str
    kind: str
    """layers, widths or vocabulary"""
    share: float
    change: float
    """mean difference of the answers without any healing"""
    parameters: float
    """share of the model's parameters that goes"""
    seconds: float
    """share of the model's time for one row that goes"""

    def applied(self, cut: Cut) -> Cut:
        data = cut.model_dump()
        if self.kind == "vocabulary":
            data["vocabulary"] = (*cut.vocabulary, self.part)
        else:
            data[self.kind] = {**data[self.kind], self.part: self.share}
        return Cut.model_validate(data)

    def words(self) -> str:
        return "used words only" if self.kind == "vocabulary" else f"{self.share:.0%} of {self.kind}"

    def reached(self, cut: Cut) -> bool:
        """Whether a cut is at this rung already, or below it."""
        if self.kind == "vocabulary":
            return self.part in cut.vocabulary
        return bool(getattr(cut, self.kind).get(self.part, 1.0) <= self.share)


class Probe:
    """The model's tokens of some rows, so that a cut of one part runs that part alone."""

    def __init__(
        self, model: FusionModel, prepared: Prepared, batches: Sequence[Batch], calm: Sequence[Batch], scores: Scores
    ) -> None:
        """`batches`: rows that importance is measured on (training rows); `calm`: those that the change is measured on,
        with cells and not tokens; `scores`: see :func:`cut_model`."""
        self.scores = scores
        self.model, self.prepared, self.batches, self.calm = model, prepared, batches, calm
        self.parameters = sum(p.numel() for p in model.parameters())
        with torch.no_grad():
            self.tokens = [model.encode(batch.arrays) for batch in calm]
            self.before = _joined([_answers(model, t, b) for t, b in zip(self.tokens, calm, strict=True)])
        self.times = {part: self._time(model, part) for part in (*model.names, FUSION)}

    def cuts(self, part: str) -> Iterator[tuple[str, float]]:
        """The rungs of a part: kinds and shares that change its shapes."""
        own = sum(x.numel() for m in _modules(self.model, part) for x in m.parameters())
        little = own < LITTLE * self.parameters and self.times[part] < LITTLE * sum(self.times.values())
        if own < FEW_PARAMETERS or little:
            return
        modality = self.prepared.parser.modalities.get(part)
        if modality is not None and modality.name == "text":
            yield "vocabulary", 0.0
        stacks = [s for s in find_stacks(self.model, self.batches[0]) if s.part == part]
        seen = {tuple(len(s.removable) for s in stacks)}
        for share in LAYER_SHARES:
            kept = tuple(layers_kept(s, share) for s in stacks)
            if kept not in seen:
                seen.add(kept)
                yield "layers", share
        for share in WIDTH_SHARES:
            yield "widths", share

    def rung(self, part: str, kind: str, share: float) -> Rung | None:
        """Try one; None where the part has nothing of the kind, or nothing of it can go."""
        model = copy.deepcopy(self.model)
        try:
            done = cut_model(
                model, Rung(part, kind, share, 0, 0, 0).applied(Cut()), self.prepared, self.batches, self.scores
            )
        except FuselineError as error:
            if error.code == "bad_cut":
                return None
            raise
        model.eval()
        smaller = (self.parameters - sum(p.numel() for p in model.parameters())) / self.parameters
        if smaller <= 0:
            return None
        calm = self.calm
        if kind == "vocabulary":  # words have other numbers now
            calm = [done.prepared.reader.batch(batch.rows) for batch in calm]
        after = []
        with torch.no_grad():
            for batch, tokens in zip(calm, self.tokens, strict=True):
                own = tokens if part == FUSION else {**tokens, part: _tokens(model, part, batch)}
                after.append(_answers(model, own, batch))
        change = agreement(self.prepared.task, self.before, _joined(after))[1]
        faster = 0.0 if kind == "vocabulary" else max(0.0, self.times[part] - self._time(model, part))
        return Rung(part, kind, share, change, smaller, faster / sum(self.times.values()))

    @torch.no_grad()
    def _time(self, model: FusionModel, part: str) -> float:
        """Seconds of a part for one row, the least of some: in torch, good enough for shares."""
        batch = _first_row(self.calm[len(self.calm) // 2])
        tokens = model.encode(batch.arrays)
        best = np.inf
        for _ in range(REPEATS):
            start = time.perf_counter()
            if part == FUSION:
                model.answer(tokens, batch.present_BM)
            else:
                _tokens(model, part, batch)
            best = min(best, time.perf_counter() - start)
        return float(best)


def _modules(model: FusionModel, part: str) -> tuple[nn.Module, ...]:
    if part == FUSION:
        return (model.fusion, model.head)
    i = model.names.index(part)
    return (model.encoders[i], model.adapters[i])


def _answers(model: FusionModel, tokens: dict[str, Tokens], batch: Batch) -> dict[str, np.ndarray]:
    out = model.answer(tokens, batch.present_BM)
    return {k: v.float().numpy() for k, v in out.items() if k != "embedding"}


def _tokens(model: FusionModel, part: str, batch: Batch) -> Tokens:
    encoder, adapter = _modules(model, part)
    assert isinstance(encoder, Encoder)
    own = {k[len(part) + 1 :]: v for k, v in batch.arrays.items() if k.startswith(part + ".")}
    tokens: Tokens = adapter(encoder(**own))
    return tokens


def _joined(parts: Sequence[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    return {k: np.concatenate([p[k] for p in parts]) for k in parts[0]}


def _first_row(batch: Batch) -> Batch:
    return Batch({k: v[:1] for k, v in batch.arrays.items()}, batch.present_BM[:1], None, batch.rows[:1])
