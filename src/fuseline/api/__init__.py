"""Fuseline from Python: init, pretrain, train, evaluate, predict, explain, index, search, suggest, take_labels,
compare, compress, ensemble, robustness, tune."""

from fuseline.api import tuning
from fuseline.api.answers import batch, evaluate, predict
from fuseline.api.compression import compress
from fuseline.api.ensembles import ensemble
from fuseline.api.explaining import explain
from fuseline.api.kept import kept_outputs
from fuseline.api.labelling import suggest, take_labels
from fuseline.api.pretraining import Pretrained, pretrain
from fuseline.api.robust import robustness
from fuseline.api.run import Run
from fuseline.api.sources import init, write_recipe
from fuseline.api.training import compare, resume, train
from fuseline.api.tuning import tune
from fuseline.api.vectors import index, search

__all__ = [
    "Pretrained",
    "Run",
    "batch",
    "compare",
    "compress",
    "ensemble",
    "evaluate",
    "explain",
    "index",
    "init",
    "kept_outputs",
    "predict",
    "pretrain",
    "resume",
    "robustness",
    "search",
    "suggest",
    "take_labels",
    "train",
    "tune",
    "tuning",
    "write_recipe",
]
