"""Search by vector: rows embedded by a package, kept in a folder, and the nearest of them found again."""

from fuseline.vectors.build import build_index, side_of
from fuseline.vectors.folder import Hit, Index, read_index
from fuseline.vectors.query import Matches, search

__all__ = ["Hit", "Index", "Matches", "build_index", "read_index", "search", "side_of"]
