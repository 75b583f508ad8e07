"""What every modality promises. Dimensions: B batch, T tokens, S samples, F features."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple, Protocol

import numpy as np

from fuseline.recipe import Frozen

Cells = Mapping[str, Any]
"""The raw cells of one row that one input reads: column -> cell, None where absent."""


class ArraySpec(NamedTuple):
    """One array of a batch. `shape` starts with "B"; other strings are lengths that vary, bounded in `lengths`."""

    dtype: str
    shape: tuple[int | str, ...]


@dataclass(frozen=True)
class MediaRoot:
    """Where file cells may be read from. `folder` None: no file is ever opened, only bytes, base64, data URIs."""

    folder: str | None = None


class Modality(Protocol):
    """Parses the cells of one input and collates parsed values to arrays. numpy only, state is JSON.

    An absent cell is None after `parse`, and `collate` gives it a valid, harmless dummy (a black picture, one pad
    token with mask 1, a shortest silence): the encoder runs on it without NaN, and the model's `present` mask alone
    decides that nothing of it is used.
    """

    Config: ClassVar[type[Frozen]]
    file: ClassVar[bool]
    """whether a cell is a media file: decoded in threads, cached, compared by its bytes"""
    name: str
    """the modality's name, e.g. "image" """
    columns: tuple[str, ...]
    lengths: dict[str, tuple[int, int]]
    """bounds of each varying length named in `arrays`, e.g. {"T": (1, 128)}"""

    @classmethod
    def fit(cls, config: Any, columns: Mapping[str, str], cells: Iterable[Cells], media: MediaRoot) -> Modality:
        """One pass over the training rows (streamed). `columns`: column -> kind ("" where the modality has none)."""
        ...

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> Modality: ...

    def state(self) -> dict[str, Any]:
        """All that `from_state` needs, as JSON values."""
        ...

    def parse(self, cells: Cells, media: MediaRoot) -> Any | None:
        """A value, or None where absent. Raises FuselineError("bad_cell", ..., column=...) on a broken cell."""
        ...

    def collate(self, values: Sequence[Any | None]) -> dict[str, np.ndarray]: ...

    notes: tuple[str, ...]
    """what `fit` has to say aloud, e.g. that a column held no value"""

    def arrays(self) -> dict[str, ArraySpec]:
        """The arrays that `collate` gives."""
        ...

    def digest(self, value: Any) -> bytes:
        """A hash of a parsed value's content: equal content, equal digest (caches, leak check)."""
        ...

    def size(self, value: Any) -> float:
        """What the value costs: tokens, pixels, seconds of sound, features."""
        ...

    def summary(self, value: Any) -> dict[str, float | str]:
        """A few statistics of a value for the profile (length, brightness, loudness, the numbers themselves)."""
        ...
