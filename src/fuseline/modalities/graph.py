"""Entities of a graph that lies beside the table. Dimensions: B batch, N entities, E edges, F numbers of an entity."""

from __future__ import annotations

import base64
import hashlib
import zlib
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from typing import Any, ClassVar, Literal, NamedTuple

import numpy as np
from pydantic import Field

from fuseline.errors import FuselineError, closest
from fuseline.modalities.base import ArraySpec, Cells, MediaRoot
from fuseline.modalities.cells import bad_cell, is_absent, only_column, shorten
from fuseline.modalities.tabular import read_category
from fuseline.recipe import Frozen

UNKNOWN = 0
"""place of an entity that the graph does not hold"""
_FEW = 5000
"""entities up to which a hint looks for the nearest name"""


class GraphConfig(Frozen):
    edges: str = Field(description="file of edges or triples (CSV, Parquet, ...), relative to the table's folder")
    head: str | None = Field(
        None, description="its column of first ends; default: head, source, subject ... or the first"
    )
    relation: str | None = Field(
        None, description="its column of relations; default: relation, predicate ... or the middle one of three"
    )
    tail: str | None = Field(
        None, description="its column of second ends; default: tail, target, object ... or the last"
    )
    features: str | None = Field(
        None, description="file with an entity and numbers about it a row, also beside the table"
    )
    entity: str | None = Field(None, description="column of the entities in `features`; default: its first")
    unknown: Literal["learned", "error"] = Field(
        "learned",
        description="an entity that the graph does not hold: one vector for all such, with a note; or an error",
    )


class Entity(NamedTuple):
    """A parsed cell. `note` is said beside the row's answer."""

    place: int
    """0 for one that the graph does not hold; entity i of `entities` has i + 1"""
    name: str
    note: str = ""


class Graph:
    """A column of entity ids, and the edges between entities in a file beside the table.

    A cell is a text or an integer; 1, 1.0 and "1" are one entity. The state holds the graph, so that an encoder can be
    built from it: `entities` (N names), `relations`, `triples`, `features` with `feature_names`, `seen`.
    The exported model has what its encoder made of the graph inside.
    """

    Config: ClassVar[type[Frozen]] = GraphConfig
    file: ClassVar[bool] = False

    def __init__(self, state: dict[str, Any]) -> None:
        self.name = "graph"
        self._state = state
        self.config = GraphConfig.model_validate(state["config"])
        self.columns: tuple[str, ...] = (state["column"],)
        self.lengths: dict[str, tuple[int, int]] = {}
        self.notes: tuple[str, ...] = tuple(state["notes"])
        self.entities: list[str] = state["entities"]
        self.relations: list[str] = state["relations"]
        self.feature_names: tuple[str, ...] = tuple(state["feature_names"])
        self._index = {name: i for i, name in enumerate(self.entities, start=1)}

    @classmethod
    def fit(
        cls,
        config: GraphConfig,
        columns: Mapping[str, str],
        cells: Iterable[Cells],
        media: MediaRoot,
    ) -> Graph:
        """Reads the graph, and the cells only to know which entities training shows.

        Raises FuselineError ``unsafe_path``, ``no_such_file``, ``missing_column``, ``bad_table`` on the files, and
        ``bad_table`` where no training row's entity is in the graph.
        """
        from fuseline.data.edges import (
            path_beside,
            read_edges,
            read_features,
        )  # polars: not needed where a model serves

        column = only_column(columns)
        where = f"inputs.{column}.edges"
        edges = read_edges(
            path_beside(config.edges, media.folder, where), config.head, config.relation, config.tail, where
        )
        entities, notes = edges.entities, list(edges.notes)
        names: list[str] = []
        features_NF = np.zeros((len(entities), 0), np.float32)
        if config.features is not None:
            where = f"inputs.{column}.features"
            given, names, values = read_features(
                path_beside(config.features, media.folder, where), config.entity, where
            )
            known = set(entities)
            more = [name for name in given if name not in known]  # no edge, and yet something is known of them
            if more:
                notes.append(f"{len(more)} entities of {config.features} have no edge")
            entities = [*entities, *more]
            place = {name: i for i, name in enumerate(entities)}
            features_NF = np.full((len(entities), len(names)), np.nan, np.float32)
            features_NF[[place[name] for name in given]] = values
        place = {name: i for i, name in enumerate(entities)}
        seen_N = np.zeros(len(entities), bool)
        stranger, count = None, 0
        for row in cells:
            cell = row.get(column)
            if is_absent(cell):
                continue
            try:
                name = read_category(cell, column)
            except FuselineError:
                continue  # `parse` names it
            count += 1
            found = _placed(name, place)
            if found is not None:
                seen_N[found] = True
            elif stranger is None:
                stranger = name
        if count and not seen_N.any():
            raise FuselineError(
                "bad_table",
                f"no training row's {column} is an entity of {config.edges}: {stranger!r} is none, "
                f"{entities[0]!r} is one",
                "are both written alike?",
                column=column,
            )
        if not count:
            notes.append(f"{column}: no usable value in training")
        kinds = f"{len(edges.relations)} relation{'s' if len(edges.relations) > 1 else ''}"
        notes.append(
            f"{len(entities):,} entities, {len(edges.triples_E3):,} edges of {kinds}; training rows show "
            f"{int(seen_N.sum()):,} entities"
        )
        state = {
            "config": config.model_dump(mode="json"),
            "column": column,
            "entities": entities,
            "relations": edges.relations,
            "edges": _packed(edges.triples_E3.astype("<i4")),
            "feature_names": names,
            "features": _packed(features_NF.astype("<f4")),
            "seen": _packed(np.packbits(seen_N)),
            "notes": notes,
        }
        return cls(state)

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> Graph:
        return cls(state)

    def state(self) -> dict[str, Any]:
        return self._state

    @cached_property
    def triples(self) -> np.ndarray:
        """(E, 3) int32: head, relation, tail; entities from 0."""
        return _unpacked(self._state["edges"], "<i4").reshape(-1, 3)

    @cached_property
    def features(self) -> np.ndarray:
        """(N, F) float32, NaN where absent."""
        return _unpacked(self._state["features"], "<f4").reshape(len(self.entities), len(self.feature_names))

    @cached_property
    def seen(self) -> np.ndarray:
        """(N,) bool: which entities a training row had."""
        return np.unpackbits(_unpacked(self._state["seen"], "u1"), count=len(self.entities)).astype(bool)

    @cached_property
    def _degrees(self) -> np.ndarray:
        return np.bincount(self.triples[:, (0, 2)].ravel(), minlength=len(self.entities))

    def parse(self, cells: Cells, media: MediaRoot) -> Entity | None:
        """The entity, or None. Raises FuselineError ``bad_cell`` on a list or bytes, and on an unknown entity where the
        recipe says so."""
        column = self.columns[0]
        cell = cells.get(column)
        if is_absent(cell):
            return None
        name = read_category(cell, column)
        index = _placed(name, self._index)
        if index is not None:
            return Entity(index, self.entities[index - 1])
        if self.config.unknown == "error":
            near = closest(name, self.entities) if len(self.entities) <= _FEW else None
            hint = f"did you mean {near!r}? " if near else ""
            hint += "train again with its edges, leave the cell empty, or set the input's unknown: learned"
            raise bad_cell(column, f"{shorten(name)} is no entity of the graph", hint)
        return Entity(UNKNOWN, name, f"{column} is no entity of the graph: {shorten(name)}")

    def collate(self, values: Sequence[Entity | None]) -> dict[str, np.ndarray]:
        """`entity` (B,) int64: 0 for one that the graph does not hold, and where absent."""
        return {"entity": np.array([UNKNOWN if v is None else v.place for v in values], dtype=np.int64)}

    def arrays(self) -> dict[str, ArraySpec]:
        return {"entity": ArraySpec("int64", ("B",))}

    def digest(self, value: Entity) -> bytes:
        return hashlib.sha256(value.name.encode("utf-8", "replace")).digest()

    def size(self, value: Entity) -> float:
        """Every entity costs the same."""
        return 1.0

    def summary(self, value: Entity) -> dict[str, float | str]:
        """Whether the graph holds it, and how many edges it has."""
        if value.place == UNKNOWN:
            return {"in_graph": 0.0, "edges": 0.0}
        return {"in_graph": 1.0, "edges": float(self._degrees[value.place - 1])}


def _placed(name: str, place: Mapping[str, int]) -> int | None:
    """A whole number is found in its other spelling, too: a column of texts with gaps often holds 3.0 for 3."""
    whole = name.removesuffix(".0")
    spellings = (name, whole, f"{whole}.0") if whole.removeprefix("-").isdecimal() else (name,)
    return next((place[n] for n in spellings if n in place), None)


def _packed(array: np.ndarray) -> str:
    return base64.b64encode(zlib.compress(np.ascontiguousarray(array).tobytes(), 6)).decode("ascii")


def _unpacked(text: str, dtype: str) -> np.ndarray:
    return np.frombuffer(zlib.decompress(base64.b64decode(text)), dtype=dtype)
