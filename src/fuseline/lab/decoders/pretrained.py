"""What the two Hugging Face decoders share: loading, caches as plain tensors, masks. Dimensions: B batch, L new tokens,
P tokens remembered, H heads, d width of a head, D model width, E width of the language model."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from transformers.cache_utils import Cache, DynamicLayer

from fuseline.errors import FuselineError
from fuseline.lab.decoders.base import State
from fuseline.lab.encoders.hub import Weights, cannot_load, load_config, load_whole, locate
from fuseline.lab.encoders.tuning import apply_tuning
from fuseline.recipe import Frozen


class PretrainedConfig(Frozen):
    """Options of the decoders that load a folder."""

    source: str = Field(description="local folder or hub id")
    revision: str | None = Field(None, description="branch, tag or commit on the hub")
    weights: Weights = Field("pretrained", description="random: the architecture alone")
    tune: Literal["auto", "frozen", "lora", "full"] = Field(
        "auto", description="which of its weights train; auto: lora where they are pretrained, else full"
    )
    rank: int = Field(8, ge=1, description="lora: rank of the adapters")
    alpha: float = Field(16.0, gt=0, description="lora: their weight is alpha / rank")


def load_language_model(config: PretrainedConfig, auto: Any) -> Any:
    """The whole model as `auto` (an Auto class) builds it, tuned as asked. Raises FuselineError."""
    tune = config.tune
    if tune == "auto":
        tune = "lora" if config.weights == "pretrained" else "full"
    if config.weights == "random" and tune != "full":
        raise FuselineError(
            "bad_recipe", f"task.decoder: random weights and tune: {tune} would stay random", "set tune: full"
        )
    model = load_whole(config.source, auto, revision=config.revision, weights=config.weights)
    apply_tuning(model, tune, config.rank, config.alpha)
    return model


def tokenizer_options(config: PretrainedConfig, start: tuple[str, ...]) -> dict[str, Any]:
    """The folder's tokenizer.json and its special ids; `start`: the config's keys for the first token, best first."""
    folder = locate(config.source, revision=config.revision, config_only=True)
    known = load_config(folder)
    path = Path(folder) / "tokenizer.json"
    if not path.is_file():
        raise cannot_load(f"{config.source}: no tokenizer.json", "save the tokenizer as a fast one into the folder")
    ends = known.eos_token_id
    ends = tuple(ends) if isinstance(ends, (list, tuple)) else (ends,)
    first = next((v for v in (getattr(known, key, None) for key in start) if v is not None), ends[0])
    if ends[0] is None or first is None:
        raise cannot_load(f"{config.source}: its config names no eos_token_id", "write eos_token_id into config.json")
    return {"tokenizer": path.read_text(encoding="utf-8"), "start_id": int(first), "end_ids": ends}


class Layer(DynamicLayer):  # type: ignore[misc]
    """A cache layer that starts as it is given: the library's own joins an empty vector first, which no graph can."""

    def __init__(self, keys: Tensor | None = None, values: Tensor | None = None) -> None:
        super().__init__()
        if keys is not None and values is not None:
            self._hold(keys, values)

    def _hold(self, keys: Tensor, values: Tensor) -> None:
        self.dtype, self.device = keys.dtype, keys.device
        self.keys, self.values, self.is_initialized = keys, values, True

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        if self.is_initialized:
            key_states = torch.cat([self.keys, key_states], dim=-2)
            value_states = torch.cat([self.values, value_states], dim=-2)
        self._hold(key_states, value_states)
        return key_states, value_states


def cache_of(state: State, name: str, layers: int) -> Cache:
    """`NAME.k.I`, `NAME.v.I` as the library's cache; empty where there are none."""
    return Cache(layers=[Layer(state.get(f"{name}.k.{i}"), state.get(f"{name}.v.{i}")) for i in range(layers)])


def tensors_of(cache: Cache, name: str) -> State:
    out: State = {}
    for i, layer in enumerate(cache.layers):
        out[f"{name}.k.{i}"], out[f"{name}.v.{i}"] = layer.keys, layer.values
    return out


def additive(seen: Tensor, like: Tensor) -> Tensor:
    """A boolean mask, True where to look, as numbers to add to scores: models take a four-dimensional one as it is."""
    lowest = torch.finfo(like.dtype).min
    return torch.where(seen, 0.0, lowest).to(like.dtype)


def causal(mask_BK: Tensor, new: int, like: Tensor) -> Tensor:
    """(B, 1, L, K): each of the last `new` of K tokens sees the real ones up to itself."""
    at_K = torch.arange(mask_BK.shape[1], device=mask_BK.device)
    upto_LK = at_K[None, :] <= at_K[mask_BK.shape[1] - new :, None]
    return additive((mask_BK > 0)[:, None, None, :] & upto_LK, like)


class Projector(nn.Module):
    """Fused tokens (B, T, D) to the language model's width (B, T, E), at first of standard deviation `scale`."""

    def __init__(self, width: int, wide: int, scale: float) -> None:
        super().__init__()
        self.width = wide
        self.layers = nn.Sequential(
            nn.LayerNorm(width), nn.Linear(width, wide), nn.GELU(), nn.Linear(wide, wide), nn.LayerNorm(wide)
        )
        self.scale = nn.Parameter(torch.tensor(scale))

    def forward(self, values_BTD: Tensor) -> Tensor:
        out: Tensor = self.layers(values_BTD) * self.scale
        return out
