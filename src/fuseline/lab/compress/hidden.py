"""The tokens behind an answer: what a teacher's adapters give, and how far a student's are from them.

Dimensions: B batch, T tokens, D width of the student's tokens, E width of the teacher's, N rows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fuseline.lab.fusion.parts import mean_pool
from fuseline.lab.model import FusionModel
from fuseline.lab.tokens import Tokens
from fuseline.lab.training.reader import Batch, Reader


class Memory(Protocol):
    """A teacher's tokens of each input for rows of the table, by their numbers; no real token where it has none."""

    names: tuple[str, ...]

    def __call__(self, rows: np.ndarray, device: torch.device) -> dict[str, Tokens]: ...


class Stored:
    """Tokens kept as they were given, one after the other and without padding."""

    def __init__(self, names: Sequence[str]) -> None:
        self.names = tuple(names)
        self.bytes = 0
        self._rows: dict[int, list[tuple[np.ndarray, np.ndarray]]] = {}

    def add(self, rows: np.ndarray, tokens: Mapping[str, Tokens], present_BM: Tensor) -> None:
        """Keep the tokens of a batch. An absent input has none, whatever its dummy gave."""
        for i, row in enumerate(rows):
            kept = []
            for m, name in enumerate(self.names):
                mask_T = tokens[name].mask_BT[i].bool().cpu().numpy() & bool(present_BM[i, m])
                length = int(np.flatnonzero(mask_T)[-1]) + 1 if mask_T.any() else 0
                values_TE = tokens[name].values_BTD[i, :length].float().cpu().numpy().copy()
                kept.append((values_TE, mask_T[:length].copy()))
                self.bytes += values_TE.nbytes + length + 200
            self._rows[int(row)] = kept

    def __call__(self, rows: np.ndarray, device: torch.device) -> dict[str, Tokens]:
        out = {}
        width = next(iter(self._rows.values())) if self._rows else []
        for m, name in enumerate(self.names):
            known = [self._rows[int(r)][m] if int(r) in self._rows else None for r in rows]
            length = max((len(k[1]) for k in known if k is not None), default=0)
            values_BTE = np.zeros((len(rows), max(1, length), width[m][0].shape[1]), np.float32)
            mask_BT = np.zeros((len(rows), max(1, length)), bool)
            for i, k in enumerate(known):
                if k is not None:
                    values_BTE[i, : len(k[1])], mask_BT[i, : len(k[1])] = k
            out[name] = Tokens(torch.from_numpy(values_BTE).to(device), torch.from_numpy(mask_BT).to(device))
        return out


class Live:
    """Tokens made anew at every call by the teacher itself, which must not be the model that is being changed."""

    def __init__(self, model: FusionModel, reader: Reader) -> None:
        self.model, self.reader, self.names = model, reader, model.names

    @torch.no_grad()
    def __call__(self, rows: np.ndarray, device: torch.device) -> dict[str, Tokens]:
        read = self.reader.read(rows, targets=False)
        good = [i for i, row in enumerate(read) if row.error is None]
        batch = self.reader.collate([read[i] for i in good])
        self.model.to(device).eval()
        with torch.autocast(device.type, enabled=False):
            tokens = self.model.encode({k: v.to(device) for k, v in batch.arrays.items()})
        out = {}
        for m, name in enumerate(self.names):
            values, mask, _ = tokens[name]
            mask_BT = torch.zeros(len(rows), mask.shape[1], dtype=torch.bool, device=device)
            values_BTE = torch.zeros(len(rows), *values.shape[1:], device=device)
            mask_BT[good] = mask.bool() & batch.present_BM[:, m, None].to(device)
            values_BTE[good] = values.float()
            out[name] = Tokens(values_BTE, mask_BT)
        return out


def tokens_of(model: FusionModel, batch: Batch) -> dict[str, Tokens]:
    """The tokens behind the adapters, as the model gives them outside of training: no dropout, no augmentation, which
    would move them in time and place away from the teacher's. What an absent input's dummy gave is masked."""
    parts = [*model.encoders.modules(), *model.adapters.modules()]
    modes = [part.training for part in parts]
    for part in parts:  # not by `train`, which some encoders have of their own
        part.training = False
    tokens = model.encode(batch.arrays)
    for part, mode in zip(parts, modes, strict=True):
        part.training = mode
    return {
        n: Tokens(tokens[n].values_BTD, tokens[n].mask_BT.bool() & batch.present_BM[:, m, None])
        for m, n in enumerate(model.names)
    }


class InputDistance(nn.Module):
    """How far one input's tokens are from the teacher's.

    Where both make the same tokens of a row (an encoder that lost layers or widths), token by token; else (another
    tokenizer, another picture grid) on the mean of the real tokens. Which of the two is decided once, on a probe.
    """

    def __init__(self, own: Tokens, teachers: Tokens) -> None:
        """`own`, `teachers`: the tokens of some rows, masked where the row lacks the input."""
        super().__init__()
        counts = own.mask_BT.sum(1), teachers.mask_BT.sum(1)
        there_B = (counts[0] > 0) & (counts[1] > 0)
        self.aligned = bool((counts[0] == counts[1])[there_B].all())
        self.single = not self.aligned or bool((counts[0] <= 1).all())
        width, wanted = own.values_BTD.shape[2], teachers.values_BTD.shape[2]
        self.project: nn.Module = nn.Linear(width, wanted) if width != wanted else nn.Identity()
        t_BE = teachers.values_BTD[teachers.mask_BT] if self.aligned else mean_pool(teachers)[there_B]
        self.scale = max(float(t_BE.square().mean()), 1e-6) if len(t_BE) else 1.0

    def forward(self, own: Tokens, teachers: Tokens) -> tuple[Tensor, Tensor]:
        """(distance of the tokens, distance of the relations between them), each a scalar.

        Tokens: |P s - t|² / E, divided by the teacher's mean square, so that 1 means no better than zeros. P is the
        identity where the widths agree (FitNets: Romero et al. 2015). Relations: mean squared difference of the cosine
        of every two tokens of a row, or where a row has one vector of every two rows (Tung & Mori 2019, "Similarity-
        Preserving Knowledge Distillation"). Unlike attention transfer and MiniLM this reads no attention
        probabilities and no queries, which fused kernels never give and a cut of the heads changes.
        """
        if self.aligned:
            length = min(own.mask_BT.shape[1], teachers.mask_BT.shape[1])
            s, t = own.values_BTD[:, :length], teachers.values_BTD[:, :length]
            mask_BT = own.mask_BT[:, :length] & teachers.mask_BT[:, :length]
        else:
            s, t = mean_pool(own)[:, None], mean_pool(teachers)[:, None]
            mask_BT = (own.mask_BT.any(1) & teachers.mask_BT.any(1))[:, None]
        s = s.float()
        gap_BT = (self.project(s) - t).square().mean(-1) / self.scale
        near = _mean(gap_BT, mask_BT)
        if self.single:  # the rows take the tokens' place
            s, t, mask_BT = s[:, 0][None], t[:, 0][None], mask_BT[:, 0][None]
        pairs_BTT = mask_BT[:, :, None] & mask_BT[:, None, :]
        return near, _mean((_cosines(s) - _cosines(t)).square(), pairs_BTT)


def _mean(values: Tensor, mask: Tensor) -> Tensor:
    # `where`, not a product: what is masked may be anything, and 0 times infinity is no 0.
    return torch.where(mask, values, 0.0).sum() / mask.sum().clamp(min=1)


def _cosines(x_BTD: Tensor) -> Tensor:
    unit_BTD = F.normalize(x_BTD, dim=-1)
    return unit_BTD @ unit_BTD.transpose(1, 2)
