"""How far an encoder's weights may move: frozen, low-rank adapters (LoRA, Hu et al. 2021), or full."""

from __future__ import annotations

import types
from typing import Literal

from torch import nn

Tune = Literal["frozen", "lora", "full"]

_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)


def batch_norms_eval(module: nn.Module) -> None:
    """Keep running statistics as they are: they were learned on more pictures than a table has."""
    for part in module.modules():
        if isinstance(part, _NORMS):
            part.eval()


def _never_train(self: nn.Module, mode: bool = True) -> nn.Module:
    return type(self).train(self, False)


def apply_tuning(encoder: nn.Module, tune: Tune, rank: int = 8, alpha: float = 16) -> None:
    """Decide, in place, which of an encoder's weights train.

    - frozen: none; the encoder stays in eval mode even where its parent is put to train mode (no dropout);
    - lora: the weights are frozen; every linear layer and ungrouped 2-d convolution gets a trainable low-rank
      addition, ``W + alpha / rank * B A``, B starting at zero;
    - full: all. Batch norms of pretrained encoders keep their statistics by their own `train`.

    Raises:
        FuselineError: ``bad_recipe`` on lora with a rank below 1 or for an encoder with no such layer.
    """
    if tune == "full":
        encoder.requires_grad_(True)
        return
    encoder.requires_grad_(False)
    if tune == "frozen":
        encoder.train = types.MethodType(_never_train, encoder)  # type: ignore[method-assign]
        encoder.eval()
        return
    from fuseline.lab.encoders.lora import add_adapters

    add_adapters(encoder, rank, alpha)


def merge_lora(module: nn.Module) -> None:
    """Fold every adapter below `module` into its layer, in place: same outputs, ordinary layers and state dict."""
    if any(type(part).__module__.startswith("peft.") for part in module.modules()):
        from fuseline.lab.encoders.lora import merge_adapters

        merge_adapters(module)
