"""Tiny language models as `save_pretrained` writes them: random weights, a tokenizer of their own, no network."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import transformers as t

from fuseline.tasks import vocabulary

CAUSAL = ("gpt2", "llama")
SEQ2SEQ = ("t5", "bart")
TEXTS = ("the patient is ill, with fever", "the patient is well", "a 咳嗽 and a cough", "no change", "") * 4
START, END = 1, 2


def config(kind: str, words: int) -> Any:
    ids = {"vocab_size": words, "bos_token_id": START, "eos_token_id": END}
    body = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48}
    half = {"encoder_layers": 1, "decoder_layers": 2, "encoder_attention_heads": 2, "decoder_attention_heads": 2}
    match kind:
        case "gpt2":
            return t.GPT2Config(n_positions=160, n_embd=32, n_layer=2, n_head=2, **ids)
        case "llama":
            return t.LlamaConfig(num_key_value_heads=2, max_position_embeddings=160, **ids, **body)
        case "t5":
            sizes = {"d_model": 32, "d_kv": 16, "d_ff": 48, "num_layers": 2, "num_heads": 2}
            return t.T5Config(decoder_start_token_id=0, pad_token_id=0, **ids, **sizes)
        case "bart":
            more = {"d_model": 32, "encoder_ffn_dim": 32, "decoder_ffn_dim": 32, "max_position_embeddings": 64}
            return t.BartConfig(
                decoder_start_token_id=START, pad_token_id=0, forced_eos_token_id=None, **ids, **half, **more
            )
    raise ValueError(kind)


def language_model(folder: Path, kind: str, texts: Sequence[str] = TEXTS) -> Path:
    """A folder that `source` can name; made once."""
    if (folder / "config.json").is_file():
        return folder
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = vocabulary.train(texts, 300)
    tokenizer.save(str(folder / "tokenizer.json"))
    torch.manual_seed(0)
    auto = t.AutoModelForCausalLM if kind in CAUSAL else t.AutoModelForSeq2SeqLM
    model = auto.from_config(config(kind, tokenizer.get_vocab_size()))
    t.utils.logging.disable_progress_bar()
    model.save_pretrained(folder)
    return folder
