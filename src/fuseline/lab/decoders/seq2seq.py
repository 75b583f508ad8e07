"""The decoder half of a Hugging Face encoder-decoder model. Dimensions: B batch, T fused tokens, D model width, E the
decoder's width, L text tokens, P tokens remembered."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from transformers import AutoModelForSeq2SeqLM
from transformers.cache_utils import EncoderDecoderCache
from transformers.modeling_outputs import BaseModelOutput

from fuseline.errors import FuselineError
from fuseline.lab.decoders.base import Decoder, Said, State
from fuseline.lab.decoders.pretrained import (
    PretrainedConfig,
    Projector,
    additive,
    cache_of,
    causal,
    load_language_model,
    tensors_of,
    tokenizer_options,
)
from fuseline.lab.tokens import Tokens
from fuseline.tasks.generation import Generation


class Seq2SeqConfig(PretrainedConfig):
    pass


class Seq2SeqDecoder(Decoder):
    """T5, BART, Pegasus, Marian and their like: fused tokens stand where their own encoder's output would.

    Remembers `memory.k.I`, `memory.v.I` (B, H, T, d), `memory.mask` (B, T), `cache.k.I`, `cache.v.I` (B, H, P, d).
    """

    Config = Seq2SeqConfig
    growing: ClassVar[Mapping[str, int]] = {"k": 2, "v": 2}

    @classmethod
    def task_options(cls, config: Seq2SeqConfig) -> dict[str, Any]:
        return tokenizer_options(config, ("decoder_start_token_id", "bos_token_id"))

    def __init__(self, config: Seq2SeqConfig, task: Generation, *, width: int) -> None:
        super().__init__(config, task, width=width)
        self.model = load_language_model(config, AutoModelForSeq2SeqLM)
        self.start_id = task.start_id
        # Its encoder ended with a normalisation.
        self.project = Projector(width, self.model.get_input_embeddings().weight.shape[1], 1.0)
        known = self.model.config
        self.depth = int(getattr(known, "num_decoder_layers", None) or known.decoder_layers)
        self._without_encoder()
        positions = getattr(known, "max_position_embeddings", None)
        if positions and task.length > positions:
            raise FuselineError(
                "bad_recipe", f"task.max_length {task.length} is above the {positions} of {config.source}", "shorten it"
            )

    def _without_encoder(self) -> None:
        encoder = self.model.get_encoder()
        for name, part in list(self.model.named_modules()):
            if part is encoder:
                parent, _, child = name.rpartition(".")
                setattr(self.model.get_submodule(parent), child, nn.Module())

    def begin(self, memory: Tokens) -> Said:
        values_BTE = self.project(memory.values_BTD)
        state: State = {"memory.mask": memory.mask_BT.to(values_BTE.dtype)}
        start_B1 = torch.full_like(memory.mask_BT[:, :1], self.start_id, dtype=torch.int64)
        return self._read(start_B1, values_BTE, state)

    def step(self, ids_BL: Tensor, state: State) -> Said:
        # What it would be read from is remembered already; only its length is looked at.
        nothing_BTE = state["memory.mask"][:, :, None].expand(-1, -1, self.project.width)
        return self._read(ids_BL, nothing_BTE, state)

    def _read(self, ids_BL: Tensor, values_BTE: Tensor, state: State) -> Said:
        new = ids_BL.shape[1]
        old = state["cache.k.0"].shape[2] if "cache.k.0" in state else 0
        cache = EncoderDecoderCache(cache_of(state, "cache", self.depth), cache_of(state, "memory", self.depth))
        whole_BK = torch.ones_like(ids_BL[:, :1]).expand(-1, old + new)
        out = self.model(
            encoder_outputs=BaseModelOutput(last_hidden_state=values_BTE),
            attention_mask=additive(state["memory.mask"][:, None, None, :] > 0, values_BTE),
            decoder_input_ids=ids_BL,
            decoder_attention_mask=causal(whole_BK, new, values_BTE),
            past_key_values=cache,
            use_cache=True,
        )
        own, read = tensors_of(cache.self_attention_cache, "cache"), tensors_of(cache.cross_attention_cache, "memory")
        return Said(out.logits, {"memory.mask": state["memory.mask"], **read, **own})
