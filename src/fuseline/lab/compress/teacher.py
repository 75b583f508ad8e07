"""What one or several finished models answer on a table's rows: made once, then read by row number.

Dimensions: N rows, B batch, E width of the teacher's embedding.
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
from fuseline.lab.compress.answers import answers_of
from fuseline.lab.compress.answers.base import Arrays
from fuseline.lab.compress.hidden import Live, Memory, Stored
from fuseline.lab.model import FusionModel
from fuseline.lab.training.prepare import Prepared
from fuseline.lab.training.reader import Reader
from fuseline.modalities import MediaRoot
from fuseline.progress import Silent, Voice
from fuseline.runtime import Predictor
from fuseline.tasks import Task

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
    """Answers by row of one table, in the order of `task`'s classes or targets; see answers/ for what they are.

    Of several teachers: what they say together (chances: their mean), and the first one's embedding, since the axes of
    different models' embeddings have nothing to do with each other. A row that some of them cannot read has the others'
    answer; one that none can read is not `known`.
    """

    task: Task
    place_N: np.ndarray
    """row of the table -> its place in the arrays below, -1 where there is no answer"""
    told: Arrays
    """float32, by name: what the task's own answers are, see :mod:`fuseline.lab.compress.answers`"""
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
        for name, value in sorted(self.told.items()):
            text.update(name.encode())
            text.update(np.ascontiguousarray(value).tobytes())
        if self.embedding_NE is not None:
            text.update(np.ascontiguousarray(self.embedding_NE).tobytes())
        return text.hexdigest()

    def joined(self, other: Teacher) -> Teacher:
        """One teacher out of two, each counting for as many as it is of. Embedding and tokens stay this one's."""
        told = self.place_N >= 0, other.place_N >= 0
        rows = np.flatnonzero(told[0] | told[1])
        place_N = np.full_like(self.place_N, -1)
        place_N[rows] = np.arange(len(rows))
        other = other.for_task(self.task)
        parts = [
            _spread(t.told, t.place_N[there], place_N[there], len(rows))
            for t, there in zip((self, other), told, strict=True)
        ]
        joined = answers_of(self.task).mean(parts, (self.count, other.count))
        embedding_NE = None
        if self.embedding_NE is not None:
            embedding_NE = np.full((len(rows), self.embedding_NE.shape[1]), np.nan, np.float32)
            embedding_NE[place_N[told[0]]] = self.embedding_NE[self.place_N[told[0]]]
        return Teacher(self.task, place_N, _single(joined), embedding_NE, self.tokens, self.count + other.count)

    def for_task(self, task: Task) -> Teacher:
        """The same answers in the order of another task's classes or targets."""
        told = answers_of(task).ordered(self.task, self.told)
        return Teacher(task, self.place_N, told, self.embedding_NE, self.tokens, self.count)

    def known(self, rows: np.ndarray) -> np.ndarray:
        return np.asarray(self.place_N[rows] >= 0)

    def answers(self, rows: np.ndarray, device: torch.device) -> dict[str, Tensor]:
        """By name, B first; of a row that is not known, some other row's."""
        return {k: torch.from_numpy(v[self.place_N[rows]]).to(device) for k, v in self.told.items()}

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
    own = answers_of(prepared.task)
    parts = []
    for task, (own_rows, outputs) in told:
        given = own.ordered(task, answers_of(task).of(outputs))
        parts.append(_spread(given, np.arange(len(own_rows)), place_N[own_rows], len(rows)))
    answers = _single(own.mean(parts, [1] * len(told)))
    first_rows, first = told[0][1]
    embedding_NE = np.full((len(rows), first["embedding"].shape[1]), np.nan, np.float32)
    embedding_NE[place_N[first_rows]] = first["embedding"]
    return Teacher(prepared.task, place_N, answers, embedding_NE, memory, len(told))


def _spread(told: Arrays, place: np.ndarray, to: np.ndarray, rows: int) -> Arrays:
    """What stands at `place`, put at `to` of so many rows; NaN elsewhere."""
    out = {}
    for name, value in told.items():
        out[name] = np.full((rows, *value.shape[1:]), np.nan)
        out[name][to] = value[place]
    return out


def _single(told: Arrays) -> Arrays:
    return {name: value.astype(np.float32) for name, value in told.items()}
