"""A package's answers over tables: evaluate, predict, batch. None of it needs torch."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fuseline.data.table import Table
from fuseline.data.windows import open_table, which
from fuseline.errors import FuselineError
from fuseline.modalities import MediaRoot
from fuseline.progress import voice
from fuseline.runtime import Answer, Predictor, load


def _table_for(
    predictor: Predictor,
    table: Any,
    absent: Sequence[str],
    extra: Sequence[str] = (),
    cache_dir: Path | None = None,
) -> Table:
    """Open a table for a package. A column that the package reads must be there unless it is named in `absent`."""
    recipe = predictor.package.recipe
    opened = open_table(table, recipe.table, cache_dir=cache_dir)
    for name in absent:
        if name not in recipe.inputs and name not in predictor.rows.columns:
            raise FuselineError(
                "unknown_column", f"the model has no input {name!r}", f"it has: {', '.join(recipe.inputs)}"
            )
    needed = [
        column
        for name, spec in recipe.inputs.items()
        for column in recipe.columns_of(name)
        if spec.required and name not in absent and column not in absent
    ]
    opened.require([*dict.fromkeys(needed), *extra])
    return opened


def _columns_there(table: Table, wanted: Sequence[str], absent: Sequence[str], predictor: Predictor) -> list[str]:
    hidden = {c for n in absent if n in predictor.rows.names for c in predictor.package.recipe.columns_of(n)} | set(
        absent
    )
    return [c for c in dict.fromkeys(wanted) if c in table.columns and c not in hidden]


def evaluate(
    model: str | Path | Predictor,
    table: Any,
    *,
    absent: Sequence[str] = (),
    bootstrap: int = 1000,
    subsets: bool = True,
    quiet: bool = False,
) -> dict[str, Any]:
    """Metrics of a package on a labelled table, as metrics.json holds them. Needs no torch.

    Args:
        model: a package, a run's folder, or a loaded predictor.
        table: anything that :func:`train` takes as a table, with the target column.
        absent: inputs to treat as absent in every row, whether or not the table has them.
        bootstrap: resamples of the 95 % intervals.
        subsets: also measure every subset of inputs (the degradation table).
        quiet: say nothing.
    """
    from fuseline.runtime.evaluate import evaluate_frames

    predictor = model if isinstance(model, Predictor) else load(model)
    opened = _table_for(predictor, table, absent, predictor.task.columns)
    columns = _columns_there(
        opened, [*predictor.rows.columns, *predictor.rows.by, *predictor.task.columns], absent, predictor
    )
    return evaluate_frames(
        predictor,
        opened.batches(columns, 256),
        rows=opened.n_rows,
        media=_media(predictor, opened),
        voice=voice("quiet" if quiet else "auto"),
        bootstrap=bootstrap,
        subsets_too=subsets,
    )


def _media(predictor: Predictor, table: Table) -> MediaRoot:
    root = predictor.package.recipe.table.media_root
    return MediaRoot(root or (str(table.folder) if table.folder else None))


def predict(
    model: str | Path | Predictor,
    table: Any,
    out: str | Path,
    *,
    absent: Sequence[str] = (),
    batch_size: int = 32,
    quiet: bool = False,
) -> dict[str, int]:
    """Answer every row of a table into a file (.csv, .jsonl or .parquet), streaming. Returns counts of rows, errors,
    and of a package that may abstain how often it did (`abstained`).

    A row that cannot be read gets its error in the `error` column; the rest goes on. A window of a long table is
    named by its `time` (the last moment known) and `entity`: windows stand in the order of series and time.

    Args:
        model: a package, a run's folder, or a loaded predictor.
        table: the rows.
        out: where the answers go; written whole or not at all.
        absent: inputs to treat as absent in every row.
        batch_size: rows run at once.
        quiet: say nothing.
    """
    predictor = model if isinstance(model, Predictor) else load(model)
    target = Path(out)
    kind = target.suffix.lower()
    if kind not in (".csv", ".jsonl", ".parquet"):
        raise FuselineError("bad_output", f"cannot write {target.name}", "the name ends in .csv, .jsonl or .parquet")
    opened = _table_for(predictor, table, absent)
    columns = _columns_there(opened, [*predictor.rows.columns, *predictor.rows.by], absent, predictor)
    counts = {"rows": 0, "errors": 0} | ({} if predictor.sure is None else {"abstained": 0})
    named = which(opened, 0, 0).columns
    more = [
        *_sure_columns(predictor),
        *(["details"] if predictor.task.name not in ("classification", "regression") else []),
    ]
    speak = voice("quiet" if quiet else "auto")
    target.parent.mkdir(parents=True, exist_ok=True)
    new = target.with_name(target.name + ".new")
    with new.open("w", encoding="utf-8", newline="") as file, speak.track("predicting", opened.n_rows) as advance:
        writer = csv.writer(file)
        if kind == ".csv":
            writer.writerow(
                [
                    "row",
                    *named,
                    "value",
                    "confidence",
                    "probabilities",
                    "used",
                    "absent",
                    "notes",
                    "error",
                    *more,
                ]
            )
        frames = opened.batches(columns, 256)
        for start, answers in predictor.predict_frames(frames, media=_media(predictor, opened), batch_size=batch_size):
            names = which(opened, start, start + len(answers)).to_dicts() or [{}] * len(answers)
            for i, answer in enumerate(answers):
                counts["rows"] += 1
                counts["errors"] += answer.error is not None
                if answer.abstained:
                    counts["abstained"] += 1
                confidence = max(answer.probabilities.values()) if answer.probabilities else None
                if kind == ".csv":
                    writer.writerow(
                        [
                            start + i,
                            *names[i].values(),
                            _value(answer),
                            confidence,
                            _dump(answer.probabilities),
                            _dump(answer.used),
                            _dump(answer.absent),
                            _dump(answer.notes),
                            str(answer.error) if answer.error else "",
                            *(_plain(getattr(answer, name)) for name in more),
                        ]
                    )
                else:
                    plain = answer.to_dict()
                    if kind == ".parquet":  # one column a key, nested values as JSON text
                        plain = {k: v if isinstance(v, str) else _dump(v) for k, v in plain.items()}
                    file.write(json.dumps({"row": start + i, **names[i], **plain}, ensure_ascii=False) + "\n")
            advance(len(answers))
    if kind == ".parquet":
        import polars as pl

        schema = {
            "row": pl.Int64,
            **dict.fromkeys(named, pl.String),
            "value": pl.String,
            "probabilities": pl.String,
            "used": pl.String,
        }
        schema |= {"absent": pl.String, "interval": pl.String, "notes": pl.String, "error": pl.String}
        schema |= dict.fromkeys(more, pl.String)
        lines = target.with_name(target.name + ".lines")
        pl.scan_ndjson(new, schema=schema).sink_parquet(lines)
        new.unlink()
        new = lines
    new.replace(target)
    return counts


def batch(
    model: str | Path | Predictor,
    table: Any,
    out: str | Path,
    *,
    engine: str = "local",
    workers: int | None = None,
    batch_size: int = 32,
    shard_rows: int = 10_000,
    resume: bool = True,
    absent: Sequence[str] = (),
    quiet: bool = False,
) -> dict[str, int]:
    """Answer every row of a large table into Parquet parts of a folder. A run that was killed goes on where it was.

    Columns of a part: row, value, confidence and p_LABEL (a class's probability) or low and high (an interval), used,
    absent, notes, error. A row that cannot be read has only its error; the rest goes on.

    Args:
        model: a package, a run's folder, or a loaded predictor.
        table: the rows; streamed where it is a file.
        out: a folder of its own for the parts. Read it as `part-*.parquet`.
        engine: "local", with every core of this process, or "ray": Ray Data, on a cluster if there is one.
        workers: processes of the Ray engine. Default: one a core.
        batch_size: rows run at once.
        shard_rows: rows of a part; what a kill can cost.
        resume: go on with the parts that the folder holds; False: throw them away.
        absent: inputs to treat as absent in every row.
        quiet: say nothing.

    Returns:
        Counts: rows, errors, parts, kept (parts that were there before).

    Raises:
        FuselineError: ``changed`` where the folder's parts were made from another package, table or options;
            ``cannot_write``, ``missing_column``, ``empty_table`` and the like.
    """
    from fuseline.runtime.batch import fingerprint_of, score_table
    from fuseline.runtime.parts import Parts

    predictor = model if isinstance(model, Predictor) else load(model)
    parts = Parts(Path(out).resolve())
    parts.check()
    opened = _table_for(predictor, table, absent, cache_dir=parts.table)
    return score_table(
        predictor,
        opened,
        parts.folder,
        columns=_columns_there(opened, [*predictor.rows.columns, *predictor.rows.by], absent, predictor),
        media=_media(predictor, opened),
        fingerprint=fingerprint_of(table, opened),
        absent=absent,
        engine=engine,
        workers=workers,
        batch_size=batch_size,
        shard_rows=shard_rows,
        resume=resume,
        voice=voice("quiet" if quiet else "auto"),
    )


def _sure_columns(predictor: Predictor) -> tuple[str, ...]:
    """Columns of a file of answers that only packages with promises fill."""
    return () if predictor.sure is None else ("set", "interval", "abstained", "suggestion", "odd")


def _plain(value: Any) -> str:
    return value if isinstance(value, str) else _dump(value)


def _value(answer: Answer) -> Any:
    value = answer.value
    if answer.abstained:
        return ""
    if isinstance(value, (str, int, float)):
        return value
    return "" if answer.error else json.dumps(value, ensure_ascii=False, default=str)  # an empty list is an answer


def _dump(value: Any) -> str:
    return "" if value is None or value == [] else json.dumps(value, ensure_ascii=False, default=str)
