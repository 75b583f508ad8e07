"""Numbers, categories, booleans and dates of a row. Dimensions: B batch, Fn number features, Fc categories, Q edges."""

from __future__ import annotations

import hashlib
import math
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar, Literal, NamedTuple

import numpy as np
from pydantic import Field

from fuseline.errors import FuselineError, unknown_kind
from fuseline.modalities.base import ArraySpec, Cells, MediaRoot
from fuseline.modalities.cells import bad_cell, is_absent, shorten
from fuseline.modalities.dates import DAY_PARTS, HOUR_PARTS, day_numbers, hour_numbers, parse_moment
from fuseline.modalities.statistics import CategoryCount, NumberStatistics
from fuseline.recipe import Frozen

KINDS = ("number", "category", "boolean", "date")
ABSENT, OTHER = 0, 1
"""the first two indices of every category; known values follow"""
LARGEST = 1e30
"""Larger numbers are cut to this: the graph computes in float32, and their differences must not overflow."""
_BOOLEANS = {
    **dict.fromkeys(("false", "f", "no", "n", "0", "0.0"), "false"),
    **dict.fromkeys(("true", "t", "yes", "y", "1", "1.0"), "true"),
}
_LONGEST_NAME = 200
_PARTS = {"number": ("",), "date": (*DAY_PARTS, *HOUR_PARTS)}
"""the numbers that a cell of a kind becomes"""


class TabularConfig(Frozen):
    max_categories: int = Field(200, ge=1, le=100_000, description="most values kept of a category, by frequency")
    min_count: int = Field(1, ge=1, description="rarer values count as `other`, like values unseen in training")
    quantiles: int = Field(48, ge=2, le=1024, description="edges of a number's bins")
    slash_dates: Literal["dmy", "mdy"] | None = Field(
        None, description="what 1/3/2020 means: day/month or month/day; default: an error"
    )


class Record(NamedTuple):
    """One row: numbers (Fn,) float32 with NaN where absent, categories (Fc,) int64 with 0 where absent."""

    numbers: np.ndarray
    categories: np.ndarray


class Tabular:
    """A group of columns as one input.

    A date becomes several numbers: days since 2000-01-01, sine and cosine of the year's and the week's turn, and of
    the hour where a training cell had one. A boolean is a category of two values. A row is absent where every cell is.

    For the encoder: `number_names`, `mean`, `std` (Fn,) and `quantiles` (Fn, Q) float32, edges rising;
    `category_names` and `cardinalities` (indices are below them; 0 absent, 1 other).
    A column without any training value has mean 0 and std 1, a constant one std 1.
    """

    Config: ClassVar[type[Frozen]] = TabularConfig
    file: ClassVar[bool] = False

    def __init__(self, state: dict[str, Any]) -> None:
        self.name = "tabular"
        self._state = state
        self.config = TabularConfig.model_validate(state["config"])
        self.kinds: dict[str, str] = dict(state["columns"])
        self.columns = tuple(self.kinds)
        self.lengths: dict[str, tuple[int, int]] = {}
        self.notes: tuple[str, ...] = tuple(state["notes"])
        numbers = state["numbers"]
        self.number_names: tuple[str, ...] = tuple(n["name"] for n in numbers)
        self.mean = np.array([n["mean"] for n in numbers], dtype=np.float32)
        self.std = np.array([n["std"] for n in numbers], dtype=np.float32)
        edges = [n["edges"] for n in numbers]
        self.quantiles = np.array(edges, dtype=np.float32).reshape(len(numbers), self.config.quantiles)
        self.values: dict[str, list[str]] = dict(state["categories"])
        """the known values of each category, from index 2"""
        self.category_names: tuple[str, ...] = tuple(self.values)
        self.cardinalities: tuple[int, ...] = tuple(len(v) + 2 for v in self.values.values())
        self._index = {c: {v: i + 2 for i, v in enumerate(known)} for c, known in self.values.items()}
        self._timed = frozenset(state["timed"])

    @classmethod
    def fit(
        cls,
        config: TabularConfig,
        columns: Mapping[str, str],
        cells: Iterable[Cells],
        media: MediaRoot,
    ) -> Tabular:
        """One pass in bounded memory: a seeded sample of 20,000 values a number, at most 100,000 values a category.

        Broken cells are passed over: `parse` names them.
        """
        for kind in columns.values():
            if kind not in KINDS:
                raise unknown_kind("tabular column", kind, KINDS)
        numbers = {
            (column, part): NumberStatistics(f"{column}.{part}" if part else column)
            for column, kind in columns.items()
            for part in _PARTS.get(kind, ())
        }
        counts = {column: CategoryCount() for column, kind in columns.items() if kind in ("category", "boolean")}
        timed: set[str] = set()
        for row in cells:
            for column, kind in columns.items():
                cell = row.get(column)
                if is_absent(cell):
                    continue
                try:
                    if kind == "number":
                        numbers[column, ""].add(read_number(cell, column))
                    elif kind == "date":
                        moment = parse_moment(cell, column, config.slash_dates)
                        parts = day_numbers(moment) + hour_numbers(moment)
                        for part, value in zip(_PARTS["date"], parts, strict=True):
                            numbers[column, part].add(value)
                        if moment.timed and (moment.when.hour or moment.when.minute):
                            timed.add(column)
                    else:
                        counts[column].add(_READ[kind](cell, column))
                except FuselineError:
                    continue
        empty = [k[0] for k, n in numbers.items() if not n.count and k[1] in ("", DAY_PARTS[0])]
        empty += [column for column, count in counts.items() if not count]
        state = {
            "config": config.model_dump(mode="json"),
            # Lists of pairs, since the order matters and a writer of JSON may sort keys.
            "columns": [[column, kind] for column, kind in columns.items()],
            "numbers": [
                {"name": statistics.name, **statistics.result(config.quantiles)}
                for (column, part), statistics in numbers.items()
                if part not in HOUR_PARTS or column in timed
            ],
            "categories": [
                [
                    column,
                    ["false", "true"]
                    if columns[column] == "boolean"
                    else count.most(config.max_categories, config.min_count),
                ]
                for column, count in counts.items()
            ],
            "timed": sorted(timed),
            "notes": [f"{column}: no usable value in training" for column in columns if column in empty],
        }
        return cls(state)

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> Tabular:
        return cls(state)

    def state(self) -> dict[str, Any]:
        return self._state

    def parse(self, cells: Cells, media: MediaRoot) -> Record | None:
        """The row's numbers and categories, or None where all are absent. Raises FuselineError ``bad_cell``."""
        numbers: list[float] = []
        categories: list[int] = []
        for column, kind in self.kinds.items():
            cell = cells.get(column)
            absent = is_absent(cell)
            if kind == "number":
                numbers.append(math.nan if absent else read_number(cell, column))
            elif kind == "date":
                numbers += self._read_date(None if absent else cell, column)
            else:
                known = self._index[column]
                categories.append(ABSENT if absent else known.get(_READ[kind](cell, column), OTHER))
        if all(n != n for n in numbers) and not any(categories):
            return None
        return Record(np.array(numbers, dtype=np.float32), np.array(categories, dtype=np.int64))

    def _read_date(self, cell: Any, column: str) -> list[float]:
        timed = column in self._timed
        if cell is None:
            return [math.nan] * (len(DAY_PARTS) + timed * len(HOUR_PARTS))
        moment = parse_moment(cell, column, self.config.slash_dates)
        return day_numbers(moment) + (hour_numbers(moment) if timed else [])

    def collate(self, values: Sequence[Record | None]) -> dict[str, np.ndarray]:
        """`numbers` (B, Fn) float32, 0 where absent; `numbers_present` (B, Fn) bool; `categories` (B, Fc) int64.

        Without a number (or a category) its arrays are left out.
        """
        out: dict[str, np.ndarray] = {}
        if self.number_names:
            numbers_BF = np.full((len(values), len(self.number_names)), np.nan, dtype=np.float32)
            for i, value in enumerate(values):
                if value is not None:
                    numbers_BF[i] = value.numbers
            present_BF = ~np.isnan(numbers_BF)
            numbers_BF[~present_BF] = 0
            out |= {"numbers": numbers_BF, "numbers_present": present_BF}
        if self.category_names:
            categories_BF = np.zeros((len(values), len(self.category_names)), dtype=np.int64)
            for i, value in enumerate(values):
                if value is not None:
                    categories_BF[i] = value.categories
            out["categories"] = categories_BF
        return out

    def arrays(self) -> dict[str, ArraySpec]:
        out: dict[str, ArraySpec] = {}
        if self.number_names:
            shape = ("B", len(self.number_names))
            out |= {"numbers": ArraySpec("float32", shape), "numbers_present": ArraySpec("bool", shape)}
        if self.category_names:
            out["categories"] = ArraySpec("int64", ("B", len(self.category_names)))
        return out

    def digest(self, value: Record) -> bytes:
        return hashlib.sha256(value.numbers.tobytes() + value.categories.tobytes()).digest()

    def size(self, value: Record) -> float:
        """Features that are present."""
        return float(np.count_nonzero(~np.isnan(value.numbers)) + np.count_nonzero(value.categories))

    def unseen(self, value: Record) -> list[str]:
        """Columns whose value no training row had, or too few: the model takes all of those for one."""
        columns = [c for c, kind in self.kinds.items() if kind in ("category", "boolean")]
        return [c for c, index in zip(columns, value.categories, strict=True) if index == OTHER]

    def summary(self, value: Record) -> dict[str, float | str]:
        """The present cells by column: numbers, categories' values (`(other)` for unseen ones), dates as days."""
        out: dict[str, float | str] = {}
        at, categories = 0, iter(value.categories)
        for column, kind in self.kinds.items():
            if kind in ("category", "boolean"):
                index = int(next(categories))
                if index != ABSENT:
                    out[column] = "(other)" if index == OTHER else self.values[column][index - 2]
                continue
            number = value.numbers[at]
            if not np.isnan(number):
                out[column] = float(f"{number:.7g}")  # as it was written, not as float32 widened to double
            at += 1 if kind == "number" else len(DAY_PARTS) + (column in self._timed) * len(HOUR_PARTS)
        return out


def read_number(cell: Any, column: str) -> float:
    """A number cell; NaN for the word. Thousands separators, decimal commas, units and `inf` are errors."""
    if isinstance(cell, str):
        text = cell.strip()
        try:
            # Python reads 1_000 as a number; a table means something else by it.
            value = float(text if "_" not in text and text.isascii() else "no")
        except ValueError:
            raise bad_cell(column, f"{shorten(cell)} is no number", _number_hint(text)) from None
    else:
        try:
            value = float(cell)
        except (TypeError, ValueError, OverflowError):
            hint = "cut it, or leave the cell empty" if isinstance(cell, int) else "give one number a cell"
            raise bad_cell(column, f"{shorten(cell)} is no number", hint) from None
    if math.isinf(value):
        raise bad_cell(column, f"{shorten(cell)} is infinite", "leave the cell empty where there is no value")
    return min(max(value, -LARGEST), LARGEST)


def _number_hint(text: str) -> str:
    digits = text.replace(",", "").replace(".", "").lstrip("+-")
    if digits.isdigit() and "," in text:
        if "." in text or text.count(",") > 1:
            return f"separators of thousands are not read: write {text.replace(',', '')!r}"
        return f"a comma may mean thousands or decimals: write {text.replace(',', '.')!r} or {text.replace(',', '')!r}"
    if text[:1].isdigit():
        return "take units and signs out of the cell, or make the column a category or a text"
    return "correct the cell, leave it empty, list the word under table.absent, or make the column a category or a text"


def read_category(cell: Any, column: str) -> str:
    """A category's value as text: 1, 1.0 and "1" are one value, as are True and "true"."""
    if isinstance(cell, str):
        text = cell.strip()
    elif isinstance(cell, (bool, np.bool_)):
        return "true" if cell else "false"
    elif isinstance(cell, (int, np.integer)):
        text = str(int(cell)) if abs(int(cell)) < 10**_LONGEST_NAME else shorten(cell)
    elif isinstance(cell, (float, np.floating)):
        number = float(cell)
        text = str(int(number)) if number.is_integer() and abs(number) < 1e15 else repr(number)
    elif isinstance(cell, (list, tuple, dict, set, bytes, bytearray, np.ndarray)):
        raise bad_cell(column, f"{shorten(cell)} is no category", "give one word or number a cell")
    else:
        text = str(cell)
    if not text.isascii():
        text = unicodedata.normalize("NFC", text.encode("utf-8", "replace").decode("utf-8"))
    return text[:_LONGEST_NAME]


def read_boolean(cell: Any, column: str) -> str:
    """ "true" or "false" from booleans, 1 and 0, and true/false, yes/no, t/f, y/n in any case."""
    found = None
    if isinstance(cell, (str, bool, int, float, np.bool_, np.number)):
        found = _BOOLEANS.get(str(cell).strip().lower()[:8])
    if found is None:
        raise bad_cell(column, f"{shorten(cell)} is neither yes nor no", "write true or false, or make it a category")
    return found


_READ = {"category": read_category, "boolean": read_boolean}
