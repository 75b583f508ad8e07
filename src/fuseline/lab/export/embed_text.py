"""Texts to ids inside the graph, equal to what the package's tokenizer gives. Dimensions: B batch, W words, T tokens.

Two families are known: WordPiece behind a normaliser that treats every character alone (BERT, MiniLM), and byte-level
BPE (GPT-2, RoBERTa, and the tokenizers that this library trains). The ready-made `BertTokenizer` operator is not used:
it gives `hi`, `[UNK]` for a word such as `hi😀` that is one `[UNK]`, reads special tokens in a text as plain words,
and knows accents of Latin letters only. What it lacks is written here with plain string operators, and the normaliser
becomes a table of characters that is read off the real one.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from onnx import TensorProto
from tokenizers import Tokenizer

from fuseline.lab.export.nodes import ML, Nodes, NotEmbeddedError
from fuseline.modalities.text import Text

MARK = "\ufdd0\ufdd1"
"""Between pieces of a text while it is cut: two code points that Unicode promises never to use."""
SPLIT = "\x01"
"""Around characters that are looked up. Cleaning has removed every control character before."""
FIRST_PLACE = 2
"""Special tokens in a text become the control characters from here on, those that are white space left out."""
UNKNOWN = "\x7f"
END = "<|endoftext|>"
"""GPT2Tokenizer takes this for a special token, whatever the vocabulary."""
GONE = "\x1e"
"""Put into END, where words end anyhow, and taken out of the tokens again."""
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
        text_B = nodes.replace(text_B, _quoted(token), place)
    match spec["model"]["type"]:
        case "WordPiece":
            ids_BT, count_B = _wordpiece(nodes, text_B, modality, spec, specials)
        case "BPE":
            ids_BT, count_B = _byte_pairs(nodes, text_B, modality, spec, specials)
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
    text = nodes.ext("StringJoin", pieces, nodes.text(SPLIT), nodes.const([1]))
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


def _quoted(text: str) -> str:
    return "".join(f"\\x{{{ord(c):x}}}" for c in text)


def character_table(tokenizer: Tokenizer, lowercase: bool) -> dict[str, str]:
    """What every character becomes, where that is not itself: `É` `e`, `!` ` ! `, a combining accent nothing.

    Read off the tokenizer, which is asked about all 1.1 million code points, by the hundred where they are all alike:
    blanks are where it would begin another word.
    """
    normalise = tokenizer.normalizer.normalize_str if tokenizer.normalizer else str
    split = tokenizer.pre_tokenizer.pre_tokenize_str

    def became(text: str) -> str:
        return " ".join(word for word, _ in split(f"x{normalise(text.lower() if lowercase else text)}x"))[1:-1]

    table = {}
    points = [*range(0x20, 0x7F), *range(0xA0, 0xD800), *range(0xE000, 0x110000)]
    for start in range(0, len(points), 128):
        some = [chr(point) for point in points[start : start + 128]]
        together = became("".join(some))
        if together == "":
            table |= dict.fromkeys(some, "")
        elif together == f" {' '.join(some)} ":
            table |= {c: f" {c} " for c in some}
        elif together != "".join(some):
            table |= {c: one for c in some if (one := became(c)) != c}
    return table


def character_class(characters: Iterable[str]) -> str:
    """An RE2 class of these characters."""
    spans: list[list[int]] = []
    for point in sorted(map(ord, characters)):
        if spans and spans[-1][1] == point - 1:
            spans[-1][1] = point
        else:
            spans.append([point, point])
    return "[" + "".join(f"\\x{{{a:x}}}-\\x{{{b:x}}}" for a, b in spans) + "]"


def _wordpiece(
    nodes: Nodes, text: str, modality: Text, spec: dict[str, Any], specials: dict[str, str]
) -> tuple[str, str]:
    """(B, T) ids without frame, (B,) counts."""
    model = spec["model"]
    if spec["pre_tokenizer"] is None or spec["pre_tokenizer"]["type"] != "BertPreTokenizer":
        raise NotEmbeddedError("its tokenizer splits words by another rule than BERT's")
    for place in specials.values():
        text = nodes.replace(text, place, f" {place} ")
    table = character_table(modality.tokenizer, modality.config.lowercase)
    groups: dict[str, list[str]] = {"": [], " ": [], r" \1 ": []}
    others = {}
    for c, became in table.items():
        key = r" \1 " if became == f" {c} " else became
        if key in groups:
            groups[key].append(c)
        else:
            others[c] = became
    if others:
        marked = nodes.replace(text, f"({character_class(others)})", rf"{SPLIT}\1{SPLIT}")
        pieces, _ = nodes.op("StringSplit", marked, outputs=2, delimiter=SPLIT)
        rows = "".join(f"{c}\t{became}\n" for c, became in others.items())
        mapped = nodes.ext("StringMapping", pieces, map=rows)
        text = nodes.ext("StringJoin", mapped, nodes.text(""), nodes.const([1]))
    for by, characters in groups.items():
        if characters:
            text = nodes.replace(text, f"({character_class(characters)})", by)
    words_BW, _ = nodes.op("StringSplit", text, outputs=2)
    vocabulary = dict(model["vocab"])
    unknown = vocabulary[model["unk_token"]]
    ids = {name: vocabulary.get(name, modality.tokenizer.token_to_id(name)) for name in specials}
    vocabulary |= {place: ids[name] for name, place in specials.items()}
    tokens_N, _, begin_R, end_R = nodes.ext(
        "WordpieceTokenizer",
        nodes.op("Reshape", words_BW, nodes.const([-1])),
        nodes.const([], np.int64),
        outputs=4,
        vocab=json.dumps(vocabulary),
        suffix_indicator=model["continuing_subword_prefix"],
        unknown_token=UNKNOWN,
        max_input_chars_per_word=model["max_input_chars_per_word"],
    )
    ids_N = nodes.op(
        "LabelEncoder",
        tokens_N,
        domain=ML,
        keys_strings=[*vocabulary, UNKNOWN],
        values_int64s=[*vocabulary.values(), -1],
        default_int64=-1,
    )
    return _ragged(nodes, words_BW, ids_N, begin_R, end_R, unknown)


def _ragged(nodes: Nodes, words_BW: str, ids_N: str, begin_R: str, end_R: str, unknown: int) -> tuple[str, str]:
    """Tokens of R = B·W words, one after the other, to (B, T). A word that ends in -1 is one unknown token, whatever
    the operator gave before it.
    """
    one, zero, minus = nodes.const([1]), nodes.const([0]), nodes.const([-1])
    count_R = nodes.op("Sub", end_R, begin_R)
    padded_N = nodes.op("Concat", ids_N, zero, axis=0)  # so that there is a last token, even of no text at all
    last_R = nodes.op("Gather", padded_N, nodes.op("Max", nodes.op("Sub", end_R, one), zero))
    some_R = nodes.op("Greater", count_R, zero)
    bad_R = nodes.op("And", some_R, nodes.op("Equal", last_R, minus))
    own_R = nodes.op("Where", bad_R, one, count_R)
    shape_BW = nodes.op("Shape", words_BW)
    before_R = nodes.op("CumSum", own_R, nodes.const(0), exclusive=1)
    count_B = nodes.op("ReduceSum", nodes.op("Reshape", own_R, shape_BW, allowzero=1), one, keepdims=0)
    start_B = nodes.op("CumSum", count_B, nodes.const(0), exclusive=1)
    # Where each token goes: row and place. A token of a bad word but its last goes to a column that is cut away.
    batch, width = nodes.axis(words_BW, 0), nodes.axis(words_BW, 1)
    steps_N = nodes.op("Range", nodes.const(0), nodes.op("Squeeze", nodes.axis(ids_N, 0)), nodes.const(1))
    # The word of token n: how many words end at or before n. (N, R) compared at once would grow with the square.
    ends = nodes.op("ScatterElements", nodes.op("Expand", zero, nodes.op("Add", nodes.axis(ids_N, 0), one)),
                    end_R, nodes.op("Expand", one, nodes.op("Shape", end_R)), axis=0, reduction="add")  # fmt: skip
    word_N = nodes.op("Gather", nodes.op("CumSum", ends, nodes.const(0)), steps_N)
    row_N = nodes.op("Div", word_N, nodes.op("Max", width, one))
    kept_N = nodes.op("Or", nodes.op("Not", nodes.op("Gather", bad_R, word_N)), nodes.op("Equal", ids_N, minus))
    inside_N = nodes.op("Sub", steps_N, nodes.op("Gather", begin_R, word_N))
    inside_N = nodes.op("Where", nodes.op("Gather", bad_R, word_N), zero, inside_N)
    place_N = nodes.op("Sub", nodes.op("Add", nodes.op("Gather", before_R, word_N), inside_N),
                       nodes.op("Gather", start_B, row_N))  # fmt: skip
    longest = nodes.op("ReduceMax", nodes.op("Concat", count_B, zero, axis=0), keepdims=1)
    place_N = nodes.op("Where", kept_N, place_N, longest)
    value_N = nodes.op("Where", nodes.op("Equal", ids_N, minus), nodes.const([unknown]), ids_N)
    blank = nodes.op("Expand", zero, nodes.op("Concat", batch, nodes.op("Add", longest, one), axis=0))
    where_N2 = nodes.op("Concat", nodes.op("Unsqueeze", row_N, one), nodes.op("Unsqueeze", place_N, one), axis=1)
    dense = nodes.op("ScatterND", blank, where_N2, value_N)
    return nodes.slice(dense, zero, longest, 1), str(count_B)


def _byte_pairs(
    nodes: Nodes, text: str, modality: Text, spec: dict[str, Any], specials: dict[str, str]
) -> tuple[str, str]:
    """(B, T) ids without frame, (B,) counts."""
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
        places = "".join(_quoted(p) for p in specials.values())
        text = nodes.replace(text, rf"^([^\s\pZ{places}])", r" \1")
        if places:
            text = nodes.replace(text, rf"([{places}])([^\s\pZ{places}])", r"\1 \2")
    ids = {place: modality.tokenizer.token_to_id(name) for name, place in specials.items()}
    if END not in specials:
        text = nodes.replace(text, _quoted(END), f"<|{GONE}endoftext|>")
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
