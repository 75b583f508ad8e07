"""Texts, learned with the right words before each word. Dimensions: B batch, L tokens of a target, V vocabulary."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from fuseline.lab.decoders import decoder_class
from fuseline.lab.decoders.base import State
from fuseline.lab.heads.base import Head
from fuseline.lab.tokens import Fused, Tokens, View
from fuseline.modalities import Modality
from fuseline.recipe import read_options
from fuseline.tasks.base import Task
from fuseline.tasks.decoding import PAD
from fuseline.tasks.generation import Generation, GenerationConfig


class GenerationHead(Head):
    """{"logits": (B, V) of the first token, and what the decoder remembers}: the first of an answer's two graphs.

    Learning goes on from there, through the very function that answering repeats.
    """

    def __init__(self, task: Task, inputs: Mapping[str, Modality], *, width: int, dropout: float) -> None:
        super().__init__(task, inputs, width=width, dropout=dropout)
        assert isinstance(task, Generation)
        self.length, self.smoothing = task.length, task.config.label_smoothing
        spec = task.config.decoder
        kind = decoder_class(spec.kind)
        self.drop = nn.Dropout(dropout)
        self.decoder = kind(read_options(kind.Config, spec.options, "task.decoder"), task, width=width)

    @classmethod
    def task_options(cls, config: Any) -> dict[str, Any]:
        assert isinstance(config, GenerationConfig)
        kind = decoder_class(config.decoder.kind)
        return kind.task_options(read_options(kind.Config, config.decoder.options, "task.decoder"))

    def forward(self, fused: Fused, view: View) -> dict[str, Tensor]:
        said = self.decoder.begin(Tokens(self.drop(fused.tokens_BTD), fused.mask_BT))
        return {"logits": said.logits_BLV[:, -1].float(), **said.state}

    def loss(self, outputs: dict[str, Tensor], targets: Tensor) -> Tensor:
        """Cross entropy with smoothed targets, mean over the tokens of the batch. `targets` (B, L + R): the ids, and
        what the loss does not look at."""
        log_BLV, ids_BL = self._log_chances(outputs, targets)
        there_BL = ids_BL != PAD
        right_BL = log_BLV.gather(2, ids_BL.clamp(min=0)[:, :, None])[:, :, 0]
        wanted_BL = (1 - self.smoothing) * right_BL + self.smoothing * log_BLV.mean(dim=2)
        return -torch.where(there_BL, wanted_BL, 0.0).sum() / there_BL.sum().clamp(min=1)

    def validation(self, outputs: dict[str, Tensor], targets: Tensor) -> dict[str, Tensor]:
        """`nll`: the sum of -log chance of a row's tokens (B,), and how many `tokens` these are."""
        log_BLV, ids_BL = self._log_chances(outputs, targets)
        there_BL = ids_BL != PAD
        right_BL = log_BLV.gather(2, ids_BL.clamp(min=0)[:, :, None])[:, :, 0]
        return {"nll": -torch.where(there_BL, right_BL, 0.0).sum(dim=1), "tokens": there_BL.sum(dim=1).float()}

    def _log_chances(self, outputs: dict[str, Tensor], targets: Tensor) -> tuple[Tensor, Tensor]:
        ids_BL = targets[:, : self.length].long()
        longest = max(1, int((ids_BL != PAD).sum(dim=1).max()))
        ids_BL = ids_BL[:, :longest]
        logits_BLV = outputs["logits"][:, None]
        if longest > 1:
            state: State = {k: v for k, v in outputs.items() if k.startswith(("memory.", "cache."))}
            later = self.decoder.step(ids_BL[:, :-1].clamp(min=0), state).logits_BLV
            logits_BLV = torch.cat([logits_BLV, later.to(logits_BLV.dtype)], dim=1)
        return logits_BLV.float().log_softmax(dim=2), ids_BL
