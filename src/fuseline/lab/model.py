"""Encoders -> fusion -> head. Knows none of their kinds. Dimensions: B batch, M inputs, T tokens, D model width."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor, nn

from fuseline.lab.encoders.base import Encoder
from fuseline.lab.fusion.base import Fusion
from fuseline.lab.heads.base import Head
from fuseline.lab.tokens import Fused, Tokens, View


class Adapter(nn.Module):
    """Brings one encoder's tokens to the model's width."""

    def __init__(self, width_in: int, width: int, dropout: float) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width_in)
        self.drop = nn.Dropout(dropout)
        self.project = nn.Linear(width_in, width)

    def forward(self, tokens: Tokens) -> Tokens:
        return tokens._replace(values_BTD=self.project(self.drop(self.norm(tokens.values_BTD))))


def _kept(own: Mapping[str, Tensor]) -> Tokens:
    aside = {key.removeprefix("aside."): value for key, value in own.items() if key.startswith("aside.")}
    return Tokens(own["tokens"], own["tokens_mask"], aside or None)


def own_arrays(name: str, arrays: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The arrays of one input, by their own names: `pixels` for `xray.pixels`."""
    return {key[len(name) + 1 :]: value for key, value in arrays.items() if key.startswith(name + ".")}


class FusionModel(nn.Module):
    """One model over all inputs.

    `forward` takes arrays named ``<input>.<array>``. Where an encoder is frozen, its tokens may be given instead as
    ``<input>.tokens`` (B, T, D), ``<input>.tokens_mask`` (B, T) and what it hands over beside them,
    ``<input>.aside.<name>``: they were computed once and kept.
    """

    def __init__(
        self,
        names: Sequence[str],
        encoders: Sequence[Encoder],
        fusion: Fusion,
        head: Head,
        *,
        width: int,
        dropout: float,
    ) -> None:
        super().__init__()
        self.names = tuple(names)
        # Lists, not dicts by name: an input may be called "keys" or "training".
        self.encoders = nn.ModuleList(encoders)
        self.adapters = nn.ModuleList(
            Adapter(e.width, width, dropout) if fusion.adapted else nn.Identity() for e in encoders
        )
        self.fusion = fusion
        self.head = head
        head.meet(dict(zip(self.names, encoders, strict=True)))

    def traced_from(self, name: str, dimension: str, least: int) -> int:
        """See :meth:`Encoder.traced_from`, of the input `name`."""
        encoder = self.encoders[self.names.index(name)]
        return encoder.traced_from(dimension, least) if isinstance(encoder, Encoder) else least

    def encode(self, arrays: Mapping[str, Tensor]) -> dict[str, Tokens]:
        return {name: self.encode_input(name, own_arrays(name, arrays)) for name in self.names}

    def encoded(self, arrays: Mapping[str, Tensor]) -> dict[str, Tokens]:
        """The encoders' own tokens, each as wide as its encoder makes them."""
        return {name: self._encoded(name, own_arrays(name, arrays)) for name in self.names}

    def encode_input(self, name: str, own: Mapping[str, Tensor]) -> Tokens:
        """One input's tokens, from its arrays by their own names."""
        tokens: Tokens = self.adapters[self.names.index(name)](self._encoded(name, own))
        return tokens

    def _encoded(self, name: str, own: Mapping[str, Tensor]) -> Tokens:
        tokens: Tokens = _kept(own) if "tokens" in own else self.encoders[self.names.index(name)](**own)
        if self.head.reads_encoded:
            tokens = tokens._replace(aside={**(tokens.aside or {}), "encoded": tokens.values_BTD})
        return tokens

    def forward(self, arrays: Mapping[str, Tensor], present_BM: Tensor) -> dict[str, Tensor]:
        return self.answer(self.encode(arrays), present_BM)

    def answer(self, tokens: Mapping[str, Tokens], present_BM: Tensor) -> dict[str, Tensor]:
        """The outputs for what `encode` gave, as often as wanted under other presences."""

        def fuse(seen_BM: Tensor) -> Fused:
            fused: Fused = self.fusion(tokens, seen_BM)
            return fused

        fused = fuse(present_BM)
        outputs: dict[str, Tensor] = self.head(fused, View(tokens, present_BM, fuse))
        return {**outputs, "embedding": fused.pooled_BD}
