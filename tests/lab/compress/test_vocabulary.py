"""Fewer word pieces: the same reading of the words that stay, and never a new unknown one."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from lab.compress.cuttable import batch_of, case_names, equal, fresh_of, run, subject_of
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

from fuseline.lab.compress.shapes import fit_shapes
from fuseline.lab.compress.spelling import shrink_tokenizer
from fuseline.lab.compress.vocabulary import count_ids, shrink_vocabulary
from fuseline.modalities import MediaRoot
from fuseline.modalities.text import Text, TextConfig

TEXTS = [
    "the patient has a heavy cough and fever",
    "no fever, clear lungs; the heart is of normal size",
    "das Röntgenbild zeigt ruhige Lungen und keine Ergüsse",
    "咳嗽 咳嗽 发热 肺部 清晰",
    "opacities opacity opaque pneumonia pneumothorax 🫁 naïve café",
] * 4
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
MEDIA = MediaRoot()


def _ends(tokenizer: Tokenizer) -> Tokenizer:
    ends = [(t, tokenizer.token_to_id(t)) for t in ("[CLS]", "[SEP]")]
    tokenizer.post_processor = processors.TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=ends)
    tokenizer.add_tokens([AddedToken("<extra>", special=False)])  # outside the model's own vocabulary
    return tokenizer


def _wordpiece() -> Tokenizer:
    """Longer pieces with characters that have none of their own, which trained vocabularies seldom have."""
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    trainer = trainers.WordPieceTrainer(vocab_size=400, special_tokens=SPECIAL, show_progress=False)
    tokenizer.train_from_iterator(TEXTS, trainer)
    data = json.loads(tokenizer.to_str())
    vocab = data["model"]["vocab"]
    for piece in ("##ß", "ß", "##q"):
        vocab.pop(piece, None)
    pieces = [*sorted(vocab, key=vocab.__getitem__), "großß", "##qu", "x##y", "ab", "abß", "##ßq"]
    data["model"]["vocab"] = {piece: i for i, piece in enumerate(dict.fromkeys(pieces))}
    return _ends(Tokenizer.from_str(json.dumps(data)))


def _byte_bpe() -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=420,
        special_tokens=SPECIAL,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(TEXTS, trainer)
    return _ends(tokenizer)


def _character_bpe() -> Tokenizer:
    tokenizer = Tokenizer(models.BPE(unk_token="[UNK]", end_of_word_suffix="</w>", continuing_subword_prefix="##"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    trainer = trainers.BpeTrainer(
        vocab_size=300,
        special_tokens=SPECIAL,
        end_of_word_suffix="</w>",
        continuing_subword_prefix="##",
        show_progress=False,
    )
    tokenizer.train_from_iterator(TEXTS, trainer)
    return _ends(tokenizer)


def _unigram() -> Tokenizer:
    pieces = [(token, 0.0) for token in SPECIAL]
    characters = sorted({c for text in TEXTS for c in text if not c.isspace()} - set("öüß"))  # some have no own piece
    pieces += [(c, -9.0 - 0.01 * i) for i, c in enumerate(characters)]
    words = sorted({w for text in TEXTS for w in text.split()})
    pieces += [("▁", -2.5), *((f"▁{w}", -5.0 - 0.02 * i) for i, w in enumerate(words))]
    pieces += [(w[1:4], -7.0 - 0.03 * i) for i, w in enumerate(words) if len(w) > 5]
    tokenizer = Tokenizer(models.Unigram(list(dict(pieces).items()), unk_id=1))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.add_special_tokens(SPECIAL[2:])  # some files do not tell padding and unknown from words
    return _ends(tokenizer)


MAKERS: dict[str, Callable[[], Tokenizer]] = {
    "wordpiece": _wordpiece,
    "byte-bpe": _byte_bpe,
    "character-bpe": _character_bpe,
    "unigram": _unigram,
}
BUILT: dict[str, Tokenizer] = {}


def _built(kind: str) -> Tokenizer:
    if kind not in BUILT:
        BUILT[kind] = MAKERS[kind]()
    return BUILT[kind]


def _shrunk(kind: str, used_texts: list[str]) -> tuple[Tokenizer, Tokenizer, list[list[int]], set[int]]:
    old = _built(kind)
    used = {i for text in used_texts for i in old.encode(text).ids}
    out = shrink_tokenizer(old.to_str(), used, hold=0)
    assert out is not None
    return old, Tokenizer.from_str(out.text), out.sources, used


every_kind = pytest.mark.parametrize("kind", MAKERS)


@every_kind
def test_the_texts_it_was_counted_on_are_read_alike(kind: str) -> None:
    seen = TEXTS[:2]
    old, new, sources, used = _shrunk(kind, seen)
    assert new.get_vocab_size() == len(sources) < old.get_vocab_size()
    for text in seen:
        before, after = old.encode(text), new.encode(text)
        assert before.tokens == after.tokens
        assert [sources[i] for i in after.ids] == [[i] for i in before.ids]
    kept = {i for source in sources if len(source) == 1 for i in source}
    assert used <= kept
    assert {old.token_to_id(t) for t in ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "<extra>")} <= kept
    assert new.token_to_id("[PAD]") == old.token_to_id("[PAD]") == 0
    assert [new.token_to_id(t) for t in ("[CLS]", "[SEP]")] == [new.encode("fever").ids[i] for i in (0, -1)]


@every_kind
def test_nothing_used_is_still_a_tokenizer(kind: str) -> None:
    _, new, _, _ = _shrunk(kind, [])
    for text in TEXTS:
        assert new.encode(text).ids


def _unknown(tokenizer: Tokenizer, text: str) -> int:
    """Characters that are unknown: neighbours may be one token."""
    unknown = tokenizer.token_to_id("[UNK]")
    read = tokenizer.encode(text, add_special_tokens=False)
    return sum(end - start for i, (start, end) in zip(read.ids, read.offsets, strict=True) if i == unknown)


@every_kind
@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_any_text_is_read_without_new_unknowns(kind: str, data: st.DataObject) -> None:
    """Any unicode, and texts joined of pieces of the old vocabulary: those that were left out get spelled."""
    old, new, _, _ = _shrunk(kind, TEXTS[:1])
    pieces = sorted(old.get_vocab())
    word = st.lists(st.sampled_from(pieces), min_size=1, max_size=4).map("".join)
    joined = st.lists(word.map(lambda w: w.replace("##", "").replace("</w>", "")), max_size=5).map(" ".join)
    text = data.draw(st.one_of(st.text(max_size=60), joined))
    text = text.encode("utf-8", "replace").decode("utf-8")  # as the modality cleans it
    assert _unknown(new, text) <= _unknown(old, text)
    if _unknown(old, text) == 0 and kind == "byte-bpe":
        assert new.decode(new.encode(text).ids) == old.decode(old.encode(text).ids)


@every_kind
@settings(max_examples=100, deadline=None)
@given(data=st.data())
def test_pieces_that_stay_are_read_one_to_one(kind: str, data: st.DataObject) -> None:
    """Any text whose old reading holds only pieces that were counted has the same reading."""
    old, new, sources, used = _shrunk(kind, TEXTS[:3])
    words = sorted({w for text in TEXTS[:3] for w in text.split()})
    text = data.draw(st.lists(st.sampled_from(words), max_size=8).map(" ".join))
    before, after = old.encode(text), new.encode(text)
    if set(before.ids) <= used:
        assert before.tokens == after.tokens
        assert [sources[i][0] for i in after.ids] == before.ids


@settings(max_examples=100, deadline=None)
@given(st.lists(st.text("abßqugrox", min_size=1, max_size=8), max_size=5))
def test_characters_without_a_piece_of_their_own_get_one(words: list[str]) -> None:
    """`##ß` is in longer pieces only; when those go, greedy matching would get stuck on it."""
    old, new, sources, _ = _shrunk("wordpiece", ["cough"])
    assert new.token_to_id("##ß") is not None
    assert len(sources[new.token_to_id("##ß")]) > 1
    assert _unknown(new, " ".join(words)) <= _unknown(old, " ".join(words))


def test_a_tokenizer_that_cannot_spell_stays(tmp_path: Path) -> None:
    subject = subject_of("text-hf-bert", tmp_path)
    text: Any = subject.parser.modalities["note"]
    assert shrink_vocabulary(subject.model, "note", text, np.zeros(text.vocab_size, int)) is text


def test_processors_are_numbered_anew() -> None:
    tokenizer = _built("wordpiece")
    data = json.loads(tokenizer.to_str())
    ends = {name: [f"[{name.upper()}]", tokenizer.token_to_id(f"[{name.upper()}]")] for name in ("sep", "cls")}
    data["post_processor"] = {"type": "Sequence", "processors": [{"type": "BertProcessing", **ends}]}
    data["padding"] = {
        "strategy": "BatchLongest", "direction": "Right", "pad_to_multiple_of": None,
        "pad_id": 0, "pad_type_id": 0, "pad_token": "[PAD]",
    }  # fmt: skip
    data["added_tokens"].reverse()
    out = shrink_tokenizer(json.dumps(data), set(), hold=None)
    assert out is not None
    new = Tokenizer.from_str(out.text)
    assert new.encode("fever").tokens[0] == "[CLS]"
    assert new.encode("fever").ids[0] == new.token_to_id("[CLS]")


@pytest.mark.parametrize("name", [n for n in ("text-small", "text-minilm") if n in case_names()])
def test_an_encoder_reads_the_kept_words_as_before(name: str, tmp_path: Path) -> None:
    subject = subject_of(name, tmp_path)
    model, batch = subject.model, batch_of(subject)
    text: Any = subject.parser.modalities["note"]
    before = run(model, batch)
    cells = [*subject.full_cells, *subject.cells[:4]]
    values = [row["note"] for row in (subject.full, subject.other, *subject.rows[:4])]
    counts = count_ids(text, (v for v in values if v is not None))
    assert counts.sum() == sum(len(v) for v in values if v is not None)
    smaller = shrink_vocabulary(model, "note", text, counts)
    assert smaller.vocab_size < text.vocab_size
    subject.parser.modalities["note"] = smaller
    again = [smaller.parse(cell, MEDIA) for cell in cells]
    arrays = {f"note.{k}": torch.from_numpy(v) for k, v in smaller.collate(again).items()}
    assert arrays["note.ids"].shape == batch.arrays["note.ids"].shape
    batch.arrays |= arrays
    after = run(model, batch)
    assert all(torch.allclose(before[k], after[k], atol=1e-6) for k in before)
    fresh = fresh_of(subject)
    fit_shapes(fresh, model.state_dict())
    fresh.load_state_dict(model.state_dict(), strict=True)
    assert equal(after, run(fresh, batch))


def test_spare_pieces_are_the_most_frequent(tmp_path: Path) -> None:
    subject = subject_of("text-small", tmp_path)
    text: Any = subject.parser.modalities["note"]
    none = np.zeros(text.vocab_size, int)
    sizes = []
    for spare in (0, 5, 10_000):
        model = subject_of("text-small", tmp_path).model
        sizes.append(shrink_vocabulary(model, "note", text, none, spare=spare).vocab_size)
    assert sizes[0] <= sizes[1] <= sizes[2] == text.vocab_size


def test_padding_beyond_the_table_is_any_word() -> None:
    from fuseline.lab.compress.shapes import fit_pads

    class Padded(torch.nn.Module):
        def __init__(self, rows: int) -> None:
            super().__init__()
            self.pad_id, self.words = 7, torch.nn.Embedding(rows, 2)

    small, large = Padded(5), Padded(8)
    fit_pads(small)
    fit_pads(large)
    assert (small.pad_id, large.pad_id) == (0, 7)


def test_ids_of_values_are_counted() -> None:
    text = Text(TextConfig(max_length=8), "note", _built("byte-bpe"))
    value = text.parse({"note": "fever fever"}, MEDIA)
    assert value is not None
    counts = count_ids(text, [value, value])
    assert counts[text.tokenizer.token_to_id("[CLS]")] == 2
    assert counts.sum() == 2 * len(value)
