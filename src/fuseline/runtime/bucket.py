"""Rows of like length go together: a batch is padded to its longest, and a short row in it costs as much."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from fuseline.modalities import Modality
from fuseline.modalities.rows import Parsed, lengths_of

WINDOW = 8
"""batches of rows that are decoded at once, and from which rows of like length go together"""


def by_length(modalities: Mapping[str, Modality], parsed: Sequence[Parsed], batch_size: int) -> list[list[int]]:
    """Places of the rows that could be read, in batches from the shortest to the longest."""
    good = [i for i, p in enumerate(parsed) if p.error is None]
    if len(good) > batch_size:
        lengths = {i: float(lengths_of(modalities, parsed[i].values).sum()) for i in good}
        good.sort(key=lengths.__getitem__)
    return [good[at : at + batch_size] for at in range(0, len(good), batch_size)]
