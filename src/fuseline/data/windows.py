"""A long table (a row a moment of a series) read as windows. Dimensions: E series, T steps, L steps behind, K steps
ahead, C channels, N windows.

Columns of the windows: a column `c` of the long table as the L numbers up to a moment; `c@next`, the K numbers after
it; `c@now`, its last cell as it stands; the same of `series` that the recipe makes of several columns, and of
`calendar`, where moments are dates; `time`, and the entity's column. What lies outside the table is a gap.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from fuseline.data.channels import read_channels
from fuseline.data.grid import DAY, MOST_CELLS, grid_of, time_columns
from fuseline.data.series import NEXT, NOW
from fuseline.data.split import Split
from fuseline.data.table import Table
from fuseline.errors import FuselineError
from fuseline.recipe import Recipe, SplitSpec, TableSpec, WindowSpec

TIME = "time"
CALENDAR = "calendar"
CALENDAR_CHANNELS = ("hour_sin", "hour_cos", "weekday_sin", "weekday_cos", "year_sin", "year_cos")
_YEAR = 365.25 * DAY


class WindowStore:
    """Windows over a long table, made when they are asked for. The long table's numbers are held as float32."""

    def __init__(self, table: Table, spec: WindowSpec) -> None:
        """Raises FuselineError ``missing_column``, ``bad_recipe``, ``bad_cell``, ``too_few_rows``, ``too_large``."""
        self.spec = spec
        times = time_columns(spec)
        table.require([*times, *([spec.entity] if spec.entity else [])])
        self._keys = [*times, *([spec.entity] if spec.entity else [])]
        values = [c for c in table.columns if c not in self._keys]
        self.grid, self.notes = grid_of(table, spec, times)
        self._table = table
        self._numbers: dict[str, np.ndarray] = {}
        self._columns: dict[str, pl.Series] = {}
        self._words: dict[str, tuple[str, ...]] = {}
        self.groups = _groups(spec, values)
        lengths = self.grid.length_E
        if self.grid.row_ET.size * max(1, len(values)) > MOST_CELLS:
            raise FuselineError(
                "too_large",
                f"{self.grid.row_ET.size} steps of {len(values)} columns do not fit in memory as windows",
                "give fewer columns, or a table of fewer series",
            )
        ends = [np.arange(min(spec.history, t) - 1, t, spec.stride) for t in lengths.tolist()]
        self.entity_N = np.repeat(np.arange(len(ends)), [len(e) for e in ends])
        self.end_N = np.concatenate(ends) if ends else np.zeros(0, dtype=np.int64)
        self.n_rows = self.block_rows = len(self.end_N)
        own = [CALENDAR, CALENDAR + NEXT] if self.grid.dated else []
        names = [*values, *self.groups]
        self.columns = [TIME, *([spec.entity] if spec.entity else []), *names, *(n + NEXT for n in names)]
        self.columns += [*(v + NOW for v in values), *own]
        if len(set(self.columns)) < len(self.columns):
            twice = next(c for c in self.columns if self.columns.count(c) > 1)
            raise FuselineError("bad_recipe", f"table.windows: two columns would be called {twice!r}", "rename one")

    def read(self, start: int, length: int, columns: list[str]) -> pl.DataFrame:
        return self.take(np.arange(start, min(self.n_rows, start + length)), columns)

    def take(self, rows: np.ndarray, columns: list[str]) -> pl.DataFrame:
        return pl.DataFrame([self._column(name, rows) for name in columns])

    def _column(self, name: str, rows_N: np.ndarray) -> pl.Series:
        entity_N, end_N = self.entity_N[rows_N], self.end_N[rows_N]
        if name == TIME:
            seconds_N = self.grid.seconds_ET[entity_N, end_N]
            if not self.grid.dated:
                return pl.Series(name, seconds_N)
            return pl.Series(name, (seconds_N * 1e6).astype(np.int64)).cast(pl.Datetime("us"))
        if name == self.spec.entity:
            first_E = self.grid.row_ET[np.arange(len(self.grid.row_ET)), 0]
            return self._source(name).gather(first_E[entity_N]).rename(name)
        if name.endswith(NOW) and name.removesuffix(NOW) in self._table.columns:
            row_N = self.grid.row_ET[entity_N, end_N]
            found = self._source(name.removesuffix(NOW)).gather(np.maximum(row_N, 0))
            return pl.select(pl.when(pl.Series(row_N >= 0)).then(found).alias(name)).to_series()
        past = name.removesuffix(NEXT)
        if past == name:
            steps_NS = end_N[:, None] + np.arange(1 - self.spec.history, 1)
        else:
            steps_NS = end_N[:, None] + np.arange(1, self.spec.horizon + 1)
        values = self._series(past, entity_N, steps_NS)
        if values.shape[2] == 1 and past not in self.groups and past != CALENDAR:
            values = values[..., 0]
        series = pl.Series(name, values)
        known_N = ~np.isnan(values).all(axis=tuple(range(1, values.ndim)))
        if known_N.all():
            return series
        return pl.select(pl.when(pl.Series(known_N)).then(series).alias(name)).to_series()

    def _series(self, name: str, entity_N: np.ndarray, steps_NS: np.ndarray) -> np.ndarray:
        """(N, S, C) float32, NaN where the table has nothing."""
        last_N1 = self.grid.length_E[entity_N][:, None]
        inside_NS = (steps_NS >= 0) & (steps_NS < last_N1)
        if name == CALENDAR:  # of every step, also those after the table's end
            start_N1 = self.grid.seconds_ET[entity_N, 0][:, None]
            return calendar(start_N1 + steps_NS * self.step)
        row_NS = np.where(inside_NS, self.grid.row_ET[entity_N[:, None], np.where(inside_NS, steps_NS, 0)], -1)
        numbers_TC = self._numbers_of(name)
        return np.where(row_NS[..., None] >= 0, numbers_TC[np.maximum(row_NS, 0)], np.float32(np.nan))

    @property
    def step(self) -> float:
        """Seconds between two steps, or 1 where rows are steps."""
        return self.grid.step

    def has(self, name: str) -> bool:
        """Whether a column is a series."""
        past = name.removesuffix(NEXT)
        return past in self.groups or past == CALENDAR or past in self._table.columns

    def channels(self, name: str) -> tuple[str, ...]:
        """The channels of a series: its columns, of which a column of words is one channel a word."""
        if name.removesuffix(NEXT) == CALENDAR:
            return CALENDAR_CHANNELS
        columns = self.groups.get(name.removesuffix(NEXT), (name.removesuffix(NEXT),))
        return tuple(c for column in columns for c in self._named(column))

    def _named(self, column: str) -> tuple[str, ...]:
        self._plain(column)
        words = self._words.get(column, ())
        return tuple(f"{column}={w}" for w in words) if words else (column,)

    def _numbers_of(self, name: str) -> np.ndarray:
        """(rows of the long table, C) float32."""
        if name not in self._numbers:
            parts = [self._plain(column) for column in self.groups.get(name, (name,))]
            self._numbers[name] = np.concatenate(parts, axis=1) if len(parts) > 1 else parts[0]
        return self._numbers[name]

    def _plain(self, column: str) -> np.ndarray:
        if column not in self._numbers:
            numbers, words, strange = read_channels(self._source(column), self.spec.words.get(column))
            self._numbers[column] = numbers
            self._words[column] = words
            if strange:
                self.notes.append(f"{strange} cells of {column} hold words that training did not see: they are gaps")
        return self._numbers[column]

    def _source(self, column: str) -> pl.Series:
        if column not in self._columns:
            self._columns[column] = self._table.column(column)
        return self._columns[column]

    def overlapping(self, part_N: np.ndarray) -> np.ndarray:
        """(N,) bool: windows whose steps ahead reach behind a later part's first moment: they would be trained on, or
        chosen by, what is to be forecast there."""
        out_N = np.zeros(self.n_rows, dtype=bool)
        seconds_N = self.grid.seconds_ET[self.entity_N, self.end_N]
        ahead_N = seconds_N + self.spec.horizon * self.step
        for part in (0, 1):
            later_N = part_N > part
            if later_N.any():
                out_N |= (part_N == part) & (ahead_N > seconds_N[later_N].min())
        return out_N

    def settled(self) -> WindowSpec:
        """What a package keeps, so that another table is read as this one: the step between moments and the words that
        are channels, of the columns read so far."""
        step = np.format_float_positional(self.step, trim="-")
        return self.spec.model_copy(update={"step": step, "words": {**self.spec.words, **self._words}})

    def blocks(self) -> np.ndarray:
        """(N,) number of the stretch of time that a window lies in, each as long as a window: what a bootstrap draws,
        since neighbouring windows share nearly all of their numbers."""
        long = self.spec.history + self.spec.horizon
        place_N = self.end_N // long
        return np.asarray(self.entity_N * (int(place_N.max(initial=0)) + 1) + place_N)


class Windows(Table):
    """A long table as a table of windows."""

    def __init__(self, table: Table, spec: WindowSpec) -> None:
        self.store = WindowStore(table, spec)
        super().__init__(self.store, table.folder, [*table.notes, *self.store.notes])


def open_windows(table: Table, spec: WindowSpec | None) -> Table:
    """The table itself where the recipe speaks of no windows, or where it holds windows already."""
    if spec is None or isinstance(table, Windows):
        return table
    if not set(time_columns(spec)) <= set(table.columns) and any(c.endswith(NEXT) for c in table.columns):
        return table
    return Windows(table, spec)


def which(table: Table, start: int, stop: int) -> pl.DataFrame:
    """Of rows [start, stop) what names them to a reader: of windows `time`, the last moment known (text), and `entity`;
    of other tables nothing, since their rows stand in the table's own order."""
    if not isinstance(table, Windows):
        return pl.DataFrame()
    entity = table.store.spec.entity
    frame = table.take(np.arange(start, stop), [TIME, *([entity] if entity else [])])
    time = frame[TIME]
    texts = time.dt.to_string("iso:strict") if time.dtype.is_temporal() else time.cast(pl.String)
    names = {} if entity is None else {"entity": frame[entity].cast(pl.String)}
    return pl.DataFrame({"time": texts, **names})


def calendar(seconds: np.ndarray) -> np.ndarray:
    """Moments (seconds since 1970) as waves of the day, the week (from Thursday, as 1970 began) and the year, float32,
    one more axis."""
    angles = [2 * np.pi * (seconds % period) / period for period in (DAY, 7 * DAY, _YEAR)]
    return np.stack([f(a) for a in angles for f in (np.sin, np.cos)], axis=-1).astype(np.float32)


def _groups(spec: WindowSpec, values: list[str]) -> Mapping[str, tuple[str, ...]]:
    named = {c for columns in spec.series.values() if columns != "*" for c in columns}
    out = {}
    for name, columns in spec.series.items():
        chosen = tuple(c for c in values if c not in named) if columns == "*" else tuple(columns)
        unknown = [c for c in chosen if c not in values]
        if unknown or not chosen:
            raise FuselineError(
                "missing_column",
                f"table.windows.series.{name}: the table has no column {unknown[0]!r}"
                if unknown
                else f"table.windows.series.{name} has no columns",
                f"its columns: {', '.join(values[:20])}",
            )
        out[name] = chosen
    return out


def open_table(source: Any, spec: TableSpec, *, cache_dir: Path | None = None) -> Table:
    """Whatever :meth:`Table.open` takes, as the recipe says that it is to be read. Raises as that and
    :class:`WindowStore` do."""
    table = source if isinstance(source, Table) else Table.open(source, absent=spec.absent, cache_dir=cache_dir)
    return open_windows(table, spec.windows)


def as_read(recipe: Recipe, table: Table) -> Recipe:
    """A recipe by which other tables are read as this one was."""
    if not isinstance(table, Windows):
        return recipe
    spec = recipe.table.model_copy(update={"windows": table.store.settled()})
    return recipe.model_copy(update={"table": spec})


def keep_apart(table: Table, spec: SplitSpec, splits: list[Split]) -> list[Split]:
    """Leaves out windows that would be trained on what a later part is asked for.

    Raises FuselineError ``bad_split`` where windows of one series are dealt out at random.
    """
    if not isinstance(table, Windows):
        return splits
    if spec.kind in ("random", "stratified"):
        raise FuselineError(
            "bad_split",
            f"split.kind: {spec.kind} puts windows that share most of their numbers into different parts",
            "set split: {kind: time, time: time}, or group by the entity",
        )
    for split in splits if spec.kind == "time" else ():
        away_N = table.store.overlapping(split.part)
        split.part[away_N] = -1
        if away_N.any():
            split.notes.append(f"{int(away_N.sum())} windows reach into a later part and are left out")
    return splits
