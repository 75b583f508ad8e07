"""From a `Cut` in shares to real smaller shapes: which layers, heads, channels and words go, by their importance."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from fuseline.errors import FuselineError
from fuseline.lab.compress.candidate import Cut
from fuseline.lab.compress.crop import choose, crop, importance
from fuseline.lab.compress.prune import prune
from fuseline.lab.compress.stacks import Stack, find_stacks
from fuseline.lab.compress.vocabulary import count_ids, shrink_vocabulary
from fuseline.lab.model import FusionModel
from fuseline.lab.training.prepare import Prepared
from fuseline.lab.training.reader import Batch, Reader
from fuseline.modalities.rows import RowParser
from fuseline.modalities.text import Text

SPARE = 8000
"""common words that stay though no training text has them. On a few hundred notes, without them five in six new notes
were read in other pieces than before; with them, two in three."""


@dataclass
class Done:
    """What was cut. `prepared` reads cells as the cut model takes them. `parts` are those that now compute something
    else and want healing: fewer words change nothing for the words that stay."""

    prepared: Prepared
    parts: tuple[str, ...]
    record: dict[str, Any] = field(default_factory=dict)
    """`layers`: path -> indexes kept, enough to crop a fresh model again; the rest is for people"""


def layers_kept(stack: Stack, share: float) -> int:
    """How many of a stack's removable layers stay, where `share` of all its layers does."""
    fixed = len(stack.fixed)
    return min(len(stack.removable), max(math.ceil(share * stack.length - 1e-9), stack.least, 1) - fixed)


Scores = dict[str, dict[int, float]]
"""path of a list of layers -> how much each of them matters"""


def cut_model(
    model: FusionModel, cut: Cut, prepared: Prepared, batches: Sequence[Batch], scores: Scores | None = None
) -> Done:
    """Cut `model` in place.

    Layers first, by how much the answers change without each; then widths, by the loss's gradient; the vocabulary last,
    since it changes what the model reads. `scores` remembers the importance of the whole model's layers between calls:
    each costs a run of the model.

    Raises:
        FuselineError: ``bad_cut`` for a part that has nothing of the kind.
    """
    record: dict[str, Any] = {}
    scores = {} if scores is None else scores
    if cut.layers:
        stacks = find_stacks(model, batches[0])
        keep: dict[str, list[int]] = {}
        for part, share in cut.layers.items():
            own = [s for s in stacks if s.part == part]
            if not own:
                raise FuselineError("bad_cut", f"{part} has no layers that could be left out", "cut its widths")
            for stack in own:
                n = layers_kept(stack, share)
                if n < len(stack.removable):
                    if stack.path not in scores:
                        scores[stack.path] = importance(model, stack, batches)
                    keep[stack.path] = choose(stack, scores[stack.path], n)
        crop(model, keep)
        record["layers"] = keep
    for part, share in cut.widths.items():
        record.setdefault("widths", {})[part] = prune(model, part, share, batches)
    if cut.vocabulary:
        modalities = dict(prepared.parser.modalities)
        for part in cut.vocabulary:
            text = modalities[part]
            if not isinstance(text, Text):
                raise FuselineError("bad_cut", f"{part} is no text and has no vocabulary", "")
            before = text.tokenizer.get_vocab_size()
            smaller = shrink_vocabulary(model, part, text, _counts(prepared, part, text), spare=SPARE)
            record.setdefault("vocabulary", {})[part] = [before, smaller.tokenizer.get_vocab_size()]
            modalities[part] = smaller
        parser = RowParser(prepared.recipe, modalities)
        old = prepared.reader
        prepared = replace(
            prepared, parser=parser, reader=Reader(old.table, parser, prepared.task, old.media, old.cache)
        )
    return Done(prepared, tuple(dict.fromkeys([*cut.layers, *cut.widths])), record)


def _counts(prepared: Prepared, part: str, text: Text) -> np.ndarray:
    """How often the training rows use each word piece."""
    rows = prepared.rows("train")
    found = (
        row.values[part] for start in range(0, len(rows), 256) for row in _good(prepared, rows[start : start + 256])
    )
    return count_ids(text, (value for value in found if value is not None))


def _good(prepared: Prepared, rows: np.ndarray) -> list[Any]:
    return [row for row in prepared.reader.read(rows) if row.error is None]
