"""A folder of answers in Parquet parts. A part is whole or it is not there, so that a killed run can go on."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl

from fuseline.data.parquet import read_row_groups
from fuseline.errors import FuselineError
from fuseline.package.files import write_json

if TYPE_CHECKING:
    from fuseline.runtime.predictor import Answer
    from fuseline.tasks import Task

STATE = "_batch.json"
TABLE = "_table"
"""where a large text table lies as Parquet until all is answered; readers of Parquet folders pass `_` and `.` by"""
_WORDS = {
    "package": "the package",
    "table": "the table's content",
    "rows": "the number of rows",
    "shard_rows": "--shard-rows",
    "batch_size": "--batch-size",
    "absent": "--absent",
}
"""what makes the answers, and what a person calls it"""


class Parts:
    """Parts 0, 1, ... of `shard_rows` rows each, the last one shorter.

    The parts that are whole *are* the record of what is done; `_batch.json` says what they were made from.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @property
    def table(self) -> Path:
        return self.folder / TABLE

    def path(self, part: int) -> Path:
        return self.folder / f"part-{part:05d}.parquet"

    def check(self) -> None:
        """Raises ``cannot_write`` where the folder holds something else. Writes nothing."""
        if self.folder.exists() and not self.folder.is_dir():
            raise FuselineError("cannot_write", f"{self.folder} is a file", "answers go into a folder of their own")
        others = [p.name for p in self.folder.glob("*") if p.name != TABLE]
        if others and STATE not in others:
            raise FuselineError(
                "cannot_write",
                f"{self.folder} holds other files ({', '.join(sorted(others)[:3])})",
                "answers go into a folder of their own: name one that is new or empty",
            )

    def begin(self, made_from: Mapping[str, Any], *, resume: bool) -> None:
        """Take the folder for these answers: those begun before, if `resume`, or new ones.

        Raises FuselineError ``changed`` where the folder's parts were made from something else.
        """
        old = self._state()
        if old is not None and resume:
            changed = [word for key, word in _WORDS.items() if old.get(key) != made_from[key]]
            if changed:
                raise FuselineError(
                    "changed",
                    f"{self.folder} was begun otherwise: {', '.join(changed)} changed",
                    "choose another folder, or throw its parts away with --no-resume",
                )
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            for left in self.folder.glob(".part-*"):
                left.unlink()
            if old is None or not resume:
                for part in self.folder.glob("part-*.parquet"):
                    part.unlink()
            write_json(self.folder / STATE, {"format": 1, "state": "running", **made_from})
        except OSError as error:
            raise _cannot_write(self.folder, error) from None

    def _state(self) -> dict[str, Any] | None:
        try:
            data = json.loads((self.folder / STATE).read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None
        except (OSError, ValueError):
            data = None
        return data if isinstance(data, dict) else {}

    def is_whole(self, part: int, rows: int) -> bool:
        try:
            return sum(group.rows for group in read_row_groups(self.path(part))) == rows
        except (OSError, ValueError):
            return False

    def errors(self, part: int) -> int:
        return int(pl.scan_parquet(self.path(part), glob=False).select(pl.col("error").count()).collect().item())

    def write(self, part: int, frame: pl.DataFrame) -> None:
        """Under another name, to the disk, then in its place."""
        new = self.folder / f".{self.path(part).name}.{os.getpid()}"
        try:
            frame.write_parquet(new)
            with new.open("rb") as file:
                os.fsync(file.fileno())
            os.replace(new, self.path(part))
        except OSError as error:
            raise _cannot_write(self.folder, error) from None

    def end(self, counts: Mapping[str, int]) -> None:
        """All parts are there."""
        write_json(self.folder / STATE, {**(self._state() or {}), "state": "done", **counts})
        shutil.rmtree(self.table, ignore_errors=True)
        for left in self.folder.glob(".part-*"):  # of a worker that died
            left.unlink(missing_ok=True)


def _cannot_write(folder: Path, error: OSError) -> FuselineError:
    return FuselineError(
        "cannot_write", f"cannot write in {folder}: {error.strerror or error}", "what was done is kept"
    )


def schema_of(task: Task, *, sure: bool = False) -> dict[str, Any]:
    """Columns of a part: the same for every part of a model, whatever its rows hold."""
    labels = getattr(task, "labels", None)
    out: dict[str, Any] = {"row": pl.Int64, "value": _value_kind(task)}
    if _as_json(task):
        out |= {"details": pl.String}
    elif labels is None:
        out |= {"low": pl.Float64, "high": pl.Float64}
    else:
        out |= {"confidence": pl.Float64} | {f"p_{label}": pl.Float64 for label in labels}
    out |= dict.fromkeys(("used", "absent", "notes"), pl.List(pl.String)) | {"error": pl.String}
    if sure:
        out |= {"set": pl.List(pl.String), "abstained": pl.Boolean, "suggestion": out["value"], "odd": pl.String}
    return out


def _as_json(task: Task) -> bool:
    """Whether values have no type of their own: they are written as JSON."""
    return task.name not in ("classification", "regression")


def _value_kind(task: Task) -> Any:
    if _as_json(task):
        return pl.String()
    classes = getattr(task, "classes", None)
    if classes is None:
        number = pl.Float64()
        return number if len(task.columns) == 1 else pl.Struct(dict.fromkeys(task.columns, number))
    kinds = {type(c) for c in classes}
    kind: Any = {bool: pl.Boolean, int: pl.Int64, float: pl.Float64}.get(kinds.pop(), pl.String)
    if kinds:  # classes of several kinds: their texts
        kind = pl.String
    return pl.List(kind) if getattr(task, "mode", "") == "multilabel" else kind


def _json(value: Any) -> str | None:
    return value if value is None or isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _cell(task: Task, value: Any, as_text: bool) -> Any:
    if _as_json(task):
        return _json(value)
    if as_text and value is not None:
        return [str(v) for v in value] if isinstance(value, list) else str(value)
    return value


def frame_of(task: Task, first: int, answers: Sequence[Answer], *, sure: bool = False) -> pl.DataFrame:
    """Answers of neighbouring rows, from row `first` on, as a part. An error's row has no value, only the error.

    `sure`: the package promises something: `set` (texts), `abstained`, `suggestion`,
    `odd` (JSON)."""
    schema = schema_of(task, sure=sure)
    as_text = schema["value"] in (pl.String, pl.List(pl.String))
    rows = []
    for place, answer in enumerate(answers):
        chances = answer.probabilities or {}
        value, suggestion = (_cell(task, v, as_text) for v in (answer.value, answer.suggestion))
        low, high = answer.interval or (None, None)
        row = {"row": first + place, "value": value, "low": low, "high": high}
        row["details"] = _json(answer.details)
        row |= {"confidence": max(chances.values(), default=None)} | {f"p_{k}": p for k, p in chances.items()}
        row |= {"used": list(answer.used), "absent": list(answer.absent), "notes": answer.notes}
        row |= {"abstained": answer.abstained, "suggestion": suggestion, "odd": _json(answer.odd)}
        row["set"] = None if answer.set is None else [str(label) for label in answer.set]
        row["error"] = None if answer.error is None else str(answer.error)
        rows.append({key: row.get(key) for key in schema})
    return pl.DataFrame(rows, schema=schema)
