"""A causal language model that reads the fused tokens as words before its own. Dimensions: B batch, T fused tokens,
D model width, E width of the language model, L text tokens, P tokens remembered."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor
from transformers import AutoModelForCausalLM

from fuseline.errors import FuselineError
from fuseline.lab.decoders.base import Decoder, Said, State
from fuseline.lab.decoders.pretrained import (
    PretrainedConfig,
    Projector,
    cache_of,
    causal,
    load_language_model,
    tensors_of,
    tokenizer_options,
)
from fuseline.lab.tokens import Tokens
from fuseline.tasks.generation import Generation


class PrefixConfig(PretrainedConfig):
    prompt: str = Field("", description="text between the fused tokens and the answer, the same for every row")


class PrefixDecoder(Decoder):
    """GPT-2, Llama and their like behind a projector (Liu et al. 2023, "Visual Instruction Tuning"), adapted by LoRA
    (Hu et al. 2021), frozen, or trained in full.

    Remembers `cache.k.I`, `cache.v.I` (B, H, P, d) and `cache.mask` (B, P): which fused tokens are real.
    """

    Config = PrefixConfig
    growing: ClassVar[Mapping[str, int]] = {"k": 2, "v": 2, "mask": 1}

    @classmethod
    def task_options(cls, config: PrefixConfig) -> dict[str, Any]:
        return tokenizer_options(config, ("bos_token_id",))

    def __init__(self, config: PrefixConfig, task: Generation, *, width: int) -> None:
        super().__init__(config, task, width=width)
        self.model = load_language_model(config, AutoModelForCausalLM)
        words = self.model.get_input_embeddings().weight.detach()
        # As large as its own words are: it was never shown others.
        self.project = Projector(width, words.shape[1], max(1e-3, float(words.float().std())))
        self.depth = int(self.model.config.num_hidden_layers)
        self.positions = getattr(self.model.config, "max_position_embeddings", None)
        self.length = task.length
        prompt = task.tokenizer.encode(config.prompt, add_special_tokens=False).ids if config.prompt else []
        self.register_buffer("start_S", torch.tensor([task.start_id, *prompt]), persistent=False)
        known = inspect.signature(self.model.forward).parameters
        self.takes_positions, self.takes_keep = "position_ids" in known, "logits_to_keep" in known

    def begin(self, memory: Tokens) -> Said:
        values_BTE = self.project(memory.values_BTD)
        start_S = self.get_buffer("start_S")
        start_BSE = self.model.get_input_embeddings()(start_S)[None].expand(values_BTE.shape[0], -1, -1)
        self._fits(memory.mask_BT.shape[1] + len(start_S))
        mask_BP = memory.mask_BT.to(values_BTE.dtype)
        mask_BP = torch.cat([mask_BP, torch.ones_like(start_BSE[:, :, 0], dtype=mask_BP.dtype)], dim=1)
        return self._read(torch.cat([values_BTE, start_BSE], dim=1), mask_BP, {}, keep=1)

    def step(self, ids_BL: Tensor, state: State) -> Said:
        words_BLE = self.model.get_input_embeddings()(ids_BL)
        new_BL = torch.ones_like(ids_BL, dtype=state["cache.mask"].dtype)
        return self._read(words_BLE, torch.cat([state["cache.mask"], new_BL], dim=1), state, keep=0)

    def _read(self, words_BLE: Tensor, mask_BK: Tensor, state: State, *, keep: int) -> Said:
        """`keep`: logits of the last tokens that are wanted, 0: of all."""
        new = words_BLE.shape[1]
        cache = cache_of(state, "cache", self.depth)
        # Padding among the fused tokens takes no position: a row's answer is the same in any batch.
        more: dict[str, Any] = {}
        if self.takes_positions:
            place_BK = (mask_BK.cumsum(dim=1) - 1).clamp(min=0).to(torch.int64)
            more["position_ids"] = place_BK[:, mask_BK.shape[1] - new :]
        if self.takes_keep:
            more["logits_to_keep"] = keep
        out = self.model(
            inputs_embeds=words_BLE,
            attention_mask=causal(mask_BK, new, words_BLE),
            past_key_values=cache,
            use_cache=True,
            **more,
        )
        logits_BLV = out.logits[:, -keep:] if keep else out.logits
        return Said(logits_BLV, {**tensors_of(cache, "cache"), "cache.mask": mask_BK})

    def _fits(self, before: int) -> None:
        if torch.compiler.is_exporting() or not self.positions or before + self.length <= self.positions:
            return
        raise FuselineError(
            "bad_recipe",
            f"{before} tokens before the answer and {self.length} of it are more than the {self.positions} positions "
            "of task.decoder",
            "a fusion of fewer tokens (bottleneck, concat), shorter inputs, or a smaller task.max_length",
        )
