"""Trackers: where the curves go besides history.csv, and at the end the test's metrics and the package.

A run that is resumed goes on in the same tracker's run: its id is in RUN/trackers.json.
"""

from __future__ import annotations

import functools
import json
import os
import uuid
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

from fuseline.errors import FuselineError
from fuseline.package.files import write_json
from fuseline.recipe import Recipe

EXTRAS = {"tensorboard": "tensorboard", "wandb": "wandb", "mlflow": "mlflow"}
BEGINS = {
    "tensorboard": "look at the run's folder: can it be written?",
    "wandb": "log in (wandb login), or keep its files here for later: WANDB_MODE=offline",
    "mlflow": "look at MLFLOW_TRACKING_URI: is the server there, can the file be written?",
}
"""what to try where one cannot begin"""
IDS = "trackers.json"
PROJECT = "fuseline"
QUIET = {"MLFLOW_DISABLE_TELEMETRY": "true", "WANDB_ERROR_REPORTING": "false", "WANDB_SILENT": "true"}
"""what these libraries would send to their makers or print; what a user has set stays"""

Given = ParamSpec("Given")
Result = TypeVar("Result")
_open: list[Any] = []
"""Weights & Biases' runs that were begun here: one may be open in a process, and stays so until it is told"""


def make_loggers(kinds: Sequence[str], folder: Path, settings: Mapping[str, Any] | None = None) -> list[Any]:
    """Lightning loggers; `settings`: the recipe, for the trackers' tables.

    Raises FuselineError ``missing_extra`` where one is not installed, ``no_tracker`` where it cannot begin.
    """
    ids = _ids(folder)
    loggers: list[Any] = []
    for kind in kinds:
        try:
            logger = _make(kind, folder, ids)
            if settings is not None and kind != "tensorboard":
                logger.log_hyperparams(
                    {k: v if isinstance(v, (int, float, str)) else json.dumps(v) for k, v in settings.items()}
                )
        except ModuleNotFoundError as error:
            raise FuselineError(
                "missing_extra",
                f"training.loggers names {kind}, which is not installed ({error.name})",
                f"pip install 'fuseline[{'train' if kind == 'tensorboard' else kind}]', or remove it from the recipe",
            ) from None
        except Exception as error:  # trackers raise what they like: no account, no network, a folder that is read-only
            said = (str(error).strip().splitlines() or [""])[0][:300]
            raise FuselineError(
                "no_tracker",
                f"training.loggers names {kind}, which cannot begin: {type(error).__name__}: {said}",
                f"{BEGINS[kind]}, or remove it from the recipe",
            ) from None
        loggers.append(logger)
    if ids:
        write_json(folder / IDS, ids)
    return loggers


def _ids(folder: Path) -> dict[str, str]:
    try:
        return dict(json.loads((folder / IDS).read_text(encoding="utf-8")))
    except (OSError, ValueError):
        return {}


def _make(kind: str, folder: Path, ids: dict[str, str]) -> Any:
    from pytorch_lightning import loggers

    for name, value in QUIET.items():
        os.environ.setdefault(name, value)
    match kind:
        case "tensorboard":
            import torch.utils.tensorboard  # noqa: F401  (its absence must show here, not in a step)

            return loggers.TensorBoardLogger(save_dir=folder, name="logs", version="")
        case "wandb":
            import wandb  # noqa: F401

            ids.setdefault(kind, uuid.uuid4().hex[:8])
            logger = loggers.WandbLogger(name=folder.name, save_dir=folder, project=PROJECT, id=ids[kind])
            _open.append(logger.experiment)
            return logger
        case "mlflow":
            import mlflow  # noqa: F401

            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                own = loggers.MLFlowLogger(
                    experiment_name=PROJECT,
                    run_name=folder.name,
                    tracking_uri=mlflow_uri(folder),
                    # Else its files would go to ./mlruns of whatever folder one stands in.
                    artifact_location=None if "MLFLOW_TRACKING_URI" in os.environ else _artifacts(folder),
                    run_id=ids.get(kind),
                )
                ids[kind] = own.run_id
            return own
    raise AssertionError(kind)


def mlflow_uri(folder: Path) -> str:
    """The server or database that MLFLOW_TRACKING_URI names, else an SQLite file in the run's folder."""
    return os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{folder.resolve() / 'mlflow.db'}"


def _artifacts(folder: Path) -> str:
    return (folder.resolve() / "mlflow").as_uri()


def log_result(recipe: Recipe, folder: Path, metrics: Mapping[str, Any]) -> list[str]:
    """The evaluated metrics and the package, to those trackers that take them. What is to be said of it.

    A run is finished when this is called: a tracker that cannot be reached is a note, not a failure.
    """
    flat = {
        f"{part}_{name}": float(m["value"])
        for part, scores in metrics["parts"].items()
        for name, m in scores["metrics"].items()
        if m["value"] is not None
    }
    notes = []
    for kind, run_id in _ids(folder).items():
        try:
            if kind == "wandb":
                for run in _open:
                    if run.id == run_id:
                        run.summary.update(flat)
            else:
                from fuseline.lab.tracking.mlflow_package import log_package

                log_package(mlflow_uri(folder), run_id, folder, flat)
        except Exception as error:  # trackers raise what they like; the run itself is whole
            notes.append(f"{kind}: metrics or package not logged: {type(error).__name__}: {str(error)[:300]}")
    return notes


def closes_trackers(function: Callable[Given, Result]) -> Callable[Given, Result]:
    """What the function's trainings left open is closed behind it, whatever happened."""

    @functools.wraps(function)
    def closing(*args: Given.args, **kwargs: Given.kwargs) -> Result:
        try:
            return function(*args, **kwargs)
        finally:
            while _open:
                _open.pop().finish()

    return closing
