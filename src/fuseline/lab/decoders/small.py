"""A Transformer decoder from scratch (Vaswani et al. 2017, pre-norm). Dimensions: B batch, T fused tokens, D model
width, W own width, L text tokens, P tokens remembered, H heads, d width of a head, V tokens of the vocabulary."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.nn import functional as F

from fuseline.lab.decoders.base import Decoder, Said, State
from fuseline.lab.encoders.layers import sinusoids
from fuseline.lab.tokens import Tokens
from fuseline.recipe import Frozen
from fuseline.tasks.generation import Generation


class SmallDecoderConfig(Frozen):
    width: int = Field(128, ge=8, description="width of every text token")
    layers: int = Field(2, ge=1, le=24, description="Transformer layers")
    heads: int = Field(4, ge=1, description="attention heads; must divide width")
    dropout: float = Field(0.1, ge=0, lt=1, description="dropout inside every layer")
    token_dropout: float = Field(
        0.1, ge=0, lt=1, description="share of text tokens hidden while training, so that it looks at the inputs"
    )

    @model_validator(mode="after")
    def _shapes(self) -> SmallDecoderConfig:
        if self.width % self.heads or self.width % 2:
            raise ValueError(f"width {self.width} must be even and a multiple of heads {self.heads}")
        return self


class _Layer(nn.Module):
    """x + attention to the text so far, + attention to the fused tokens, + feed-forward."""

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads, self.dropout = heads, dropout
        self.norm_text, self.norm_memory, self.norm_mlp = (nn.LayerNorm(width) for _ in range(3))
        self.qkv, self.out_text = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.q, self.kv, self.out_memory = nn.Linear(width, width), nn.Linear(width, 2 * width), nn.Linear(width, width)
        self.mlp = nn.Sequential(
            nn.Linear(width, 4 * width), nn.GELU(), nn.Dropout(dropout), nn.Linear(4 * width, width)
        )

    def split(self, x_BLW: Tensor) -> Tensor:
        rows, tokens, width = x_BLW.shape
        return x_BLW.reshape(rows, tokens, self.heads, width // self.heads).transpose(1, 2)

    def remembered(self, memory_BTW: Tensor) -> tuple[Tensor, Tensor]:
        k_BTW, v_BTW = self.kv(memory_BTW).chunk(2, dim=2)
        return self.split(k_BTW), self.split(v_BTW)

    def own(self, x_BLW: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        q, k, v = (self.split(part) for part in self.qkv(self.norm_text(x_BLW)).chunk(3, dim=2))
        return q, k, v

    def read(self, x_BLW: Tensor, own: tuple[Tensor, Tensor, Tensor], seen: Tensor, memory: State, i: int) -> Tensor:
        x_BLW = x_BLW + self._drop(self.out_text(self._attend(*own, seen)))
        q_BHLd = self.split(self.q(self.norm_memory(x_BLW)))
        there = memory["memory.mask"][:, None, None, :] > 0
        x_BLW = x_BLW + self._drop(
            self.out_memory(self._attend(q_BHLd, memory[f"memory.k.{i}"], memory[f"memory.v.{i}"], there))
        )
        out: Tensor = x_BLW + self._drop(self.mlp(self.norm_mlp(x_BLW)))
        return out

    def _attend(self, q_BHLd: Tensor, k_BHKd: Tensor, v_BHKd: Tensor, mask: Tensor) -> Tensor:
        mixed = F.scaled_dot_product_attention(
            q_BHLd, k_BHKd, v_BHKd, attn_mask=mask, dropout_p=self.dropout if self.training else 0.0
        )
        return mixed.transpose(1, 2).flatten(2)

    def _drop(self, x: Tensor) -> Tensor:
        return F.dropout(x, self.dropout, self.training)


class SmallDecoder(Decoder):
    """Reads the fused tokens by cross-attention; embedding and output share their weights (Press & Wolf 2017).

    Remembers `memory.k.I`, `memory.v.I` (B, H, T, d), `memory.mask` (B, T), `cache.k.I`, `cache.v.I` (B, H, P, d).
    """

    Config = SmallDecoderConfig
    growing: ClassVar[Mapping[str, int]] = {"k": 2, "v": 2}

    def __init__(self, config: SmallDecoderConfig, task: Generation, *, width: int) -> None:
        super().__init__(config, task, width=width)
        self.config, self.start_id = config, task.start_id
        self.project = nn.Sequential(nn.Linear(width, config.width), nn.LayerNorm(config.width))
        self.embed = nn.Embedding(task.vocab_size, config.width)
        nn.init.normal_(self.embed.weight, std=config.width**-0.5)
        self.bias = nn.Parameter(torch.zeros(task.vocab_size))
        self.position_scale = nn.Parameter(torch.tensor(0.3))
        self.layers = nn.ModuleList(_Layer(config.width, config.heads, config.dropout) for _ in range(config.layers))
        self.norm = nn.LayerNorm(config.width)

    def begin(self, memory: Tokens) -> Said:
        memory_BTW = self.project(memory.values_BTD)
        state: State = {"memory.mask": memory.mask_BT.to(memory_BTW.dtype)}
        for i, layer in enumerate(self.layers):
            assert isinstance(layer, _Layer)
            state[f"memory.k.{i}"], state[f"memory.v.{i}"] = layer.remembered(memory_BTW)
        start_B1 = torch.full_like(memory.mask_BT[:, :1], self.start_id, dtype=torch.int64)
        return self.step(start_B1, state)

    def step(self, ids_BL: Tensor, state: State) -> Said:
        new = ids_BL.shape[1]
        old = state["cache.k.0"].shape[2] if "cache.k.0" in state else 0
        x_BLW = self.embed(ids_BL) * self.config.width**0.5
        if self.training and self.config.token_dropout > 0:
            kept_BL = torch.rand(ids_BL.shape, device=ids_BL.device) >= self.config.token_dropout
            x_BLW = x_BLW * kept_BL[:, :, None]
        x_BLW = x_BLW + self.position_scale * sinusoids(old + new, self.config.width, x_BLW)[old:]
        x_BLW = F.dropout(x_BLW, self.config.dropout, self.training)
        at = torch.arange(old + new, device=ids_BL.device)
        seen_LP = at[None, :] <= at[old:, None]
        state = dict(state)
        for i, layer in enumerate(self.layers):
            assert isinstance(layer, _Layer)
            q, k, v = layer.own(x_BLW)
            if old:
                k, v = torch.cat([state[f"cache.k.{i}"], k], dim=2), torch.cat([state[f"cache.v.{i}"], v], dim=2)
            state[f"cache.k.{i}"], state[f"cache.v.{i}"] = k, v
            x_BLW = layer.read(x_BLW, (q, k, v), seen_LP, state, i)
        return Said(F.linear(self.norm(x_BLW), self.embed.weight, self.bias), state)
