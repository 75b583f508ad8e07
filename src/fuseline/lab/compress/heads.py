"""Where attention keeps its heads, in any family: by the names of its projections. Dimensions: D width, H heads."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

PROJECTIONS: tuple[tuple[tuple[str, int], ...], ...] = (
    # names of linear layers, and how many of query, key and value each makes, one after the other
    (("query", 1), ("key", 1), ("value", 1)),  # BERT, RoBERTa
    (("query_proj", 1), ("key_proj", 1), ("value_proj", 1)),  # DeBERTa
    (("q_proj", 1), ("k_proj", 1), ("v_proj", 1)),  # ViT, CLIP, wav2vec 2.0, Whisper
    (("q_lin", 1), ("k_lin", 1), ("v_lin", 1)),  # DistilBERT
    (("q", 1), ("k", 1), ("v", 1)),  # T5, MPNet
    (("Wqkv", 3),),  # ModernBERT
    (("qkv", 3),),  # encoders from scratch
    (("q", 1), ("kv", 2)),  # fusion
)
BESIDE = ("pos_key_proj", "pos_query_proj")
"""DeBERTa projects relative positions to heads, too"""
COUNTS = ("num_attention_heads", "num_heads", "n_heads", "heads")
SIZES = ("head_dim", "attention_head_size", "key_value_proj_dim")
WIDTHS = ("all_head_size", "inner_dim")
"""attributes that say how many heads there are, how wide one is, and how wide all are"""


@dataclass(frozen=True)
class Attention:
    """One attention module: linear layers by name with how many of q, k, v each holds, and the heads it was built
    with."""

    path: str
    projections: tuple[tuple[str, int], ...]
    heads: int
    size: int

    @property
    def names(self) -> tuple[str, ...]:
        """Paths of the projections."""
        return tuple(f"{self.path}.{name}" for name, _ in self.projections)

    def fit_heads(self, model: nn.Module) -> None:
        """As many heads as the projections are wide now, each as wide as before."""
        owner = model.get_submodule(self.path)
        name, parts = self.projections[0]
        layer = owner.get_submodule(name)
        assert isinstance(layer, nn.Linear)
        width = layer.out_features // parts
        for attribute in COUNTS:
            if isinstance(getattr(owner, attribute, None), int):
                setattr(owner, attribute, width // self.size)
        for attribute in WIDTHS:
            if isinstance(getattr(owner, attribute, None), int):
                setattr(owner, attribute, width)


def attentions(model: nn.Module, prefix: str = "") -> list[Attention]:
    """All attention modules below `model` whose projections have names that are known here."""
    return [found for path, module in model.named_modules(prefix=prefix) if (found := _attention(path, module))]


def _attention(path: str, owner: nn.Module) -> Attention | None:
    layers = {name: child for name, child in owner.named_children() if isinstance(child, nn.Linear)}
    for projections in PROJECTIONS:
        if not all(name in layers for name, _ in projections):
            continue
        width = {layers[name].out_features / parts for name, parts in projections}
        if len(width) != 1:  # grouped queries: several heads share a key
            return None
        inner = int(width.pop())
        heads = next((h for name in COUNTS if isinstance(h := getattr(owner, name, None), int)), None)
        size = next((s for name in SIZES if isinstance(s := getattr(owner, name, None), int)), None)
        heads = heads or (inner // size if size else None)
        if not heads or inner % heads:
            return None
        beside = tuple((name, 1) for name in BESIDE if name in layers and layers[name].out_features == inner)
        return Attention(path, (*projections, *beside), heads, inner // heads)
    return None
