"""What a graph says of an entity: the edges that its model looked at, in words."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from fuseline.data.edges import Edges, path_beside, read_edges
from fuseline.errors import FuselineError
from fuseline.lab.report.words import clean
from fuseline.modalities.tabular import read_category

NAMED = 3
"""neighbours of one relation that are named"""
LONGEST = 300


class Neighbours:
    """The graphs of a run's inputs, each read when it is first asked for."""

    def __init__(self, inputs: Mapping[str, Any], folder: str | None) -> None:
        """`inputs`: the recipe's section. `folder`: where training read files."""
        self.inputs, self.folder = inputs, folder
        self._read: dict[str, tuple[Edges, dict[str, int]] | None] = {}

    def of(self, name: str, cell: Any) -> str:
        """The edges of a cell's entity, e.g. `5 edges: member club 1, club 4; admires club 9`; "" where the file is
        gone."""
        graph = self._graph(name)
        if graph is None:
            return ""
        edges, places = graph
        try:
            place = places.get(read_category(cell, name))
        except FuselineError:
            return ""
        if place is None:
            return "no entity of the graph"
        triples = edges.triples_E3
        parts = []
        for number, relation in enumerate(edges.relations):
            out = triples[(triples[:, 0] == place) & (triples[:, 1] == number), 2]
            back = triples[(triples[:, 2] == place) & (triples[:, 1] == number), 0]
            for ends, word in ((out, relation), (back, f"{relation} of")):
                if len(ends):
                    named = ", ".join(edges.entities[i] for i in ends[:NAMED])
                    parts.append(f"{word} {named}" + (f" and {len(ends) - NAMED} more" if len(ends) > NAMED else ""))
        count = int(np.isin(triples[:, (0, 2)], place).any(axis=1).sum())
        return clean(f"{count} edge{'s' if count != 1 else ''}: {'; '.join(parts)}" if parts else "no edge", LONGEST)

    def _graph(self, name: str) -> tuple[Edges, dict[str, int]] | None:
        if name not in self._read:
            self._read[name] = None
            spec = self.inputs.get(name)
            if isinstance(spec, Mapping) and isinstance(spec.get("edges"), str):
                try:
                    path = path_beside(spec["edges"], self.folder, name)
                    edges = read_edges(path, spec.get("head"), spec.get("relation"), spec.get("tail"))
                    self._read[name] = edges, {entity: i for i, entity in enumerate(edges.entities)}
                except FuselineError:
                    pass
        return self._read[name]
