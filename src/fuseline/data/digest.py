"""Telling whether a table still holds the cells that it held."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Any

import numpy as np


class CellsDigest:
    """SHA-256 over cells in their order. Files that cells name are not looked at: a path is a text like others."""

    def __init__(self) -> None:
        self._sha = hashlib.sha256()

    def add(self, cells: Iterable[Any]) -> None:
        """Cells as :meth:`Table.rows` gives them. Each is told from its neighbours by its length or its kind."""
        for cell in cells:
            self._feed(cell)

    def _feed(self, cell: Any) -> None:
        if isinstance(cell, np.ndarray) and not cell.dtype.hasobject:  # its repr leaves out the middle
            self._sha.update(f"array {cell.dtype} {cell.shape};".encode())
            self._sha.update(np.ascontiguousarray(cell).tobytes())
        elif isinstance(cell, bytes):
            self._sha.update(f"bytes {len(cell)};".encode())
            self._sha.update(cell)
        elif isinstance(cell, (list, tuple, np.ndarray)):
            self._sha.update(f"list {len(cell)};".encode())
            for item in cell:
                self._feed(item)
        elif isinstance(cell, dict):
            self._sha.update(f"dict {len(cell)};".encode())
            for key, item in cell.items():
                self._feed(key)
                self._feed(item)
        else:
            self._sha.update(f"{cell!r};".encode("utf-8", "surrogatepass"))

    def hex(self) -> str:
        return self._sha.hexdigest()
