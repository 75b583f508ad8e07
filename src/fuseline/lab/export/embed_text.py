"""Texts to ids inside the graph, equal to what the package's tokenizer gives. Dimensions: B batch, W words, T tokens.

Two families are known: WordPiece behind a normaliser that treats every character alone (BERT, MiniLM), and byte-level
BPE (GPT-2, RoBERTa, and the tokenizers that this library trains).
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from onnx import TensorProto

from fuseline.lab.export.embed_bytes import byte_pairs
from fuseline.lab.export.embed_wordpiece import wordpiece
from fuseline.lab.export.nodes import Nodes, NotEmbeddedError, quoted
from fuseline.modalities.text import Text

MARK = "\ufdd0\ufdd1"
"""Between pieces of a text while it is cut: two code points that Unicode promises never to use."""
FIRST_PLACE = 2
"""Special tokens in a text become the control characters from here on, those that are white space left out."""
_PLACES = [chr(c) for c in range(FIRST_PLACE, 0x1C) if not 9 <= c <= 13]


class Ids(NamedTuple):
    """Names of the graph's values."""

    ids: str
    mask: str
    given_B: str
    """bool: whether the text holds anything; what is empty is absent"""


@dataclass(frozen=True)
class Shape:
    """What stands around a text's own tokens, and how many there may be in all."""

    before: tuple[int, ...]
    after: tuple[int, ...]
    most: int
    pad: int


def embed_text(nodes: Nodes, modality: Text, text_B: str) -> Ids:
    """Add the nodes that turn `text_B` (B,) strings into ids and mask (B, T). Raises :class:`NotEmbeddedError`.

    The strings must be in Unicode NFC, which no operator can bring about; all else that
    :func:`fuseline.modalities.text.clean` does is done here.
    """
    spec = json.loads(modality.tokenizer.to_str())
    shape = Shape(*_around(spec.get("post_processor")), modality.config.max_length, modality.pad_id)
    specials = _specials(spec)
    text_B = _clean(nodes, text_B, modality)
    given_B = nodes.op("Not", nodes.op("Equal", text_B, nodes.text("")))
    for token, place in specials.items():
        text_B = nodes.replace(text_B, quoted(token), place)
    match spec["model"]["type"]:
        case "WordPiece":
            ids_BT, count_B = wordpiece(nodes, text_B, modality, spec, specials)
        case "BPE":
            ids_BT, count_B = byte_pairs(nodes, text_B, modality, spec, specials)
        case kind:
            raise NotEmbeddedError(
                f"its tokenizer is of type {kind}, and only WordPiece and byte-level BPE are known here"
            )
    ids, mask = _framed(nodes, ids_BT, count_B, shape)
    return Ids(ids, mask, given_B)


def _clean(nodes: Nodes, text: str, modality: Text) -> str:
    """As `Text.parse`: cut, blanks for tabs and line ends, no control characters, no blanks at the ends."""
    most = modality.config.max_length * 32
    assert most == modality._most_characters
    # A zero would end the text for the extensions' operators. In its place comes one that goes below, like itself.
    pieces, _ = nodes.op("StringSplit", text, outputs=2, delimiter="\0")
    text = nodes.ext("StringJoin", pieces, nodes.text("\x01"), nodes.const([1]))
    block = max(d for d in range(1, 17) if modality.config.max_length % d == 0) * 32
    pieces, _ = nodes.op(
        "StringSplit", nodes.replace(text, f"((?s).{{{block}}})", rf"\1{MARK}"), outputs=2, delimiter=MARK
    )
    pieces = nodes.slice(pieces, nodes.const([0]), nodes.const([most // block]), 1)
    text = nodes.ext("StringJoin", pieces, nodes.text(""), nodes.const([1]))
    text = nodes.replace(text, r"[\t\n\r\v\f\x{85}\x{2028}\x{2029}]", " ")
    text = nodes.replace(text, r"[\x00-\x1f\x7f-\x9f\x{feff}]", "")
    return nodes.replace(text, r"^[\s\pZ]+|[\s\pZ]+$", "")


def _around(post: Any) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The ids before and after a text, of any of tokenizers' ways to say it."""
    match post:
        case None | {"type": "ByteLevel"}:
            return (), ()
        case {"type": "BertProcessing" | "RobertaProcessing", "cls": [_, cls], "sep": [_, sep]}:
            return (int(cls),), (int(sep),)
        case {"type": "TemplateProcessing", "single": single, "special_tokens": known}:
            sides: tuple[list[int], list[int]] = [], []
            side = 0
            for piece in single:
                if "Sequence" in piece:
                    side += 1
                else:
                    sides[min(side, 1)].extend(known[piece["SpecialToken"]["id"]]["ids"])
            if side == 1:
                return tuple(sides[0]), tuple(sides[1])
        case {"type": "Sequence", "processors": processors}:
            telling = [p for p in processors if p["type"] != "ByteLevel"]
            if len(telling) <= 1:
                return _around(telling[0] if telling else None)
    raise NotEmbeddedError("its tokenizer's post-processor is of a kind not known here")


def _specials(spec: dict[str, Any]) -> dict[str, str]:
    """Tokens that are found in a text before anything else -> the control character that stands for each."""
    added = spec["added_tokens"]
    names = sorted((t["content"] for t in added), key=len, reverse=True)
    if any(t["lstrip"] or t["rstrip"] or t["single_word"] for t in added):
        raise NotEmbeddedError("its tokenizer has special tokens that swallow the blanks around them")
    if len(names) > len(_PLACES) or any(a != b and a in b for a in names for b in names):
        raise NotEmbeddedError(f"its tokenizer has {len(names)} special tokens, more than can be told apart here")
    return dict(zip(names, _PLACES, strict=False))


def _framed(nodes: Nodes, ids_BT: str, count_B: str, shape: Shape) -> tuple[str, str]:
    """Cut to the longest allowed, the special tokens around, padded; and the mask."""
    one = nodes.const([1])
    room = shape.most - len(shape.before) - len(shape.after)
    count_B1 = nodes.op("Unsqueeze", nodes.op("Min", count_B, nodes.const([room])), one)
    batch = nodes.axis(ids_BT, 0)

    def tiled(values: Sequence[int]) -> str:
        return str(nodes.op("Expand", nodes.const([list(values)]), nodes.op("Concat", batch, one, axis=0)))

    parts = [tiled(shape.before)] if shape.before else []
    # One column of padding more than is needed, so that a batch of nothing but empty texts has a column.
    parts += [ids_BT, tiled([shape.pad] * (len(shape.after) + 1))]
    wide = nodes.op("Concat", *parts, axis=1)
    columns_1T = nodes.op(
        "Unsqueeze", nodes.op("Range", nodes.const(0), nodes.op("Squeeze", nodes.axis(wide, 1)), nodes.const(1)),
        nodes.const([0]),
    )  # fmt: skip
    end_B1 = nodes.op("Add", count_B1, nodes.const([len(shape.before)]))
    for step, token in enumerate(shape.after):
        here = nodes.op("Equal", columns_1T, nodes.op("Add", end_B1, nodes.const([step])))
        wide = nodes.op("Where", here, nodes.const([token]), wide)
    # A tokenizer may give no token at all of a text; the package then reads one pad token.
    total_B1 = nodes.op("Max", nodes.op("Add", end_B1, nodes.const([len(shape.after)])), one)
    real_BT = nodes.op("Less", columns_1T, total_B1)
    wide = nodes.op("Where", real_BT, wide, nodes.const([shape.pad]))
    longest = nodes.op("ReduceMax", total_B1, nodes.const([0]), keepdims=0)
    ids = nodes.slice(wide, nodes.const([0]), longest, 1)
    mask = nodes.op("Cast", nodes.slice(real_BT, nodes.const([0]), longest, 1), to=TensorProto.INT64)
    return ids, mask
