"""Fuseline: one model from a table of text, pictures, sounds, numbers and categories, taken to production."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"
__all__ = [
    "Answer",
    "FuselineError",
    "FusionClassifier",
    "FusionRegressor",
    "Predictor",
    "Recipe",
    "Run",
    "__version__",
    "compare",
    "compress",
    "ensemble",
    "evaluate",
    "explain",
    "index",
    "init",
    "load",
    "load_recipe",
    "predict",
    "pretrain",
    "resume",
    "robustness",
    "search",
    "suggest",
    "take_labels",
    "train",
    "tune",
]

if TYPE_CHECKING:
    from fuseline.api import (
        Run,
        compare,
        compress,
        ensemble,
        evaluate,
        explain,
        index,
        init,
        predict,
        pretrain,
        resume,
        robustness,
        search,
        suggest,
        take_labels,
        train,
        tune,
    )
    from fuseline.errors import FuselineError
    from fuseline.estimators import FusionClassifier, FusionRegressor
    from fuseline.recipe import Recipe, load_recipe
    from fuseline.runtime import Answer, Predictor, load

_HOMES = {
    "Answer": "runtime",
    "FuselineError": "errors",
    "FusionClassifier": "estimators",
    "FusionRegressor": "estimators",
    "Predictor": "runtime",
    "Recipe": "recipe",
    "Run": "api",
    "compare": "api",
    "compress": "api",
    "ensemble": "api",
    "evaluate": "api",
    "explain": "api",
    "index": "api",
    "init": "api",
    "load": "runtime",
    "load_recipe": "recipe",
    "predict": "api",
    "pretrain": "api",
    "resume": "api",
    "robustness": "api",
    "search": "api",
    "suggest": "api",
    "take_labels": "api",
    "train": "api",
    "tune": "api",
}


def __getattr__(name: str) -> Any:
    # Lazy, so that `import fuseline` costs nothing and serving never meets the trainer.
    import importlib

    if name in _HOMES:
        return getattr(importlib.import_module(f"fuseline.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'fuseline' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
