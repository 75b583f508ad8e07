"""Which rows of a pool to label next, and the labels taken back. numpy only."""

from fuseline.labelling.suggest import METHODS, Suggestion, suggest
from fuseline.labelling.take import Taken, take

__all__ = ["METHODS", "Suggestion", "Taken", "suggest", "take"]
