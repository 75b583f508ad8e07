"""One file a head. This is the table of them: task name -> head."""

from __future__ import annotations

from fuseline.errors import unknown_kind
from fuseline.lab.heads.base import Head
from fuseline.tasks import TASKS


def head_class(task: str) -> type[Head]:
    match task:
        case "classification":
            from fuseline.lab.heads.classification import ClassificationHead

            return ClassificationHead
        case "regression":
            from fuseline.lab.heads.regression import RegressionHead

            return RegressionHead
        case "detection":
            from fuseline.lab.heads.detection import DetectionHead

            return DetectionHead
        case "forecast":
            from fuseline.lab.heads.forecast import ForecastHead

            return ForecastHead
        case "retrieval":
            from fuseline.lab.heads.retrieval import RetrievalHead

            return RetrievalHead
        case "multi":
            from fuseline.lab.heads.multi import MultiHead

            return MultiHead
        case "generation":
            from fuseline.lab.heads.generation import GenerationHead

            return GenerationHead
        case "unlabelled":  # of pretraining: no recipe can name it
            from fuseline.lab.heads.unlabelled import UnlabelledHead

            return UnlabelledHead
        case _:
            raise unknown_kind("head", task, TASKS)
