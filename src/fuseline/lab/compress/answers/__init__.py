"""What a teacher hands on of its answers, one file a kind. This is the table of them: task name -> answers."""

from __future__ import annotations

from fuseline.errors import FuselineError
from fuseline.lab.compress.answers.base import Answers
from fuseline.tasks import Task

TAUGHT = ("classification", "regression", "forecast", "detection", "retrieval", "multi")
"""tasks whose models can teach and be taught"""


def answers_of(task: Task) -> Answers:
    """Raises FuselineError ``bad_teacher`` for a task that no model can be taught."""
    match task.name:
        case "classification":
            from fuseline.lab.compress.answers.chances import Chances

            return Chances(task)
        case "regression":
            from fuseline.lab.compress.answers.numbers import Numbers

            return Numbers(task)
        case "forecast":
            from fuseline.lab.compress.answers.quantiles import Quantiles

            return Quantiles(task)
        case "detection":
            from fuseline.lab.compress.answers.boxes import Boxes

            return Boxes(task)
        case "retrieval":
            from fuseline.lab.compress.answers.vectors import Vectors

            return Vectors(task)
        case "multi":
            from fuseline.lab.compress.answers.several import Several

            return Several(task)
        case _:
            message = f"a model of the task {task.name} can neither teach nor be taught"
            raise FuselineError("bad_teacher", message, f"distillation and healing know {', '.join(TAUGHT)}")
