"""One file a task. This is the table of them."""

from __future__ import annotations

from fuseline.errors import unknown_kind
from fuseline.tasks.base import Decoded, Metric, Scores, Task, TaskConfig, read_columns

TASKS = ("classification", "regression", "forecast", "detection", "retrieval", "multi", "generation")

__all__ = ["TASKS", "Decoded", "Metric", "Scores", "Task", "TaskConfig", "read_columns", "task_class"]


def task_class(kind: str) -> type[Task]:
    """The class behind a task's name."""
    match kind:
        case "classification":
            from fuseline.tasks.classification import Classification

            return Classification
        case "regression":
            from fuseline.tasks.regression import Regression

            return Regression
        case "detection":
            from fuseline.tasks.detection import Detection

            return Detection
        case "forecast":
            from fuseline.tasks.forecast import Forecast

            return Forecast
        case "retrieval":
            from fuseline.tasks.retrieval import Retrieval

            return Retrieval
        case "multi":
            from fuseline.tasks.multi import Multi

            return Multi
        case "generation":
            from fuseline.tasks.generation import Generation

            return Generation
        case _:
            raise unknown_kind("task", kind, TASKS)
