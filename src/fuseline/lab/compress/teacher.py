"""What one or several finished models answer on a table's rows: made once, then read by row number.

Dimensions: K teachers, N rows, B batch, C answers (classes, labels or numbers), E width of the teacher's embedding.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from fuseline.data.table import Table
from fuseline.errors import FuselineError
from fuseline.lab.compress.hidden import Live, Memory, Stored
from fuseline.lab.model import FusionModel
from fuseline.lab.training.prepare import Prepared
from fuseline.lab.training.reader import Reader
from fuseline.modalities import MediaRoot
from fuseline.progress import Silent, Voice
from fuseline.runtime import Predictor
from fuseline.tasks import Task
from fuseline.tasks.classification import Classification
from fuseline.tasks.regression import Regression

CHUNK = 64
TOKENS_MB = 512
"""tokens kept at most; beyond, the teacher makes them again in every step"""


def own_reader(prepared: Prepared) -> Reader:
    """A reader over the same rows and the same cache which no other model's frozen encoders stand behind."""
    return Reader(prepared.table, prepared.parser, prepared.task, prepared.reader.media, prepared.reader.cache)


def kept_reader(model: FusionModel, prepared: Prepared) -> Reader:
    """Such a reader that gives the tokens of this model's frozen encoders, from the cache where they are there."""
    reader = own_reader(prepared)
    if prepared.recipe.training.cache_mb:
        for name, encoder in zip(model.names, model.encoders, strict=True):
            if prepared.plans[name].tune == "frozen":
                reader.keep(name, encoder)  # type: ignore[arg-type]
    return reader


@dataclass
class Teacher:
    """Answers by row of one table, in the order of `task`'s classes or targets.

    Of several teachers: the mean of their chances (of each label's, of their predictions), and the first one's
    embedding, since the axes of different models' embeddings have nothing to do with each other. A row that some of
    them cannot read has the others' answer; one that none can read is not `known`.
    """

    task: Task
    place_N: np.ndarray
    """row of the table -> its place in the arrays below, -1 where there is no answer"""
    answers_NC: np.ndarray
    """float32: log chances of classes, logits of labels, or numbers in the target's own units"""
    embedding_NE: np.ndarray | None = None
    tokens: Memory | None = None
    count: int = 1

    @classmethod
    def of_models(
        cls,
        models: Sequence[FusionModel | tuple[FusionModel, Prepared]],
        prepared: Prepared,
        *,
        tokens: bool = False,
        tokens_mb: int = TOKENS_MB,
        voice: Voice | None = None,
    ) -> Teacher:
        """Ask torch models.

        Args:
            models: each alone where it reads rows as the student does, or with the rows as they were prepared for it,
                over the same table: it may have more inputs, or other encoders. Put to eval mode, else left alone.
            prepared: whose training and validation rows are answered, and in the order of whose classes.
            tokens: keep each input's tokens too, for the losses on hidden tokens: the first model's.
            tokens_mb: memory for them. Where that is too little, the model itself is kept and makes them again in
                every step: then it must stay as it is, and so must not be the model that is being changed.
            voice: progress.

        Raises:
            FuselineError: ``bad_teacher`` where tables or tasks do not fit.
        """
        told: list[tuple[Task, Told]] = []
        memory: Memory | None = None
        for given in models:
            model, own = given if isinstance(given, tuple) else (given, prepared)
            if own.table.n_rows != prepared.table.n_rows:
                message = f"the teacher's table has {own.table.n_rows} rows, the student's {prepared.table.n_rows}"
                raise FuselineError("bad_teacher", message, "both must be the same table")
            reader = kept_reader(model, own)
            kept = Stored(model.names) if tokens and not told else None
            limit = tokens_mb * 2**20
            told.append((own.task, _collected(_ask_model(model, reader, _rows(prepared), voice, kept, limit))))
            if kept is not None:
                memory = kept if kept.bytes <= limit else Live(model, reader)
        return _joined(prepared, told, memory)

    @classmethod
    def of_packages(cls, predictors: Sequence[Predictor], prepared: Prepared, *, voice: Voice | None = None) -> Teacher:
        """Ask packages, without torch; they must find their columns in the student's table. Else as `of_models`."""
        told = []
        for predictor in predictors:
            batches = _ask_package(predictor, prepared.table, prepared.reader.media, _rows(prepared), voice)
            told.append((predictor.task, _collected(batches)))
        return _joined(prepared, told, None)

    @property
    def key(self) -> str:
        """Tells whether an interrupted training goes on under the same teacher."""
        text = hashlib.sha256(self.place_N.tobytes())
        text.update(np.ascontiguousarray(self.answers_NC).tobytes())
        if self.embedding_NE is not None:
            text.update(np.ascontiguousarray(self.embedding_NE).tobytes())
        return text.hexdigest()

    def joined(self, other: Teacher) -> Teacher:
        """One teacher out of two, each counting for as many as it is of. Embedding and tokens stay this one's."""
        told = self.place_N >= 0, other.place_N >= 0
        rows = np.flatnonzero(told[0] | told[1])
        place_N = np.full_like(self.place_N, -1)
        place_N[rows] = np.arange(len(rows))
        parts_KNC = np.full((2, len(rows), self.answers_NC.shape[1]), np.nan)
        for part_NC, teacher, there in zip(parts_KNC, (self, other.for_task(self.task)), told, strict=True):
            part_NC[place_N[there]] = teacher.answers_NC[teacher.place_N[there]]
        answers_NC = _mean(self.task, parts_KNC, np.array([self.count, other.count])).astype(np.float32)
        embedding_NE = None
        if self.embedding_NE is not None:
            embedding_NE = np.full((len(rows), self.embedding_NE.shape[1]), np.nan, np.float32)
            embedding_NE[place_N[told[0]]] = self.embedding_NE[self.place_N[told[0]]]
        return Teacher(self.task, place_N, answers_NC, embedding_NE, self.tokens, self.count + other.count)

    def for_task(self, task: Task) -> Teacher:
        """The same answers in the order of another task's classes or targets."""
        answers_NC = _ordered(self.task, task, self.answers_NC)
        return Teacher(task, self.place_N, answers_NC, self.embedding_NE, self.tokens, self.count)

    def known(self, rows: np.ndarray) -> np.ndarray:
        return np.asarray(self.place_N[rows] >= 0)

    def answers(self, rows: np.ndarray, device: torch.device) -> Tensor:
        """(B, C); of a row that is not known, some other row's."""
        return torch.from_numpy(self.answers_NC[self.place_N[rows]]).to(device)

    def embedding(self, rows: np.ndarray, device: torch.device) -> Tensor:
        """(B, E); as `answers`."""
        assert self.embedding_NE is not None
        return torch.from_numpy(self.embedding_NE[self.place_N[rows]]).to(device)


Told = tuple[np.ndarray, dict[str, np.ndarray]]
"""rows, and the raw outputs on them"""


def _rows(prepared: Prepared) -> np.ndarray:
    return np.concatenate([prepared.rows("train"), prepared.rows("val")])


@torch.no_grad()
def _ask_model(
    model: FusionModel, reader: Reader, rows: np.ndarray, voice: Voice | None, kept: Stored | None, limit: int
) -> Iterator[Told]:
    model.eval()
    device = next(model.parameters()).device
    with (voice or Silent()).track("asking the teacher", len(rows)) as advance:
        for start in range(0, len(rows), CHUNK):
            chunk = rows[start : start + CHUNK]
            advance(len(chunk))
            good = [row for row in reader.read(chunk, targets=False) if row.error is None]
            if not good:
                continue
            batch = reader.collate(good)
            present_BM = batch.present_BM.to(device)
            tokens = model.encode({k: v.to(device) for k, v in batch.arrays.items()})
            outputs = model.answer(tokens, present_BM)
            if kept is not None and kept.bytes <= limit:
                kept.add(batch.rows, tokens, present_BM)
            yield batch.rows, {k: v.float().cpu().numpy() for k, v in outputs.items()}


def _ask_package(
    predictor: Predictor, table: Table, media: MediaRoot, rows: np.ndarray, voice: Voice | None
) -> Iterator[Told]:
    parser = predictor.rows
    missing = [n for n in parser.names if predictor.package.recipe.inputs[n].required]
    table.require([c for n in missing for c in predictor.package.recipe.columns_of(n)])
    columns = [c for c in parser.columns if c in table.columns]
    with (voice or Silent()).track("asking the teacher", len(rows)) as advance:
        for start in range(0, len(rows), CHUNK):
            chunk = rows[start : start + CHUNK]
            parsed = [parser.parse(row, media) for row in Table.rows(table.take(chunk, columns))]
            good = [i for i, p in enumerate(parsed) if p.error is None]
            advance(len(chunk))
            if good:
                yield chunk[good], predictor.run([parsed[i].values for i in good])


def _collected(batches: Iterator[Told]) -> Told:
    told = list(batches)
    if not told:
        raise FuselineError("bad_teacher", "the teacher can read none of the rows", "is it the right table?")
    names = told[0][1].keys()
    return np.concatenate([r for r, _ in told]), {k: np.concatenate([o[k] for _, o in told]) for k in names}


def _joined(prepared: Prepared, told: Sequence[tuple[Task, Told]], memory: Memory | None) -> Teacher:
    if not told:
        raise FuselineError("bad_teacher", "no teacher was given", "")
    rows = np.unique(np.concatenate([r for _, (r, _) in told]))
    place_N = np.full(prepared.table.n_rows, -1, dtype=np.int64)
    place_N[rows] = np.arange(len(rows))
    parts_KNC = np.full((len(told), len(rows), len(_columns(prepared.task))), np.nan)
    for part_NC, (task, (own_rows, outputs)) in zip(parts_KNC, told, strict=True):
        part_NC[place_N[own_rows]] = _ordered(task, prepared.task, _answers(task, outputs))
    answers_NC = _mean(prepared.task, parts_KNC, np.ones(len(told))).astype(np.float32)
    first_rows, first = told[0][1]
    embedding_NE = np.full((len(rows), first["embedding"].shape[1]), np.nan, np.float32)
    embedding_NE[place_N[first_rows]] = first["embedding"]
    return Teacher(prepared.task, place_N, answers_NC, embedding_NE, memory, len(told))


def _answers(task: Task, outputs: dict[str, np.ndarray]) -> np.ndarray:
    if not isinstance(task, (Classification, Regression)):
        message = f"a model of the task {task.name} can neither teach nor be taught"
        raise FuselineError("bad_teacher", message, "distillation and healing know classification and regression")
    if not isinstance(task, Classification):
        return np.asarray(outputs["prediction"], np.float64).reshape(-1, len(task.columns))
    if task.mode == "multilabel":
        return np.asarray(outputs["logits"], np.float64)
    return task.raw_log_chances(outputs)[0]


def _mean(task: Task, parts_KNC: np.ndarray, weights_K: np.ndarray) -> np.ndarray:
    """Over the teachers that have an answer (not NaN); NaN where none has."""
    weight_KNC = np.where(np.isnan(parts_KNC), 0.0, weights_K[:, None, None])
    total_NC = weight_KNC.sum(axis=0)
    with np.errstate(divide="ignore"):
        log_weight_KNC = np.log(weight_KNC)
    parts_KNC = np.where(np.isnan(parts_KNC), 0.0, parts_KNC)
    if not isinstance(task, Classification):
        mean_NC = (weight_KNC * parts_KNC).sum(axis=0) / np.maximum(total_NC, 1)
    elif task.mode == "multilabel":  # the logit of the mean chance
        yes_KNC, no_KNC = -np.logaddexp(0, -parts_KNC), -np.logaddexp(0, parts_KNC)
        log_yes_NC, log_no_NC = (np.logaddexp.reduce(p + log_weight_KNC, axis=0) for p in (yes_KNC, no_KNC))
        mean_NC = np.where(total_NC > 0, log_yes_NC, 0.0) - np.where(total_NC > 0, log_no_NC, 0.0)
    else:
        mean_NC = np.logaddexp.reduce(parts_KNC + log_weight_KNC, axis=0) - np.log(np.maximum(total_NC, 1))
    return np.where(total_NC > 0, mean_NC, np.nan)


def _columns(task: Task) -> list[str]:
    return task.labels if isinstance(task, Classification) else list(task.columns)


def _ordered(given: Task, wanted: Task, answers_NC: np.ndarray) -> np.ndarray:
    """Answers to one task's questions in the order of another's; chances of one class among many sum to 1 again.

    A class that the teacher never met has no chance; a label or a number that it does not know is NaN.
    """
    modes = [getattr(t, "mode", "") == "multilabel" for t in (given, wanted)]
    if given.name != wanted.name or modes[0] != modes[1]:
        raise FuselineError("bad_teacher", "teacher and student have different tasks", "give both one task")
    have, want = _columns(given), _columns(wanted)
    if have == want:
        return answers_NC
    common = [c for c in want if c in have]
    if not common:
        message = f"the teacher knows {', '.join(have[:5])}; the student is asked for {', '.join(want[:5])}"
        raise FuselineError("bad_teacher", message, "is it the right target?")
    chances = wanted.name == "classification" and not modes[1]
    out_NC = np.full((len(answers_NC), len(want)), -np.inf if chances else np.nan, dtype=answers_NC.dtype)
    out_NC[:, [want.index(c) for c in common]] = answers_NC[:, [have.index(c) for c in common]]
    if chances:
        out_NC -= np.logaddexp.reduce(out_NC, axis=1, keepdims=True)
    return out_NC
