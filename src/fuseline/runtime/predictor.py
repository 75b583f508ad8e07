"""Rows in, answers out, without torch. Dimensions: B batch, M inputs."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from fuseline.errors import FuselineError, closest
from fuseline.modalities import MediaRoot
from fuseline.modalities.cells import shorten
from fuseline.modalities.odd import Oddness
from fuseline.modalities.rows import Parsed, RowParser
from fuseline.package import Package, read_package
from fuseline.runtime.backend import Backend, open_backend
from fuseline.runtime.bucket import WINDOW, by_length
from fuseline.tasks import Decoded, Task, task_class
from fuseline.tasks.decoding import Decoding, Forced, complete, read_decoding
from fuseline.tasks.generation import Generation
from fuseline.tasks.sure import MEMBER, Sure, Surety, stated

if TYPE_CHECKING:
    from fuseline.explain import Explanations


@dataclass
class Answer:
    """One row's answer and what it was based on. `error` is set, and `value` None, where the row could not be read."""

    value: Any = None
    probabilities: dict[str, float] | None = None
    interval: tuple[float, float] | None = None
    used: tuple[str, ...] = ()
    """inputs that the row had and the answer used"""
    absent: tuple[str, ...] = ()
    """inputs that the row lacked"""
    notes: list[str] = field(default_factory=list)
    """e.g. a broken cell that the recipe treats as absent"""
    error: FuselineError | None = None
    details: dict[str, Any] | None = None
    """what else belongs to the answer, JSON values: its task's documentation says what"""
    set: list[Any] | None = None
    """classes, one of which is the truth with the chance that the recipe states; `value` is among them"""
    abstained: bool | None = None
    """True: not sure enough for the stated error; `value` is None then. None: the recipe states none"""
    suggestion: Any = None
    """what the value would have been, had the model not abstained"""
    odd: dict[str, float] | None = None
    """input -> share of held-out rows that are less unlike the training rows in it; 1: none was as odd as this"""

    def to_dict(self) -> dict[str, Any]:
        out: dict[str, Any] = {"value": self.value, "used": list(self.used), "absent": list(self.absent)}
        if self.probabilities is not None:
            out["probabilities"] = self.probabilities
        if self.interval is not None:
            out["interval"] = list(self.interval)
        if self.details is not None:
            out["details"] = self.details
        for name in ("set", "abstained", "suggestion", "odd"):
            if getattr(self, name) is not None:
                out[name] = getattr(self, name)
        if self.notes:
            out["notes"] = self.notes
        if self.error is not None:
            out["error"] = self.error.to_dict()
        return out

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Answer:
        """The answer that `to_dict` wrote, after any trip through JSON."""
        interval, error = data.get("interval"), data.get("error")
        return cls(
            value=data["value"],
            probabilities=data.get("probabilities"),
            interval=None if interval is None else (interval[0], interval[1]),
            used=tuple(data["used"]),
            absent=tuple(data["absent"]),
            notes=list(data.get("notes", ())),
            error=None if error is None else FuselineError.from_dict(error),
            details=data.get("details"),
            set=data.get("set"),
            abstained=data.get("abstained"),
            suggestion=data.get("suggestion"),
            odd=data.get("odd"),
        )


class Written(NamedTuple):
    """The end of a text that was streamed."""

    answer: Answer
    embedding: np.ndarray


class Predictor:
    """Runs one package. Make it with :func:`load`. Thread-safe: holds no state of a request."""

    def __init__(self, package: Package, backend: Backend) -> None:
        self.package = package
        self.backend = backend
        self.rows = RowParser.from_states(package.recipe, package.columns)
        self.task: Task = task_class(package.task["kind"]).from_state(package.task["state"])
        self.names = self.rows.names
        sure = package.read_json(MEMBER)
        self.sure = None if sure is None else read_sure(sure)
        self.odd = None
        if self.sure is not None and self.sure.odd:
            self.odd = Oddness(package.read_json("profile.json") or {}, self.sure.odd)

    @property
    def backend_kind(self) -> str:
        """The name of what runs the graph."""
        return self.backend.kind

    def run(
        self, parsed: Sequence[Mapping[str, Any | None]], how: Decoding | Forced | None = None
    ) -> dict[str, np.ndarray]:
        """The graph's raw outputs for parsed rows. `how` a text is written; default: as the recipe says."""
        return self.run_arrays(self.rows.arrays(parsed), how)

    def run_arrays(
        self, arrays: Mapping[str, np.ndarray], how: Decoding | Forced | None = None
    ) -> dict[str, np.ndarray]:
        """The same of a batch's arrays."""
        return complete(self.task, self.backend.run(arrays), self.backend.steps, how)

    def stream(
        self, parsed: Parsed, how: Mapping[str, Any] | None = None, stop: Sequence[str] = ()
    ) -> Iterator[str | Written]:
        """One readable row's text as it is written, piece by piece, at last the whole answer. Every `next` is at most
        one step of the model.

        Args:
            parsed: the row.
            how: options of :class:`~fuseline.tasks.decoding.Decoding` that differ from the recipe's.
            stop: texts that end the answer and are no part of it.

        Raises FuselineError ``bad_request`` where the model writes no texts, or on options that do not hold.
        """
        task, steps = self.task, self.backend.steps
        if not isinstance(task, Generation) or steps is None:
            raise FuselineError(
                "bad_request", f"{self.package.name} writes no texts: it is a {task.name}", "ask predict"
            )
        chosen = read_decoding({**task.config.decoding.model_dump(), **(how or {})})
        outputs = self.backend.run(self.rows.arrays([parsed.values]))
        yield ""
        for piece in task.stream(outputs, steps, chosen, stop):
            if isinstance(piece, str):
                yield piece
            else:
                yield Written(self._based(parsed, piece), outputs["embedding"][0])

    def predict(
        self, rows: Sequence[Mapping[str, Any]], *, media: str | Path | None = None, batch_size: int = 32
    ) -> list[Answer]:
        """Answer every row, in order. A bad row gets an error and leaves its neighbours alone.

        Args:
            rows: mappings of column -> cell. A key that is absent, None or NaN is an absent cell; a key that looks
                like a misspelt column is the row's error.
            media: folder that file cells are relative to and may not leave. None: cells hold bytes, base64 or data
                URIs, and no file is opened.
            batch_size: rows run at once. They are chosen by their length among the next WINDOW batches, so that many
                rows of unlike lengths cost no padding; so many decoded rows are held.
        """
        if isinstance(rows, Mapping):
            raise FuselineError("bad_rows", "predict takes a list of rows", "wrap the one row: predict([row])")
        root = MediaRoot(str(media) if media is not None else None)
        answers: list[Answer] = []
        for start in range(0, len(rows), WINDOW * batch_size):
            chunk = rows[start : start + WINDOW * batch_size]
            parsed = [self.parse(row, root, start + i) for i, row in enumerate(chunk)]
            answers += self.answer(parsed, batch_size)
        return answers

    def explain(
        self,
        rows: Sequence[Mapping[str, Any]],
        *,
        media: str | Path | None = None,
        inside: bool | Sequence[str] = False,
        of: str | None = None,
        changes: Mapping[str, Any] | None = None,
        batch_size: int = 32,
        **options: Any,
    ) -> Explanations:
        """Why every row was answered as it was: Shapley values over its inputs, and what their parts did.

        Args:
            rows: as :meth:`predict` takes them.
            media: as there.
            inside: also hide each word, patch, moment, cell or step in turn: of all inputs, or of those named.
            of: the class or target that is explained; default: the answered class, the first target.
            changes: column -> another cell: what the answer would be.
            batch_size: answers computed at once.
            options: others of :class:`fuseline.explain.Options`.

        Cost: 2^M answers a row of M present inputs (random orders beyond 10), one a part, one a change.
        """
        from fuseline.explain import Options, explain_rows  # the one place that looks up a floor: for convenience

        root = MediaRoot(str(media) if media is not None else None)
        wanted = Options(inside=inside, of=of, changes=changes or {}, **options)
        return explain_rows(self, rows, wanted, media=root, batch_size=batch_size)

    def parse(self, row: Any, media: MediaRoot, place: int) -> Parsed:
        """One caller's row: decoded, or with its error. A key that looks like a misspelt column is one."""
        if not isinstance(row, Mapping):
            return Parsed({}, [], FuselineError("bad_rows", "a row is a mapping of column to cell", row=place))
        missing = [c for c in self.rows.columns if c not in row]
        for key in row if missing else ():
            near = closest(str(key), missing) if key not in self.rows.columns else None
            if near is not None and _same_word(str(key), near):
                error = FuselineError(
                    "unknown_column", f"no column {key!r}", f"did you mean {near!r}?", row=place, column=str(key)
                )
                return Parsed({}, [], error)
        parsed = self.rows.parse(row, media, place)
        unread = [str(key) for key in row if key not in self.rows.columns and key not in self.rows.by]
        if unread:
            names = ", ".join(shorten(name) for name in unread[:5]) + (", ..." if len(unread) > 5 else "")
            parsed.notes.append(f"not read, since the model has no such column: {names}")
        return parsed

    def answer(self, parsed: Sequence[Parsed], batch_size: int | None = None) -> list[Answer]:
        """Run the rows that could be read, in batches of like length, and join the answers back in order.

        `batch_size`: rows run at once; None: all of them.
        """
        answers = [Answer(error=p.error, notes=p.notes) for p in parsed]
        for batch in by_length(self.rows.modalities, parsed, batch_size or max(1, len(parsed))):
            outputs = self.run([parsed[i].values for i in batch])
            for i, answer in zip(batch, self.decode([parsed[i] for i in batch], outputs), strict=True):
                answers[i] = answer
        return answers

    def decode(self, parsed: Sequence[Parsed], outputs: Mapping[str, np.ndarray]) -> list[Answer]:
        """The graph's outputs of readable rows as answers that say what they were based on, and how sure they are."""
        decoded = self.task.decode(outputs)
        if self.sure is None:
            return [self._based(p, d) for p, d in zip(parsed, decoded, strict=True)]
        present = [tuple(n for n in self.names if p.values[n] is not None) for p in parsed]
        sureties = self.sure.of(self.task, outputs, present, [p.by for p in parsed])
        return [self._sure(p, d, s) for p, d, s in zip(parsed, decoded, sureties, strict=True)]

    def _sure(self, parsed: Parsed, decoded: Decoded, sureties: Mapping[str, Surety]) -> Answer:
        answer = self._based(parsed, decoded)
        if answer.error is not None:
            return answer
        told = stated(decoded, sureties)
        answer.notes += told.pop("notes")
        for name, value in told.items():
            setattr(answer, name, value)
        if self.odd is not None:
            answer.odd = {}
            for name in answer.used:
                share = self.odd.share(name, self.rows.modalities[name].summary(parsed.values[name]))
                if share is not None:
                    answer.odd[name] = round(share, 4)
                if share == 1.0:
                    answer.notes.append(
                        f"{name} is unlike the training rows: odder than all {self.odd.rows[name]} held-out ones"
                    )
        return answer

    def _based(self, parsed: Parsed, d: Decoded) -> Answer:
        used = tuple(n for n in self.names if parsed.values[n] is not None)
        absent = tuple(n for n in self.names if parsed.values[n] is None)
        notes = [*parsed.notes, *d.notes]
        if not _is_finite(d.value):
            hint = "are the row's numbers in the units of the training rows?"
            return Answer(error=FuselineError("bad_rows", "the model's answer to this row is no finite number", hint))
        return Answer(d.value, d.probabilities, d.interval, used, absent, notes, details=d.details)

    def predict_frames(
        self, frames: Iterable[tuple[int, Any]], *, media: MediaRoot, batch_size: int = 32
    ) -> Iterator[tuple[int, list[Answer]]]:
        """Answer a streamed table: (first row, polars frame) in, (first row, answers) out. Memory: one frame."""
        from fuseline.data.table import Table  # a server has no tables, and no need of polars

        for start, frame in frames:
            rows = Table.rows(frame)
            answers: list[Answer] = []
            size = WINDOW * batch_size
            for i in range(0, len(rows), size):
                parsed = [self.rows.parse(row, media, start + i + j) for j, row in enumerate(rows[i : i + size])]
                answers += self.answer(parsed, batch_size)
            yield start, answers


def _is_finite(value: Any) -> bool:
    """Whether no number in an answer, however nested, is NaN or infinite."""
    if isinstance(value, float):
        return math.isfinite(value)
    if isinstance(value, Mapping):
        return all(map(_is_finite, value.values()))
    return all(map(_is_finite, value)) if isinstance(value, (list, tuple)) else True


def read_sure(data: Any) -> Sure:
    """sure.json. Raises FuselineError ``bad_package`` on what nobody understands."""
    try:
        if data["format"] != 1:
            raise ValueError("another format")
        return Sure.from_dict(data)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise FuselineError(
            "bad_package", f"{MEMBER} cannot be read: {error}", "upgrade fuseline: a newer version may have written it"
        ) from None


def _same_word(a: str, b: str) -> bool:
    import difflib

    return difflib.SequenceMatcher(None, a.casefold(), b.casefold()).ratio() >= 0.8


def load(path: str | Path, *, backend: str | None = None, threads: int | None = None, lanes: int = 1) -> Predictor:
    """Open a package (NAME.fuse/ or the run that holds one), verify it, and make it ready to predict.

    Args:
        path: of the package.
        backend: "onnxruntime" or "openvino"; None: the one that the package was measured with.
        threads: that work on one batch; None: all that the process may use.
        lanes: batches that run at the same time, from as many threads of the caller. More may be asked for: they wait.
    """
    package = read_package(path)
    return Predictor(package, open_backend(backend, package, threads, lanes))
