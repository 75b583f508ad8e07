"""Fuseline from Python: init, train, evaluate, predict, compare, compress."""

from fuseline.api.answers import batch, evaluate, predict
from fuseline.api.compression import compress
from fuseline.api.run import Run
from fuseline.api.sources import init, write_recipe
from fuseline.api.training import compare, resume, train

__all__ = [
    "Run",
    "batch",
    "compare",
    "compress",
    "evaluate",
    "init",
    "predict",
    "resume",
    "train",
    "write_recipe",
]
