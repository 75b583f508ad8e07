"""A student: another recipe on the same rows, taught by the model that is to be compressed."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from fuseline.errors import FuselineError
from fuseline.lab.compress.candidate import key_of
from fuseline.lab.compress.distil import distil
from fuseline.lab.compress.subject import Subject
from fuseline.lab.compress.teacher import Teacher
from fuseline.lab.fusion import FUSIONS
from fuseline.lab.model import FusionModel
from fuseline.lab.stacked.options import boosts
from fuseline.lab.training.prepare import Prepared
from fuseline.progress import Voice
from fuseline.recipe import Recipe, parse_recipe

if TYPE_CHECKING:
    from fuseline.lab.compress.workshop import Settings


@dataclass(frozen=True)
class Student:
    """A recipe with the subject's task and split. Its inputs may be fewer, and its encoders others."""

    recipe: Recipe
    subject: Subject

    @property
    def key(self) -> str:
        return key_of(self.recipe.model_dump(mode="json"))

    def teach(self, teacher: Teacher, folder: Path, settings: Settings, voice: Voice) -> tuple[Prepared, FusionModel]:
        """Train it under the teacher, with its own recipe's epochs; goes on where it was interrupted."""
        return distil(
            self.recipe,
            self.subject.prepared,
            teacher,
            folder / "teach",
            config=settings.distil,
            voice=voice,
        )


def student_of(recipe: Recipe, subject: Subject) -> Student:
    """A student from a recipe. Its task must be the subject's, since its answers are compared; its table and split are
    the subject's whatever the recipe says."""
    own, base = recipe.task.model_dump(), subject.prepared.recipe.task.model_dump()
    if own != base:
        raise FuselineError(
            "bad_recipe", "the student's task is not the model's", "copy the `task` of the model's recipe.yaml"
        )
    foreign = [n for n in recipe.inputs if n in subject.names and recipe.columns_of(n) != _columns(subject, n)]
    unknown = [n for n in recipe.inputs if n not in subject.names]
    if foreign or unknown:
        raise FuselineError(
            "bad_recipe",
            f"the student's input {(unknown or foreign)[0]!r} is not the model's",
            f"a student reads some of the model's inputs, under their names: {', '.join(subject.names)}",
        )
    if boosts(recipe):
        message = f"fusion: {recipe.fusion.kind}: its estimator cannot learn from another model's answers"
        raise FuselineError("bad_recipe", message, f"a student's fusion is one of {', '.join(FUSIONS)}")
    data = recipe.model_dump()
    mine = subject.prepared.recipe
    data["table"], data["split"] = mine.table.model_dump(), mine.split.model_dump()
    data["training"] |= {"loggers": []}
    return Student(parse_recipe(data), subject)


def _columns(subject: Subject, name: str) -> tuple[str, ...]:
    return subject.prepared.recipe.columns_of(name)
