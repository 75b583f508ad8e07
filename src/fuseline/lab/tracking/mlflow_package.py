"""A package as an MLflow model with its signature: `mlflow models serve` and `mlflow.pyfunc.load_model` answer with it,
without torch and without pickle (the model is logged from code, see `mlflow_code.py`)."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import fuseline
from fuseline.modalities.rows import RowParser
from fuseline.modalities.tabular import Tabular
from fuseline.package import read_package
from fuseline.tasks import task_class

CODE = Path(__file__).with_name("mlflow_code.py")
FILES = ("recipe.yaml", "metrics.json", "report.html")


def log_package(uri: str, run_id: str, folder: Path, metrics: Mapping[str, float]) -> None:
    """Add a finished run's metrics, files and `model.fuse` to its MLflow run."""
    import mlflow

    before = mlflow.get_tracking_uri()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        mlflow.set_tracking_uri(uri)
        try:
            with mlflow.start_run(run_id=run_id):
                mlflow.log_metrics(dict(metrics))
                for name in FILES:
                    if (folder / name).exists():
                        mlflow.log_artifact(str(folder / name))
                if (folder / "model.fuse").exists():
                    mlflow.pyfunc.log_model(
                        name="model",
                        python_model=str(CODE),
                        artifacts={"package": str(folder / "model.fuse")},
                        signature=signature(folder / "model.fuse"),
                        # Told, since MLflow would else start a process to find out what the model imports.
                        pip_requirements=[f"fuseline=={fuseline.__version__}"],
                    )
        finally:
            mlflow.set_tracking_uri(before)


def signature(package: Path) -> Any:
    """MLflow's signature: one column a cell, none of them required, since an absent cell is a normal input.

    Numbers are doubles, categories, dates and texts strings; what may come in several ways (a picture as bytes or
    base64, a series as a list or a text) is of any type.
    """
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, DataType, Schema
    from mlflow.types.schema import AnyType, Array

    read = read_package(package)
    parser = RowParser.from_states(read.recipe, read.columns)
    kinds: dict[str, Any] = {}
    for modality in parser.modalities.values():
        for column in modality.columns:
            if isinstance(modality, Tabular):
                kinds[column] = DataType.double if modality.kinds[column] == "number" else DataType.string
            else:
                kinds[column] = DataType.string if modality.name == "text" else AnyType()
    task = task_class(read.task["kind"]).from_state(read.task["state"])
    numeric = task.name == "regression" and len(task.columns) == 1
    value = DataType.double if numeric else DataType.string if task.name == "classification" else AnyType()
    outputs = [
        ColSpec(value, "value", required=False),
        ColSpec(Array(DataType.string), "used"),
        ColSpec(Array(DataType.string), "absent"),
    ]
    if task.name == "classification":
        outputs.append(ColSpec(AnyType(), "probabilities", required=False))
    outputs.append(ColSpec(AnyType(), "error", required=False))
    return ModelSignature(
        inputs=Schema([ColSpec(kind, column, required=False) for column, kind in kinds.items()]),
        outputs=Schema(outputs),
    )
