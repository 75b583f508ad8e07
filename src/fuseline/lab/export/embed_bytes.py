"""Byte-level BPE inside the graph: GPT-2, RoBERTa, and the tokenizers that this library trains."""

from __future__ import annotations

import json
from typing import Any

from onnx import TensorProto

from fuseline.lab.export.nodes import Nodes, NotEmbeddedError, quoted
from fuseline.modalities.text import Text

END = "<|endoftext|>"
"""GPT2Tokenizer takes this for a special token, whatever the vocabulary."""
GONE = "\x1e"
"""Put into END, where words end anyhow, and taken out of the tokens again."""


def byte_pairs(
    nodes: Nodes, text: str, modality: Text, spec: dict[str, Any], specials: dict[str, str]
) -> tuple[str, str]:
    """(B, T) ids without what stands around them, (B,) how many. Raises :class:`NotEmbeddedError`.

    `specials`: token -> the control character that stands for it in `text`.
    """
    model, pre, norm = spec["model"], spec["pre_tokenizer"], spec["normalizer"]
    if pre is None or pre["type"] != "ByteLevel" or not pre.get("use_regex", True):
        raise NotEmbeddedError("its tokenizer is BPE, but not over bytes with GPT-2's rule of words")
    if norm is not None and norm["type"] != "NFC":
        raise NotEmbeddedError(f"its tokenizer's normaliser is of type {norm['type']}")
    odd = ("dropout", "continuing_subword_prefix", "end_of_word_suffix", "byte_fallback", "ignore_merges")
    if any(model.get(key) for key in odd):
        raise NotEmbeddedError("its tokenizer's BPE has options not known here")
    if modality.config.lowercase:
        raise NotEmbeddedError("it is lower-cased first, and no operator lower-cases as Unicode says")
    if pre["add_prefix_space"]:
        places = "".join(quoted(p) for p in specials.values())
        text = nodes.replace(text, rf"^([^\s\pZ{places}])", r" \1")
        if places:
            text = nodes.replace(text, rf"([{places}])([^\s\pZ{places}])", r"\1 \2")
    ids = {place: modality.tokenizer.token_to_id(name) for name, place in specials.items()}
    if END not in specials:
        text = nodes.replace(text, quoted(END), f"<|{GONE}endoftext|>")
        ids[GONE] = modality.vocab_size
    merges = [m if isinstance(m, str) else " ".join(m) for m in model["merges"]]
    ids_BT, mask_BT = nodes.ext(
        "GPT2Tokenizer",
        text,
        outputs=2,
        vocab=json.dumps(model["vocab"], ensure_ascii=False),
        merges="\n".join(merges),
        added_token="\n".join(f"{place}={number}" for place, number in ids.items()),
        padding_length=-1,
    )
    one, gone = nodes.const([1]), nodes.const([modality.vocab_size])
    kept_BT = nodes.op("And", nodes.op("Greater", mask_BT, nodes.const([0])), nodes.op("Less", ids_BT, gone))
    counted_BT = nodes.op("CumSum", nodes.op("Cast", kept_BT, to=TensorProto.INT64), nodes.const(1))
    width = nodes.axis(ids_BT, 1)
    place_BT = nodes.op("Where", kept_BT, nodes.op("Sub", counted_BT, one), width)
    blank = nodes.op(
        "Expand", nodes.const([0]), nodes.op("Concat", nodes.axis(ids_BT, 0), nodes.op("Add", width, one), axis=0)
    )
    dense = nodes.op("ScatterElements", blank, place_BT, ids_BT, axis=1)
    count_B = nodes.op("ReduceSum", nodes.op("Cast", kept_BT, to=TensorProto.INT64), one, keepdims=0)
    return nodes.slice(dense, nodes.const([0]), width, 1), str(count_B)
