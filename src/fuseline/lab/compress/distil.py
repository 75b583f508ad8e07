"""Knowledge distillation: a student learns a teacher's answers beside the labels.

Hinton et al. 2015, "Distilling the Knowledge in a Neural Network"; Romero et al. 2015, "FitNets"; Tung & Mori 2019,
"Similarity-Preserving Knowledge Distillation". What is learned of the answers themselves is each task's own: see
answers/. Dimensions: B batch, E width of an embedding.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from fuseline.data.split import Split
from fuseline.errors import FuselineError
from fuseline.lab.build import build_model
from fuseline.lab.compress.answers import answers_of
from fuseline.lab.compress.hidden import InputDistance, tokens_of
from fuseline.lab.compress.lesson import Lesson, key_of_training
from fuseline.lab.compress.teacher import Teacher
from fuseline.lab.model import FusionModel
from fuseline.lab.training import loop
from fuseline.lab.training.begin import begin
from fuseline.lab.training.module import seed_all
from fuseline.lab.training.prepare import Prepared, prepare
from fuseline.lab.training.reader import Batch
from fuseline.progress import Silent, Voice
from fuseline.recipe import Frozen, Recipe

PROBE = 64
"""rows on which student and teacher are compared before the first step"""

Keep = Literal["last", "best"]
"""Which weights a training under a teacher ends with. The best by the validation metric as in any training, or, since
the schedule comes to rest and a teacher's answers are hardly learned by heart, the last: few validation rows tie or
jump, and the first of the best intervals is one of the least taught. It also leaves those rows to the choice between
candidates, which would look better on rows that had chosen their weights."""


class DistilConfig(Frozen):
    """What a student is taught. Loss = (1 - alpha) · the head's own + alpha · answers + the weighted others."""

    temperature: float = Field(2.0, gt=0, le=100, description="of both softmaxes; higher shows more of the small ones")
    alpha: float = Field(0.7, ge=0, le=1, description="share of the teacher's answers in the loss; the rest: labels")
    embedding: float = Field(0.0, ge=0, description="weight of the distance between the fused vectors")
    embedding_loss: Literal["cosine", "mse"] = "cosine"
    hidden: float = Field(0.0, ge=0, description="weight of the distance between the inputs' tokens")
    attention: float = Field(0.0, ge=0, description="weight of the distance between the relations of those tokens")

    @property
    def wants_tokens(self) -> bool:
        return self.hidden > 0 or self.attention > 0


class Distillation(nn.Module):
    """The objective of training under a teacher. Its own weights are projections to the teacher's widths, where those
    differ: they help to compare, and are dropped afterwards.

    The student hides inputs from itself by its fusion's modality dropout, while the teacher's answers are those of the
    whole row: the student learns to live with less than the teacher saw.
    """

    def __init__(self, config: DistilConfig, teacher: Teacher, student: FusionModel, prepared: Prepared) -> None:
        """`prepared`: the student's rows, of the teacher's table.

        Raises:
            FuselineError: ``bad_teacher`` where the teacher lacks what the losses compare.
        """
        super().__init__()
        self.config, self.teacher = config, teacher.for_task(prepared.task)
        self.answers = answers_of(prepared.task)
        # As the head weighs its tasks now: what before and after are compared by, while the head learns other weights.
        self.ruler = self.answers.fixed(student.head)
        if len(teacher.place_N) != prepared.table.n_rows:
            raise FuselineError("bad_teacher", "teacher and student are on different tables", "give both one table")
        self.names: tuple[str, ...] = ()
        self.inputs = nn.ModuleList()
        self.project: nn.Module = nn.Identity()
        self.scale = 1.0
        with torch.random.fork_rng(devices=[]):
            seed_all(prepared.recipe.training.seed)
            if config.embedding > 0:
                self._compare_embeddings(student, prepared)
            if config.wants_tokens:
                self._compare_tokens(student, prepared)

    def _compare_embeddings(self, student: FusionModel, prepared: Prepared) -> None:
        given = self.teacher.embedding_NE
        if given is None:
            raise FuselineError("bad_teacher", "the teacher gives no embedding", "set embedding: 0")
        batch = _probe(prepared, self.teacher)
        with torch.no_grad():
            width = student(batch.arrays, batch.present_BM)["embedding"].shape[1]
        if width != given.shape[1]:
            self.project = nn.Linear(width, given.shape[1])
        self.scale = max(float(np.nanmean(given.astype(np.float64) ** 2)), 1e-6)

    def _compare_tokens(self, student: FusionModel, prepared: Prepared) -> None:
        memory = self.teacher.tokens
        if memory is None:
            hint = "Teacher.of_models(..., tokens=True), or set hidden and attention to 0"
            raise FuselineError("bad_teacher", "the losses on hidden tokens need a teacher that kept them", hint)
        assert getattr(memory, "model", None) is not student, "the teacher would change with its student"
        self.names = tuple(n for n in student.names if n in memory.names)
        if not self.names:
            message = f"teacher and student share no input: {', '.join(memory.names)}; {', '.join(student.names)}"
            raise FuselineError("bad_teacher", message, "set hidden and attention to 0")
        batch = _probe(prepared, self.teacher)
        with torch.no_grad():
            own = tokens_of(student, batch)
        theirs = memory(batch.rows, batch.present_BM.device)
        self.inputs.extend(InputDistance(own[n], theirs[n]) for n in self.names)

    def forward(self, model: FusionModel, batch: Batch, outputs: dict[str, Tensor]) -> Tensor:
        assert batch.targets is not None
        config, own = self.config, model.head.loss(outputs, batch.targets)
        known = self.teacher.known(batch.rows)
        # Rows without the teacher's answer are learned from their labels alone, which then count for the whole.
        loss: Tensor = (1 - config.alpha * float(known.mean())) * own
        if not known.any():
            return loss
        device = batch.present_BM.device
        known_B = torch.from_numpy(known).to(device)
        told = self.teacher.answers(batch.rows, device)
        gap_B = self.answers.distance(model.head, outputs, told, known_B, config.temperature)
        loss = loss + config.alpha * torch.where(known_B, gap_B, 0.0).mean()
        if config.embedding > 0:
            loss = loss + config.embedding * self._embedding(batch, outputs, known_B)
        if config.wants_tokens:
            near, related = self._tokens(model, batch, known_B)
            loss = loss + config.hidden * near + config.attention * related
        return loss

    def measured(self, model: FusionModel, batch: Batch, outputs: dict[str, Tensor]) -> np.ndarray:
        """How far the model is from the teacher on each row that the teacher knows, in one measure from first to last:
        the head's weights of several tasks are those that it had when this began."""
        known, device = self.teacher.known(batch.rows), outputs["embedding"].device
        told, known_B = self.teacher.answers(batch.rows, device), torch.from_numpy(known).to(device)
        gap_B = self.ruler.distance(model.head, outputs, told, known_B, self.config.temperature)
        return np.asarray(gap_B.cpu().numpy()[known])

    def _embedding(self, batch: Batch, outputs: dict[str, Tensor], known_B: Tensor) -> Tensor:
        s_BE = self.project(outputs["embedding"].float())
        t_BE = self.teacher.embedding(batch.rows, s_BE.device)
        known_B = known_B & ~t_BE.isnan().any(1)  # of several teachers the first's, which may lack a row
        t_BE = torch.where(known_B[:, None], t_BE, 1.0)
        if self.config.embedding_loss == "cosine":
            gap_B = 1 - F.cosine_similarity(s_BE, t_BE, dim=1)
        else:
            gap_B = (s_BE - t_BE).square().mean(1) / self.scale
        return torch.where(known_B, gap_B, 0.0).mean()

    def _tokens(self, model: FusionModel, batch: Batch, known_B: Tensor) -> tuple[Tensor, Tensor]:
        """Means over the inputs that both have."""
        assert self.teacher.tokens is not None
        own = tokens_of(model, batch)
        theirs = self.teacher.tokens(batch.rows, batch.present_BM.device)
        gaps = [d(own[n], theirs[n]) for n, d in zip(self.names, self.inputs, strict=True)]
        near, related = (torch.stack(part).mean() for part in zip(*gaps, strict=True))
        return near, related


def unwatched(part_N: np.ndarray) -> np.ndarray:
    """Parts of rows without validation: training then keeps its last weights."""
    return np.where(part_N == 1, -1, part_N).astype(part_N.dtype)


def _probe(prepared: Prepared, teacher: Teacher) -> Batch:
    """Some training rows that the teacher knows."""
    rows = prepared.rows("train")
    rows = rows[teacher.known(rows)][:PROBE]
    if not len(rows):
        raise FuselineError("bad_teacher", "the teacher can read no training row", "is it the right table?")
    return prepared.reader.batch(rows)


def distil(
    recipe: Recipe,
    whole: Prepared,
    teacher: Teacher,
    folder: Path,
    *,
    config: DistilConfig | None = None,
    keep: Keep = "last",
    voice: Voice | None = None,
) -> tuple[Prepared, FusionModel]:
    """Train another recipe under a teacher: smaller encoders, another fusion, fewer inputs.

    Args:
        recipe: the student's, of the teacher's task.
        whole: the rows as they were prepared for the teacher: the student has its table, its split and its cache. A
            student chosen on rows that its teacher learned by heart would look better than it is.
        teacher: see :class:`Teacher`.
        folder: holds checkpoints. The same call on it goes on where it was killed, and gives at once what has ended.
        config: the losses.
        keep: which weights; see :data:`Keep`.
        voice: progress.

    Raises:
        FuselineError: as training does; ``bad_teacher`` where table, task or tokens do not fit.
    """
    config, voice = config or DistilConfig(), voice or Silent()
    folder.mkdir(parents=True, exist_ok=True)
    split, cache = Split(whole.part.copy()), whole.reader.cache
    prepared = prepare(recipe, whole.table, folder=folder, voice=voice, cache=cache, split=split)
    model = build_model(recipe, prepared.plans, prepared.parser.modalities, prepared.task)
    lesson = Lesson.open(folder, key_of_training("student", prepared, model, config, teacher, keep))
    if lesson.data.get("trained") is not None:
        lesson.load(model)
        return prepared, model.eval()
    loop.check_metric(prepared, model)
    loop.keep_frozen(prepared, model, voice)
    begin(model, recipe.training.seed, voice)
    objective = Distillation(config, teacher, model, prepared)
    watched = prepared if keep == "best" else replace(prepared, part=unwatched(prepared.part))
    trained = lesson.fit(watched, model, objective, voice)
    lesson.save(trained=trained.best)
    return prepared, model.eval()
