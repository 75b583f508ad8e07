"""What fusions are made of. Dimensions: B batch, M inputs, T tokens, Q queries, K keys, D model width, H heads."""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from fuseline.errors import FuselineError
from fuseline.lab.tokens import Fused, Tokens
from fuseline.recipe import Frozen


class FusionConfig(Frozen):
    """Abstract: the options that every fusion has."""

    modality_dropout: float = Field(
        0.15,
        ge=0,
        lt=1,
        description="in training, chance that a present input of a row is hidden; one always stays",
    )
    dropout: float = Field(0.1, ge=0, lt=1, description="dropout inside the fusion")


class PoolingConfig(FusionConfig):
    """Abstract: options of the fusions that work on one vector an input."""

    pooling: Literal["attention", "mean"] = Field(
        "attention", description="how an input's tokens become one vector; attention starts out as the mean"
    )


class Taken(NamedTuple):
    """Inputs in the order of their names: what must not be seen is zero in value and False in mask."""

    tokens: list[Tokens]
    present_BM: Tensor


class Pooled(NamedTuple):
    """One vector an input; the learned absent vector where the input is absent."""

    values_BMD: Tensor
    present_BM: Tensor


def modality_dropout(present_BM: Tensor, p: float) -> Tensor:
    """Hides each present input of a row with chance `p`, but never the last one left (ModDrop, Neverova et al. 2016).

    Where chance would hide all of a row's present inputs, the one with the highest draw stays. Draws from torch's
    global generator.
    """
    draw_BM = torch.rand(present_BM.shape, device=present_BM.device)
    best_B = draw_BM.masked_fill(~present_BM, -1.0).argmax(dim=1)
    saved_BM = F.one_hot(best_B, present_BM.shape[1]).bool()
    return present_BM & ((draw_BM >= p) | saved_BM)


class Intake(nn.Module):
    """The one door of every fusion: modality dropout, and the removal of all that is absent or padding.

    Values are replaced by `torch.where` before any arithmetic, so that even a NaN in an absent row reaches neither
    output nor gradient. A present input without one real token counts as absent.
    """

    def __init__(self, names: tuple[str, ...], p: float) -> None:
        super().__init__()
        self.names, self.p = names, p

    def forward(self, tokens: dict[str, Tokens], present_BM: Tensor) -> Taken:
        given = [tokens[name] for name in self.names]
        has_token_BM = torch.stack([t.mask_BT.bool().any(dim=1) for t in given], dim=1)
        present_BM = present_BM.bool() & has_token_BM
        if self.training and self.p > 0:
            present_BM = modality_dropout(present_BM, self.p)
        kept = []
        for i, t in enumerate(given):
            mask_BT = t.mask_BT.bool() & present_BM[:, i, None]
            kept.append(Tokens(torch.where(mask_BT[..., None], t.values_BTD, 0.0), mask_BT))
        return Taken(kept, present_BM)


def mean_pool(tokens: Tokens) -> Tensor:
    """The mean of the real tokens (B, D); zeros where there is none."""
    kept_BTD = torch.where(tokens.mask_BT[..., None], tokens.values_BTD, 0.0)
    count_B1 = tokens.mask_BT.sum(dim=1, keepdim=True).clamp(min=1).to(kept_BTD.dtype)
    return kept_BTD.sum(dim=1) / count_B1


class AttentionPool(nn.Module):
    """Mean of the real tokens weighted by softmax(q·norm(x)/√D), q learned (Lin et al. 2017, with one hop).

    q starts at zero: the pool starts as the plain mean. Finite also where a row has no real token.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        # No gain, no bias: q can learn the one, and softmax does not see the other.
        self.norm = nn.LayerNorm(width, elementwise_affine=False)
        self.query_D = nn.Parameter(torch.zeros(width))

    def forward(self, tokens: Tokens) -> Tensor:
        # The query is divided, not the product: OpenVINO (2026.4) fails to load a product with a vector that is scaled.
        score_BT = self.norm(tokens.values_BTD) @ (self.query_D / self.query_D.shape[0] ** 0.5)
        # The lowest finite number, not -inf: a row without tokens gives a uniform softmax instead of NaN.
        score_BT = score_BT.masked_fill(~tokens.mask_BT, torch.finfo(score_BT.dtype).min)
        weight_BT = score_BT.softmax(dim=1)
        pooled_BD: Tensor = (weight_BT[..., None] * tokens.values_BTD).sum(dim=1)
        return pooled_BD


class PooledInputs(nn.Module):
    """Intake, then one normalised vector an input; the learned absent vector takes an absent input's place."""

    def __init__(self, config: PoolingConfig, *, names: tuple[str, ...], width: int) -> None:
        super().__init__()
        self.intake = Intake(names, config.modality_dropout)
        self.pools = nn.ModuleList(AttentionPool(width) for _ in names if config.pooling == "attention")
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in names)
        self.absent_MD = nn.Parameter(torch.randn(len(names), width) * 0.02)

    def forward(self, tokens: dict[str, Tokens], present_BM: Tensor) -> Pooled:
        taken = self.intake(tokens, present_BM)
        vectors = []
        for i, own in enumerate(taken.tokens):
            vector_BD = self.pools[i](own) if len(self.pools) else mean_pool(own)
            there_B1 = taken.present_BM[:, i, None]
            vectors.append(torch.where(there_B1, self.norms[i](vector_BD), self.absent_MD[i]))
        return Pooled(torch.stack(vectors, dim=1), taken.present_BM)


def fused_vectors(pooled_BD: Tensor, inputs: Pooled) -> Fused:
    """The tokens of a fusion of vectors: the fused one, always real, and then one an input."""
    tokens_BTD = torch.cat([pooled_BD[:, None], inputs.values_BMD], dim=1)
    always_B1 = torch.ones_like(inputs.present_BM[:, :1])
    return Fused(pooled_BD, tokens_BTD, torch.cat([always_B1, inputs.present_BM], dim=1))


class Attention(nn.Module):
    """Multi-head attention (Vaswani et al. 2017) of Q queries over K keys; every row needs one real key."""

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads, self.dropout = heads, dropout
        self.q, self.kv, self.out = nn.Linear(width, width), nn.Linear(width, 2 * width), nn.Linear(width, width)

    def forward(self, query_BQD: Tensor, key_BKD: Tensor, mask_BK: Tensor) -> Tensor:
        q_BHQD = self._split(self.q(query_BQD))
        k_BKD, v_BKD = self.kv(key_BKD).chunk(2, dim=-1)
        mixed_BHQD = F.scaled_dot_product_attention(
            q_BHQD,
            self._split(k_BKD),
            self._split(v_BKD),
            attn_mask=mask_BK[:, None, None, :],
            dropout_p=self.dropout if self.training else 0.0,
        )
        out: Tensor = self.out(mixed_BHQD.transpose(1, 2).flatten(2))
        return out

    def _split(self, x_BTD: Tensor) -> Tensor:
        rows, tokens, width = x_BTD.shape
        return x_BTD.reshape(rows, tokens, self.heads, width // self.heads).transpose(1, 2)


class Block(nn.Module):
    """Pre-norm Transformer block (Xiong et al. 2020): x + attention(norm(x), norm(keys)), then x + mlp(norm(x)).

    Our own, since nn.TransformerEncoder's fast path and nested tensors do not export.
    """

    def __init__(self, width: int, heads: int, expansion: int, dropout: float) -> None:
        super().__init__()
        self.norm_attention, self.norm_mlp = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attention = Attention(width, heads, dropout)
        self.mlp = nn.Sequential(
            nn.Linear(width, expansion * width),
            nn.GELU(),
            nn.Dropout(dropout),
            nn.Linear(expansion * width, width),
        )
        self.drop = nn.Dropout(dropout)

    def forward(self, x_BQD: Tensor, keys: Tokens) -> Tensor:
        """`x_BQD` looks at `keys` (itself, for self-attention) and is returned changed, same shape."""
        seen_BKD = self.norm_attention(keys.values_BTD)
        x_BQD = x_BQD + self.drop(self.attention(self.norm_attention(x_BQD), seen_BKD, keys.mask_BT))
        out: Tensor = x_BQD + self.drop(self.mlp(self.norm_mlp(x_BQD)))
        return out


def join(*parts: Tokens) -> Tokens:
    """Token sequences one after the other."""
    return Tokens(torch.cat([p.values_BTD for p in parts], dim=1), torch.cat([p.mask_BT for p in parts], dim=1))


def learned(values_TD: Tensor, mask_B: Tensor) -> Tokens:
    """The same learned tokens for every row, real where `mask_B` says so."""
    rows = mask_B.shape[0]
    return Tokens(values_TD.expand(rows, -1, -1), mask_B[:, None].expand(-1, values_TD.shape[0]))


def check_heads(heads: int, width: int) -> None:
    """Raises FuselineError ``bad_recipe`` where the width cannot be split over the heads."""
    if width % heads:
        raise FuselineError(
            "bad_recipe",
            f"fusion.heads: {heads} heads do not divide fusion.width {width}",
            "e.g. width 128 with 4 heads",
        )
