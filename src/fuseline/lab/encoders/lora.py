"""Low-rank adapters (LoRA, Hu et al. 2021) by peft. A room of its own: peft and transformers take seconds to load, and
most recipes adapt nothing."""

from __future__ import annotations

from typing import Any

from peft import LoraConfig, inject_adapter_in_model
from peft.tuners.lora.layer import LoraLayer
from torch import nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D  # GPT-2's linear layer, its weight turned

from fuseline.errors import FuselineError


def add_adapters(encoder: nn.Module, rank: int, alpha: float) -> None:
    """A trainable ``alpha / rank * B A`` beside every linear layer and ungrouped 2-d convolution, B starting at zero.

    Raises:
        FuselineError: ``bad_recipe`` for a rank below 1, or an encoder with no such layer.
    """
    if rank < 1 or alpha <= 0:
        raise FuselineError("bad_recipe", f"lora needs rank >= 1 and alpha > 0, not {rank} and {alpha}", "try rank: 8")
    names = _adaptable(encoder)
    if not names:
        raise FuselineError(
            "bad_recipe", f"{type(encoder).__name__} has no layer that lora can adapt", "set tune: full"
        )
    for layer in encoder.modules():
        if isinstance(layer, nn.TransformerEncoderLayer):
            # Its fused path reads the raw weights in eval mode and would skip the adapters.
            layer.activation_relu_or_gelu = 0
    inject_adapter_in_model(
        # peft scales by lora_alpha / r, which is a plain division: a float is fine.
        LoraConfig(
            r=rank,
            lora_alpha=alpha,
            target_modules=names,
            lora_dropout=0.0,
            bias="none",
            fan_in_fan_out=any(isinstance(encoder.get_submodule(name), Conv1D) for name in names),
        ),
        encoder,
    )


def _adaptable(encoder: nn.Module) -> list[str]:
    names: list[str] = []
    skipped: list[str] = []
    words = encoder.get_output_embeddings() if isinstance(encoder, PreTrainedModel) else None
    for name, part in encoder.named_modules():
        # These read their projections' weights directly, never calling the layers: an adapter there would do nothing.
        if isinstance(part, nn.MultiheadAttention) or type(part).__name__ == "WavLMAttention":
            skipped.append(name + ".")
        if part is words:
            continue  # a language model's output layer is its word vectors, too
        # Not a class of its own over a convolution: peft would build an adapter of that class without its arguments.
        linear = isinstance(part, (nn.Linear, Conv1D)) or (type(part) is nn.Conv2d and part.groups == 1)
        if name and linear and not name.startswith(tuple(skipped)):
            names.append(name)
    return names


def merge_adapters(module: nn.Module) -> None:
    """Fold every adapter below `module` into its layer, in place."""
    for name, part in list(module.named_modules()):
        if not isinstance(part, LoraLayer):
            continue
        layer: Any = part
        layer.merge(safe_merge=True)
        parent, _, child = name.rpartition(".")
        setattr(module.get_submodule(parent), child, layer.get_base_layer())
    for part in module.modules():
        if hasattr(part, "peft_config"):
            del part.peft_config
