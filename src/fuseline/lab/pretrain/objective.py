"""What pretraining makes small: the contrast between a row's inputs, and the prediction of hidden tokens.

Dimensions: B batch, M inputs, T tokens, Q tokens of one input, D model width, E numbers of a contrasted vector.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from itertools import combinations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fuseline.lab.augment.batch import Augmenter
from fuseline.lab.encoders.layers import sinusoids
from fuseline.lab.fusion.parts import Block
from fuseline.lab.heads.retrieval import SHARPEST, info_nce, same, unit
from fuseline.lab.model import FusionModel, own_arrays
from fuseline.lab.pretrain.cells import draw_hidden, hide
from fuseline.lab.pretrain.teacher import AverageTeacher, eval_mode
from fuseline.lab.tokens import Fused, Tokens
from fuseline.lab.training.reader import Batch
from fuseline.modalities import Modality
from fuseline.recipe import PretrainSpec

EPSILON = 1e-5


class Contrast(nn.Module):
    """A unit vector of an input and row: the fusion of that input alone (CLIP: Radford et al. 2021), behind a head of
    its own that is thrown away afterwards (SimCLR: Chen et al. 2020).

    The head ends with a batch norm. Fused vectors of one input begin nearly alike, each input's around a middle of its
    own, and the shortest way down is then to make them all the same, which takes hundreds of steps to leave again.
    """

    def __init__(self, names: tuple[str, ...], spec: PretrainSpec, width: int) -> None:
        super().__init__()
        self.names = names
        self.project = nn.ModuleList(
            nn.Sequential(nn.Linear(width, width), nn.GELU(), nn.Linear(width, spec.dim)) for _ in names
        )
        self.centre = nn.ModuleList(nn.BatchNorm1d(spec.dim, affine=False) for _ in names)
        self.sharpness = nn.Parameter(torch.tensor(math.log(1 / spec.temperature)))

    def vectors(self, model: FusionModel, tokens: Mapping[str, Tokens], present_BM: Tensor) -> Tensor:
        """(B, M, E), 0 where the row lacks the input."""
        out = []
        for place, name in enumerate(self.names):
            given = {n: t if n == name else _nothing(t) for n, t in tokens.items()}
            there_B = present_BM[:, place] & tokens[name].mask_BT.bool().any(dim=1)
            seen_BM = torch.zeros_like(present_BM)
            seen_BM[:, place] = there_B
            fused: Fused = model.fusion(given, seen_BM)
            vector_BE = self._centred(place, self.project[place](fused.pooled_BD).float(), there_B)
            out.append(torch.where(there_B[:, None], unit(vector_BE), 0.0))
        return torch.stack(out, dim=1)

    def _centred(self, place: int, vector_BE: Tensor, there_B: Tensor) -> Tensor:
        """By the statistics of the rows that have the input, so that dummies do not count."""
        there = vector_BE[there_B]
        if len(there) < 2:  # no batch: as in validation, by what came before
            with eval_mode(self.centre[place]):
                return torch.as_tensor(self.centre[place](vector_BE))
        return torch.zeros_like(vector_BE).masked_scatter(there_B[:, None], self.centre[place](there))

    def lost(self, vectors_BME: Tensor, digests_BM: Tensor) -> Tensor:
        """InfoNCE of each row, mean over its pairs of inputs (B,); NaN where it has no pair. Rows that hold the same as
        another one are no wrong answers of it; a row with nobody to be told from teaches nothing."""
        total_B, pairs_B = vectors_BME.new_zeros(len(vectors_BME)), vectors_BME.new_zeros(len(vectors_BME))
        there_BM = (vectors_BME.detach() != 0).any(dim=2)
        own_BB = torch.eye(len(total_B), dtype=torch.bool, device=total_B.device)
        sharp = self.sharpness.clamp(max=math.log(SHARPEST)).exp()
        for i, j in combinations(range(len(self.names)), 2):
            both_B = there_BM[:, i] & there_BM[:, j]
            known_BB = both_B[:, None] & both_B[None] & (own_BB | ~same(digests_BM[:, [i, j]]))
            both_B = both_B & (known_BB.sum(dim=1) > 1)
            logits_BB = vectors_BME[:, i] @ vectors_BME[:, j].T * sharp
            total_B = total_B + torch.where(both_B, info_nce(logits_BB, known_BB), 0.0)
            pairs_B = pairs_B + both_B
        return torch.where(pairs_B > 0, total_B / pairs_B.clamp(min=1), torch.nan)


def _nothing(like: Tokens) -> Tokens:
    """One token that is none, so that a fusion of one input does not pay for the others."""
    return Tokens(torch.zeros_like(like.values_BTD[:, :1]), torch.zeros_like(like.mask_BT[:, :1], dtype=torch.bool))


class Predictor(nn.Module):
    """Says an input's hidden tokens from the fused tokens of all that was left: a query for each place looks at them
    (I-JEPA, Assran et al. 2023: the context is encoded without the hidden places, and they are asked for afterwards).
    So it works behind every fusion, and no mask token reaches the model that is kept."""

    def __init__(self, model: FusionModel, width: int) -> None:
        super().__init__()
        self.place = nn.Parameter(torch.randn(len(model.names), width))
        heads = next(h for h in (4, 2, 1) if width % h == 0)
        self.look = nn.ModuleList(Block(width, heads, 2, 0.0) for _ in range(2))
        self.out = nn.ModuleList(
            nn.Sequential(nn.LayerNorm(width), nn.Linear(width, encoder.width))  # type: ignore[arg-type]
            for encoder in model.encoders
        )

    def forward(self, fused: Fused, place: int, length: int) -> Tensor:
        """(B, Q, the encoder's width)"""
        context = Tokens(fused.tokens_BTD, fused.mask_BT.bool())
        where_QD = sinusoids(length, 2 * ((self.place.shape[1] + 1) // 2), self.place)[:, : self.place.shape[1]]
        query_BQD = (where_QD + self.place[place]).expand(len(fused.mask_BT), -1, -1).to(fused.tokens_BTD.dtype)
        for block in self.look:
            query_BQD = block(query_BQD, context)
        out: Tensor = self.out[place](query_BQD)
        return out


def targets_of(tokens: Tokens) -> Tensor:
    """What is predicted (B, T, D): tokens after a layer norm, as in data2vec, then each number in deviations from its
    mean over the batch. So a prediction that knows nothing loses 1, whatever the encoder, and one that teacher and
    student could agree on by saying always the same would lose no less."""
    normed_BTD = F.layer_norm(tokens.values_BTD.float(), tokens.values_BTD.shape[-1:])
    real_BT1 = tokens.mask_BT[..., None]
    count = real_BT1.sum().clamp(min=1)
    mean_D = torch.where(real_BT1, normed_BTD, 0.0).sum(dim=(0, 1)) / count
    variance_D = torch.where(real_BT1, (normed_BTD - mean_D).square(), 0.0).sum(dim=(0, 1)) / count
    return torch.where(real_BT1, (normed_BTD - mean_D) * torch.rsqrt(variance_D + EPSILON), 0.0)


class Pretraining(nn.Module):
    """loss = contrast · InfoNCE + masked · mean over inputs of the squared error on hidden tokens.

    Masked modelling, in token space: of every input a share of the tokens is hidden from the fusion, and where the
    encoder trains also the part of the cell that they were made of (see cells.py), so that neither the fusion nor the
    encoder can copy them. Their targets are the tokens that an average of the encoder's former weights gives for the
    whole cell (data2vec, Baevski et al. 2022); of a frozen encoder its own. The encoder runs without dropout and random
    views there, since a picture that was shifted has its tokens elsewhere; the contrast has both, and the recipe's
    `augment`.
    """

    def __init__(
        self,
        model: FusionModel,
        spec: PretrainSpec,
        modalities: Mapping[str, Modality],
        *,
        width: int,
        augmenter: Augmenter | None = None,
    ) -> None:
        super().__init__()
        self.spec, self.modalities, self.augmenter = spec, dict(modalities), augmenter
        self.names = model.names
        self.contrast = Contrast(self.names, spec, width) if spec.contrast and len(self.names) > 1 else None
        self.predictor = Predictor(model, width) if spec.masked else None
        self.teacher = AverageTeacher(model, spec.teacher)
        self.step: Tensor
        self.register_buffer("step", torch.zeros((), dtype=torch.int64))

    def forward(self, model: FusionModel, batch: Batch, outputs: dict[str, Tensor]) -> Tensor:
        del outputs
        self.teacher.follow(model)
        lost_B, vectors_BME = self._contrast(model, batch, augment=True)
        del vectors_BME
        masked_BM = self._masked(model, batch, None)
        self.step += 1
        return self._weighed(lost_B, masked_BM)

    def held_out(self, model: FusionModel, batch: Batch) -> tuple[dict[str, Tensor], Tensor]:
        """See task.py for the outputs. What is hidden depends on the rows alone: the same in every validation."""
        generator = torch.Generator().manual_seed(int(batch.rows[0]) if len(batch.rows) else 0)
        lost_B, vectors_BME = self._contrast(model, batch, augment=False)
        masked_BM = self._masked(model, batch, generator)
        kept = {"contrast": lost_B, "vectors": vectors_BME, "masked": masked_BM}
        return {k: v for k, v in kept.items() if v is not None}, self._weighed(lost_B, masked_BM)

    def _weighed(self, lost_B: Tensor | None, masked_BM: Tensor | None) -> Tensor:
        # A batch that teaches nothing has a loss of 0 that depends on something, as an optimiser expects.
        loss = sum((p.sum() for p in self.parameters()), torch.zeros(())) * 0.0
        if lost_B is not None:
            loss = loss + self.spec.contrast * _known_mean(lost_B[:, None])
        if masked_BM is not None:
            loss = loss + self.spec.masked * _known_mean(masked_BM)
        return loss

    def _contrast(self, model: FusionModel, batch: Batch, *, augment: bool) -> tuple[Tensor | None, Tensor | None]:
        if self.contrast is None:
            return None, None
        targets = batch.targets
        assert targets is not None
        if augment and self.augmenter is not None:
            batch = self.augmenter(batch, int(self.step))
        vectors_BME = self.contrast.vectors(model, model.encode(batch.arrays), batch.present_BM.bool())
        return self.contrast.lost(vectors_BME, targets), vectors_BME

    def _masked(self, model: FusionModel, batch: Batch, generator: torch.Generator | None) -> Tensor | None:
        """Mean squared error of each row's hidden tokens (B, M); NaN where a row has none of an input."""
        if self.predictor is None:
            return None
        present_BM = batch.present_BM.bool()
        whole = {  # an absent input's tokens are those of a dummy
            name: Tokens(t.values_BTD, t.mask_BT & present_BM[:, place, None])
            for place, (name, t) in enumerate(self.teacher.encode(model, batch.arrays).items())
        }
        hidden = self._hidden(whole, generator)
        left = {}
        for place, name in enumerate(self.names):
            if not self.teacher.trains(place):
                tokens = whole[name]
            else:
                own = hide(self.modalities[name], own_arrays(name, batch.arrays), hidden[name])
                encoder = model.encoders[place]
                with eval_mode(encoder):
                    tokens = encoder(**own)
            adapted: Tokens = model.adapters[place](tokens)
            left[name] = Tokens(adapted.values_BTD, adapted.mask_BT.bool() & ~hidden[name])
        fused: Fused = model.fusion(left, batch.present_BM)
        lost = []
        for place, name in enumerate(self.names):
            error_BT = self._error(fused, place, whole[name])
            hidden_BT = hidden[name]
            count_B = hidden_BT.sum(dim=1)
            total_B = torch.where(hidden_BT, error_BT, 0.0).sum(dim=1)
            lost.append(torch.where(count_B > 0, total_B / count_B.clamp(min=1), torch.nan))
        return torch.stack(lost, dim=1)

    def _error(self, fused: Fused, place: int, whole: Tokens) -> Tensor:
        assert self.predictor is not None
        said_BTD = self.predictor(fused, place, whole.values_BTD.shape[1])
        error_BT: Tensor = (said_BTD.float() - targets_of(whole)).square().mean(dim=2)
        return error_BT

    def _hidden(self, whole: Mapping[str, Tokens], generator: torch.Generator | None) -> dict[str, Tensor]:
        """A row of which nothing would be left keeps all."""
        hidden = {name: draw_hidden(t.mask_BT, self.spec.share, generator) for name, t in whole.items()}
        left = [(t.mask_BT & ~hidden[name]).any(dim=1) for name, t in whole.items()]
        left_B1 = torch.stack(left).any(dim=0)[:, None]
        return {name: hidden_BT & left_B1 for name, hidden_BT in hidden.items()}


def _known_mean(values_BM: Tensor) -> Tensor:
    """Mean over rows, then over columns, of what is not NaN; 0 where nothing is."""
    known_BM = ~values_BM.isnan()
    count_M = known_BM.sum(dim=0)
    mean_M = torch.where(known_BM, values_BM, 0.0).sum(dim=0) / count_M.clamp(min=1)
    return mean_M.sum() / (count_M > 0).sum().clamp(min=1)
