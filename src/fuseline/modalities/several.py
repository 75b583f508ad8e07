"""Several things of one kind in a cell: a set of pictures, a set of notes. Dimensions: B batch, N items of a row.

Written once around the modality of one item: its options, decoding, arrays and state are what they are there, with N
after B in every array, and `several` says which of them a row has.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from pydantic import Field

from fuseline.data.items import items_of
from fuseline.errors import FuselineError
from fuseline.modalities.base import ArraySpec, Cells, MediaRoot, Modality
from fuseline.modalities.cells import bad_cell, is_absent, only_column
from fuseline.modalities.image import Image, ImageConfig
from fuseline.modalities.text import Text, TextConfig
from fuseline.recipe import Frozen

SEVERAL = "several"
"""the array (B, N) bool beside the items' own: True where the row has an item"""


@dataclass(frozen=True)
class Items:
    """The parsed items of one cell, at least one."""

    values: tuple[Any, ...]
    left_out: int = 0
    """items beyond the recipe's `several`"""
    note: str = ""
    """what is to be said of the row: that some were left out"""

    @property
    def nbytes(self) -> int:
        return sum(int(v.nbytes) for v in self.values)

    def __len__(self) -> int:
        return len(self.values)

    def __iter__(self) -> Iterator[Any]:
        return iter(self.values)


class Several:
    """Abstract: a modality around another, `Item`. The items are a set: their order means nothing to the encoder.

    A cell is a list column's list, a JSON list, where items are files also paths with `;` between them, or one item.
    The first `several` of them are read. A broken one makes the cell a bad one, and the error says which it was.
    """

    Config: ClassVar[type[Frozen]]
    Item: ClassVar[type[Any]]
    name: str
    file: ClassVar[bool]

    def __init__(self, limit: int, item: Modality) -> None:
        self.limit = limit
        self.item = item
        self.columns = item.columns
        self.notes = item.notes
        self.lengths: dict[str, tuple[int, int]] = {"N": (1, limit), **item.lengths}

    @property
    def config(self) -> Any:
        """The item's own options."""
        return self.item.config  # type: ignore[attr-defined]

    @classmethod
    def fit(cls, config: Any, columns: Mapping[str, str], cells: Iterable[Cells], media: MediaRoot) -> Several:
        """Fits the modality of one item on all items of the training rows."""
        column = only_column(columns)
        options = config.model_dump(exclude={"several"})
        single = ({column: item} for row in cells for item in _split(row.get(column), cls.file)[: config.several])
        return cls(config.several, cls.Item.fit(cls.Item.Config.model_validate(options), columns, single, media))

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> Several:
        return cls(state["several"], cls.Item.from_state(state["item"]))

    def state(self) -> dict[str, Any]:
        return {"several": self.limit, "item": self.item.state()}

    def parse(self, cells: Cells, media: MediaRoot) -> Items | None:
        """The items, or None where there are none. Raises as the modality of one item, saying which item it was."""
        column = self.columns[0]
        found = _split(cells.get(column), self.file)
        values = []
        for number, cell in enumerate(found[: self.limit], 1):
            try:
                value = self.item.parse({column: cell}, media)
            except FuselineError as error:
                if error.code != "bad_cell" or len(found) == 1:
                    raise
                raise bad_cell(column, f"item {number} of {len(found)}: {error.message}", error.hint) from None
            if value is not None:
                values.append(value)
        if not values:
            return None
        more = max(0, len(found) - self.limit)
        note = f"{column} holds more than {self.limit} items: the last {more} of {len(found)} left out" if more else ""
        return Items(tuple(values), more, note)

    def collate(self, values: Sequence[Iterable[Any] | None]) -> dict[str, np.ndarray]:
        """The item's arrays with N after B, as long as the row of most items; `several` (B, N) bool."""
        rows: list[list[Any | None]] = [[None] if row is None else list(row) for row in values]
        longest = max((len(row) for row in rows), default=1)
        flat = self.item.collate([v for row in rows for v in row + [None] * (longest - len(row))])
        out = {key: array.reshape(len(rows), longest, *array.shape[1:]) for key, array in flat.items()}
        real_BN = np.arange(longest)[None, :] < np.array([[len(row)] for row in rows]).reshape(-1, 1)
        return {**out, SEVERAL: real_BN}

    def arrays(self) -> dict[str, ArraySpec]:
        inner = {k: ArraySpec(s.dtype, ("B", "N", *s.shape[1:])) for k, s in self.item.arrays().items()}
        return {**inner, SEVERAL: ArraySpec("bool", ("B", "N"))}

    def digest(self, value: Items) -> bytes:
        """Of a set: the same in any order."""
        return hashlib.sha256(b"".join(sorted(self.item.digest(v) for v in value))).digest()

    def size(self, value: Items) -> float:
        """What the items cost together."""
        return sum(self.item.size(v) for v in value)

    def summary(self, value: Items) -> dict[str, float | str]:
        """How many items, and how many were left out; the means of the items' own statistics."""
        own = [self.item.summary(v) for v in value]
        means = {k: float(np.mean([s[k] for s in own])) for k, v in own[0].items() if not isinstance(v, str)}
        return {"items": float(len(value)), "left_out": float(value.left_out), **means}


def _split(cell: Any, files: bool) -> list[Any]:
    return [] if is_absent(cell) else items_of(cell, files=files, nothing=is_absent)


class ImagesConfig(ImageConfig):
    several: int = Field(4, ge=2, le=64, description="most pictures of a row that are looked at")


class Images(Several):
    """A set of pictures a row."""

    Config: ClassVar[type[Frozen]] = ImagesConfig
    Item: ClassVar[type[Any]] = Image
    name = "images"
    file: ClassVar[bool] = True


class TextsConfig(TextConfig):
    several: int = Field(4, ge=2, le=64, description="most texts of a row that are read")


class Texts(Several):
    """A set of texts a row."""

    Config: ClassVar[type[Frozen]] = TextsConfig
    Item: ClassVar[type[Any]] = Text
    name = "texts"
    file: ClassVar[bool] = False

    @property
    def vocab_size(self) -> int:
        return int(self.item.vocab_size)  # type: ignore[attr-defined]
