"""A tokenizer with fewer pieces that still spells every word: surgery on the text of a tokenizer.json.

A piece that is left out is spelled by smaller ones. Texts made of pieces that stay are read as before, piece by piece,
and no text has an unknown piece that had none before:

- WordPiece takes the longest piece that fits, again and again. All characters stay, at the start of a word and inside,
  so that it never gets stuck; where a character had only pieces longer than itself, it gets one of its own.
- BPE joins by rank. With a piece stay all pairs that it can be joined from, and theirs, so that the same joins happen
  in the same order; pieces that are joined from nothing (bytes, characters) stay.
- Unigram takes the likeliest split. All characters and bytes stay; one that had no piece of its own gets one, as likely
  as an unknown piece was, so that no split of before becomes less likely than a new one.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from typing import Any

from tokenizers import Tokenizer

UNKNOWN_PENALTY = 10.0
"""by how much less likely than the least likely piece Unigram takes an unknown one to be (tokenizers and
sentencepiece)"""

_Keep = Callable[[dict[str, Any], set[str], set[str]], tuple[list[str], dict[str, list[str]]]]


@dataclass(frozen=True)
class Shrunk:
    """`text`: of the new tokenizer.json. `sources`: for every new id the old ids whose rows it takes (their mean)."""

    text: str
    sources: list[list[int]]


def shrink_tokenizer(text: str, used: Collection[int], hold: int | None = None) -> Shrunk | None:
    """Drop all pieces that are not `used` and that nothing needs. None for a tokenizer that cannot spell (WordLevel).

    Args:
        text: of a tokenizer.json.
        used: ids that must stay.
        hold: a piece whose id must not change: padding, from whose id some models count their positions.
    """
    data = json.loads(text)
    model, added = data["model"], data["added_tokens"]
    rules: dict[str, _Keep] = {"WordPiece": _wordpiece, "BPE": _bpe, "Unigram": _unigram}
    keep = rules.get(str(model.get("type")))
    if keep is None:
        return None
    unigram = model["type"] == "Unigram"
    ids = {piece: i for i, (piece, _) in enumerate(model["vocab"])} if unigram else dict(model["vocab"])
    special = {token["content"] for token in added} | _said(data.get("post_processor"))
    if model.get("unk_token"):
        special.add(model["unk_token"])
    if unigram and model.get("unk_id") is not None:
        special.add(model["vocab"][model["unk_id"]][0])
    wanted = {piece for piece, i in ids.items() if i in used or i == hold} | (special & ids.keys())
    kept, new = keep(model, wanted, special)
    kept = sorted(kept, key=ids.__getitem__)
    held = next((piece for piece in kept if ids[piece] == hold), None)
    if held is not None and hold is not None:
        kept.remove(held)
        kept.insert(hold, held)
    order = [*kept, *new]
    number = {piece: i for i, piece in enumerate(order)}
    sources = [[ids[piece]] if piece in ids else [ids[s] for s in new[piece]] for piece in order]
    outside = sorted((t for t in added if t["content"] not in number), key=lambda t: int(t["id"]))
    for token in outside:
        number[token["content"]] = len(sources)
        sources.append([token["id"]])
    _renumber(data, number)
    _write_vocabulary(model, order, set(new), number)
    out = json.dumps(data, ensure_ascii=False)
    _prove(out, number)
    return Shrunk(out, sources)


def _wordpiece(model: dict[str, Any], wanted: set[str], special: set[str]) -> tuple[list[str], dict[str, list[str]]]:
    prefix = model["continuing_subword_prefix"]
    starts, insides = defaultdict[str, list[str]](list), defaultdict[str, list[str]](list)
    for piece in model["vocab"].keys() - special:
        rest = piece
        if piece.startswith(prefix) and piece != prefix:
            rest = piece[len(prefix) :]
        else:
            starts[piece[:1]].append(piece)
            rest = piece[1:]
        for character in rest:
            insides[prefix + character].append(piece)
    return _with_characters(model["vocab"], wanted, {**starts, **insides})


def _unigram(model: dict[str, Any], wanted: set[str], special: set[str]) -> tuple[list[str], dict[str, list[str]]]:
    characters = defaultdict[str, list[str]](list)
    pieces = [piece for piece, _ in model["vocab"]]
    for piece in pieces:
        if model.get("byte_fallback") and piece.startswith("<0x"):
            wanted.add(piece)
        elif piece not in special:
            for character in piece:
                characters[character].append(piece)
    return _with_characters(pieces, wanted, characters)


def _with_characters(
    pieces: Iterable[str], wanted: set[str], characters: dict[str, list[str]]
) -> tuple[list[str], dict[str, list[str]]]:
    known = set(pieces)
    kept = wanted | (known & characters.keys())
    new = {c: sorted(set(found)) for c, found in characters.items() if c and c not in known}
    return list(kept), dict(sorted(new.items()))


def _bpe(model: dict[str, Any], wanted: set[str], special: set[str]) -> tuple[list[str], dict[str, list[str]]]:
    prefix = model.get("continuing_subword_prefix") or ""
    parts = defaultdict[str, list[tuple[str, str]]](list)
    for left, right in map(_pair, model["merges"]):
        parts[left + right.removeprefix(prefix)].append((left, right))
    kept = set(wanted) | {piece for piece in model["vocab"] if piece not in parts}
    waiting = list(kept)
    while waiting:
        for pair in parts.get(waiting.pop(), ()):
            waiting += [part for part in pair if part not in kept]
            kept.update(pair)
    model["merges"] = [
        merge
        for merge in model["merges"]
        if (pair := _pair(merge)) and pair[0] + pair[1].removeprefix(prefix) in kept and kept.issuperset(pair)
    ]
    return list(kept), {}


def _pair(merge: str | list[str]) -> tuple[str, str]:
    """Older files write a merge as one text."""
    left, right = merge.split(" ", 1) if isinstance(merge, str) else merge
    return left, right


def _write_vocabulary(model: dict[str, Any], order: list[str], new: set[str], number: dict[str, int]) -> None:
    if model["type"] != "Unigram":
        model["vocab"] = {piece: i for i, piece in enumerate(order)}
        return
    score = dict(model["vocab"])
    rare = min(score.values()) - UNKNOWN_PENALTY
    unknown = model["vocab"][model["unk_id"]][0] if model.get("unk_id") is not None else None
    model["vocab"] = [[piece, rare if piece in new else score[piece]] for piece in order]
    model["unk_id"] = None if unknown is None else number[unknown]


def _renumber(data: dict[str, Any], number: dict[str, int]) -> None:
    for token in data["added_tokens"]:
        token["id"] = number[token["content"]]
    data["added_tokens"].sort(key=lambda token: token["id"])
    if data.get("padding"):
        data["padding"]["pad_id"] = number[data["padding"]["pad_token"]]
    _renumber_processor(data.get("post_processor"), number)


def _said(processor: dict[str, Any] | None) -> set[str]:
    """Tokens that a post-processor adds to every text."""
    match (processor or {}).get("type"):
        case "TemplateProcessing":
            assert processor is not None
            return {piece for token in processor["special_tokens"].values() for piece in token["tokens"]}
        case "BertProcessing" | "RobertaProcessing":
            assert processor is not None
            return {processor["sep"][0], processor["cls"][0]}
        case "Sequence":
            assert processor is not None
            return {piece for part in processor["processors"] for piece in _said(part)}
    return set()


def _renumber_processor(processor: dict[str, Any] | None, number: dict[str, int]) -> None:
    match (processor or {}).get("type"):
        case "TemplateProcessing":
            assert processor is not None
            for token in processor["special_tokens"].values():
                token["ids"] = [number[piece] for piece in token["tokens"]]
        case "BertProcessing" | "RobertaProcessing":
            assert processor is not None
            for name in ("sep", "cls"):
                processor[name] = [processor[name][0], number[processor[name][0]]]
        case "Sequence":
            assert processor is not None
            for part in processor["processors"]:
                _renumber_processor(part, number)


def _prove(text: str, number: dict[str, int]) -> None:
    """The library numbers added tokens by its own rules: it must have come to the same."""
    tokenizer = Tokenizer.from_str(text)
    for piece, i in number.items():
        assert tokenizer.token_to_id(piece) == i, f"{piece!r} is {tokenizer.token_to_id(piece)}, not {i}"
    assert tokenizer.get_vocab_size() == len(number)
