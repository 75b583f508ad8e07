"""Fuseline from Python: init, train, evaluate, predict, explain, index, search, compare, compress,
robustness, tune."""

from fuseline.api import tuning
from fuseline.api.answers import batch, evaluate, predict
from fuseline.api.compression import compress
from fuseline.api.explaining import explain
from fuseline.api.kept import kept_outputs
from fuseline.api.robust import robustness
from fuseline.api.run import Run
from fuseline.api.sources import init, write_recipe
from fuseline.api.training import compare, resume, train
from fuseline.api.tuning import tune
from fuseline.api.vectors import index, search

__all__ = [
    "Run",
    "batch",
    "compare",
    "compress",
    "evaluate",
    "explain",
    "index",
    "init",
    "kept_outputs",
    "predict",
    "resume",
    "robustness",
    "search",
    "train",
    "tune",
    "tuning",
    "write_recipe",
]
