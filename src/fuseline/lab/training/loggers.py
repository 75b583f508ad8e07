"""Where the curves go besides history.csv. One line a logger."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fuseline.errors import FuselineError

EXTRAS = {"tensorboard": "tensorboard", "wandb": "wandb", "mlflow": "mlflow"}


def make_loggers(kinds: Sequence[str], folder: Path) -> list[Any]:
    """Lightning loggers. Raises FuselineError ``missing_extra`` where one is not installed."""
    loggers: list[Any] = []
    for kind in kinds:
        try:
            loggers.append(_make(kind, folder))
        except ModuleNotFoundError as error:
            raise FuselineError(
                "missing_extra",
                f"training.loggers names {kind}, which is not installed ({error.name})",
                f"pip install 'fuseline[{'train' if kind == 'tensorboard' else kind}]', or remove it from the recipe",
            ) from None
    return loggers


def _make(kind: str, folder: Path) -> Any:
    from pytorch_lightning import loggers

    match kind:
        case "tensorboard":
            import torch.utils.tensorboard  # noqa: F401  (its absence must show here, not in a step)

            return loggers.TensorBoardLogger(save_dir=folder, name="logs", version="")
        case "wandb":
            import wandb  # noqa: F401

            return loggers.WandbLogger(name=folder.name, save_dir=folder, project="fuseline")
        case "mlflow":
            import mlflow  # noqa: F401

            uri = f"sqlite:///{folder.resolve() / 'mlflow.db'}"
            return loggers.MLFlowLogger(experiment_name="fuseline", run_name=folder.name, tracking_uri=uri)
    raise AssertionError(kind)
