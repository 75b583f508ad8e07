"""WordPiece inside the graph. Dimensions: B batch, W words, R = B x W words, N tokens of all, T tokens of the longest.

The extensions' `BertTokenizer` is not used: it gives `hi`, `[UNK]` for a word such as `hi😀` that is one `[UNK]`, reads
special tokens in a text as plain words, and knows accents of Latin letters only. Their `WordpieceTokenizer` takes words
apart (and its answer for unknown ones is mended here); the normaliser before it becomes a table of characters that is
read off the real one.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

import numpy as np
from tokenizers import Tokenizer

from fuseline.lab.export.nodes import ML, Nodes, NotEmbeddedError
from fuseline.modalities.text import Text

SPLIT = "\x01"
"""Around characters that are looked up. Cleaning has removed every control character before."""
UNKNOWN = "\x7f"


def character_table(tokenizer: Tokenizer, lowercase: bool) -> dict[str, str]:
    """What every character becomes, where that is not itself: `É` `e`, `!` ` ! `, a combining accent nothing.

    Read off the tokenizer, which is asked about all 1.1 million code points, by the hundred where they are all alike:
    blanks are where it would begin another word.
    """
    normalise = tokenizer.normalizer.normalize_str if tokenizer.normalizer else str
    split = tokenizer.pre_tokenizer.pre_tokenize_str

    def became(text: str) -> str:
        return " ".join(word for word, _ in split(f"x{normalise(text.lower() if lowercase else text)}x"))[1:-1]

    table: dict[str, str] = {}
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


def wordpiece(
    nodes: Nodes, text: str, modality: Text, spec: dict[str, Any], specials: dict[str, str]
) -> tuple[str, str]:
    """(B, T) ids without what stands around them, (B,) how many. Raises :class:`NotEmbeddedError`.

    `specials`: token -> the control character that stands for it in `text`.
    """
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
