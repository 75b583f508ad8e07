"""Word tables without the rows that no text needs. Dimensions: B batch, T tokens, V words, D width."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from fuseline.lab.compress.probe import steady
from fuseline.lab.compress.shapes import fit_numbers, fit_pads, put
from fuseline.lab.compress.spelling import shrink_tokenizer
from fuseline.lab.model import FusionModel
from fuseline.modalities.text import Text


def count_ids(modality: Text, values: Iterable[np.ndarray]) -> np.ndarray:
    """How often each id occurs (V,) in parsed texts."""
    counts = np.zeros(modality.vocab_size, dtype=np.int64)
    for value in values:
        counts += np.bincount(np.asarray(value), minlength=len(counts))
    return counts


def shrink_vocabulary(
    model: FusionModel, part: str, modality: Text, counts: np.ndarray, min_count: int = 1, spare: int = 0
) -> Text:
    """Drop the rows of a text encoder's word table that no text needs, in place; gives the modality that fits it.

    All ids counted `min_count` times stay, special ones, and single characters and bytes, so that any other word is
    spelled by them: texts of the words that stay give the same tokens and answers, and others more tokens (of which
    `max_length` may cut more), never an unknown one that was none before. A tokenizer that has no way to spell
    (WordLevel) stays as it is.

    `counts` are those of :func:`count_ids` over the training texts. Of few of them, much that texts to come are made of
    is missing: then `spare` more pieces stay, the most frequent ones of the text that the tokenizer was trained on.
    """
    encoder = model.encoders[model.names.index(part)]
    pad = next((int(p) for m in encoder.modules() if isinstance(p := getattr(m, "pad_id", None), int)), modality.pad_id)
    used = {modality.pad_id, *np.flatnonzero(counts >= max(1, min_count)).tolist()}
    shrunk = shrink_tokenizer(modality.tokenizer.to_str(), used | _frequent(modality, used, spare), hold=pad)
    if shrunk is None:
        return modality
    tables = _word_tables(model, encoder, modality)
    for table in tables:
        old = table.weight.detach()
        rows = [old[source[0]] if len(source) == 1 else old[source].mean(0) for source in shrunk.sources]
        put(table, "weight", torch.stack(rows))
        fit_numbers(table)
    fit_pads(encoder)
    return Text.from_state({**modality.state(), "tokenizer": shrunk.text})


def _frequent(modality: Text, used: set[int], spare: int) -> set[int]:
    """The lowest ids that are not used: trainers number pieces by how often they met them. Placeholders are none."""
    names = sorted((i, piece) for piece, i in modality.tokenizer.get_vocab(with_added_tokens=False).items())
    free = [i for i, piece in names if i not in used and not (piece[:1] in "[<" and piece[-1:] in "]>")]
    return set(free[:spare])


def _word_tables(model: FusionModel, encoder: nn.Module, modality: Text) -> list[nn.Embedding]:
    """The embeddings that are given the ids themselves, by watching one run."""
    last = modality.vocab_size - 1
    ids = torch.tensor([[last, 0, last, last]])
    found: list[nn.Embedding] = []

    def look(module: nn.Module, args: tuple[Tensor, ...], out: Any) -> None:
        assert isinstance(module, nn.Embedding)
        if args[0].shape == ids.shape and torch.equal(args[0].cpu(), ids):
            found.append(module)

    hooks = [m.register_forward_hook(look) for m in encoder.modules() if isinstance(m, nn.Embedding)]
    try:
        with steady(model), torch.no_grad():
            encoder(ids=ids, mask=torch.ones_like(ids))
    finally:
        for hook in hooks:
            hook.remove()
    assert found, "a text encoder without a table of words"
    return list(dict.fromkeys(found))
